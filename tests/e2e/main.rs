//! dpd end to end in network namespaces, with usual programs: dig, curl, nginx, iperf3, ping, traceroute.
//! Attackers forge frames. Needs root.

#[path = "../common/mod.rs"]
mod common;

mod atomic;
mod attacks;
mod bad_input;
mod bulk;
mod clock;
mod dns;
mod draining;
mod drift;
mod flap;
mod flows;
mod follow;
mod hosts;
mod identity_backends;
mod interfaces;
mod lab;
mod link;
mod link_types;
mod load;
mod local_routes;
mod metrics;
mod new_workloads;
mod ping;
mod plan;
mod rejected;
mod runtime_drop_ins;
mod sockets;
mod stream;
mod takeover;
mod tools;
mod troubleshooting;
mod two_labs;
mod upgrade;
mod web;

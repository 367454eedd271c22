//! dpd end to end in network namespaces, with usual programs: dig, curl, nginx, iperf3, ping, traceroute.
//! Needs root.

#[path = "../common/release.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod release;

mod atomic;
mod bad_input;
mod bulk;
mod dns;
mod drift;
mod follow;
mod hosts;
mod interfaces;
mod lab;
mod load;
mod metrics;
mod ping;
mod plan;
mod refused;
mod seeing;
mod side_by_side;
mod stream;
mod takeover;
mod upgrade;
mod web;

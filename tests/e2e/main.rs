//! The whole of dpd in namespaces, with the programs that people use: dig, curl, nginx, iperf3, ping, traceroute.
//! Needs root.

mod atomic;
mod bad_input;
mod bulk;
mod dns;
mod drift;
mod follow;
mod hosts;
mod interfaces;
mod lab;
mod metrics;
mod ping;
mod plan;
mod refused;
mod seeing;
mod side_by_side;
mod stream;
mod takeover;
mod web;

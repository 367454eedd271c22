//! Plain data for every layer: no kernel, no files, host byte order.

pub mod announce;
pub mod budget;
pub mod catalog;
pub mod conntrack;
pub mod digest;
pub mod drop_reason;
pub mod families;
pub mod flow;
pub mod forwarding;
pub mod host;
pub mod link_local;
pub mod maglev;
pub mod policy;
pub mod prefix;
pub mod process;
pub mod protocol;
pub mod service;
pub mod socket_ports;
pub mod state;
pub mod status;
pub mod xdp;

//! Two hosts with dpd, a router between them, and a host of the world behind the router.

mod advice;
mod announce;
mod bridge;
mod checksum;
mod edge;
mod external;
mod host_traffic;
mod jumbo;
mod l3_uplink;
mod maglev;
mod masquerade;
mod mtu;
pub mod pages;
mod policy;
mod prefilter;
mod routes;
mod service;
mod sockets;
mod stack;
mod uplinks;
mod world;

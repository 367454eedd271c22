//! Two hosts with a router between them, a dpd on each, and a host of the world behind the router.

mod foreign;
mod mtu;
mod policy;
mod prefilter;
mod routes;
mod service;
mod world;

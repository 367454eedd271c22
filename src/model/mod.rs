//! Plain data that every layer speaks: no kernel, no files, host byte order.

pub mod catalog;
pub mod conntrack;
pub mod flow;
pub mod policy;
pub mod protocol;
pub mod service;
pub mod state;
pub mod world;

//! A small HTTP server for read-only pages: one request for each connection, few connections, short timeouts. A slow
//! or silent client makes room for others when there are too many, and never delays the daemon.

mod port;
mod request;
mod response;
mod server;

pub use port::Port;
pub use response::{Response, Status};
pub use server::{Limits, Server};

#[cfg(test)]
mod tests;

//! Flows, from the ring buffer to their readers: the command line over a socket, and the journal.
//!
//! ```text
//!   ring buffer ─▶ translate: Flow ─┬─▶ Server ─▶ filter ─▶ a queue for each client ─▶ JSON lines ─▶ `dpd observe`
//!                                   └─▶ journal: one record each
//! ```

pub mod client;
pub mod filter;
pub mod hub;
pub mod journal;
pub mod line;
pub mod protocol;
pub mod record;
pub mod server;
pub mod socket;
pub mod translate;

#[cfg(test)]
mod samples;

//! Packets through the real hooks and the chain behind them, by test runs: an input is a sequence of packets, and the oracle
//! says what no packet may bring about. The fuzzer generates inputs; an ordinary test runs those of `corpus/packet`. Needs
//! root.
//!
//! ```text
//! bytes ─▶ input: steps ─▶ node: runs each, sees what it left in the maps ─▶ oracle: panics, or says nothing
//! ```

mod counts;
mod frame;
pub mod input;
mod node;
mod oracle;
mod outcome;
pub mod world;

pub use node::Fuzzed;

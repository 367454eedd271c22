//! The packet toolbox is itself put to the test: against numbers from the RFCs, and against packets that Linux
//! sent over a veth and tcpdump wrote down.

#[path = "../common/mod.rs"]
mod common;

mod built;
mod captured;
mod printed;
mod verified;

//! Any bytes as a record of the ring of events: `make fuzz`.

#![no_main]

#[path = "../record.rs"]
mod record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| record::check(bytes));

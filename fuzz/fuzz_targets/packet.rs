//! Any bytes as packets through the hooks: `make fuzz`, as root.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../packet/mod.rs"]
mod packet;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU8, Ordering};

use packet::Fuzzed;

const COUNTERS: usize = 1 << 14;

/// The programs are not instrumented: what they were seen to do is libFuzzer's coverage, by this section.
// SAFETY: the section holds bytes, and has no other meaning to the linker.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static SEEN: [AtomicU8; COUNTERS] = [const { AtomicU8::new(0) }; COUNTERS];

thread_local! {
    /// libFuzzer calls from one thread.
    static NODE: RefCell<Fuzzed> = RefCell::new(Fuzzed::new());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let note = |feature: u32| {
        SEEN[feature as usize % COUNTERS].fetch_add(1, Ordering::Relaxed);
    };
    NODE.with_borrow_mut(|node| node.check(bytes, note));
});

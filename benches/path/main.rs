//! The cost of each path through the programs: test runs of single packets, the mean of the middle half of many; and the work of
//! the verifier.
//!
//! A test run has warm caches and no other program; the kernel's work before and after is not included. It is timed in steps of
//! the machine's clock, which are coarser than the differences of interest: hence a mean and not the median.
//!
//! `cargo bench --bench path -- turn SNAT` runs the short connections alone whose way has this word in its name.

#[path = "../../tests/common/mod.rs"]
mod common;
mod external;
mod local;
mod turn;

use common::packet::{Mac, Packet};
use common::runner::{Node, Verdict};
use dpd::bpf::attach::hook::Hook;

/// Packets of each path that are measured.
const PACKETS: usize = 4000;
const CLIENT: &str = "lxc-client";
const SERVER: &str = "lxc-server";
const UPLINK: &str = "ens5";
const ROUTER: Mac = [0x02, 0, 0, 0, 0, 1];

/// A packet at a hook of an interface.
type Sent = (Hook, &'static str, Packet);

struct Row {
    what: String,
    hook: Hook,
    interface: &'static str,
    /// Sent before, to make the connection.
    before: Vec<Sent>,
    /// What becomes of the packet, so that no other path is measured.
    verdict: Verdict,
    packet: Box<dyn Fn(u16) -> Packet>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.iter().position(|word| *word == "turn") {
        Some(at) => turns(words.get(at + 1).copied().unwrap_or_default()),
        None => {
            paths();
            turns("");
        }
    }
}

/// Short connections, by the ways whose name has this word.
fn turns(word: &str) {
    println!("\nthe packets of a short TCP connection, one after the other");
    let word = if word == "--bench" { "" } else { word };
    for way in turn::ways() {
        if way.what.contains(word) {
            turn::measure(&Node::new(&external::config()), &way);
        }
    }
}

fn paths() {
    println!("nanoseconds a packet: mean of the middle half (lowest tenth) of {PACKETS} test runs");
    for row in local::rows() {
        measure(&Node::new(local::CONFIG), &row);
    }
    let config = external::config();
    println!("\nwith external services and masquerade");
    for row in external::rows() {
        measure(&external::node(&config, &row), &row);
    }
    for (config, services) in [
        (&external::routed(), "elsewhere"),
        (&config, "at its address"),
    ] {
        for row in external::rows_of_the_host(services) {
            measure(&Node::new(config), &row);
        }
    }
    println!("\n{:44} {:>6}", "instructions verified", "");
    for program in Node::new(&config).programs() {
        println!("{:44} {:6}", program.name, program.verified_instructions);
    }
}

fn measure(node: &Node, row: &Row) {
    for (hook, interface, packet) in &row.before {
        node.time(*hook, interface, vec![packet.build()]);
    }
    let (bench, packet) = (node.bench(), (row.packet)(9_999).build());
    let (hook, interface) = (row.hook, row.interface);
    let run = || bench.run(hook, interface, &packet);
    let (verdict, _) = node.namespace().run(run);
    assert_eq!(verdict, row.verdict, "{}", row.what);
    let frames: Vec<Vec<u8>> = (0..PACKETS)
        .map(|number| (row.packet)(10_000 + number as u16).build())
        .collect();
    let mut times = node.time(row.hook, row.interface, frames);
    times.sort_unstable();
    let middle = &times[PACKETS / 4..PACKETS * 3 / 4];
    let mean = middle.iter().sum::<std::time::Duration>() / middle.len() as u32;
    println!(
        "{:44} {:6} ({})",
        row.what,
        mean.as_nanos(),
        times[PACKETS / 10].as_nanos()
    );
}

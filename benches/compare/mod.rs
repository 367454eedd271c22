//! The same load on several networks, in turn and several rounds: figures with their ratios to plain routing.
//!
//! Absolute figures differ between machines and over time. The ratios of set-ups that are run in turn hold; a row whose rounds
//! differ by more than a quarter is marked as noisy. Client and server share a core where one waits for the other: then the path
//! of the packets is measured, not the wakeup of a core.

#![allow(dead_code, reason = "every bench compiles all of it and uses some")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::namespace::Namespace;
use crate::lab::{self, BenchLab, Setup, port};
use crate::load::{self, Servers, Turns};

pub const ROUNDS: usize = 5;
pub const TIME: Duration = Duration::from_secs(2);
/// The core of client and server.
pub const CORE: usize = 0;
/// Rounds that differ by more than this share of their median are noisy.
const NOISY: f64 = 0.25;

/// The set-ups that are compared. The default is plain routing, or what the others are a ratio of.
pub trait Compared: Copy + Ord + Default {
    fn name(self) -> &'static str;
}

impl Compared for Setup {
    fn name(self) -> &'static str {
        Setup::name(self)
    }
}

/// A client and a server in one of the set-ups.
pub struct Side<'a, S> {
    pub setup: S,
    pub client: &'a Namespace,
    pub server: &'a Namespace,
    /// The address that the client uses.
    pub to: IpAddr,
}

impl<'a> Side<'a, Setup> {
    /// From this client to the service of a lab.
    pub fn of_lab(lab: &'a BenchLab, client: &'a Namespace) -> Side<'a, Setup> {
        Side {
            setup: lab.setup,
            client,
            server: &lab.server,
            to: lab.service(port::ECHO).ip(),
        }
    }
}

impl<S> Side<'_, S> {
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.to, port)
    }
}

/// Servers of a lab, on the core of its client.
pub fn serve(lab: &BenchLab) -> Servers {
    let start = || Servers::start(lab::server(port::ECHO), CORE);
    lab.server.run(start)
}

/// Figures of one kind, by set-up, one for each round.
#[derive(Default)]
pub struct Figures<S>(BTreeMap<S, Vec<f64>>);

impl<S: Compared> Figures<S> {
    pub fn add(&mut self, setup: S, figure: f64) {
        self.0.entry(setup).or_default().push(figure);
    }

    fn median(&self, setup: S) -> f64 {
        let mut figures = self.0.get(&setup).cloned().unwrap_or_default();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The distance between the best and the worst round, as a share of the median.
    fn spread(&self, setup: S) -> f64 {
        let figures = self.0.get(&setup).map_or(&[][..], Vec::as_slice);
        let (low, high) = figures.iter().fold((f64::MAX, 0f64), |(low, high), f| {
            (low.min(*f), high.max(*f))
        });
        (high - low) / self.median(setup)
    }

    pub fn print(&self, what: &str, unit: &str) {
        let base = self.median(S::default());
        print!("{what:34}");
        for setup in self.0.keys().copied() {
            let (median, spread) = (self.median(setup), self.spread(setup));
            let noisy = if spread > NOISY { " noisy" } else { "" };
            print!(
                "  {:>10.1} {unit} {:5.2} ±{:2.0}%{noisy}",
                median,
                median / base,
                spread * 50.0
            );
        }
        println!();
    }
}

/// What the columns of the figures are.
pub fn print_head<S: Compared>(setups: impl Iterator<Item = S>) {
    println!(
        "medians of {ROUNDS} rounds of {} s: figure, ratio to plain routing, half the spread\n{:34}  {}",
        TIME.as_secs(),
        "",
        setups
            .map(Compared::name)
            .collect::<Vec<_>>()
            .join("                  ")
    );
}

/// The selection on the command line; everything without arguments.
pub struct Chosen(Vec<String>);

impl Chosen {
    pub fn new() -> Chosen {
        let words = std::env::args().skip(1);
        Chosen(words.filter(|word| !word.starts_with('-')).collect())
    }

    /// Whether `name` is chosen, or none of its kind is.
    pub fn has(&self, name: &str, kind: &[&str]) -> bool {
        let is_of_kind = |word: &String| kind.contains(&word.as_str());
        !self.0.iter().any(is_of_kind) || self.0.iter().any(|word| word == name)
    }
}

/// Rates and times of one kind of turn.
pub fn turns<S: Compared>(sides: &[Side<S>], what: &str, load: fn(SocketAddr, Duration) -> Turns) {
    turns_after(|_| (), sides, what, load);
}

/// The same, each after `prepare`.
pub fn turns_after<S: Compared>(
    prepare: impl Fn(S),
    sides: &[Side<S>],
    what: &str,
    load: fn(SocketAddr, Duration) -> Turns,
) {
    let (mut rates, mut p50, mut p99) =
        (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..ROUNDS {
        for side in sides {
            let to = side.at(port::ECHO);
            prepare(side.setup);
            let turns = side.client.run(|| {
                load::pin(CORE);
                load(to, TIME)
            });
            rates.add(side.setup, turns.rate);
            p50.add(side.setup, turns.p50.as_secs_f64() * 1e6);
            p99.add(side.setup, turns.p99.as_secs_f64() * 1e6);
        }
    }
    rates.print(what, "/s");
    p50.print("  half of them within", "µs");
    p99.print("  99 of 100 within", "µs");
}

/// A server, ended when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One long transfer by TCP: its rate, the machine's busy time for each gigabyte, and its retransmissions.
pub fn bulk<S: Compared>(sides: &[Side<S>]) {
    let (mut rates, mut cpu, mut again) =
        (Figures::default(), Figures::default(), Figures::default());
    let _servers: Vec<Process> = sides
        .iter()
        .map(|side| {
            let mut server = lab::inside(side.server, "iperf3");
            server.args(["-s", "-p", &port::IPERF.to_string(), "-A", "1"]);
            Process(server.stdout(Stdio::null()).spawn().expect("start iperf3"))
        })
        .collect();
    for side in sides {
        lab::wait_for_listener(side.server, port::IPERF);
    }
    for _ in 0..ROUNDS {
        for side in sides {
            let to = side.at(port::IPERF);
            let busy = load::busy_time();
            let report = lab::inside(side.client, "iperf3")
                .args(["-J", "-A", "0", "-t", &TIME.as_secs().to_string()])
                .args(["-c", &to.ip().to_string(), "-p", &to.port().to_string()])
                .output()
                .expect("run iperf3");
            let busy = load::busy_time() - busy;
            let report: Value = serde_json::from_slice(&report.stdout).expect("iperf3's report");
            let sum = |side: &str, key: &str| report["end"][side][key].as_f64().unwrap_or(f64::NAN);
            let gigabytes = sum("sum_received", "bytes") / 1e9;
            rates.add(side.setup, sum("sum_received", "bits_per_second") / 1e9);
            cpu.add(side.setup, busy.as_secs_f64() / gigabytes);
            again.add(side.setup, sum("sum_sent", "retransmits") / gigabytes);
        }
    }
    rates.print("TCP bulk", "Gb/s");
    cpu.print("  CPU for each gigabyte", "s");
    again.print("  retransmitted segments, each GB", "");
}

//! The same traffic over plain routing, over nftables and over dpd (to another workload, and by an uplink past the host's stack and
//! through it), in turn, several rounds; and what a packet costs in dpd's hook program meanwhile.
//!
//! Absolute figures differ between machines and over time. The ratios of set-ups that are run in turn hold;
//! a row whose rounds differ by more than a quarter is marked as noisy. Client and server share a core where one waits for
//! the other: then the path of the packets is measured, not the wakeup of a core.
//!
//! `cargo bench --bench traffic -- udp dpd` runs what it names alone: `udp`, `tcp`, `connect`, `bulk`, `dns`, `packets`, and
//! set-ups by their names.

#[path = "../tests/common/mod.rs"]
mod common;
mod lab;
mod load;

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::{BenchLab, Setup, port, runs};
use load::{Servers, Turns};
use serde_json::Value;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);
/// The core of client and server.
const CORE: usize = 0;
/// Rounds that differ by more than this share of their median are noisy.
const NOISY: f64 = 0.25;

/// Figures of one kind, by set-up, one for each round.
#[derive(Default)]
struct Figures(BTreeMap<Setup, Vec<f64>>);

impl Figures {
    fn add(&mut self, setup: Setup, figure: f64) {
        self.0.entry(setup).or_default().push(figure);
    }

    fn median(&self, setup: Setup) -> f64 {
        let mut figures = self.0.get(&setup).cloned().unwrap_or_default();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The distance between the best and the worst round, as a share of the median.
    fn spread(&self, setup: Setup) -> f64 {
        let figures = self.0.get(&setup).map_or(&[][..], Vec::as_slice);
        let (low, high) = figures.iter().fold((f64::MAX, 0f64), |(low, high), f| {
            (low.min(*f), high.max(*f))
        });
        (high - low) / self.median(setup)
    }

    fn print(&self, what: &str, unit: &str) {
        let plain = self.median(Setup::Plain);
        print!("{what:34}");
        for setup in self.0.keys().copied() {
            let (median, spread) = (self.median(setup), self.spread(setup));
            let noisy = if spread > NOISY { " noisy" } else { "" };
            print!(
                "  {:>10.1} {unit} {:5.2} ±{:2.0}%{noisy}",
                median,
                median / plain,
                spread * 50.0
            );
        }
        println!();
    }
}

fn main() {
    lab::need_root();
    lab::need_programs(&["nft", "iperf3", "dnsperf", "knotd"]);
    lab::own_bpffs();
    lab::warn_if_busy();
    let chosen = Chosen::of(std::env::args().skip(1));
    let setups = Setup::ALL.into_iter();
    let labs: Vec<BenchLab> = setups
        .filter(|setup| chosen.has(*setup))
        .map(|setup| BenchLab::new(setup, ""))
        .collect();
    let _servers: Vec<Servers> = labs.iter().map(serve).collect();
    println!(
        "medians of {ROUNDS} rounds of {} s: figure, ratio to plain routing, half the spread\n{:34}  {}",
        TIME.as_secs(),
        "",
        labs.iter()
            .map(|lab| lab.setup.name())
            .collect::<Vec<_>>()
            .join("                  ")
    );
    let jobs: [(&str, &dyn Fn()); 5] = [
        ("udp", &|| {
            turns(&labs, "UDP round trips", load::udp_ping_pong)
        }),
        ("tcp", &|| {
            turns(&labs, "TCP round trips", load::tcp_ping_pong)
        }),
        ("connect", &|| {
            turns(&labs, "TCP connect, request, close", load::tcp_connect);
        }),
        ("bulk", &|| bulk(&labs)),
        ("dns", &|| dns(&labs)),
    ];
    for (name, job) in jobs {
        if chosen.runs(name) {
            job();
        }
    }
    if let Some(lab) = labs.iter().find(|lab| lab.setup == Setup::Dpd)
        && chosen.runs("packets")
    {
        per_packet(lab);
    }
}

/// The selection on the command line; everything without arguments.
struct Chosen(Vec<String>);

impl Chosen {
    fn of(words: impl Iterator<Item = String>) -> Chosen {
        Chosen(words.filter(|word| !word.starts_with('-')).collect())
    }

    fn has(&self, setup: Setup) -> bool {
        let is_setup = |word: &String| Setup::ALL.iter().any(|setup| setup.name() == word);
        !self.0.iter().any(is_setup) || self.0.iter().any(|word| word == setup.name())
    }

    fn runs(&self, job: &str) -> bool {
        let is_job = |word: &String| Setup::ALL.iter().all(|setup| setup.name() != word);
        !self.0.iter().any(is_job) || self.0.iter().any(|word| word == job)
    }
}

fn serve(lab: &BenchLab) -> Servers {
    let start = || Servers::start(lab::server(port::ECHO), CORE);
    lab.server.run(start)
}

/// Rates and times of one kind of turn.
fn turns(labs: &[BenchLab], what: &str, load: fn(std::net::SocketAddr, Duration) -> Turns) {
    let (mut rates, mut p50, mut p99) = Default::default();
    let figures: [&mut Figures; 3] = [&mut rates, &mut p50, &mut p99];
    for _ in 0..ROUNDS {
        for lab in labs {
            let turns = lab.client.run(|| {
                load::pin(CORE);
                load(lab.service(port::ECHO), TIME)
            });
            figures[0].add(lab.setup, turns.rate);
            figures[1].add(lab.setup, turns.p50.as_secs_f64() * 1e6);
            figures[2].add(lab.setup, turns.p99.as_secs_f64() * 1e6);
        }
    }
    rates.print(what, "/s");
    p50.print("  half of them within", "µs");
    p99.print("  99 of 100 within", "µs");
}

/// A server, ended when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One long transfer by TCP: its rate, the machine's busy time for each gigabyte, and its retransmissions.
fn bulk(labs: &[BenchLab]) {
    let (mut rates, mut cpu, mut again) =
        (Figures::default(), Figures::default(), Figures::default());
    let _servers: Vec<Process> = labs
        .iter()
        .map(|lab| {
            let mut server = lab::inside(&lab.server, "iperf3");
            server.args(["-s", "-p", &port::IPERF.to_string(), "-A", "1"]);
            Process(server.stdout(Stdio::null()).spawn().expect("start iperf3"))
        })
        .collect();
    for lab in labs {
        lab::wait_for_tcp(&lab.client, lab.service(port::IPERF));
    }
    for _ in 0..ROUNDS {
        for lab in labs {
            let to = lab.service(port::IPERF);
            let busy = load::busy_time();
            let report = lab::inside(&lab.client, "iperf3")
                .args(["-J", "-A", "0", "-t", &TIME.as_secs().to_string()])
                .args(["-c", &to.ip().to_string(), "-p", &to.port().to_string()])
                .output()
                .expect("run iperf3");
            let busy = load::busy_time() - busy;
            let report: Value = serde_json::from_slice(&report.stdout).expect("iperf3's report");
            let sum = |side: &str, key: &str| report["end"][side][key].as_f64().unwrap_or(f64::NAN);
            let gigabytes = sum("sum_received", "bytes") / 1e9;
            rates.add(lab.setup, sum("sum_received", "bits_per_second") / 1e9);
            cpu.add(lab.setup, busy.as_secs_f64() / gigabytes);
            again.add(lab.setup, sum("sum_sent", "retransmits") / gigabytes);
        }
    }
    rates.print("TCP bulk", "Gb/s");
    cpu.print("  CPU for each gigabyte", "s");
    again.print("  retransmitted segments, each GB", "");
}

/// Queries to a real server, as fast as it replies.
fn dns(labs: &[BenchLab]) {
    let folder = tempfile::tempdir().expect("make a folder");
    let queries = folder.path().join("queries");
    std::fs::write(&queries, "host.example. A\n").expect("write the queries");
    let _servers: Vec<Process> = labs
        .iter()
        .map(|lab| {
            let place = folder.path().join(lab.setup.name());
            Process(lab::dns_server(lab, &place))
        })
        .collect();
    for lab in labs {
        lab::wait_for_tcp(&lab.client, lab.service(port::DNS));
    }
    let mut rates = Figures::default();
    for _ in 0..ROUNDS {
        for lab in labs {
            let output = lab::inside(&lab.client, "dnsperf")
                .args(["-s", &lab.service(port::DNS).ip().to_string(), "-d"])
                .arg(&queries)
                .args(["-l", &TIME.as_secs().to_string(), "-c", "8"])
                .output()
                .expect("run dnsperf");
            let text = String::from_utf8_lossy(&output.stdout);
            let rate = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("Queries per second:"))
                .and_then(|rate| rate.trim().parse().ok());
            rates.add(lab.setup, rate.unwrap_or_else(|| panic!("dnsperf: {text}")));
        }
    }
    rates.print("DNS queries", "/s");
}

/// Nanoseconds a run of dpd's hook program under loads of one side each; counting costs some 60 of them.
fn per_packet(lab: &BenchLab) {
    println!(
        "\nnanoseconds a packet in dpd_from_container, the lowest of {ROUNDS} rounds (counting is some 60 of them)"
    );
    let _counting = lab::Stats::enable();
    let _sink = lab.server.run(|| load::sink(lab::server(port::SINK)));
    let client = |load: &(dyn Fn() + Sync)| {
        lab.client.run(|| {
            load::pin(CORE);
            load();
        });
    };
    let time = Duration::from_secs(1);
    let loads: [(&str, &(dyn Fn() + Sync)); 6] = [
        ("requests without replies, UDP", &|| {
            load::udp_stream(lab.service(port::SINK), time);
        }),
        ("replies of a service, UDP", &|| {
            load::udp_replies(lab.service(port::ECHO), time);
        }),
        ("UDP round trips, both sides", &|| {
            load::udp_ping_pong(lab.service(port::ECHO), time);
        }),
        ("TCP round trips, both sides", &|| {
            load::tcp_ping_pong(lab.service(port::ECHO), time);
        }),
        ("TCP, the client's segments of a transfer", &|| {
            load::tcp_send(lab.service(port::ECHO), time);
        }),
        ("TCP connect, request, close", &|| {
            load::tcp_connect(lab.service(port::ECHO), time);
        }),
    ];
    let begun = Instant::now();
    for (what, load) in loads {
        let rounds = (0..ROUNDS).map(|_| {
            let before = runs(lab.daemon().root(), "dpd_from_container");
            client(load);
            runs(lab.daemon().root(), "dpd_from_container")
                .since(before)
                .ns()
        });
        println!("  {what:44} {:7.0}", rounds.fold(f64::MAX, f64::min));
    }
    println!("  ({} s)", begun.elapsed().as_secs());
    programs(lab);
}

/// The size of each program, and its cost under the load so far. The kernel counts a step of the chain with the hook that
/// it was entered by.
fn programs(lab: &BenchLab) {
    println!(
        "\n{:22} {:>8} {:>12} {:>20} {:>14}",
        "program", "ns a run", "runs", "instructions verified", "bytes compiled"
    );
    let root = lab.daemon().root();
    let reader = dpd::bpf::reader::Reader::open(root).expect("read the datapath");
    for program in reader.programs().expect("read the programs") {
        let runs = runs(root, &program.name);
        let ns = match runs.count {
            0 => "-".to_owned(),
            _ => format!("{:.0}", runs.ns()),
        };
        println!(
            "{:22} {ns:>8} {:12} {:20} {:14}",
            program.name, runs.count, program.verified_instructions, program.jited_bytes
        );
    }
}

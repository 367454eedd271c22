//! The same traffic over plain routing, over nftables and over dpd (to another workload, and by an uplink past the host's stack and
//! through it), in turn, several rounds; and what a packet costs in dpd's hook program meanwhile.
//!
//! `cargo bench --bench traffic -- udp dpd` runs what it names alone: `udp`, `tcp`, `connect`, `bulk`, `dns`, `packets`, and
//! set-ups by their names.

#[path = "../tests/common/mod.rs"]
mod common;
mod compare;
mod lab;
mod load;

use std::time::{Duration, Instant};

use compare::{CORE, Chosen, Figures, Process, ROUNDS, Side, TIME, bulk, serve, turns};
use lab::{BenchLab, Setup, port, runs};
use load::Servers;

/// What is measured, by its name on the command line.
const JOBS: [&str; 6] = ["udp", "tcp", "connect", "bulk", "dns", "packets"];

fn main() {
    lab::need_root();
    lab::need_programs(&["nft", "iperf3", "dnsperf", "knotd"]);
    let _cgroup = lab::own_bpffs();
    lab::warn_if_busy();
    let chosen = Chosen::new();
    let names = Setup::ALL.map(Setup::name);
    let labs: Vec<BenchLab> = Setup::ALL
        .into_iter()
        .filter(|setup| chosen.has(setup.name(), &names))
        .map(|setup| BenchLab::new(setup, ""))
        .collect();
    let _servers: Vec<Servers> = labs.iter().map(serve).collect();
    let sides: Vec<Side<Setup>> = labs
        .iter()
        .map(|lab| Side::of_lab(lab, &lab.client))
        .collect();
    compare::print_head(labs.iter().map(|lab| lab.setup));
    for job in JOBS {
        if !chosen.has(job, &JOBS) {
            continue;
        }
        match job {
            "udp" => turns(&sides, "UDP round trips", load::udp_ping_pong),
            "tcp" => turns(&sides, "TCP round trips", load::tcp_ping_pong),
            "connect" => turns(&sides, "TCP connect, request, close", load::tcp_connect),
            "bulk" => bulk(&sides),
            "dns" => dns(&labs),
            _ => labs
                .iter()
                .filter(|lab| lab.setup == Setup::Dpd)
                .for_each(per_packet),
        }
    }
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

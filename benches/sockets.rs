//! The host's own programs at a service: over plain routing to the server itself, over nftables (DNAT at the output hook) and over dpd,
//! whose programs translate the calls of sockets instead of packets.
//!
//! `cargo bench --bench sockets -- tcp dpd` runs what it names alone: `call`, `udp`, `tcp`, `connect`, and set-ups by their names.

#[path = "../tests/common/mod.rs"]
mod common;
mod compare;
mod lab;
mod load;

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use compare::{CORE, Chosen, Figures, ROUNDS, Side, TIME, serve, turns_after};
use lab::{BenchLab, FRONTEND, SERVER, Setup, port};
use load::Servers;

/// What is measured, by its name on the command line.
const JOBS: [&str; 4] = ["call", "udp", "tcp", "connect"];
const SETUPS: [Setup; 3] = [Setup::Plain, Setup::Nftables, Setup::Dpd];
/// Calls between two looks at the clock.
const CALLS: u32 = 1000;

fn main() {
    lab::need_root();
    lab::need_programs(&["nft"]);
    let cgroup = lab::own_bpffs();
    // The load comes from this process: it is in the group that dpd serves while dpd is measured, and only then.
    let join = |setup| match (&cgroup, setup) {
        (Some(cgroup), Setup::Dpd) => cgroup.enter(),
        (Some(cgroup), _) => cgroup.leave(),
        (None, _) => {}
    };
    lab::warn_if_busy();
    let chosen = Chosen::new();
    let names = SETUPS.map(Setup::name);
    let labs: Vec<BenchLab> = SETUPS
        .into_iter()
        .filter(|setup| chosen.has(setup.name(), &names))
        .map(|setup| BenchLab::new(setup, ""))
        .collect();
    let _servers: Vec<Servers> = labs.iter().map(serve).collect();
    labs.iter()
        .filter(|lab| lab.setup == Setup::Nftables)
        .for_each(translate_output);
    // The client is the host.
    let sides: Vec<Side<Setup>> = labs
        .iter()
        .map(|lab| Side::of_lab(lab, &lab.node))
        .collect();
    compare::print_head(labs.iter().map(|lab| lab.setup));
    for job in JOBS {
        if !chosen.has(job, &JOBS) {
            continue;
        }
        match job {
            "call" => calls(join, &sides),
            "udp" => turns_after(join, &sides, "UDP round trips", load::udp_ping_pong),
            "tcp" => turns_after(join, &sides, "TCP round trips", load::tcp_ping_pong),
            _ => turns_after(
                join,
                &sides,
                "TCP connect, request, close",
                load::tcp_connect,
            ),
        }
    }
    join(Setup::Plain);
}

fn translate_output(lab: &BenchLab) {
    let ports = lab::ports();
    // The kernel routes before it translates.
    lab.node.ip(&format!("route add {FRONTEND} dev lxc-server"));
    lab::rules(
        &lab.node,
        &format!(
            "table ip host {{
                chain service {{
                    type nat hook output priority -100
                    ip daddr {FRONTEND} tcp dport {{ {ports} }} dnat to {SERVER}
                    ip daddr {FRONTEND} udp dport {{ {ports} }} dnat to {SERVER}
                }}
            }}"
        ),
    );
}

/// What a call of connect() costs, of a UDP socket: no packet follows. With nftables it is translated later, with its first packet.
fn calls(join: impl Fn(Setup), sides: &[Side<Setup>]) {
    let (mut to_service, mut elsewhere) = (Figures::default(), Figures::default());
    for _ in 0..ROUNDS {
        for side in sides {
            let (service, server) = (side.at(port::ECHO), lab::server(port::ECHO));
            join(side.setup);
            let [called, other] = side.client.run(|| {
                load::pin(CORE);
                [service, server].map(call)
            });
            to_service.add(side.setup, called);
            elsewhere.add(side.setup, other);
        }
    }
    to_service.print("connect() to the service", "ns");
    elsewhere.print("connect() to the server itself", "ns");
}

/// Nanoseconds of a call: the best thousand, which the least disturbs.
fn call(to: SocketAddr) -> f64 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let started = Instant::now();
    let mut best = f64::MAX;
    while started.elapsed() < TIME / 4 {
        let before = Instant::now();
        for _ in 0..CALLS {
            socket.connect(to).expect("connect");
        }
        best = best.min(before.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    best
}

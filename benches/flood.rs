//! The effect of a flood by one workload on others: an established flow of another workload does round trips meanwhile, on a
//! core of its own, and must not lose one; drops are counted, events limited, and the daemon's CPU share is bounded.
//!
//! ```text
//!   client 10.200.0.64 ──── round trips, on core 0 ──┐
//!   server 10.200.0.44 ◄────── and the flood ────────┤ node
//!   flooder 10.200.0.66 ──── hping3, on core 1 ──────┘
//! ```

#[path = "../tests/common/mod.rs"]
mod common;
mod lab;
mod load;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::namespace::Namespace;
use dpd::bpf::reader::Reader;
use lab::{BenchLab, Setup, port};
use load::Servers;

const FLOODER: &str = "10.200.0.66";
const TIME: Duration = Duration::from_secs(4);

/// The flooder is a workload of its own, which is allowed some ports of the server.
const MORE: &str = r#"
[interfaces.lxc-flooder]
role = "endpoint"
addresses = ["10.200.0.66"]
identity = "flooder"

[identities.flooder]
id = 20003

[policies.flooders]
subject = "server"
ingress = [{ from = ["flooder"], ports = ["7000/tcp", "1000-9999/udp"] }]

[conntrack]
size = 16384
"#;

/// The name of each flood, and hping3's arguments.
const FLOODS: [(&str, &str); 7] = [
    ("nothing", ""),
    (
        "SYNs to the service, each from another port",
        "-S -p 7000 10.32.0.10",
    ),
    (
        "SYNs from spoofed addresses",
        "-S -p 7000 --rand-source 10.32.0.10",
    ),
    ("UDP to consecutive ports", "--udp -p ++1000 10.200.0.44"),
    ("UDP in fragments", "--udp -p 7001 -d 64 -f 10.200.0.44"),
    ("SYNs that no rule allows", "-S -p 9 10.200.0.44"),
    ("SYNs to no port of a service", "-S -p 9 10.32.0.10"),
];

fn main() {
    lab::need_root();
    lab::need_programs(&["hping3", "taskset"]);
    lab::own_bpffs();
    lab::warn_if_busy();
    let lab = BenchLab::new(Setup::Dpd, MORE);
    let flooder = lay_flooder(&lab);
    let _servers = lab
        .server
        .run(|| Servers::start(lab::server(port::ECHO), 0));
    println!(
        "{:46} {:>10} {:>10} {:>8}  what dpd counted (dpd's share of a core)",
        "flood, by one workload", "packets/s", "turns/s", "99 of 100"
    );
    for (what, words) in FLOODS {
        measure(&lab, &flooder, what, words);
    }
}

/// One more workload on the node.
fn lay_flooder(lab: &BenchLab) -> Namespace {
    let flooder = Namespace::new();
    lab.node.ip(&format!(
        "link add lxc-flooder type veth peer name eth0 netns {}",
        flooder.pid()
    ));
    lab.node.ip("link set lxc-flooder up");
    lab.node
        .ip(&format!("route add {FLOODER}/32 dev lxc-flooder"));
    flooder.ip("link set eth0 up");
    flooder.ip(&format!("address add {FLOODER}/32 dev eth0"));
    flooder.ip("route add 10.200.0.1 dev eth0");
    flooder.ip("route add default via 10.200.0.1");
    // The interface is created after the daemon's start: wait until it is attached.
    let reader = Reader::open(lab.daemon().root()).expect("read the datapath");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while reader.state().expect("read the tables").endpoints.len() < 3 {
        assert!(std::time::Instant::now() < deadline, "it is not attached");
        std::thread::sleep(Duration::from_millis(50));
    }
    flooder
}

/// Counters before and after.
struct Counts {
    sent: u64,
    drops: BTreeMap<String, u64>,
    events_limited: u64,
    suppressed: u64,
    ticks: u64,
}

fn counts(lab: &BenchLab) -> Counts {
    let reader = Reader::open(lab.daemon().root()).expect("read the datapath");
    let loss = reader.event_loss().expect("read the counters");
    let mut drops = BTreeMap::new();
    for metric in reader.metrics().expect("read the counters") {
        if metric.reason != 0 {
            let reason = dpd::model::drop_reason::words(metric.reason);
            *drops.entry(reason.to_string()).or_default() += metric.packets;
        }
    }
    let catalog = reader.catalog().expect("read the catalog");
    let flooder = catalog.endpoints["lxc-flooder"].ifindex;
    // What it sent was forwarded, or dropped by a reason.
    let sent = reader.metrics().expect("read the counters").into_iter();
    let sent = sent
        .filter(|metric| Some(metric.ifindex) == flooder)
        .filter(|metric| metric.reason != 0 || metric.direction == "egress")
        .map(|metric| metric.packets)
        .sum();
    Counts {
        sent,
        drops,
        events_limited: loss.rate_limited + loss.ring_full,
        suppressed: loss.suppressed,
        ticks: lab::ticks(lab.daemon().pid()),
    }
}

/// hping3; it is ended when dropped.
struct Flood(Option<Child>);

impl Flood {
    fn start(flooder: &Namespace, words: &str) -> Flood {
        if words.is_empty() {
            return Flood(None);
        }
        let mut command: Command = lab::inside(flooder, "taskset");
        command.args(["-c", "1", "timeout", "60", "hping3", "-q", "--flood"]);
        command.args(words.split_whitespace());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Flood(Some(child.expect("start hping3")))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // An error means that it has exited already. `timeout` passes the signal on.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

fn measure(lab: &BenchLab, flooder: &Namespace, what: &str, words: &str) {
    let turns = lab.client.run(|| {
        load::pin(0);
        // The flow is established before the flood begins: a lost round trip ends the bench.
        load::udp_ping_pong_after(lab.service(port::ECHO), TIME, || {
            (counts(lab), Flood::start(flooder, words))
        })
    });
    let (turns, (before, flood)) = turns;
    let after = counts(lab);
    drop(flood);
    let seconds = TIME.as_secs_f64();
    let rate = (after.sent - before.sent) as f64 / seconds;
    let mut seen: Vec<String> = after
        .drops
        .iter()
        .map(|(reason, count)| (reason, count - before.drops.get(reason).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{count} × {reason}"))
        .collect();
    let limited = after.events_limited - before.events_limited;
    let suppressed = after.suppressed - before.suppressed;
    if limited + suppressed > 0 {
        seen.push(format!(
            "{suppressed} reports suppressed, {limited} over the rate"
        ));
    }
    println!(
        "{what:46} {rate:10.0} {:10.0} {:8.0?}  {} ({:.1} %)",
        turns.rate,
        turns.p99,
        seen.join(", "),
        (after.ticks - before.ticks) as f64 / seconds
    );
}

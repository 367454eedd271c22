//! The effect of a flood by one workload, or by the network with forged sources, on others: an established flow of another
//! workload does round trips meanwhile, on a core of its own, and must not lose one; idle connections of others must not be
//! evicted; drops are counted, events limited, and the daemon's CPU share is bounded.
//!
//! ```text
//!   client 10.200.0.64 ──── round trips, on core 0 ──┐
//!   server 10.200.0.44 ◄────── and the flood ────────┤ node ── 192.0.2.2, the network: hping3, on core 1
//!   flooder 10.200.0.66 ──── hping3, on core 1 ──────┘
//! ```

#[path = "../tests/common/mod.rs"]
mod common;
mod lab;
mod load;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::namespace::Namespace;
use dpd::bpf::reader::Reader;
use dpd::model::conntrack::ConntrackState;
use lab::{BenchLab, Setup, port};
use load::Servers;

const FLOODER: &str = "10.200.0.66";
const TIME: Duration = Duration::from_secs(4);
/// The port of a UDP server that answers the network's flood.
const FLOODED: u16 = 7003;
/// Connections of the client that are idle during all floods.
const IDLE: usize = 200;

/// The flooder is a workload of its own, which is allowed some ports of the server.
const MORE: &str = r#"
[interfaces.lxc-flooder]
role = "endpoint"
addresses = ["10.200.0.66"]
identity = "flooder"

[interfaces.up0]
role = "uplink"

[identities.flooder]
id = 20003

[policies.flooders]
subject = "server"
ingress = [{ from = ["flooder", "world"], ports = ["7000/tcp", "1000-9999/udp"] }]

[conntrack]
size = 16384
"#;

#[derive(Clone, Copy, PartialEq)]
enum From {
    Workload,
    Network,
}

/// Who floods, the name of the flood, and hping3's arguments.
const FLOODS: [(From, &str, &str); 9] = [
    (From::Workload, "nothing", ""),
    (
        From::Workload,
        "SYNs to the service, each from another port",
        "-S -p 7000 10.32.0.10",
    ),
    (
        From::Workload,
        "SYNs from spoofed addresses",
        "-S -p 7000 --rand-source 10.32.0.10",
    ),
    (
        From::Workload,
        "UDP to consecutive ports",
        "--udp -p ++1000 10.200.0.44",
    ),
    (
        From::Workload,
        "UDP in fragments",
        "--udp -p 7001 -d 64 -f 10.200.0.44",
    ),
    (
        From::Workload,
        "SYNs that no rule allows",
        "-S -p 9 10.200.0.44",
    ),
    (
        From::Workload,
        "SYNs to no port of a service",
        "-S -p 9 10.32.0.10",
    ),
    (
        From::Network,
        "the network: SYNs from forged sources",
        "-S -p 7000 --rand-source 10.200.0.44",
    ),
    (
        From::Network,
        "the network: UDP that is answered, forged too",
        "--udp -p 7003 -d 8 --rand-source 10.200.0.44",
    ),
];

fn main() {
    lab::need_root();
    lab::need_programs(&["hping3", "taskset"]);
    lab::own_bpffs();
    lab::warn_if_busy();
    let lab = BenchLab::new(Setup::Dpd, MORE);
    let flooder = lay_flooder(&lab);
    let network = lay_network(&lab);
    // A server of its own: the flood would fill the receive buffer of the one that the turns are measured with.
    let _flooded = lab.server.run(|| Servers::start(lab::server(FLOODED), 1));
    let _servers = lab
        .server
        .run(|| Servers::start(lab::server(port::ECHO), 0));
    let _idle = lab.client.run(|| idle(&lab));
    println!(
        "{:46} {:>10} {:>10} {:>8} {:>5}  what dpd counted (dpd's share of a core)",
        "flood, by one workload unless said", "packets/s", "turns/s", "99 of 100", "idle"
    );
    for (from, what, words) in FLOODS {
        let by = match from {
            From::Workload => &flooder,
            From::Network => &network,
        };
        measure(&lab, by, what, words);
    }
}

/// Connections of the client through the service that have worked, and say no more.
fn idle(lab: &BenchLab) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(lab.service(port::ECHO)).expect("connect");
        let mut answer = [load::STREAM; load::SIZE];
        stream.write_all(&answer).expect("ask");
        stream.read_exact(&mut answer).expect("be answered");
        stream
    };
    (0..IDLE).map(open).collect()
}

/// How many of them the tables still know as established.
fn idle_left(lab: &BenchLab) -> usize {
    let reader = Reader::open(lab.daemon().root()).expect("read the datapath");
    let connections = reader.connections().expect("read the connections");
    let client: IpAddr = lab::CLIENT.parse().expect("an address");
    let left = connections.iter().filter(|connection| {
        connection.protocol == 6
            && connection.src.ip() == client
            && connection.state == ConntrackState::Established
    });
    left.count()
}

/// The network behind an uplink of the node.
fn lay_network(lab: &BenchLab) -> Namespace {
    let network = Namespace::new();
    lab.node.ip(&format!(
        "link add up0 type veth peer name eth0 netns {}",
        network.pid()
    ));
    lab.node.ip("link set up0 up");
    lab.node.ip("address add 192.0.2.1/24 dev up0");
    lab.node.ip("route add default via 192.0.2.2");
    network.ip("link set eth0 up");
    network.ip("address add 192.0.2.2/24 dev eth0");
    network.ip("route add 10.200.0.0/16 via 192.0.2.1");
    network
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
    Counts {
        sent: received(lab, "lxc-flooder") + received(lab, "up0"),
        drops,
        events_limited: loss.rate_limited + loss.ring_full,
        suppressed: loss.suppressed,
        ticks: lab::ticks(lab.daemon().pid()),
    }
}

/// The packets that have come in by an interface of the node.
fn received(lab: &BenchLab, interface: &str) -> u64 {
    let path = format!("/proc/{}/net/dev", lab.node.pid());
    let table = std::fs::read_to_string(path).expect("read the statistics");
    let row = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let packets = row.and_then(|row| row.split_whitespace().nth(1));
    packets.and_then(|text| text.parse().ok()).expect("a count")
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
        "{what:46} {rate:10.0} {:10.0} {:8.0?} {:5}  {} ({:.1} %)",
        turns.rate,
        turns.p99,
        idle_left(lab),
        seen.join(", "),
        (after.ticks - before.ticks) as f64 / seconds
    );
}

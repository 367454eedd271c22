//! The effect of a flood by one workload, or by the network with forged sources, on others: an established flow does round trips
//! meanwhile, on a core of its own, and must not lose one; idle connections of others must not be evicted; drops are counted,
//! events limited, and the daemon's CPU share is bounded.
//!
//! ```text
//!   client 10.200.0.64 ── round trips, on core 0 ──┐      ┌─up0─ 192.0.2.2, the network: hping3, on core 1
//!   server 10.200.0.44 ◄───── and the flood ───────┤ node ├─up1─ 10.200.1.44, a server on another host
//!   flooder 10.200.0.66 ── hping3, on core 1 ──────┘      └─up2─ 192.0.3.2, a client: round trips, on core 0
//! ```
//!
//! Where the network floods an external service, the round trips are those of the client behind up2 with the same service. It has
//! an uplink of its own, and XDP runs on up0 alone: native XDP of a veth has one queue of 256 packets for all who send by it, which
//! drops what does not fit.

#[path = "../tests/common/mod.rs"]
mod common;
mod lab;
mod load;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use dpd::bpf::reader::Reader;
use dpd::model::conntrack::ConntrackState;
use lab::{BenchLab, Setup, port};
use load::Servers;

const FLOODER: &str = "10.200.0.66";
const TIME: Duration = Duration::from_secs(4);
/// The port of a UDP server that answers the network's flood.
const FLOODED: u16 = 7003;
/// Connections of each kind that are idle during all floods.
const IDLE: usize = 200;
/// Addresses of external services: with the backend here, and on another host.
const NEAR: &str = "203.0.113.10";
const FAR: &str = "203.0.113.20";
/// The server on another host.
const FAR_SERVER: &str = "10.200.1.44";

/// The flooder is a workload of its own, which is allowed some ports of the server.
const MORE: &str = r#"
[interfaces.lxc-flooder]
role = "endpoint"
addresses = ["10.200.0.66"]
identity = "flooder"

[interfaces.up0]
role = "uplink"

[interfaces.up1]
role = "uplink"
xdp = "off"

[interfaces.up2]
role = "uplink"
xdp = "off"

[nodes.node-b]
addresses = ["198.51.100.2"]
cidrs = ["10.200.1.0/24"]

[prefilter.abusers]
deny = ["198.18.0.0/15"]

[services.near]
frontends = ["203.0.113.10:7000/tcp", "203.0.113.10:7000/udp"]
backends = ["10.200.0.44:7000"]
external = true

[services.near-flooded]
frontends = ["203.0.113.10:7003/udp"]
backends = ["10.200.0.44:7003"]
external = true

[services.far]
frontends = ["203.0.113.20:7000/tcp", "203.0.113.20:7000/udp"]
backends = ["10.200.1.44:7000"]
external = true

[services.far-flooded]
frontends = ["203.0.113.20:7003/udp"]
backends = ["10.200.1.44:7003"]
external = true

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
    /// The network, toward the workload's own address.
    Network,
    /// The network, toward the external service with its backend here.
    Near,
    /// And toward the one with its backend on another host.
    Far,
}

/// Who floods, the name of the flood, and hping3's arguments.
const FLOODS: [(From, &str, &str); 16] = [
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
    (From::Near, "nothing; turns of a client of the network", ""),
    (
        From::Near,
        "an external service, forged SYNs",
        "-S -p 7000 --rand-source 203.0.113.10",
    ),
    (
        From::Near,
        "an external service, UDP that is answered",
        "--udp -p 7003 -d 8 --rand-source 203.0.113.10",
    ),
    (
        From::Near,
        "an external service, SYNs of a denied prefix",
        "-S -p 7000 -a 198.18.0.66 203.0.113.10",
    ),
    (From::Far, "nothing; turns by SNAT", ""),
    (
        From::Far,
        "a server on another host, forged SYNs",
        "-S -p 7000 --rand-source 203.0.113.20",
    ),
    (
        From::Far,
        "a server on another host, UDP that is answered",
        "--udp -p 7003 -d 8 --rand-source 203.0.113.20",
    ),
];

fn main() {
    lab::need_root();
    lab::need_programs(&["hping3", "taskset"]);
    let _cgroup = lab::own_bpffs();
    lab::warn_if_busy();
    let lab = BenchLab::new(Setup::Dpd, MORE);
    let flooder = lay_flooder(&lab);
    let (network, far, client) = (Namespace::new(), Namespace::new(), Namespace::new());
    lay_network(&lab, [&network, &far, &client]);
    // Servers of their own: the flood would fill the receive buffer of the one that the turns are measured with.
    let serve = |place: &Namespace, address, port, core| {
        place.run(|| Servers::start(lab::at(address, port), core))
    };
    let _servers = [(&lab.server, lab::SERVER), (&far, FAR_SERVER)].map(|(place, address)| {
        [
            serve(place, address, FLOODED, 1),
            serve(place, address, port::ECHO, 0),
        ]
    });
    let _idle = [
        lab.client.run(|| idle(lab.service(port::ECHO))),
        client.run(|| idle(lab::at(NEAR, port::ECHO))),
        client.run(|| idle(lab::at(FAR, port::ECHO))),
    ];
    println!(
        "{:50} {:>10} {:>10} {:>8} {:>11}  what dpd counted (dpd's share of a core)",
        "flood, by one workload unless said", "packets/s", "turns/s", "99 of 100", "idle"
    );
    for (from, what, words) in FLOODS {
        let by = if from == From::Workload {
            &flooder
        } else {
            &network
        };
        let turns = match from {
            From::Workload | From::Network => (&lab.client, lab.service(port::ECHO)),
            From::Near => (&client, lab::at(NEAR, port::ECHO)),
            From::Far => (&client, lab::at(FAR, port::ECHO)),
        };
        measure(&lab, turns, what, || Flood::start(by, words));
    }
}

/// Connections to a service that have worked, and say no more.
fn idle(to: SocketAddr) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(to).expect("connect");
        let mut reply = [load::STREAM; load::SIZE];
        stream.write_all(&reply).expect("send");
        stream.read_exact(&mut reply).expect("no reply");
        stream
    };
    (0..IDLE).map(open).collect()
}

/// How many of them the tables still have as established: the client's, the network's with a backend here, and by SNAT.
fn idle_left(lab: &BenchLab) -> [usize; 3] {
    let reader = Reader::open(lab.daemon().root()).expect("read the datapath");
    let connections = reader.connections().expect("read the connections");
    [
        lab.service(port::ECHO).ip().to_string(),
        NEAR.into(),
        FAR.into(),
    ]
    .map(|frontend| {
        let left = connections.iter().filter(|connection| {
            connection.protocol == 6
                && connection.dst.ip().to_string() == frontend
                && connection.state == ConntrackState::Established
        });
        left.count()
    })
}

/// The network, the server on another host, and a client, each behind an uplink of the node.
fn lay_network(lab: &BenchLab, [network, far, client]: [&Namespace; 3]) {
    lab::lay_uplink(&lab.node, "up0", "192.0.2.1", network, "192.0.2.2");
    lab::lay_uplink(&lab.node, "up1", "198.51.100.1", far, "198.51.100.2");
    lab::lay_uplink(&lab.node, "up2", "192.0.3.1", client, "192.0.3.2");
    far.ip(&format!("address add {FAR_SERVER}/32 dev eth0"));
    lab.node.ip("route add default via 192.0.2.2");
    lab.node
        .ip(&format!("route add {FAR_SERVER} via 198.51.100.2"));
    let attached = || {
        let reader = Reader::open(lab.daemon().root()).expect("read the datapath");
        let attachments = lab.node.run(|| reader.attachments());
        let attachments = attachments.expect("read the links");
        BTreeSet::from_iter(attachments.iter().map(|of| of.ifindex))
    };
    // Three workloads and three uplinks.
    wait_until(|| attached().len() == 6);
}

/// Interfaces are created after the daemon's start: waits until it has attached its programs.
fn wait_until(is_attached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_attached() {
        assert!(Instant::now() < deadline, "an interface is not attached");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One more workload on the node.
fn lay_flooder(lab: &BenchLab) -> Namespace {
    let flooder = Namespace::new();
    lab::lay_workload(&lab.node, "flooder", FLOODER, &flooder);
    let reader = Reader::open(lab.daemon().root()).expect("read the datapath");
    wait_until(|| reader.state().expect("read the tables").endpoints.len() == 3);
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

fn measure(
    lab: &BenchLab,
    (client, to): (&Namespace, SocketAddr),
    what: &str,
    flood: impl FnOnce() -> Flood + Send,
) {
    let turns = client.run(|| {
        load::pin(0);
        // The flow is established before the flood begins: a lost round trip ends the bench.
        load::udp_ping_pong_after(to, TIME, || (counts(lab), flood()))
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
        "{what:50} {rate:10.0} {:10.0} {:8.0?} {:>11}  {} ({:.1} %)",
        turns.rate,
        turns.p99,
        idle_left(lab).map(|left| left.to_string()).join(" "),
        seen.join(", "),
        (after.ticks - before.ticks) as f64 / seconds
    );
}

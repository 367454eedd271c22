//! The same small network several times, with different forwarding on the node:
//!
//! ```text
//!   client 10.200.0.64 ──eth0│lxc-client─┐
//!                                        ├ node
//!   server 10.200.0.44 ──eth0│lxc-server─┘
//! ```
//!
//! plain routing, without a service or a policy; nftables with DNAT and a stateful filter; dpd with a service and a
//! policy; dpd to a server beyond an uplink, past the host's stack and through it; and the floor, programs that do nothing but redirect
//! each packet to the other side. Everything lives in namespaces without names: nothing is left behind by a killed bench, except an
//! empty control group, which the next one removes.

#![allow(dead_code, reason = "every bench compiles all of it and uses some")]

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libbpf_rs::query::ProgInfoIter;
use tempfile::TempDir;

use crate::common::cgroup::OwnCgroup;
use crate::common::foreign;
use crate::common::namespace::Namespace;

pub const CLIENT: &str = "10.200.0.64";
pub const SERVER: &str = "10.200.0.44";
/// The service's address, where there is one.
pub const FRONTEND: &str = "10.32.0.10";

/// Ports of the servers.
pub mod port {
    pub const ECHO: u16 = 7000;
    pub const SINK: u16 = 7001;
    pub const IPERF: u16 = 5201;
    pub const DNS: u16 = 53;
}

pub const PORTS: [u16; 4] = [port::ECHO, port::SINK, port::IPERF, port::DNS];

/// What the node does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setup {
    /// Routes only: the client uses the server's own address.
    #[default]
    Plain,
    /// DNAT of the service address and a stateful filter that allows the client.
    Nftables,
    /// A service and a policy that allows the client.
    Dpd,
    /// The same with the server beyond an uplink, past the host's stack.
    Direct,
    /// And through the host's stack.
    Stack,
    /// A program that redirects everything to the other side, with the MACs that are right there: the least that a datapath in a
    /// tc hook may cost.
    Floor,
}

impl Setup {
    pub const ALL: [Setup; 6] = [
        Setup::Plain,
        Setup::Nftables,
        Setup::Dpd,
        Setup::Direct,
        Setup::Stack,
        Setup::Floor,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Setup::Plain => "plain",
            Setup::Nftables => "nftables",
            Setup::Dpd => "dpd",
            Setup::Direct => "direct",
            Setup::Stack => "stack",
            Setup::Floor => "floor",
        }
    }
}

/// One of the networks.
pub struct BenchLab {
    pub setup: Setup,
    pub client: Namespace,
    pub server: Namespace,
    pub node: Namespace,
    daemon: Option<Daemon>,
    /// Links of programs, which stay attached for as long as these are open.
    links: Vec<OwnedFd>,
}

/// A running dpd, ended when dropped.
pub struct Daemon {
    process: Child,
    folder: TempDir,
    root: PathBuf,
}

impl BenchLab {
    /// Creates it. `more` is added to dpd's configuration.
    pub fn new(setup: Setup, more: &str) -> BenchLab {
        let lab = BenchLab::lay(setup);
        match setup {
            Setup::Plain => lab,
            Setup::Floor => BenchLab {
                links: floor(&lab),
                ..lab
            },
            Setup::Nftables => {
                nftables(&lab.node);
                lab
            }
            Setup::Dpd | Setup::Direct | Setup::Stack => BenchLab {
                daemon: Some(Daemon::start(&lab.node, |root, socket| {
                    configuration(setup, root, socket) + more
                })),
                ..lab
            },
        }
    }

    fn lay(setup: Setup) -> BenchLab {
        let (client, server, node) = (Namespace::new(), Namespace::new(), Namespace::new());
        node.sysctl("net.ipv4.ip_forward=1");
        for (name, address, workload) in [("client", CLIENT, &client), ("server", SERVER, &server)]
        {
            lay_workload(&node, name, address, workload);
        }
        BenchLab {
            setup,
            client,
            server,
            node,
            daemon: None,
            links: Vec::new(),
        }
    }

    /// The address that the client uses.
    pub fn service(&self, port: u16) -> SocketAddr {
        let address = match self.setup {
            Setup::Plain | Setup::Floor => SERVER,
            _ => FRONTEND,
        };
        at(address, port)
    }

    /// The dpd on the node.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("there is dpd on the node")
    }
}

/// A workload's link, and the routes both ways.
pub fn lay_workload(node: &Namespace, name: &str, address: &str, workload: &Namespace) {
    node.ip(&format!(
        "link add lxc-{name} type veth peer name eth0 netns {}",
        workload.pid()
    ));
    node.ip(&format!("link set lxc-{name} up"));
    node.ip(&format!("address add 10.200.0.1/32 dev lxc-{name}"));
    node.ip(&format!("route add {address}/32 dev lxc-{name}"));
    workload.ip("link set eth0 up");
    workload.ip(&format!("address add {address}/32 dev eth0"));
    workload.ip("route add 10.200.0.1 dev eth0");
    workload.ip("route add default via 10.200.0.1");
}

/// An uplink to a peer on the same /24, whose router is the node.
pub fn lay_uplink(node: &Namespace, name: &str, own: &str, peer: &Namespace, address: &str) {
    node.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}",
        peer.pid()
    ));
    node.ip(&format!("link set {name} up"));
    node.ip(&format!("address add {own}/24 dev {name}"));
    peer.ip("link set eth0 up");
    peer.ip(&format!("address add {address}/24 dev eth0"));
    peer.ip(&format!("route add default via {own}"));
}

/// Each side's gateway has the other side's MAC, so that the programs need not write any.
fn floor(lab: &BenchLab) -> Vec<OwnedFd> {
    const CLIENT_MAC: &str = "02:00:00:00:00:01";
    const SERVER_MAC: &str = "02:00:00:00:00:02";
    let sides = [
        (
            &lab.client,
            CLIENT_MAC,
            SERVER_MAC,
            ["lxc-client", "lxc-server"],
        ),
        (
            &lab.server,
            SERVER_MAC,
            CLIENT_MAC,
            ["lxc-server", "lxc-client"],
        ),
    ];
    sides
        .map(|(workload, own, other, links)| {
            workload.ip(&format!("link set eth0 address {own}"));
            workload.ip(&format!("neigh replace 10.200.0.1 lladdr {other} dev eth0"));
            lab.node.run(|| {
                let [from, to] = links.map(|link| dpd::net::ifindex(link).expect("a link"));
                foreign::attach_first(from, &foreign::redirect(c"floor", to))
            })
        })
        .into()
}

/// The server itself.
pub fn server(port: u16) -> SocketAddr {
    at(SERVER, port)
}

pub fn at(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address");
    SocketAddr::new(address, port)
}

/// Hand-written rules for the same: DNAT of the service address, and only the client is allowed.
fn nftables(node: &Namespace) {
    let ports = ports();
    rules(node, &format!(
        "table ip bench {{
            chain service {{
                type nat hook prerouting priority dstnat
                ip daddr {FRONTEND} tcp dport {{ {ports} }} dnat to {SERVER}
                ip daddr {FRONTEND} udp dport {{ {ports} }} dnat to {SERVER}
            }}
            chain filter {{
                type filter hook forward priority filter; policy drop
                ct state established,related accept
                ct state invalid drop
                iifname lxc-client ip saddr {CLIENT} ip daddr {SERVER} tcp dport {{ {ports} }} accept
                iifname lxc-client ip saddr {CLIENT} ip daddr {SERVER} udp dport {{ {ports} }} accept
            }}
        }}"
    ));
}

/// The ports of the servers, as nftables has a list.
pub fn ports() -> String {
    PORTS.map(|port| port.to_string()).join(", ")
}

/// Gives nftables of the node these rules.
pub fn rules(node: &Namespace, rules: &str) {
    let mut nft = inside(node, "nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start nft (of the package nftables)");
    nft.stdin
        .take()
        .expect("nft's input is a pipe")
        .write_all(rules.as_bytes())
        .expect("give nft its rules");
    assert!(nft.wait().expect("wait for nft").success(), "nft failed");
}

/// A command in a namespace.
pub fn inside(namespace: &Namespace, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{}/ns/net", namespace.pid()))
        .args(["--", program]);
    command
}

impl Daemon {
    /// Starts it in this namespace with the configuration that names these pins and this socket.
    pub fn start(node: &Namespace, text: impl FnOnce(&Path, &Path) -> String) -> Daemon {
        let folder = TempDir::new().expect("make a folder");
        let socket = folder.path().join("dpd.sock");
        // A bpffs takes no name with a dot.
        let root = Path::new("/sys/fs/bpf").join(format!("node-{}", node.pid()));
        let config = folder.path().join("config.toml");
        fs::write(&config, text(&root, &socket)).expect("write the configuration");
        let log = fs::File::create(folder.path().join("log")).expect("make the log");
        let process = inside(node, env!("CARGO_BIN_EXE_dpd"))
            .args(["run", "--config"])
            .arg(&config)
            .env("RUST_LOG", "warn")
            .stderr(log)
            .spawn()
            .expect("start dpd");
        let mut daemon = Daemon {
            process,
            folder,
            root,
        };
        daemon.wait_for(&socket);
        daemon
    }

    /// `nsenter` becomes dpd, so this is its own.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where its maps and links are pinned.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    fn wait_for(&mut self, socket: &Path) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(socket).is_err() {
            let ended = self.process.try_wait().expect("check dpd");
            let is_late = Instant::now() > deadline;
            if ended.is_some() || is_late {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("dpd does not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already where that fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The interface that leads to the server: a workload's, or an uplink.
fn server_interface(setup: Setup) -> String {
    let role = match setup {
        Setup::Direct => "role = \"uplink\"\nforwarding = \"direct\"",
        Setup::Stack => "role = \"uplink\"\nforwarding = \"stack\"",
        _ => {
            return format!(
                "role = \"endpoint\"\naddresses = [\"{SERVER}\"]\nidentity = \"server\""
            );
        }
    };
    role.to_owned()
}

fn configuration(setup: Setup, root: &Path, socket: &Path) -> String {
    let frontends = |protocol| PORTS.map(|port| format!("\"{FRONTEND}:{port}/{protocol}\""));
    let ports = |protocol| PORTS.map(|port| format!("\"{port}/{protocol}\""));
    let mut text = format!(
        r#"
[daemon]
bpf_root = "{}"
socket = "{}"
log = "stderr"

[interfaces.lxc-client]
role = "endpoint"
addresses = ["{CLIENT}"]
identity = "client"

[interfaces.lxc-server]
{}

[identities]
client = {{ id = 20001 }}
server = {{ id = 20002 }}

[policies.clients]
subject = "server"
ingress = [{{ from = ["client"], ports = [{}, {}] }}]
"#,
        root.display(),
        socket.display(),
        server_interface(setup),
        ports("udp").join(", "),
        ports("tcp").join(", "),
    );
    for port in PORTS {
        let of_port = |list: [String; 4]| {
            let mut list = list.into_iter();
            list.find(|text| text.contains(&format!(":{port}/")))
                .expect("a port of the list")
        };
        text.push_str(&format!(
            "\n[services.port-{port}]\nfrontends = [{}, {}]\nbackends = [\"{SERVER}:{port}\"]\n",
            of_port(frontends("udp")),
            of_port(frontends("tcp"))
        ));
    }
    text
}

/// A bpffs of this process alone, and a control group, which is all that dpd has of cgroup2 as long as it lives.
#[must_use]
pub fn own_bpffs() -> Option<OwnCgroup> {
    let cgroup = OwnCgroup::new();
    crate::common::programs::own_bpffs();
    cgroup.inspect(OwnCgroup::mount)
}

/// Exits with a message if the bench can't run.
pub fn need_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("this bench makes network namespaces and loads eBPF programs: run it as root");
        std::process::exit(1);
    }
}

/// Whether the program can be started here.
pub fn has_program(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|found| found.status.success())
}

/// Exits with a message if programs that the bench needs are missing.
pub fn need_programs(programs: &[&str]) {
    let is_missing = |program: &&&str| !has_program(program);
    let missing: Vec<&str> = programs.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        eprintln!(
            "this bench runs programs that are missing here: {}. Run tools/install-packages bench",
            missing.join(", ")
        );
        std::process::exit(1);
    }
}

/// Warns if the machine is busy: the figures are unreliable then.
pub fn warn_if_busy() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    if load > 1.0 {
        println!("NOTE: the machine is busy (load {load}): these figures are unreliable");
    }
}

/// Whether a TCP server of the namespace listens on the port.
pub fn listens(place: &Namespace, port: u16) -> bool {
    // Local address and state in hexadecimal, LISTEN is 0A (proc_pid_net(5)); a server of both families is in the second file.
    let port = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|name| {
        let sockets = fs::read_to_string(format!("/proc/{}/net/{name}", place.pid()));
        sockets.unwrap_or_default().lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let is_local = words.next().is_some_and(|local| local.ends_with(&port));
            is_local && words.nth(1) == Some("0A")
        })
    })
}

/// Waits until a TCP server of the namespace listens, without a connection: some servers take one at a time.
pub fn wait_for_listener(place: &Namespace, port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !listens(place, port) {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something listens there.
pub fn wait_for_tcp(from: &Namespace, to: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let connects =
        || from.run(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)));
    while connects().is_err() {
        assert!(Instant::now() < deadline, "nothing listens at {to}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A DNS server with one name, at the server's address.
pub fn dns_server(lab: &BenchLab, folder: &Path) -> Child {
    fs::create_dir(folder).expect("make a folder");
    let zone = "$ORIGIN example.\n$TTL 60\n@ SOA ns admin 1 60 60 60 60\n@ NS ns\nns A 192.0.2.53\nhost A 192.0.2.1\n";
    fs::write(folder.join("example.zone"), zone).expect("write the zone");
    let place = folder.display();
    let config = format!(
        "server:\n  listen: {SERVER}@{}\n  rundir: {place}\n  udp-workers: 1\n\
         database:\n  storage: {place}\n\
         template:\n  - id: default\n    storage: {place}\n    file: \"%s.zone\"\n\
         zone:\n  - domain: example\n",
        port::DNS
    );
    let path = folder.join("knot.conf");
    fs::write(&path, config).expect("write the server's configuration");
    inside(&lab.server, "knotd")
        .arg("-c")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start knotd (of the package knot)")
}

/// CPU time that a process has used, in hundredths of a second.
pub fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read the process's status");
    // The name may contain anything, so count from its end: utime and stime are fields 14 and 15 (proc(5)).
    let (_, rest) = text.rsplit_once(')').expect("a name in brackets");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    [fields[11], fields[12]]
        .iter()
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum()
}

/// The kernel's statistics of one program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    pub time: Duration,
    pub count: u64,
}

impl Runs {
    /// Since an earlier reading.
    pub fn since(self, before: Runs) -> Runs {
        Runs {
            time: self.time - before.time,
            count: self.count - before.count,
        }
    }

    /// Nanoseconds a run.
    pub fn ns(self) -> f64 {
        self.time.as_nanos() as f64 / self.count.max(1) as f64
    }
}

/// While it lives the kernel counts how long programs run, which itself costs each run some 60 ns.
pub struct Stats(
    #[allow(dead_code, reason = "the kernel counts while it is open")] std::os::fd::OwnedFd,
);

impl Stats {
    pub fn enable() -> Stats {
        use std::os::fd::{FromRawFd, OwnedFd};
        // SAFETY: it takes a number, and gives a descriptor that is nobody else's or an error.
        let fd = unsafe {
            libbpf_rs::libbpf_sys::bpf_enable_stats(libbpf_rs::libbpf_sys::BPF_STATS_RUN_TIME)
        };
        assert!(fd >= 0, "the kernel does not count the time of programs");
        // SAFETY: see above.
        Stats(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The runs of dpd's program of this name, below this folder of pins.
pub fn runs(root: &Path, name: &str) -> Runs {
    let reader = dpd::bpf::reader::Reader::open(root).expect("read the datapath");
    let programs = reader.programs().expect("read the programs");
    let ids: Vec<u32> = programs
        .iter()
        .filter(|program| program.name == name)
        .map(|program| program.id)
        .collect();
    let mut sum = Runs::default();
    for info in ProgInfoIter::default().filter(|info| ids.contains(&info.id)) {
        sum.time += Duration::from_nanos(info.run_time_ns);
        sum.count += info.run_cnt;
    }
    sum
}

//! A host with two workloads, `client` and `server`, and what a test asks of its kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::image::ProgramImage;
use dpd::bpf::reader::Reader;
use dpd::bpf::sys::pins::Pins;
use dpd::config::Config;
use dpd::model::conntrack::Connection;
use dpd::model::host::HostState;
use dpd::reconcile::{Applied, Reconciler};
use libbpf_rs::query::{LinkInfo, LinkInfoIter, MapInfoIter, ProgInfoIter};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, MapType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::common::namespace::Namespace;
use crate::common::programs::own_bpffs;

const PATIENCE: Duration = Duration::from_secs(10);

/// Where the service of `CONFIG` is.
pub const SERVICE: &str = "10.32.0.10:53";

/// A second backend, which `CONFIG` does not have.
pub const SECOND: &str = "10.200.0.44:5353";

pub const CONFIG: &str = r#"
[interfaces.lxc-client]
role      = "endpoint"
addresses = ["10.200.0.64"]
identity  = "client"

[interfaces.lxc-server]
role      = "endpoint"
addresses = ["10.200.0.44"]
identity  = "server"

[identities.client]
id = 20001

[identities.server]
id = 18203

[services.dns]
frontends = ["10.32.0.10:53/udp"]
backends  = ["10.200.0.44:53"]

[policies.dns-clients]
subject = "server"
ingress = [
    { from = ["client"], ports = ["53/udp"] },
    { from = ["client"], ports = ["icmp"] },
]
"#;

pub struct Host {
    /// After `CONFIG`, what a test changes.
    files: TempDir,
    root: PathBuf,
    pub namespace: Namespace,
    pub client: Namespace,
    /// Where interfaces can go.
    pub elsewhere: Namespace,
    _server: Namespace,
    client_socket: UdpSocket,
    server_socket: UdpSocket,
    /// Another server behind the same interface, for who configures it.
    second_socket: UdpSocket,
}

/// Runs a test on a thread that is in the host's network namespace, with a bpffs that nobody else sees.
pub fn on_host(test: impl FnOnce(&Host) + Send) {
    let (namespace, client, server) = (Namespace::new(), Namespace::new(), Namespace::new());
    namespace.sysctl("net.ipv4.ip_forward=1");
    namespace.ip("address add 10.200.0.1/32 dev lo");
    let workloads = [
        ("lxc-client", &client, "10.200.0.64"),
        ("lxc-server", &server, "10.200.0.44"),
    ];
    for (interface, workload, address) in workloads {
        create_link(&namespace, interface, workload, address);
    }
    std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            let network = namespace.handle();
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&network),
                Some(LinkNameSpaceType::Network),
            )
            .expect("enter the network namespace");
            test(&Host {
                files: tempfile::tempdir().expect("make a folder for the configuration"),
                root: own_bpffs(),
                client_socket: udp_socket(&client, "10.200.0.64:0"),
                server_socket: udp_socket(&server, "10.200.0.44:53"),
                second_socket: udp_socket(&server, SECOND),
                namespace,
                client,
                elsewhere: Namespace::new(),
                _server: server,
            });
        });
        test.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn create_link(host: &Namespace, interface: &str, workload: &Namespace, address: &str) {
    workload.sysctl("net.ipv6.conf.default.disable_ipv6=1");
    let pid = workload.pid();
    host.ip(&format!(
        "link add {interface} type veth peer name eth0 netns {pid}"
    ));
    host.ip(&format!("address add 169.254.1.1/32 dev {interface}"));
    host.ip(&format!("link set {interface} up"));
    host.ip(&format!(
        "route add {address}/32 dev {interface} src 10.200.0.1"
    ));
    workload.ip(&format!("address add {address}/32 dev eth0"));
    workload.ip("link set eth0 up");
    workload.ip("route add default via 169.254.1.1 dev eth0 onlink");
}

fn udp_socket(workload: &Namespace, address: &str) -> UdpSocket {
    let socket = workload.run(|| UdpSocket::bind(address));
    let socket = socket.unwrap_or_else(|error| panic!("bind to {address}: {error}"));
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .expect("set a timeout");
    socket
}

/// A lock that was let go may live on for a moment in a child that another test has just forked and that has not
/// become another program yet.
fn when_unlocked<T>(job: impl Fn() -> anyhow::Result<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match job() {
            Ok(done) => return done,
            Err(error) if Instant::now() < deadline && is_locked(&error) => look_again(),
            Err(error) => panic!("{error:#}"),
        }
    }
}

fn is_locked(error: &anyhow::Error) -> bool {
    error.to_string().contains("is at work on")
}

/// Between two looks, until a deadline.
fn look_again() {
    std::thread::sleep(Duration::from_millis(10));
}

impl Host {
    /// The configuration in a text, with this host's places.
    pub fn config(&self, text: &str) -> Config {
        self.config_with("", text)
    }

    /// The same, with more keys of `[daemon]`. Without a word about the host's own sockets they are left alone: the test's
    /// thread has all of the machine's control groups.
    pub fn config_with(&self, daemon: &str, text: &str) -> Config {
        let path = self.files.path().join("config.toml");
        let host = match text.contains("[host]") {
            true => "",
            false => "[host]\nservices = false\n",
        };
        let daemon = format!("[daemon]\nbpf_root = {:?}\n{daemon}{host}", self.root);
        fs::write(&path, format!("{daemon}{text}")).expect("write the configuration");
        let loaded = dpd::config::load(&path)
            .unwrap_or_else(|problems| panic!("the test's configuration is wrong:\n{problems}"));
        Arc::unwrap_or_clone(loaded.config)
    }

    /// `CONFIG` with something in it replaced.
    pub fn changed(&self, from: &str, to: &str) -> Config {
        assert!(CONFIG.contains(from), "the configuration has no {from}");
        self.config(&CONFIG.replace(from, to))
    }

    pub fn world(&self) -> HostState {
        dpd::net::snapshot().expect("look at the interfaces")
    }

    /// A daemon's datapath that has been made to match `CONFIG`.
    pub fn start(&self, mechanism: Mechanism) -> Reconciler {
        let config = self.config(CONFIG);
        let mut reconciler = self.take_over(&config, mechanism);
        self.apply(&mut reconciler, &config);
        reconciler
    }

    /// A daemon that has applied nothing yet.
    pub fn take_over(&self, config: &Config, mechanism: Mechanism) -> Reconciler {
        when_unlocked(|| Reconciler::start_with(config, mechanism))
    }

    /// The same, of another version of dpd.
    pub fn take_over_as(&self, config: &Config, release: ProgramImage<'static>) -> Reconciler {
        when_unlocked(|| Reconciler::start_as(config, Mechanism::Tcx, release))
    }

    /// Removes everything; returns what that was.
    pub fn cleanup(&self) -> Vec<String> {
        self.cleanup_with(false)
    }

    /// The same, with expedited grace periods if it may.
    pub fn cleanup_with(&self, may_expedite_rcu: bool) -> Vec<String> {
        when_unlocked(|| dpd::reconcile::cleanup(&self.root, may_expedite_rcu))
    }

    pub fn apply(&self, reconciler: &mut Reconciler, config: &Config) -> Applied {
        reconciler
            .apply(config, &self.world(), |_, _| {})
            .expect("apply the configuration")
    }

    /// The error of an apply that must fail.
    pub fn refused(
        &self,
        reconciler: &mut Reconciler,
        config: &Config,
        world: &HostState,
    ) -> String {
        let done = reconciler.apply(config, world, |_, _| {});
        format!("{:#}", done.expect_err("this must fail"))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn pins(&self) -> Pins {
        Pins::new(&self.root)
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.root).expect("read the datapath")
    }

    pub fn ifindex(&self, interface: &str) -> u32 {
        self.world().links[interface].ifindex
    }

    /// Our pinned links by name.
    pub fn links(&self) -> BTreeMap<String, LinkInfo> {
        dpd::bpf::sys::pins::names(&self.pins().links())
            .into_iter()
            .filter(|name| self.pins().links().join(name).is_file())
            .map(|name| {
                let link = Link::open(self.pins().links().join(&name)).expect("open a link");
                (name, link.info().expect("ask about a link"))
            })
            .collect()
    }

    /// Links by name, the link's id, its program's id.
    pub fn link_ids(&self) -> Vec<(String, u32, u32)> {
        self.links()
            .into_iter()
            .map(|(name, link)| (name, link.id, link.prog_id))
            .collect()
    }

    /// The ids of the programs of the newest load.
    pub fn program_ids(&self) -> BTreeSet<u32> {
        let programs = self.reader().programs().expect("read the programs");
        programs.iter().map(|program| program.id).collect()
    }

    /// The ids of the maps pinned in a folder, by name.
    pub fn map_ids(&self, folder: &Path) -> BTreeMap<String, u32> {
        dpd::bpf::sys::pins::names(folder)
            .into_iter()
            .filter_map(|name| {
                let map = MapHandle::from_pinned_path(folder.join(&name)).ok()?;
                let id = map.info().expect("ask about a map").info.id;
                Some((name, id))
            })
            .collect()
    }

    /// The ids of the live generation's inner maps.
    pub fn table_ids(&self) -> BTreeMap<String, u32> {
        let epoch = self.reader().epoch().expect("read the epoch");
        self.map_ids(&self.pins().generation(epoch))
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.reader().connections().expect("read the connections")
    }

    /// Every entry of the tables of connections.
    pub fn entries(&self) -> u64 {
        let (_, counts) = self.reader().conntrack().expect("count the entries");
        counts.present
    }

    /// Packets that went through, by interface and direction seen from the workload.
    pub fn forwarded(&self, interface: &str, direction: &str) -> u64 {
        let ifindex = self.ifindex(interface);
        let metrics = self.reader().metrics().expect("read the counters");
        metrics
            .iter()
            .filter(|m| m.ifindex == ifindex && m.direction == direction && m.reason == 0)
            .map(|m| m.packets)
            .sum()
    }

    /// A question from the client through the service; whether the server's answer came back from the service.
    pub fn asks(&self) -> bool {
        self.asks_at(SERVICE)
    }

    /// The same through any service of the server.
    pub fn asks_at(&self, service: &str) -> bool {
        self.is_answered(&self.client_socket, service)
    }

    /// The same by a connection that there was not yet.
    pub fn asks_anew(&self) -> bool {
        self.is_answered(&udp_socket(&self.client, "10.200.0.64:0"), SERVICE)
    }

    fn is_answered(&self, client: &UdpSocket, service: &str) -> bool {
        let server = &self.server_socket;
        let mut bytes = [0; 16];
        client
            .send_to(b"question", service)
            .expect("send the question");
        let asked = match server.recv_from(&mut bytes) {
            Ok((_, from)) => from,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("receive the question: {error}"),
        };
        server.send_to(b"answer", asked).expect("send the answer");
        let (length, from) = client.recv_from(&mut bytes).expect("receive the answer");
        let service: SocketAddr = service.parse().expect("an address");
        &bytes[..length] == b"answer" && from == service
    }

    /// Runs a job while the client asks without a break, each time over an existing and over a new connection; the job may wait
    /// until so many more questions were asked. Returns what went wrong.
    pub fn under_traffic(&self, job: impl FnOnce(&dyn Fn(u64))) -> Vec<String> {
        let asked = AtomicU64::new(0);
        let (end, nobody_asks) = (AtomicBool::new(false), AtomicBool::new(false));
        let wait = |more: u64| {
            let enough = asked.load(Ordering::Relaxed) + more;
            let deadline = Instant::now() + PATIENCE;
            while asked.load(Ordering::Relaxed) < enough {
                assert!(Instant::now() < deadline, "nobody asks any more");
                look_again();
            }
        };
        std::thread::scope(|scope| {
            let sockets = [&self.server_socket, &self.second_socket];
            let serving = sockets.map(|socket| scope.spawn(|| answer_until(&nobody_asks, socket)));
            let asking = scope.spawn(|| self.client.run(|| ask_until(&end, &asked)));
            let done = catch_unwind(AssertUnwindSafe(|| job(&wait)));
            end.store(true, Ordering::Relaxed);
            let lost = asking.join().expect("the asking thread");
            nobody_asks.store(true, Ordering::Relaxed);
            for server in serving {
                server.join().expect("a serving thread");
            }
            done.unwrap_or_else(|panic| resume_unwind(panic));
            lost
        })
    }

    /// Whether one workload's ping to an address is answered.
    pub fn client_pings(&self, address: &str) -> bool {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.client.pid()));
        ping(command.arg("ping"), address)
    }

    /// Whether the host's own ping to an address is answered.
    pub fn host_pings(&self, address: &str) -> bool {
        ping(&mut Command::new("ping"), address)
    }

    /// Runs `tc` with these words on the host, and gives what it prints.
    pub fn tc(&self, words: &str) -> String {
        let output = Command::new("tc")
            .args(words.split_whitespace())
            .output()
            .expect("start tc (of the package iproute2)");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tc {words}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Every filter and qdisc on the hooks of the host's interfaces.
    fn filters(&self) -> String {
        let world = self.world();
        let lines = world.links.keys().flat_map(|name| {
            ["ingress", "egress"]
                .map(|hook| format!("filter show dev {name} {hook}\n"))
                .into_iter()
                .chain([format!("qdisc show dev {name}\n")])
        });
        let script = self.files.path().join("tc");
        fs::write(&script, lines.collect::<String>()).expect("write lines for tc");
        self.tc(&format!("-batch {}", script.display()))
    }

    pub fn has_clsact(&self, interface: &str) -> bool {
        self.tc(&format!("qdisc show dev {interface}"))
            .contains("qdisc clsact")
    }
}

/// Answers with the question and the port of who answers.
fn answer_until(end: &AtomicBool, socket: &UdpSocket) {
    let port = socket.local_addr().expect("its address").port();
    let mut question = [0; 8];
    while !end.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            let answer = [&question[..], &port.to_ne_bytes()].concat();
            socket.send_to(&answer, from).expect("send an answer");
        }
    }
}

/// Asks until the end; returns what went wrong.
fn ask_until(end: &AtomicBool, asked: &AtomicU64) -> Vec<String> {
    let old = open_client();
    let mut server = None;
    let mut wrong = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        match ask(&old, number) {
            Ok(port) if *server.get_or_insert(port) == port => {}
            Ok(port) => wrong.push(format!("question {number}: {server:?} has become {port}")),
            Err(error) => wrong.push(format!("question {number} of an old connection: {error}")),
        }
        if let Err(error) = ask(&open_client(), number) {
            wrong.push(format!("question {number} of a new connection: {error}"));
        }
        // A client, not a flood: a machine with other work drops what it can't queue.
        std::thread::sleep(Duration::from_millis(1));
    }
    wrong
}

fn open_client() -> UdpSocket {
    let socket = UdpSocket::bind("10.200.0.64:0").expect("open a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("set a timeout");
    socket.connect(SERVICE).expect("connect to the service");
    socket
}

/// Who answers a question.
fn ask(socket: &UdpSocket, number: u64) -> std::io::Result<u16> {
    let question = number.to_ne_bytes();
    let mut answer = [0; 10];
    socket.send(&question)?;
    loop {
        let length = socket.recv(&mut answer)?;
        let (asked, port) = answer[..length].split_at(question.len());
        if asked == question {
            return Ok(u16::from_ne_bytes(port.try_into().expect("a port")));
        }
    }
}

/// Everything that a failed change must leave as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub epoch: u64,
    /// Of the root.
    pub folders: Vec<String>,
    tables: Vec<(String, u32)>,
    /// What the live slots of the outer maps hold, and what the other slots hold that differs.
    live: BTreeMap<String, u32>,
    idle: BTreeMap<String, u32>,
    maps: Vec<(String, u32)>,
    links: Vec<(String, u32, u32)>,
    /// Links and marks, of clsact too.
    marks: Vec<String>,
    /// Filters and their qdiscs, as tc prints them.
    filters: String,
    loads: Vec<u64>,
    generations: Vec<u64>,
}

impl Picture {
    pub fn of(host: &Host) -> Picture {
        let pins = host.pins();
        let epoch = host.reader().epoch().expect("read the epoch");
        let outer = dpd::bpf::sys::pins::names(&pins.maps());
        let slot = |slot: u64| {
            let held = outer.iter().filter_map(|name| {
                let map = MapHandle::from_pinned_path(pins.map(name)).ok()?;
                (map.map_type() == MapType::ArrayOfMaps).then_some(())?;
                let slot = (slot as u32 & 1).to_ne_bytes();
                let id = map.lookup(&slot, MapFlags::ANY).expect("read a slot")?;
                Some((name.clone(), u32::from_ne_bytes(id.try_into().ok()?)))
            });
            held.collect::<BTreeMap<String, u32>>()
        };
        let (live, mut idle) = (slot(epoch), slot(epoch + 1));
        // What is held there by the live slot too takes no memory.
        idle.retain(|name, id| live.get(name) != Some(id));
        Picture {
            epoch,
            folders: dpd::bpf::sys::pins::names(host.root()),
            tables: host.table_ids().into_iter().collect(),
            live,
            idle,
            maps: host.map_ids(&pins.maps()).into_iter().collect(),
            links: host.link_ids(),
            marks: dpd::bpf::sys::pins::names(&pins.links()),
            filters: host.filters(),
            loads: Pins::numbers(&pins.loads()),
            generations: Pins::numbers(&pins.generations()),
        }
    }

    /// The same, except that a failed change may free tables that the slots which are not live held.
    pub fn assert_still(&self, before: &Picture, what: &str) {
        let held: Vec<_> = self
            .idle
            .iter()
            .filter(|held| before.idle.get(held.0) != Some(held.1))
            .collect();
        assert!(
            held.is_empty(),
            "{what}: tables that were not put into use are held: {held:?}"
        );
        let idle = before.idle.clone();
        assert_eq!(
            Picture {
                idle,
                ..self.clone()
            },
            *before,
            "{what}"
        );
    }

    /// What is on the host's hooks; asserts that nothing is pinned but what is in use.
    pub fn tidy(&self, what: &str) -> (Vec<String>, usize) {
        assert_eq!(self.generations, [self.epoch], "{what}: pinned generations");
        assert_eq!(self.loads.len(), 1, "{what}: loads {:?}", self.loads);
        (self.marks.clone(), self.filters.lines().count())
    }
}

fn ping(command: &mut Command, address: &str) -> bool {
    let output = command
        .args(["-n", "-c1", "-W1", address])
        .output()
        .expect("start ping (of the package iputils-ping)");
    output.status.success()
}

/// What the kernel has altogether, of everybody.
pub fn all_programs() -> BTreeSet<u32> {
    ProgInfoIter::default().map(|info| info.id).collect()
}

pub fn all_maps() -> BTreeSet<u32> {
    MapInfoIter::default().map(|info| info.id).collect()
}

pub fn all_links() -> BTreeSet<u32> {
    LinkInfoIter::default().map(|info| info.id).collect()
}

/// The kernel frees programs, maps and links a while after the last use: waits until none of these is there.
pub fn wait_until_gone(what: &str, ids: &BTreeSet<u32>, all: fn() -> BTreeSet<u32>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<u32> = all().intersection(ids).copied().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what} {left:?} are still there");
        look_again();
    }
}

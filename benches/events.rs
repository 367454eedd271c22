//! The cost of events: for a packet at each aggregation, and for the daemon that reads them. Prints figures, asserts none.
//!
//! A real daemon on a node of its own; packets are test runs of the program at the client's hook. Needs root.
//!
//! ```sh
//! cargo bench --bench events
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dpd::bpf::load::pinned_programs;
use dpd::bpf::reader::Reader;
use dpd::bpf::sys::pins::Pins;
use libbpf_rs::Program;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use common::cgroup::OwnCgroup;
use common::namespace::Namespace;
use common::packet::{Packet, udp};
use common::programs::{own_bpffs, test_runs};
use common::runner::{host_mac, workload_mac};

const CLIENT: &str = "lxc-client";
const WEB: &str = "lxc-web";
/// Packets of one system call: each takes one from the TTL of the frame.
const BATCH: u32 = 200;
/// At `none` a packet is reported at its ingress and at its egress.
const EVENTS_A_PACKET: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with two workloads and a daemon.
struct Bench {
    folder: tempfile::TempDir,
    root: PathBuf,
    daemon: Child,
    client: u32,
    web: u32,
    _cgroup: Option<OwnCgroup>,
    _workloads: Namespace,
    _node: Namespace,
}

impl Bench {
    fn start() -> Bench {
        let (node, workloads) = (Namespace::new(), Namespace::new());
        for (number, name) in [CLIENT, WEB].into_iter().enumerate() {
            let pid = workloads.pid();
            node.ip(&format!(
                "link add {name} type veth peer name eth{number} netns {pid}"
            ));
            workloads.ip(&format!("link set eth{number} up"));
            node.ip(&format!("link set {name} up"));
        }
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&node.handle()),
            Some(LinkNameSpaceType::Network),
        )
        .expect("enter the network namespace");
        let cgroup = OwnCgroup::new();
        let root = own_bpffs();
        let cgroup = cgroup.inspect(OwnCgroup::mount);
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, config(folder.path(), &root, "none")).expect("write the configuration");
        let daemon = Command::new(env!("CARGO_BIN_EXE_dpd"))
            .args(["run", "--config"])
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .expect("start dpd");
        wait_for("the daemon is ready", || {
            folder.path().join("dpd.sock").exists()
        });
        let links = dpd::net::snapshot()
            .expect("take a snapshot of the host")
            .links;
        Bench {
            client: links[CLIENT].ifindex,
            web: links[WEB].ifindex,
            folder,
            root,
            daemon,
            _cgroup: cgroup,
            _workloads: workloads,
            _node: node,
        }
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.root).expect("read the datapath")
    }

    fn program(&self) -> OwnedFd {
        let programs = pinned_programs(&Pins::new(&self.root));
        let (_, path) = programs
            .iter()
            .find(|(name, _)| name == "dpd_from_container")
            .expect("the program is pinned");
        Program::fd_from_pinned_path(path).expect("open the program")
    }

    /// Applies a configuration with this aggregation.
    fn aggregate(&self, level: &str) {
        let before = self.reader().epoch().expect("the revision");
        let path = self.folder.path().join("config.toml");
        let text = config(self.folder.path(), &self.root, level);
        if fs::read_to_string(&path).expect("read the configuration") == text {
            return;
        }
        fs::write(&path, text).expect("write the configuration");
        wait_for("the change is live", || {
            self.reader().epoch().expect("the revision") > before
        });
    }

    /// A request and its reply, so that the next packets take the fast path.
    fn talk(&self) {
        let program = self.program();
        for _ in 0..3 {
            test_runs(&program, self.client, &request().build(), 1);
            test_runs(&program, self.web, &reply().build(), 1);
        }
    }

    /// Time that a packet takes, the least of several rounds.
    fn cost(&self) -> Duration {
        let (program, frame) = (self.program(), request().build());
        let rounds = (0..300).map(|_| {
            sleep(Duration::from_millis(1)); // the daemon reads the events of the previous round
            test_runs(&program, self.client, &frame, BATCH)
        });
        rounds.min().unwrap_or_default()
    }

    /// Makes events at a rate for some time; returns the daemon's share of a CPU, and the number of events made and
    /// lost.
    fn load(&self, rate: u64, time: Duration) -> (f64, u64, u64) {
        let (program, frame) = (self.program(), request().build());
        sleep(Duration::from_secs(1)); // until earlier events are read
        let before = self.loss();
        let cpu = cpu_time(self.daemon.id());
        let start = Instant::now();
        let mut made = 0;
        while start.elapsed() < time {
            let due = start.elapsed().as_secs_f64() * rate as f64;
            if (made as f64) < due {
                test_runs(&program, self.client, &frame, BATCH);
                made += u64::from(BATCH) * EVENTS_A_PACKET;
            } else {
                sleep(Duration::from_micros(200));
            }
        }
        let took = start.elapsed();
        let busy = (cpu_time(self.daemon.id()) - cpu).as_secs_f64() / took.as_secs_f64();
        let reached = (made as f64 / took.as_secs_f64()) as u64;
        (busy, reached, self.loss() - before)
    }

    fn loss(&self) -> u64 {
        let loss = self.reader().event_loss().expect("read the counters");
        loss.ring_full + loss.rate_limited
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn config(folder: &Path, root: &Path, aggregation: &str) -> String {
    format!(
        r#"
[daemon]
bpf_root = "{}"
socket = "{}/dpd.sock"
log = "stderr"

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64"]
identity = "client"

[interfaces.lxc-web]
role = "endpoint"
addresses = ["10.200.0.45"]
identity = "web"

[identities]
client = {{ id = 20001 }}
web = {{ id = 20003 }}

[policies.web]
subject = "web"
ingress = [{{ from = ["client"], ports = ["80/udp"] }}]

[events]
aggregation = "{aggregation}"
rate = 10000000
journal = "off"
"#,
        root.display(),
        folder.display()
    )
}

fn request() -> Packet {
    let packet = udp("10.200.0.64:4000", "10.200.0.45:80").payload(&[0; 64]);
    packet.ttl(255).macs(workload_mac(CLIENT), host_mac(CLIENT))
}

fn reply() -> Packet {
    let packet = udp("10.200.0.45:80", "10.200.0.64:4000").payload(&[0; 64]);
    packet.macs(workload_mac(WEB), host_mac(WEB))
}

/// User and system time of a process so far.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read /proc");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields behind the name")
        .split_whitespace()
        .collect();
    let ticks: u64 = [11, 12]
        .map(|at| fields[at].parse::<u64>().expect("ticks"))
        .iter()
        .sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run the events benchmark by `cargo bench`");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("the benchmark of events needs root: it loads programs and makes namespaces");
        std::process::exit(1);
    }
    let bench = Bench::start();
    println!("an established packet from a workload to another, IPv4 UDP:");
    for level in ["medium", "low", "none"] {
        bench.aggregate(level);
        bench.talk();
        println!("  {level:<8} {:>6} ns", bench.cost().as_nanos());
    }

    println!("the daemon, journal off, one policy:");
    println!("  observers  events/s  reached  CPU of it     lost  seen by the observer");
    for observers in [0, 1] {
        let seen = Arc::new(AtomicU64::new(0));
        let mut watching: Vec<Child> = (0..observers).map(|_| observe(&bench, &seen)).collect();
        for rate in [10_000, 20_000, 50_000, 100_000, 200_000] {
            let before = seen.load(Ordering::Relaxed);
            let (busy, reached, lost) = bench.load(rate, Duration::from_secs(3));
            let percent = busy * 100.0;
            print!("  {observers:>9}  {rate:>8}  {reached:>7}  {percent:>7.1} %  {lost:>7}");
            sleep(Duration::from_secs(1)); // until the observer has read everything
            println!("  {:>7}", seen.load(Ordering::Relaxed) - before);
            if lost > 0 {
                break;
            }
        }
        for observer in &mut watching {
            let _ = observer.kill();
            let _ = observer.wait();
        }
    }
}

/// An observer whose lines are counted.
fn observe(bench: &Bench, seen: &Arc<AtomicU64>) -> Child {
    let mut observer = Command::new(env!("CARGO_BIN_EXE_dpd"))
        .args(["observe", "-o", "json", "--config"])
        .arg(bench.folder.path().join("config.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start an observer");
    let mut lines = observer.stdout.take().expect("its output is a pipe");
    let seen = seen.clone();
    std::thread::spawn(move || {
        let mut chunk = vec![0; 1 << 16];
        while let Ok(length @ 1..) = lines.read(&mut chunk) {
            let ends = chunk[..length].iter().filter(|byte| **byte == b'\n');
            seen.fetch_add(ends.count() as u64, Ordering::Relaxed);
        }
    });
    observer
}

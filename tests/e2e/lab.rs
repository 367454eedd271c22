//! A lab of network namespaces for one test, with dpd on its nodes.
//!
//! It is `netns-lab/lab` with a copy of the example's configuration that the test may change. Labs are named after
//! the test's process: runs may be concurrent, and the next run removes the leftovers of a killed one.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::common::programs::own_mounts;

/// How long to wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

const PREFIX: &str = "e2e-";

/// Services for the tests besides the example's: a web server, iperf3, and one without backends.
const SERVERS: &str = r#"
[services.web]
frontends = ["10.32.0.80:80/tcp", "[fd00:32::80]:80/tcp"]
backends  = ["10.200.0.44:8080", "[fd00:200::44]:8080"]

[services.bulk]
frontends = ["10.32.0.52:52/tcp", "10.32.0.52:52/udp", "[fd00:32::52]:52/tcp", "[fd00:32::52]:52/udp"]
backends  = ["10.200.0.44:5201", "[fd00:200::44]:5201"]

[services.empty]
frontends = ["10.32.0.99:80/tcp", "10.32.0.99:53/udp", "[fd00:32::99]:80/tcp", "[fd00:32::99]:53/udp"]
backends  = []

[policies.servers]
subject = "kube-dns"
ingress = [{ from = ["client"], ports = ["8080/tcp", "5201/tcp", "5201/udp"] }]
"#;

/// Services for the tests across hosts besides the examples': servers on either host, for clients of both.
const SERVERS_OF_HOSTS: &str = r#"
[services.web]
frontends = ["10.32.0.80:80/tcp", "[fd00:32::80]:80/tcp"]
backends  = ["10.200.1.44:8080", "[fd00:201::44]:8080"]

[services.web-a]
frontends = ["10.32.0.81:80/tcp", "[fd00:32::81]:80/tcp"]
backends  = ["10.200.0.44:8080", "[fd00:200::44]:8080"]

[services.dns-a]
frontends = ["10.32.0.12:53/udp", "10.32.0.12:53/tcp", "[fd00:32::12]:53/udp", "[fd00:32::12]:53/tcp"]
backends  = ["10.200.0.44:53", "[fd00:200::44]:53"]

[services.bulk]
frontends = ["10.32.0.52:52/tcp", "10.32.0.52:52/udp", "[fd00:32::52]:52/tcp", "[fd00:32::52]:52/udp"]
backends  = ["10.200.1.44:5201", "[fd00:201::44]:5201"]

[policies.servers]
subject = "kube-dns"
ingress = [{ from = ["client"], ports = ["8080/tcp", "5201/tcp", "5201/udp"] }]
"#;

/// A lab, seen from one of its nodes. It is removed with the last of its views.
pub struct NetnsLab {
    laid: Arc<Laid>,
    node: &'static str,
}

struct Laid {
    name: String,
}

impl NetnsLab {
    /// A lab with dpd on its node.
    pub fn started() -> NetnsLab {
        let lab = NetnsLab::laid();
        lab.start();
        lab
    }

    /// A lab without dpd started.
    pub fn laid() -> NetnsLab {
        let lab = NetnsLab::up("one-node", "node", 1500);
        lab.configure("config.toml", SERVERS);
        lab
    }

    /// A lab of two hosts with dpd on both: node-a's view of it and node-b's. The router between them has this
    /// MTU; with more than 1500 all links have it.
    pub fn hosts(mtu: u16) -> (NetnsLab, NetnsLab) {
        let (a, b) = NetnsLab::hosts_laid(mtu);
        a.start();
        b.start();
        (a, b)
    }

    /// The same without dpd started.
    pub fn hosts_laid(mtu: u16) -> (NetnsLab, NetnsLab) {
        let a = NetnsLab::up("two-hosts", "node-a", mtu);
        let b = NetnsLab {
            laid: a.laid.clone(),
            node: "node-b",
        };
        a.configure("two-hosts/node-a.toml", SERVERS_OF_HOSTS);
        b.configure("two-hosts/node-b.toml", SERVERS_OF_HOSTS);
        (a, b)
    }

    /// Two hosts with a web server on each and one in the world, without dpd started.
    pub fn north_south_laid() -> (NetnsLab, NetnsLab) {
        let a = NetnsLab::up("north-south", "node-a", 1500);
        let b = NetnsLab {
            laid: a.laid.clone(),
            node: "node-b",
        };
        (a, b)
    }

    fn up(topology: &str, node: &'static str, mtu: u16) -> NetnsLab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static CLEAR: Once = Once::new();
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        CLEAR.call_once(clear_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", std::process::id());
        let laid = Arc::new(Laid { name });
        let output = script(&laid.name)
            .arg("up")
            .env("LAB_TOPOLOGY", topology)
            .env("LAB_MTU", mtu.to_string())
            .output()
            .expect("run netns-lab/lab");
        assert!(output.status.success(), "lab up: {}", text(&output));
        NetnsLab { laid, node }
    }

    /// A copy of the example, and the tests' services as a drop-in.
    fn configure(&self, example: &str, servers: &str) {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        self.save(&fs::read_to_string(examples.join(example)).expect("read the example"));
        self.drop_in("servers", servers);
    }

    /// Writes a drop-in atomically.
    pub fn drop_in(&self, name: &str, text: &str) {
        let folder = self.config().with_extension("d");
        let new = folder.join("new");
        fs::write(&new, text).expect("write a drop-in");
        fs::rename(&new, folder.join(format!("{name}.toml"))).expect("put it in place");
    }

    /// Writes a drop-in and waits until it is live.
    pub fn apply(&self, name: &str, text: &str) {
        let revision = self.revision();
        self.drop_in(name, text);
        self.signal("HUP");
        eventually(&format!("the drop-in {name} is live"), || {
            if self.revision() > revision {
                Ok(())
            } else {
                Err(self.tail())
            }
        });
    }

    /// The lab's name for a node's dpd: `dpd` for `node`, `dpd-a` for `node-a`.
    fn daemon(&self) -> String {
        self.node.replacen("node", "dpd", 1)
    }

    /// The node of this view.
    pub fn node(&self) -> &'static str {
        self.node
    }

    /// Starts dpd and waits until it is ready.
    pub fn start(&self) {
        self.must(&["start", self.node]);
    }

    /// The same; the error is the output if it does not become ready.
    pub fn try_start(&self) -> Result<(), String> {
        let output = script(&self.laid.name).args(["start", self.node]).output();
        let output = output.expect("run netns-lab/lab");
        match output.status.success() {
            true => Ok(()),
            false => Err(text(&output)),
        }
    }

    /// Stops dpd by SIGTERM and waits until it has exited.
    pub fn stop(&self) {
        self.must(&["stop", self.node]);
    }

    /// Stops dpd by SIGKILL and waits until it has exited.
    pub fn kill(&self) {
        let pid = self.signal("KILL");
        eventually("the killed dpd is gone", || {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (state.is_empty() || state.contains(") Z "))
                .then_some(())
                .ok_or(state)
        });
    }

    pub fn pid(&self) -> String {
        let pid = fs::read_to_string(self.folder().join(format!("{}.pid", self.daemon())));
        pid.expect("dpd's pid").trim().to_owned()
    }

    /// Sends dpd a signal; returns its pid.
    pub fn signal(&self, signal: &str) -> String {
        let pid = self.pid();
        must(Command::new("kill").args(["-s", signal, &pid]));
        pid
    }

    pub fn folder(&self) -> PathBuf {
        Path::new("/run/dpd-lab").join(&self.laid.name)
    }

    pub fn config(&self) -> PathBuf {
        self.folder()
            .join(format!("{}.toml", self.node.replacen("node", "config", 1)))
    }

    pub fn bpf_root(&self) -> PathBuf {
        self.folder().join("bpf").join(self.daemon())
    }

    /// The log of dpd.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join(format!("{}.log", self.daemon()))).unwrap_or_default()
    }

    /// Replaces the configuration atomically.
    pub fn save(&self, text: &str) {
        let new = self.folder().join("config.new");
        fs::write(&new, text).expect("write the configuration");
        fs::rename(&new, self.config()).expect("put it in place");
    }

    /// Saves the configuration with `from` replaced by `to`; returns the old one.
    pub fn edit(&self, from: &str, to: &str) -> String {
        let text = fs::read_to_string(self.config()).expect("read the configuration");
        assert!(text.contains(from), "the configuration has no {from:?}");
        self.save(&text.replace(from, to));
        text
    }

    /// A command in one of the lab's namespaces; on a node also in its control group.
    pub fn command(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns(place).display()))
            .arg("--");
        if is_node(place) {
            command.arg(labs("as-host")).arg(self.netns_name(place));
        }
        command
            .arg(program)
            .env("DPD_CONFIG", self.config())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell command in a namespace.
    pub fn run(&self, place: &str, line: &str) -> Output {
        let output = self.command(place, "sh").args(["-c", line]).output();
        output.expect("run nsenter (of the package util-linux)")
    }

    /// The same; it must succeed. Returns its stdout.
    pub fn ok(&self, place: &str, line: &str) -> String {
        let output = self.run(place, line);
        assert!(
            output.status.success(),
            "[{place}] {line}: {}: {}\n{}",
            output.status,
            text(&output),
            self.tail()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a server in a namespace and waits until something listens on the port. It ends with the lab.
    pub fn serve(&self, place: &str, line: &str, port: u16) {
        let log = File::create(self.folder().join(format!("server-{port}.log"))).expect("a log");
        let mut server = self.command(place, "sh");
        server.args(["-c", &format!("exec {line}")]);
        server.stdout(log.try_clone().expect("a log")).stderr(log);
        let mut server = server.spawn().expect("run nsenter");
        eventually(&format!("{line} listens"), || {
            let listening = self.ok(place, &format!("ss -Hltn 'sport = :{port}'"));
            let ended = server.try_wait().expect("check the server");
            (listening.lines().count() >= 1)
                .then_some(())
                .ok_or(format!("{ended:?}"))
        });
        // The lab kills all processes in its namespaces when it is removed.
        std::thread::spawn(move || server.wait());
    }

    /// Runs a dpd command; it must succeed.
    pub fn dpd(&self, words: &str) -> String {
        self.ok(self.node, &format!("{} {words}", env!("CARGO_BIN_EXE_dpd")))
    }

    /// Runs a dpd command with JSON output.
    pub fn json(&self, words: &str) -> Value {
        let text = self.dpd(&format!("{words} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("dpd {words}: {error}: {text}"))
    }

    /// The services as they are listed, without what clients do meanwhile: their connections.
    pub fn services(&self) -> Value {
        let mut rows = self.json("service list");
        let frontends = rows.as_array_mut().expect("a list").iter_mut();
        let backends = frontends.flat_map(|row| row["backends"].as_array_mut().expect("a list"));
        for backend in backends {
            backend
                .as_object_mut()
                .expect("an object")
                .remove("connections");
        }
        rows
    }

    /// The live revision.
    pub fn revision(&self) -> u64 {
        let status = self.json("status");
        status["config"]["revision"].as_u64().expect("a revision")
    }

    /// The last flows, as JSON.
    pub fn flows(&self) -> Vec<Value> {
        self.dpd("observe --last 200 -o json")
            .lines()
            .map(|line| serde_json::from_str(line).expect("a flow in JSON"))
            .collect()
    }

    /// Packets dropped so far, as `reason (packets)`.
    pub fn drops(&self) -> Vec<String> {
        let status = self.json("status");
        let drops = status["drops"].as_array().expect("drops").clone();
        drops
            .iter()
            .map(|row| format!("{} ({})", row["reason_text"], row["packets"]))
            .collect()
    }

    /// How many packets were dropped for this reason so far.
    pub fn dropped(&self, reason: &str) -> u64 {
        let status = self.json("status");
        let drops = status["drops"].as_array().expect("drops");
        let of_reason = drops.iter().filter(|row| row["reason_text"] == reason);
        of_reason.filter_map(|row| row["packets"].as_u64()).sum()
    }

    /// The tracked connections.
    pub fn connections(&self) -> Vec<Value> {
        let list = self.json("ct list");
        list.as_array().expect("connections").clone()
    }

    /// The attachments on the node's interfaces, as `interface hook program`.
    pub fn attached(&self) -> Vec<String> {
        let status = self.json("status");
        let interfaces = status["interfaces"].as_array().expect("interfaces");
        let mut rows: Vec<String> = interfaces
            .iter()
            .flat_map(|row| row["attachments"].as_array().expect("attachments"))
            .map(|row| {
                let word = |key: &str| row[key].as_str().expect("a word");
                format!("{} {} {}", word("interface"), word("hook"), word("program"))
            })
            .collect();
        rows.sort();
        rows
    }

    /// The number of programs at the hooks of the node's own sockets.
    pub fn sockets(&self) -> usize {
        let status = self.json("status");
        status["sockets"].as_array().expect("sockets").len()
    }

    /// The ids of the node's programs.
    pub fn programs(&self) -> Vec<u64> {
        let status = self.json("status");
        let programs = status["programs"].as_array().expect("programs");
        programs
            .iter()
            .filter_map(|row| row["id"].as_u64())
            .collect()
    }

    /// How often these programs are attached, as bpftool counts: by links, or by filters where there are no
    /// links for tc.
    pub fn hooked(&self, programs: &[u64]) -> usize {
        let ours =
            |row: &&Value, key: &str| row[key].as_u64().is_some_and(|id| programs.contains(&id));
        let links = self.ok(self.node, "bpftool -j link show");
        let links: Vec<Value> = serde_json::from_str(&links).expect("links in JSON");
        let links = links.iter().filter(|row| ours(row, "prog_id")).count();
        if links > 0 {
            return links;
        }
        let filters = self.ok(self.node, "bpftool -j net show");
        let filters: Value = serde_json::from_str(&filters).expect("filters in JSON");
        let filters = filters[0]["tc"].as_array().expect("filters of tc");
        filters.iter().filter(|row| ours(row, "id")).count()
    }

    /// Runs a job on a thread in a namespace; sockets that it opens stay there.
    pub fn within<T: Send>(&self, place: &str, job: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.netns(place)).expect("open the namespace");
        let inside = || {
            let handle = std::os::fd::AsFd::as_fd(&file);
            move_into_link_name_space(handle, Some(LinkNameSpaceType::Network))
                .expect("enter the namespace");
            job()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The same on this node, where cgroup2 is the node's control group, as for a daemon there.
    pub fn within_host<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        // The group is made by the first command on the node.
        self.ok(self.node, "true");
        let name = self.netns_name(self.node);
        self.within(self.node, || {
            own_mounts();
            if let Ok(whole) = dpd::net::find_cgroup() {
                rustix::mount::mount_bind(whole.path.join(name), whole.path)
                    .expect("mount the node's control group");
            }
            job()
        })
    }

    /// A TCP connection from a namespace.
    pub fn connect(&self, place: &str, to: &str) -> std::io::Result<TcpStream> {
        let to = to.parse().expect("an address and port");
        self.within(place, || TcpStream::connect_timeout(&to, DEADLINE))
    }

    /// Whether the client gets a reply from the DNS service; the error is dig's output.
    pub fn dig(&self, place: &str, server: &str) -> Result<(), String> {
        let line =
            format!("dig +short +tries=1 +time=2 @{server} kubernetes.default.svc.cluster.local");
        let output = self.run(place, &line);
        let printed = text(&output);
        (output.status.success() && printed.trim() == "10.32.0.1")
            .then_some(())
            .ok_or(printed)
    }

    /// The name of one of the lab's namespaces for `ip`.
    pub fn netns_name(&self, place: &str) -> String {
        format!("{}-{place}", self.laid.name)
    }

    pub fn netns(&self, place: &str) -> PathBuf {
        Path::new("/run/netns").join(self.netns_name(place))
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        format!("the end of dpd's log:\n{}", tail.join("\n"))
    }

    fn must(&self, words: &[&str]) {
        let output = script(&self.laid.name)
            .args(words)
            .output()
            .expect("run netns-lab/lab");
        let printed = text(&output);
        assert!(
            output.status.success(),
            "lab {words:?}: {printed}{}",
            self.tail()
        );
    }
}

impl Drop for NetnsLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.node, self.tail());
        }
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        down(&self.name);
    }
}

/// Repeats until success; panics with the last error after the deadline.
pub fn eventually<T, E: std::fmt::Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(DEADLINE, what, look)
}

/// The same, for what takes dpd longer.
pub fn eventually_within<T, E: std::fmt::Debug>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) if start.elapsed() > deadline => {
                panic!("{what}: not within {deadline:?}: {error:?}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Stdout and stderr together.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn must(command: &mut Command) {
    let output = command.output().expect("run a command");
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

/// Of all topologies.
fn is_node(place: &str) -> bool {
    place == "node" || place.starts_with("node-")
}

/// A file of the lab's scripts.
fn labs(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns-lab");
    folder.join(name)
}

fn script(lab: &str) -> Command {
    let mut command = Command::new(labs("lab"));
    command
        .env("LAB", lab)
        .env("DPD", env!("CARGO_BIN_EXE_dpd"))
        .env_remove("LAB_TOPOLOGY")
        .env_remove("RUST_LOG");
    command
}

fn down(lab: &str) {
    let output = script(lab).arg("down").output().expect("run netns-lab/lab");
    if !output.status.success() {
        eprintln!("lab down of {lab}: {}", text(&output));
    }
}

/// Removes the labs of test processes that have exited.
fn clear_leftovers() {
    for entry in fs::read_dir("/run/dpd-lab").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            down(&name);
        }
    }
}

//! Network namespaces for tests: each test makes its own, and dropping them takes everything away again.
//!
//! ```ignore
//! let node = Netns::new();
//! let workload = Netns::new();
//! node.veth("lxc-a", &workload, "eth0");      // both ends are up
//! node.ip("address add 10.0.0.1/32 dev lxc-a");
//! let world = node.enter(|| dpd::net::snapshot().unwrap());
//! let output = workload.command("ping").args(["-c1", "10.0.0.1"]).output();
//! ```
//!
//! Names are `dpd-t-PID-N`, so that tests run in parallel and several times at once on a machine. Nothing is made
//! in the namespace that the tests are started in. What a killed test run has left behind, the next one clears.

// Each test binary compiles this file and uses a part of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal};
use rustix::thread::LinkNameSpaceType;

const PREFIX: &str = "dpd-t-";

/// A network namespace of a test's own; gone when dropped, with all that runs in it.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes an empty namespace with its loopback up. Panics without root, saying so.
    pub fn new() -> Netns {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static CLEAR: Once = Once::new();
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        CLEAR.call_once(clear_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", std::process::id());
        must(Command::new("ip").args(["netns", "add", &name]));
        // From here on a panic takes it away.
        let netns = Netns { name };
        netns.ip("link set lo up");
        netns
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `nsenter --net=` and the like.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip` with these words inside and gives what it prints; panics if it fails.
    pub fn ip(&self, words: &str) -> String {
        let output = must(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(words.split_whitespace()),
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A command that will run inside. `/sys` is that of the namespace too, so that a bpffs is not seen.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `program` inside with these words and gives what it prints; panics if it fails.
    pub fn run(&self, program: &str, words: &str) -> String {
        let output = must(self.command(program).args(words.split_whitespace()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `body` on a thread of its own inside. Threads that it starts are inside too; so are sockets that it
    /// gives back. `/sys` stays that of the test.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("open the namespace");
        let inside = || {
            rustix::thread::move_into_link_name_space(
                file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )
            .expect("enter the namespace");
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Makes a veth pair: `name` here, `peer_name` in `peer`, both up. The two may be the same namespace.
    pub fn veth(&self, name: &str, peer: &Netns, peer_name: &str) {
        let there = &peer.name;
        self.ip(&format!(
            "link add {name} type veth peer name {peer_name} netns {there}"
        ));
        peer.ip(&format!("link set {peer_name} up"));
        self.ip(&format!("link set {name} up"));
    }

    /// The link-layer address of an interface inside.
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let line = self.ip(&format!("-brief link show dev {interface}"));
        let text = line.split_whitespace().nth(2).expect("a MAC address");
        let bytes: Vec<u8> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC address"))
            .collect();
        bytes.try_into().expect("six bytes")
    }

    /// The index of an interface inside.
    pub fn ifindex(&self, interface: &str) -> u32 {
        let line = self.ip(&format!("-oneline link show dev {interface}"));
        let (ifindex, _) = line.split_once(':').expect("an interface");
        ifindex.parse().expect("an index")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Ends what runs inside and takes the namespace away. Says what fails, for a panic here would hide the test's own.
fn delete(name: &str) {
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    let inside = inside.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&inside)
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .for_each(|pid| {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        });
    if let Err(error) = run(Command::new("ip").args(["netns", "delete", name])) {
        eprintln!("{error}");
    }
}

/// Takes away the namespaces of test processes that are no more.
fn clear_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            delete(name);
        }
    }
}

fn must(command: &mut Command) -> Output {
    run(command).unwrap_or_else(|error| panic!("{error}"))
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, errors.trim()))
}

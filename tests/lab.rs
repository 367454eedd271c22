//! The lab itself: up and down, repeated and concurrent, leave nothing behind. Needs root.

#[path = "common/page.rs"]
mod page;
#[path = "lab/readme.rs"]
mod readme;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A lab with a name of its own; removed when dropped.
struct ScriptedLab {
    name: String,
    topology: &'static str,
}

impl ScriptedLab {
    fn new() -> ScriptedLab {
        ScriptedLab::of("one-node")
    }

    fn of(topology: &'static str) -> ScriptedLab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        ScriptedLab {
            name: format!("t-{}-{number}", std::process::id()),
            topology,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns-lab/lab");
        let mut command = Command::new(script);
        command
            .args(args)
            .env("LAB", &self.name)
            .env("DPD", env!("CARGO_BIN_EXE_dpd"))
            .env_remove("LAB_TOPOLOGY")
            .env_remove("LAB_MTU");
        if self.topology != "one-node" {
            command.env("LAB_TOPOLOGY", self.topology);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run netns-lab/lab")
    }

    /// Its output; it must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "lab {args:?} in {}: {}",
            self.name,
            text(&output)
        );
        text(&output)
    }

    fn folder(&self) -> PathBuf {
        Path::new("/run/dpd-lab").join(&self.name)
    }

    /// Everything on the machine that has the lab's name.
    fn traces(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let mut traces: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(&format!("/{}/", self.name)))
            .map(str::to_owned)
            .collect();
        if let Ok(entries) = std::fs::read_dir("/run/netns") {
            let names = entries.flatten().map(|entry| entry.file_name());
            traces.extend(
                names
                    .map(|name| name.to_string_lossy().into_owned())
                    .filter(|name| name.starts_with(&format!("{}-", self.name))),
            );
        }
        if let Ok(cgroup) = dpd::net::find_cgroup() {
            let groups = std::fs::read_dir(cgroup.path).expect("read the control groups");
            let names = groups.flatten().map(|entry| entry.file_name());
            let names = names.map(|name| name.to_string_lossy().into_owned());
            traces.extend(names.filter(|name| name.starts_with(&format!("{}-", self.name))));
        }
        if self.folder().exists() {
            traces.push(self.folder().display().to_string());
        }
        for entry in std::fs::read_dir("/proc").expect("read /proc").flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&format!("/{}/", self.name)) {
                traces.push(line);
            }
        }
        traces
    }
}

impl Drop for ScriptedLab {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The links of the machine's own namespace, which no lab may change.
fn links() -> String {
    let output = Command::new("ip")
        .args(["-brief", "link"])
        .output()
        .expect("run ip");
    text(&output)
}

#[test]
fn a_workload_gets_a_reply_without_dpd() {
    let lab = ScriptedLab::new();
    lab.ok(&["up"]);
    for (what, args, expected) in [
        (
            "the DNS server replies over IPv4",
            &["@10.200.0.44", "kubernetes.default.svc.cluster.local"][..],
            "10.32.0.1",
        ),
        (
            "and over IPv6",
            &[
                "@fd00:200::44",
                "kubernetes.default.svc.cluster.local",
                "AAAA",
            ],
            "fd00:32::1",
        ),
        (
            "and over TCP",
            &[
                "+tcp",
                "@10.200.0.44",
                "kubernetes.default.svc.cluster.local",
            ],
            "10.32.0.1",
        ),
        (
            "a large response falls back to TCP",
            &["@10.200.0.44", "large.test.cluster.local", "TXT"],
            "part-12-part-12",
        ),
    ] {
        let dig = [&["enter", "client", "dig", "+short", "+tries=1"], args].concat();
        let output = lab.ok(&dig);
        assert!(output.contains(expected), "{what}: {output}");
    }
    let output = lab.ok(&["enter", "node", "ping", "-c1", "-W5", "10.200.0.65"]);
    assert!(output.contains(" 0% packet loss"), "{output}");
}

#[test]
fn two_hosts_reach_each_other_without_dpd() {
    let lab = ScriptedLab::of("two-hosts");
    lab.ok(&["up"]);
    for (what, command, expected) in [
        (
            "the other host's DNS server replies over IPv4",
            "client dig +short +tries=1 @10.200.1.44 kubernetes.default.svc.cluster.local",
            "10.32.0.1",
        ),
        (
            "and over IPv6",
            "client dig +short +tries=1 @fd00:201::44 kubernetes.default.svc.cluster.local AAAA",
            "fd00:32::1",
        ),
        (
            "and a large response over TCP",
            "client dig +short +tries=1 @10.200.1.44 large.test.cluster.local TXT",
            "part-12-part-12",
        ),
        (
            "id.server: the server on the other host",
            "client dig +short +tries=1 @10.200.1.44 id.server CH TXT",
            "\"coredns\"",
        ),
        (
            "and the one on the client's host",
            "client dig +short +tries=1 @fd00:200::44 id.server CH TXT",
            "\"coredns-a\"",
        ),
        (
            "a host reaches the other",
            "node-a ping -c1 -W5 198.51.100.2",
            " 0% packet loss",
        ),
        (
            "over IPv6 in the other direction",
            "node-b ping -c1 -W5 2001:db8:1::1",
            " 0% packet loss",
        ),
        (
            "a workload reaches the world",
            "intruder ping -c1 -W5 203.0.113.9",
            " 0% packet loss",
        ),
        (
            "the world reaches a workload, over IPv6",
            "world ping -c1 -W5 fd00:201::44",
            " 0% packet loss",
        ),
        (
            "an unused address is unreachable at once",
            "client ping -c1 -W5 10.32.0.10",
            "Destination Net Unreachable",
        ),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let output = text(&lab.run(&[&["enter"], words.as_slice()].concat()));
        assert!(output.contains(expected), "{what}: {output}");
    }
}

#[test]
fn web_servers_reply_with_their_name_and_the_clients_address() {
    let lab = ScriptedLab::of("north-south");
    lab.ok(&["up"]);
    for (client, server, page) in [
        ("world", "10.200.0.80", "web-a answers 203.0.113.9"),
        ("world", "[fd00:201::80]", "web-b answers 2001:db8:3::9"),
        ("client", "203.0.113.9", "world answers 10.200.0.64"),
        ("client", "[fd00:201::80]", "web-b answers fd00:200::64"),
    ] {
        let url = format!("http://{server}/");
        let printed = lab.ok(&["enter", client, "curl", "-sS", "--max-time", "5", &url]);
        assert_eq!(printed.trim(), page, "{client} to {server}");
    }
    let unpublished = lab.run(&["enter", "world", "ping", "-c1", "-W5", "192.0.2.80"]);
    assert!(!unpublished.status.success(), "dpd alone serves it");
}

/// Each with the steps that it shows, and each fails if one of them does not show what it should.
#[test]
fn the_demos_succeed_and_remove_their_labs() {
    let demos = ["demo", "demo-two-hosts", "demo-north-south"];
    let demos = demos.map(|demo| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("netns-lab")
            .join(demo);
        let mut command = Command::new(script);
        command
            .env("DPD", env!("CARGO_BIN_EXE_dpd"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        (demo, command.spawn().expect("run the demo"))
    });
    for (demo, child) in demos {
        let lab = ScriptedLab {
            name: format!("demo-{}", child.id()),
            topology: "one-node",
        };
        let output = child.wait_with_output().expect("wait for the demo");
        assert!(output.status.success(), "{demo}: {}", text(&output));
        assert_eq!(lab.traces(), Vec::<String>::new(), "{demo}");
    }
}

#[test]
fn a_packet_crosses_both_hosts_and_the_router() {
    let lab = ScriptedLab::of("two-hosts");
    lab.ok(&["up"]);
    for (what, target, way) in [
        (
            "IPv4",
            "10.200.1.44",
            ["192.0.2.1", "192.0.2.254", "198.51.100.2", "10.200.1.44"],
        ),
        (
            "IPv6",
            "fd00:201::44",
            [
                "2001:db8:1::1",
                "2001:db8:1::254",
                "2001:db8:2::2",
                "fd00:201::44",
            ],
        ),
    ] {
        let output = lab.ok(&["enter", "client", "traceroute", "-n", "-q1", target]);
        let hops: Vec<&str> = output
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops, way, "{what}: {output}");
    }
}

#[test]
fn a_web_page_of_the_other_host_passes_a_router_with_a_small_mtu() {
    let lab = ScriptedLab::of("two-hosts");
    let up = lab
        .command(&["up"])
        .env("LAB_MTU", "1400")
        .output()
        .expect("run netns-lab/lab");
    assert!(up.status.success(), "{}", text(&up));
    let site = tempfile::tempdir().expect("make a folder");
    let folder = site.path().display();
    // Longer than the initial window, so that the server must discover the path MTU.
    let page = "a page of many packets\n".repeat(50_000);
    std::fs::write(site.path().join("page"), &page).expect("write a page");
    std::fs::write(
        site.path().join("nginx.conf"),
        format!(
            "user root; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\nhttp {{ access_log off; \
             server {{ listen 80; listen [::]:80; root {folder}; }} }}\n"
        ),
    )
    .expect("write a configuration");
    let (config, log) = (
        format!("{folder}/nginx.conf"),
        format!("{folder}/error.log"),
    );
    lab.ok(&["enter", "coredns", "nginx", "-e", &log, "-c", &config]);
    for (what, address, server, client) in [
        ("over IPv4", "10.200.1.44", "10.200.0.64", "10.200.1.44"),
        (
            "over IPv6",
            "[fd00:201::44]",
            "fd00:200::64",
            "fd00:201::44",
        ),
    ] {
        let url = format!("http://{address}/page");
        let curl = ["enter", "client", "curl", "-sS", "--max-time", "20", &url];
        assert!(lab.ok(&curl) == page, "{what}: the page is complete");
        let route = lab.ok(&["enter", "coredns", "ip", "route", "get", server]);
        assert!(
            route.contains("mtu 1400"),
            "{what}: the server has the PMTU: {route}"
        );
        // The client's requests are short; a ping without fragmentation is long enough.
        let ping = [
            "enter", "client", "ping", "-M", "do", "-c1", "-W5", "-s1400", client,
        ];
        let output = lab.run(&ping);
        assert!(
            text(&output).contains("1400"),
            "{what}: the router sends the client an ICMP error: {}",
            text(&output)
        );
        let route = lab.ok(&["enter", "client", "ip", "route", "get", client]);
        assert!(
            route.contains("mtu 1400"),
            "{what}: the client has the PMTU: {route}"
        );
    }
}

#[test]
fn each_host_has_a_dpd_of_its_own() {
    let lab = ScriptedLab::of("two-hosts");
    lab.ok(&["up"]);
    for (node, ending) in [("node-a", "a"), ("node-b", "b")] {
        // Only the node's name: this tests the daemons, not forwarding.
        let config = lab.folder().join(format!("config-{ending}.toml"));
        let own = lab.folder().join("config").with_extension(ending);
        std::fs::write(&own, format!("[node]\nname = \"{node}\"\n")).expect("write a file");
        std::fs::rename(&own, &config).expect("replace the example");
        let named = lab.ok(&["enter", node, "sh", "-c", "echo $DPD_CONFIG"]);
        assert_eq!(named.trim(), config.display().to_string());
    }
    let daemon_pid = |node| {
        let output = lab.run(&["enter", node, "dpd", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["daemon"]["pid"].as_u64()
    };
    lab.ok(&["start"]);
    let (a, b) = (daemon_pid("node-a"), daemon_pid("node-b"));
    assert!(a.is_some() && b.is_some() && a != b, "{a:?} and {b:?}");
    lab.ok(&["start"]);
    assert_eq!(
        daemon_pid("node-b"),
        b,
        "a second start keeps the running daemons"
    );
    lab.ok(&["stop", "node-a"]);
    assert_eq!(daemon_pid("node-a"), None, "one of them was stopped");
    assert_eq!(daemon_pid("node-b"), b, "the other still runs");
    lab.ok(&["start", "node-a"]);
    assert_eq!(daemon_pid("node-b"), b);
    lab.ok(&["stop"]);
    assert_eq!(daemon_pid("node-a"), None);
    assert_eq!(daemon_pid("node-b"), None);
    lab.ok(&["start"]);
    lab.ok(&["down"]);
    assert_eq!(
        lab.traces(),
        Vec::<String>::new(),
        "down removes everything"
    );
}

#[test]
fn a_workload_gets_another_link() {
    let lab = ScriptedLab::new();
    lab.ok(&["up"]);
    let ifindex = || {
        let link = lab.ok(&["enter", "node", "ip", "-o", "link", "show", "lxc-client"]);
        link.split(':').next().unwrap_or_default().to_owned()
    };
    let asks = || {
        let name = "kubernetes.default.svc.cluster.local";
        lab.ok(&["enter", "client", "dig", "+short", "@10.200.0.44", name])
    };
    let mut links = vec![ifindex()];
    lab.ok(&["replace", "client"]);
    assert_eq!(asks().trim(), "10.32.0.1", "without dpd");
    links.push(ifindex());
    lab.ok(&["start"]);
    let printed = lab.ok(&["replace", "client"]);
    assert!(
        printed.contains("endpoint lxc-client is served"),
        "{printed}"
    );
    assert_eq!(asks().trim(), "10.32.0.1", "with dpd");
    links.push(ifindex());
    links.dedup();
    assert_eq!(links.len(), 3, "each is another one: {links:?}");
}

#[test]
fn a_lab_keeps_its_topology() {
    let lab = ScriptedLab::of("two-hosts");
    let command_with = |topology: &str, args: &[&str]| {
        let mut command = lab.command(args);
        let output = command.env("LAB_TOPOLOGY", topology).output();
        output.expect("run netns-lab/lab")
    };
    lab.ok(&["up"]);
    let other = command_with("one-node", &["up"]);
    assert!(!other.status.success());
    assert!(
        text(&other).contains("run 'lab down' first"),
        "{}",
        text(&other)
    );
    lab.ok(&["status"]);
    let down = command_with("one-node", &["down"]);
    assert!(down.status.success(), "{}", text(&down));
    assert_eq!(
        lab.traces(),
        Vec::<String>::new(),
        "down removes the other topology"
    );
}

#[test]
fn up_and_down_can_be_repeated() {
    let lab = ScriptedLab::new();
    lab.ok(&["down"]);
    assert!(!lab.run(&["status"]).status.success(), "nothing is up yet");
    lab.ok(&["up"]);
    let before = lab.ok(&["status"]);
    lab.ok(&["up"]);
    assert_eq!(before, lab.ok(&["status"]), "a second up keeps the lab");
    lab.ok(&["down"]);
    assert_eq!(
        lab.traces(),
        Vec::<String>::new(),
        "down removes everything"
    );
    lab.ok(&["down"]);
}

#[test]
fn two_labs_are_independent() {
    let (one, other) = (ScriptedLab::new(), ScriptedLab::new());
    let mut ups =
        [&one, &other].map(|lab| lab.command(&["up"]).spawn().expect("run netns-lab/lab"));
    for up in &mut ups {
        assert!(up.wait().expect("wait for up").success());
    }
    one.ok(&["down"]);
    other.ok(&["status"]);
}

#[test]
fn up_repairs_a_broken_lab() {
    let lab = ScriptedLab::new();
    for (what, damage) in [
        ("a namespace is gone", "ip netns del $LAB-client"),
        ("a link is gone", "ip -n $LAB-node link del lxc-intruder"),
        (
            "the DNS server has died",
            "kill -KILL $(cat $DIR/knotd.pid)",
        ),
        ("the folder is gone", "umount $DIR/bpf && rm -rf $DIR"),
    ] {
        damage_and_up(&lab, what, damage);
    }
}

#[test]
fn up_repairs_two_broken_hosts() {
    let lab = ScriptedLab::of("two-hosts");
    for (what, damage) in [
        ("a host is gone", "ip netns del $LAB-node-b"),
        (
            "an uplink is down",
            "ip -n $LAB-node-a link set uplink0 down",
        ),
        (
            "the router has lost a link",
            "ip -n $LAB-router link del to-world",
        ),
        (
            "the DNS server on the client's host has died",
            "kill -KILL $(cat $DIR/knotd-a.pid)",
        ),
        ("the folder is gone", "umount $DIR/bpf && rm -rf $DIR"),
    ] {
        damage_and_up(&lab, what, damage);
    }
}

#[test]
fn up_repairs_broken_web_servers() {
    let lab = ScriptedLab::of("north-south");
    for (what, damage) in [
        (
            // With its processes, which would keep a namespace without a name.
            "a workload is gone",
            "ip netns pids $LAB-web-a | xargs kill -KILL; ip netns del $LAB-web-a",
        ),
        (
            "the world's web server has died",
            "kill -KILL $(cat $DIR/nginx-world.pid)",
        ),
    ] {
        damage_and_up(&lab, what, damage);
    }
}

fn damage_and_up(lab: &ScriptedLab, what: &str, damage: &str) {
    lab.ok(&["up"]);
    let done = Command::new("sh")
        .args(["-c", damage])
        .env("LAB", &lab.name)
        .env("DIR", lab.folder())
        .status()
        .expect("run sh");
    assert!(done.success(), "{what}: {damage}");
    lab.ok(&["up"]);
    lab.ok(&["status"]);
}

#[test]
fn a_failed_or_interrupted_up_removes_what_it_created() {
    let lab = ScriptedLab::new();
    // A DNS server that exits at once, or blocks until it is interrupted.
    for (what, server) in [
        ("the server fails", "exit 1"),
        ("up is terminated meanwhile", "kill -TERM $UP; sleep 60"),
    ] {
        let bin = tempfile::tempdir().expect("make a folder");
        let knotd = bin.path().join("knotd");
        std::fs::write(
            &knotd,
            format!(
                "#!/bin/sh\nUP=$(cat {}/up.pid)\n{server}\n",
                bin.path().display()
            ),
        )
        .expect("write a knotd");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&knotd, mode).expect("make it executable");
        let path = format!(
            "{}:{}",
            bin.path().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let output = Command::new("sh")
            .args(["-c", "echo $$ >$0/up.pid; exec netns-lab/lab up"])
            .arg(bin.path())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("LAB", &lab.name)
            .env("PATH", path)
            .output()
            .expect("run netns-lab/lab");
        assert!(!output.status.success(), "{what}: {}", text(&output));
        assert_eq!(lab.traces(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn invalid_arguments_are_an_error() {
    let lab = ScriptedLab::new();
    for (args, status, words) in [
        (&["sideways"][..], 2, "Usage"),
        (&[], 2, "Usage"),
        (&["enter"], 1, "enter where?"),
        (&["enter", "nobody"], 1, "only: node client"),
        (&["enter", "client"], 1, "is not up"),
        (&["replace"], 1, "replace what?"),
        (&["replace", "node"], 1, "only: client"),
        (&["replace", "client"], 1, "is not up"),
        (&["start"], 1, "is not up"),
        (&["stop", "node-a"], 1, "only: node"),
    ] {
        let output = lab.run(args);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{args:?}: {}",
            text(&output)
        );
        assert!(text(&output).contains(words), "{args:?}: {}", text(&output));
    }
    let output = lab
        .command(&["up"])
        .env("LAB", "../x")
        .output()
        .expect("run netns-lab/lab");
    assert!(text(&output).contains("a name is"), "{}", text(&output));
    for (variable, value, words) in [
        ("LAB_TOPOLOGY", "three-hosts", "there is no topology"),
        ("LAB_MTU", "1279", "1280 to 9000"),
        ("LAB_MTU", "9001", "1280 to 9000"),
        ("LAB_MTU", "wide", "1280 to 9000"),
    ] {
        let output = lab
            .command(&["up"])
            .env("LAB_TOPOLOGY", "two-hosts")
            .env(variable, value)
            .output()
            .expect("run netns-lab/lab");
        assert!(!output.status.success(), "{variable}={value}");
        assert!(text(&output).contains(words), "{}", text(&output));
    }
    assert_eq!(
        lab.traces(),
        Vec::<String>::new(),
        "invalid arguments create nothing"
    );
}

/// What is attached to the groups of a node concerns nobody else.
#[test]
fn a_node_has_a_control_group_of_its_own() {
    if dpd::net::find_cgroup().is_err() {
        return; // a machine without cgroup2
    }
    let lab = ScriptedLab::of("two-hosts");
    lab.ok(&["up"]);
    lab.ok(&["start"]);
    let group = "sed -n 's/^0:://p' /proc/self/cgroup";
    let root = "awk '/ - cgroup2 / { root = $4 } END { print root }'";
    for (node, daemon) in [("node-a", "dpd-a"), ("node-b", "dpd-b")] {
        let own = format!("/{}-{node}\n", lab.name);
        let of_command = lab.ok(&["enter", node, "sh", "-c", group]);
        assert!(of_command.ends_with(&own), "{of_command}");
        let pid = std::fs::read_to_string(lab.folder().join(format!("{daemon}.pid")));
        let pid = pid.expect("dpd's pid");
        for process in ["self", pid.trim()] {
            let line = format!("{root} /proc/{process}/mountinfo");
            let whole = lab.ok(&["enter", node, "sh", "-c", &line]);
            assert!(
                whole.ends_with(&own),
                "all of cgroup2 of {process}: {whole}"
            );
        }
        let of_daemon = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim()));
        let of_daemon = of_daemon.expect("dpd's group");
        assert!(of_daemon.ends_with(&own), "{of_daemon}");
    }
    let of_workload = lab.ok(&["enter", "client", "sh", "-c", group]);
    assert!(!of_workload.contains(&lab.name), "{of_workload}");
    lab.ok(&["down"]);
    assert_eq!(lab.traces(), [""; 0]);
}

#[test]
fn the_machine_itself_is_not_changed() {
    let named = |text: String| {
        let is_ours = |line: &&str| {
            ["lxc-", "uplink0", "to-node"]
                .iter()
                .any(|name| line.contains(name))
        };
        let mut lines: Vec<String> = text.lines().filter(is_ours).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for topology in ["one-node", "two-hosts", "north-south"] {
        let lab = ScriptedLab::of(topology);
        lab.ok(&["up"]);
        assert_eq!(named(links()), Vec::<String>::new(), "{topology}");
    }
}

//! What is passed by on dpd's direct way, and how packets are seen then: the claims of docs/beside-other-tools.md.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Stdio};

use dpd::net::ifindex;
use libbpf_rs::libbpf_sys;

use crate::lab::{NetnsLab, eventually};

const PING: &str = "
[policies.ping]
subject = \"kube-dns\"
ingress = [{ from = [\"client\"], ports = [\"icmp\"] }]
";

const NEIGHBOUR: &str = "10.200.0.44";
const WORLD: &str = "203.0.113.9";

fn started() -> (NetnsLab, NetnsLab) {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.drop_in("ping", PING);
    a.start();
    (a, b)
}

fn ping(a: &NetnsLab, place: &str, to: &str) -> bool {
    let output = a.run(place, &format!("ping -n -c 1 -W 1 {to}"));
    output.status.success()
}

/// tcpdump of echo requests and replies at an interface.
struct Dump {
    tcpdump: Child,
    file: std::path::PathBuf,
}

impl Dump {
    fn start(a: &NetnsLab, place: &str, interface: &str) -> Dump {
        let file = a.folder().join(format!("dump-{place}-{interface}"));
        let mut tcpdump = a.command(place, "tcpdump");
        tcpdump
            .args([
                "--immediate-mode",
                "-l",
                "-n",
                "-q",
                "-i",
                interface,
                "icmp",
            ])
            .stdout(File::create(&file).expect("a file"))
            .stderr(Stdio::null());
        let tcpdump = tcpdump.spawn().expect("run tcpdump");
        Dump { tcpdump, file }
    }

    /// `request` and `reply`, in order.
    fn seen(&self) -> Vec<String> {
        let lines = std::fs::read_to_string(&self.file).expect("read the file");
        let kind = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let echo = words.iter().position(|word| *word == "echo");
            echo.map(|at| words[at + 1].trim_end_matches(',').to_owned())
        };
        lines.lines().filter_map(kind).collect()
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

#[test]
fn tcpdump_at_a_workloads_interface_shows_what_it_sends() {
    let (a, _b) = started();
    let rows: [(&str, &str, &[&str]); 3] = [
        ("node-a", "lxc-client", &["request"]),
        ("node-a", "lxc-coredns-a", &["reply"]),
        ("coredns-a", "eth0", &["request", "reply"]),
    ];
    let dumps = rows.map(|(place, interface, _)| Dump::start(&a, place, interface));
    for (place, listening) in [("node-a", 2), ("coredns-a", 1)] {
        // Each socket has a line, and there is a heading.
        let sockets = format!("test $(wc -l </proc/thread-self/net/packet) -gt {listening}");
        eventually("tcpdump listens", || {
            let output = a.run(place, &sockets);
            output.status.success().then_some(()).ok_or(output)
        });
    }
    assert!(ping(&a, "client", NEIGHBOUR));
    for (dump, (place, interface, expected)) in dumps.iter().zip(rows) {
        eventually(&format!("{place} {interface}"), || {
            let seen = dump.seen();
            (seen == expected).then_some(()).ok_or(seen)
        });
    }
    let flows = a.flows();
    let observed = flows.iter().filter(|flow| flow["dst_ip"] == NEIGHBOUR);
    assert!(observed.count() > 0, "observe shows both: {flows:?}");
}

/// Packets that an interface's qdisc has sent.
fn queued(a: &NetnsLab, interface: &str) -> u64 {
    let line = format!("tc -s -j qdisc show dev {interface} root");
    let shown: serde_json::Value =
        serde_json::from_str(&a.ok("node-a", &line)).expect("qdiscs in JSON");
    shown[0]["packets"].as_u64().expect("a number")
}

#[test]
fn a_qdisc_shapes_on_the_uplink_and_not_at_a_receivers_interface() {
    let (a, _b) = started();
    for interface in ["uplink0", "lxc-coredns-a"] {
        a.ok(
            "node-a",
            &format!("tc qdisc add dev {interface} root tbf rate 1mbit burst 3000 limit 30000"),
        );
    }
    let bypassed =
        "packets that dpd delivers bypass the qdisc of lxc-coredns-a (tbf): shape what a workload";
    let checked = a.run("node-a", &format!("{} check", env!("CARGO_BIN_EXE_dpd")));
    let checked = crate::lab::text(&checked);
    assert!(checked.contains(bypassed), "{checked}");
    a.signal("HUP");
    eventually("status names the qdisc", || {
        let status = a.dpd("status");
        status.contains(bypassed).then_some(()).ok_or(status)
    });

    let before = queued(&a, "lxc-coredns-a");
    assert!(ping(&a, "client", NEIGHBOUR));
    assert_eq!(queued(&a, "lxc-coredns-a"), before, "between workloads");
    assert!(ping(&a, "node-a", NEIGHBOUR));
    assert!(queued(&a, "lxc-coredns-a") > before, "what the host sends");

    let before = queued(&a, "uplink0");
    assert!(ping(&a, "client", WORLD));
    assert!(queued(&a, "uplink0") > before, "to the world");
}

#[test]
fn chains_at_the_interfaces_of_workloads_are_passed_by_and_those_of_uplinks_are_not() {
    let (a, _b) = started();
    let chain = |hook: &str, interface: &str| {
        let table = format!(
            "table netdev t_{hook} {{\nchain c {{\ntype filter hook {hook} device {interface} priority 0\nip protocol icmp drop\n}}\n}}"
        );
        a.ok("node-a", &format!("nft -f - <<'END'\n{table}\nEND"));
    };
    chain("egress", "lxc-coredns-a");
    chain("ingress", "lxc-client");
    let bypassed = "packets that dpd delivers bypass nftables netdev t_egress/c, nftables netdev t_ingress/c at interfaces";
    eventually("status names the chains", || {
        let status = a.dpd("status");
        status.contains(bypassed).then_some(()).ok_or(status)
    });
    assert!(ping(&a, "client", NEIGHBOUR), "past both");
    assert!(ping(&a, "client", WORLD), "past the ingress");
    assert!(!ping(&a, "node-a", NEIGHBOUR), "not what the host sends");

    a.ok("node-a", "nft flush ruleset");
    chain("egress", "uplink0");
    super::way_becomes(&a, "stack", "nftables netdev t_egress/c has rules");
    assert!(!ping(&a, "client", WORLD), "the chain drops it");
}

#[test]
fn native_xdp_inside_a_workload_is_passed_by() {
    let (a, _b) = started();
    let program = drop_program();
    a.within("coredns-a", || {
        let ifindex = ifindex("eth0").expect("eth0");
        let attach = |flags| {
            // SAFETY: the descriptor is open, and no options are given.
            let done = unsafe {
                libbpf_sys::bpf_xdp_attach(
                    ifindex as i32,
                    program.as_raw_fd(),
                    flags,
                    std::ptr::null(),
                )
            };
            assert_eq!(done, 0, "attach the XDP program");
        };
        attach(libbpf_sys::XDP_FLAGS_DRV_MODE);
        assert!(ping(&a, "client", NEIGHBOUR), "native");
        assert!(!ping(&a, "node-a", NEIGHBOUR), "native, from the host");
        // SAFETY: as above.
        let done = unsafe {
            libbpf_sys::bpf_xdp_detach(
                ifindex as i32,
                libbpf_sys::XDP_FLAGS_DRV_MODE,
                std::ptr::null(),
            )
        };
        assert_eq!(done, 0, "detach it");
        attach(libbpf_sys::XDP_FLAGS_SKB_MODE);
        assert!(!ping(&a, "client", NEIGHBOUR), "generic");
    });
}

/// `XDP_DROP` for every packet.
fn drop_program() -> OwnedFd {
    crate::common::foreign::load(libbpf_sys::BPF_PROG_TYPE_XDP, c"drop_all", 1)
}

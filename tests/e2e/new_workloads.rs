//! Workloads are created while dpd runs: nothing of them passes unjudged, and `dpd endpoint wait` says when.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dpd::bpf::sys::pins::Pins;

use crate::common::foreign;
use crate::lab::{NetnsLab, eventually, text};

const DATAPATH: &str = include_str!("../../docs/datapath.md");
const CREATIONS: usize = 20;

pub const LATE: &str = "
[interfaces.lxc-late]
role      = \"endpoint\"
addresses = [\"10.200.0.70\"]
identity  = \"late\"

[identities.late]
id = 20070
";

/// Neither the host nor anybody else may send to it, and it may send to nobody.
const CUT_OFF: &str = "
[policy]
allow_host = false

[policies.late]
subject = \"late\"
ingress = []
egress  = []
";

/// Sockets on both ends of a workload's link that send without a break, and what arrives at each.
#[derive(Default)]
struct Flood {
    end: AtomicBool,
    from_workload: AtomicU64,
    to_workload: AtomicU64,
}

impl Flood {
    /// Runs a test while the node and the intruder's namespace, the workload, send to each other.
    fn during(lab: &NetnsLab, test: impl FnOnce(&Flood)) {
        let flood = Flood::default();
        std::thread::scope(|scope| {
            for (place, peer, arrived) in [
                ("node", "10.200.0.70:4000", &flood.from_workload),
                ("intruder", "10.200.0.1:4000", &flood.to_workload),
            ] {
                let socket = lab.within(place, || UdpSocket::bind("0.0.0.0:4000").expect("bind"));
                socket.set_nonblocking(true).expect("do not wait");
                let flood = &flood;
                scope.spawn(move || flood.send_and_count(&socket, peer, arrived));
            }
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&flood)));
            flood.end.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    fn send_and_count(&self, socket: &UdpSocket, peer: &str, arrived: &AtomicU64) {
        while !self.end.load(Ordering::Relaxed) {
            // There is no link, or no route, most of the time.
            let _ = socket.send_to(b"unjudged?", peer);
            while socket.recv(&mut [0; 16]).is_ok() {
                arrived.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn arrived(&self) -> [u64; 2] {
        [&self.from_workload, &self.to_workload].map(|count| count.load(Ordering::Relaxed))
    }

    /// Waits until packets of both directions are dropped at the endpoint.
    fn meets_policy(&self, lab: &NetnsLab) {
        let before = drops(lab);
        eventually("both directions meet policy", || {
            let now = drops(lab);
            let is_both = (0..2).all(|direction| now[direction] > before[direction] + 10);
            is_both.then_some(()).ok_or((before, now, self.arrived()))
        });
    }
}

/// Drops of the endpoint, in both directions. A new one of its name continues to count.
fn drops(lab: &NetnsLab) -> [u64; 2] {
    let rows = lab.json("endpoint list");
    let rows = rows.as_array().expect("an array");
    let row = rows.iter().find(|row| row["interface"] == "lxc-late");
    let row = row.expect("the endpoint");
    ["drops_in", "drops_out"].map(|key| row[key].as_u64().expect("a number"))
}

/// The link of the workload, whose own end is up, and sends; the node's end is down.
fn create(lab: &NetnsLab) {
    let peer = lab.netns_name("intruder");
    lab.ok(
        "node",
        &format!(
            "set -e
            ip link add lxc-late address 02:00:00:00:70:01 type veth \
                peer name late address 02:00:00:00:70:02 netns {peer}
            ip address add 169.254.1.1/32 dev lxc-late"
        ),
    );
    lab.ok(
        "intruder",
        "set -e
        ip address add 10.200.0.70/32 dev late
        ip link set late up
        ip neigh replace 169.254.1.1 lladdr 02:00:00:00:70:01 dev late
        ip route replace default via 169.254.1.1 dev late onlink src 10.200.0.70",
    );
}

fn ifindex(lab: &NetnsLab, interface: &str) -> u32 {
    let link = lab.ok("node", &format!("ip -o link show dev {interface}"));
    let index = link.split(':').next().unwrap_or_default();
    index.parse().expect("a number")
}

fn set_up(lab: &NetnsLab) {
    lab.ok(
        "node",
        "set -e
        ip link set lxc-late up
        ip neigh replace 10.200.0.70 lladdr 02:00:00:00:70:02 dev lxc-late
        ip route replace 10.200.0.70/32 dev lxc-late src 10.200.0.1",
    );
}

fn delete(lab: &NetnsLab) {
    lab.ok("node", "ip link del lxc-late");
    eventually("it is pending", || {
        let state = lab.dpd("endpoint list");
        let row = state.lines().find(|row| row.starts_with("lxc-late"));
        let is_pending = row.is_some_and(|row| row.contains("pending"));
        is_pending.then_some(()).ok_or(state)
    });
}

/// Without the program it arrives: the flood is one.
fn assert_flood_arrives(lab: &NetnsLab, flood: &Flood) {
    create(lab);
    set_up(lab);
    eventually("the flood arrives without dpd", || {
        let arrived = flood.arrived();
        let is_both = arrived.iter().all(|count| *count > 0);
        is_both.then_some(()).ok_or(arrived)
    });
    lab.ok("node", "ip link del lxc-late");
}

#[test]
fn nothing_passes_before_the_first_verdict() {
    let lab = NetnsLab::started();
    Flood::during(&lab, |flood| {
        assert_flood_arrives(&lab, flood);
        lab.drop_in("late", &format!("{LATE}{CUT_OFF}"));
        lab.dpd("reload");
        let before = flood.arrived();
        for turn in 0..CREATIONS {
            create(&lab);
            lab.dpd("endpoint wait lxc-late --timeout 20s");
            set_up(&lab);
            flood.meets_policy(&lab);
            assert_eq!(flood.arrived(), before, "creation {turn}");
            delete(&lab);
        }
    });
}

/// Not even of a link that is set up in the middle: from its programs on it is closed. It waits for those of others, that
/// appear with it.
#[test]
fn what_is_set_up_between_its_programs_and_the_commit_is_closed() {
    const OTHERS: usize = 8;
    const TURNS: usize = 5;
    let lab = NetnsLab::started();
    let links = Pins::new(&lab.bpf_root()).links();
    let others = |line: &dyn Fn(usize) -> String| (0..OTHERS).map(line).collect::<String>();
    let declared = others(&|n| {
        format!(
            "[interfaces.other{n}]\nrole = \"endpoint\"\naddresses = [\"10.200.9.{n}\"]\nidentity = \"late\"\n"
        )
    });
    let create_others = others(&|n| format!("ip link add other{n} type veth peer name p{n}\n"));
    let delete_others = others(&|n| format!("ip link del other{n}\n"));
    Flood::during(&lab, |flood| {
        assert_flood_arrives(&lab, flood);
        lab.drop_in("late", &format!("{LATE}{declared}{CUT_OFF}"));
        lab.dpd("reload");
        let before = flood.arrived();
        let mut closed = 0;
        for turn in 0..TURNS {
            lab.signal("STOP");
            create(&lab);
            lab.ok("node", &create_others);
            let its = links.join(format!("{}-egress", ifindex(&lab, "lxc-late")));
            lab.signal("CONT");
            eventually("it has both programs", || {
                its.exists().then_some(()).ok_or(turn)
            });
            set_up(&lab);
            lab.dpd("endpoint wait lxc-late --timeout 20s");
            flood.meets_policy(&lab);
            assert_eq!(flood.arrived(), before, "creation {turn}");
            let drops = lab.drops();
            let drops = drops.iter();
            closed += drops.filter(|row| row.contains("no configuration")).count();
            lab.ok("node", &delete_others);
            delete(&lab);
        }
        assert!(closed > 0, "none was set up before its commit");
    });
}

/// `dpd endpoint wait` with these words.
fn wait(lab: &NetnsLab, words: &str) -> Output {
    let dpd = env!("CARGO_BIN_EXE_dpd");
    lab.run("node", &format!("{dpd} endpoint wait {words}"))
}

fn assert_fails(lab: &NetnsLab, words: &str, because: &[&str]) {
    let output = wait(lab, words);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{words}: {printed}");
    for because in because {
        assert!(printed.contains(because), "{words}: {because}: {printed}");
    }
}

#[test]
fn wait_says_what_is_missing() {
    let lab = NetnsLab::laid();
    let down = "no daemon is running: `systemctl start dpd`";
    let nothing = "endpoint lxc-client is not served after 100ms: no configuration is live";
    assert_fails(&lab, "lxc-client --timeout 100ms", &[nothing, down]);
    lab.start();
    let printed = text(&wait(&lab, "lxc-client"));
    let revision = lab.revision();
    assert_eq!(
        printed,
        format!("endpoint lxc-client is served, revision {revision}\n")
    );

    let undeclared = "the live configuration does not have it";
    let advice = "needs [interfaces.lxc-late] with role = \"endpoint\"";
    assert_fails(&lab, "lxc-late --timeout 100ms", &[undeclared, advice]);
    lab.drop_in("late", "[interfaces.lxc-late]\nrole = \"endpoints\"\n");
    let refused = &[undeclared, "not valid", "late.toml"];
    eventually("the file is refused", || {
        let error = lab.json("status")["config"]["last_error"].clone();
        error.is_string().then_some(()).ok_or(error)
    });
    assert_fails(&lab, "lxc-late --timeout 0s", &refused[..1]);
    assert_fails(&lab, "lxc-late --timeout 0s", &refused[2..]);

    lab.apply("late", LATE);
    let absent = "its interface does not exist in this network namespace";
    assert_fails(&lab, "lxc-late --timeout 100ms", &[absent]);
    lab.drop_in("late", "[interfaces.lxc-late]\nrole = \"uplink\"\n");
    eventually("it is an uplink", || {
        let output = wait(&lab, "lxc-late --timeout 0s");
        let printed = text(&output);
        let is_uplink = printed.contains("has it as an uplink");
        is_uplink.then_some(()).ok_or(printed)
    });

    lab.apply("late", LATE);
    lab.stop();
    lab.dpd("endpoint wait lxc-client"); // it is served without the daemon
    create(&lab);
    let unattached = "its interface is not attached";
    assert_fails(&lab, "lxc-late --timeout 100ms", &[unattached, down]);
    lab.ok("node", "ip link del lxc-client");
    assert_fails(&lab, "lxc-client --timeout 0s", &[absent, down]);
}

#[test]
fn wait_says_why_the_kernel_refuses_an_interface() {
    const PROGRAMS_MAX: usize = 63; // on one hook, and none of them twice
    let lab = NetnsLab::started();
    lab.apply("late", LATE);
    lab.ok("node", "ip link add lxc-new type veth peer name new");
    let ifindex = ifindex(&lab, "lxc-new");
    let attach = |_| {
        let program = foreign::program(c"other", foreign::Does::Next);
        foreign::attach_first(ifindex, &program)
    };
    let others = lab.within("node", || (0..PROGRAMS_MAX).map(attach).collect());
    let others: Vec<OwnedFd> = others;
    lab.ok("node", "ip link set lxc-new name lxc-late");
    eventually("it is skipped", || {
        let error = lab.json("status")["config"]["last_error"].clone();
        error.is_string().then_some(()).ok_or(error)
    });
    let words = [
        "its interface is not attached",
        "interface lxc-late",
        "skipped",
    ];
    assert_fails(&lab, "lxc-late --timeout 100ms", &words);
    drop(others);
    lab.dpd("reload");
    lab.dpd("endpoint wait lxc-late --timeout 40s");
}

/// It waits for the daemon, the table in the file and the interface, in whatever order they come.
#[test]
fn wait_waits_for_whatever_comes() {
    let lab = NetnsLab::laid();
    let waiting = || {
        let dpd = env!("CARGO_BIN_EXE_dpd");
        let mut wait = lab.command("node", dpd);
        wait.args(["endpoint", "wait", "lxc-late", "--timeout", "60s"]);
        wait.stdout(Stdio::piped()).spawn().expect("run dpd")
    };
    let is_waiting = |child: &mut std::process::Child| {
        std::thread::sleep(Duration::from_millis(200)); // four looks
        child.try_wait().expect("look at it").is_none()
    };
    let served = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("endpoint lxc-late is served"));
        assert!(lab.attached().iter().any(|row| row.starts_with("lxc-late")));
    };
    let mut child = waiting();
    assert!(is_waiting(&mut child), "for the daemon");
    lab.start();
    assert!(is_waiting(&mut child), "for its table");
    lab.apply("late", LATE);
    assert!(is_waiting(&mut child), "for its interface");
    create(&lab);
    served(child);

    // Another one of the same name.
    lab.ok("node", "ip link del lxc-late");
    create(&lab);
    served(waiting());
    lab.ok("node", "ip link del lxc-late");
    fs::remove_file(lab.config().with_extension("d").join("late.toml")).expect("remove it");
    lab.dpd("reload");
    create(&lab);
    let mut child = waiting();
    assert!(is_waiting(&mut child), "for its table");
    lab.drop_in("late", LATE);
    served(child);
}

/// The example of the page, as it stands there.
#[test]
fn the_example_of_the_documentation_works() {
    let lab = NetnsLab::started();
    let (_, section) = DATAPATH.split_once("\n## New workloads\n").expect("it");
    let (_, example) = section.split_once("```sh\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let folder = lab.config().with_extension("d");
    let folder = folder.display().to_string();
    let script = example
        .replace("/etc/dpd/config.d", &folder)
        .replace(
            "netns web",
            &format!("netns {}", lab.netns_name("intruder")),
        )
        .replace("name eth0", "name web") // the intruder has its own
        .replace("\ndpd ", &format!("\n{} ", env!("CARGO_BIN_EXE_dpd")));
    assert!(script.contains(&folder), "{script}");
    let printed = lab.ok("node", &format!("set -e\n{script}"));
    assert!(printed.contains("endpoint lxc-web is served"), "{printed}");
    lab.ok(
        "intruder",
        "set -e
        ip address add 10.200.0.70/32 dev web
        ip link set web up
        ip route add 10.200.0.1/32 dev web src 10.200.0.70",
    );
    lab.ok("node", "ping -n -c 1 -W 5 10.200.0.70");
    let row = lab.dpd("endpoint list");
    assert!(row.contains("lxc-web"), "{row}");
}

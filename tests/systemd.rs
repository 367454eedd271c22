//! The unit under a real systemd: ready, reload, log, stop. Needs root.

#[path = "common/machine.rs"]
mod machine;
#[path = "common/page.rs"]
mod page;
#[path = "systemd/pages.rs"]
mod pages;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dpd::bpf::sys::capabilities::{NEEDED, OPTIONAL};
use dpd::bpf::sys::expedited_rcu::MANY;
use machine::{DEADLINE, Machine, text};
use serde_json::{Value, json};

const FIRST: &str = r#"
[identities.client]
id = 20001
labels = ["app=client"]

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64"]
identity = "client"

[services.first]
frontends = ["10.32.0.10:53/udp"]
backends = ["10.200.0.64:53"]
"#;

impl Machine {
    /// The host's own systemd with dpd's unit.
    fn boot(config: &str) -> Machine {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("make a folder for the configuration");
        let file = folder.path().join("config.toml");
        fs::write(&file, config).expect("write the configuration");
        let unit = root.join("systemd/dpd.service");
        Machine::start([Path::new(env!("CARGO_BIN_EXE_dpd")), &unit, &file])
    }
}

#[test]
fn the_unit_starts_reloads_logs_and_stops() {
    let machine = Machine::boot(FIRST);
    let services = "dpd service list -o json";

    machine.ok("systemctl start dpd");
    let live = machine.ok(services);
    assert!(
        live.contains("10.32.0.10"),
        "started means that the datapath matches the file: {live}"
    );

    machine.configure(&FIRST.replace("10.32.0.10", "10.32.0.20"));
    machine.ok("systemctl reload dpd");
    let live = machine.ok(services);
    assert!(
        live.contains("10.32.0.20"),
        "reloaded means that the changed file is live: {live}"
    );

    let before = machine.ok(services);
    machine.configure(&FIRST.replace("identity = \"client\"", "identity = \"cleint\""));
    let reload = machine.run("systemctl reload dpd");
    assert!(
        !reload.status.success(),
        "an invalid file fails the reload, with its errors: {}",
        text(&reload)
    );
    assert_eq!(
        before,
        machine.ok(services),
        "an invalid file changes nothing in the kernel"
    );
    machine.ok("systemctl is-active dpd");
    assert!(
        machine.log().contains("cleint"),
        "the log has the errors of the file: {}",
        machine.log()
    );

    machine.ok("systemctl stop dpd");
    assert_eq!(
        before,
        machine.ok(services),
        "stopping the daemon does not change the datapath"
    );
    assert!(
        machine
            .ok("systemctl show -p Result dpd")
            .contains("success"),
        "the daemon stops cleanly: {}",
        machine.log()
    );

    machine.configure(FIRST);
    machine.ok("systemctl start dpd");
    let live = machine.ok(services);
    assert!(
        live.contains("10.32.0.10") && !live.contains("10.32.0.20"),
        "a new daemon takes the datapath over and makes it match the file: {live}"
    );
}

/// A valid file that only the kernel can refuse.
#[test]
fn a_reload_that_the_kernel_refuses_fails() {
    let machine = Machine::boot(FIRST);
    machine.ok("systemctl start dpd");
    machine.ok("systemd-run --quiet --unit=taken python3 -m http.server --bind 127.0.0.1 9964");
    machine.eventually("the port is taken", "ss -Hltn sport = :9964 | grep -q .");
    let daemon = "[daemon]\nmetrics = \"127.0.0.1:9964\"\n";
    machine.configure(&format!("{daemon}{FIRST}"));
    let reload = machine.run("systemctl reload dpd");
    assert!(!reload.status.success(), "{}", text(&reload));
    let error = "daemon.metrics: listen at 127.0.0.1:9964: Address already in use";
    machine.eventually(
        "the journal has the reason",
        &format!("journalctl -q -u dpd | grep -q '{error}'"),
    );
    machine.ok("systemctl is-active dpd");
    let reload = machine.run("dpd reload");
    assert_eq!(reload.status.code(), Some(1), "{}", text(&reload));
    assert!(text(&reload).contains(error), "{}", text(&reload));

    machine.ok("systemctl stop taken");
    machine.ok("systemctl reload dpd");
    machine.ok("curl -sS --fail -m 5 http://127.0.0.1:9964/metrics");
    machine.ok("systemctl is-active dpd");

    // Several at once: each waits for one that began after it.
    machine.configure(&FIRST.replace("10.32.0.10", "10.32.0.30"));
    machine.ok(
        "for n in 1 2 3 4 5 6 7 8; do dpd reload & pids=\"$pids $!\"; done
        for pid in $pids; do wait $pid || exit 1; done
        dpd service list | grep -q 10.32.0.30",
    );
    let reloads = &machine.status()["daemon"]["reloads"];
    assert!(reloads.as_u64() >= Some(4), "{reloads}");
}

#[test]
fn an_invalid_file_fails_the_start() {
    let machine = Machine::boot("[services.first]\nfrontend = []\n");
    let start = machine.run("systemctl start dpd");
    assert!(
        !start.status.success(),
        "the unit does not become ready: {}",
        text(&start)
    );
    machine.eventually(
        "the log has the unknown key",
        "journalctl -q -u dpd PRIORITY=3 | grep -q frontend",
    );
}

/// Though the step of the unit that makes the folders fails first.
#[test]
fn a_start_without_a_bpffs_names_the_command_that_mounts_one() {
    let machine = Machine::boot(FIRST);
    machine.ok("umount /sys/fs/bpf");
    machine.fails("systemctl start dpd");
    machine.eventually(
        "the journal has the command",
        "journalctl -q -u dpd PRIORITY=3 | grep -q 'mount -t bpf -o mode=0700 bpf /sys/fs/bpf'",
    );
    machine.ok("mount -t bpf -o mode=0700 bpf /sys/fs/bpf");
    machine.eventually("it starts then", "systemctl is-active dpd");
}

/// More often than systemd's default limit, after which a unit is not started again.
#[test]
fn a_start_that_fails_is_tried_again_until_the_file_is_fixed() {
    let machine = Machine::boot("[services.first]\nfrontend = []\n");
    machine.ok("mkdir -p /etc/systemd/system/dpd.service.d
        printf '[Service]\\nRestartSec=100ms\\n' >/etc/systemd/system/dpd.service.d/quick.conf
        systemctl daemon-reload");
    let start = machine.run("systemctl start dpd");
    assert!(!start.status.success(), "{}", text(&start));
    machine.eventually(
        "it fails many times",
        "test $(systemctl show -P NRestarts dpd) -gt 7",
    );
    machine.configure(FIRST);
    machine.eventually(
        "it starts by itself once the file is right",
        "systemctl is-active dpd && dpd service list | grep -q 10.32.0.10",
    );
}

#[test]
fn metrics_at_an_address_that_is_added_later_do_not_delay_the_start() {
    let daemon = "[daemon]\nmetrics = \"192.0.2.7:9964\"\n";
    let machine = Machine::boot(&format!("{daemon}{FIRST}"));
    machine.ok("systemctl start dpd");
    let scrape = "curl -sS --fail -m 5 http://192.0.2.7:9964/metrics";
    assert!(
        !machine.run(scrape).status.success(),
        "the address does not exist"
    );
    machine.eventually(
        "the log has a warning",
        "journalctl -q -u dpd PRIORITY=4 | grep -q '192.0.2.7:9964 is unreachable until'",
    );
    machine.ok("ip address add 192.0.2.7/32 dev lo");
    machine.ok(scrape);
}

#[test]
fn a_killed_daemon_is_started_again() {
    let machine = Machine::boot(FIRST);
    machine.ok("systemctl start dpd");
    let before = machine.ok("dpd service list -o json");
    machine.ok("systemctl kill --signal=KILL dpd");
    assert_eq!(
        before,
        machine.ok("dpd service list -o json"),
        "SIGKILL changes nothing in the kernel"
    );
    machine.eventually(
        "systemd starts it again",
        "systemctl show -p NRestarts dpd | grep -qx NRestarts=1 && systemctl is-active dpd",
    );
}

/// Two workloads inside the container, and a policy without an allow rule.
const REFUSED: &str = r#"
[events]
interval = "1h"

[interfaces.lxc-intruder]
role = "endpoint"
addresses = ["10.200.0.65"]
identity = "intruder"

[interfaces.lxc-coredns]
role = "endpoint"
addresses = ["10.200.0.44"]
identity = "kube-dns"

[identities]
intruder = { id = 20002 }
kube-dns = { id = 18203 }

[policies.nobody]
subject = "kube-dns"
ingress = []

[policies.not-them]
subject = "kube-dns"
ingress = [{ from = ["intruder"], ports = ["54/udp"], action = "deny" }]
"#;

const WORKLOADS: &str = r"set -e
for row in intruder:10.200.0.65 coredns:10.200.0.44; do
    name=${row%%:*} address=${row#*:}
    ip netns add $name
    ip link add lxc-$name type veth peer name eth0 netns $name
    ip link set lxc-$name up
    ip -n $name address add $address/32 dev eth0
    ip -n $name link set eth0 up
    ip -n $name route add default dev eth0
done";

impl Machine {
    /// The intruder sends a packet from each of these ports to one of the DNS server's.
    fn send_denied(&self, ports: std::ops::Range<u16>, to: u16) {
        let script = format!(
            "import socket\n\
             for port in range({}, {}):\n    \
                 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
                 s.bind((\"10.200.0.65\", port))\n    \
                 s.sendto(b\"x\", (\"10.200.0.44\", {to}))\n    \
                 s.close()",
            ports.start, ports.end
        );
        self.ok(&format!("ip netns exec intruder python3 -c '{script}'"));
    }

    /// Records of the journal that match, as JSON.
    fn records(&self, matches: &str) -> Vec<Value> {
        let lines = self.ok(&format!("journalctl -q -u dpd -o json --all {matches}"));
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record in JSON"))
            .collect()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok("dpd status -o json")).expect("the status in JSON")
    }
}

#[test]
fn drops_are_records_of_the_journal() {
    let machine = Machine::boot(REFUSED);
    machine.ok(WORKLOADS);
    machine.ok("systemctl start dpd");
    machine.send_denied(4000..4001, 53);
    machine.send_denied(4001..4002, 54);
    let drops = "DPD_VERDICT=dropped DPD_SRC_NAME=intruder";
    machine.eventually(
        "both drops are in the journal",
        &format!("test $(journalctl -q -u dpd {drops} -o json | wc -l) = 2"),
    );
    let records = machine.records(drops);
    let fields = |record: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| record[*name].clone()).collect()
    };
    let names = [
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "DPD_POINT",
        "DPD_DROP_REASON",
        "DPD_SRC_PORT",
        "DPD_RULE",
        "DPD_CONFIG_FILE",
        "DPD_CONFIG_LINE",
        "DPD_CONFIG_REVISION",
        "DPD_ENFORCED_BY",
        "DPD_INTERFACE",
    ];
    assert_eq!(
        fields(&records[0], &names),
        [
            json!(
                "10.200.0.65:4000 (intruder) -> 10.200.0.44:53 (kube-dns) \
                 DROPPED (policy denied: no rule of ingress kube-dns) (UDP)"
            ),
            json!("4"),
            json!("dpd"),
            json!("from-endpoint"),
            json!("policy denied: no rule"),
            json!("4000"),
            Value::Null,
            Value::Null,
            Value::Null,
            json!("1"),
            json!("nobody"),
            json!("lxc-intruder"),
        ]
    );
    let line = 1 + REFUSED
        .lines()
        .position(|line| line.contains("54/udp"))
        .expect("the rule");
    assert_eq!(
        fields(
            &records[1],
            &[
                "DPD_RULE",
                "DPD_CONFIG_FILE",
                "DPD_CONFIG_LINE",
                "DPD_ENFORCED_BY"
            ]
        ),
        [
            json!("not-them/ingress/0"),
            json!("/etc/dpd/config.toml"),
            json!(line.to_string()),
            Value::Null
        ]
    );

    // A stopped journald blocks nothing, and a restarted one gets records again.
    machine.ok("systemctl kill --signal=STOP systemd-journald");
    machine.send_denied(5000..6000, 53);
    machine.eventually(
        "observers get every drop meanwhile",
        "test $(dpd observe --last 8000 --verdict dropped -o json | wc -l) = 1002",
    );
    assert!(machine.status()["event_loss"]["journal"].as_u64() > Some(0));
    machine
        .ok("systemctl kill --signal=CONT systemd-journald && systemctl restart systemd-journald");
    machine.eventually(
        "the loss is logged",
        "journalctl -q -u dpd | grep -q 'flows were not logged'",
    );
    machine.send_denied(6000..6001, 53);
    machine.eventually(
        "the journal has the next drop",
        "test -n \"$(journalctl -q -u dpd DPD_SRC_PORT=6000 -o json)\"",
    );
    assert_eq!(
        machine
            .records("MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e")
            .len(),
        0,
        "journald suppressed nothing"
    );
    machine.ok("systemctl is-active dpd");
}

/// Each part of `systemd-analyze security` that is left has its reason in docs/security.md.
#[test]
fn the_unit_is_hardly_exposed() {
    let machine = Machine::boot(FIRST);
    let exposure = machine.exposure();
    assert!(exposure <= 2.0, "{exposure}");
}

#[test]
fn the_daemon_is_no_root_and_has_no_more_than_it_needs() {
    let machine = Machine::boot(FIRST);
    machine.ok(WORKLOADS);
    machine.ok("systemctl start dpd");
    let status = machine.ok("cat /proc/$(systemctl show -P MainPID dpd)/status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let id = machine.ok("id -u dpd");
    assert_eq!(field("Uid:"), id.trim());
    let needs = NEEDED.iter().chain(&OPTIONAL);
    let wanted = needs.fold(0, |all, need| all | need.capability.bits());
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(field(set), format!("{wanted:016x}"), "{set} {status}");
    }
    assert_eq!(field("Seccomp:"), "2", "{status}");
    let log = machine.log();
    assert!(
        !log.contains("not permitted") && !log.contains("ermission denied"),
        "{log}"
    );
}

/// What root has started by hand is taken over by the unit.
#[test]
fn a_datapath_of_root_becomes_the_units() {
    let machine = Machine::boot(FIRST);
    machine.ok("dpd run >/run/by-hand 2>&1 & echo $! >/run/pid");
    machine.eventually("it is ready", "grep -q ready /run/by-hand");
    machine
        .ok("kill $(cat /run/pid); while kill -0 $(cat /run/pid) 2>/dev/null; do sleep 0.1; done");
    machine.ok("systemctl start dpd && dpd service list | grep -q 10.32.0.10");
    let owners = machine.ok("find /sys/fs/bpf/dpd ! -user dpd");
    assert_eq!(owners, "");
}

#[test]
fn the_units_group_may_observe_and_list() {
    let machine = Machine::boot(FIRST);
    machine.ok("systemctl start dpd");
    let socket = machine.ok("stat -c '%a %U %G' /run/dpd/dpd.sock /sys/fs/bpf /sys/fs/bpf/dpd");
    assert_eq!(socket, "660 dpd dpd\n710 root dpd\n750 dpd dpd\n");
    let member =
        "setpriv --reuid 65534 --regid 65534 --groups $(getent group dpd | cut -d: -f3) dpd";
    let lists = [
        "service list",
        "endpoint list",
        "identity list",
        "policy list",
        "ct list",
        "status",
        "observe --last 1",
        "endpoint wait --timeout 1s lxc-client; test $? = 1; true",
    ];
    for list in lists {
        machine.ok(&format!("{member} {list}"));
    }
    let status = machine.ok(&format!("{member} status"));
    assert!(status.contains("daemon:     up"), "{status}");
    let refused = |who: &str, command: &str, reason: &str| {
        let refused = machine.run(&format!("{who} {command}"));
        let text = text(&refused);
        assert_eq!(refused.status.code(), Some(1), "{command}: {text}");
        assert!(text.contains(reason), "{command}: {text}");
    };
    refused(member, "reload", "this needs root or the daemon's user");
    let other = "setpriv --reuid 65534 --regid 65534 --clear-groups dpd";
    refused(other, "observe --last 1", "Permission denied");
    refused(other, "service list", "Permission denied");
    machine.ok("systemctl stop dpd");
    refused(member, "cleanup", "ermission denied");
    machine.ok(&format!("{member} service list | grep -q 10.32.0.10"));
}

#[test]
fn the_units_line_says_what_is_live_and_what_is_not() {
    let machine = Machine::boot(FIRST);
    machine.ok("systemctl start dpd");
    let line = "systemctl show -P StatusText dpd";
    machine.eventually(
        "it has the revision",
        &format!("{line} | grep 'revision 1; pending: lxc-client'"),
    );
    machine.configure(&FIRST.replace("10.32.0.10", "10.32.0.20"));
    machine.ok("systemctl reload dpd");
    machine.eventually("it has the next", &format!("{line} | grep 'revision 2;'"));
    machine.configure(&FIRST.replace("identity = \"client\"", "identity = \"cleint\""));
    let reload = machine.run("systemctl reload dpd");
    assert!(!reload.status.success(), "{}", text(&reload));
    machine.eventually(
        "it has the error",
        &format!("{line} | grep 'revision 2; not applied: .*config.toml.*cleint'"),
    );
}

/// A thread of the daemon that a debugger holds, as if it were stuck.
struct HeldThread(i32);

impl HeldThread {
    /// Holds it once it runs: a busy machine may have started the daemon again in between.
    fn hold(machine: &Machine, name: &str) -> HeldThread {
        let start = Instant::now();
        let thread = loop {
            match &threads_of_daemon(machine, name)[..] {
                [thread] => break *thread,
                others => assert!(start.elapsed() < DEADLINE, "one thread {name}: {others:?}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: no memory is passed; the requests only stop the thread.
            let done = unsafe { libc::ptrace(request, thread, 0, 0) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        }
        HeldThread(thread)
    }

    /// Until its process is killed: who traces a thread has to collect it.
    fn wait(self) {
        let start = Instant::now();
        let mut status = 0;
        loop {
            // SAFETY: the status is ours for the whole call.
            let done = unsafe { libc::waitpid(self.0, &mut status, libc::WNOHANG | libc::__WALL) };
            if done == self.0 && (libc::WIFSIGNALED(status) || libc::WIFEXITED(status)) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "it lives on");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The daemon's threads of that name, by the numbers by which this process knows them.
fn threads_of_daemon(machine: &Machine, name: &str) -> Vec<i32> {
    let find = format!(
        "pid=$(systemctl show -P MainPID dpd); for task in /proc/$pid/task/*; do
         [ \"$(cat $task/comm)\" != {name} ] || sed -n 's/^NSpid:.*[[:space:]]//p' $task/status; done"
    );
    let inside = text(&machine.run(&find)).trim().to_owned();
    let tasks = fs::read_dir("/proc").expect("list /proc").flatten();
    let tasks = tasks.flat_map(|process| {
        fs::read_dir(process.path().join("task"))
            .into_iter()
            .flatten()
            .flatten()
    });
    let outside = tasks.filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let numbers = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?;
        let mut numbers = numbers.split_whitespace();
        let outside: i32 = numbers.next()?.parse().ok()?;
        let is_it = numbers.next_back() == Some(inside.as_str())
            && status.starts_with(&format!("Name:\t{name}\n"))
            && in_machine(machine, outside);
        is_it.then_some(outside)
    });
    outside.collect()
}

/// Whether a process is in the container.
fn in_machine(machine: &Machine, pid: i32) -> bool {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    namespace(&pid.to_string()) == namespace(&machine.init)
}

#[test]
fn a_stuck_loop_is_started_again() {
    // What other threads do is no progress of the main loop.
    let daemon = "[daemon]\nmetrics = \"127.0.0.1:9964\"\n";
    let machine = Machine::boot(&format!("{daemon}{FIRST}"));
    machine.ok("systemd-run --quiet --unit=scrapes sh -c \
        'while sleep 0.2; do curl -s -m 1 http://127.0.0.1:9964/metrics; done >/dev/null'");
    machine.ok("mkdir -p /etc/systemd/system/dpd.service.d
        printf '[Service]\\nWatchdogSec=5\\nTimeoutAbortSec=1\\n' >/etc/systemd/system/dpd.service.d/quick.conf
        systemctl daemon-reload && systemctl start dpd");
    for name in ["events", "dpd"] {
        let held = HeldThread::hold(&machine, name);
        let restarts = machine.ok("systemctl show -P NRestarts dpd");
        held.wait();
        machine.eventually(
            "systemd starts it again",
            &format!(
                "test $(systemctl show -P NRestarts dpd) -gt {} && systemctl is-active dpd",
                restarts.trim()
            ),
        );
    }
    let log = machine.log();
    let words = "the reader of events has made no progress";
    assert!(log.contains(words), "{log}");
    let words = "the reconciler has made no progress";
    assert!(log.contains(words), "{log}");
}

#[test]
fn a_record_of_any_size_and_a_full_disk() {
    let machine = Machine::boot(REFUSED);
    machine.ok(WORKLOADS);
    machine.ok("systemctl start dpd");
    // Each table is a problem: together they are larger than a datagram.
    machine.ok("cp /etc/dpd/config.toml /etc/dpd/right
        for n in $(seq 300); do printf '[services.s%s]\nnonsense = 1\n' $n; done >/etc/dpd/new
        mv /etc/dpd/new /etc/dpd/config.toml");
    machine.eventually(
        "all problems are one record",
        "journalctl -q -u dpd -o json --all PRIORITY=3 | grep 's1\\b' | grep -q 's300\\b'",
    );
    machine.ok("mv /etc/dpd/right /etc/dpd/config.toml && systemctl reload dpd");

    machine.ok(
        "mount -t tmpfs -o size=6m full /run/log/journal && systemctl restart systemd-journald
        dd if=/dev/zero of=/run/log/journal/fill bs=64k 2>/dev/null; test -e /run/log/journal/fill",
    );
    machine.send_denied(5000..5900, 53);
    machine.eventually(
        "a full disk blocks nothing",
        "test $(dpd observe --last 8000 --verdict dropped -o json | wc -l) = 900",
    );
    machine.ok("systemctl is-active dpd && rm /run/log/journal/fill");
    let next = "ip netns exec intruder python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b\"x\", (\"10.200.0.44\", 53))'";
    machine.eventually(
        "with free space drops are logged again",
        &format!(
            "{next}; test -n \"$(journalctl -q -u dpd DPD_VERDICT=dropped --since -2s -o json)\""
        ),
    );
}

/// With what docs/config.md adds to the unit the daemon can expedite the kernel's grace periods, and resets the switch.
#[test]
fn grace_periods_are_expedited_for_very_many_interfaces() {
    const SWITCH: &str = "/sys/kernel/rcu_expedited";
    // The switch is global: one test at a time uses it.
    let switch = fs::File::open(SWITCH).expect("open the kernel's switch");
    rustix::fs::flock(&switch, rustix::fs::FlockOperation::LockExclusive).expect("lock it");
    let endpoint = |n: usize| {
        format!(
            "[interfaces.crowd{n}]\nrole = \"endpoint\"\naddresses = [\"10.201.0.{n}\"]\nidentity = \"client\"\n"
        )
    };
    let crowd: String = (0..MANY).map(endpoint).collect();
    let machine = Machine::boot(&format!("[daemon]\nexpedite_rcu = true\n{FIRST}{crowd}"));
    machine.ok("mkdir -p /etc/systemd/system/dpd.service.d && cat >/etc/systemd/system/dpd.service.d/rcu.conf <<END
[Service]
ProtectKernelTunables=no
AmbientCapabilities=CAP_DAC_OVERRIDE
CapabilityBoundingSet=CAP_DAC_OVERRIDE
END
        systemctl daemon-reload");
    machine.ok(&format!(
        "for n in $(seq 0 {}); do echo link add crowd$n up type veth peer name peer$n; done | ip -batch -",
        MANY - 1
    ));
    machine.ok("systemctl start dpd");
    let log = machine.log();
    assert!(log.contains("grace periods are expedited"), "{log}");
    let attached = machine.status()["interfaces"].clone();
    let attached = attached.as_array().expect("interfaces").iter();
    let attached = attached.filter(|row| row["state"] == "attached").count();
    assert_eq!(attached, MANY, "{log}");
    let after = fs::read_to_string(SWITCH).expect("read the kernel's switch");
    assert_eq!(after.trim(), "0", "{log}");
}

/// The example of docs/service.md: a workload that systemd starts after dpd, and whose link is set up once it is served.
/// A web server in a network namespace of its own, as a workload behind `lxc-client`.
const WORKLOAD: &str = "\
    ip link set lo up && ip netns add web && ip link add lxc-client type veth peer name eth0 netns web && \
    ip link set lxc-client up && ip address add 10.200.0.1/32 dev lxc-client && ip route add 10.200.0.64 dev lxc-client && \
    ip -n web link set lo up && ip -n web link set eth0 up && ip -n web address add 10.200.0.64/32 dev eth0 && \
    ip -n web route add 10.200.0.1 dev eth0 && ip -n web route add default via 10.200.0.1 && \
    mkdir -p /run/page && echo hello >/run/page/index.html && \
    systemd-run --quiet --unit page -p NetworkNamespacePath=/run/netns/web python3 -m http.server --directory /run/page 80";

#[test]
fn programs_in_every_group_of_the_host_reach_services() {
    let service =
        "[services.web]\nfrontends = [\"10.32.0.80:80/tcp\"]\nbackends = [\"10.200.0.64:80\"]\n";
    let machine = Machine::boot(&format!("{FIRST}{service}"));
    machine.ok(WORKLOAD);
    machine.ok("systemctl start dpd");
    machine.eventually("the server answers", "curl -sS -m 5 http://10.200.0.64/");
    let ask = |words: &str| {
        let line = "curl -sS -m 5 http://10.32.0.80/";
        // A unit that is done when its program has ended: it needs no message bus.
        let unit = "--collect -p Type=oneshot -p StandardOutput=truncate:/run/answer";
        machine.ok(&format!(
            "systemd-run --quiet {unit} {words} {line} && cat /run/answer"
        ))
    };
    assert_eq!(ask(""), "hello\n", "a unit of the system");
    assert_eq!(ask("--slice user"), "hello\n", "of a user's slice");
    assert_eq!(
        ask("-p DynamicUser=yes -p ProtectSystem=strict"),
        "hello\n",
        "sandboxed"
    );
    let status = machine.ok("dpd status");
    assert!(
        status.contains("by 8 programs at /sys/fs/cgroup"),
        "{status}"
    );
    // The unit's own group of cgroup2 is read-only for it, and it has no more capabilities than before.
    machine.ok("systemctl restart dpd");
    assert_eq!(ask(""), "hello\n", "after a restart");
    machine.ok("systemctl stop dpd");
    assert_eq!(ask(""), "hello\n", "without the daemon");
}

#[test]
fn a_workload_of_systemd_waits_for_the_datapath() {
    const PAGE: &str = include_str!("../docs/service.md");
    let example = PAGE
        .split("```ini\n")
        .find(|text| text.contains("workload@.service"));
    let example = example.and_then(|text| text.split("```").next());
    let unit = example.expect("the page has the unit");
    let machine = Machine::boot(FIRST);
    machine.ok(&format!(
        "cat >/etc/systemd/system/workload@.service <<'END'\n{unit}END\nsystemctl daemon-reload"
    ));
    machine.ok("systemctl start workload@client");
    machine.ok("systemctl is-active dpd");
    let served = "dpd endpoint list -o json | grep -q '\"interface\": \"lxc-client\"'";
    machine.ok(&format!(
        "{served} && ip link show lxc-client | grep -q 'state UP'"
    ));
    machine.ok("systemctl stop workload@client");
    // The kernel takes a namespace's links down later.
    machine.eventually("its link is gone", "! ip link show lxc-client");

    machine.ok("systemctl stop dpd");
    machine.ok("systemctl start --job-mode=ignore-dependencies --no-block workload@client");
    machine.eventually(
        "it waits",
        "ip link show lxc-client && pgrep -f 'endpoint wait'",
    );
    let link = machine.ok("ip link show lxc-client");
    assert!(link.contains("state DOWN"), "{link}");
    machine.ok("systemctl start dpd");
    machine.eventually("it is served", "ip link show lxc-client | grep 'state UP'");

    // One that the file does not have fails, and leaves nothing that keeps it from starting later.
    machine.ok("sed -i 's/--timeout 30s/--timeout 1s/' /etc/systemd/system/workload@.service && systemctl daemon-reload");
    machine.fails("systemctl start workload@unknown");
    machine.fails("ip netns list | grep unknown");
}

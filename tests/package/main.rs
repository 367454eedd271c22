//! The package on Debian 12 and 13, each with a systemd of its own: installed, upgraded, downgraded, removed, purged. Needs root,
//! and the network once, for the roots.

#[path = "../common/machine.rs"]
mod machine;
#[path = "../common/page.rs"]
mod page;

mod deb;
mod roots;

use std::process::Command;
use std::time::{Duration, Instant};

use dpd::bpf::image::ProgramImage;
use serde_json::{Value, json};

use deb::Packages;
use machine::{DEADLINE, Machine};
use roots::SUITES;

/// `docs/install.md` and `docs/first-service.md`, whose commands are run as they are.
const INSTALL: &str = include_str!("../../docs/install.md");
const FIRST: &str = include_str!("../../docs/first-service.md");

fn commands(heading: &str) -> String {
    page::script(FIRST, heading)
}

/// A query through the service's address.
const QUERY: &str = "ip netns exec client dig +short +timeout=1 +tries=1 @10.32.0.10 example.test | grep -qx 192.0.2.1";

/// Pings without a gap until /run/stop exists; fails with the first packet that is lost. The DNS server pings, since no rule
/// lets others ping it.
const PINGS: &str = "rounds=0
while test ! -e /run/stop; do
    ip netns exec coredns ping -n -q -i 0.005 -c 50 10.200.0.64 >/run/ping
    grep -q ' 0% packet loss' /run/ping || { cat /run/ping; exit 1; }
    rounds=$((rounds + 1))
done
test $rounds -gt 1";

/// Stops the pings, also when the test fails.
struct StopPings<'a>(&'a Machine);

impl Drop for StopPings<'_> {
    fn drop(&mut self) {
        self.0.run("touch /run/stop");
    }
}

/// A host with the package's folder at /srv.
struct Host {
    machine: Machine,
    packages: Packages,
}

impl Host {
    fn boot(suite: (&str, &str)) -> Host {
        let packages = Packages::build();
        let root = roots::root(suite);
        let folder = packages.folder.path();
        let machine = Machine::start(["--root".as_ref(), root.as_os_str(), folder.as_os_str()]);
        Host { machine, packages }
    }

    fn apt(words: &str) -> String {
        format!("DEBIAN_FRONTEND=noninteractive apt-get --yes {words} 2>&1")
    }

    fn install(&self, name: &str) -> String {
        self.machine.ok(&Host::apt(&format!(
            "install --allow-downgrades /srv/{name}.deb"
        )))
    }

    /// The package, the example's workloads, and dpd with the example.
    fn serve(&self) {
        self.install("dpd");
        self.machine.ok(&commands("Workloads"));
        self.machine.ok(&commands("Configuration"));
        self.machine.eventually("a query is answered", QUERY);
    }

    /// Runs the commands of a section until they show what the page does: flows arrive with a delay.
    fn follow(&self, heading: &str) {
        let blocks = page::blocks(FIRST);
        let section = blocks.iter().filter(|block| block.heading == heading);
        for shown in section.flat_map(|block| page::commands(block.text, &["# "])) {
            self.machine.shows(&shown);
        }
    }

    fn status(&self) -> Value {
        let status = self.machine.ok("dpd status -o json");
        serde_json::from_str(&status).expect("the status in JSON")
    }

    fn pid(&self) -> String {
        self.machine.ok("systemctl show -P MainPID dpd")
    }

    /// How often the daemon has reloaded its file by a signal.
    fn reloads(&self) -> usize {
        self.machine.log().matches("reload: reading").count()
    }

    /// The numbers of the datapath's programs.
    fn programs(&self) -> Vec<u64> {
        let status = self.status();
        let programs = status["programs"].as_array().expect("programs").iter();
        programs.filter_map(|row| row["id"].as_u64()).collect()
    }

    fn purge(&self) -> String {
        self.machine.ok(&Host::apt("purge dpd"))
    }

    /// Files, apart from those of dpkg and of logs, whose name has dpd's.
    fn files(&self) -> String {
        self.machine.ok(
            "find / -xdev \\( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \\) -prune -o -name '*dpd*' -print; \
             ls -A /sys/fs/bpf; ls -d /run/dpd /var/lib/dpd 2>/dev/null || true",
        )
    }
}

/// How many of these programs the kernel has. One that nothing is attached to, and that no pin holds, is unloaded.
fn loaded(programs: &[u64]) -> usize {
    let all = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .output();
    let all: Value = serde_json::from_slice(&all.expect("run bpftool").stdout).expect("JSON");
    let all = all.as_array().expect("programs").iter();
    let ids = all.filter_map(|row| row["id"].as_u64());
    ids.filter(|id| programs.contains(id)).count()
}

/// The kernel unloads after a grace period.
fn eventually_unloaded(programs: &[u64]) {
    assert!(programs.len() > 10, "{programs:?}");
    let start = Instant::now();
    while loaded(programs) > 0 {
        assert!(start.elapsed() < DEADLINE, "programs stay: {programs:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn on_each(test: impl Fn(&Host) + Sync) {
    std::thread::scope(|scope| {
        for suite in SUITES {
            let test = &test;
            scope.spawn(move || test(&Host::boot(suite)));
        }
    });
}

#[test]
fn the_first_steps() {
    on_each(|host| {
        let machine = &host.machine;
        let output = host.install("dpd");
        assert!(output.contains("edit /etc/dpd/config.toml"), "{output}");
        assert_eq!(machine.fails("systemctl is-enabled dpd").trim(), "disabled");
        assert_eq!(machine.fails("systemctl is-active dpd").trim(), "inactive");
        machine
            .ok("id dpd && test -x /usr/sbin/dpd && test -e /usr/share/man/man8/dpd-status.8.gz");
        let exposure = machine.exposure();
        assert!(exposure <= 2.0, "{exposure}");
        let remarks = machine.ok("systemd-analyze verify --man=no dpd.service 2>&1");
        let old = ["Failed to parse service type", "Unknown key 'ReloadSignal'"];
        let unknown = remarks
            .lines()
            .filter(|line| !old.iter().any(|words| line.contains(words)));
        assert_eq!(unknown.collect::<Vec<_>>(), [""; 0]);

        // As it is installed the file has no effect on the host.
        machine.ok(&commands("Workloads"));
        let installed = page::script(INSTALL, "The package").replace("editor ", "test -w ");
        let printed = machine.ok(&installed);
        assert!(printed.contains("health:"), "{printed}");
        assert_eq!(machine.ok("systemctl is-enabled dpd").trim(), "enabled");
        assert_eq!(host.status()["interfaces"], json!([]));

        machine.ok(
            "cp /usr/share/doc/dpd/examples/config.toml /etc/dpd/new && dpd check /etc/dpd/new
            mv /etc/dpd/new /etc/dpd/config.toml && systemctl reload dpd",
        );
        machine.eventually("a query is answered", QUERY);
        assert_eq!(host.reloads(), 1, "one reload is one: {}", machine.log());
        for heading in ["Query", "Refusal"] {
            host.follow(heading);
        }
        let status = host.status();
        assert_eq!(status["daemon"]["state"], "up", "{status}");
        let version = machine.ok("dpd --version");
        let layout = ProgramImage::own().version;
        assert!(
            version.contains(&format!("(datapath abi-{layout})")),
            "{version}"
        );

        machine.ok("sed -i 's/\"kube-dns\" # the identity/\"kube-dsn\" # the identity/' /etc/dpd/config.toml");
        let line = machine.ok("grep -n kube-dsn /etc/dpd/config.toml | cut -d: -f1");
        machine.fails("systemctl reload dpd");
        assert_eq!(
            host.reloads(),
            1,
            "the daemon reads no wrong file: {}",
            machine.log()
        );
        let state = machine.ok("systemctl show -P SubState -P ReloadResult dpd");
        assert_eq!(state, "exit-code\nrunning\n");
        let place = format!("/etc/dpd/config.toml:{}:11", line.trim());
        machine.eventually(
            "the journal names line and column",
            &format!("journalctl -q -u dpd | grep -F '{place}'"),
        );
        machine.ok(QUERY);
    });
}

#[test]
fn versions_change_without_losing_a_packet() {
    on_each(|host| {
        let machine = &host.machine;
        let layout = ProgramImage::own().version;
        let older = layout - 1;
        host.packages.repack("next", "0.2.0-1", "");
        host.packages.repack(
            "unable",
            "0.0.1-1",
            &format!("s/abi-{layout}/abi-{older}/g; s/-gt {layout}/-gt {older}/"),
        );
        host.serve();
        let first = host.pid();
        std::thread::scope(|scope| {
            let pings = scope.spawn(|| machine.ok(PINGS));
            let stop = StopPings(machine);
            machine.eventually("pings are sent", "test -s /run/ping");

            host.install("next");
            let second = host.pid();
            assert_ne!(first, second, "the new version has replaced the daemon");
            machine.ok("systemctl is-active dpd && dpkg -s dpd | grep -qx 'Version: 0.2.0-1'");

            // The layout is the same: the older version takes the datapath back.
            host.install("dpd");
            let third = host.pid();
            assert_ne!(second, third, "the older version has replaced the daemon");

            // It is not: nothing happens.
            let refused = machine.fails(&Host::apt("install --allow-downgrades /srv/unable.deb"));
            let reason = format!(
                "reads the datapath's layout abi-{older}, and this host has the newer abi-{layout}"
            );
            assert!(refused.contains(&reason), "{refused}");
            assert!(
                refused.contains("systemctl stop dpd && dpd cleanup"),
                "{refused}"
            );
            assert_eq!(host.pid(), third, "the daemon is not touched: {refused}");
            machine.ok("dpkg -s dpd | grep -qx 'Version: 0.1.0-1' && dpd status");
            drop(stop);
            pings.join().expect("no packet is lost");
        });

        // The way out that the refusal names.
        machine.ok("systemctl stop dpd && dpd cleanup");
        host.install("unable");
        machine.ok("systemctl start dpd");
        machine.eventually("a query is answered", QUERY);
    });
}

/// The daemon that runs is not touched by a version that refuses the file.
#[test]
fn an_upgrade_whose_version_refuses_the_file_leaves_the_daemon() {
    on_each(|host| {
        let machine = &host.machine;
        host.packages.repack("next", "0.2.0-1", "");
        host.serve();
        let first = host.pid();
        machine.ok("cp /etc/dpd/config.toml /etc/dpd/right
            sed -i 's/\"kube-dns\" # the identity/\"kube-dsn\" # the identity/' /etc/dpd/config.toml");
        let said = host.install("next");
        for words in [
            "there is no identity \"kube-dsn\"",
            "The daemon of the previous version still runs",
            "dpd check && systemctl restart dpd",
        ] {
            assert!(said.contains(words), "{words} is missing: {said}");
        }
        assert_eq!(host.pid(), first, "{said}");
        machine.ok("dpkg -s dpd | grep -qx 'Version: 0.2.0-1' && dpd status");
        machine.ok(QUERY);
        machine.ok("mv /etc/dpd/right /etc/dpd/config.toml && dpd check && systemctl restart dpd");
        assert_ne!(host.pid(), first);
        machine.ok(QUERY);
    });
}

#[test]
fn a_removal_keeps_the_datapath_and_a_purge_leaves_nothing() {
    on_each(|host| {
        let machine = &host.machine;
        let before = host.files();
        host.serve();
        let programs = host.programs();
        let output = machine.ok(&Host::apt("remove dpd"));
        assert!(
            output.contains("the datapath stays in the kernel"),
            "{output}"
        );
        machine.ok(QUERY);
        machine.ok("ip netns exec client ping -q -c 1 10.200.0.65");
        machine.fails("ip netns exec intruder ping -q -c 1 -W 1 10.200.0.44");
        machine.fails("systemctl start dpd");
        machine.ok("test -e /etc/dpd/config.toml && test ! -e /usr/sbin/dpd");
        assert_eq!(loaded(&programs), programs.len(), "all stay");

        host.purge();
        eventually_unloaded(&programs);
        assert_eq!(host.files(), before, "nothing is left");
        machine.fails(QUERY);

        // Installed again, a drop-in of the administrator's, and purged while it runs.
        host.install("dpd");
        machine.ok("mkdir -p /etc/dpd/config.d && echo '[events]' >/etc/dpd/config.d/mine.toml
            cp /usr/share/doc/dpd/examples/config.toml /etc/dpd/config.toml && systemctl enable --now dpd");
        machine.eventually("a query is answered", QUERY);
        let programs = host.programs();
        host.purge();
        eventually_unloaded(&programs);
        machine.ok("rm /etc/dpd/config.d/mine.toml && rmdir /etc/dpd/config.d /etc/dpd");
        assert_eq!(host.files(), before, "nothing is left but the drop-in");
        machine.ok("id dpd");
    });
}

//! The unit under a real systemd: ready, reload, log, stop. Needs root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

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

/// A small machine that has systemd and nothing but dpd to run; gone when it is dropped.
struct Machine {
    supervisor: Child,
    init: String,
}

impl Machine {
    fn boot(config: &str) -> Machine {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("make a folder for the configuration");
        let file = folder.path().join("config.toml");
        fs::write(&file, config).expect("write the configuration");

        // It takes the machine down when its standard input ends, so also when this test is killed.
        let mut supervisor = Command::new(root.join("tests/systemd/boot"))
            .arg(env!("CARGO_BIN_EXE_dpd"))
            .arg(root.join("systemd/dpd.service"))
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run tests/systemd/boot");
        let mut init = String::new();
        let stdout = supervisor.stdout.take().expect("its output is a pipe");
        BufReader::new(stdout)
            .read_line(&mut init)
            .expect("read the number of systemd's process");
        let machine = Machine {
            supervisor,
            init: init.trim().to_owned(),
        };
        assert!(
            !machine.init.is_empty(),
            "the machine does not boot; its words stand above (it needs root)"
        );
        machine.eventually("systemd is up", "systemctl is-system-running");
        machine
    }

    /// Runs a shell command in the machine.
    fn run(&self, command: &str) -> Output {
        Command::new("nsenter")
            .args(["--all", "--target", &self.init, "--", "sh", "-c", command])
            .output()
            .expect("run nsenter")
    }

    /// The command's output; it must succeed.
    fn ok(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command}: {}\n{}",
            text(&output),
            self.log()
        );
        text(&output)
    }

    /// Runs the command until it succeeds.
    fn eventually(&self, what: &str, command: &str) {
        let start = Instant::now();
        loop {
            let output = self.run(command);
            if output.status.success() {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{what}: not within {DEADLINE:?}: {command}: {}\n{}",
                text(&output),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts another configuration in the old one's place, as one act.
    fn configure(&self, config: &str) {
        self.ok(&format!(
            "cat >/etc/dpd/new <<'END' && mv /etc/dpd/new /etc/dpd/config.toml\n{config}\nEND"
        ));
    }

    fn log(&self) -> String {
        text(&self.run("journalctl --no-pager -q -u dpd"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
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
    machine.eventually(
        "a reload applies the changed file",
        &format!("{services} | grep -q 10.32.0.20"),
    );

    let before = machine.ok(services);
    machine.configure(&FIRST.replace("identity = \"client\"", "identity = \"cleint\""));
    let reload = machine.run("systemctl reload dpd");
    assert!(
        !reload.status.success(),
        "a wrong file fails the reload, in front of whoever asked for it: {}",
        text(&reload)
    );
    assert_eq!(
        before,
        machine.ok(services),
        "a wrong file changes nothing in the kernel"
    );
    machine.ok("systemctl is-active dpd");
    assert!(
        machine.log().contains("cleint"),
        "the log says what is wrong with the file: {}",
        machine.log()
    );

    machine.ok("systemctl stop dpd");
    assert_eq!(
        before,
        machine.ok(services),
        "stopping the daemon leaves the datapath as it is"
    );
    assert!(
        machine
            .ok("systemctl show -p Result dpd")
            .contains("success"),
        "the daemon ends cleanly: {}",
        machine.log()
    );

    machine.configure(FIRST);
    machine.ok("systemctl start dpd");
    let live = machine.ok(services);
    assert!(
        live.contains("10.32.0.10") && !live.contains("10.32.0.20"),
        "a new daemon takes over what it finds and makes it match the file: {live}"
    );
}

#[test]
fn a_wrong_file_fails_the_start() {
    let machine = Machine::boot("[services.first]\nfrontend = []\n");
    let start = machine.run("systemctl start dpd");
    assert!(
        !start.status.success(),
        "the unit does not get ready: {}",
        text(&start)
    );
    machine.eventually(
        "the log names the unknown key",
        "journalctl -q -u dpd | grep -q frontend",
    );
}

#[test]
fn the_killed_daemon_comes_back() {
    let machine = Machine::boot(FIRST);
    machine.ok("systemctl start dpd");
    let before = machine.ok("dpd service list -o json");
    machine.ok("systemctl kill --signal=KILL dpd");
    assert_eq!(
        before,
        machine.ok("dpd service list -o json"),
        "its death changes nothing in the kernel"
    );
    machine.eventually(
        "systemd starts it again",
        "systemctl show -p NRestarts dpd | grep -qx NRestarts=1 && systemctl is-active dpd",
    );
}

//! A container with a systemd of its own: that of the host, or of a Debian root.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::page::Shown;

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Removed when dropped.
pub struct Machine {
    supervisor: Child,
    /// The number of its systemd's process.
    pub init: String,
}

impl Machine {
    /// Boots with the arguments of `tests/systemd/boot`, until systemd is up.
    pub fn start(arguments: [impl AsRef<OsStr>; 3]) -> Machine {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // It stops the container at the end of its stdin, so also when this test is killed.
        let mut supervisor = Command::new(root.join("tests/systemd/boot"))
            .args(arguments)
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
            "the container does not boot; its output is above (it needs root)"
        );
        machine.eventually("systemd is up", "systemctl is-system-running");
        machine
    }

    /// Runs a shell command in the machine.
    pub fn run(&self, command: &str) -> Output {
        Command::new("nsenter")
            .args(["--all", "--target", &self.init, "--", "sh", "-c", command])
            .output()
            .expect("run nsenter")
    }

    /// The command's output; it must succeed.
    pub fn ok(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command}: {}\n{}",
            text(&output),
            self.log()
        );
        text(&output)
    }

    /// The command's output; it must fail.
    pub fn fails(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(!output.status.success(), "{command}: {}", text(&output));
        text(&output)
    }

    /// Runs the command until it succeeds.
    pub fn eventually(&self, what: &str, command: &str) {
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

    /// Runs a command of a page until it shows what the page does.
    pub fn shows(&self, shown: &Shown) {
        let start = Instant::now();
        loop {
            let output = self.run(shown.line);
            let printed = text(&output);
            if shown.is_in(&printed) && output.status.success() != shown.fails() {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{}: {printed}\n{}",
                shown.line,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Replaces the configuration atomically.
    pub fn configure(&self, config: &str) {
        self.ok(&format!(
            "cat >/etc/dpd/new <<'END' && mv /etc/dpd/new /etc/dpd/config.toml\n{config}\nEND"
        ));
    }

    /// The unit's rating by `systemd-analyze security`.
    pub fn exposure(&self) -> f32 {
        let report = self.ok("systemd-analyze security --no-pager dpd.service");
        let words = "Overall exposure level for dpd.service: ";
        let rest = report.split(words).nth(1).expect(&report);
        let number = rest.split_whitespace().next().expect(&report);
        number.parse().expect(&report)
    }

    pub fn log(&self) -> String {
        text(&self.run("journalctl --no-pager -q -u dpd"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

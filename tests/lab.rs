//! The lab itself: it comes up, twice over and side by side, and leaves nothing. Needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A lab of a name that no other test has; taken down when it is dropped.
struct Lab {
    name: String,
}

impl Lab {
    fn new() -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Lab {
            name: format!("t-{}-{number}", std::process::id()),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns-lab/lab");
        let mut command = Command::new(script);
        command
            .args(args)
            .env("LAB", &self.name)
            .env("DPD", env!("CARGO_BIN_EXE_dpd"))
            .env_remove("LAB_TOPOLOGY");
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

    /// What is there that bears the lab's name.
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

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The links of the machine's own namespace, which no lab may touch.
fn links() -> String {
    let output = Command::new("ip")
        .args(["-brief", "link"])
        .output()
        .expect("run ip");
    text(&output)
}

#[test]
fn a_workload_gets_an_answer_before_dpd_runs() {
    let lab = Lab::new();
    lab.ok(&["up"]);
    for (what, args, expected) in [
        (
            "the DNS server answers over IPv4",
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
            "a large answer comes over TCP by itself",
            &["@10.200.0.44", "large.test.cluster.local", "TXT"],
            "part-12-part-12",
        ),
    ] {
        let dig = [&["enter", "client", "dig", "+short", "+tries=1"], args].concat();
        let answer = lab.ok(&dig);
        assert!(answer.contains(expected), "{what}: {answer}");
    }
    let answer = lab.ok(&["enter", "node", "ping", "-c1", "-W5", "10.200.0.65"]);
    assert!(answer.contains(" 0% packet loss"), "{answer}");
}

#[test]
fn up_and_down_may_be_said_twice() {
    let lab = Lab::new();
    lab.ok(&["down"]);
    assert!(!lab.run(&["status"]).status.success(), "nothing is up yet");
    lab.ok(&["up"]);
    let before = lab.ok(&["status"]);
    lab.ok(&["up"]);
    assert_eq!(
        before,
        lab.ok(&["status"]),
        "a second up leaves what stands"
    );
    lab.ok(&["down"]);
    assert_eq!(lab.traces(), Vec::<String>::new(), "down leaves nothing");
    lab.ok(&["down"]);
}

#[test]
fn two_labs_stand_side_by_side() {
    let (one, other) = (Lab::new(), Lab::new());
    let mut ups =
        [&one, &other].map(|lab| lab.command(&["up"]).spawn().expect("run netns-lab/lab"));
    for up in &mut ups {
        assert!(up.wait().expect("wait for up").success());
    }
    one.ok(&["down"]);
    other.ok(&["status"]);
}

#[test]
fn up_mends_a_broken_lab() {
    let lab = Lab::new();
    for (what, damage) in [
        ("a namespace is gone", "ip netns del $LAB-client"),
        ("a link is gone", "ip -n $LAB-node link del lxc-intruder"),
        (
            "the DNS server has died",
            "kill -KILL $(cat $DIR/knotd.pid)",
        ),
        ("the folder is gone", "umount $DIR/bpf && rm -rf $DIR"),
    ] {
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
}

#[test]
fn a_failed_or_interrupted_up_takes_back_what_it_made() {
    let lab = Lab::new();
    // A DNS server that ends at once, or waits for ever and is interrupted.
    for (what, server) in [
        ("the server fails", "exit 1"),
        ("up is ended meanwhile", "kill -TERM $UP; sleep 60"),
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
fn wrong_use_is_said() {
    let lab = Lab::new();
    for (args, status, words) in [
        (&["sideways"][..], 2, "Usage"),
        (&[], 2, "Usage"),
        (&["enter"], 1, "enter where?"),
        (&["enter", "nobody"], 1, "only: node client"),
        (&["enter", "client"], 1, "is not up"),
        (&["start"], 1, "is not up"),
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
    assert_eq!(
        lab.traces(),
        Vec::<String>::new(),
        "wrong use makes nothing"
    );
}

#[test]
fn the_machine_itself_is_not_touched() {
    let lab = Lab::new();
    let named = |text: String| {
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| line.contains("lxc-"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    lab.ok(&["up"]);
    assert_eq!(named(links()), Vec::<String>::new());
}

//! The `dpd` program: exit statuses, and its output on stdout and stderr.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn dpd(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpd"));
    command
        .args(words)
        .env_remove("DPD_CONFIG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    dpd(words).output().unwrap()
}

/// The file of a node that does not run, with all its paths in `folder`.
fn idle_node(folder: &Path) -> String {
    let config = folder.join("config.toml");
    let place = folder.display();
    let text = format!("[daemon]\nbpf_root = \"{place}/bpf\"\nsocket = \"{place}/dpd.sock\"\n");
    fs::write(&config, text).unwrap();
    config.display().to_string()
}

#[test]
fn exit_statuses() {
    let folder = tempfile::tempdir().unwrap();
    let idle = idle_node(folder.path());
    let missing = folder.path().join("missing.toml").display().to_string();
    // (sentence, arguments, exit status, a part of stderr or stdout)
    let rows: [(&str, &[&str], i32, &str); 24] = [
        ("no arguments", &[], 2, "Usage: dpd"),
        (
            "an unknown command",
            &["dance"],
            2,
            "unrecognized subcommand",
        ),
        (
            "a command without its subcommand",
            &["service"],
            2,
            "Usage: dpd service",
        ),
        (
            "an unknown option",
            &["status", "--loud"],
            2,
            "unexpected argument",
        ),
        (
            "an unknown format",
            &["ct", "list", "-o", "yaml"],
            2,
            "invalid value",
        ),
        (
            "a mistyped address",
            &["observe", "--ip", "10.0.0.0/99"],
            2,
            "is not an address",
        ),
        ("help", &["--help"], 0, "observe"),
        ("help of a command", &["observe", "--help"], 0, "--not-from"),
        ("version", &["--version"], 0, "dpd "),
        (
            "a missing file",
            &["--config", &missing, "status"],
            1,
            "missing.toml",
        ),
        (
            "a missing file to check",
            &["check", &missing],
            1,
            "missing.toml",
        ),
        (
            "a missing file to plan for",
            &["plan", &missing],
            1,
            "missing.toml",
        ),
        (
            "a plan of a node that does not run: everything is added",
            &["--config", &idle, "plan"],
            3,
            "+ setting conntrack.tcp 8000s",
        ),
        (
            "the memory of the file's maps",
            &["check", "--budget", &idle],
            0,
            "dpd_ct_tcp",
        ),
        (
            "a format without a listing",
            &["check", "-o", "json", &idle],
            2,
            "--budget",
        ),
        (
            "nothing runs",
            &["--config", &idle, "status"],
            1,
            "there is no datapath either",
        ),
        (
            "no datapath to list",
            &["--config", &idle, "service", "list"],
            1,
            "no datapath of dpd at",
        ),
        (
            "no datapath to flush",
            &["--config", &idle, "ct", "flush"],
            1,
            "no datapath of dpd at",
        ),
        (
            "no daemon to reload",
            &["--config", &idle, "reload"],
            1,
            "no daemon is running: `systemctl start dpd`",
        ),
        (
            "nothing that could serve an endpoint",
            &[
                "--config",
                &idle,
                "endpoint",
                "wait",
                "lxc-a",
                "--timeout",
                "60ms",
            ],
            1,
            "endpoint lxc-a is not served after 60ms: no configuration is live: no daemon is running: `systemctl start dpd`",
        ),
        (
            "a timeout without its unit",
            &["endpoint", "wait", "lxc-a", "--timeout", "5"],
            2,
            "\"5\" is no duration: a duration is a whole number with its unit: 250ms, 5s, 10m or 3h",
        ),
        (
            "help of a command that waits",
            &["endpoint", "wait", "--help"],
            0,
            "Create the interface",
        ),
        (
            "no daemon to observe",
            &["--config", &idle, "observe"],
            1,
            "no daemon listens at",
        ),
        (
            "no daemon for the history",
            &["--config", &idle, "observe", "--last", "3"],
            1,
            "dpd.sock",
        ),
    ];
    for (sentence, words, status, printed) in rows {
        let output = run(words);
        let text = [&output.stdout[..], &output.stderr]
            .map(String::from_utf8_lossy)
            .concat();
        assert_eq!(output.status.code(), Some(status), "{sentence}: {text}");
        assert!(text.contains(printed), "{sentence}: {text}");
        if status == 0 {
            assert!(output.stderr.is_empty(), "{sentence}: {text}");
        }
    }
}

#[test]
fn a_configuration_that_is_not_a_file_does_not_block() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &config, mode).unwrap();
    let drop_ins = folder.path().join("with.d");
    fs::create_dir(&drop_ins).unwrap();
    let with_device = folder.path().join("with.toml");
    fs::write(&with_device, "[node]\nname = \"a\"\n").unwrap();
    std::os::unix::fs::symlink("/dev/zero", drop_ins.join("10.toml")).unwrap();
    for config in [config, with_device] {
        let config = config.to_str().unwrap();
        for words in ["run", "check", "plan", "status", "service list"] {
            let mut command = Command::new("timeout");
            command.args(["20", env!("CARGO_BIN_EXE_dpd"), "--config", config]);
            let output = command.args(words.split(' ')).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stderr);
            assert_ne!(
                output.status.code(),
                Some(124),
                "{config} {words}: {printed}"
            );
            if ["run", "check", "plan"].contains(&words) {
                assert_eq!(output.status.code(), Some(1), "{config} {words}: {printed}");
                let reason = "this is not a regular file";
                assert!(printed.contains(reason), "{config} {words}: {printed}");
            }
        }
    }
}

#[test]
fn status_is_json_without_a_daemon_and_a_datapath() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&[
        "--config",
        &idle_node(folder.path()),
        "status",
        "-o",
        "json",
    ]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["daemon"]["state"], "down");
    assert_eq!(status["config"]["revision"], serde_json::Value::Null);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_environment_sets_the_file_and_the_option_overrides_it() {
    let folder = tempfile::tempdir().unwrap();
    let idle = idle_node(folder.path());
    let mut command = dpd(&["observe"]);
    let output = command.env("DPD_CONFIG", &idle).output().unwrap();
    let place = folder.path().join("dpd.sock").display().to_string();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(&place),
        "{output:?}"
    );

    let mut command = dpd(&["observe", "--config", &idle]);
    let output = command.env("DPD_CONFIG", "/nowhere.toml").output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(&place),
        "{output:?}"
    );
}

#[test]
fn a_node_is_found_by_a_broken_file() {
    let folder = tempfile::tempdir().unwrap();
    let idle = idle_node(folder.path());
    let whole = fs::read_to_string(&idle).unwrap();
    fs::write(&idle, whole + "[services.kube-dns]\nfrontends = [\"10.").unwrap();
    let output = run(&["--config", &idle, "observe"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is not valid TOML"), "{text}");
    assert!(
        text.contains(&folder.path().join("dpd.sock").display().to_string()),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn nothing_is_changed_on_an_uncertain_node() {
    let folder = tempfile::tempdir().unwrap();
    let idle = idle_node(folder.path());
    fs::write(&idle, "[daemon\n").unwrap();
    for words in [&["cleanup"][..], &["ct", "flush"]] {
        let output = run(&[&["--config", &idle], words].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("not certain which node"), "{words:?}: {text}");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
    }
}

mod observers {
    use std::sync::Arc;
    use std::time::SystemTime;

    use dpd::model::flow::{Flow, FlowPeer, Verdict};
    use dpd::model::policy::Direction;
    use dpd::model::status::{DaemonStatus, DriftCounts};
    use dpd::observe::server::{Limits, Server};
    use dpd::observe::socket::Socket;

    use super::*;

    fn flow(bytes: u32) -> Arc<Flow> {
        let peer = |ip: &str, name: &str| FlowPeer {
            ip: ip.parse().unwrap(),
            port: 53,
            identity: 300,
            name: name.to_owned(),
        };
        Arc::new(Flow {
            time: SystemTime::now(),
            verdict: Verdict::Forwarded,
            point: "to-endpoint",
            drop_reason: None,
            direction: Direction::Ingress,
            reply: false,
            src: peer("10.200.0.64", "client"),
            dst: peer("10.200.0.44", "kube-dns"),
            orig_dst: None,
            service: None,
            protocol: 17,
            tcp_flags: 0,
            ct_state: None,
            rule: None,
            egress_rule: None,
            ingress_rule: None,
            denied_by: None,
            enforced_by: Vec::new(),
            rule_place: None,
            revision: 1,
            interface: "lxc-client".to_owned(),
            bytes,
            repeats: 1,
        })
    }

    fn start(folder: &Path) -> Server {
        let status = || DaemonStatus {
            announcements: Vec::new(),
            drop_ins: Vec::new(),
            pid: std::process::id(),
            version: "test".to_owned(),
            uptime_seconds: 1,
            config: "x.toml".to_owned(),
            last_error: Some("x.toml:7: that is wrong".to_owned()),
            reloads: 0,
            is_reloading: false,
            reload_error: None,
            applied_seconds_ago: 1,
            pending: vec!["lxc-late".to_owned()],
            warnings: Vec::new(),
            hints: Vec::new(),
            observers_lost: 0,
            recent_drops: None,
            journal_lost: 0,
            drift: DriftCounts::default(),
        };
        let socket = Socket::open(&folder.join("dpd.sock")).unwrap();
        Server::start(socket, Limits::default(), status).unwrap()
    }

    #[test]
    fn lines_and_json() {
        let folder = tempfile::tempdir().unwrap();
        let idle = idle_node(folder.path());
        let server = start(folder.path());
        (1..=3).for_each(|bytes| server.publish(flow(bytes)));

        let output = run(&["--config", &idle, "observe", "--last", "2"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let line =
            "10.200.0.64:53 (client) -> 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP)\n";
        assert_eq!(text.matches(line).count(), 2, "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(output.status.code(), Some(0));

        let words = [
            "--config", &idle, "observe", "--last", "9", "-o", "json", "--from", "client",
        ];
        let output = run(&words);
        let bytes: Vec<u64> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|flow| flow["bytes"].as_u64().unwrap())
            .collect();
        assert_eq!(bytes, [1, 2, 3]);
        let output = run(&[
            "--config",
            &idle,
            "observe",
            "--last",
            "9",
            "--not-from",
            "client",
        ]);
        assert!(
            output.stdout.is_empty() && output.status.success(),
            "{output:?}"
        );
    }

    #[test]
    fn a_closed_stdout_ends_observe_without_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let idle = idle_node(folder.path());
        let server = start(folder.path());
        server.publish(flow(1));
        let mut command = dpd(&["--config", &idle, "observe", "--last", "1", "--follow"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        drop(stdout);
        // Nothing more is published, so no write fails.
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }

    #[test]
    fn a_daemon_that_stops_ends_its_observers() {
        let folder = tempfile::tempdir().unwrap();
        let idle = idle_node(folder.path());
        let server = start(folder.path());
        server.publish(flow(1));
        let mut command = dpd(&["--config", &idle, "observe", "--last", "1", "--follow"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        drop(server);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "following has ended");
    }

    #[test]
    fn status_shows_the_daemons_last_error() {
        let folder = tempfile::tempdir().unwrap();
        let idle = idle_node(folder.path());
        let _server = start(folder.path());
        let output = run(&["--config", &idle, "status"]);
        let text = String::from_utf8_lossy(&output.stdout);
        for part in ["up, pid ", "x.toml:7: that is wrong", "lxc-late", "pending"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(output.status.code(), Some(0), "{text}");
    }
}

#[test]
fn a_silent_daemon_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let idle = idle_node(folder.path());
    // It accepts nothing and sends nothing: the kernel completes the connections.
    let _socket = UnixListener::bind(folder.path().join("dpd.sock")).unwrap();
    let last = dpd(&["--config", &idle, "observe", "--last", "3"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = run(&["--config", &idle, "status"]);
    let last = last.wait_with_output().unwrap();
    assert_eq!(last.status.code(), Some(1));
    for printed in [last.stderr, status.stdout] {
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(printed.contains("does not reply"), "{printed}");
    }
}

#[test]
fn a_file_from_a_pipe() {
    // (sentence, command, what is written, exit status, a part of what is printed)
    let rows = [
        (
            "a valid file",
            "check",
            "[node]\nname = \"a\"\n",
            0,
            "/dev/stdin: ok",
        ),
        (
            "a wrong one",
            "check",
            "[node]\nnme = \"a\"\n",
            1,
            "/dev/stdin:2",
        ),
        ("an empty one", "check", "", 1, "empty"),
        ("of a plan", "plan", "[nodes\n", 1, "/dev/stdin:1"),
    ];
    for (sentence, command, text, status, printed) in rows {
        let mut child = dpd(&[command, "/dev/stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // In two parts: it reads on until the writer closes.
        let (first, rest) = text.split_at(text.len() / 2);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(first.as_bytes()).unwrap();
        stdin.write_all(rest.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = [&output.stdout[..], &output.stderr]
            .map(String::from_utf8_lossy)
            .concat();
        assert_eq!(output.status.code(), Some(status), "{sentence}: {text}");
        assert!(text.contains(printed), "{sentence}: {text}");
    }
}

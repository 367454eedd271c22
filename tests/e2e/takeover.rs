//! The daemon is stopped and started; the datapath stays until `dpd cleanup`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually, text};

/// One program on each hook of each interface.
const ATTACHED: [&str; 6] = [
    "lxc-client egress dpd_to_container",
    "lxc-client ingress dpd_from_container",
    "lxc-coredns egress dpd_to_container",
    "lxc-coredns ingress dpd_from_container",
    "lxc-intruder egress dpd_to_container",
    "lxc-intruder ingress dpd_from_container",
];

/// A connection's numbers in the kernel's maps, and its age, by which the same entry is recognised.
fn connection(lab: &NetnsLab, port: u16) -> (Value, f64) {
    let connections = lab.json("ct list");
    let row = connections
        .as_array()
        .expect("an array")
        .iter()
        .find(|row| row["src_port"] == port)
        .unwrap_or_else(|| panic!("no connection from port {port}: {connections}"))
        .clone();
    (
        row["dnat_ip"].clone(),
        row["age_seconds"].as_f64().expect("an age"),
    )
}

#[test]
fn queries_survive_the_daemon() {
    let lab = NetnsLab::started();
    assert_eq!(lab.attached(), ATTACHED);
    let stream = lab
        .connect("client", "10.32.0.10:53")
        .expect("a connection over TCP");
    let port = stream.local_addr().expect("its address").port();
    let before = connection(&lab, port);
    let services = lab.services();

    let (queries, end) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut lost = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let server =
                    ["10.32.0.10", "fd00:32::10"][queries.load(Ordering::Relaxed) as usize % 2];
                if let Err(error) = lab.dig("client", server) {
                    lost.push(error);
                }
                queries.fetch_add(1, Ordering::Relaxed);
            }
            lost
        });
        let more = |what: &str| {
            let enough = queries.load(Ordering::Relaxed) + 10;
            eventually(what, || {
                let now = queries.load(Ordering::Relaxed);
                if now >= enough { Ok(()) } else { Err(now) }
            });
        };
        // A panic here must end the queries too, or the test would hang.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more("ten queries with a daemon");
            lab.kill();
            more("ten queries after SIGKILL");
            assert_eq!(lab.attached(), ATTACHED, "SIGKILL detaches nothing");
            assert_eq!(
                lab.services(),
                services,
                "listings are read from the kernel"
            );
            let status = lab.dpd("status");
            assert!(status.contains("the datapath still works"), "{status}");
            lab.start();
            more("ten queries after the takeover");
            assert_eq!(lab.attached(), ATTACHED, "attached once, not twice");
            lab.stop();
            more("ten queries after SIGTERM");
            lab.start();
            more("ten queries at the end");
        }));
        end.store(true, Ordering::Relaxed);
        let lost = asking.join().expect("the asking thread");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert_eq!(lost, Vec::<String>::new(), "of {queries:?} queries");
    });
    assert_eq!(lab.attached(), ATTACHED, "attached once, not twice");
    assert_eq!(lab.services(), services, "numbers keep their meaning");
    let after = connection(&lab, port);
    assert_eq!(before.0, after.0, "the connection has the same backend");
    assert!(
        after.1 > before.1,
        "it is the same entry: {before:?}, {after:?}"
    );
    let all = ATTACHED.len() + lab.sockets();
    assert_eq!(lab.hooked(&lab.programs()), all, "bpftool agrees");
    let mut names: Vec<Value> = lab.json("status")["programs"]
        .as_array()
        .expect("programs")
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    let count = names.len();
    names.dedup();
    assert_eq!(
        names.len(),
        count,
        "one load of the programs is left: {names:?}"
    );
    drop(stream);
}

#[test]
fn cleanup_removes_everything() {
    let lab = NetnsLab::started();
    lab.dig("client", "10.32.0.10")
        .expect("the service works at first");
    let binary = env!("CARGO_BIN_EXE_dpd");

    let refused = lab.run("node", &format!("{binary} cleanup"));
    let pid = std::fs::read_to_string(lab.folder().join("dpd.pid")).expect("dpd's pid");
    assert_eq!(refused.status.code(), Some(1), "not under a running daemon");
    assert!(
        text(&refused).contains(&format!("pid {}", pid.trim())),
        "{}",
        text(&refused)
    );
    lab.dig("client", "10.32.0.10")
        .expect("a refused cleanup removes nothing");

    lab.stop();
    let programs = lab.programs();
    assert_eq!(lab.hooked(&programs), ATTACHED.len() + lab.sockets());
    let printed = lab.dpd("cleanup");
    assert!(
        printed.lines().count() >= 4,
        "it lists what it removes: {printed}"
    );
    assert_eq!(lab.hooked(&programs), 0, "no program is left on a hook");
    eventually("no program is left in the kernel", || {
        let left: Vec<&u64> = programs
            .iter()
            .filter(|id| {
                lab.run("node", &format!("bpftool prog show id {id}"))
                    .status
                    .success()
            })
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    assert!(!lab.bpf_root().exists(), "no pin is left");
    lab.dig("client", "10.200.0.44")
        .expect("the kernel routes as before dpd");
    lab.dig("intruder", "10.200.0.44").expect("for everybody");
    assert_eq!(lab.dpd("cleanup"), "", "a second cleanup finds nothing");

    lab.start();
    lab.dig("client", "10.32.0.10")
        .expect("dpd can be started again");
    lab.dig("intruder", "10.200.0.44")
        .expect_err("policy applies again");
}

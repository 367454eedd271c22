//! Flows as a user sees them: names of their own revision, deciding rules, and access by the socket's group.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::lab::{NetnsLab, eventually, text};
use serde_json::{Value, json};

/// The observed drops of the intruder.
fn drops(lab: &NetnsLab) -> Vec<Value> {
    let observed = lab.dpd("observe --last 100 --verdict dropped --ip 10.200.0.65 -o json");
    observed
        .lines()
        .map(|line| serde_json::from_str(line).expect("a flow in JSON"))
        .collect()
}

#[test]
fn a_flow_has_the_names_of_its_own_configuration() {
    let lab = NetnsLab::started();
    let before = lab.revision();
    let _ = lab.dig("intruder", "10.32.0.10");
    lab.dig("client", "10.32.0.10").expect("the client's query");
    // The same rule at another index, the same service and identity with another name.
    let text = std::fs::read_to_string(lab.config()).expect("read the configuration");
    let text = text
        .replace("identities.intruder", "identities.burglar")
        .replace("identity  = \"intruder\"", "identity  = \"burglar\"")
        .replace("services.kube-dns", "services.names")
        .replace("policies.dns-clients", "policies.askers");
    assert!(
        text.contains("burglar") && text.contains("askers"),
        "{text}"
    );
    lab.save(&text);
    lab.signal("HUP");
    eventually("the change is live", || {
        let revision = lab.revision();
        if revision > before {
            Ok(())
        } else {
            Err(lab.log())
        }
    });
    let _ = lab.dig("intruder", "10.32.0.10");
    lab.dig("client", "10.32.0.10")
        .expect("the client's second query");
    let flows = eventually("all four are observed", || {
        let flows: Vec<Value> = lab
            .flows()
            .into_iter()
            .filter(|flow| flow["reply"] == false)
            .collect();
        let of = |name: &str| flows.iter().filter(|flow| flow["src_name"] == name).count();
        let is_there = of("intruder") > 0 && of("burglar") > 0 && of("client") > 1;
        if is_there { Ok(flows) } else { Err(flows) }
    });
    for flow in &flows {
        let is_old = flow["config_revision"] == before;
        let names = if is_old {
            json!(["kube-dns", "dns-clients/ingress/0", "intruder"])
        } else {
            json!(["names", "askers/ingress/0", "burglar"])
        };
        assert_eq!(flow["service"], names[0], "{flow}");
        match flow["verdict"].as_str() {
            Some("dropped") => assert_eq!(flow["src_name"], names[2], "{flow}"),
            _ => {
                assert_eq!(flow["rule"], names[1], "{flow}");
                let place = flow["config_file"].as_str().expect("a file");
                let line = flow["config_line"].as_u64().expect("a line");
                let file = std::fs::read_to_string(place).expect("read the file of the rule");
                let line = file.lines().nth(line as usize - 1).unwrap_or_default();
                assert!(line.contains("from"), "{place}: {line}");
            }
        }
    }
}

#[test]
fn flows_have_the_names_of_their_revision_during_many_changes() {
    const CHANGES: usize = 20;
    let lab = NetnsLab::started();
    let text = std::fs::read_to_string(lab.config()).expect("read the configuration");
    for change in 0..CHANGES {
        lab.save(
            &text
                .replace(
                    "identities.intruder",
                    &format!("identities.burglar-{change}"),
                )
                .replace("\"intruder\"", &format!("\"burglar-{change}\"")),
        );
        lab.signal("HUP");
        // Some of these are processed under the previous revision, some under this one.
        let port = 7000 + change;
        lab.ok(
            "intruder",
            &format!("bash -c 'for i in 1 2 3; do echo x >/dev/udp/10.200.0.44/{port}; done'"),
        );
    }
    let last = format!("burglar-{}", CHANGES - 1);
    eventually("the last change is live", || {
        let rows = lab.json("identity list").to_string();
        if rows.contains(&last) {
            Ok(())
        } else {
            Err(rows)
        }
    });
    let flows = eventually("every packet is observed", || {
        let flows = drops(&lab);
        if flows.len() >= 3 * CHANGES {
            Ok(flows)
        } else {
            Err(flows.len())
        }
    });
    let mut names: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for flow in &flows {
        let revision = flow["config_revision"].as_u64().expect("a revision");
        let name = flow["src_name"].as_str().expect("a name");
        names.entry(revision).or_default().insert(name.to_owned());
    }
    assert!(names.len() > 3, "several revisions occur: {names:?}");
    assert!(
        names.values().all(|names| names.len() == 1),
        "each has one name: {names:?}"
    );
    let distinct: BTreeSet<&String> = names.values().flatten().collect();
    assert_eq!(distinct.len(), names.len(), "and its own: {names:?}");
}

#[test]
fn suppressed_drops_are_reported_with_their_count() {
    let lab = NetnsLab::laid();
    lab.drop_in("events", "[events]\ninterval = \"200ms\"\n");
    lab.start();
    lab.ok(
        "intruder",
        "bash -c 'exec 3<>/dev/udp/10.200.0.44/53; for i in 1 2 3 4 5 6 7 8 9; do echo x >&3; done'",
    );
    eventually("every packet of the burst is reported", || {
        let observed: u64 = drops(&lab)
            .iter()
            .filter(|drop| drop["dst_port"] == 53)
            .filter_map(|drop| drop["repeats"].as_u64())
            .sum();
        if observed == 9 { Ok(()) } else { Err(observed) }
    });
}

#[test]
fn policy_check_predicts_the_verdict() {
    let lab = NetnsLab::started();
    let rows = [
        (
            "--from client --to kube-dns 53/udp",
            0,
            "dns-clients/ingress/0",
        ),
        (
            "--from lxc-client --to 10.32.0.10 53/udp",
            0,
            "-> kube-dns 10.200.0.44",
        ),
        (
            "--from intruder --to kube-dns 53/udp",
            4,
            "no rule; enforced by dns-clients",
        ),
        (
            "--from 10.200.0.65 --to 10.32.0.10 53/tcp",
            4,
            "no rule; enforced by dns-clients",
        ),
        (
            "--from nobody --to kube-dns 53/udp",
            1,
            "\"nobody\" is no address",
        ),
        ("--from client --to kube-dns 53", 2, "PORT/PROTO"),
    ];
    for (words, status, expected) in rows {
        let line = format!("{} policy check {words}", env!("CARGO_BIN_EXE_dpd"));
        let output = lab.run("node", &line);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{words}: {}",
            text(&output)
        );
        assert!(
            text(&output).contains(expected),
            "{words}: {}",
            text(&output)
        );
    }
    let line = format!(
        "{} policy check --from intruder --to kube-dns 53/udp -o json",
        env!("CARGO_BIN_EXE_dpd")
    );
    let report: Value = serde_json::from_str(&text(&lab.run("node", &line))).expect("JSON");
    assert_eq!(report["verdict"], "denied");
    assert_eq!(report["denied_by"], "ingress kube-dns");
    assert_eq!(report["config_revision"], lab.revision());

    let unused = |lab: &NetnsLab| -> Vec<Value> {
        let rules = lab.json("policy list --unused");
        rules
            .as_array()
            .expect("rules")
            .iter()
            .map(|rule| rule["rule"].clone())
            .collect()
    };
    let rule = json!("dns-clients/ingress/0");
    assert!(unused(&lab).contains(&rule), "no query yet");
    lab.dig("client", "10.32.0.10").expect("the client's query");
    assert!(!unused(&lab).contains(&rule), "{:?}", unused(&lab));
}

#[test]
fn the_socket_is_for_its_group() {
    let lab = NetnsLab::started();
    let folder = tempfile::tempdir().expect("make a folder");
    let open = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("make the folder readable");
    let dpd = folder.path().join("dpd");
    std::fs::copy(env!("CARGO_BIN_EXE_dpd"), &dpd).expect("copy dpd");
    let observe = |group: &str| {
        let line = format!(
            "setpriv --reuid 65534 --regid {group} --clear-groups {} observe --last 1",
            dpd.display()
        );
        let output = lab.run("node", &line);
        (output.status.code(), text(&output))
    };
    let (status, printed) = observe("65534");
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("Permission denied"), "{printed}");
    let socket = lab.ok(
        "node",
        "find /run/dpd-lab -name 'dpd*.sock' -printf '%m %u %p\n'",
    );
    let ours = lab.folder().display().to_string();
    let socket = socket
        .lines()
        .find(|line| line.contains(&ours))
        .expect("a socket");
    assert!(socket.starts_with("660 root "), "{socket}");
    let path = socket.rsplit(' ').next().expect("a path");
    lab.ok("node", &format!("chgrp 12345 {path}"));
    let (status, printed) = observe("12345");
    assert_eq!(status, Some(0), "{printed}");
}

/// Observers that never read block neither packets nor other observers.
#[test]
fn observers_that_do_not_read_block_nothing() {
    let lab = NetnsLab::laid();
    lab.drop_in("events", "[events]\naggregation = \"none\"\n");
    lab.start();
    let mut stopped = Vec::new();
    for _ in 0..3 {
        let mut command = lab.command("node", env!("CARGO_BIN_EXE_dpd"));
        command
            .args(["observe", "-o", "json", "--last", "0", "-f"])
            .stdout(Stdio::piped());
        stopped.push(command.spawn().expect("start an observer"));
    }
    let mut watching = lab.command("node", env!("CARGO_BIN_EXE_dpd"));
    watching.args([
        "observe",
        "--color",
        "always",
        "--protocol",
        "udp",
        "--from",
        "client",
    ]);
    let mut watching = watching
        .stdout(Stdio::piped())
        .spawn()
        .expect("start an observer");
    let mut lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    lab.ok("client", "ping -q -f -c 1500 10.200.0.65 >/dev/null");
    eventually("the client's queries succeed", || {
        lab.dig("client", "10.32.0.10")
    });
    let _ = lab.dig("client", "10.32.0.10");
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains("\u{1b}[32mFORWARDED\u{1b}[0m"), "{line}");
    assert_eq!(lab.json("status")["daemon"]["state"], "up");
    for mut observer in stopped.into_iter().chain([watching]) {
        observer.kill().expect("end an observer");
        observer.wait().expect("wait for it");
    }
}

//! What a user sees of flows: by the names of their time, with what decided, and nobody's business if not in the group.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::lab::{Lab, eventually, text};
use serde_json::{Value, json};

/// The drops of the intruder that are told.
fn drops(lab: &Lab) -> Vec<Value> {
    let told = lab.dpd("observe --last 100 --verdict dropped --ip 10.200.0.65 -o json");
    told.lines()
        .map(|line| serde_json::from_str(line).expect("a flow in JSON"))
        .collect()
}

#[test]
fn a_flow_has_the_names_of_its_own_configuration() {
    let lab = Lab::started();
    let before = lab.revision();
    let _ = lab.ask("intruder", "10.32.0.10");
    lab.ask("client", "10.32.0.10").expect("the client asks");
    // The same rule at another place, the same service and identity by another name.
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
    let _ = lab.ask("intruder", "10.32.0.10");
    lab.ask("client", "10.32.0.10")
        .expect("the client asks again");
    let flows = eventually("all four are told", || {
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
                let file = std::fs::read_to_string(place).expect("read the file that is named");
                let line = file.lines().nth(line as usize - 1).unwrap_or_default();
                assert!(line.contains("from"), "{place}: {line}");
            }
        }
    }
}

#[test]
fn names_hold_in_a_storm_of_changes() {
    const CHANGES: usize = 20;
    let lab = Lab::started();
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
        // Some of these meet the configuration before, some this one: that is what the test is about.
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
    let flows = eventually("every packet is told", || {
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
    assert!(
        names.len() > 3,
        "several configurations were met: {names:?}"
    );
    assert!(
        names.values().all(|names| names.len() == 1),
        "each has one name: {names:?}"
    );
    let distinct: BTreeSet<&String> = names.values().flatten().collect();
    assert_eq!(distinct.len(), names.len(), "and its own: {names:?}");
}

#[test]
fn a_burst_is_told_with_its_count_when_it_ends() {
    let lab = Lab::laid();
    lab.drop_in("events", "[events]\ninterval = \"200ms\"\n");
    lab.start();
    lab.ok(
        "intruder",
        "bash -c 'exec 3<>/dev/udp/10.200.0.44/53; for i in 1 2 3 4 5 6 7 8 9; do echo x >&3; done'",
    );
    eventually("every packet of the burst is told", || {
        let told: u64 = drops(&lab)
            .iter()
            .filter(|drop| drop["dst_port"] == 53)
            .filter_map(|drop| drop["repeats"].as_u64())
            .sum();
        if told == 9 { Ok(()) } else { Err(told) }
    });
}

#[test]
fn a_check_says_what_happens() {
    let lab = Lab::started();
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
    let answer: Value = serde_json::from_str(&text(&lab.run("node", &line))).expect("JSON");
    assert_eq!(answer["verdict"], "denied");
    assert_eq!(answer["denied_by"], "ingress kube-dns");
    assert_eq!(answer["config_revision"], lab.revision());

    let unused = |lab: &Lab| -> Vec<Value> {
        let rules = lab.json("policy list --unused");
        rules
            .as_array()
            .expect("rules")
            .iter()
            .map(|rule| rule["rule"].clone())
            .collect()
    };
    let rule = json!("dns-clients/ingress/0");
    assert!(unused(&lab).contains(&rule), "nobody has asked yet");
    lab.ask("client", "10.32.0.10").expect("the client asks");
    assert!(!unused(&lab).contains(&rule), "{:?}", unused(&lab));
}

#[test]
fn the_socket_is_for_its_group() {
    let lab = Lab::started();
    let folder = tempfile::tempdir().expect("make a folder");
    let open = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("let everybody in");
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
    let (status, said) = observe("65534");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
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
    let (status, said) = observe("12345");
    assert_eq!(status, Some(0), "{said}");
}

/// Observers that never read hold up nobody, and take nobody's answer away.
#[test]
fn observers_that_do_not_read_hold_up_nobody() {
    let lab = Lab::laid();
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
    eventually("the client's questions go on", || {
        lab.ask("client", "10.32.0.10")
    });
    let _ = lab.ask("client", "10.32.0.10");
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains("\u{1b}[32mFORWARDED\u{1b}[0m"), "{line}");
    assert_eq!(lab.json("status")["daemon"]["state"], "up");
    for mut observer in stopped.into_iter().chain([watching]) {
        observer.kill().expect("end an observer");
        observer.wait().expect("wait for it");
    }
}

//! Interfaces are added, removed, renamed, moved and replaced.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually};

fn endpoint(lab: &NetnsLab, interface: &str) -> Value {
    let endpoints = lab.json("endpoint list");
    let rows = endpoints.as_array().expect("an array");
    let row = rows.iter().find(|row| row["interface"] == interface);
    row.unwrap_or_else(|| panic!("no {interface}: {endpoints}"))
        .clone()
}

/// Waits until the endpoint is in this state; returns its row.
fn becomes(lab: &NetnsLab, interface: &str, state: &str) -> Value {
    eventually(&format!("{interface} becomes {state}"), || {
        let row = endpoint(lab, interface);
        if row["state"] == state {
            Ok(row)
        } else {
            Err(row)
        }
    })
}

/// The name of one of the lab's namespaces for `ip`.
fn netns(lab: &NetnsLab, place: &str) -> String {
    let folder = lab.folder();
    let name = folder.file_name().expect("the lab's name");
    format!("{}-{place}", name.display())
}

/// Creates the client's veth pair, as the lab does, with the name of the pending interface.
fn plug(lab: &NetnsLab) {
    plug_as(lab, "lxc-late");
}

fn plug_as(lab: &NetnsLab, name: &str) {
    let peer = netns(lab, "client");
    lab.ok(
        "node",
        &format!(
            "set -e
            ip link add {name} type veth peer name eth0 netns {peer}
            ip address add 169.254.1.1/32 dev {name}
            ip address add fe80::1:1/64 dev {name} nodad
            ip link set {name} up
            ip route add 10.200.0.64/32 dev {name} src 10.200.0.1
            ip route add fd00:200::64/128 dev {name} src fd00:200::1"
        ),
    );
    address_workload(lab, "client", "eth0");
}

/// Gives an interface in a workload's namespace the client's addresses and routes.
fn address_workload(lab: &NetnsLab, place: &str, interface: &str) {
    lab.ok(
        place,
        &format!(
            "set -e
            ip address add 10.200.0.64/32 dev {interface}
            ip address add fd00:200::64/128 dev {interface} nodad
            ip link set {interface} up
            ip route replace default via 169.254.1.1 dev {interface} onlink src 10.200.0.64
            ip route replace default via fe80::1:1 dev {interface} src fd00:200::64"
        ),
    );
}

fn ask_both(lab: &NetnsLab, sentence: &str) {
    ask_both_from(lab, "client", sentence);
}

fn ask_both_from(lab: &NetnsLab, place: &str, sentence: &str) {
    for server in ["10.32.0.10", "fd00:32::10"] {
        eventually(&format!("{sentence}: {server} replies"), || {
            lab.dig(place, server)
        });
    }
}

#[test]
fn a_missing_interface_is_pending_and_a_new_one_is_attached() {
    let lab = NetnsLab::laid();
    lab.edit("lxc-client", "lxc-late");
    lab.start();
    assert_eq!(endpoint(&lab, "lxc-late")["state"], "pending");
    assert_eq!(
        endpoint(&lab, "lxc-coredns")["state"],
        "attached",
        "the others are attached"
    );
    let log = lab.log();
    assert!(
        log.contains("interface lxc-late does not exist yet: pending"),
        "{log}"
    );
    lab.ok("node", "ping -c1 -W5 10.200.0.44");

    lab.ok("node", "ip link del lxc-client");
    plug(&lab);
    let first = becomes(&lab, "lxc-late", "attached");
    ask_both(&lab, "the new interface");

    lab.ok("node", "ip link del lxc-late");
    becomes(&lab, "lxc-late", "pending");
    plug(&lab);
    let second = becomes(&lab, "lxc-late", "attached");
    assert_ne!(
        first["ifindex"], second["ifindex"],
        "it has another ifindex"
    );
    ask_both(&lab, "the replaced interface");

    lab.ok("node", "ip link set lxc-late down && ip link set lxc-late address 02:00:00:00:77:01 && ip link set lxc-late up");
    lab.ok(
        "node",
        "ip route replace 10.200.0.64/32 dev lxc-late src 10.200.0.1
        ip route replace fd00:200::64/128 dev lxc-late src fd00:200::1",
    );
    lab.ok("client", "ip neigh flush dev eth0");
    ask_both(&lab, "the interface with another MAC");

    lab.ok("client", "ip link set eth0 down && ip link set eth0 address 02:00:00:00:77:02 && ip link set eth0 up");
    lab.ok(
        "client",
        "ip address replace fd00:200::64/128 dev eth0 nodad
        ip route replace default via 169.254.1.1 dev eth0 onlink src 10.200.0.64
        ip route replace default via fe80::1:1 dev eth0 src fd00:200::64",
    );
    ask_both(&lab, "the workload with another MAC");
    let attached = lab.attached();
    let of_client = attached
        .iter()
        .filter(|row| row.starts_with("lxc-late "))
        .count();
    assert_eq!(of_client, 2, "one program for each direction: {attached:?}");
}

#[test]
fn an_interface_is_followed_by_its_name_and_to_its_workloads_namespace() {
    let lab = NetnsLab::laid();
    lab.edit("lxc-client", "lxc-late");
    lab.start();
    assert_eq!(endpoint(&lab, "lxc-late")["state"], "pending");

    lab.ok("node", "ip link set lxc-client name lxc-late");
    let first = becomes(&lab, "lxc-late", "attached");
    ask_both(&lab, "renamed to a name of the file");

    lab.ok("node", "ip link set lxc-late name lxc-away");
    becomes(&lab, "lxc-late", "pending");
    // The listings show the committed generation; programs are detached after the commit.
    let of_it = format!("{}-", first["ifindex"]);
    let look = format!("ls {}/abi-*/links", lab.bpf_root().display());
    eventually("its links are gone", || {
        let links = lab.ok("node", &look);
        let left = links.lines().any(|link| link.starts_with(&of_it));
        if left { Err(links) } else { Ok(()) }
    });
    lab.ok("node", "ip link set lxc-away name lxc-late");
    becomes(&lab, "lxc-late", "attached");
    ask_both(&lab, "renamed back");

    let (node, elsewhere) = (netns(&lab, "node"), netns(&lab, "intruder"));
    lab.ok("node", &format!("ip link set lxc-late netns {elsewhere}"));
    becomes(&lab, "lxc-late", "pending");
    lab.ok("intruder", &format!("ip link set lxc-late netns {node}"));
    becomes(&lab, "lxc-late", "attached");
    lab.ok(
        "node",
        "set -e
        ip address add 169.254.1.1/32 dev lxc-late
        ip address add fe80::1:1/64 dev lxc-late nodad
        ip link set lxc-late up
        ip route add 10.200.0.64/32 dev lxc-late src 10.200.0.1
        ip route add fd00:200::64/128 dev lxc-late src fd00:200::1",
    );
    let defaults = "ip route replace default via 169.254.1.1 dev eth0 onlink src 10.200.0.64
        ip route replace default via fe80::1:1 dev eth0 src fd00:200::64";
    lab.ok("client", defaults);
    ask_both(&lab, "moved to another namespace and back");

    // The workload's end: redirect_peer would lose packets where it is in the host's namespace.
    lab.ok(
        "client",
        &format!("ip link set eth0 name eth9 netns {elsewhere}"),
    );
    address_workload(&lab, "intruder", "eth9");
    ask_both_from(&lab, "intruder", "the workload's end in another namespace");
    lab.ok("intruder", &format!("ip link set eth9 netns {node}"));
    lab.ok("node", "ip link set eth9 up");
    lab.ok(
        "node",
        "ip link add lab-br type bridge && ip link set lab-br up",
    );
    lab.ok("node", "ip link set eth9 master lab-br");
    eventually(
        "packets reach the workload's end in the host's namespace",
        || {
            lab.ok("coredns", "ping -c1 -W1 10.200.0.64 || true");
            let link = lab.ok("node", "ip -j -s link show dev eth9");
            let link: Value = serde_json::from_str(&link).expect("a link in JSON");
            let received = link[0]["stats64"]["rx"]["packets"]
                .as_u64()
                .unwrap_or_default();
            (received > 0).then_some(()).ok_or(received)
        },
    );
    lab.ok(
        "node",
        &format!(
            "ip link set eth9 nomaster && ip link set eth9 name eth0 netns {}",
            netns(&lab, "client")
        ),
    );
    address_workload(&lab, "client", "eth0");
    ask_both(&lab, "the workload's end moved back");

    lab.ok("node", "ip link set lxc-late master lab-br");
    ask_both(&lab, "a port of a bridge");
    lab.ok(
        "node",
        "ip link set lxc-late nomaster && ip link del lab-br",
    );
    ask_both(&lab, "no longer a port");

    lab.ok("node", "ip address add 192.0.2.77/32 dev lo");
    let hosts = |lab: &NetnsLab| lab.json("identity get host")[0]["addresses"].to_string();
    eventually("an address of the host's is the host", || {
        let now = hosts(&lab);
        now.contains("192.0.2.77").then_some(()).ok_or(now)
    });
    lab.ok("node", "ip address del 192.0.2.77/32 dev lo");
    eventually("not after its removal", || {
        let now = hosts(&lab);
        (!now.contains("192.0.2.77")).then_some(()).ok_or(now)
    });
    let drift = lab.json("status")["drift"].clone();
    assert_eq!(drift["attachments"], 0, "no drift: {drift}");
    assert!(!lab.log().contains("ERROR"), "{}", lab.log());
}

/// The daemon's resources: descriptors, pins, memory in KiB.
#[derive(Debug)]
struct Holding {
    descriptors: usize,
    pins: Vec<String>,
    memory: u64,
}

fn holding(lab: &NetnsLab) -> Holding {
    let pid = lab.pid();
    let memory = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let memory = memory
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .expect("its memory");
    let memory = memory.split_whitespace().nth(1).expect("a number");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let pins = lab.ok(
        "node",
        &format!("cd {} && find . -type f", lab.bpf_root().display()),
    );
    // Generations and interfaces have new numbers each time.
    let unnumbered = |pin: &str| pin.replace(|letter: char| letter.is_ascii_digit(), "");
    let mut pins: Vec<String> = pins.lines().map(unnumbered).collect();
    pins.sort();
    Holding {
        descriptors: descriptors.count(),
        pins,
        memory: memory.parse().expect("a number"),
    }
}

/// A start retries with a new snapshot of the host, too.
#[test]
fn a_start_survives_interfaces_that_are_added_and_removed_meanwhile() {
    let lab = NetnsLab::laid();
    lab.drop_in(
        "churn",
        "[interfaces.lxc-churn]\nrole = \"endpoint\"\naddresses = [\"10.200.0.90\"]\nidentity = \"client\"\n",
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                lab.ok(
                    "node",
                    "ip link add lxc-churn type veth peer name churn && ip link del lxc-churn",
                );
            }
        });
        for _ in 0..8 {
            let start = lab.try_start();
            lab.stop();
            lab.dpd("cleanup");
            if let Err(error) = start {
                is_over.store(true, Ordering::Relaxed);
                panic!("{error}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    lab.start();
    assert_eq!(endpoint(&lab, "lxc-churn")["state"], "pending");
    ask_both(&lab, "after the churn");
}

/// Programs are attached one after the other, with a grace period for each: until the commit the interfaces are unmanaged.
#[test]
fn workloads_that_are_added_or_removed_are_not_cut_off() {
    let lab = NetnsLab::laid();
    let text = fs::read_to_string(lab.config()).expect("read the configuration");
    lab.edit("lxc-client", "lxc-late");
    let mut crowd = String::new();
    for n in 0..20 {
        lab.ok(
            "node",
            &format!("ip link add crowd{n} up type veth peer name p{n}"),
        );
        let table =
            format!("[interfaces.crowd{n}]\nrole = \"endpoint\"\naddresses = [\"10.200.9.{n}\"]\n");
        crowd += &(table + "identity = \"client\"\n");
    }
    lab.start();
    let ping = || {
        let ping = "ping -n -q -i 0.002 -c 1000 -W 1 10.200.0.1";
        lab.command("client", "sh")
            .args(["-c", ping])
            .stdout(Stdio::piped())
            .spawn()
            .expect("run ping")
    };
    for what in ["they are added", "they are removed", "they are added again"] {
        let pinging = ping();
        std::thread::sleep(Duration::from_millis(300));
        if what == "they are removed" {
            fs::remove_file(lab.config().with_extension("d").join("crowd.toml"))
                .expect("remove the drop-in");
            lab.edit("lxc-client", "lxc-late");
        } else {
            lab.drop_in("crowd", &crowd);
            lab.save(&text);
        }
        let printed = pinging.wait_with_output().expect("ping ends");
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(
            printed.contains("1000 packets transmitted, 1000 received"),
            "{what}: {printed}\n{}",
            lab.log()
        );
        let expected = if what == "they are removed" { 4 } else { 46 };
        eventually("all have their programs", || {
            let attached = lab.attached().len();
            (attached == expected).then_some(()).ok_or(attached)
        });
    }
}

/// An interface whose programs the kernel refuses does not block others.
#[test]
fn an_interface_that_the_kernel_refuses_is_skipped() {
    let lab = NetnsLab::laid();
    lab.drop_in(
        "uplink",
        "[interfaces.lab-br]\nrole = \"uplink\"\nxdp = \"native\"\n[prefilter.abusers]\ndeny = [\"203.0.113.0/24\"]\n",
    );
    lab.start();
    let error = |lab: &NetnsLab| lab.json("status")["config"]["last_error"].clone();
    assert_eq!(error(&lab), Value::Null);
    // A bridge has no driver with native XDP.
    lab.ok(
        "node",
        "ip link add lab-br type bridge && ip link set lab-br up",
    );
    lab.dpd("reload"); // the file itself is valid
    let printed = eventually("it is reported", || {
        let error = error(&lab);
        error.as_str().map(str::to_owned).ok_or(error)
    });
    for words in ["skipped", "interface lab-br", "xdp"] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    let attached = lab.attached();
    let of_it: Vec<_> = attached
        .iter()
        .filter(|row| row.starts_with("lab-br "))
        .collect();
    assert_eq!(of_it.len(), 2, "its tc programs: {attached:?}");

    lab.ok("node", "ip link del lxc-client");
    becomes(&lab, "lxc-client", "pending");
    plug_as(&lab, "lxc-client");
    becomes(&lab, "lxc-client", "attached");
    ask_both(&lab, "another interface is attached");
    lab.apply(
        "more",
        "[services.more]\nfrontends = [\"10.32.0.77:1/udp\"]\nbackends = []\n",
    );
    assert!(
        lab.dpd("service list").contains("10.32.0.77:1/udp"),
        "a change of the file is applied"
    );
    assert!(
        error(&lab)
            .as_str()
            .is_some_and(|error| error.contains("lab-br")),
        "it is still reported"
    );
    lab.dpd("reload"); // the file is applied
    lab.stop();
    lab.start();
    ask_both(&lab, "after a start");
    assert!(
        error(&lab)
            .as_str()
            .is_some_and(|error| error.contains("lab-br")),
        "the start reports it"
    );

    lab.ok("node", "ip link del lab-br");
    eventually("the error is cleared without it", || {
        let error = error(&lab);
        error.is_null().then_some(()).ok_or(error)
    });
    // A change of the file that itself is refused is rejected as a whole.
    lab.ok(
        "node",
        "ip link add lab-br2 type bridge && ip link set lab-br2 up",
    );
    lab.drop_in(
        "second",
        "[interfaces.lab-br2]\nrole = \"uplink\"\nxdp = \"native\"\n",
    );
    eventually("the change is rejected as a whole", || {
        let error = error(&lab);
        let is_said = error
            .as_str()
            .is_some_and(|error| error.contains("interface lab-br2"));
        is_said.then_some(()).ok_or(error)
    });
    let attached = lab.attached();
    let is_there = attached.iter().any(|row| row.starts_with("lab-br2 "));
    assert!(!is_there, "{attached:?}");
}

/// DPD_TURNS=10000 makes it a long one.
#[test]
fn interfaces_that_are_added_and_removed_leave_nothing_behind() {
    let turns = std::env::var("DPD_TURNS").map_or(40u64, |turns| turns.parse().expect("a number"));
    let lab = NetnsLab::laid();
    lab.edit("lxc-client", "lxc-late");
    lab.start();
    lab.ok("node", "ip link del lxc-client");
    becomes(&lab, "lxc-late", "pending");
    let peer = netns(&lab, "client");
    let come = format!("ip link add lxc-late type veth peer name turn netns {peer}");
    let links = lab.bpf_root().join(format!(
        "abi-{}/links",
        dpd::bpf::abi::abi::DPD_ABI_VERSION.0
    ));
    let pinned = || std::fs::read_dir(&links).expect("the links").count();
    let others = pinned();
    // One turn before the first measurement: the daemon also holds the generation before the live one.
    lab.ok("node", &come);
    becomes(&lab, "lxc-late", "attached");
    lab.ok("node", "ip link del lxc-late");
    becomes(&lab, "lxc-late", "pending");
    let (before, revision) = (holding(&lab), lab.revision());
    for turn in 0..turns {
        lab.ok("node", &come);
        eventually("it is attached", || {
            let now = pinned();
            (now == others + 2).then_some(()).ok_or((turn, now))
        });
        lab.ok("node", "ip link del lxc-late");
        // Of interfaces that are replaced at once the daemon may see only the last state.
        if turn % 2 == 0 {
            lab.ok(
                "node",
                &format!("{come} && ip link del lxc-late && {come} && ip link del lxc-late"),
            );
        }
        eventually("it is detached", || {
            let now = pinned();
            (now == others).then_some(()).ok_or((turn, now))
        });
    }
    becomes(&lab, "lxc-late", "pending");
    let after = eventually("its resources are as before", || {
        let after = holding(&lab);
        // Some descriptors are of clients that are being served.
        let few = after.descriptors < before.descriptors + turns as usize / 4;
        let is_same = few && after.pins == before.pins;
        if is_same { Ok(after) } else { Err(after) }
    });
    let followed = lab.revision() - revision;
    assert!(
        followed >= 2 * turns,
        "{followed} revisions in {turns} turns"
    );
    println!(
        "{turns} turns, {followed} revisions: {} descriptors, {} pins, {} KiB before, {} KiB after",
        after.descriptors,
        after.pins.len(),
        before.memory,
        after.memory
    );
    let grown = after.memory.saturating_sub(before.memory);
    assert!(grown < 16 * 1024, "{grown} KiB more memory");
    assert!(!lab.log().contains("ERROR"), "{}", lab.log());
    let drift = lab.json("status")["drift"].clone();
    assert_eq!(drift["attachments"], 0, "no drift: {drift}");
    plug(&lab);
    becomes(&lab, "lxc-late", "attached");
    ask_both(&lab, "after all turns");
}

/// An interface of the file, as `endpoint list` has it.
fn state_of(lab: &NetnsLab, interface: &str) -> Option<String> {
    let rows = lab.json("endpoint list");
    let rows = rows.as_array().expect("an array");
    let row = rows.iter().find(|row| row["interface"] == interface)?;
    row["state"].as_str().map(str::to_owned)
}

#[test]
fn an_alternative_name_in_the_file_is_the_interfaces() {
    let lab = NetnsLab::started();
    let serves = |what: &str, name: &str| {
        eventually(what, || match state_of(&lab, name) {
            Some(state) if state != "pending" => lab.dig("client", "10.32.0.10"),
            state => Err(format!("{name}: {state:?}")),
        });
    };
    lab.ok(
        "node",
        "ip link property add dev lxc-client altname enp9s0 altname client-port",
    );
    lab.edit("[interfaces.lxc-client]", "[interfaces.client-port]");
    lab.signal("HUP");
    serves("the interface is served by its other name", "client-port");
    assert_eq!(state_of(&lab, "lxc-client"), None);
    let flows = lab.flows();
    let is_named = |flow: &serde_json::Value| flow["interface"] == "client-port";
    assert!(
        flows.iter().any(is_named),
        "events have the file's name: {flows:?}"
    );

    let text = fs::read_to_string(lab.config()).expect("read the file");
    let second = "\n[interfaces.enp9s0]\nrole = \"endpoint\"\naddresses = [\"10.200.0.99\"]\nidentity = \"client\"\n";
    lab.save(&format!("{text}{second}"));
    lab.signal("HUP");
    eventually("two names for one interface are refused", || {
        let error = lab.json("status")["config"]["last_error"].to_string();
        let words = "client-port and enp9s0 of the file are names of one interface";
        error.contains(words).then_some(()).ok_or(error)
    });
    lab.save(&text);
    lab.signal("HUP");
    serves("the datapath stays", "client-port");

    lab.ok("node", "ip link set lxc-client down && ip link set lxc-client name moved0 && ip link set moved0 up");
    lab.ok(
        "node",
        "ip route replace 10.200.0.64/32 dev moved0 src 10.200.0.1",
    );
    serves("a rename leaves the other name", "client-port");
    lab.ok(
        "node",
        "ip link property del dev moved0 altname client-port",
    );
    eventually("without the name it is pending", || {
        match state_of(&lab, "client-port") {
            Some(state) if state == "pending" => Ok(()),
            state => Err(state),
        }
    });
    lab.ok("node", "ip link set moved0 down && ip link set moved0 name client-port && ip link set client-port up");
    lab.ok(
        "node",
        "ip route replace 10.200.0.64/32 dev client-port src 10.200.0.1",
    );
    serves("the kernel's name comes first", "client-port");
}

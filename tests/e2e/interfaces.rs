//! Interfaces come, go, and come back as others.

use serde_json::Value;

use crate::lab::{Lab, eventually};

fn endpoint(lab: &Lab, interface: &str) -> Value {
    let endpoints = lab.json("endpoint list");
    let rows = endpoints.as_array().expect("an array");
    let row = rows.iter().find(|row| row["interface"] == interface);
    row.unwrap_or_else(|| panic!("no {interface}: {endpoints}"))
        .clone()
}

/// Waits until the endpoint is in this state; answers with its row.
fn becomes(lab: &Lab, interface: &str, state: &str) -> Value {
    eventually(&format!("{interface} becomes {state}"), || {
        let row = endpoint(lab, interface);
        if row["state"] == state {
            Ok(row)
        } else {
            Err(row)
        }
    })
}

/// Makes the client's veth pair, as the lab does, under the name that is waited for.
fn plug(lab: &Lab) {
    let peer = format!(
        "{}-client",
        lab.folder().file_name().unwrap().to_string_lossy()
    );
    lab.ok(
        "node",
        &format!(
            "set -e
            ip link add lxc-late type veth peer name eth0 netns {peer}
            ip address add 169.254.1.1/32 dev lxc-late
            ip address add fe80::1:1/64 dev lxc-late nodad
            ip link set lxc-late up
            ip route add 10.200.0.64/32 dev lxc-late src 10.200.0.1
            ip route add fd00:200::64/128 dev lxc-late src fd00:200::1"
        ),
    );
    lab.ok(
        "client",
        "set -e
        ip address add 10.200.0.64/32 dev eth0
        ip address add fd00:200::64/128 dev eth0 nodad
        ip link set eth0 up
        ip route add default via 169.254.1.1 dev eth0 onlink src 10.200.0.64
        ip route add default via fe80::1:1 dev eth0 src fd00:200::64",
    );
}

fn ask_both(lab: &Lab, sentence: &str) {
    for server in ["10.32.0.10", "fd00:32::10"] {
        eventually(&format!("{sentence}: {server} answers"), || {
            lab.ask("client", server)
        });
    }
}

#[test]
fn a_missing_interface_is_waited_for_and_a_new_one_followed() {
    let lab = Lab::laid();
    lab.edit("lxc-client", "lxc-late");
    lab.start();
    assert_eq!(endpoint(&lab, "lxc-late")["state"], "waiting");
    assert_eq!(
        endpoint(&lab, "lxc-coredns")["state"],
        "attached",
        "nothing else stops for it"
    );
    let log = lab.log();
    assert!(
        log.contains("interface lxc-late is not there: waiting for it"),
        "{log}"
    );
    lab.ok("node", "ping -c1 -W5 10.200.0.44");

    lab.ok("node", "ip link del lxc-client");
    plug(&lab);
    let first = becomes(&lab, "lxc-late", "attached");
    ask_both(&lab, "the interface that came");

    lab.ok("node", "ip link del lxc-late");
    becomes(&lab, "lxc-late", "waiting");
    plug(&lab);
    let second = becomes(&lab, "lxc-late", "attached");
    assert_ne!(
        first["ifindex"], second["ifindex"],
        "it is another interface"
    );
    ask_both(&lab, "the interface that came again");

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
    assert_eq!(of_client, 2, "one program each way: {attached:?}");
}

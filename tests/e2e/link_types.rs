//! Interfaces by the type of their link: what a role can't have is refused, and an interface that is created again as another
//! type gets other programs.

use crate::common::tun;
use crate::lab::{NetnsLab, eventually};

const ENDPOINT: &str = "\n[interfaces.link7]\nrole = \"endpoint\"\naddresses = [\"10.200.0.77\"]\nidentity = \"client\"\n";
const REASON: &str = "it is an endpoint, and its packets have no Ethernet header";

/// The error that the status shows.
fn last_error(lab: &NetnsLab) -> String {
    let status = lab.json("status");
    status["config"]["last_error"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn hooks_of(lab: &NetnsLab, interface: &str) -> Vec<String> {
    let rows = lab.attached();
    let of = |row: &String| {
        row.strip_prefix(&format!("{interface} "))
            .map(str::to_owned)
    };
    rows.iter().filter_map(of).collect()
}

fn add_veth(lab: &NetnsLab) {
    let words = "ip link add link7 type veth peer name peer7 && ip link set link7 up";
    lab.ok("node", words);
}

#[test]
fn an_endpoint_without_ethernet_headers_is_refused() {
    let lab = NetnsLab::started();
    let tun = lab.within("node", || tun::open("link7"));
    let revision = lab.revision();
    lab.drop_in("link7", ENDPOINT);
    let dpd = env!("CARGO_BIN_EXE_dpd");
    let output = lab.run("node", &format!("{dpd} check"));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for part in [
        REASON,
        "link7.toml:3:1",
        "role = \"endpoint\"",
        "a veth or a tap",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    lab.signal("HUP");
    eventually("the change is refused", || {
        let error = last_error(&lab);
        let is_there = error.contains(REASON) && error.contains("link7.toml:2");
        if is_there { Ok(()) } else { Err(error) }
    });
    assert_eq!(lab.revision(), revision, "nothing is changed");
    drop(tun);
    eventually("another type of interface is accepted", || {
        lab.signal("HUP");
        let error = last_error(&lab);
        if error.is_empty() { Ok(()) } else { Err(error) }
    });
}

#[test]
fn an_endpoint_that_comes_back_as_another_type_is_skipped() {
    let lab = NetnsLab::started();
    add_veth(&lab);
    lab.apply("link7", ENDPOINT);
    assert_eq!(hooks_of(&lab, "link7").len(), 2);
    lab.ok("node", "ip link delete link7");
    let tun = lab.within("node", || tun::open("link7"));
    eventually("it is skipped and reported", || {
        let error = last_error(&lab);
        let is_skipped = error.contains(REASON) && hooks_of(&lab, "link7").is_empty();
        if is_skipped { Ok(()) } else { Err(error) }
    });
    lab.dig("client", "10.32.0.10").expect("others are served");
    lab.apply(
        "more",
        "[policies.more]\nsubject = \"kube-dns\"\negress = [{ to = [\"any\"] }]\n",
    );
    drop(tun);
    add_veth(&lab);
    eventually("the veth is served", || {
        let error = last_error(&lab);
        let is_served = error.is_empty() && hooks_of(&lab, "link7").len() == 2;
        if is_served { Ok(()) } else { Err(error) }
    });
}

#[test]
fn an_uplink_has_the_programs_of_its_type() {
    let lab = NetnsLab::started();
    lab.apply(
        "link7",
        "[interfaces.link7]\nrole = \"uplink\"\n[prefilter.x]\ndeny = [\"203.0.113.9\"]\n",
    );
    let ethernet = [
        "egress dpd_to_netdev",
        "ingress dpd_from_netdev",
        "xdp dpd_xdp_entry",
    ];
    let without = ["egress dpd_to_netdev", "ingress dpd_from_l3dev"];
    for _ in 0..2 {
        add_veth(&lab);
        eventually("a veth has those for Ethernet", || {
            let hooks = hooks_of(&lab, "link7");
            if hooks == ethernet {
                Ok(())
            } else {
                Err(hooks)
            }
        });
        let status = lab.json("status");
        assert_eq!(prefilter_of(&status), "xdp");
        lab.ok("node", "ip link delete link7");
        let tun = lab.within("node", || tun::open("link7"));
        eventually("a tun has the other one", || {
            let hooks = hooks_of(&lab, "link7");
            if hooks == without { Ok(()) } else { Err(hooks) }
        });
        let status = lab.json("status");
        assert_eq!(prefilter_of(&status), "tc");
        drop(tun);
    }
    let tun = lab.within("node", || tun::open("link7"));
    lab.drop_in(
        "link8",
        "[interfaces.link8]\nrole = \"uplink\"\nxdp = \"native\"\n",
    );
    let other = lab.within("node", || tun::open("link8"));
    eventually("native XDP is refused", || {
        lab.signal("HUP");
        let error = last_error(&lab);
        let is_there = error.contains("no native XDP") && error.contains("xdp = \"auto\"");
        if is_there { Ok(()) } else { Err(error) }
    });
    drop((tun, other));
}

fn prefilter_of(status: &serde_json::Value) -> String {
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let link = interfaces.iter().find(|row| row["interface"] == "link7");
    link.expect("link7")["prefilter"]
        .as_str()
        .unwrap_or("none")
        .to_owned()
}

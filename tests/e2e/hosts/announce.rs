//! Addresses of services that no host has, on a switch between two hosts and a client: found by ARP and neighbour
//! discovery, of one host alone, and of another after it.

use std::process::Stdio;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually, text};

/// Of one service, and what no service has.
const WEB: [&str; 2] = ["10.32.0.80", "fd00:32::80"];
const NOBODY: [&str; 2] = ["10.32.0.210", "fd00:32::210"];

const LAN: &str =
    "[interfaces.lan0]\nrole = \"uplink\"\nl2_announce = true\n\n[services.web]\nexternal = true\n";
/// A MAC that nobody has.
const STALE: &str = "02:00:00:00:00:99";

/// Two hosts with one file, and the world on a switch that forwards groups only to who has joined them.
fn on_a_switch() -> (NetnsLab, NetnsLab) {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.ok(
        "router",
        "ip link add lan type bridge mcast_snooping 1 mcast_querier 1 && ip link set lan up",
    );
    for (place, mac) in [("node-a", 0xa), ("node-b", 0xb), ("world", 0xc)] {
        let namespace = a.netns_name(place);
        a.ok(
            "router",
            &format!(
                "ip link add lan-{mac:x} master lan type veth peer name lan0 address 02:00:00:00:01:0{mac:x} netns {namespace} \
                 && ip link set lan-{mac:x} up"
            ),
        );
        a.ok(place, "ip link set lan0 up");
    }
    a.ok(
        "world",
        "ip address add 10.32.0.200/24 dev lan0 && ip address add fd00:32::200/64 dev lan0 nodad",
    );
    a.drop_in("lan", LAN);
    b.drop_in("lan", LAN);
    (a, b)
}

fn mac(host: char) -> String {
    format!("02:00:00:00:01:0{host}")
}

/// The MAC that the client has for an address, after it has asked; none if nobody has answered.
fn found(lab: &NetnsLab, address: &str) -> Option<String> {
    lab.run("world", &format!("ip neigh flush to {address} dev lan0"));
    lab.run("world", &format!("ping -n -c 1 -W 1 {address}"));
    known(lab, address)
}

/// The MAC that the client has for an address.
fn known(lab: &NetnsLab, address: &str) -> Option<String> {
    let output = lab.run("world", &format!("ip -j neigh show to {address} dev lan0"));
    let rows: Value = serde_json::from_str(&text(&output)).ok()?;
    Some(rows[0]["lladdr"].as_str()?.to_owned())
}

/// The client has a MAC for the addresses that was right once.
fn make_stale(lab: &NetnsLab) {
    for address in WEB {
        lab.ok(
            "world",
            &format!("ip neigh replace {address} lladdr {STALE} dev lan0 nud stale"),
        );
    }
}

/// What a host says of an address.
fn row(lab: &NetnsLab, address: &str) -> Value {
    let status = lab.json("status");
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let lan = interfaces.iter().find(|row| row["interface"] == "lan0");
    let rows = lan.map(|lan| &lan["announcements"]);
    let rows = rows.and_then(Value::as_array).into_iter().flatten();
    let row = rows.clone().find(|row| row["address"] == address);
    row.cloned().unwrap_or_default()
}

fn eventually_is(lab: &NetnsLab, state: &str) {
    for address in WEB {
        eventually(
            &format!("{}: {address} is {state}", lab.node()),
            || match row(lab, address) {
                row if row["state"] == state => Ok(()),
                row => Err(row),
            },
        );
    }
}

/// Without asking: by what the host has announced.
fn eventually_learns(lab: &NetnsLab, host: char) {
    for address in WEB {
        eventually(&format!("{address} is at {host}"), || {
            match known(lab, address) {
                Some(known) if known == mac(host) => Ok(()),
                other => Err(other),
            }
        });
    }
}

#[test]
fn one_host_answers_and_the_other_is_silent() {
    let (a, b) = on_a_switch();
    a.start();
    eventually_is(&a, "announced");
    for address in WEB {
        assert_eq!(found(&a, address), Some(mac('a')), "{address}");
    }
    for address in NOBODY {
        assert_eq!(found(&a, address), None, "{address}");
    }
    b.start();
    eventually_is(&b, "conflict");
    for address in WEB {
        assert_eq!(row(&b, address)["defender"], mac('a'), "{address}");
        assert_eq!(found(&a, address), Some(mac('a')), "{address}");
    }
    let words = "uplink lan0 does not announce";
    let warnings = b.json("status")["warnings"].clone();
    assert!(warnings.to_string().contains(words), "{warnings}");
    assert!(b.log().contains(words), "{}", b.log());
    let status = b.dpd("status");
    assert!(status.contains("lan0: l2_announce: "), "{status}");
    assert_eq!(row(&a, WEB[0])["state"], "announced", "it is not disturbed");
}

#[test]
fn another_host_takes_over_and_neighbours_learn_it() {
    let (a, b) = on_a_switch();
    a.start();
    eventually_is(&a, "announced");
    b.start();
    eventually_is(&b, "conflict");
    for address in WEB {
        assert_eq!(found(&a, address), Some(mac('a')), "{address}");
    }
    a.stop();
    for address in WEB {
        assert_eq!(found(&a, address), Some(mac('a')), "the datapath answers");
    }
    a.dpd("cleanup");
    // It would try again within a minute.
    b.ok("node-b", "ip link set lan0 down && ip link set lan0 up");
    eventually_learns(&a, 'b');
    eventually_is(&b, "announced");
    a.start();
    eventually_is(&a, "conflict");
    assert_eq!(row(&a, WEB[0])["defender"], mac('b'));
}

#[test]
fn neighbours_learn_it_at_start_link_up_and_another_mac() {
    let (a, _) = on_a_switch();
    make_stale(&a);
    a.start();
    eventually_learns(&a, 'a');
    eventually_is(&a, "announced");
    make_stale(&a);
    a.ok("node-a", "ip link set lan0 down && ip link set lan0 up");
    eventually_learns(&a, 'a');
    make_stale(&a);
    a.kill();
    for address in WEB {
        assert_eq!(found(&a, address), Some(mac('a')), "without dpd");
    }
    make_stale(&a);
    let before = a.revision();
    a.start();
    eventually_learns(&a, 'a');
    eventually_is(&a, "announced");
    assert_eq!(a.revision(), before + 1, "the next dpd keeps on answering");
    a.ok("node-a", &format!("ip link set lan0 address {}", mac('d')));
    eventually_learns(&a, 'd');
    eventually("requests are answered with it", || {
        let found = WEB.map(|address| found(&a, address));
        let all = found.iter().all(|found| *found == Some(mac('d')));
        all.then_some(()).ok_or(found)
    });
}

#[test]
fn addresses_follow_the_file_and_the_host() {
    let (a, _) = on_a_switch();
    a.start();
    eventually_is(&a, "announced");
    let web = "[services.extra]\nexternal = true\nfrontends = [\"10.32.0.210:80/tcp\", \"[fd00:32::210]:80/tcp\"]\nbackends = []\n";
    for address in NOBODY {
        assert_eq!(found(&a, address), None, "{address}");
    }
    a.apply("extra", web);
    for address in NOBODY {
        eventually(&format!("{address} is answered for"), || {
            found(&a, address).ok_or("nobody")
        });
    }
    a.apply("extra", "# nothing\n");
    for address in NOBODY {
        assert_eq!(found(&a, address), None, "{address} has left");
    }
    // The kernel answers for an address of its own.
    a.ok("node-a", "ip address add 10.32.0.80/32 dev lan0");
    eventually("the host has it", || match row(&a, WEB[0]) {
        Value::Null => Ok(()),
        row => Err(row),
    });
    assert_eq!(found(&a, WEB[0]), Some(mac('a')));
}

#[test]
fn a_host_that_has_the_address_keeps_it() {
    let (a, _) = on_a_switch();
    a.ok(
        "node-b",
        "ip address add 10.32.0.80/24 dev lan0 && ip address add fd00:32::80/64 dev lan0 nodad",
    );
    a.start();
    eventually_is(&a, "conflict");
    for address in WEB {
        assert_eq!(row(&a, address)["defender"], mac('b'), "{address}");
        assert_eq!(found(&a, address), Some(mac('b')), "{address}");
    }
}

/// Who can't ask does not announce.
#[test]
fn without_the_capability_nothing_is_announced_and_a_warning_names_it() {
    let (a, _) = on_a_switch();
    a.start();
    eventually_is(&a, "announced");
    a.stop();
    let dpd = env!("CARGO_BIN_EXE_dpd");
    let mut daemon = a.command("node-a", "setpriv");
    daemon
        .args(["--bounding-set", "-net_raw", dpd, "run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut daemon = daemon.spawn().expect("run dpd");
    // The lab kills all processes in its namespaces when it is removed.
    std::thread::spawn(move || daemon.wait());
    eventually("the warning names the capability", || {
        let status = text(&a.run("node-a", &format!("{dpd} status -o json")));
        let is_named = status.contains("l2_announce needs CAP_NET_RAW");
        is_named.then_some(()).ok_or(status)
    });
    eventually("nobody answers", || {
        let found = WEB.map(|address| found(&a, address));
        (found == [None, None]).then_some(()).ok_or(found)
    });
}

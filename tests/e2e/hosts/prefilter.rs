//! Packets that XDP drops before the kernel makes anything of them.

use crate::lab::{Lab, eventually};

/// The hooks of the uplink.
fn hooks(lab: &Lab) -> Vec<String> {
    let mut rows = lab.attached();
    rows.retain(|row| row.starts_with("uplink0 "));
    rows
}

fn count(lab: &Lab) -> u64 {
    let status = lab.json("status");
    let drops = status["drops"].as_array().expect("drops");
    let of_prefilter = drops.iter().find(|row| row["reason_text"] == "prefilter");
    of_prefilter.map_or(0, |row| row["packets"].as_u64().expect("packets"))
}

#[test]
fn abusers_are_dropped_and_nobody_else() {
    let (a, _b) = Lab::hosts(1500);
    let without = [
        "uplink0 egress dpd_to_netdev",
        "uplink0 ingress dpd_from_netdev",
    ];
    assert_eq!(hooks(&a), without, "no prefilter, no XDP");
    a.apply(
        "prefilter",
        "[prefilter.abusers]\ndeny = [\"203.0.113.0/24\", \"2001:db8:3::9\"]\n",
    );
    let with = [without[0], without[1], "uplink0 xdp dpd_xdp_entry"];
    assert_eq!(hooks(&a), with);
    for (number, to) in ["10.200.0.64", "fd00:200::64", "192.0.2.1", "2001:db8:1::1"]
        .into_iter()
        .enumerate()
    {
        let output = a.run("world", &format!("ping -n -c 1 -W 1 {to}"));
        assert!(
            !output.status.success(),
            "{to} is out of the abuser's reach"
        );
        assert_eq!(count(&a), number as u64 + 1, "each packet is counted");
    }
    eventually("an event tells of it", || {
        let flows = a.flows();
        let found = flows.iter().any(|flow| {
            flow["point"] == "xdp"
                && flow["src_ip"] == "203.0.113.9"
                && flow["drop_reason"] == "prefilter"
        });
        if found { Ok(()) } else { Err(flows) }
    });
    for to in ["10.32.0.10", "fd00:32::10"] {
        a.ask("client", to).expect("everybody else passes");
    }
    a.ok("node-b", "ping -n -c 1 -W 5 192.0.2.1");
    a.ok("node-b", "ping -n -c 1 -W 5 -s 6000 2001:db8:1::1");

    a.apply("prefilter", "# nobody\n");
    assert_eq!(hooks(&a), without, "XDP goes with the last prefix");
    for to in ["10.200.0.64", "fd00:200::64", "192.0.2.1", "2001:db8:1::1"] {
        a.ok("world", &format!("ping -n -c 1 -W 5 {to}"));
    }
}

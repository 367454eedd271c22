//! A process of the host with CAP_NET_RAW alone marks its packets: no mark passes policy, not even dpd's own.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::seat::{END, Inbox, at, families, send_udp, wait_for_drops};
use crate::common::frames::{send_routed, set_mark};
use crate::common::packet::udp;
use crate::lab::NetnsLab;

/// dpd's own mark, the second word of its pinned map.
fn own_mark(lab: &NetnsLab) -> u32 {
    let pin = lab.ok(
        "node",
        &format!("find {} -name dpd_live", lab.bpf_root().display()),
    );
    let line = format!("bpftool -j map lookup pinned {} key 1 0 0 0", pin.trim());
    let row: serde_json::Value = serde_json::from_str(&lab.ok("node", &line)).expect("JSON");
    let bytes = row["value"].as_array().expect("bytes").iter().map(|byte| {
        let digits = byte.as_str().expect("a byte").trim_start_matches("0x");
        u8::from_str_radix(digits, 16).expect("a byte")
    });
    let bytes: Vec<u8> = bytes.collect();
    let word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    u32::try_from(word).expect("a mark has 32 bits")
}

/// Gives all of the thread's capabilities up but one, for good.
fn keep_net_raw() -> io::Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::NET_RAW,
        permitted: CapabilitySet::NET_RAW,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

fn send(marks: &[u32], client: SocketAddr, server: SocketAddr) -> io::Result<()> {
    keep_net_raw()?;
    for mark in marks {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        set_mark(&socket, *mark)?;
        socket.send_to(format!("as the host, mark {mark:x}").as_bytes(), server)?;
        let says = format!("as the client, mark {mark:x}");
        let forged = udp(client, server).payload(says.as_bytes());
        send_routed(&forged.ip_bytes(), at(server.ip(), 0), *mark)?;
    }
    Ok(())
}

#[test]
fn no_mark_passes_policy_or_source_check() {
    let lab = NetnsLab::laid();
    lab.drop_in("attacks", "[policy]\nallow_host = false\n");
    lab.start();
    let own = own_mark(&lab);
    let mut marks = vec![0, own, own ^ 1, u32::MAX];
    marks.extend((0..32).map(|bit| 1 << bit));
    for family in families() {
        let server = at(family.server, 5201);
        let inbox = Inbox::open(&lab, "coredns", server);
        // The host's first packet waits for the server's MAC address, and no other is lost meanwhile.
        lab.run("node", &format!("ping -n -c 1 -W 1 {}", family.server));
        let client = at(family.client, 4444);
        let sent = lab.within("node", || send(&marks, client, server));
        sent.unwrap_or_else(|error| panic!("{}: {error}", family.name));
        send_udp(&lab, "client", END, server);
        assert_eq!(inbox.until_end(), Vec::<String>::new(), "{}", family.name);
    }
    let sent = 2 * marks.len() as u64;
    wait_for_drops(&lab, "invalid source", sent);
    wait_for_drops(&lab, "policy denied: no rule", sent);
}

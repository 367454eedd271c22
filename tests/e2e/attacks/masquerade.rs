//! What the host masquerades for others is not `host`.

use std::net::{SocketAddr, UdpSocket};

use super::seat::{END, Inbox, at, families, send_udp, wait_for_drops};
use crate::common::namespace::Namespace;
use crate::lab::{NetnsLab, eventually};

/// Another tool's container: behind an interface of the host that dpd does not have.
fn container(lab: &NetnsLab) -> Namespace {
    let container = Namespace::new();
    lab.ok(
        "node",
        &format!(
            "ip link add other0 type veth peer name eth0 netns {} && ip link set other0 up
            ip address add 10.99.0.1/24 dev other0 && ip address add fd00:99::1/64 dev other0 nodad",
            container.pid()
        ),
    );
    container.ip("address add 10.99.0.2/24 dev eth0");
    container.ip("address add fd00:99::2/64 dev eth0 nodad");
    container.ip("link set eth0 up");
    container.ip("route add default via 10.99.0.1");
    container.ip("route add default via fd00:99::1");
    container
}

fn send(container: &Namespace, text: &str, to: SocketAddr) {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sent = container.run(|| UdpSocket::bind(any)?.send_to(text.as_bytes(), to));
    assert_eq!(sent.expect("send a datagram"), text.len(), "{to}");
}

const NO_RULE: &str = "policy denied: no rule";

#[test]
fn masqueraded_packets_are_not_the_hosts() {
    let lab = NetnsLab::started();
    let container = container(&lab);
    let servers = families().map(|family| at(family.server, 5201));
    let inboxes = servers.map(|server| Inbox::open(&lab, "coredns", server));
    let send_all = |text: &str| servers.iter().for_each(|to| send(&container, text, *to));
    send_all("by its own address");
    wait_for_drops(&lab, NO_RULE, 2);
    lab.ok(
        "node",
        "nft 'table inet other { chain post { type nat hook postrouting priority srcnat; iifname \"other0\" masquerade; }; }'",
    );
    send_all("masqueraded");
    for (server, inbox) in std::iter::zip(servers, &inboxes) {
        send_udp(&lab, "node", END, server);
        assert_eq!(
            inbox.until_end(),
            Vec::<String>::new(),
            "only the host passes"
        );
    }
    wait_for_drops(&lab, NO_RULE, 4);

    // They were masqueraded: what the world may reach they reach, from an address of the host's.
    lab.apply(
        "attacks",
        "[policies.attacks]\nsubject = \"kube-dns\"\ningress = [{ from = [\"world\"] }]\n",
    );
    send_all("allowed");
    for inbox in &inboxes {
        let (text, from) = eventually("the world's packet", || inbox.next().ok_or(lab.drops()));
        assert_eq!(text, "allowed");
        let addresses = lab.ok("node", "ip -brief address");
        let from = from.ip().to_string();
        assert!(
            addresses.contains(&format!(" {from}/")),
            "{from}: {addresses}"
        );
    }
}

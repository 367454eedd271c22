//! Fragments of one datagram that name different next headers: the receiver reads the first's, and so does policy.

use super::seat::{END, Inbox, Seat, at, families, send_udp, wait_for_drops};
use crate::common::packet::{Packet, protocol, udp};
use crate::lab::NetnsLab;

/// What later fragments call themselves.
const NAMED: [u8; 6] = [
    protocol::UDP,
    protocol::TCP,
    protocol::ICMPV6,
    protocol::NO_NEXT,
    protocol::DESTINATION,
    253,
];

/// A datagram in three fragments; the later ones have this next header. Returns what its receiver reads.
fn send(seat: &Seat, whole: &Packet, id: u16, next: u8) -> String {
    let text = format!("{:0>100}", format!("datagram {id} with {next}"));
    let whole = whole.clone().id(id).payload(text.as_bytes());
    let part = |first, end| whole.clone().fragment(first, end);
    seat.send(&part(0, 48));
    seat.send(&part(48, 72).protocol(next));
    seat.send(&part(72, 108).protocol(next));
    text
}

#[test]
fn the_first_fragments_header_is_what_counts() {
    let lab = NetnsLab::started();
    let [_, family] = families();
    let (client, intruder) = (
        Seat::workload(&lab, "client"),
        Seat::workload(&lab, "intruder"),
    );
    let server = at(family.server, 5201);
    let inbox = Inbox::open(&lab, "coredns", server);
    let allowed = udp(at(family.client, 4444), server);
    let denied = udp(at(family.intruder, 4444), server);
    let mut expected = Vec::new();
    for (id, next) in (1..).zip(NAMED) {
        expected.push(send(&client, &allowed, id, next));
        send(&intruder, &denied, id, next);
        // What has no first fragment goes nowhere, whatever it calls itself.
        let orphan = denied.clone().id(100 + id).payload(&[0; 100]);
        intruder.send(&orphan.fragment(48, 108).protocol(next));
    }
    send_udp(&lab, "client", END, server);
    assert_eq!(inbox.until_end(), expected);
    let datagrams = NAMED.len() as u64;
    wait_for_drops(&lab, "policy denied: no rule", 3 * datagrams);
    wait_for_drops(&lab, "first fragment not found", datagrams);
}

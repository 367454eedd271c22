//! What comes by an uplink without Ethernet headers and keeps one of the packet around it, as by an XFRM interface: the program
//! pushes none. Packets that start at their network header are tested end to end, with tun devices: a test run makes none.

use crate::common::packet;
use crate::lab::*;
use crate::uplink::{UPLINK, config, far};
use crate::walk::{Expect::*, Walk};

#[test]
fn a_header_that_is_there_is_kept() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let sent = packet::udp(at(family.world, 4000), at(family.web, 9)).payload(b"?");
        for time in ["the first", "the next"] {
            walk.l3(time, UPLINK, &sent, Delivered(WEB, sent.clone()));
        }
        let rows = [
            ("to the host", sent.clone().dst(family.host), Passed),
            (
                "to another host",
                sent.clone().dst(far(&family).node),
                Passed,
            ),
            (
                "a workload's source",
                sent.clone().src(family.client),
                Dropped(132),
            ),
            (
                "the host's source",
                sent.clone().src(family.host),
                Dropped(132),
            ),
            (
                "without permission",
                sent.clone().dst(at(family.dns, 53)),
                Dropped(133),
            ),
            (
                "without its first fragment",
                sent.clone().id(9).fragment(8, 9),
                Dropped(175),
            ),
        ];
        for (says, packet, expect) in rows {
            walk.l3(says, UPLINK, &packet, expect);
        }
        let answer = packet::udp(at(family.web, 9), at(family.world, 4000)).payload(b"!");
        walk.from("the reply", WEB, &answer, Routed(answer.clone()));
        walk.end();
    }
}

//! All addresses of all links that announce.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::claim::{Claim, Message, Moment};
use crate::model::announce::{Announcement, AnnouncementState, AnnouncingLink};
use crate::model::host::{LinkAddress, Mac, mac_text};
use crate::net::neighbour::Heard;

/// A message of an address, to be sent to its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub on_link: LinkAddress,
    pub own: Mac,
    pub message: Message,
}

#[derive(Debug, Default)]
pub struct Claims {
    links: BTreeMap<u32, AnnouncingLink>,
    claims: BTreeMap<LinkAddress, Claim>,
    /// What the datapath of an earlier daemon answers for, until the links are known.
    adopted: BTreeSet<LinkAddress>,
    /// Something has happened since `take_changed`.
    has_changed: bool,
}

impl Claims {
    pub fn new(adopted: BTreeSet<LinkAddress>) -> Claims {
        Claims {
            adopted,
            ..Claims::default()
        }
    }

    /// These links announce now, and no others. One whose link has come up since starts over: somebody may have taken
    /// its addresses meanwhile.
    pub fn follow(&mut self, links: Vec<AnnouncingLink>, at: Moment) {
        let adopted = std::mem::take(&mut self.adopted);
        let mut before = std::mem::take(&mut self.claims);
        let old = std::mem::take(&mut self.links);
        self.has_changed = true;
        for link in links {
            let old = old.get(&link.ifindex);
            let has_stayed_up = old.is_some_and(|old| old.carrier_ups == link.carrier_ups);
            let has_same_mac = old.is_some_and(|old| old.mac == link.mac);
            for address in &link.addresses {
                let on_link = LinkAddress {
                    ifindex: link.ifindex,
                    address: *address,
                };
                let known = before.remove(&on_link).filter(|_| has_stayed_up);
                let mut claim = match known {
                    Some(claim) => claim,
                    None if adopted.contains(&on_link) => Claim::adopt(),
                    None => Claim::probe(at),
                };
                if !has_same_mac {
                    claim.announce_again(at.now);
                }
                self.claims.insert(on_link, claim);
            }
            self.links.insert(link.ifindex, link);
        }
    }

    /// The datapath answers for these.
    pub fn confirm(&mut self, live: &BTreeSet<LinkAddress>, now: Instant) {
        for (on_link, claim) in &mut self.claims {
            if live.contains(on_link) {
                claim.confirm(now);
            }
        }
    }

    /// What is due, `most` messages at most.
    pub fn step(&mut self, at: Moment, most: usize) -> Vec<Outgoing> {
        let links = &self.links;
        self.has_changed |= self.due().is_some_and(|due| due <= at.now);
        let due = self.claims.iter_mut().filter_map(|(on_link, claim)| {
            let message = claim.step(at)?;
            let own = links.get(&on_link.ifindex)?.mac;
            Some(Outgoing {
                on_link: *on_link,
                own,
                message,
            })
        });
        due.take(most).collect()
    }

    /// What was heard on a link; what this host itself has sent comes back from a switch, or by another of its links.
    pub fn hear(&mut self, ifindex: u32, heard: Heard, at: Moment) -> Option<Outgoing> {
        if self.links.values().any(|link| link.mac == heard.mac) {
            return None;
        }
        let on_link = LinkAddress {
            ifindex,
            address: heard.address,
        };
        let own = self.links.get(&ifindex)?.mac;
        let claim = self.claims.get_mut(&on_link)?;
        self.has_changed = true;
        let message = claim.hear(heard.kind, heard.mac, own, at)?;
        Some(Outgoing {
            on_link,
            own,
            message,
        })
    }

    /// Whether the report may be another one than before.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// When the next step is due.
    pub fn due(&self) -> Option<Instant> {
        self.claims.values().filter_map(Claim::due).min()
    }

    /// The links, each with what it is to announce.
    pub fn addresses(&self) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        self.claims.keys().map(|row| (row.ifindex, row.address))
    }

    /// What the datapath is to answer for.
    pub fn announced(&self) -> BTreeSet<LinkAddress> {
        let free = self.claims.iter().filter(|(_, claim)| claim.is_free());
        free.map(|(on_link, _)| *on_link).collect()
    }

    /// What becomes of each, by interface.
    pub fn report(&self) -> Vec<Announcement> {
        let rows = self.claims.iter().filter_map(|(on_link, claim)| {
            Some(Announcement {
                interface: self.links.get(&on_link.ifindex)?.interface.clone(),
                address: on_link.address,
                state: claim.state(),
                defender: claim.defender().map(mac_text),
            })
        });
        rows.collect()
    }
}

/// Addresses that one warning names.
const NAMED: usize = 4;

/// Who has addresses that uplinks are to announce.
pub fn warnings(report: &[Announcement]) -> Vec<String> {
    let mut conflicts: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for row in report {
        if let (AnnouncementState::Conflict, Some(mac)) = (row.state, &row.defender) {
            let of_mac = conflicts.entry((&row.interface, mac)).or_default();
            of_mac.push(row.address.to_string());
        }
    }
    let texts = conflicts.iter().map(|((interface, mac), addresses)| {
        let (named, rest) = addresses.split_at(addresses.len().min(NAMED));
        let named = named.join(", ");
        let rest = match rest.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "uplink {interface} does not announce {named}{rest}: {mac} has that address on the link (tried again every minute)"
        )
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::neighbour::HeardKind;

    const OWN: Mac = [2, 0, 0, 0, 0, 0xa];
    const OTHER: Mac = [2, 0, 0, 0, 0, 0xb];

    fn link(ifindex: u32, addresses: &str) -> AnnouncingLink {
        AnnouncingLink {
            interface: format!("ens{ifindex}"),
            ifindex,
            mac: OWN,
            carrier_ups: 1,
            addresses: addresses
                .split_whitespace()
                .map(|address| address.parse().unwrap())
                .collect(),
        }
    }

    fn on_link(ifindex: u32, address: &str) -> LinkAddress {
        LinkAddress {
            ifindex,
            address: address.parse().unwrap(),
        }
    }

    fn at(start: Instant, ms: u64) -> Moment {
        Moment {
            now: start + Duration::from_millis(ms),
            random: 0,
        }
    }

    /// `2 203.0.113.10 announced`
    fn lines(claims: &Claims) -> Vec<String> {
        let rows = claims.claims.iter();
        rows.map(|(on_link, claim)| {
            let state = format!("{:?}", claim.state()).to_lowercase();
            format!("{} {} {state}", on_link.ifindex, on_link.address)
        })
        .collect()
    }

    /// Sends all that is due until all addresses are announced.
    fn settle(claims: &mut Claims, start: Instant, from: u64) -> u64 {
        let mut ms = from;
        while claims
            .claims
            .values()
            .any(|claim| claim.state() == AnnouncementState::Probing)
        {
            claims.step(at(start, ms), 100);
            claims.confirm(&claims.announced(), at(start, ms).now);
            ms += 100;
        }
        ms
    }

    #[test]
    fn links_and_addresses_come_and_go() {
        let start = Instant::now();
        let adopted = [on_link(2, "203.0.113.10"), on_link(9, "203.0.113.10")];
        let mut claims = Claims::new(adopted.into());
        claims.follow(vec![link(2, "203.0.113.10 203.0.113.11")], at(start, 0));
        let own = [on_link(2, "203.0.113.10")].into();
        assert_eq!(claims.announced(), own, "what was announced is adopted");
        claims.confirm(&own, start);
        let expected = ["2 203.0.113.10 announced", "2 203.0.113.11 probing"];
        assert_eq!(lines(&claims), expected);
        let ms = settle(&mut claims, start, 0);
        claims.follow(
            vec![
                link(2, "203.0.113.11 203.0.113.12"),
                link(3, "203.0.113.11"),
            ],
            at(start, ms),
        );
        let expected = [
            "2 203.0.113.11 announced",
            "2 203.0.113.12 probing",
            "3 203.0.113.11 probing",
        ];
        assert_eq!(lines(&claims), expected);
        claims.follow(vec![link(2, "203.0.113.10")], at(start, ms));
        let expected = ["2 203.0.113.10 probing"];
        assert_eq!(lines(&claims), expected, "it is adopted once only");
        claims.follow(Vec::new(), at(start, ms));
        assert_eq!(lines(&claims), [""; 0]);
        assert_eq!(claims.due(), None);
    }

    #[test]
    fn a_link_that_came_up_again_starts_over_and_one_with_another_mac_announces() {
        let start = Instant::now();
        let mut claims = Claims::default();
        claims.follow(vec![link(2, "203.0.113.10")], at(start, 0));
        let ms = settle(&mut claims, start, 0) + 60_000;
        let sent = [0, 10_000, 20_000].map(|later| claims.step(at(start, ms + later), 100).len());
        assert_eq!(sent, [1, 1, 0], "two announcements, then it is quiet");
        let moved = AnnouncingLink {
            mac: OTHER,
            ..link(2, "203.0.113.10")
        };
        claims.follow(vec![moved.clone()], at(start, ms));
        let expected = Outgoing {
            on_link: on_link(2, "203.0.113.10"),
            own: OTHER,
            message: Message::Announcement,
        };
        assert_eq!(claims.step(at(start, ms), 100), [expected]);
        let flapped = AnnouncingLink {
            carrier_ups: 2,
            ..moved
        };
        claims.follow(vec![flapped], at(start, ms));
        assert_eq!(lines(&claims), ["2 203.0.113.10 probing"]);
    }

    #[test]
    fn only_others_are_heard_and_only_on_their_link() {
        let start = Instant::now();
        let mut claims = Claims::default();
        claims.follow(
            vec![link(2, "203.0.113.10"), link(3, "203.0.113.10")],
            at(start, 0),
        );
        let mut hear = |ifindex, mac, address: &str| {
            let heard = Heard {
                address: address.parse().unwrap(),
                mac,
                kind: HeardKind::Claim,
            };
            claims.hear(ifindex, heard, at(start, 0));
            lines(&claims)
        };
        let quiet = ["2 203.0.113.10 probing", "3 203.0.113.10 probing"];
        assert_eq!(hear(2, OWN, "203.0.113.10"), quiet, "its own");
        assert_eq!(hear(2, OTHER, "203.0.113.99"), quiet, "another address");
        assert_eq!(hear(9, OTHER, "203.0.113.10"), quiet, "another link");
        let expected = ["2 203.0.113.10 conflict", "3 203.0.113.10 probing"];
        assert_eq!(hear(2, OTHER, "203.0.113.10"), expected);
        let warnings = warnings(&claims.report());
        assert_eq!(
            warnings,
            [
                "uplink ens2 does not announce 203.0.113.10: 02:00:00:00:00:0b has that address on the link (tried again every minute)"
            ]
        );
    }

    #[test]
    fn many_addresses_are_sent_bit_by_bit() {
        let start = Instant::now();
        let addresses: Vec<String> = (1..=250).map(|n| format!("203.0.113.{n}")).collect();
        let mut claims = Claims::default();
        claims.follow(vec![link(2, &addresses.join(" "))], at(start, 0));
        let sent = [0; 4].map(|_| claims.step(at(start, 0), 100).len());
        assert_eq!(sent, [100, 100, 50, 0]);
        assert_eq!(claims.due(), Some(start + Duration::from_millis(500)));
    }
}

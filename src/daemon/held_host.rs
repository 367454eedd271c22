//! The host as plans are made for it: an interface that flaps (its MAC, its state, an address) costs one generation a second at
//! most, and delays no other.
//!
//! Each interface pays a second for each of its changes. One that has paid for all is followed at once; else it keeps its previous
//! facts until then. An interface that is gone is gone at once, and one with another ifindex is absent until it is followed: facts
//! are never kept for an ifindex that its name does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::model::host::{HostState, Link};

/// The price of a change.
const INTERVAL: Duration = Duration::from_secs(1);
/// An interface that is deleted and created again is followed at once, if it does not do so often.
const RETURN_CREDIT: Duration = Duration::from_secs(2);
/// A new interface changes a few times until its workload has it: moved, named, set up. These are free.
const JOIN_CHANGES: u32 = 2;
const JOIN_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct HeldHost {
    links: BTreeMap<String, HeldLink>,
    /// Routes to the host itself are of no interface here.
    prefixes: BTreeSet<IpNet>,
    prefixes_paid: Option<Instant>,
    /// When something that is held back is due.
    next_look: Option<Instant>,
}

#[derive(Debug)]
struct HeldLink {
    /// What plans are made for; `None`: it is absent.
    link: Option<Link>,
    /// Until when it has to wait for its next change.
    paid: Instant,
    /// Free changes, and until when.
    join: (u32, Instant),
}

impl HeldHost {
    /// When what is held back is due; `None`: nothing is.
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Takes what the kernel reports, and returns what plans are made for.
    pub fn look(&mut self, seen: HostState, now: Instant) -> HostState {
        self.next_look = None;
        self.links.retain(|name, held| {
            if !seen.links.contains_key(name) {
                held.drop_link(now);
            }
            held.link.is_some() || held.paid > now
        });
        let mut view = BTreeMap::new();
        for (name, link) in seen.links {
            let held = self.links.entry(name.clone()).or_insert(HeldLink {
                link: None,
                paid: now,
                join: (0, now),
            });
            let due = held.look(link, now);
            self.next_look = self.next_look.into_iter().chain(due).min();
            view.extend(held.link.clone().map(|link| (name, link)));
        }
        self.look_at_prefixes(seen.local_prefixes, now);
        HostState {
            addresses: view
                .values()
                .flat_map(|link| link.addresses.iter().copied())
                .collect(),
            links: view,
            local_prefixes: self.prefixes.clone(),
            stack: seen.stack,
            socket_ports: seen.socket_ports,
            announced: seen.announced,
            netns_cookie: seen.netns_cookie,
        }
    }

    fn look_at_prefixes(&mut self, seen: BTreeSet<IpNet>, now: Instant) {
        if seen == self.prefixes {
            return;
        }
        match self.prefixes_paid.filter(|paid| *paid > now) {
            Some(paid) => self.next_look = self.next_look.into_iter().chain([paid]).min(),
            None => {
                self.prefixes = seen;
                self.prefixes_paid = Some(now + INTERVAL);
            }
        }
    }
}

impl HeldLink {
    /// It is absent now.
    fn drop_link(&mut self, now: Instant) {
        if self.link.take().is_some() {
            self.paid = self.paid.max(now) + INTERVAL;
        }
    }

    fn take_free_change(&mut self, now: Instant) -> bool {
        let (left, until) = &mut self.join;
        let is_free = *left > 0 && now < *until;
        *left = left.saturating_sub(u32::from(is_free));
        is_free
    }

    /// Returns when the link is due, if it is held back.
    fn look(&mut self, seen: Link, now: Instant) -> Option<Instant> {
        let is_same = self.link.as_ref().map(|held| held.ifindex) == Some(seen.ifindex);
        if is_same && self.link.as_ref() == Some(&seen) {
            return None;
        }
        if is_same && self.take_free_change(now) {
            self.link = Some(seen);
            return None;
        }
        let credit = match is_same {
            true => Duration::ZERO,
            false => RETURN_CREDIT,
        };
        if self.paid > now + credit {
            if !is_same {
                self.drop_link(now);
            }
            return Some(self.paid - credit);
        }
        if !is_same {
            let is_rare = self.paid <= now + RETURN_CREDIT - INTERVAL / 2;
            self.join = (if is_rare { JOIN_CHANGES } else { 0 }, now + JOIN_TIME);
        }
        self.paid = self.paid.max(now) + INTERVAL;
        self.link = Some(seen);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    /// `7a`: ifindex 7 with the facts `a`; empty: it is not there.
    fn link(text: &str) -> Option<Link> {
        let (ifindex, facts) = text.split_at_checked(text.len().checked_sub(1)?)?;
        Some(Link {
            ifindex: ifindex.parse().unwrap(),
            mtu: u32::from(facts.as_bytes()[0]),
            ..Link::default()
        })
    }

    fn host(links: &[(&str, &str)]) -> HostState {
        let links = links.iter();
        HostState {
            links: links
                .filter_map(|(name, text)| Some(((*name).to_owned(), link(text)?)))
                .collect(),
            ..HostState::default()
        }
    }

    /// A host with `va`, long ago.
    fn settled(text: &str, start: Instant) -> HeldHost {
        let mut held = HeldHost::default();
        held.look(host(&[("va", text)]), start - START);
        held
    }

    #[test]
    fn a_change_is_followed_at_once_and_the_next_after_a_second() {
        // (milliseconds, what the look finds, what plans are made for then)
        type Rows = &'static [(u64, &'static str, &'static str)];
        let rows: [(&str, &str, Rows); 8] = [
            ("one change", "7a", &[(0, "7b", "7b"), (1000, "7a", "7a")]),
            (
                "a flap",
                "7a",
                &[
                    (0, "7b", "7b"),
                    (100, "7a", "7b"),
                    (200, "7c", "7b"),
                    (999, "7c", "7b"),
                    (1000, "7c", "7c"),
                    (1100, "7a", "7c"),
                ],
            ),
            (
                "back before it was followed",
                "7a",
                &[
                    (0, "7b", "7b"),
                    (100, "7a", "7b"),
                    (200, "7b", "7b"),
                    (5000, "7b", "7b"),
                ],
            ),
            (
                "deleted and created again",
                "7a",
                &[(0, "", ""), (100, "8a", "8a"), (200, "", "")],
            ),
            (
                "again and again: absent, never with an old ifindex",
                "7a",
                &[
                    (0, "8a", "8a"),
                    (100, "9a", "9a"),
                    (200, "10a", "10a"),
                    (300, "11a", ""),
                    (1900, "12a", ""),
                    (2000, "12a", "12a"),
                    (2100, "", ""),
                    (2200, "13a", ""),
                ],
            ),
            (
                "a workload that lives for a second, and comes again",
                "",
                &[
                    (0, "7a", "7a"),
                    (20, "7b", "7b"),
                    (40, "7c", "7c"),
                    (900, "", ""),
                    (950, "8a", "8a"),
                    (960, "8b", "8b"),
                ],
            ),
            (
                "a new one is moved, named and set up",
                "",
                &[
                    (0, "7a", "7a"),
                    (20, "7b", "7b"),
                    (40, "7c", "7c"),
                    (60, "7d", "7c"),
                    (1000, "7d", "7d"),
                ],
            ),
            (
                "deleted while its facts are held back",
                "7a",
                &[(0, "7b", "7b"), (100, "7c", "7b"), (200, "", "")],
            ),
        ];
        for (what, before, looks) in rows {
            let start = Instant::now() + 2 * START;
            let mut held = settled(before, start);
            for (at, seen, expected) in looks {
                let now = start + Duration::from_millis(*at);
                let view = held.look(host(&[("va", seen)]), now);
                assert_eq!(
                    view.links.get("va").cloned(),
                    link(expected),
                    "{what}, {at} ms"
                );
                let is_held = link(seen) != link(expected);
                assert_eq!(held.next_look().is_some(), is_held, "{what}, {at} ms");
                assert!(
                    held.next_look().is_none_or(|next| next > now),
                    "{what}, {at} ms"
                );
            }
        }
    }

    #[test]
    fn a_flap_makes_one_change_a_second_and_delays_nobody() {
        let start = Instant::now() + 2 * START;
        // (what it is at odd looks, changes in ten seconds at most)
        for (other, most) in [("7b", 11), ("", 14), ("8a", 14)] {
            let mut held = settled("7a", start);
            let (mut changes, mut last) = (0, link("7a"));
            for tick in 0..200u32 {
                let now = start + Duration::from_millis(50) * tick;
                let joiner = format!("{}a", 100 + tick);
                let name = format!("vb{tick}");
                let seen = if tick % 2 == 0 { other } else { "7a" };
                let view = held.look(host(&[("va", seen), (&name, &joiner)]), now);
                assert!(
                    view.links.contains_key(&name),
                    "{other}: a joiner is followed at once"
                );
                let now = view.links.get("va").cloned();
                changes += u32::from(now != last);
                last = now;
            }
            assert!((9..=most).contains(&changes), "{other}: {changes}");
            assert!(held.links.len() < 90, "what is gone is forgotten");
            // Once it rests, what it is.
            let next = held.next_look();
            let rest = next.unwrap_or(start + START);
            let view = held.look(
                host(&[("va", "7a")]),
                rest.max(start + Duration::from_secs(15)),
            );
            assert_eq!(view.links.get("va").cloned(), link("7a"));
        }
    }

    #[test]
    fn routes_to_the_host_are_followed_once_a_second() {
        let start = Instant::now();
        let seen = |prefix: &str| HostState {
            local_prefixes: [prefix.parse().unwrap()].into(),
            ..HostState::default()
        };
        let mut held = HeldHost::default();
        let rows = [
            (0, "10.0.0.0/24", "10.0.0.0/24"),
            (100, "10.0.1.0/24", "10.0.0.0/24"),
            (1000, "10.0.1.0/24", "10.0.1.0/24"),
        ];
        for (at, prefix, expected) in rows {
            let view = held.look(seen(prefix), start + Duration::from_millis(at));
            assert_eq!(view, seen(expected), "{at}");
        }
    }

    #[test]
    fn the_host_has_the_addresses_of_its_interfaces_as_they_are_held() {
        let start = Instant::now();
        let with = |address: &str| {
            let mut host = host(&[("va", "7a")]);
            host.addresses = [address.parse().unwrap()].into();
            host.links.get_mut("va").unwrap().addresses = host.addresses.clone();
            host
        };
        let mut held = HeldHost::default();
        for (at, address, expected) in [
            (0, "10.0.0.1", "10.0.0.1"),
            (5000, "10.0.0.2", "10.0.0.2"),
            (5100, "10.0.0.3", "10.0.0.2"),
        ] {
            let view = held.look(with(address), start + Duration::from_millis(at));
            assert_eq!(view, with(expected), "{at}");
        }
    }
}

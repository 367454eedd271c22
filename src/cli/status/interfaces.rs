//! The interfaces, and how dpd's programs are attached to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::bpf::attach::hook::{Hook, XDP_ENTRY};
use crate::model::announce::{Announcement, AnnouncementState};
use crate::model::catalog::{Catalog, UplinkInfo};
use crate::model::status::Attachment;
use crate::model::xdp::XdpMode;

#[derive(Debug, Serialize)]
pub(super) struct InterfaceStatus {
    pub interface: String,
    pub ifindex: Option<u32>,
    /// `endpoint` or `uplink`; `None` without a datapath.
    pub role: Option<&'static str>,
    /// The `xdp` key of an uplink.
    pub xdp: Option<&'static str>,
    /// Where an uplink has the prefilter: `xdp` or `tc`; `None`: nowhere, or it has no prefixes.
    pub prefilter: Option<&'static str>,
    /// The way by which packets leave by an uplink: `direct` or `stack`.
    pub forwarding: Option<&'static str>,
    /// Why; `None` if nothing is in the way of the direct one.
    pub forwarding_reason: Option<String>,
    /// What an uplink answers for on its link, or is to; empty without `l2_announce`.
    pub announcements: Vec<AnnouncementStatus>,
    /// `attached`, `detached` or `pending`.
    pub state: &'static str,
    pub attachments: Vec<Attachment>,
}

/// An address that an uplink announces, or is to announce.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AnnouncementStatus {
    pub address: IpAddr,
    /// `announced`, `probing` or `conflict`.
    pub state: AnnouncementState,
    /// The MAC address of who has it, in a conflict.
    pub defender: Option<String>,
}

impl InterfaceStatus {
    fn named(interface: &str, state: &'static str) -> InterfaceStatus {
        InterfaceStatus {
            interface: interface.to_owned(),
            ifindex: None,
            role: None,
            xdp: None,
            prefilter: None,
            forwarding: None,
            forwarding_reason: None,
            announcements: Vec::new(),
            state,
            attachments: Vec::new(),
        }
    }

    /// `tcx ingress, egress; native xdp`
    pub fn attached(&self) -> String {
        let mut by_mechanism: Vec<(&str, Vec<&str>)> = Vec::new();
        for at in self.attachments.iter().filter(|at| at.hook != "xdp") {
            match by_mechanism.iter_mut().find(|(by, _)| *by == at.mechanism) {
                Some((_, hooks)) => hooks.push(&at.hook),
                None => by_mechanism.push((&at.mechanism, vec![&at.hook])),
            }
        }
        let xdp = self.attachments.iter().filter(|at| at.hook == "xdp");
        by_mechanism.extend(xdp.map(|at| (at.mechanism.as_str(), vec![at.hook.as_str()])));
        let texts = by_mechanism.iter();
        let texts: Vec<String> = texts
            .map(|(mechanism, hooks)| format!("{mechanism} {}", hooks.join(", ")))
            .collect();
        texts.join("; ")
    }

    /// `ingress: probe`
    pub fn other_programs_first(&self) -> String {
        let attachments = self.attachments.iter();
        let with = attachments.filter(|at| !at.other_programs_first.is_empty());
        let texts: Vec<String> = with
            .map(|at| format!("{}: {}", at.hook, at.other_programs_first.join(", ")))
            .collect();
        texts.join("; ")
    }

    /// `ens5: forwarding stack: nftables inet filter/forward has rules`
    pub fn forwarding_line(&self) -> Option<String> {
        let line = format!("{}: forwarding {}", self.interface, self.forwarding?);
        Some(match &self.forwarding_reason {
            Some(reason) => format!("{line}: {reason}"),
            None => line,
        })
    }

    /// `ens5: l2_announce: 2 announced, 1 probing, 1 in conflict (203.0.113.10 is at 02:00:00:00:00:0b)`
    pub fn announcements_line(&self) -> Option<String> {
        let mut texts = Vec::new();
        for (state, words) in [
            (AnnouncementState::Announced, "announced"),
            (AnnouncementState::Probing, "probing"),
            (AnnouncementState::Conflict, "in conflict"),
        ] {
            let rows = self.announcements.iter();
            match rows.filter(|row| row.state == state).count() {
                0 => {}
                count => texts.push(format!("{count} {words}")),
            }
        }
        let mut rows = self.announcements.iter();
        let first = rows.find_map(|row| Some((row.address, row.defender.as_ref()?)));
        let first = first.map(|(address, mac)| format!(" ({address} is at {mac})"));
        (!texts.is_empty()).then(|| {
            let (name, texts) = (&self.interface, texts.join(", "));
            format!("{name}: l2_announce: {texts}{}", first.unwrap_or_default())
        })
    }

    /// `wg0: prefilter at tc ingress, since it has no Ethernet headers`
    pub fn prefilter_line(&self) -> Option<String> {
        let interface = &self.interface;
        (self.prefilter == Some("tc")).then(|| {
            format!("{interface}: prefilter at tc ingress, since it has no Ethernet headers")
        })
    }

    /// The order on the screen: first those with a problem, then the uplinks.
    pub fn rank(&self) -> (bool, bool, &str) {
        let mut attachments = self.attachments.iter();
        let is_well =
            self.state == "attached" && attachments.all(|at| at.other_programs_first.is_empty());
        (is_well, self.role != Some("uplink"), &self.interface)
    }
}

/// The pending interfaces, by the daemon's status.
pub(super) fn pending(interfaces: &[String]) -> Vec<InterfaceStatus> {
    let names = interfaces.iter();
    names
        .map(|name| InterfaceStatus::named(name, "pending"))
        .collect()
}

/// The interfaces of the catalog, and any other that has dpd's programs.
pub(super) fn all(catalog: &Catalog, attachments: Vec<Attachment>) -> Vec<InterfaceStatus> {
    let mut by_name: BTreeMap<String, InterfaceStatus> = BTreeMap::new();
    for (name, ifindex) in catalog.interfaces() {
        let uplink = catalog.uplinks.get(name);
        let state = match ifindex {
            Some(_) => "detached",
            None => "pending",
        };
        let status = InterfaceStatus {
            ifindex,
            role: Some(uplink.map_or("endpoint", |_| "uplink")),
            xdp: uplink.map(|uplink| uplink.xdp.name()),
            forwarding: uplink.map(|uplink| uplink.forwarding.name()),
            forwarding_reason: uplink
                .map(|uplink| uplink.forwarding_reason.clone())
                .filter(|reason| !reason.is_empty()),
            announcements: uplink.map(announced).unwrap_or_default(),
            ..InterfaceStatus::named(name, state)
        };
        by_name.insert(name.to_owned(), status);
    }
    for attachment in attachments {
        let status = by_name
            .entry(attachment.interface.clone())
            .or_insert_with(|| InterfaceStatus::named(&attachment.interface, "attached"));
        status.ifindex = Some(attachment.ifindex);
        status.state = "attached";
        status.prefilter = status
            .prefilter
            .or_else(|| prefilter_by(catalog, &attachment));
        status.attachments.push(attachment);
    }
    by_name.into_values().collect()
}

/// What the tables say of an uplink.
fn announced(uplink: &UplinkInfo) -> Vec<AnnouncementStatus> {
    let announced = uplink.announced.iter().flatten();
    let rows = announced.map(|address| AnnouncementStatus {
        address: *address,
        state: AnnouncementState::Announced,
        defender: None,
    });
    rows.collect()
}

/// What the daemon knows beyond the tables: the addresses that are not announced, and why.
pub(super) fn add_announcements(interfaces: &mut [InterfaceStatus], known: &[Announcement]) {
    for row in known {
        let Some(status) = interfaces
            .iter_mut()
            .find(|status| status.interface == row.interface)
        else {
            continue;
        };
        let others = &mut status.announcements;
        others.retain(|other| other.address != row.address);
        others.push(AnnouncementStatus {
            address: row.address,
            state: row.state,
            defender: row.defender.clone(),
        });
        others.sort_by_key(|other| other.address);
    }
}

/// Where this program has the prefilter, if it has it.
fn prefilter_by(catalog: &Catalog, attachment: &Attachment) -> Option<&'static str> {
    if catalog.prefilter.is_empty() {
        return None;
    }
    if attachment.program == XDP_ENTRY.program {
        return Some("xdp");
    }
    let uplink = catalog.uplinks.get(&attachment.interface)?;
    let is_at_tc = attachment.program == Hook::FromL3dev.name() && uplink.xdp != XdpMode::Off;
    is_at_tc.then_some("tc")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::{EndpointInfo, PrefilterInfo, UplinkInfo};

    #[test]
    fn interfaces_of_the_catalog_and_others() {
        let endpoint = |ifindex| EndpointInfo {
            ifindex,
            identity: 1,
            addresses: Default::default(),
            row: 1,
        };
        let catalog = Catalog {
            endpoints: [("a", Some(1)), ("b", Some(2)), ("c", None)]
                .map(|(name, ifindex)| (name.to_owned(), endpoint(ifindex)))
                .into(),
            ..Catalog::default()
        };
        let attached = ["a", "z"].map(|name| Attachment {
            interface: name.to_owned(),
            ifindex: 9,
            ..Attachment::default()
        });
        let states: Vec<(String, &str)> = all(&catalog, attached.into())
            .into_iter()
            .map(|status| (status.interface, status.state))
            .collect();
        let expected = [
            ("a", "attached"),
            ("b", "detached"),
            ("c", "pending"),
            ("z", "attached"),
        ];
        assert_eq!(
            states,
            expected.map(|(name, state)| (name.to_owned(), state))
        );
    }

    #[test]
    fn where_an_uplink_has_the_prefilter() {
        let rows = [
            ("dpd_xdp_entry", XdpMode::Auto, true, Some("xdp")),
            ("dpd_from_netdev", XdpMode::Off, true, None),
            ("dpd_from_l3dev", XdpMode::Auto, true, Some("tc")),
            ("dpd_from_l3dev", XdpMode::Off, true, None),
            ("dpd_from_l3dev", XdpMode::Auto, false, None),
        ];
        for (program, xdp, has_prefixes, expected) in rows {
            let uplink = UplinkInfo {
                ifindex: Some(2),
                is_ethernet: program != "dpd_from_l3dev",
                xdp,
                forwarding: Default::default(),
                forwarding_reason: String::new(),
                masquerade: Default::default(),
                announced: Default::default(),
            };
            let denied = PrefilterInfo {
                table: "abusers".to_owned(),
                prefix: "203.0.113.0/24".parse().unwrap(),
            };
            let catalog = Catalog {
                uplinks: [("wg0".to_owned(), uplink)].into(),
                prefilter: has_prefixes.then_some((1, denied)).into_iter().collect(),
                ..Catalog::default()
            };
            let attachment = Attachment {
                interface: "wg0".to_owned(),
                program: program.to_owned(),
                ..Attachment::default()
            };
            let all = all(&catalog, vec![attachment]);
            assert_eq!(all[0].prefilter, expected, "{program}, {xdp:?}");
            assert_eq!(all[0].prefilter_line().is_some(), expected == Some("tc"));
        }
    }
}

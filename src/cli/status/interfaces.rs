//! The interfaces, with how our programs are attached to them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::catalog::Catalog;
use crate::model::status::Attachment;

#[derive(Debug, Serialize)]
pub(super) struct InterfaceStatus {
    pub interface: String,
    pub ifindex: Option<u32>,
    /// `endpoint` or `uplink`; `None` without a datapath to say so.
    pub role: Option<&'static str>,
    /// How an uplink is to have XDP, in the file's words.
    pub xdp: Option<&'static str>,
    /// `attached`, `detached` or `waiting`.
    pub state: &'static str,
    pub attachments: Vec<Attachment>,
}

impl InterfaceStatus {
    fn named(interface: &str, state: &'static str) -> InterfaceStatus {
        InterfaceStatus {
            interface: interface.to_owned(),
            ifindex: None,
            role: None,
            xdp: None,
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
    pub fn ahead(&self) -> String {
        let with = self.attachments.iter().filter(|at| !at.ahead.is_empty());
        let texts: Vec<String> = with
            .map(|at| format!("{}: {}", at.hook, at.ahead.join(", ")))
            .collect();
        texts.join("; ")
    }

    /// What a glance should fall on comes first: what is not as it should be, then the uplinks.
    pub fn rank(&self) -> (bool, bool, &str) {
        let is_well =
            self.state == "attached" && self.attachments.iter().all(|at| at.ahead.is_empty());
        (is_well, self.role != Some("uplink"), &self.interface)
    }
}

/// The interfaces that the daemon waits for.
pub(super) fn waiting(interfaces: &[String]) -> Vec<InterfaceStatus> {
    let names = interfaces.iter();
    names
        .map(|name| InterfaceStatus::named(name, "waiting"))
        .collect()
}

/// The interfaces of the catalog, and any other that carries programs of ours.
pub(super) fn all(catalog: &Catalog, attachments: Vec<Attachment>) -> Vec<InterfaceStatus> {
    let mut by_name: BTreeMap<String, InterfaceStatus> = BTreeMap::new();
    for (name, ifindex) in catalog.interfaces() {
        let uplink = catalog.uplinks.get(name);
        let state = match ifindex {
            Some(_) => "detached",
            None => "waiting",
        };
        let status = InterfaceStatus {
            ifindex,
            role: Some(uplink.map_or("endpoint", |_| "uplink")),
            xdp: uplink.map(|uplink| uplink.xdp.name()),
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
        status.attachments.push(attachment);
    }
    by_name.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::EndpointInfo;

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
            ("c", "waiting"),
            ("z", "attached"),
        ];
        assert_eq!(
            states,
            expected.map(|(name, state)| (name.to_owned(), state))
        );
    }
}

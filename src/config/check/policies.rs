//! `[policies.*]`: subjects and rules.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Fields, for_each_repeat, values};
use super::identities;
use crate::config::checked::{Policy, Rule};
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Files, Located, Span};
use crate::config::suggest::did_you_mean;
use crate::config::tree::{Data, NamedTable, Table, Value};
use crate::config::{name, value};
use crate::model::policy::{Action, Direction, Peer};

pub(super) fn read(root: &Table, files: &Files, report: &mut Report) -> BTreeMap<String, Policy> {
    let labels = labels(root);
    let context = Context {
        root,
        files,
        labels,
    };
    let mut policies = BTreeMap::new();
    for policy in root.named("policies") {
        let checked = context.policy(&policy, report);
        policies.insert(policy.name.to_owned(), checked);
    }
    policies
}

/// What rules can refer to.
struct Context<'a> {
    root: &'a Table<'a>,
    files: &'a Files<'a>,
    /// Every label of an identity.
    labels: BTreeSet<&'a str>,
}

fn labels<'t>(root: &'t Table) -> BTreeSet<&'t str> {
    let identities = root.named("identities");
    let lists = identities.filter_map(|identity| identity.table.list("labels"));
    let labels = lists
        .flat_map(|list| list.value)
        .filter_map(|label| match &label.data {
            Data::Text(text) => Some(&**text),
            _ => None,
        });
    labels.collect()
}

impl Context<'_> {
    fn policy(&self, policy: &NamedTable, report: &mut Report) -> Policy {
        if let Err(wrong) = name::name(policy.name) {
            report.wrong(policy.key, wrong);
        }
        let section = Path::ROOT.key("policies");
        let path = section.key(policy.name);
        let subject = policy.table.text("subject");
        if let Some(name) = subject {
            identities::check_name(self.root, name, &[], report);
        }
        let has_rules = ["ingress", "egress"]
            .iter()
            .any(|key| policy.table.has(key));
        if !has_rules {
            report
                .error(
                    policy.span,
                    format!("`{path}` has neither `ingress` nor `egress`, and so has no effect"),
                )
                .help("add rules, or `ingress = []` to let nothing in");
        }
        Policy {
            subject: subject
                .map(|name| name.value.to_owned())
                .unwrap_or_default(),
            ingress: self.rules(path, policy.table, Direction::Ingress, report),
            egress: self.rules(path, policy.table, Direction::Egress, report),
        }
    }

    fn rules(
        &self,
        path: Path,
        policy: &Table,
        direction: Direction,
        report: &mut Report,
    ) -> Option<Vec<Rule>> {
        let key = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let list = policy.list(key)?.value;
        let path = path.key(key);
        let rules = list
            .iter()
            .enumerate()
            .filter_map(|(index, item)| self.rule(path.item(index), item, direction, report));
        Some(rules.collect())
    }

    fn rule(
        &self,
        path: Path,
        item: &Value,
        direction: Direction,
        report: &mut Report,
    ) -> Option<Rule> {
        let Data::Table(table) = &item.data else {
            return None;
        };
        let peers_key = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let mut fields = Fields::new(path, table, report);
        let peers = fields
            .parsed_list(peers_key, value::peer)
            .unwrap_or_default();
        let ports = fields
            .parsed_list("ports", value::ports)
            .unwrap_or_default();
        let action = fields.word(
            "action",
            &[("allow", Action::Allow), ("deny", Action::Deny)],
            Action::Allow,
        );
        fields.refuse_empty(peers_key, "for all peers, write [\"any\"]");
        fields.refuse_empty("ports", "for all traffic, omit `ports`");
        for_each_repeat(&peers, Peer::clone, |first, again| {
            warn_twice(&again.value, again.span, first, report)
        });
        for_each_repeat(
            &ports,
            |ports| *ports,
            |first, again| warn_twice(&again.value, again.span, first, report),
        );
        for peer in &peers {
            self.check_peer(peer, report);
        }
        Some(Rule {
            peers: values(peers),
            ports: values(ports),
            action,
            location: self.files.location(item.span),
        })
    }

    /// A peer that matches nothing is a mistake: a `deny` of it would have no effect.
    fn check_peer(&self, peer: &Located<Peer>, report: &mut Report) {
        match &peer.value {
            Peer::Identity(name) => {
                let name = Located {
                    value: name.as_str(),
                    span: peer.span,
                };
                identities::check_name(self.root, name, &name::RESERVED, report);
            }
            Peer::Label { key, value } => {
                let label = format!("{key}={value}");
                if !self.labels.contains(label.as_str()) {
                    let help =
                        did_you_mean(&label, self.labels.iter().copied()).unwrap_or_else(|| {
                            format!(
                                "add {label:?} to the `labels` of the identities that are meant"
                            )
                        });
                    report
                        .error(
                            peer.span,
                            format!("no identity carries the label {label:?}"),
                        )
                        .help(help);
                }
            }
            Peer::Any | Peer::Host | Peer::RemoteNode | Peer::World | Peer::Cidr(_) => {}
        }
    }
}

fn warn_twice(what: &impl std::fmt::Display, again: Span, first: Span, report: &mut Report) {
    report
        .warning(again, format!("`{what}` appears twice in this rule"))
        .note(first, "first given here");
}

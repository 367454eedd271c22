//! `[policies.*]`: subjects and rules.

use std::collections::BTreeMap;

use super::fields::{Fields, for_each_repeat, values};
use super::identities;
use crate::config::checked::{Policy, Rule};
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Files, Located, Span};
use crate::config::suggest::did_you_mean;
use crate::config::tree::{Data, NamedTable, Table, Value};
use crate::config::{name, value};
use crate::model::policy::{Action, Direction, Peer, Ports, ROWS_MAX, port_prefixes};

pub(super) fn read(root: &Table, files: &Files, report: &mut Report) -> BTreeMap<String, Policy> {
    let labels = labels(root);
    let context = Context {
        root,
        files,
        labels,
    };
    let mut policies = BTreeMap::new();
    let mut rows = Rows::default();
    for policy in root.named("policies") {
        let checked = context.policy(&policy, report);
        context.count_rows(&policy, &checked, &mut rows, report);
        policies.insert(policy.name.to_owned(), checked);
    }
    policies
}

/// What rules can refer to.
struct Context<'a> {
    root: &'a Table<'a>,
    files: &'a Files<'a>,
    /// Every label of an identity, with the number of identities that carry it.
    labels: BTreeMap<&'a str, usize>,
}

/// The rows that rules make of the policy table.
#[derive(Default)]
struct Rows {
    count: usize,
    is_reported: bool,
}

fn labels<'t>(root: &'t Table) -> BTreeMap<&'t str, usize> {
    let identities = root.named("identities");
    let lists = identities.filter_map(|identity| identity.table.list("labels"));
    let labels = lists
        .flat_map(|list| list.value)
        .filter_map(|label| match &label.data {
            Data::Text(text) => Some(&**text),
            _ => None,
        });
    let mut carriers = BTreeMap::new();
    labels.for_each(|label| *carriers.entry(label).or_default() += 1);
    carriers
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

    /// Reports the first rule with which there are too many rows: a label stands for each identity that carries it, and a range
    /// of ports for up to 30 rows.
    fn count_rows(
        &self,
        policy: &NamedTable,
        checked: &Policy,
        rows: &mut Rows,
        report: &mut Report,
    ) {
        for (key, rules) in [("ingress", &checked.ingress), ("egress", &checked.egress)] {
            let items = policy.table.list(key).map_or(&[][..], |list| list.value);
            // A rule that is wrong is missing, and reported.
            for (rule, item) in rules.iter().flatten().zip(items) {
                let (peers, ports) = (self.peer_rows(rule), port_rows(rule));
                rows.count = rows.count.saturating_add(peers.saturating_mul(ports));
                if rows.count > ROWS_MAX && !std::mem::replace(&mut rows.is_reported, true) {
                    let message = format!(
                        "this rule makes {} rows of the policy table ({peers} peers, {ports} prefixes of ports), and with those before it there are {}: more than {ROWS_MAX}",
                        peers.saturating_mul(ports),
                        rows.count
                    );
                    let help = "a label stands for every identity that carries it: give the identities one identity, or name their prefixes as `cidr:`";
                    report.error(item.span, message).help(help);
                }
            }
        }
    }

    fn peer_rows(&self, rule: &Rule) -> usize {
        let rows = |peer: &Peer| match peer {
            Peer::Label { key, value } => {
                let carriers = self.labels.get(format!("{key}={value}").as_str());
                carriers.copied().unwrap_or_default()
            }
            Peer::Cidr(_) => 0,
            _ => 1,
        };
        // Prefixes that the same rules name share their rows.
        let has_cidr = rule.peers.iter().any(|peer| matches!(peer, Peer::Cidr(_)));
        rule.peers.iter().map(rows).sum::<usize>() + usize::from(has_cidr)
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
                if !self.labels.contains_key(label.as_str()) {
                    let help =
                        did_you_mean(&label, self.labels.keys().copied()).unwrap_or_else(|| {
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

fn port_rows(rule: &Rule) -> usize {
    let rows = |ports: &Ports| {
        let (first, last) = ports.range.unwrap_or((0, u16::MAX));
        port_prefixes(first, last).len()
    };
    rule.ports.iter().map(rows).sum::<usize>().max(1)
}

fn warn_twice(what: &impl std::fmt::Display, again: Span, first: Span, report: &mut Report) {
    report
        .warning(again, format!("`{what}` appears twice in this rule"))
        .note(first, "first given here");
}

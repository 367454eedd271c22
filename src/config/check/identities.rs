//! `[identities.*]`: ids, labels and remote prefixes, and the references to identities in other tables.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::fields::{Fields, refuse_repeats, values};
use crate::config::checked::Identity;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::suggest::did_you_mean;
use crate::config::tree::Table;
use crate::config::{name, value};
use crate::model::prefix;

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, Identity> {
    let mut identities = BTreeMap::new();
    let mut ids: BTreeMap<u32, (Span, &str)> = BTreeMap::new();
    let mut taken = BTreeMap::new();
    for identity in root.named("identities") {
        if let Err(wrong) = name::identity_name(identity.name) {
            report.wrong(identity.key, wrong);
        }
        let section = Path::ROOT.key("identities");
        let mut fields = Fields::new(section.key(identity.name), identity.table, report);
        let id = fields.number("id", 256..=65535, 0);
        let labels = fields
            .parsed_list("labels", name::label)
            .unwrap_or_default();
        let cidrs = fields
            .parsed_list("cidrs", value::prefix)
            .unwrap_or_default();
        refuse_repeats(&labels, |(key, _)| format!("the label `{key}`"), report);
        for cidr in &cidrs {
            claim(&mut taken, cidr, identity.name, report);
        }
        if let Some(span) = identity.table.number("id").map(|id| id.span)
            && id != 0
            && let Some((first, other)) = ids.insert(id, (span, identity.name))
        {
            report
                .error(span, format!("the id {id} already belongs to `{other}`"))
                .note(first, "first given here")
                .help("an id belongs to one identity: choose another");
        }
        let (labels, cidrs) = (values(labels), values(cidrs));
        identities.insert(identity.name.to_owned(), Identity { id, labels, cidrs });
    }
    identities
}

/// Reports a prefix that is given twice. Nested prefixes are fine: the longest decides.
fn claim<'t>(
    taken: &mut BTreeMap<IpNet, (Span, &'t str)>,
    cidr: &Located<IpNet>,
    identity: &'t str,
    report: &mut Report,
) {
    if let Some((first, other)) = taken.get(&cidr.value) {
        let message = format!(
            "{} already belongs to the identity `{other}`",
            prefix::text(cidr.value)
        );
        report
            .error(cidr.span, message)
            .note(*first, "first given here")
            .help("an address has one identity: remove one of the two");
    } else {
        taken.insert(cidr.value, (cidr.span, identity));
    }
}

/// Reports a reference to an unknown identity. `also` are other words that are valid there.
pub(super) fn check_name(root: &Table, name: Located<&str>, also: &[&str], report: &mut Report) {
    let is_known = root
        .table("identities")
        .is_some_and(|table| table.has(name.value));
    if is_known {
        return;
    }
    if name::RESERVED.contains(&name.value) {
        report
            .error(
                name.span,
                format!("`{}` can only be a peer of a rule", name.value),
            )
            .help("name one of the file's own identities here");
        return;
    }
    let known = root.named("identities").map(|identity| identity.name);
    let help = did_you_mean(name.value, known.chain(also.iter().copied()))
        .unwrap_or_else(|| format!("add a table [identities.{}]", table_key(name.value)));
    let message = format!("there is no identity {:?}", name.value);
    report.error(name.span, message).help(help);
}

/// A name as it is written in the header of a table.
fn table_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match name.chars().all(is_bare) && !name.is_empty() {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

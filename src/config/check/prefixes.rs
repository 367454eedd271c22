//! Prefixes and addresses that are somebody's: which of them overlap, and whose one is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::report::{Parsed, Report};
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, Table, Value};
use crate::config::value;

/// A prefix and the table that it stands in.
pub(super) struct Owned<'t> {
    pub prefix: IpNet,
    pub owner: &'t str,
    pub span: Span,
}

/// Prefixes of one kind. In their order an outer one comes before all that lie in it.
pub(super) struct Prefixes<'t>(BTreeMap<IpNet, Owned<'t>>);

impl<'t> Prefixes<'t> {
    /// Keeps the first of those that stand twice.
    pub fn new(owned: impl IntoIterator<Item = Owned<'t>>) -> Self {
        let mut prefixes = BTreeMap::new();
        for owned in owned {
            prefixes.entry(owned.prefix).or_insert(owned);
        }
        Prefixes(prefixes)
    }

    /// The longest that holds all of `prefix`.
    pub fn around(&self, prefix: IpNet) -> Option<&Owned<'t>> {
        let mut around = std::iter::successors(Some(prefix), IpNet::supernet);
        around.find_map(|prefix| self.0.get(&prefix))
    }

    /// The first that lies in `prefix`.
    pub fn inside(&self, prefix: IpNet) -> Option<&Owned<'t>> {
        let (first, owned) = self.0.range(prefix..).next()?;
        prefix.contains(first).then_some(owned)
    }
}

/// Reports each prefix that overlaps another owner's. `kind` is what the owners are.
pub(super) fn check_overlaps(kind: &str, owned: &mut [Owned], report: &mut Report) {
    owned.sort_by_key(|owned| (owned.prefix, owned.span));
    let mut around: Vec<&Owned> = Vec::new();
    for inner in owned.iter() {
        while around
            .pop_if(|outer| !outer.prefix.contains(&inner.prefix))
            .is_some()
        {}
        if let Some(&outer) = around.last()
            && outer.owner != inner.owner
        {
            report_overlap(kind, outer, inner, report);
        }
        around.push(inner);
    }
}

fn report_overlap(kind: &str, outer: &Owned, inner: &Owned, report: &mut Report) {
    // The later of the two in the file is the one that is wrong.
    let (first, second) = match outer.span < inner.span {
        true => (outer, inner),
        false => (inner, outer),
    };
    let owner = first.owner;
    let (this, other) = (
        value::prefix_text(second.prefix),
        value::prefix_text(first.prefix),
    );
    let message = match this == other {
        true => format!("{this} is the {kind} `{owner}`'s already"),
        false => format!("{this} overlaps {other} of the {kind} `{owner}`"),
    };
    report
        .error(second.span, message)
        .note(first.span, "first given here");
}

/// What every table `[TABLES.NAME]` has in its list `key`. Texts that mean nothing are left out: they are reported
/// where the table is read.
pub(super) fn owned<'t>(
    root: &'t Table,
    tables: &str,
    key: &str,
    parse: impl Fn(&str) -> Parsed<IpNet>,
) -> Vec<Owned<'t>> {
    let mut all = Vec::new();
    for named in root.named(tables) {
        let list = named.table.list(key).map_or(&[][..], |list| list.value);
        all.extend(located(list, |text| parse(text).ok()).map(|item| Owned {
            prefix: item.value,
            owner: named.name,
            span: item.span,
        }));
    }
    all
}

/// An address as a prefix of full length.
pub(super) fn whole(address: Parsed<IpAddr>) -> Parsed<IpNet> {
    address.map(IpNet::from)
}

pub(super) fn located<T>(
    list: &[Value],
    parse: impl Fn(&str) -> Option<T>,
) -> impl Iterator<Item = Located<T>> {
    list.iter().filter_map(move |item| match &item.data {
        Data::Text(text) => parse(text).map(|value| Located {
            value,
            span: item.span,
        }),
        _ => None,
    })
}

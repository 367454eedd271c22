//! Prefixes with owners: overlaps, and the owner of an address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, Table, Value};
use crate::config::wrong::Parsed;
use crate::model::prefix;

/// A prefix and the name of the table that it is in.
pub(super) struct Owned<'t> {
    pub prefix: IpNet,
    pub owner: &'t str,
    pub span: Span,
}

/// Prefixes of one kind, each once, sorted: an outer prefix precedes all prefixes inside it.
pub(super) struct Prefixes<'t>(Vec<Nested<'t>>);

struct Nested<'t> {
    owned: Owned<'t>,
    /// The index of the longest prefix around this one.
    outer: Option<usize>,
}

impl<'t> Prefixes<'t> {
    /// Of equal prefixes the first is kept.
    pub fn new(mut owned: Vec<Owned<'t>>) -> Self {
        // The sort is stable.
        owned.sort_by_key(|owned| owned.prefix);
        owned.dedup_by_key(|owned| owned.prefix);
        let mut prefixes = Prefixes(Vec::with_capacity(owned.len()));
        for owned in owned {
            let outer = prefixes.last_around(prefixes.0.len(), owned.prefix);
            prefixes.0.push(Nested { owned, outer });
        }
        prefixes
    }

    /// The longest that contains `prefix`.
    pub fn around(&self, prefix: IpNet) -> Option<&Owned<'t>> {
        let end = self.0.partition_point(|at| at.owned.prefix <= prefix);
        let found = self.last_around(end, prefix)?;
        Some(&self.0[found].owned)
    }

    /// The first inside `prefix`.
    pub fn inside(&self, prefix: IpNet) -> Option<&Owned<'t>> {
        let start = self.0.partition_point(|at| at.owned.prefix < prefix);
        let first = &self.0.get(start)?.owned;
        prefix.contains(&first.prefix).then_some(first)
    }

    /// The same among the first `end`, none of which sorts after `prefix`: a prefix that contains it is the last of them, or
    /// contains that one too.
    fn last_around(&self, end: usize, prefix: IpNet) -> Option<usize> {
        let outer = |at: &usize| self.0[*at].outer;
        let mut around = std::iter::successors(end.checked_sub(1), outer);
        around.find(|at| self.0[*at].owned.prefix.contains(&prefix))
    }
}

/// Reports each prefix that overlaps one of another owner. `kind` is the kind of the owners.
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
    // The later of the two in the file is reported.
    let (first, second) = match outer.span < inner.span {
        true => (outer, inner),
        false => (inner, outer),
    };
    let owner = first.owner;
    let (this, other) = (prefix::text(second.prefix), prefix::text(first.prefix));
    let message = match this == other {
        true => format!("{this} already belongs to the {kind} `{owner}`"),
        false => format!("{this} overlaps {other} of the {kind} `{owner}`"),
    };
    report
        .error(second.span, message)
        .note(first.span, "first given here");
}

/// The values of the list `key` in every table `[TABLES.NAME]`. Invalid texts are skipped: they are reported where the table is
/// read.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn prefixes<'t>(texts: &'t [&'t str]) -> Prefixes<'t> {
        let owned = texts.iter().enumerate().map(|(at, owner)| Owned {
            prefix: net(owner.split(' ').next().unwrap()),
            owner,
            span: Span::new(0, at..at),
        });
        Prefixes::new(owned.collect())
    }

    #[test]
    fn finds_prefixes_around_and_inside() {
        let all = prefixes(&[
            "10.1.2.0/24",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.128/25",
            "10.1.2.0/24 again",
            "10.200.0.1/32",
            "0.0.0.0/1",
            "fd00::/8",
            "fd00::1/128",
        ]);
        let rows = [
            // (prefix, around it, inside it)
            ("10.1.2.129/32", Some("10.1.2.128/25"), None),
            (
                "10.1.2.128/25",
                Some("10.1.2.128/25"),
                Some("10.1.2.128/25"),
            ),
            ("10.1.2.0/25", Some("10.1.2.0/24"), None),
            ("10.1.2.0/24", Some("10.1.2.0/24"), Some("10.1.2.0/24")),
            ("10.1.3.0/24", Some("10.1.0.0/16"), None),
            ("10.200.0.2/32", Some("10.0.0.0/8"), None),
            ("10.200.0.0/16", Some("10.0.0.0/8"), Some("10.200.0.1/32")),
            ("11.0.0.0/8", Some("0.0.0.0/1"), None),
            ("0.0.0.0/0", None, Some("0.0.0.0/1")),
            ("192.0.2.1/32", None, None),
            ("fd00::2/128", Some("fd00::/8"), None),
            ("fd00::/127", Some("fd00::/8"), Some("fd00::1/128")),
            ("2001:db8::1/128", None, None),
            ("::/0", None, Some("fd00::/8")),
        ];
        for (prefix, around, inside) in rows {
            let owner = |found: Option<&Owned<'static>>| found.map(|owned| owned.owner);
            assert_eq!(owner(all.around(net(prefix))), around, "around {prefix}");
            assert_eq!(owner(all.inside(net(prefix))), inside, "inside {prefix}");
        }
    }

    #[test]
    fn an_empty_list_has_none_around_or_inside() {
        assert!(prefixes(&[]).around(net("10.0.0.1/32")).is_none());
        assert!(prefixes(&[]).inside(net("0.0.0.0/0")).is_none());
    }
}

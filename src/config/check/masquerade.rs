//! `[masquerade]`: destinations that are not masqueraded.

use ipnet::IpNet;

use super::fields::{Fields, refuse_repeats, values};
use crate::config::checked::MasqueradeSettings;
use crate::config::report::Report;
use crate::config::source::Located;
use crate::config::tree::Table;
use crate::config::value;
use crate::model::families::Families;
use crate::model::prefix;

pub(super) fn read(root: &Table, report: &mut Report) -> MasqueradeSettings {
    let mut fields = Fields::section(root, "masquerade", report);
    let except = fields
        .parsed_list("except", value::prefix)
        .unwrap_or_default();
    refuse_repeats(&except, |prefix| prefix::text(*prefix), fields.report);
    warn_of_no_effect(&except, masqueraded(root), report);
    MasqueradeSettings {
        except: values(except),
    }
}

/// The families that some uplink masquerades; both if one has a word that there is not, which is reported elsewhere.
fn masqueraded(root: &Table) -> Families {
    let interfaces = root.named("interfaces");
    let words = interfaces.filter_map(|interface| interface.table.text("masquerade"));
    words.fold(Families::NONE, |all, word| {
        let named = Families::ALL.into_iter();
        let mut named = named.filter(|families| families.name() == word.value);
        all.union(named.next().unwrap_or(Families::BOTH))
    })
}

fn warn_of_no_effect(except: &[Located<IpNet>], masqueraded: Families, report: &mut Report) {
    let is_idle = |prefix: &&Located<IpNet>| !masqueraded.covers(prefix.value.addr());
    for prefix in except.iter().filter(is_idle) {
        let text = prefix::text(prefix.value);
        let (family, word) = match prefix.value.addr().is_ipv6() {
            true => ("IPv6", "ipv6"),
            false => ("IPv4", "ipv4"),
        };
        let message = format!("no uplink masquerades {family}: the exception {text} has no effect");
        report.warning(prefix.span, message).help(format!(
            "set `masquerade = \"{word}\"` or `\"both\"` on an uplink"
        ));
    }
}

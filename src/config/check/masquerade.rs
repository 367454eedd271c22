//! `[masquerade]`: what the uplinks' masquerade leaves out.

use super::fields::{Fields, refuse_repeats, values};
use crate::config::checked::MasqueradeSettings;
use crate::config::report::Report;
use crate::config::tree::Table;
use crate::config::value;
use crate::model::prefix;

pub(super) fn read(root: &Table, report: &mut Report) -> MasqueradeSettings {
    let mut fields = Fields::section(root, "masquerade", report);
    let except = fields
        .parsed_list("except", value::prefix)
        .unwrap_or_default();
    refuse_repeats(&except, |prefix| prefix::text(*prefix), fields.report);
    let masquerades = root.named("interfaces").any(|interface| {
        let families = interface.table.text("masquerade");
        families.is_some_and(|families| families.value != "none")
    });
    if let Some(first) = except.first().filter(|_| !masquerades) {
        let message = "no uplink masquerades: these exceptions have no effect";
        report
            .warning(first.span, message)
            .help("set `masquerade = \"ipv4\"`, `\"ipv6\"` or `\"both\"` on an uplink");
    }
    MasqueradeSettings {
        except: values(except),
    }
}

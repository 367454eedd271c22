//! Policy rules and their hits.

use anyhow::Result;

use super::facts::Facts;
use super::family::{Family, Page, counter, gauge};

const RULES: Family = gauge("dpd_policy_rules", &[], "Rules of all policies.");
const HITS: Family = counter(
    "dpd_policy_rule_hits_total",
    &["rule", "action"],
    "Connections that an allow rule accepted, each once, or packets that a deny rule dropped.",
);

pub(super) const FAMILIES: &[Family] = &[RULES, HITS];

pub(super) fn write(page: &mut Page, facts: &Facts) -> Result<()> {
    let rules = &facts.catalog.rules;
    page.write_one(&RULES, rules.len() as f64)?;
    let Some(hits) = page.take("rules", &facts.rule_hits) else {
        return Ok(());
    };
    page.write_bounded(
        &HITS,
        rules.iter().map(|(number, rule)| {
            let hits = hits.get(number).copied().unwrap_or_default();
            (vec![rule.label(), rule.action.to_string()], hits as f64)
        }),
    )
}

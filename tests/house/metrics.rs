//! The metrics' page, dashboard and alert rules name what the daemon serves, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use dpd::metrics::{Kind, families};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../docs/grafana.json");
const ALERTS: &str = include_str!("../../docs/alerts.yml");

/// What Prometheus adds of its own.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];

#[test]
fn every_metric_has_its_row() {
    let mut documented = BTreeMap::new();
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, name, kind, labels, meaning, _] = cells[..]
            && name.starts_with('`')
        {
            assert!(!meaning.is_empty(), "{name}");
            let labels: Vec<&str> = labels.split('`').skip(1).step_by(2).collect();
            let name = name.trim_matches('`');
            let before = documented.insert(name, (kind, labels));
            assert!(before.is_none(), "{name} stands once");
        }
    }
    let served = families()
        .map(|family| (family.name, (family.kind.name(), family.labels.to_vec())))
        .collect();
    assert_eq!(documented, served);
}

#[test]
fn a_metric_says_what_it_is_and_in_which_unit() {
    for family in families() {
        let name = family.name;
        let is_ours = name.starts_with("dpd_") || name.starts_with("process_");
        assert!(is_ours, "{name}");
        let is_total = name.ends_with("_total");
        assert_eq!(is_total, family.kind == Kind::Counter, "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        if family.kind == Kind::Summary {
            assert!(name.ends_with("_seconds"), "{name}");
        }
    }
}

/// Every expression of the dashboard: its panels', its variables', its annotations'.
fn dashboard_expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "expr" || key == "definition" => {
                        found.push(text.clone());
                    }
                    value => dashboard_expressions(value, found),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                dashboard_expressions(item, found);
            }
        }
        _ => {}
    }
}

/// The expressions of the alert rules, those of several lines in one.
fn alert_expressions() -> Vec<String> {
    let rules = ALERTS.split("expr:").skip(1);
    let ends = ["\n        for:", "\n        labels:"];
    rules
        .map(|rule| {
            let end = ends.iter().filter_map(|end| rule.find(end)).min();
            let text = &rule[..end.expect("an expression ends")];
            text.trim().trim_start_matches('|').to_owned()
        })
        .collect()
}

/// The words of an expression that stand for something, without what is in quotes.
fn words(expression: &str) -> Vec<&str> {
    let unquoted = expression.split('"').step_by(2);
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    unquoted
        .flat_map(|part| part.split(move |c| !is_inside(c)))
        .filter(|word| !word.is_empty())
        .collect()
}

/// What an expression says of labels: in front of a comparison inside of braces, and behind `by`.
fn labels(expression: &str) -> BTreeSet<String> {
    let unquoted: String = expression.split('"').step_by(2).collect();
    let mut found = BTreeSet::new();
    let lists = unquoted.split('{').skip(1).map(|rest| (rest, '}'));
    let groups = unquoted.split("by (").skip(1).map(|rest| (rest, ')'));
    for (rest, end) in lists.chain(groups) {
        let list = rest.split(end).next().unwrap_or_default();
        let names = list.split(',').map(|item| {
            let name = item.split(['=', '!', '~']).next();
            name.unwrap_or_default().trim().to_owned()
        });
        found.extend(names.filter(|name| !name.is_empty()));
    }
    found
}

#[test]
fn dashboard_and_alerts_ask_for_what_is_served() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    dashboard_expressions(&dashboard, &mut expressions);
    assert!(expressions.len() > 20, "{expressions:?}");
    let alerts = alert_expressions();
    assert!(alerts.len() > 10, "{alerts:?}");
    expressions.extend(alerts);

    let mut served = BTreeSet::new();
    let mut known: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
    for family in families() {
        known.extend(family.labels.iter().map(|label| (*label).to_owned()));
        match family.kind {
            Kind::Summary => {
                served.extend(["sum", "count"].map(|end| format!("{}_{end}", family.name)));
            }
            Kind::Counter | Kind::Gauge => {
                served.insert(family.name.to_owned());
            }
        }
    }
    for expression in &expressions {
        for word in words(expression) {
            let is_metric = word.starts_with("dpd_") || word.starts_with("process_");
            assert!(
                !is_metric || served.contains(word),
                "{word} of {expression}"
            );
        }
        for label in labels(expression) {
            assert!(known.contains(&label), "label {label} of {expression}");
        }
    }
}

#[test]
fn prometheus_takes_the_alert_rules() {
    promtool(&["check", "rules", "docs/alerts.yml"]);
}

#[test]
fn alerts_tell_what_is_amiss_and_nothing_else() {
    const CASES: &str = include_str!("alerts.yml");
    promtool(&["test", "rules", "tests/house/alerts.yml"]);
    let names = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        let is_tried = CASES.contains(&format!("alertname=\"{name}\""));
        assert!(is_tried, "tests/house/alerts.yml does not try {name}");
    }
}

fn promtool(words: &[&str]) {
    let output = Command::new("promtool")
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run promtool (of the package prometheus)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

//! From the tree to the checked configuration: values, references and conflicts.

mod addresses;
mod fields;
mod identities;
mod interfaces;
mod masquerade;
mod nodes;
mod policies;
mod prefilter;
mod prefixes;
mod remote_endpoints;
mod services;
mod settings;

use std::collections::BTreeMap;

use super::checked::Config;
use super::report::Report;
use super::source::Files;
use super::tree::Table;
use crate::model::catalog::InEffect;
use crate::parallel::both;

/// The configuration of a tree. It is valid only if no error was reported.
pub(super) fn config(root: &Table, files: &Files, host_name: &str, report: &mut Report) -> Config {
    // The parts that take long for a large file run in parallel.
    let part = report.part();
    let rest = || {
        let mut report = part;
        let policies = policies::read(root, files, &mut report);
        addresses::check(root, &mut report);
        (policies, report)
    };
    let ((policies, of_rest), config) = both(rest, || Config {
        path: files.main_path(),
        node: settings::node(root, host_name, report),
        daemon: settings::daemon(root, report),
        interfaces: interfaces::read(root, report),
        identities: identities::read(root, report),
        masquerade: masquerade::read(root, report),
        host: settings::host(root, report),
        nodes: nodes::read(root, report),
        services: services::read(root, report),
        policies: BTreeMap::new(),
        policy: settings::policy(root, report),
        prefilter: prefilter::read(root, report),
        conntrack: settings::conntrack(root, report),
        events: settings::events(root, report),
        drop_ins: InEffect::new(),
    });
    report.append(of_rest);
    interfaces::check_count(root, report);
    interfaces::check_uplinks(root, report);
    if !report.has_errors() {
        services::check_members(root, &config, report);
    }
    Config { policies, ..config }
}

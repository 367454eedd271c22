//! From the tree to the checked configuration: what values mean, and whether they fit together.

mod addresses;
mod fields;
mod identities;
mod interfaces;
mod nodes;
mod policies;
mod prefilter;
mod prefixes;
mod services;
mod settings;

use std::panic::resume_unwind;
use std::thread;

use super::Config;
use super::report::Report;
use super::source::Files;
use super::tree::Table;

/// The configuration that a tree stands for. It may be used only if nothing was reported as an error.
pub(super) fn config(root: &Table, files: &Files, host_name: &str, report: &mut Report) -> Config {
    let (mut of_addresses, mut of_policies) = (Report::default(), Report::default());
    // What takes long for a large file is done at the same time.
    let config = thread::scope(|scope| {
        scope.spawn(|| addresses::check(root, &mut of_addresses));
        let policies = scope.spawn(|| policies::read(root, files, &mut of_policies));
        Config {
            path: files.main_path(),
            node: settings::node(root, host_name, report),
            daemon: settings::daemon(root, report),
            interfaces: interfaces::read(root, report),
            identities: identities::read(root, report),
            nodes: nodes::read(root, report),
            services: services::read(root, report),
            policy: settings::policy(root, report),
            prefilter: prefilter::read(root, report),
            conntrack: settings::conntrack(root, report),
            events: settings::events(root, report),
            policies: policies.join().unwrap_or_else(|panic| resume_unwind(panic)),
        }
    });
    report.append(of_policies);
    report.append(of_addresses);
    interfaces::check_count(root, report);
    interfaces::check_uplinks(root, report);
    config
}

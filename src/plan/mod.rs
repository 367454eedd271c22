//! The plan: what the kernel's tables have to hold for a configuration on this host.
//!
//! Pure and deterministic: the same configuration, world and known numbers give the same state, so that
//! everything here is tested without root and a plan that is only shown is the plan that would be applied.

pub mod address;
mod cidr;
mod diff;
pub mod effect;
mod endpoint;
mod imagined;
mod numbers;
mod peer;
pub mod policy;
mod ports;
mod prefilter;
mod service;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod uplink;
mod verdict;

use crate::config::Config;
use crate::model::catalog::{Catalog, IdentityInfo};
use crate::model::host::HostState;
use crate::model::policy::reserved;
use crate::model::state::State;
use crate::parallel::both;

use cidr::CidrClasses;
pub use diff::{Change, Thing, diff, resized};
pub use effect::Effect;
pub use imagined::imagined;

/// Computes the whole wanted state.
///
/// `known` is the catalog of the generation before: what stood in it keeps its numbers.
pub fn compile(config: &Config, world: &HostState, known: &Catalog) -> State {
    // These have nothing to do with the rest, and are half of the work on a large file.
    let apart = || {
        let services = service::compile(config, known);
        (services, policy::Rules::of(config, known))
    };
    let ((services, rules), mut state) = both(apart, || compile_rest(config, world, known));
    services.put(&mut state);
    rules.put(&mut state);
    state
}

/// All but services and the rules' numbers.
fn compile_rest(config: &Config, world: &HostState, known: &Catalog) -> State {
    let mut state = State {
        settings: settings::compile(config, world),
        ..State::default()
    };
    state.catalog_mut().config = config.path.display().to_string();
    state.catalog_mut().node = config.node.name.clone();
    name_identities(config, state.catalog_mut());

    let workloads = endpoint::workloads(config, world);
    let stand_ins = CidrClasses::new(config);
    address::compile(config, world, &workloads, &stand_ins, known, &mut state);
    endpoint::compile(config, &workloads, known, &mut state);
    uplink::compile(config, world, &mut state);
    policy::compile(config, &stand_ins, &mut state);
    prefilter::compile(config, known, &mut state);
    state
}

fn name_identities(config: &Config, catalog: &mut Catalog) {
    for id in [reserved::HOST, reserved::WORLD, reserved::REMOTE_NODE] {
        let name = reserved::name(id).unwrap_or_default().to_owned();
        let info = IdentityInfo {
            name,
            ..IdentityInfo::default()
        };
        catalog.identities.insert(id, info);
    }
    for (name, identity) in &config.identities {
        let labels = identity.labels.iter();
        let info = IdentityInfo {
            name: name.clone(),
            labels: labels
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            ..IdentityInfo::default()
        };
        catalog.identities.insert(identity.id, info);
    }
}

//! The plan: what the kernel's tables have to hold for a configuration on this host.
//!
//! Pure and deterministic: the same inputs give the same state. So everything here is tested without root, and
//! `dpd plan` shows exactly what the daemon would apply.

pub mod announce;
mod assumed_host;
pub mod change;
mod endpoints;
mod external;
pub mod forwarding;
mod host_addresses;
mod ids;
mod inputs;
pub mod ipcache;
pub mod links;
mod masquerade;
pub mod policy;
mod prefilter;
mod services;
mod settings;
mod snat;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod translators;
mod uplinks;
mod warnings;

use crate::config::Config;
use crate::model::catalog::{Catalog, IdentityInfo};
use crate::model::policy::reserved;
use crate::model::state::State;
use crate::parallel::both;

pub use assumed_host::assumed_host;
pub use change::{Change, Effect, Object, diff, resized};
pub use inputs::Inputs;
pub use warnings::warnings;

use endpoints::DeclaredEndpoint;
use ipcache::Owners;
use policy::{CidrClasses, TooManyRows};

/// Computes the whole wanted state.
///
/// # Errors
/// If the rules of the configuration make more rows than the policy table may have.
pub fn compile(inputs: Inputs<'_>) -> Result<State, TooManyRows> {
    let Inputs {
        config, previous, ..
    } = inputs;
    let endpoints = endpoints::declared(config, inputs.host);
    let owners = Owners::new(config, inputs.host, &endpoints);
    // Both depend on nothing else of the state, and take half of the time for a large file.
    let independent = || {
        let services = services::compile(inputs, &owners);
        (services, policy::RuleNumbers::assign(config, previous))
    };
    let rest = || compile_rest(inputs, &endpoints, &owners);
    let ((services, rules), state) = both(independent, rest);
    let mut state = state?;
    services.put(&mut state);
    rules.put(&mut state);
    Ok(state)
}

/// All but services and the numbers of rules.
fn compile_rest(
    inputs: Inputs<'_>,
    endpoints: &[DeclaredEndpoint<'_>],
    owners: &Owners,
) -> Result<State, TooManyRows> {
    let config = inputs.config;
    let mut state = State {
        settings: settings::compile(config, inputs.host),
        ..State::default()
    };
    state.catalog_mut().config = config.path.display().to_string();
    state.catalog_mut().node = config.node.name.clone();
    state.catalog_mut().drop_ins = config.drop_ins.clone();
    state.catalog_mut().masquerade_except = config.masquerade.except.iter().copied().collect();
    state.catalog_mut().host_services = config.host.services;
    name_identities(config, state.catalog_mut());

    let cidr_classes = CidrClasses::new(config);
    let addresses = ipcache::Addresses {
        owners,
        snat: snat::families(config, owners),
        external: services::external_addresses(inputs, owners),
    };
    let classes = ipcache::compile(inputs, endpoints, &addresses, &cidr_classes, &mut state);
    endpoints::compile(inputs, endpoints, &classes, &mut state);
    uplinks::compile(inputs, addresses.snat, &mut state);
    snat::compile(inputs, addresses.snat, &mut state);
    announce::compile(inputs, &mut state);
    policy::compile(config, &cidr_classes, &mut state)?;
    prefilter::compile(inputs, &mut state);
    Ok(state)
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

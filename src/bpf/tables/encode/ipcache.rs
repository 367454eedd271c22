//! The ipcache: prefix to identity.

use crate::bpf::abi;
use crate::model::state::{AddressScope, ExternalFrontend, IpcacheEntry, SnatRole};

pub fn ipcache_entry(entry: &IpcacheEntry) -> abi::ipcache_entry {
    let (scope, ifindex) = match entry.scope {
        AddressScope::Remote => (abi::address_scope::SCOPE_REMOTE, 0),
        AddressScope::Endpoint { ifindex } => (abi::address_scope::SCOPE_ENDPOINT, ifindex),
        AddressScope::Host => (abi::address_scope::SCOPE_HOST, 0),
        AddressScope::Pending => (abi::address_scope::SCOPE_PENDING, 0),
    };
    let snat = match entry.snat {
        SnatRole::None => abi::snat_role::SNAT_NONE,
        SnatRole::Masqueraded => abi::snat_role::SNAT_MASQUERADED,
        SnatRole::Host => abi::snat_role::SNAT_HOST,
        SnatRole::Source => abi::snat_role::SNAT_SOURCE,
    };
    let external_frontend = match entry.external_frontend {
        ExternalFrontend::None => abi::external_frontend::EXTERNAL_FRONTEND_NONE,
        ExternalFrontend::Routed => abi::external_frontend::EXTERNAL_FRONTEND_ROUTED,
        ExternalFrontend::Host => abi::external_frontend::EXTERNAL_FRONTEND_HOST,
    };
    abi::ipcache_entry {
        id: entry.identity,
        class: entry.class,
        ifindex,
        scope: scope.0 as u8,
        is_world: entry.is_world.into(),
        snat: snat.0 as u8,
        external_frontend: external_frontend.0 as u8,
    }
}

pub fn decode_ipcache_entry(identity: &abi::ipcache_entry) -> IpcacheEntry {
    IpcacheEntry {
        identity: identity.id,
        class: identity.class,
        is_world: identity.is_world != 0,
        scope: match abi::address_scope(identity.scope.into()) {
            abi::address_scope::SCOPE_ENDPOINT => AddressScope::Endpoint {
                ifindex: identity.ifindex,
            },
            abi::address_scope::SCOPE_HOST => AddressScope::Host,
            abi::address_scope::SCOPE_PENDING => AddressScope::Pending,
            _ => AddressScope::Remote,
        },
        snat: match abi::snat_role(identity.snat.into()) {
            abi::snat_role::SNAT_MASQUERADED => SnatRole::Masqueraded,
            abi::snat_role::SNAT_HOST => SnatRole::Host,
            abi::snat_role::SNAT_SOURCE => SnatRole::Source,
            _ => SnatRole::None,
        },
        external_frontend: match abi::external_frontend(identity.external_frontend.into()) {
            abi::external_frontend::EXTERNAL_FRONTEND_ROUTED => ExternalFrontend::Routed,
            abi::external_frontend::EXTERNAL_FRONTEND_HOST => ExternalFrontend::Host,
            _ => ExternalFrontend::None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;

    #[test]
    fn ipcache_entries_are_decoded_to_what_they_were() {
        let make = |n: &mut Rng| {
            let ifindex = n.u32();
            IpcacheEntry {
                identity: n.u32(),
                class: n.u32(),
                is_world: n.of(&[true, false]),
                scope: n.of(&[
                    AddressScope::Endpoint { ifindex },
                    AddressScope::Pending,
                    AddressScope::Host,
                    AddressScope::Remote,
                ]),
                snat: n.of(&[
                    SnatRole::None,
                    SnatRole::Masqueraded,
                    SnatRole::Host,
                    SnatRole::Source,
                ]),
                external_frontend: n.of(&[
                    ExternalFrontend::None,
                    ExternalFrontend::Routed,
                    ExternalFrontend::Host,
                ]),
            }
        };
        assert_round_trip(make, ipcache_entry, decode_ipcache_entry);
    }
}

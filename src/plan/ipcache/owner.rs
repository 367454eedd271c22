//! Who has a prefix.

use crate::model::policy::reserved;
use crate::model::state::AddressScope;

/// What the addresses of a prefix belong to.
#[derive(Clone, Copy, PartialEq)]
pub struct Owner {
    pub identity: u32,
    /// It is neither an endpoint, nor this host, nor another node.
    pub is_world: bool,
    pub scope: AddressScope,
}

/// Nobody that the file or the host names.
pub const WORLD: Owner = Owner {
    identity: reserved::WORLD,
    is_world: true,
    scope: AddressScope::Remote,
};

/// This host.
pub const HOST: Owner = Owner {
    identity: reserved::HOST,
    is_world: false,
    scope: AddressScope::Host,
};

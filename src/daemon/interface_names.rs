//! The names of all interfaces of the host, for events about those that the file does not have. No event costs a system call.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::model::host::HostState;

#[derive(Debug, Default)]
pub struct InterfaceNames(RwLock<BTreeMap<u32, String>>);

impl InterfaceNames {
    /// Takes the names of the latest look.
    pub fn set(&self, host: &HostState) {
        let links = host.links.iter();
        let names = links.map(|(name, link)| (link.ifindex, name.clone()));
        let names: BTreeMap<u32, String> = names.collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The kernel's name; `None` if there is no such interface, or none yet.
    pub fn of(&self, ifindex: u32) -> Option<String> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.get(&ifindex).cloned()
    }
}

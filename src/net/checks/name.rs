//! Interfaces of the file that do not exist, or that the file has by another of their names.

use crate::config::{Config, Interface};
use crate::model::host::HostState;

/// Names of the file that are alternative names of interfaces: dpd, as the kernel's messages, goes by the first name.
pub fn check(config: &Config, host: &HostState) -> Vec<String> {
    let missing = config
        .interfaces
        .keys()
        .filter(|name| !host.links.contains_key(*name));
    missing
        .filter_map(|name| {
            let real = find_alternative(host, name)?;
            Some(format!(
                "{name} is an alternative name of interface {real}: write {real} in the file"
            ))
        })
        .collect()
}

/// Endpoints of the file whose interfaces do not exist, each with a sentence: that is no error, they may come.
pub fn absent(config: &Config, host: &HostState) -> Vec<String> {
    let endpoints = config
        .interfaces
        .iter()
        .filter(|(_, role)| matches!(role, Interface::Endpoint { .. }))
        .map(|(name, _)| name);
    endpoints
        .filter(|name| !host.links.contains_key(*name) && find_alternative(host, name).is_none())
        .map(|name| format!("endpoint {name} does not exist yet and is pending"))
        .collect()
}

/// The name of the interface that has this alternative name.
pub fn find_alternative<'a>(host: &'a HostState, name: &str) -> Option<&'a str> {
    let mut links = host.links.iter();
    links
        .find(|(_, link)| link.alternative_names.contains(name))
        .map(|(real, _)| real.as_str())
}

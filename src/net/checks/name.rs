//! Interfaces of the file that do not exist, or that the file has by another of their names.

use crate::config::{Config, Interface};
use crate::model::host::{HostState, SameInterface};

/// Names of the file that are other names of interfaces that it has already.
pub fn same_interfaces(config: &Config, host: &HostState) -> Vec<String> {
    let (_, same) = host.clone().named_by(config.interfaces.keys());
    let sentence = |(first, second): &SameInterface| {
        format!(
            "{first} and {second} of the file are names of one interface: remove [interfaces.{second}] or [interfaces.{first}]"
        )
    };
    same.iter().map(sentence).collect()
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

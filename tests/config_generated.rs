//! The generator of large configurations writes valid files of the requested size.

#[path = "../benches/generate/mod.rs"]
mod generate;

use std::sync::Arc;

use dpd::config::{self, Interface, Source};
use generate::Size;

const SIZE: Size = Size {
    services: 60,
    backends_per_service: 4,
    endpoints: 30,
    identities: 20,
    rules: 205,
    prefixes: 50,
};

fn load(size: &Size) -> Arc<config::Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generated.toml");
    std::fs::write(&path, generate::config(size)).unwrap();
    let loaded = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    loaded.config
}

#[test]
fn a_generated_file_is_valid_and_has_the_requested_size() {
    let config = load(&SIZE);
    assert_eq!(config.services.len(), SIZE.services);
    for service in config.services.values() {
        assert_eq!(service.backends.len(), SIZE.backends_per_service);
    }
    assert_eq!(config.interfaces.len(), SIZE.endpoints);
    assert!(
        config
            .interfaces
            .values()
            .all(|interface| matches!(interface, Interface::Endpoint { .. }))
    );
    let identities = config.identities.values();
    let cidrs: usize = identities.map(|identity| identity.cidrs.len()).sum();
    assert_eq!(
        (config.identities.len(), cidrs),
        (SIZE.identities, SIZE.prefixes)
    );
    let policies = config.policies.values();
    let rules: usize = policies
        .flat_map(|policy| [&policy.ingress, &policy.egress])
        .flatten()
        .map(Vec::len)
        .sum();
    assert_eq!(rules, SIZE.rules);
}

#[test]
fn every_size_is_valid_down_to_nothing() {
    let one = Size {
        services: 1,
        backends_per_service: 1,
        endpoints: 1,
        identities: 1,
        rules: 1,
        prefixes: 1,
    };
    for size in [
        Size::default(),
        one,
        Size {
            endpoints: 0,
            ..SIZE
        },
        Size {
            services: 0,
            ..SIZE
        },
    ] {
        load(&size);
    }
}

#[test]
fn the_same_size_gives_the_same_file() {
    assert_eq!(generate::config(&SIZE), generate::config(&SIZE));
    let text = generate::config(&Size { rules: 206, ..SIZE });
    let source = |text| Source {
        path: "generated.toml".into(),
        text,
    };
    let one_more = config::parse(vec![source(text)]).unwrap();
    let as_many = config::parse(vec![source(generate::config(&SIZE))]).unwrap();
    assert_ne!(one_more.policies, as_many.policies);
}

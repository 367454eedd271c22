//! The whole compiler: determinism, numbers over generations, and sizes.

use crate::model::policy::Action;
use crate::model::state::State;

use super::policy::verdict;
use super::testing::{IDENTITIES, Rng, TestConfig, all_addresses, ip, net, random_config};
use super::{diff, ipcache};

/// The configuration or its host with one change.
fn disturb(rng: &mut Rng, test: &TestConfig) -> TestConfig {
    let mut test = test.clone();
    let policy = rng.pick(&["p", "q", "r", "s"]);
    match rng.below(7) {
        0 => {
            let other = random_config(rng).config.policies[policy].clone();
            test.config.policies.insert(policy.to_owned(), other);
        }
        1 => drop(test.host.addresses.pop_first()),
        2 => drop(test.host.links.pop_last()),
        3 => drop(test.config.interfaces.pop_first()),
        4 => drop(test.config.nodes.pop_first()),
        5 => {
            let identity = rng.pick(&IDENTITIES);
            let identity = test.config.identities.get_mut(identity).unwrap();
            identity.cidrs.pop();
        }
        _ => {
            let policy = test.config.policies.get_mut(policy).unwrap();
            policy.ingress.iter_mut().for_each(|rules| rules.reverse());
        }
    }
    test
}

#[test]
fn a_plan_without_a_line_changes_nothing() {
    // Which of two overlapping rules is reported may change with their order, the verdict may not.
    let tables = |state: &State| {
        let policy = state.policy.iter().map(|(key, entry)| (*key, entry.action));
        let policy: Vec<_> = policy.collect();
        let addresses = all_addresses().map(|address| ipcache::find(state, address).cloned());
        let addresses: Vec<_> = addresses.collect();
        (addresses, state.endpoints.clone(), policy)
    };
    let mut rng = Rng::new(11);
    let mut alike = 0;
    for round in 0..500 {
        let test = random_config(&mut rng);
        let old = test.compile();
        let new = disturb(&mut rng, &test).compile_after(&old);
        if diff(&old, &new).is_empty() {
            alike += 1;
            assert_eq!(tables(&old), tables(&new), "round {round}");
        }
    }
    assert!(
        (100..400).contains(&alike),
        "{alike} of 500 pairs are alike: the test checks nothing"
    );
}

#[test]
fn compiling_twice_gives_the_same() {
    let mut rng = Rng::new(3);
    for round in 0..100 {
        let test = random_config(&mut rng);
        let first = test.compile();
        assert_eq!(
            first,
            test.compile(),
            "round {round}: from the same known numbers"
        );
        assert_eq!(
            first,
            test.compile_after(&first),
            "round {round}: from its own numbers"
        );
    }
}

/// The example of the documentation, with every kind of object that has a number.
fn example() -> TestConfig {
    TestConfig::new()
        .identity("client", 20001, "app=client")
        .identity("kube-dns", 18203, "k8s-app=kube-dns")
        .endpoint("client", "client", "10.200.0.64 fd00:200::64")
        .endpoint("coredns", "kube-dns", "10.200.0.44")
        .service(
            "kube-dns",
            "10.32.0.10:53/udp 10.32.0.10:53/tcp",
            "10.200.0.44:53 10.200.0.45:53",
        )
        .service("web", "10.32.0.11:80/tcp", "10.200.0.44:80")
        .policy(
            "dns",
            "kube-dns",
            Some("allow client 53/udp;allow world;deny cidr:198.51.100.0/24"),
            None,
        )
}

#[test]
fn numbers_survive_changes() {
    let service = |state: &State, name: &str| {
        let mut found = state
            .catalog
            .services
            .iter()
            .filter(|(_, info)| info.name == name);
        found.next().map(|(number, _)| *number)
    };
    let backend = |state: &State, address: &str| {
        let address = address.parse().unwrap();
        let mut found = state
            .catalog
            .backends
            .iter()
            .filter(|(_, info)| info.address == address);
        found.next().map(|(number, _)| *number)
    };
    let rule = |state: &State, text: &str| {
        let mut found = state
            .catalog
            .rules
            .iter()
            .filter(|(_, info)| info.text() == text);
        found.next().map(|(number, _)| *number)
    };
    let first = example().compile();

    // An earlier service by name, one backend less, a new first rule: the rest keeps its numbers.
    let second = example()
        .service("a", "10.32.0.9:1/tcp", "10.200.0.44:53")
        .service("kube-dns", "10.32.0.10:53/udp", "10.200.0.45:53")
        .policy(
            "dns",
            "kube-dns",
            Some("allow host;allow client 53/udp;allow world"),
            None,
        )
        .compile_after(&first);
    assert_eq!(service(&first, "kube-dns"), service(&second, "kube-dns"));
    assert_eq!(service(&first, "web"), service(&second, "web"));
    assert_eq!(
        backend(&first, "10.200.0.45:53"),
        backend(&second, "10.200.0.45:53")
    );
    let words = "allow from client ports 53/udp";
    assert_eq!(rule(&first, words), rule(&second, words));
    assert!(
        first
            .catalog
            .services
            .keys()
            .all(|number| service(&second, "a") != Some(*number))
    );
    assert!(
        first
            .catalog
            .rules
            .keys()
            .all(|n| rule(&second, "allow from host") != Some(*n))
    );

    // An object that is removed and added again is a new one: old connections must not match it.
    let third = example().compile_after(&second);
    let denied = "deny from cidr:198.51.100.0/24";
    assert!(rule(&third, denied) > rule(&first, denied));
    assert_ne!(
        backend(&first, "10.200.0.44:53"),
        backend(&third, "10.200.0.44:53")
    );
    assert!(third.catalog.next.backend > second.catalog.next.backend);
}

#[test]
fn rules_of_the_same_text_keep_their_order() {
    let test = |list: &str| example().policy("dns", "kube-dns", Some(list), None);
    let numbers = |state: &State| -> Vec<(usize, u32)> {
        let rules = state.catalog.rules.iter();
        let mut numbers: Vec<_> = rules.map(|(number, info)| (info.index, *number)).collect();
        numbers.sort();
        numbers
    };
    let first = test("allow client;allow world;allow client").compile();
    assert_eq!(numbers(&first), [(0, 1), (1, 2), (2, 3)]);
    let second = test("allow world;allow client;allow client;allow client").compile_after(&first);
    assert_eq!(numbers(&second), [(0, 2), (1, 1), (2, 3), (3, 4)]);
    let third = test("allow client").compile_after(&second);
    assert_eq!(numbers(&third), [(0, 1)]);
}

/// `count` prefixes, none inside of another.
fn cidrs(count: usize) -> Vec<String> {
    let cidr = |n: usize| {
        let (first, second, third) = (172 + n / 40_000, n / 200 % 200, n % 200);
        format!("cidr:{first}.{second}.{third}.0/24")
    };
    (0..count).map(cidr).collect()
}

#[test]
fn the_policy_table_grows_with_rules_not_with_prefixes() {
    let denied = format!("deny {} 25/tcp", cidrs(50_000).join(","));
    let others: Vec<String> = (1..=20)
        .map(|port| format!("allow world {port}/tcp"))
        .collect();
    let test = TestConfig::new()
        .identity("web", 300, "")
        .endpoint("web", "web", "10.1.1.1")
        .policy("abusers", "web", Some(&denied), None)
        .policy("others", "web", Some(&others.join(";")), None);
    let state = test.compile();
    assert!(state.ipcache.len() > 50_000);
    let classes = state.catalog.classes.len();
    assert_eq!(classes, 4, "web, host, the world, and what is denied of it");
    assert_eq!(
        state.policy.len(),
        1 + 20,
        "the deny, and each allow for all classes of the world"
    );
    let action = |src: &str, port| verdict(&state, ip(src), ip("10.1.1.1"), 6, port).action();
    let rows = [
        ("of the list", "173.49.199.7", 25, Action::Deny),
        (
            "of the list, another port",
            "173.49.199.7",
            20,
            Action::Allow,
        ),
        (
            "of the list, a port of no rule",
            "173.49.199.7",
            21,
            Action::Deny,
        ),
        ("not of the list", "173.49.200.7", 20, Action::Allow),
    ];
    for (what, src, port, expected) in rows {
        assert_eq!(action(src, port), expected, "{what}");
    }

    // One prefix more: the class of the rest keeps its key.
    let longer = format!("deny {} 25/tcp", cidrs(50_001).join(","));
    let next = test.policy("abusers", "web", Some(&longer), None);
    let next = next.compile_after(&state);
    assert_eq!(next.catalog.classes, state.catalog.classes);
}

#[test]
fn a_big_configuration_is_compiled() {
    let mut test = TestConfig::new();
    for number in 0..1000_u32 {
        let name = format!("id-{number}");
        let address = format!("10.{}.{}.1", 100 + number / 250, number % 250);
        test = test
            .identity(&name, 1000 + number, "app=x")
            .endpoint(&name, &name, &address);
    }
    for number in 0..10_000_u32 {
        let address = format!("10.32.{}.{}:80/tcp", number / 250, number % 250);
        let backends: Vec<String> = (1..=10)
            .map(|backend| {
                format!(
                    "10.100.{}.{}:80*{backend}",
                    number % 250,
                    number / 250 + backend
                )
            })
            .collect();
        test = test.service(&format!("service-{number}"), &address, &backends.join(" "));
        let (subject, peer) = (number % 1000, number / 10);
        let rules = format!(
            "allow id-{peer} {}/tcp;allow id-{} 53/udp",
            number + 1,
            number % 999
        );
        test = test.policy(
            &format!("policy-{number}"),
            &format!("id-{subject}"),
            Some(&rules),
            None,
        );
    }
    let denied = format!("deny {}", cidrs(50_000).join(","));
    test = test.policy(
        "abusers",
        "id-0",
        Some(&denied),
        Some("allow cidr:172.0.0.0/8"),
    );

    let state = test.compile();
    assert_eq!(
        (state.services.len(), state.backend_lut.len()),
        (10_000, 100_000)
    );
    assert_eq!(state.backends.len(), 100_000);
    assert_eq!(state.catalog.rules.len(), 20_002);
    let hosts_and_defaults = 4;
    assert_eq!(state.ipcache.len(), 50_000 + 1 + 1000 + hosts_and_defaults);
    assert!(state.ipcache.contains_key(&net("173.49.199.0/24")));
    let classes = state.catalog.classes.len();
    assert_eq!(classes, 1000 + 1 + 4, "what the world's prefixes differ in");
    assert_eq!(state.policy.len(), 20_000 + 4);
    let denied = verdict(&state, ip("172.1.1.1"), ip("10.100.0.1"), 6, 1);
    assert_eq!(denied.action(), Action::Deny);
    assert_eq!(test.compile_after(&state), state);
}

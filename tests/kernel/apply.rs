//! One configuration after another: which tables are shared, which ids stay, which counters are deleted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::sys::call::inject_faults;
use dpd::bpf::sys::op::Op;
use dpd::bpf::sys::pins::Pins;
use libbpf_rs::{MapCore, MapHandle, MapType};

use crate::host::{CONFIG, Host, all_maps, on_host, wait_until_gone};

#[test]
fn a_change_shares_the_tables_that_it_does_not_concern() {
    // What is changed, from, to, and the tables that are new.
    let rows: [(&str, &str, &str, &[&str]); 4] = [
        (
            "a policy's port",
            "53/udp\"] },",
            "5353/udp\"] },",
            &["catalog", "policy"],
        ),
        (
            "a backend",
            "[\"10.200.0.44:53\"]",
            "[\"10.200.0.44:5353\"]",
            &["backend_lut", "backends", "catalog"],
        ),
        (
            "a setting",
            "[identities.client]",
            "[policy]\naudit = true\n[identities.client]",
            &["catalog", "policy", "settings"],
        ),
        (
            "a label, which no program reads",
            "id = 20001",
            "id = 20001\nlabels = [\"app=x\"]",
            &["catalog"],
        ),
    ];
    on_host(|host| {
        for (what, from, to, expected) in rows {
            let mut reconciler = host.start(Mechanism::Tcx);
            let before = host.table_ids();
            let epoch = reconciler.epoch();
            let applied = host.apply(&mut reconciler, &host.changed(from, to));
            assert_eq!(applied.epoch, epoch + 1, "{what}");
            let after = host.table_ids();
            assert!(before.keys().eq(after.keys()), "{what}");
            let new: Vec<&str> = after
                .iter()
                .filter(|(name, id)| before[*name] != **id)
                .map(|(name, _)| name.as_str())
                .collect();
            assert!(
                new.iter().all(|name| expected.contains(name)),
                "{what}: {new:?} are new, and of them only {expected:?} should be"
            );
            assert!(new.contains(&"catalog"), "{what}: {new:?}");
        }
    });
}

#[test]
fn only_the_live_generation_is_pinned() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let first: BTreeSet<u32> = host.table_ids().into_values().collect();
        for id in ["20005", "20006", "20007"] {
            let applied = host.apply(&mut reconciler, &host.changed("20001", id));
            let pinned = Pins::numbers(&host.pins().generations());
            assert_eq!(pinned, [applied.epoch]);
        }
        let live: BTreeSet<u32> = host.table_ids().into_values().collect();
        let old = &first - &live;
        assert!(!old.is_empty());
        wait_until_gone("tables of an old generation", &old, all_maps);
    });
}

#[test]
fn an_unchanged_configuration_changes_nothing() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let (epoch, links) = (reconciler.epoch(), host.link_ids());
        let applied = host.apply(&mut reconciler, &host.config(CONFIG));
        assert_eq!(applied.epoch, epoch);
        assert_eq!(applied.changes, []);
        assert_eq!(host.link_ids(), links);
    });
}

#[test]
fn a_file_without_interfaces_is_taken_over_too() {
    on_host(|host| {
        let config = host.config("");
        for _ in 0..3 {
            let mut reconciler = host.take_over(&config, Mechanism::Tcx);
            host.apply(&mut reconciler, &config);
        }
        let loads = Pins::numbers(&host.pins().loads());
        assert_eq!(loads.len(), 1, "old loads don't pile up: {loads:?}");
    });
}

#[test]
fn ids_stay_over_a_restart_and_are_not_reused() {
    on_host(|host| {
        let more = "[\"10.200.0.44:53\", \"10.200.1.44:53\"]";
        let one = "[\"10.200.0.44:53\"]";
        let mut reconciler = host.start(Mechanism::Tcx);
        host.apply(&mut reconciler, &host.changed(one, more));
        let with_two = host.reader().state().unwrap().catalog;
        host.apply(&mut reconciler, &host.config(CONFIG));
        let with_one = host.reader().state().unwrap().catalog;
        drop(reconciler);
        let mut second = host.start(Mechanism::Tcx);
        let restarted = host.reader().state().unwrap().catalog;
        assert_eq!(restarted.backends, with_one.backends);
        assert_eq!(restarted.services, with_one.services);
        assert_eq!(restarted.rules, with_one.rules);
        assert_eq!(restarted.classes, with_one.classes);
        host.apply(&mut second, &host.changed(one, more));
        let again = host.reader().state().unwrap().catalog;
        let gone = with_two.backends.keys().max();
        let new = again.backends.keys().max();
        assert!(new > gone, "the backend that came back has a new id");
    });
}

#[test]
fn hits_and_counters_of_what_was_removed_are_deleted() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        assert!(host.asks(), "a question");
        assert!(host.client_pings("10.200.0.44"), "a ping");
        let hits = host.reader().rule_hits().unwrap();
        assert_eq!(hits.len(), 2, "both rules were asked: {hits:?}");

        let ping = "    { from = [\"client\"], ports = [\"icmp\"] },\n";
        host.apply(&mut reconciler, &host.changed(ping, ""));
        let left = host.reader().rule_hits().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        for (rule, count) in &left {
            assert_eq!(hits[rule], *count, "the other rule's hits are kept");
        }

        let client = host.ifindex("lxc-client");
        let is_counted = || {
            let metrics = host.reader().metrics().unwrap();
            let path = host.pins().map("dpd_endpoint_conns");
            let usage = MapHandle::from_pinned_path(path).unwrap();
            let is_in_usage = usage
                .keys()
                .any(|key| key.starts_with(&client.to_ne_bytes()));
            let is_in_metrics = metrics.iter().any(|metric| metric.ifindex == client);
            (is_in_metrics, is_in_usage)
        };
        assert_eq!(is_counted(), (true, true));
        host.namespace.ip("link delete lxc-client");
        reconciler
            .apply(&host.config(CONFIG), &host.world(), |_, _| {})
            .unwrap();
        assert_eq!(is_counted(), (false, false));
    });
}

#[test]
fn another_size_of_conntrack_migrates_the_connections() {
    on_host(|host| {
        // Loading takes a while on a busy machine, and a question with one answer is soon forgotten.
        let sized = |size: u32| {
            let section = format!("[conntrack]\nsize = {size}\nudp_once = \"1h\"\nudp = \"1h\"\n");
            host.config(&format!("{CONFIG}\n{section}"))
        };
        let mut reconciler = host.start(Mechanism::Tcx);
        host.apply(&mut reconciler, &sized(131_072));
        assert!(host.asks(), "a question");
        let (connections, entries) = (host.connections(), host.entries());
        assert_eq!((connections.len(), entries), (1, 2));
        let (links, programs) = (host.links(), host.program_ids());
        let tables = host.map_ids(&host.pins().maps());
        let path = host.pins().map("dpd_ct_tcp");
        let size = || MapHandle::from_pinned_path(&path).unwrap().max_entries();
        assert_eq!(size(), 2 * 131_072);

        for connections_wanted in [4096, 65_536] {
            host.apply(&mut reconciler, &sized(connections_wanted));
            assert_eq!(size(), 2 * connections_wanted);
            assert_eq!(host.entries(), entries, "at {connections_wanted}");
            let now = host.connections();
            assert_eq!(now.len(), 1, "at {connections_wanted}");
            assert_eq!(now[0].src, connections[0].src);
            assert_eq!(now[0].backend, connections[0].backend);
        }
        for (name, link) in host.links() {
            assert_eq!(link.id, links[&name].id, "{name} is the link that it was");
        }
        wait_until_gone("the old programs", &programs, crate::host::all_programs);
        let now = host.map_ids(&host.pins().maps());
        assert!(now.keys().eq(tables.keys()), "no pin is left over: {now:?}");
        let old: BTreeSet<u32> = tables
            .iter()
            .filter(|(name, id)| now[*name] != **id)
            .map(|(_, id)| *id)
            .collect();
        let new: Vec<&str> = tables.keys().map(String::as_str).collect();
        let new = new.into_iter().filter(|name| now[*name] != tables[*name]);
        let of_programs = new.filter(|name| !is_of_the_configuration(host, name));
        let of_programs: Vec<&str> = of_programs.collect();
        let expected = ["dpd_ct_other", "dpd_ct_tcp", "dpd_ct_unreplied"];
        assert_eq!(
            of_programs, expected,
            "counters and hits stay where they are"
        );
        wait_until_gone("the old tables", &old, all_maps);
        assert!(host.asks(), "the service answers");
        let [connection] = &host.connections()[..] else {
            panic!("one connection: {:?}", host.connections());
        };
        assert_eq!(connection.packets, 2, "the second question belongs to it");
    });
}

/// Maps that each takeover creates: outer maps, and the epoch.
fn is_of_the_configuration(host: &Host, name: &str) -> bool {
    let map = MapHandle::from_pinned_path(host.pins().map(name)).unwrap();
    map.map_type() == MapType::ArrayOfMaps || name == "dpd_live"
}

/// Attaching takes a while: a first configuration is live before, and no workload is cut off meanwhile. From-hooks come first:
/// without one, a workload's packets would be spoofed ones at another's to-hook.
#[test]
fn a_first_configuration_is_live_before_the_first_program_is_attached() {
    on_host(|host| {
        let config = host.config(CONFIG);
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        let live = host.reader();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let guard = {
            let seen = seen.clone();
            inject_faults(Arc::new(move |op| {
                if let Op::CreateLink { hook } = op {
                    let epoch = live.epoch().expect("read the epoch");
                    seen.lock().unwrap().push(((*hook).to_owned(), epoch));
                }
                Ok(())
            }))
        };
        let applied = host.apply(&mut reconciler, &config);
        drop(guard);
        let expected = ["ingress", "ingress", "egress", "egress"];
        let expected = expected.map(|hook| (hook.to_owned(), applied.epoch));
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

//! Attached by tcx links: once, in their place among others, and updated without a gap.

use std::collections::BTreeSet;

use dpd::bpf::attach::hook::Role;
use dpd::bpf::attach::{self, Found, Mechanism};
use dpd::reconcile::Reconciler;
use libbpf_rs::libbpf_sys::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use libbpf_rs::{Link, MapCore, MapHandle};

use crate::common::foreign::{self, Does};
use crate::host::{CONFIG, Host, all_links, all_maps, all_programs, on_host, wait_until_gone};

const INTERFACES: [&str; 2] = ["lxc-client", "lxc-server"];

/// How many programs are on the two tcx hooks of both interfaces.
fn attached(host: &Host) -> usize {
    INTERFACES
        .into_iter()
        .flat_map(|name| {
            let ifindex = host.ifindex(name);
            [BPF_TCX_INGRESS, BPF_TCX_EGRESS].map(|hook| foreign::order(ifindex, hook).len())
        })
        .sum()
}

#[test]
fn a_daemon_that_takes_over_updates_the_links_in_place() {
    on_host(|host| {
        let first = host.start(Mechanism::Tcx);
        assert!(host.asks(), "the service answers");
        let (links, programs) = (host.links(), host.program_ids());
        let own_maps = BTreeSet::from(["dpd_calls", "dpd_scratch"].map(|name| {
            let map = MapHandle::from_pinned_path(host.pins().load(1).join(name)).unwrap();
            map.info().unwrap().info.id
        }));
        let kept = host.map_ids(&host.pins().maps());
        let catalog = host.reader().state().unwrap().catalog;

        drop(first); // a crash: nothing is taken away
        assert_eq!(attached(host), 4, "the datapath goes on");
        assert!(host.asks(), "without a daemon, too");

        let second = host.start(Mechanism::Tcx);
        assert_eq!(attached(host), 4, "each hook has one program of ours");
        for (name, link) in host.links() {
            assert_eq!(link.id, links[&name].id, "{name} is the link that it was");
            assert_ne!(
                link.prog_id, links[&name].prog_id,
                "{name} has the new program"
            );
        }
        assert_eq!(host.map_ids(&host.pins().maps()), kept, "maps are kept");
        wait_until_gone("the old load's programs", &programs, all_programs);
        wait_until_gone("the old load's own maps", &own_maps, all_maps);
        assert!(host.asks(), "the new programs serve");
        let state = host.reader().state().unwrap();
        assert_eq!(state.catalog, catalog, "names keep their numbers");
        drop(second);
    });
}

#[test]
fn from_hooks_stand_at_the_head_and_to_hooks_at_the_tail() {
    on_host(|host| {
        let ifindex = host.ifindex("lxc-client");
        let other = foreign::program(c"other_tool", Does::Next);
        let _link = foreign::attach_first(ifindex, &other);
        let _reconciler = host.start(Mechanism::Tcx);
        let links = host.links();
        let ours = links[&format!("{ifindex}-ingress")].prog_id;
        let order = foreign::order(ifindex, BPF_TCX_INGRESS);
        assert_eq!(order, [ours, foreign::id(&other)], "before what was there");
        let found = attach::find(&host.pins(), ifindex, Role::Endpoint);
        let expected = Role::Endpoint.hooks().map(|program| Found {
            program,
            mechanism: Mechanism::Tcx,
            other_programs_first: Vec::new(),
        });
        assert_eq!(found, expected);
    });
}

#[test]
fn a_foreign_program_ahead_is_left_alone_and_shown() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let ifindex = host.ifindex("lxc-client");
        let other = foreign::program(c"other_tool", Does::Next);
        let _link = foreign::attach_first(ifindex, &other);
        let config = host.changed("20001", "20009");
        host.apply(&mut reconciler, &config);
        drop(reconciler);
        let _second = host.start(Mechanism::Tcx);
        let order = foreign::order(ifindex, BPF_TCX_INGRESS);
        assert_eq!(order.len(), 2);
        assert_eq!(order[0], foreign::id(&other), "where it put itself");
        let found = attach::find(&host.pins(), ifindex, Role::Endpoint);
        let ahead: Vec<_> = found
            .iter()
            .map(|found| &found.other_programs_first[..])
            .collect();
        assert_eq!(ahead, [&["other_tool".to_owned()][..], &[]]);
        assert!(host.asks(), "the service answers");
    });
}

/// A program before ours can accept a packet, which bypasses policy.
#[test]
fn a_foreign_program_ahead_at_a_to_hook_is_reported() {
    on_host(|host| {
        let reconciler = host.start(Mechanism::Tcx);
        assert_eq!(reconciler.foreign(), Vec::<String>::new());
        let ifindex = host.ifindex("lxc-client");
        let other = foreign::program(c"other_tool", Does::Next);
        let _link = foreign::attach_first_at(ifindex, &other, BPF_TCX_EGRESS);
        let found = attach::find(&host.pins(), ifindex, Role::Endpoint);
        let ahead: Vec<_> = found
            .iter()
            .map(|found| &found.other_programs_first[..])
            .collect();
        assert_eq!(ahead, [&[][..], &["other_tool".to_owned()]]);
        let sentences = reconciler.foreign();
        assert_eq!(sentences.len(), 2, "{sentences:?}");
        for words in ["lxc-client", "other_tool", "dpd_to_container"] {
            assert!(sentences[0].contains(words), "{words}: {sentences:?}");
        }
        let bypassed = "packets that dpd delivers bypass other tools' programs at egress of lxc-client (other_tool):";
        assert!(sentences[1].starts_with(bypassed), "{sentences:?}");
    });
}

#[test]
fn foreign_clsact_filters_see_what_we_pass_on() {
    on_host(|host| {
        let _reconciler = host.start(Mechanism::Tcx);
        assert!(host.client_pings("10.200.0.1"), "the host answers");
        let other = foreign::program(c"other_tool", Does::Drop);
        let mut filter = foreign::filter(host.ifindex("lxc-client"), &other);
        assert!(!host.client_pings("10.200.0.1"), "it drops what we passed");
        filter.detach().unwrap();
        assert!(host.client_pings("10.200.0.1"));
    });
}

#[test]
fn detached_programs_are_attached_again() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let ifindex = host.ifindex("lxc-client");
        let path = host.pins().links().join(format!("{ifindex}-ingress"));
        Link::open(&path).unwrap().detach().unwrap();
        assert_eq!(attached(host), 3);
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert_eq!(attached(host), 4);
        assert!(host.asks(), "the service answers");
    });
}

#[test]
fn an_interface_that_leaves_the_file_loses_its_programs() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let without = CONFIG.replace("[interfaces.lxc-client]", "[interfaces.lxc-later]");
        host.apply(&mut reconciler, &host.config(&without));
        let ifindex = host.ifindex("lxc-client");
        assert_eq!(attach::find(&host.pins(), ifindex, Role::Endpoint), []);
        assert_eq!(attached(host), 2);
        // Also if the daemon was down while the file changed.
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert_eq!(attached(host), 4);
        drop(reconciler);
        let config = host.config(&without);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut second, &config);
        assert_eq!(attached(host), 2);
    });
}

/// Links move with their interface to another network namespace, and report only its index.
#[test]
fn another_interface_with_the_index_of_one_that_moved_away() {
    type Comes = fn(&Host, Reconciler) -> Reconciler;
    let rows: [(&str, Comes); 2] = [
        ("while no daemon runs", |host, running| {
            replace_client(host);
            drop(running);
            host.start(Mechanism::Tcx)
        }),
        ("under a running daemon", |host, mut running| {
            replace_client(host);
            assert!(running.has_drifted(), "it is found");
            host.apply(&mut running, &host.config(CONFIG));
            running
        }),
    ];
    for (when, comes) in rows {
        on_host(|host| {
            let running = host.start(Mechanism::Tcx);
            let ifindex = host.ifindex("lxc-client");
            let running = comes(host, running);
            assert_eq!(host.ifindex("lxc-client"), ifindex, "{when}");
            let programs = host.program_ids();
            for hook in [BPF_TCX_INGRESS, BPF_TCX_EGRESS] {
                let [ours] = foreign::order(ifindex, hook)[..] else {
                    panic!("{when}: one program");
                };
                assert!(programs.contains(&ours), "{when}: of the load in use");
                let left = host.elsewhere.run(|| foreign::order(ifindex, hook));
                assert!(left.is_empty(), "{when}: what moved has {left:?}");
            }
            let found = attach::find(&host.pins(), ifindex, Role::Endpoint);
            assert_eq!(found.len(), 2, "{when}");
            drop(running);
        });
    }
}

/// The client's interface goes to another namespace, and one with its name and index takes its place.
fn replace_client(host: &Host) {
    let ifindex = host.ifindex("lxc-client");
    let elsewhere = host.elsewhere.pid();
    let ip = |words: &str| host.namespace.ip(words);
    ip(&format!("link set lxc-client netns {elsewhere}"));
    ip(&format!(
        "link add lxc-client index {ifindex} type veth peer name lxc-peer"
    ));
    ip("link set lxc-client up");
}

#[test]
fn cleanup_takes_programs_off_an_interface_that_moved_away() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let ifindex = host.ifindex("lxc-client");
        replace_client(host);
        host.cleanup();
        let left = host
            .elsewhere
            .run(|| foreign::order(ifindex, BPF_TCX_INGRESS));
        assert!(left.is_empty(), "what moved has {left:?}");
    });
}

#[test]
fn cleanup_leaves_nothing() {
    on_host(|host| {
        let reconciler = host.start(Mechanism::Tcx);
        let links: BTreeSet<u32> = host.links().values().map(|link| link.id).collect();
        let mut maps: BTreeSet<u32> = host.map_ids(&host.pins().maps()).into_values().collect();
        maps.extend(host.table_ids().into_values());
        let programs = host.program_ids();
        drop(reconciler);
        let removed = host.cleanup();
        assert_eq!(removed.len(), 3, "two interfaces and the pins: {removed:?}");
        assert!(!host.root().exists(), "no pins");
        assert_eq!(attached(host), 0);
        wait_until_gone("links", &links, all_links);
        wait_until_gone("programs", &programs, all_programs);
        wait_until_gone("maps", &maps, all_maps);
        let again = host.cleanup();
        assert!(again.is_empty(), "nothing is left to remove: {again:?}");
    });
}

#[test]
fn cleanup_keeps_what_others_pinned_below_the_root() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let other = host.root().join("theirs");
        std::fs::create_dir(&other).unwrap();
        host.cleanup();
        assert_eq!(dpd::bpf::sys::pins::names(host.root()), ["theirs"]);
        assert!(!host.pins().version().exists());
    });
}

//! Attached by clsact filters, as on kernels before tcx: forced here, for every kernel still has them.

use dpd::bpf::attach::hook::Role;
use dpd::bpf::attach::{self, Mechanism};

use crate::common::foreign::{self, Does};
use crate::host::{CONFIG, Host, all_programs, on_host, wait_until_gone};

/// What `tc` shows on both hooks of an interface.
fn filters(host: &Host, interface: &str) -> [String; 2] {
    ["ingress", "egress"].map(|hook| host.tc(&format!("filter show dev {interface} {hook}")))
}

fn count(host: &Host, interface: &str) -> [usize; 2] {
    filters(host, interface).map(|text| text.matches("handle 0xd9d").count())
}

#[test]
fn packets_pass_both_hooks() {
    on_host(|host| {
        let _reconciler = host.start(Mechanism::Clsact);
        for interface in ["lxc-client", "lxc-server"] {
            assert_eq!(count(host, interface), [1, 1], "{interface}");
            let [ingress, egress] = filters(host, interface);
            // The kernel keeps 15 characters of a program's name.
            assert!(ingress.contains("dpd_from_contai"), "{ingress}");
            assert!(egress.contains("dpd_to_containe"), "{egress}");
            let found = attach::find(&host.pins(), host.ifindex(interface), Role::Endpoint);
            let mechanisms: Vec<_> = found.iter().map(|found| found.mechanism).collect();
            assert_eq!(mechanisms, [Mechanism::Clsact; 2]);
        }
        assert!(host.asks(), "the service answers");
        let [connection] = &host.connections()[..] else {
            panic!("one connection: {:?}", host.connections());
        };
        assert!(connection.backend.is_some(), "through the service");
        assert!(host.client_pings("10.200.0.44"), "workload to workload");
        let before = host.forwarded("lxc-client", "ingress");
        assert!(host.host_pings("10.200.0.64"), "host to workload");
        let after = host.forwarded("lxc-client", "ingress");
        assert!(after > before, "the host's packet met dpd_to_container");
    });
}

#[test]
fn a_daemon_that_takes_over_replaces_the_filters() {
    on_host(|host| {
        drop(host.start(Mechanism::Clsact));
        let programs = host.program_ids();
        assert!(host.asks(), "without a daemon");
        let _second = host.start(Mechanism::Clsact);
        assert_eq!(count(host, "lxc-client"), [1, 1], "in the old ones' place");
        wait_until_gone("the old load's programs", &programs, all_programs);
        assert!(host.asks(), "the new programs serve");
    });
}

#[test]
fn no_packet_meets_a_hook_without_its_filter_while_it_is_replaced() {
    use std::sync::atomic::{AtomicBool, Ordering};
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Clsact);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A service address that no route leads to: without the filter the question is lost.
            let asker = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) || asked == 0 {
                    assert!(host.asks(), "question {asked} is answered");
                    asked += 1;
                }
            });
            for _ in 0..3 {
                drop(reconciler);
                reconciler = host.start(Mechanism::Clsact);
            }
            done.store(true, Ordering::Relaxed);
            asker.join().expect("all questions are answered");
        });
    });
}

#[test]
fn an_interface_that_leaves_the_file_is_detached_also_by_the_next_daemon() {
    on_host(|host| {
        let without = CONFIG.replace("[interfaces.lxc-client]", "[interfaces.lxc-later]");
        let mut reconciler = host.start(Mechanism::Clsact);
        host.apply(&mut reconciler, &host.config(&without));
        assert!(!host.has_clsact("lxc-client"), "the qdisc was ours");
        assert!(host.has_clsact("lxc-server"));
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert!(host.has_clsact("lxc-client"));
        drop(reconciler);
        let config = host.config(&without);
        let mut second = host.take_over(&config, Mechanism::Clsact);
        host.apply(&mut second, &config);
        assert!(!host.has_clsact("lxc-client"), "the old daemon's qdisc");
    });
}

#[test]
fn removed_filters_are_attached_again() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Clsact);
        host.tc("qdisc del dev lxc-client clsact");
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert_eq!(count(host, "lxc-client"), [1, 1]);
        assert!(host.asks(), "the service answers");
    });
}

#[test]
fn cleanup_removes_filters_and_our_qdisc() {
    on_host(|host| {
        let ifindex = host.ifindex("lxc-server");
        host.tc("qdisc add dev lxc-server clsact"); // another tool's
        let reconciler = host.start(Mechanism::Clsact);
        let programs = host.program_ids();
        drop(reconciler);
        host.cleanup();
        assert!(!host.root().exists(), "no pins");
        assert!(!host.has_clsact("lxc-client"), "ours goes");
        assert!(host.has_clsact("lxc-server"), "theirs stays");
        assert_eq!(count(host, "lxc-server"), [0, 0], "without our filters");
        assert_eq!(attach::find(&host.pins(), ifindex, Role::Endpoint), []);
        wait_until_gone("programs", &programs, all_programs);
    });
}

#[test]
fn a_qdisc_that_replaced_ours_stays() {
    on_host(|host| {
        let replace = |interface: &str| {
            host.tc(&format!("qdisc del dev {interface} clsact"));
            host.tc(&format!("qdisc add dev {interface} clsact"));
        };
        let mut reconciler = host.start(Mechanism::Clsact);
        replace("lxc-client");
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert_eq!(count(host, "lxc-client"), [1, 1]);
        drop(reconciler);
        replace("lxc-server");
        drop(host.start(Mechanism::Clsact));
        assert_eq!(count(host, "lxc-server"), [1, 1]);
        host.cleanup();
        for interface in ["lxc-client", "lxc-server"] {
            assert!(host.has_clsact(interface), "{interface}: theirs stays");
            assert_eq!(count(host, interface), [0, 0], "{interface}");
        }
    });
}

#[test]
fn a_qdisc_of_ours_with_a_filter_removed_stays_ours() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Clsact);
        host.tc("filter del dev lxc-client ingress");
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert_eq!(count(host, "lxc-client"), [1, 1]);
        drop(reconciler);
        host.cleanup();
        assert!(!host.has_clsact("lxc-client"), "ours goes");
    });
}

#[test]
fn the_qdisc_stays_for_a_foreign_filter_in_it() {
    on_host(|host| {
        drop(host.start(Mechanism::Clsact));
        let other = foreign::program(c"other_tool", Does::Next);
        let mut filter = foreign::filter(host.ifindex("lxc-client"), &other);
        host.cleanup();
        assert!(host.has_clsact("lxc-client"), "it is in use");
        assert!(!host.has_clsact("lxc-server"), "nobody uses it");
        assert_eq!(count(host, "lxc-client"), [0, 0]);
        assert!(filter.query().is_ok(), "the foreign filter is untouched");
        filter.detach().unwrap();
    });
}

#[test]
fn both_hooks_have_a_filter_and_foreign_ones_see_what_we_pass_on() {
    on_host(|host| {
        let _reconciler = host.start(Mechanism::Clsact);
        let found = attach::find(&host.pins(), host.ifindex("lxc-client"), Role::Endpoint);
        let programs: Vec<_> = found.iter().map(|found| found.program).collect();
        assert_eq!(programs, Role::Endpoint.hooks());
        assert!(host.client_pings("10.200.0.1"), "the host answers");
        let other = foreign::program(c"other_tool", Does::Drop);
        let _filter = foreign::filter(host.ifindex("lxc-client"), &other);
        assert!(!host.client_pings("10.200.0.1"), "it drops what we passed");
    });
}

//! Who has the programs and is no endpoint is let alone, whatever comes between: a kill, a refusal, another change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::io::Errno;

use crate::failure::with_a_vanished_interface;
use crate::host::{CONFIG, Host, on_host};

/// The configuration without its client.
fn without_client() -> String {
    let mut tables = CONFIG.split("\n[");
    let its = tables.find(|table| table.starts_with("interfaces.lxc-client]"));
    CONFIG.replace(&format!("\n[{}", its.expect("its table")), "")
}

/// The client has the way to the host that it has without dpd.
fn assert_let_alone(host: &Host, when: &str) {
    assert!(host.client_pings("10.200.0.1"), "{when}");
}

/// Refuses operations that begin with these words.
fn refuse(words: String) -> gate::Kept {
    gate::keep(Arc::new(move |operation| {
        match operation.starts_with(&words) {
            true => Err(Errno::NOMEM.into()),
            false => Ok(()),
        }
    }))
}

#[test]
fn one_whose_programs_can_not_be_taken_off() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let links = host.pins().links();
        let its = links.join(format!("{}-", host.ifindex("lxc-client")));
        let kept = refuse(format!("detach the link {}", its.display()));
        let without = without_client();
        host.apply(&mut reconciler, &host.config(&without));
        assert!(reconciler.is_unfinished());
        assert_let_alone(host, "when it has left");
        let (config, world) = with_a_vanished_interface(host, &without);
        host.refused(&mut reconciler, &config, &world);
        assert_let_alone(host, "after a change that was refused");
        host.apply(&mut reconciler, &host.config(&without));
        assert_let_alone(host, "with the next look");
        drop(kept);
        host.apply(&mut reconciler, &host.config(&without));
        assert!(!reconciler.is_unfinished());
        assert_eq!(host.links().len(), 2, "its links are gone at last");
        assert_let_alone(host, "without programs");
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert!(host.asks_anew(), "it is served when it is back");
    });
}

#[test]
fn one_that_was_leaving_when_the_daemon_was_killed() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let without = without_client();
        let kept = refuse("detach the link".to_owned());
        host.apply(&mut reconciler, &host.config(&without));
        drop(kept);
        drop(reconciler);
        assert_let_alone(host, "after the kill");
        let (config, world) = with_a_vanished_interface(host, &without);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut second, &config, &world);
        assert_let_alone(host, "after a start that failed");
        drop(second);
        assert_let_alone(host, "when that daemon has gone");
        let config = host.config(&without);
        host.apply(&mut host.take_over(&config, Mechanism::Tcx), &config);
        assert_eq!(host.links().len(), 2, "its links are gone at last");
    });
}

#[test]
fn one_that_was_joining_when_the_daemon_was_killed() {
    on_host(|host| {
        let config = host.config(&without_client());
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut reconciler, &config);
        let (with, world) = (host.config(CONFIG), host.world());
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let _ = reconciler.apply(&with, &world, |_, _| panic!("killed before the switch"));
        }));
        assert!(killed.is_err());
        drop(reconciler);
        assert_eq!(host.links().len(), 4, "it has programs");
        assert_let_alone(host, "after the kill");
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut second, &config, &world);
        assert_let_alone(host, "after a start that failed");
        drop(second);
        assert_let_alone(host, "when that daemon has gone");
        let config = host.config(CONFIG);
        host.apply(&mut host.take_over(&config, Mechanism::Tcx), &config);
        assert!(host.asks_anew(), "it has joined at last");
    });
}

#[test]
fn an_uplink_that_becomes_an_endpoint() {
    on_host(|host| {
        let uplink = "\n[interfaces.lxc-client]\nrole = \"uplink\"\n";
        let config = host.config(&(without_client() + uplink));
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut reconciler, &config);
        assert_let_alone(host, "as an uplink");
        let mut has_switched = false;
        let before_the_switch = |_, _| {
            assert_let_alone(host, "with the programs of an endpoint, before the switch");
            has_switched = true;
        };
        let done = reconciler.apply(&host.config(CONFIG), &host.world(), before_the_switch);
        done.expect("apply");
        assert!(has_switched && host.asks_anew());
    });
}

/// As a daemon leaves it that was killed in the middle of a very large change.
#[test]
fn rows_of_others_are_in_nobodys_way() {
    on_host(|host| {
        let config = host.config(&without_client());
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut reconciler, &config);
        drop(reconciler);
        let map = MapHandle::from_pinned_path(host.pins().map("dpd_unmanaged")).expect("open it");
        for ifindex in 1_000_000..1_000_000 + map.max_entries() {
            let (key, value) = (ifindex.to_ne_bytes(), u64::MAX.to_ne_bytes());
            map.update(&key, &value, MapFlags::ANY).expect("fill it");
        }
        let config = host.config(CONFIG);
        host.apply(&mut host.take_over(&config, Mechanism::Tcx), &config);
        assert!(host.asks_anew());
        assert_eq!(map.keys().count(), 0, "nobody is outside");
    });
}

#[test]
fn who_is_served_goes_on_being_served_where_a_daemon_can_not_take_over() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let config = host.config(CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        let links = host.pins().links();
        let its = links.join(format!("{}-", host.ifindex("lxc-client")));
        let kept = refuse(format!("update the link {}", its.display()));
        host.refused(&mut second, &config, &host.world());
        drop(kept);
        assert!(second.serves("lxc-client"), "by the programs that it has");
        assert!(!second.serves("lxc-late"), "there is no such interface");
        assert!(host.asks_anew());
        host.namespace.ip("link del lxc-client");
        assert!(!second.serves("lxc-client"));
    });
}

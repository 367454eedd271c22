//! An interface that appears after it was declared is closed from its programs on until it is an endpoint, also after a kill,
//! a rollback or another change. One that ran before keeps running.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dpd::bpf::attach::{Mechanism, unmanaged};
use dpd::bpf::sys::call::{FaultGuard, inject_faults};
use dpd::bpf::sys::op::Op;
use dpd::model::host::HostState;
use dpd::reconcile::Reconciler;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::io::Errno;

use crate::failure::with_a_vanished_interface;
use crate::host::{CONFIG, Host, on_host};

const NO_CONFIGURATION: u8 = 165;

/// The host as it is, but for the client's interface.
fn without_client(host: &Host) -> HostState {
    let mut world = host.world();
    world.links.remove("lxc-client").expect("its interface");
    world
}

/// A datapath whose client is declared, and has no interface yet.
fn with_pending_client(host: &Host, mechanism: Mechanism) -> Reconciler {
    let config = host.config(CONFIG);
    let mut reconciler = host.take_over(&config, mechanism);
    let done = reconciler.apply(&config, &without_client(host), |_, _| {});
    done.expect("apply");
    assert!(!reconciler.serves("lxc-client"));
    assert!(host.client_pings("10.200.0.1"), "it has no programs");
    assert!(host.host_pings("10.200.0.64"), "it has no programs");
    reconciler
}

/// Drops of the client for want of a configuration: what it sends, and what it gets.
fn drops(host: &Host) -> [u64; 2] {
    let client = host.ifindex("lxc-client");
    let drops = host.reader().drops().expect("read the counters");
    ["egress", "ingress"].map(|direction| {
        let of_client = drops.iter().filter(|row| row.ifindex == client);
        let counted = of_client
            .filter(|row| row.reason == NO_CONFIGURATION && row.direction == direction)
            .map(|row| row.packets);
        counted.sum()
    })
}

/// Nothing of the client's passes, in either direction, and that is counted.
fn assert_closed(host: &Host, when: &str) {
    let before = drops(host);
    assert!(!host.client_pings("10.200.0.1"), "{when}");
    assert!(!host.host_pings("10.200.0.64"), "{when}");
    let after = drops(host);
    assert!(
        before[0] < after[0] && before[1] < after[1],
        "{when}: {before:?} {after:?}"
    );
}

/// Applies `CONFIG` to the host; `look` sees the moment before the commit.
fn apply_and_look(host: &Host, reconciler: &mut Reconciler, look: impl Fn(&str)) {
    let mut has_committed = false;
    let before_the_commit = |_, _| {
        look("before the commit");
        has_committed = true;
    };
    let done = reconciler.apply(&host.config(CONFIG), &host.world(), before_the_commit);
    done.expect("apply");
    assert!(has_committed && reconciler.serves("lxc-client"));
    // The client's kernel may wait a second before it repeats an ARP request that had no reply.
    let mut asks = (0..5).map(|_| host.asks_anew());
    assert!(asks.any(|is_answered| is_answered), "it is served");
    assert!(host.client_pings("10.200.0.44"), "it is served");
}

/// Makes operations fail.
fn fail(is_due: impl Fn(&Op<'_>) -> bool + Send + Sync + 'static) -> FaultGuard {
    inject_faults(Arc::new(move |op| match is_due(op) {
        true => Err(Errno::NOMEM.into()),
        false => Ok(()),
    }))
}

fn appears(host: &Host, mechanism: Mechanism) {
    let mut reconciler = with_pending_client(host, mechanism);
    apply_and_look(host, &mut reconciler, |when| assert_closed(host, when));
}

#[test]
fn one_that_appears_by_tcx() {
    on_host(|host| appears(host, Mechanism::Tcx));
}

#[test]
fn one_that_appears_by_clsact() {
    on_host(|host| appears(host, Mechanism::Clsact));
}

/// Between two looks at the host: it was never pending.
#[test]
fn one_that_is_replaced() {
    on_host(|host| {
        host.namespace.ip("link add elsewhere type bridge");
        let mut world = host.world();
        let ifindex = world.links["elsewhere"].ifindex;
        world.links.get_mut("lxc-client").expect("it").ifindex = ifindex;
        let config = host.config(CONFIG);
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        let done = reconciler.apply(&config, &world, |_, _| {});
        done.expect("apply");
        apply_and_look(host, &mut reconciler, |when| assert_closed(host, when));
    });
}

#[test]
fn one_that_appears_while_no_daemon_runs() {
    on_host(|host| {
        drop(with_pending_client(host, Mechanism::Tcx));
        let config = host.config(CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        apply_and_look(host, &mut second, |when| assert_closed(host, when));
    });
}

#[test]
fn one_that_was_joining_when_the_daemon_was_killed() {
    on_host(|host| {
        let mut reconciler = with_pending_client(host, Mechanism::Tcx);
        let (config, world) = (host.config(CONFIG), host.world());
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let _ = reconciler.apply(&config, &world, |_, _| panic!("killed before the commit"));
        }));
        assert!(killed.is_err());
        drop(reconciler);
        assert_eq!(host.links().len(), 4, "it has programs");
        assert_closed(host, "after the kill");
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut second, &config, &world);
        assert_closed(host, "after a start that failed");
        drop(second);
        assert_closed(host, "when that daemon has gone");
        let mut third = host.take_over(&host.config(CONFIG), Mechanism::Tcx);
        apply_and_look(host, &mut third, |when| assert_closed(host, when));
    });
}

/// As a daemon leaves it that was killed while the interface left the file.
#[test]
fn one_that_was_unmanaged_before() {
    on_host(|host| {
        drop(with_pending_client(host, Mechanism::Tcx));
        let map = MapHandle::from_pinned_path(host.pins().map("dpd_unmanaged")).expect("open it");
        let key = host.ifindex("lxc-client").to_ne_bytes();
        let forever = unmanaged::FOREVER.to_ne_bytes();
        map.update(&key, &forever, MapFlags::ANY).expect("mark it");
        let mut second = host.take_over(&host.config(CONFIG), Mechanism::Tcx);
        apply_and_look(host, &mut second, |when| assert_closed(host, when));
    });
}

#[test]
fn a_change_that_is_refused_takes_the_programs_off_again() {
    on_host(|host| {
        let mut reconciler = with_pending_client(host, Mechanism::Tcx);
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        host.refused(&mut reconciler, &config, &world);
        assert_eq!(host.links().len(), 2, "it has no programs");
        assert!(host.client_pings("10.200.0.1"), "as before");
        apply_and_look(host, &mut reconciler, |when| assert_closed(host, when));
    });
}

#[test]
fn one_whose_programs_can_not_be_taken_off_stays_closed() {
    on_host(|host| {
        let mut reconciler = with_pending_client(host, Mechanism::Tcx);
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        let guard = fail(|op| matches!(op, Op::DetachLink { .. }));
        host.refused(&mut reconciler, &config, &world);
        drop(guard);
        assert_eq!(host.links().len(), 3, "it keeps that of what it sends");
        assert!(
            !host.client_pings("10.200.0.1"),
            "nothing that it sends passes"
        );
        let without = host.config(&without_table(CONFIG));
        let while_it_leaves = fail(|op| matches!(op, Op::DetachLink { .. }));
        host.apply(&mut reconciler, &without);
        assert!(host.client_pings("10.200.0.1"), "it has left the file");
        drop(while_it_leaves);
        host.apply(&mut reconciler, &without);
        assert_eq!(host.links().len(), 2, "its links are gone at last");
        let ran_before = |when: &str| assert!(host.client_pings("10.200.0.1"), "{when}");
        apply_and_look(host, &mut reconciler, ran_before);
    });
}

/// The configuration without its client.
fn without_table(text: &str) -> String {
    let mut tables = text.split("\n[");
    let its = tables.find(|table| table.starts_with("interfaces.lxc-client]"));
    text.replace(&format!("\n[{}", its.expect("its table")), "")
}

/// It runs without programs meanwhile: each retry would cut it off for a moment.
#[test]
fn one_that_the_kernel_has_refused_keeps_running() {
    on_host(|host| {
        let mut reconciler = with_pending_client(host, Mechanism::Tcx);
        let refuse = || fail(|op| matches!(op, Op::CreateLink { hook: "egress" }));
        let guard = refuse();
        host.refused(&mut reconciler, &host.config(CONFIG), &host.world());
        drop(guard);
        let runs = |when: &str| assert!(host.client_pings("10.200.0.1"), "{when}");
        runs("without programs");
        apply_and_look(host, &mut reconciler, runs);

        // One more time, it is new.
        let done = reconciler.apply(&host.config(CONFIG), &without_client(host), |_, _| {});
        done.expect("apply");
        apply_and_look(host, &mut reconciler, |when| assert_closed(host, when));
    });
}

/// An endpoint under another name of the file: it is judged as that one until the commit.
#[test]
fn one_that_is_renamed_is_served_all_the_time() {
    on_host(|host| {
        let late = "\n[interfaces.lxc-late]\nrole = \"endpoint\"\naddresses = [\"10.200.0.66\"]\nidentity = \"client\"\n";
        let config = host.config(&format!("{CONFIG}{late}"));
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut reconciler, &config);
        let mut world = host.world();
        let client = world.links.remove("lxc-client").expect("it");
        world.links.insert("lxc-late".to_owned(), client);
        let mut has_committed = false;
        let before_the_commit = |_, _| {
            assert!(host.asks_anew(), "before the commit");
            has_committed = true;
        };
        let done = reconciler.apply(&config, &world, before_the_commit);
        done.expect("apply");
        assert!(has_committed);
        assert!(!host.asks_anew(), "it has another address now");
    });
}

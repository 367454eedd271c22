//! Interfaces that have the programs and are no endpoints are unmanaged, also after a kill, a rollback or another change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use dpd::bpf::attach::Mechanism;
use dpd::bpf::sys::call::{FaultGuard, inject_faults};
use dpd::bpf::sys::op::Op;
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

/// The client reaches the host as without dpd.
fn assert_unmanaged(host: &Host, when: &str) {
    assert!(host.client_pings("10.200.0.1"), "{when}");
}

/// Makes operations fail.
fn fail(is_due: impl Fn(&Op<'_>) -> bool + Send + Sync + 'static) -> FaultGuard {
    inject_faults(Arc::new(move |op| match is_due(op) {
        true => Err(Errno::NOMEM.into()),
        false => Ok(()),
    }))
}

/// The links of the client.
fn is_of(path: &Path, ifindex: u32) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(&format!("{ifindex}-")))
}

#[test]
fn one_whose_programs_can_not_be_detached() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let client = host.ifindex("lxc-client");
        let guard = fail(move |op| matches!(op, Op::DetachLink { path } if is_of(path, client)));
        let without = without_client();
        host.apply(&mut reconciler, &host.config(&without));
        assert!(reconciler.is_unfinished());
        assert_unmanaged(host, "when it has left");
        let (config, world) = with_a_vanished_interface(host, &without);
        host.refused(&mut reconciler, &config, &world);
        assert_unmanaged(host, "after a change that was refused");
        host.apply(&mut reconciler, &host.config(&without));
        assert_unmanaged(host, "with the next look");
        drop(guard);
        host.apply(&mut reconciler, &host.config(&without));
        assert!(!reconciler.is_unfinished());
        assert_eq!(host.links().len(), 2, "its links are gone at last");
        assert_unmanaged(host, "without programs");
        host.apply(&mut reconciler, &host.config(CONFIG));
        assert!(host.asks_anew(), "it is served when it is back");
    });
}

#[test]
fn one_that_was_leaving_when_the_daemon_was_killed() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let without = without_client();
        let guard = fail(|op| matches!(op, Op::DetachLink { .. }));
        host.apply(&mut reconciler, &host.config(&without));
        drop(guard);
        drop(reconciler);
        assert_unmanaged(host, "after the kill");
        let (config, world) = with_a_vanished_interface(host, &without);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut second, &config, &world);
        assert_unmanaged(host, "after a start that failed");
        drop(second);
        assert_unmanaged(host, "when that daemon has gone");
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
            let _ = reconciler.apply(&with, &world, |_, _| panic!("killed before the commit"));
        }));
        assert!(killed.is_err());
        drop(reconciler);
        assert_eq!(host.links().len(), 4, "it has programs");
        assert_unmanaged(host, "after the kill");
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut second, &config, &world);
        assert_unmanaged(host, "after a start that failed");
        drop(second);
        assert_unmanaged(host, "when that daemon has gone");
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
        assert_unmanaged(host, "as an uplink");
        let mut has_committed = false;
        let before_the_commit = |_, _| {
            assert_unmanaged(host, "with the programs of an endpoint, before the commit");
            has_committed = true;
        };
        let done = reconciler.apply(&host.config(CONFIG), &host.world(), before_the_commit);
        done.expect("apply");
        assert!(has_committed && host.asks_anew());
    });
}

/// As a daemon leaves it that was killed in the middle of a very large change.
#[test]
fn a_map_that_is_full_of_old_rows_is_emptied() {
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
        assert_eq!(map.keys().count(), 0, "no interface is unmanaged");
    });
}

#[test]
fn workloads_stay_served_where_a_daemon_can_not_take_over() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let config = host.config(CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        let client = host.ifindex("lxc-client");
        let guard = fail(move |op| matches!(op, Op::UpdateLink { path } if is_of(path, client)));
        host.refused(&mut second, &config, &host.world());
        drop(guard);
        assert!(second.serves("lxc-client"), "by the programs that it has");
        assert!(!second.serves("lxc-late"), "there is no such interface");
        assert!(host.asks_anew());
        host.namespace.ip("link del lxc-client");
        assert!(!second.serves("lxc-client"));
    });
}

//! A change that fails midway is rolled back, its error names the reason, and the next change succeeds.

use std::fs;
use std::sync::Arc;

use dpd::bpf::attach::hook::Role;
use dpd::bpf::attach::{self, Mechanism};
use dpd::bpf::sys::call::inject_faults;
use dpd::bpf::sys::op::Op;
use dpd::bpf::sys::pins::Pins;
use dpd::config::Config;
use dpd::model::host::HostState;
use rustix::mount::MountFlags;

use crate::host::{CONFIG, Host, Picture, on_host};

/// A second name for an interface that is not there, last of all that are attached.
pub fn with_a_vanished_interface(host: &Host, base: &str) -> (Config, HostState) {
    let config = host.config(&format!(
        "{base}\n[interfaces.lxc-vanished]\nrole = \"endpoint\"\naddresses = [\"10.200.0.66\"]\nidentity = \"client\"\n"
    ));
    let mut world = host.world();
    let mut link = world.links["lxc-client"].clone();
    link.ifindex = 999_999;
    world.links.insert("lxc-vanished".to_owned(), link);
    (config, world)
}

/// Each way to fail, on a datapath that runs.
fn failures(host: &Host) -> Vec<(&'static str, Config, HostState, &'static [&'static str])> {
    let (vanished, world_before) = with_a_vanished_interface(host, CONFIG);
    let size = "[conntrack]\nsize = 4096\n";
    let (resized, _) = with_a_vanished_interface(host, &format!("{CONFIG}{size}"));
    let mut huge = host.config(CONFIG);
    huge.conntrack.size = 1 << 29;
    vec![
        (
            "an interface that vanishes between the look and the attaching",
            vanished,
            world_before.clone(),
            &[
                "interface lxc-vanished",
                "dpd_from_container",
                "No such device",
            ],
        ),
        (
            "the same with another size of conntrack, for which new programs were attached already",
            resized,
            world_before,
            &["interface lxc-vanished", "No such device"],
        ),
        (
            "a table of connections that no memory holds",
            huge,
            host.world(),
            &["dpd_ct_tcp", "failed to create"],
        ),
    ]
}

fn check_failures(host: &Host, mechanism: Mechanism) {
    let mut reconciler = host.start(mechanism);
    assert!(host.asks(), "the service answers");
    let before = Picture::of(host);
    for (what, config, world, words) in failures(host) {
        let mut announced = None;
        let error = host.refused(&mut reconciler, &config, &world);
        let _ = reconciler.apply(&config, &world, |epoch, _| announced = Some(epoch));
        assert_eq!(announced, None, "{what}");
        for word in words {
            assert!(error.contains(word), "{what}: {error}");
        }
        Picture::of(host).assert_still(&before, what);
        assert!(host.asks(), "{what}: the service answers");
        let found = attach::find(&host.pins(), host.ifindex("lxc-client"), Role::Endpoint);
        assert_eq!(found.len(), 2, "{what}: both hooks are there");
    }
    let good = host.changed("20001", "20009");
    let applied = host.apply(&mut reconciler, &good);
    assert_eq!(applied.epoch, before.epoch + 1, "the next good one works");
    assert!(host.asks(), "and serves");
}

#[test]
fn a_refused_change_leaves_all_as_it_was_with_tcx() {
    on_host(|host| check_failures(host, Mechanism::Tcx));
}

#[test]
fn a_refused_change_leaves_all_as_it_was_with_clsact() {
    on_host(|host| {
        check_failures(host, Mechanism::Clsact);
        let held = attach::held(&host.pins());
        assert_eq!(held.len(), 2, "the vanished one left no mark: {held:?}");
    });
}

#[test]
fn a_bpffs_that_became_read_only() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let before = Picture::of(host);
        let place = "/sys/fs/bpf";
        let config = host.changed("20001", "20009");
        let rows = [
            ("a change", config.clone()),
            (
                "a change that loads programs",
                host.config(&format!("{CONFIG}[conntrack]\nsize = 4096\n")),
            ),
        ];
        for (what, config) in rows {
            rustix::mount::mount_remount(place, MountFlags::RDONLY, "").unwrap();
            let error = host.refused(&mut reconciler, &config, &host.world());
            rustix::mount::mount_remount(place, MountFlags::empty(), "").unwrap();
            assert!(
                error.contains(place),
                "{what}: the path is missing: {error}"
            );
            assert!(error.contains("Read-only"), "{what}: {error}");
            Picture::of(host).assert_still(&before, what);
        }
        host.apply(&mut reconciler, &config);
        assert_eq!(host.reader().epoch().unwrap(), before.epoch + 1);
        assert!(host.asks(), "the service answers");
    });
}

#[test]
fn a_daemon_that_fails_to_take_over_leaves_the_old_programs_on_their_hooks() {
    for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
        on_host(|host| {
            drop(host.start(mechanism));
            let before = Picture::of(host);
            let (config, world) = with_a_vanished_interface(host, CONFIG);
            for attempt in 1..=2 {
                let mut second = host.take_over(&config, mechanism);
                host.refused(&mut second, &config, &world);
                drop(second);
                Picture::of(host).assert_still(&before, &format!("attempt {attempt}"));
                assert!(host.asks(), "attempt {attempt}: the service answers");
            }
            let _third = host.start(mechanism);
            assert!(host.asks(), "the next good one works");
        });
    }
}

#[test]
fn a_load_that_a_kill_left_without_programs_is_ignored() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        fs::create_dir(host.pins().load(2)).unwrap();
        let before = Picture::of(host);
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut second, &config, &world);
        drop(second);
        Picture::of(host).assert_still(&before, "the programs are those that were");
        assert!(host.asks(), "the service answers");
        let _third = host.start(Mechanism::Tcx);
        assert_eq!(Pins::numbers(&host.pins().loads()).len(), 1);
    });
}

/// The last step of a load that can fail: nothing of it is left.
#[test]
fn tables_to_migrate_to_that_can_not_be_opened() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let before = Picture::of(host);
        let last = host.pins().next().map("dpd_ct_unreplied");
        let guard = inject_faults(Arc::new(move |op| match op {
            Op::OpenMap { path } if *path == last => Err(std::io::ErrorKind::OutOfMemory.into()),
            _ => Ok(()),
        }));
        let config = host.config(&format!("{CONFIG}[conntrack]\nsize = 4096\n"));
        host.refused(&mut reconciler, &config, &host.world());
        drop(guard);
        Picture::of(host).assert_still(&before, "nothing has changed");
        assert_eq!(
            dpd::bpf::sys::pins::names(host.root()),
            [host.pins().name()],
            "no folder is left"
        );
    });
}

/// With a new `dpd_live` epochs would start again, and connections that an earlier configuration allowed would pass.
#[test]
fn a_live_epoch_that_was_unpinned_while_no_daemon_ran() {
    type Loses = fn(&Host);
    let rows: [(&str, Loses, bool); 3] = [
        (
            "the epoch alone",
            |host| fs::remove_file(host.pins().map("dpd_live")).unwrap(),
            true,
        ),
        (
            "the maps",
            |host| fs::remove_dir_all(host.pins().maps()).unwrap(),
            true,
        ),
        (
            "the epoch and the programs",
            |host| {
                fs::remove_file(host.pins().map("dpd_live")).unwrap();
                fs::remove_dir_all(host.pins().loads()).unwrap();
            },
            false,
        ),
    ];
    for (what, loses, goes_on) in rows {
        on_host(|host| {
            drop(host.start(Mechanism::Tcx));
            assert!(host.asks(), "{what}: a connection");
            loses(host);
            assert!(host.asks(), "{what}: the datapath goes on");
            let denied = host.changed("53/udp\"] }", "5353/udp\"] }");
            let mut second = host.take_over(&denied, Mechanism::Tcx);
            assert_eq!(second.epoch(), u64::from(goes_on), "{what}");
            host.apply(&mut second, &denied);
            assert!(!host.asks(), "{what}: the connection is denied by now");
            assert_eq!(second.epoch(), 1 + u64::from(goes_on), "{what}");
            host.apply(&mut second, &host.config(CONFIG));
            assert!(host.asks_anew(), "{what}: the service answers");
            drop(second);
            drop(host.start(Mechanism::Tcx));
            assert_eq!(host.reader().epoch().unwrap(), 3 + u64::from(goes_on));
        });
    }
}

#[test]
fn a_first_start_that_fails_attaches_nothing() {
    on_host(|host| {
        let (config, world) = with_a_vanished_interface(host, CONFIG);
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        host.refused(&mut reconciler, &config, &world);
        assert_eq!(reconciler.epoch(), 0);
        assert!(reconciler.live().is_none());
        assert!(attach::held(&host.pins()).is_empty());
        assert!(
            Pins::numbers(&host.pins().generations()).is_empty(),
            "the tables that were live for a moment are gone"
        );
        drop(reconciler);
        assert!(Pins::numbers(&host.pins().loads()).is_empty());
        let _reconciler = host.start(Mechanism::Tcx);
        assert!(host.asks(), "the next good one works");
    });
}

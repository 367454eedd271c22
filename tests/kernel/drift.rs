//! What something else does to the datapath is found by cheap checks, repaired by the next apply, and reported once.

use std::fs;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

use dpd::bpf::abi;
use dpd::bpf::attach::hook::Role;
use dpd::bpf::attach::{self, Mechanism};
use dpd::bpf::sys::pins;
use dpd::bpf::tables::table::TABLES;
use dpd::model::status::DriftKind::{self, Attachment, Epoch, Pin, Table};
use dpd::reconcile::Reconciler;
use libbpf_rs::{ErrorKind, Link, MapCore, MapFlags, MapHandle, Program};

use crate::common::foreign::{self, Does};
use crate::host::{CONFIG, Host, on_host};

/// Expects that a change of a running datapath is found and repaired; returns what was reported.
fn repaired(
    host: &Host,
    reconciler: &mut Reconciler,
    what: &str,
    expected: &[DriftKind],
) -> Vec<String> {
    assert!(reconciler.has_drifted(), "{what}: it is found");
    host.apply(reconciler, &host.config(CONFIG));
    let repaired = reconciler.take_repaired();
    let kinds: Vec<DriftKind> = repaired.iter().map(|drift| drift.kind).collect();
    assert_eq!(kinds, expected, "{what}: {repaired:?}");
    assert!(!reconciler.has_drifted(), "{what}: it is repaired");
    for interface in ["lxc-client", "lxc-server"] {
        let found = attach::find(&host.pins(), host.ifindex(interface), Role::Endpoint);
        assert_eq!(found.len(), 2, "{what}: {interface} has its programs");
    }
    assert!(host.asks(), "{what}: the service answers");
    repaired.into_iter().map(|drift| drift.what).collect()
}

fn live_slot(host: &Host) -> [u8; 4] {
    let epoch = host.reader().epoch().unwrap();
    (epoch as u32 & 1).to_ne_bytes()
}

fn outer(host: &Host, name: &str) -> MapHandle {
    MapHandle::from_pinned_path(host.pins().map(name)).expect("open an outer map")
}

fn set_live(host: &Host, epoch: u64) {
    let live = MapHandle::from_pinned_path(host.pins().map("dpd_live")).expect("open dpd_live");
    live.update(&0u32.to_ne_bytes(), &epoch.to_ne_bytes(), MapFlags::ANY)
        .expect("write dpd_live");
}

/// A directory that has not changed for a while is not read.
#[test]
fn a_pin_deleted_after_a_long_time_is_found_in_every_directory() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let pins = host.pins();
        let [load] = pins::Pins::numbers(&pins.loads())[..] else {
            panic!("one load");
        };
        let folders = [
            pins.maps(),
            pins.load(load),
            pins.generation(reconciler.epoch()),
            pins.links(),
        ];
        for folder in folders {
            let names = pins::names(&folder);
            let (first, last) = (
                &folder.join(&names[0]),
                &folder.join(&names[names.len() - 1]),
            );
            let rest = || {
                let long_ago = SystemTime::now() - Duration::from_secs(3600);
                let folder = fs::File::open(&folder).expect("open a folder of pins");
                folder.set_modified(long_ago).expect("set its time");
            };
            rest();
            assert!(!reconciler.has_drifted(), "{}", folder.display());
            fs::remove_file(first).expect("unpin");
            let what = format!("the first of {} goes", folder.display());
            repaired(host, &mut reconciler, &what, &[Pin]);
            rest();
            assert!(!reconciler.has_drifted(), "{}", folder.display());
            fs::rename(last, first).expect("put one in the place of another");
            let what = format!(
                "the last of {} takes the place of the first",
                folder.display()
            );
            repaired(host, &mut reconciler, &what, &[Pin, Pin]);
        }
    });
}

#[test]
fn the_rows_of_a_table_are_read_only() {
    on_host(|host| {
        let _reconciler = host.start(Mechanism::Tcx);
        let epoch = host.reader().epoch().unwrap();
        let generation = host.pins().generation(epoch);
        let paths: Vec<_> = pins::names(&generation)
            .iter()
            .map(|name| generation.join(name))
            .collect();
        assert_eq!(paths.len(), TABLES.len() + 1, "the tables and the catalog");
        for path in paths {
            let map = MapHandle::from_pinned_path(&path).expect("open a table");
            let key = map
                .keys()
                .next()
                .unwrap_or(vec![0; map.key_size() as usize]);
            let value = vec![0; map.value_size() as usize];
            let refused = [
                map.update(&key, &value, MapFlags::ANY),
                map.delete(&key),
                map.update_batch(&key, &value, 1, MapFlags::ANY, MapFlags::ANY),
            ];
            for done in refused {
                let error = done.expect_err(&format!("{} was written", path.display()));
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            }
        }
        assert!(host.asks(), "the service answers");
    });
}

#[test]
fn deleted_pins_are_restored_without_effect_on_packets() {
    type Deletes = fn(&Host);
    // (what is done, how, how many pins that is; 0: all)
    let rows: [(&str, Deletes, usize); 8] = [
        (
            "the pin of a table of connections",
            |host| fs::remove_file(host.pins().map("dpd_ct_other")).unwrap(),
            1,
        ),
        (
            "the pin of a step of the chain",
            |host| fs::remove_file(host.pins().load(1).join("tail_lb")).unwrap(),
            1,
        ),
        (
            "the pin of the chain itself",
            |host| fs::remove_file(host.pins().load(1).join("dpd_calls")).unwrap(),
            1,
        ),
        (
            "the pin of a link",
            |host| {
                let name = format!("{}-ingress", host.ifindex("lxc-client"));
                fs::remove_file(host.pins().links().join(name)).unwrap();
            },
            1,
        ),
        (
            "another object in a pin's place",
            |host| {
                let path = host.pins().map("dpd_ct_tcp");
                fs::remove_file(&path).unwrap();
                outer(host, "dpd_policy").pin(&path).unwrap();
            },
            1,
        ),
        (
            "the folder of the generation",
            |host| {
                let epoch = host.reader().epoch().unwrap();
                fs::remove_dir_all(host.pins().generation(epoch)).unwrap();
            },
            TABLES.len() + 1, // and the catalog
        ),
        (
            "the folder of the links",
            |host| fs::remove_dir_all(host.pins().links()).unwrap(),
            4,
        ),
        (
            "the root",
            |host| fs::remove_dir_all(host.root()).unwrap(),
            0,
        ),
    ];
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let epoch = reconciler.epoch();
        let pins = host.pins();
        let folders = [
            pins.maps(),
            pins.load(1),
            pins.generation(epoch),
            pins.links(),
        ];
        let objects = || {
            let maps = folders.each_ref().map(|folder| host.map_ids(folder));
            (maps, host.program_ids(), host.link_ids())
        };
        let before = objects();
        let all: usize = folders.iter().map(|folder| pins::names(folder).len()).sum();
        for (what, delete, count) in rows {
            delete(host);
            assert!(host.asks(), "{what}: no effect on packets");
            let count = if count == 0 { all } else { count };
            let reported = repaired(host, &mut reconciler, what, &vec![Pin; count]);
            assert!(
                reported
                    .iter()
                    .all(|reported| reported.ends_with("was not pinned")),
                "{reported:?}"
            );
            assert_eq!(objects(), before, "{what}: all is the same object again");
        }
        let error = Reconciler::start(&host.config(CONFIG))
            .err()
            .expect("a second daemon is refused");
        assert!(error.to_string().contains("is at work on"), "{error:#}");
    });
}

#[test]
fn a_table_that_is_not_in_its_slot_is_put_back() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let epoch = reconciler.epoch();
        outer(host, "dpd_policy").delete(&live_slot(host)).unwrap();
        assert!(!host.asks(), "without policy nothing passes");
        let reported = repaired(host, &mut reconciler, "a slot is emptied", &[Table]);
        assert_eq!(reported, ["the table policy was not in its slot"]);

        use std::os::fd::{AsFd, AsRawFd};
        let path = host.pins().generation(epoch).join("ipcache");
        let identities = MapHandle::from_pinned_path(path).unwrap();
        let empty = MapHandle::create(
            identities.map_type(),
            Some("foreign"),
            identities.key_size(),
            identities.value_size(),
            1,
            &libbpf_rs::libbpf_sys::bpf_map_create_opts {
                sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
                map_flags: identities.info().unwrap().info.map_flags,
                ..Default::default()
            },
        )
        .unwrap();
        let fd = empty.as_fd().as_raw_fd() as u32;
        outer(host, "dpd_ipcache")
            .update(&live_slot(host), &fd.to_ne_bytes(), MapFlags::ANY)
            .unwrap();
        repaired(
            host,
            &mut reconciler,
            "a slot holds another table",
            &[Table],
        );
        assert_eq!(reconciler.epoch(), epoch, "it is no new generation");
    });
}

#[test]
fn a_missing_step_of_the_chain_is_restored() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let calls = MapHandle::from_pinned_path(host.pins().load(1).join("dpd_calls")).unwrap();
        let place = |step: abi::step| step.0.to_ne_bytes();
        calls.delete(&place(abi::step::STEP_LB)).unwrap();
        let reported = repaired(host, &mut reconciler, "an empty place", &[Table]);
        assert_eq!(reported, ["tail_lb was not in the chain"]);

        let other = Program::fd_from_pinned_path(host.pins().load(1).join("tail_respond")).unwrap();
        let other = other.as_raw_fd().to_ne_bytes();
        for step in [abi::step::STEP_CT, abi::step::STEP_POLICY] {
            calls.update(&place(step), &other, MapFlags::ANY).unwrap();
        }
        let reported = repaired(host, &mut reconciler, "another program", &[Table, Table]);
        assert_eq!(
            reported,
            [
                "tail_ct was not in the chain",
                "tail_policy was not in the chain"
            ]
        );
    });
}

#[test]
fn the_live_epoch_is_restored() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        host.apply(&mut reconciler, &host.changed("20001", "20009"));
        host.apply(&mut reconciler, &host.config(CONFIG));
        for (what, difference) in [
            ("an older generation", -1),
            ("the next", 1),
            ("one after the next", 2),
            ("none", i64::MIN),
            ("one that never comes", i64::MAX),
        ] {
            let epoch = reconciler.epoch();
            let other = match difference {
                i64::MIN => 0,
                i64::MAX => u64::MAX,
                difference => epoch.wrapping_add_signed(difference),
            };
            set_live(host, other);
            let reported = repaired(host, &mut reconciler, what, &[Epoch]);
            let expected =
                format!("packets were processed under revision {other} instead of {epoch}");
            assert_eq!(reported, [expected], "{what}");
            let now = host.reader().epoch().unwrap();
            assert_eq!(now, reconciler.epoch(), "{what}");
            let is_poisoned = (1..=2).contains(&difference);
            assert_eq!(
                now > other.min(epoch),
                is_poisoned || other < epoch,
                "{what}"
            );
            assert_eq!(
                now > epoch,
                is_poisoned,
                "{what}: what connections may bear is not used"
            );
        }
    });
}

#[test]
fn detached_programs_are_attached_again() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let epoch = reconciler.epoch();
        let name = format!("{}-ingress", host.ifindex("lxc-client"));
        Link::open(host.pins().links().join(name))
            .unwrap()
            .detach()
            .unwrap();
        let reported = repaired(host, &mut reconciler, "a link is detached", &[Attachment]);
        assert_eq!(reported, ["interface lxc-client had lost programs"]);
        assert_eq!(reconciler.epoch(), epoch, "it is no new generation");
    });
}

#[test]
fn detached_filters_are_attached_again() {
    type Act = fn(&Host);
    let rows: [(&str, Act, &[DriftKind]); 4] = [
        (
            "a filter is deleted",
            |host| drop(host.tc("filter del dev lxc-client ingress")),
            &[Attachment],
        ),
        (
            "another program is in our filter",
            |host| {
                let other = foreign::program(c"other_tool", Does::Next);
                foreign::replace_ours(host.ifindex("lxc-client"), &other);
            },
            &[Attachment],
        ),
        (
            "the qdisc is deleted",
            |host| drop(host.tc("qdisc del dev lxc-client clsact")),
            &[Attachment],
        ),
        (
            "the qdisc is replaced",
            |host| {
                host.tc("qdisc del dev lxc-server clsact");
                host.tc("qdisc add dev lxc-server clsact");
            },
            &[Attachment],
        ),
    ];
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Clsact);
        for (what, does, expected) in rows {
            does(host);
            repaired(host, &mut reconciler, what, expected);
        }
    });
}

#[test]
fn no_drift_is_reported_without_one() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        for id in ["20009", "20001", "20001"] {
            host.apply(&mut reconciler, &host.changed("20001", id));
            assert!(!reconciler.has_drifted());
        }
        let size = format!("{CONFIG}[conntrack]\nsize = 4096\n");
        host.apply(&mut reconciler, &host.config(&size));
        assert!(
            !reconciler.has_drifted(),
            "another load, and resized tables"
        );
        host.namespace.ip("link del lxc-client");
        host.apply(&mut reconciler, &host.config(&size));
        assert!(!reconciler.has_drifted());
        assert_eq!(
            reconciler.take_repaired(),
            [],
            "an interface that goes is no drift"
        );
    });
}

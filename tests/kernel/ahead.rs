//! Planning and staging ahead: the result is used for the inputs that it was made for, and otherwise leaves nothing.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::sys::call::inject_faults;
use dpd::bpf::sys::op::Op;
use dpd::bpf::sys::pins::Pins;
use dpd::bpf::tables::table::TABLES;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::io::Errno;

use crate::host::{CONFIG, Host, Picture, on_host};

/// The writes of a job: maps that are created, filled, pinned, put into slots.
fn writes(job: impl FnOnce()) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let guard = {
        let seen = seen.clone();
        inject_faults(Arc::new(move |op| {
            let is_write = matches!(
                op,
                Op::CreateDir { .. }
                    | Op::CreatePinDir { .. }
                    | Op::CreateMap { .. }
                    | Op::WriteRows { .. }
                    | Op::Pin { .. }
                    | Op::FillSlot { .. }
                    | Op::FillChain { .. }
            );
            if is_write {
                seen.lock().unwrap().push(op.to_string());
            }
            Ok(())
        }))
    };
    job();
    drop(guard);
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn slot_of(epoch: u64) -> [u8; 4] {
    (epoch as u32 & 1).to_ne_bytes()
}

fn pinned(host: &Host) -> Vec<u64> {
    Pins::numbers(&host.pins().generations())
}

#[test]
fn a_plan_made_ahead_is_used_for_its_own_inputs_only() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let (one, other) = (
            Arc::new(host.changed("20001", "20008")),
            Arc::new(host.changed("20001", "20009")),
        );
        let identity = |id: &str| format!("~ identity client id {id}");
        let rows = [
            ("the one that was planned", &one, &one, "20001 → 20008"),
            ("another than was planned", &one, &other, "20008 → 20009"),
            (
                "one that was planned before that",
                &other,
                &one,
                "20009 → 20008",
            ),
        ];
        for (what, planned, applied, expected) in rows {
            reconciler.stage_ahead(planned.clone(), host.world());
            let done = host.apply(&mut reconciler, applied);
            let lines: Vec<String> = done.changes.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [identity(expected)], "{what}");
        }
        // A plan from a revision that is not live any more is not used.
        reconciler.stage_ahead(other.clone(), host.world());
        let epoch = reconciler.epoch();
        host.apply(&mut reconciler, &host.config(CONFIG));
        let done = host.apply(&mut reconciler, &other);
        assert_eq!(done.epoch, epoch + 2);
        assert_eq!(done.changes.len(), 1, "{:?}", done.changes);
    });
}

#[test]
fn what_was_staged_ahead_is_only_committed() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = Arc::new(host.changed("20001", "20008"));
        let before = reconciler.epoch();
        let ahead = writes(|| reconciler.stage_ahead(config.clone(), host.world()));
        assert!(!ahead.is_empty(), "{ahead:?}");
        assert_eq!(
            host.reader().epoch().unwrap(),
            before,
            "nothing is committed"
        );
        assert_eq!(pinned(host), [before, before + 1]);
        assert!(host.asks_anew(), "packets meet the live tables");
        let applied = writes(|| drop(host.apply(&mut reconciler, &config)));
        assert_eq!(applied, Vec::<String>::new());
        assert_eq!(host.reader().epoch().unwrap(), before + 1);
        assert_eq!(pinned(host), [before + 1]);
        assert!(host.asks_anew());
    });
}

#[test]
fn what_was_staged_in_vain_is_removed() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let (one, other) = (
            Arc::new(host.changed("20001", "20008")),
            Arc::new(host.changed("20001", "20009")),
        );
        let same = Arc::new(host.config(CONFIG));
        let before = reconciler.epoch();

        reconciler.stage_ahead(one.clone(), host.world());
        reconciler.discard_ahead();
        assert_eq!(pinned(host), [before], "discarded");

        reconciler.stage_ahead(one.clone(), host.world());
        host.apply(&mut reconciler, &same);
        assert_eq!(
            (pinned(host), reconciler.epoch()),
            (vec![before], before),
            "the file is as it was"
        );

        let same_ahead = writes(|| reconciler.stage_ahead(same.clone(), host.world()));
        assert_eq!(same_ahead, Vec::<String>::new(), "nothing to change");

        reconciler.stage_ahead(one.clone(), host.world());
        reconciler.stage_ahead(other.clone(), host.world());
        assert_eq!(pinned(host), [before, before + 1], "one is enough");
        let applied = host.apply(&mut reconciler, &other);
        assert_eq!(pinned(host), [applied.epoch]);
        let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ identity client id 20001 → 20009"]);

        reconciler.stage_ahead(one, host.world());
        drop(reconciler);
        assert_eq!(pinned(host), [applied.epoch], "the daemon ends");
    });
}

#[test]
fn what_somebody_unpinned_is_staged_again() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = Arc::new(host.changed("20001", "20008"));
        for taken in ["policy", "catalog", ""] {
            let config = match reconciler.epoch() % 2 {
                1 => config.clone(),
                _ => Arc::new(host.config(CONFIG)),
            };
            reconciler.stage_ahead(config.clone(), host.world());
            let folder = host.pins().generation(reconciler.epoch() + 1);
            match taken {
                "" => fs::remove_dir_all(&folder),
                table => fs::remove_file(folder.join(table)),
            }
            .expect("unpin");
            let applied = host.apply(&mut reconciler, &config);
            assert_eq!(applied.changes.len(), 1, "{:?}", applied.changes);
            assert_eq!(
                host.table_ids().len(),
                TABLES.len() + 1,
                "all tables are pinned"
            );
            assert!(host.asks_anew());
        }
    });
}

/// Others have time to change it between staging and commit.
#[test]
fn a_slot_or_pin_that_somebody_changed_is_staged_again() {
    type Change = fn(&Host, u64);
    let rows: [(&str, Change); 4] = [
        ("a slot is emptied", |host, epoch| {
            let outer = MapHandle::from_pinned_path(host.pins().map("dpd_policy")).unwrap();
            outer.delete(&slot_of(epoch)).expect("empty the slot");
        }),
        ("a slot holds another table", |host, epoch| {
            let outer = MapHandle::from_pinned_path(host.pins().map("dpd_policy")).unwrap();
            let live = outer.lookup(&slot_of(epoch - 1), MapFlags::ANY).unwrap();
            let id = u32::from_ne_bytes(live.unwrap().try_into().unwrap());
            let live = MapHandle::from_map_id(id).expect("open the live table");
            let fd = live.as_fd().as_raw_fd() as u32;
            outer
                .update(&slot_of(epoch), &fd.to_ne_bytes(), MapFlags::ANY)
                .expect("put another table into the slot");
        }),
        ("another table is pinned", |host, epoch| {
            let pin = |epoch| host.pins().generation(epoch).join("policy");
            let mut live = MapHandle::from_pinned_path(pin(epoch - 1)).unwrap();
            fs::remove_file(pin(epoch)).expect("unpin");
            live.pin(pin(epoch)).expect("pin another table");
        }),
        ("a pin is gone", |host, epoch| {
            fs::remove_file(host.pins().generation(epoch).join("policy")).expect("unpin");
        }),
    ];
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let sides = [
            Arc::new(host.changed("\"53/udp\"] },", "\"52-53/udp\"] },")),
            Arc::new(host.config(CONFIG)),
        ];
        for (nth, (what, change)) in rows.into_iter().enumerate() {
            let config = &sides[nth % 2];
            reconciler.stage_ahead(config.clone(), host.world());
            let next = reconciler.epoch() + 1;
            change(host, next);
            let applied = writes(|| drop(host.apply(&mut reconciler, config)));
            assert!(!applied.is_empty(), "{what}: {applied:?}");
            assert_eq!(pinned(host), [next], "{what}");
            assert!(!reconciler.has_drifted(), "{what}");
            assert!(host.asks_anew(), "{what}");
        }
    });
}

/// The slot that would be written is the one that packets use.
#[test]
fn nothing_is_staged_ahead_while_somebody_has_stored_another_epoch() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let epoch = reconciler.epoch();
        let live = MapHandle::from_pinned_path(host.pins().map("dpd_live")).unwrap();
        live.update(
            &0u32.to_ne_bytes(),
            &(epoch + 1).to_ne_bytes(),
            MapFlags::ANY,
        )
        .expect("store another epoch");
        let config = Arc::new(host.changed("20001", "20008"));
        let ahead = writes(|| reconciler.stage_ahead(config.clone(), host.world()));
        assert_eq!(ahead, Vec::<String>::new());
        let applied = host.apply(&mut reconciler, &config);
        assert!(applied.epoch > epoch + 1, "that one is never used");
        assert_eq!(pinned(host), [applied.epoch]);
        assert!(host.asks_anew());
    });
}

#[test]
fn an_error_of_staging_ahead_is_reported_by_the_change() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = Arc::new(host.changed("20001", "20008"));
        let before = Picture::of(host);
        let is_full = Arc::new(AtomicBool::new(true));
        let guard = {
            let is_full = is_full.clone();
            inject_faults(Arc::new(move |op| match op {
                Op::CreateMap { .. } if is_full.load(Ordering::Relaxed) => Err(Errno::NOMEM.into()),
                _ => Ok(()),
            }))
        };
        reconciler.stage_ahead(config.clone(), host.world());
        Picture::of(host).assert_still(&before, "after the failure ahead");
        let error = host.refused(&mut reconciler, &config, &host.world());
        assert!(
            error.contains("the kernel gives dpd no more memory"),
            "{error}"
        );
        Picture::of(host).assert_still(&before, "after the refusal");
        is_full.store(false, Ordering::Relaxed);
        let applied = host.apply(&mut reconciler, &config);
        assert_eq!(applied.epoch, before.epoch + 1);
        drop(guard);
    });
}

/// Nothing is left to write before the commit, while connections are read; or they are still in the previous tables.
#[test]
fn connections_are_counted_before_a_commit_that_was_staged_ahead() {
    for more in ["", "[conntrack]\nsize = 4096\n"] {
        on_host(|host| {
            let mut reconciler = host.start(Mechanism::Tcx);
            for _ in 0..300 {
                assert!(host.asks_anew());
            }
            let there = host.connections().len();
            let other = CONFIG.replace("[\"10.200.0.44:53\"]", "[\"10.200.0.44:5353\"]");
            let other = Arc::new(host.config(&format!("{other}{more}")));
            reconciler.stage_ahead(other.clone(), host.world());
            let applied = host.apply(&mut reconciler, &other);
            let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
            let ends = format!(
                "- backend 10.200.0.44:53 of service dns: {there} connections move to another backend"
            );
            assert!(lines.contains(&ends), "{more}: {lines:?}");
        });
    }
}

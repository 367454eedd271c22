//! What is planned and written while a file comes to rest: it is used for what it was made for, and otherwise leaves nothing.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use dpd::bpf::pins::Pins;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::io::Errno;

use crate::host::{CONFIG, Host, Picture, on_host};

/// What the kernel is asked for while a job is done.
fn operations(job: impl FnOnce()) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = {
        let seen = seen.clone();
        gate::keep(Arc::new(move |words| {
            seen.lock().unwrap().push(words.to_owned());
            Ok(())
        }))
    };
    job();
    drop(kept);
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn writes(operations: &[String]) -> Vec<&String> {
    let is_write = |words: &&String| {
        ["make ", "table ", "pin at ", "put "]
            .iter()
            .any(|verb| words.starts_with(verb))
    };
    operations.iter().filter(is_write).collect()
}

fn slot_of(epoch: u64) -> [u8; 4] {
    (epoch as u32 & 1).to_ne_bytes()
}

fn pinned(host: &Host) -> Vec<u64> {
    Pins::numbers(&host.pins().generations())
}

#[test]
fn a_plan_that_was_made_ahead_is_used_for_what_it_was_made_for_alone() {
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
            reconciler.prepare_ahead(planned.clone(), host.world());
            let done = host.apply(&mut reconciler, applied);
            let lines: Vec<String> = done.changes.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [identity(expected)], "{what}");
        }
        // What was planned from a revision that is not live any more is planned anew.
        reconciler.prepare_ahead(other.clone(), host.world());
        let epoch = reconciler.epoch();
        host.apply(&mut reconciler, &host.config(CONFIG));
        let done = host.apply(&mut reconciler, &other);
        assert_eq!(done.epoch, epoch + 2);
        assert_eq!(done.changes.len(), 1, "{:?}", done.changes);
    });
}

#[test]
fn what_was_written_ahead_is_only_switched_to() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = Arc::new(host.changed("20001", "20008"));
        let before = reconciler.epoch();
        let ahead = operations(|| reconciler.prepare_ahead(config.clone(), host.world()));
        assert!(!writes(&ahead).is_empty(), "{ahead:?}");
        assert_eq!(
            host.reader().epoch().unwrap(),
            before,
            "nothing is switched"
        );
        assert_eq!(pinned(host), [before, before + 1]);
        assert!(host.asks_anew(), "packets meet the live tables");
        let applied = operations(|| drop(host.apply(&mut reconciler, &config)));
        assert_eq!(writes(&applied), Vec::<&String>::new(), "{applied:?}");
        assert_eq!(host.reader().epoch().unwrap(), before + 1);
        assert_eq!(pinned(host), [before + 1]);
        assert!(host.asks_anew());
    });
}

#[test]
fn what_was_written_in_vain_is_not_kept() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let (one, other) = (
            Arc::new(host.changed("20001", "20008")),
            Arc::new(host.changed("20001", "20009")),
        );
        let same = Arc::new(host.config(CONFIG));
        let before = reconciler.epoch();

        reconciler.prepare_ahead(one.clone(), host.world());
        reconciler.forget_ahead();
        assert_eq!(pinned(host), [before], "forgotten");

        reconciler.prepare_ahead(one.clone(), host.world());
        host.apply(&mut reconciler, &same);
        assert_eq!(
            (pinned(host), reconciler.epoch()),
            (vec![before], before),
            "taken back"
        );

        let same_ahead = operations(|| reconciler.prepare_ahead(same.clone(), host.world()));
        assert_eq!(
            writes(&same_ahead),
            Vec::<&String>::new(),
            "nothing to change"
        );

        reconciler.prepare_ahead(one.clone(), host.world());
        reconciler.prepare_ahead(other.clone(), host.world());
        assert_eq!(pinned(host), [before, before + 1], "one is enough");
        let applied = host.apply(&mut reconciler, &other);
        assert_eq!(pinned(host), [applied.epoch]);
        let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ identity client id 20001 → 20009"]);

        reconciler.prepare_ahead(one, host.world());
        drop(reconciler);
        assert_eq!(pinned(host), [applied.epoch], "the daemon ends");
    });
}

#[test]
fn what_somebody_unpinned_is_written_again() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = Arc::new(host.changed("20001", "20008"));
        for taken in ["policy", "catalog", ""] {
            let config = match reconciler.epoch() % 2 {
                1 => config.clone(),
                _ => Arc::new(host.config(CONFIG)),
            };
            reconciler.prepare_ahead(config.clone(), host.world());
            let folder = host.pins().generation(reconciler.epoch() + 1);
            match taken {
                "" => fs::remove_dir_all(&folder),
                table => fs::remove_file(folder.join(table)),
            }
            .expect("unpin");
            let applied = host.apply(&mut reconciler, &config);
            assert_eq!(applied.changes.len(), 1, "{:?}", applied.changes);
            assert_eq!(host.table_ids().len(), 9, "all tables are pinned");
            assert!(host.asks_anew());
        }
    });
}

/// Between the writing and the switch there is time enough for others.
#[test]
fn what_somebody_took_out_of_its_place_is_written_again() {
    type Deed = fn(&Host, u64);
    let rows: [(&str, Deed); 4] = [
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
        ("a pin leads to another table", |host, epoch| {
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
        for (nth, (what, deed)) in rows.into_iter().enumerate() {
            let config = &sides[nth % 2];
            reconciler.prepare_ahead(config.clone(), host.world());
            let next = reconciler.epoch() + 1;
            deed(host, next);
            let applied = operations(|| drop(host.apply(&mut reconciler, config)));
            assert!(!writes(&applied).is_empty(), "{what}: {applied:?}");
            assert_eq!(pinned(host), [next], "{what}");
            assert!(!reconciler.has_drifted(), "{what}");
            assert!(host.asks_anew(), "{what}");
        }
    });
}

/// The slot that would be written is the one that packets meet.
#[test]
fn nothing_is_written_ahead_where_packets_were_led_to() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let epoch = reconciler.epoch();
        let live = MapHandle::from_pinned_path(host.pins().map("dpd_live")).unwrap();
        live.update(
            &0u32.to_ne_bytes(),
            &(epoch + 1).to_ne_bytes(),
            MapFlags::ANY,
        )
        .expect("lead packets to another epoch");
        let config = Arc::new(host.changed("20001", "20008"));
        let ahead = operations(|| reconciler.prepare_ahead(config.clone(), host.world()));
        assert_eq!(writes(&ahead), Vec::<&String>::new());
        let applied = host.apply(&mut reconciler, &config);
        assert!(applied.epoch > epoch + 1, "that one is never used");
        assert_eq!(pinned(host), [applied.epoch]);
        assert!(host.asks_anew());
    });
}

#[test]
fn a_write_ahead_that_fails_is_told_by_the_change_itself() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = Arc::new(host.changed("20001", "20008"));
        let before = Picture::of(host);
        let is_full = Arc::new(AtomicBool::new(true));
        let kept = {
            let is_full = is_full.clone();
            gate::keep(Arc::new(move |words| {
                match words.starts_with("make map") && is_full.load(Ordering::Relaxed) {
                    true => Err(Errno::NOMEM.into()),
                    false => Ok(()),
                }
            }))
        };
        reconciler.prepare_ahead(config.clone(), host.world());
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
        drop(kept);
    });
}

/// There is nothing left to write before the switch, in which time connections were read; or they are still in the tables
/// of the former load.
#[test]
fn connections_are_counted_before_the_switch_all_the_same() {
    for more in ["", "[conntrack]\nsize = 4096\n"] {
        on_host(|host| {
            let mut reconciler = host.start(Mechanism::Tcx);
            for _ in 0..300 {
                assert!(host.asks_anew());
            }
            let there = host.connections().len();
            let other = CONFIG.replace("[\"10.200.0.44:53\"]", "[\"10.200.0.44:5353\"]");
            let other = Arc::new(host.config(&format!("{other}{more}")));
            reconciler.prepare_ahead(other.clone(), host.world());
            let applied = host.apply(&mut reconciler, &other);
            let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
            let ends = format!(
                "- backend 10.200.0.44:53 of service dns: {there} connections move to another backend"
            );
            assert!(lines.contains(&ends), "{more}: {lines:?}");
        });
    }
}

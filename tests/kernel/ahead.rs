//! What is planned and written while a file comes to rest: it is used for what it was made for, and otherwise leaves nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use dpd::bpf::pins::Pins;
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
            reconciler.plan_ahead(planned.clone(), host.world());
            let done = host.apply(&mut reconciler, applied);
            let lines: Vec<String> = done.changes.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [identity(expected)], "{what}");
        }
        // What was planned from a revision that is not live any more is planned anew.
        reconciler.plan_ahead(other.clone(), host.world());
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
        let ahead = operations(|| reconciler.plan_ahead(config.clone(), host.world()));
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

        reconciler.plan_ahead(one.clone(), host.world());
        reconciler.forget_plan();
        assert_eq!(pinned(host), [before], "forgotten");

        reconciler.plan_ahead(one.clone(), host.world());
        host.apply(&mut reconciler, &same);
        assert_eq!(
            (pinned(host), reconciler.epoch()),
            (vec![before], before),
            "taken back"
        );

        let same_ahead = operations(|| reconciler.plan_ahead(same.clone(), host.world()));
        assert_eq!(
            writes(&same_ahead),
            Vec::<&String>::new(),
            "nothing to change"
        );

        reconciler.plan_ahead(one.clone(), host.world());
        reconciler.plan_ahead(other.clone(), host.world());
        assert_eq!(pinned(host), [before, before + 1], "one is enough");
        let applied = host.apply(&mut reconciler, &other);
        assert_eq!(pinned(host), [applied.epoch]);
        let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ identity client id 20001 → 20009"]);

        reconciler.plan_ahead(one, host.world());
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
            reconciler.plan_ahead(config.clone(), host.world());
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
        reconciler.plan_ahead(config.clone(), host.world());
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

/// There is nothing left to write before the switch, in which time connections were read.
#[test]
fn connections_are_counted_before_the_switch_all_the_same() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        for _ in 0..300 {
            assert!(host.asks_anew());
        }
        let there = host.connections().len();
        let other = Arc::new(host.changed("[\"10.200.0.44:53\"]", "[\"10.200.0.44:5353\"]"));
        reconciler.plan_ahead(other.clone(), host.world());
        let applied = host.apply(&mut reconciler, &other);
        let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
        let ends = format!(
            "- backend 10.200.0.44:53 of service dns: {there} connections begin anew at another backend"
        );
        assert!(lines.contains(&ends), "{lines:?}");
    });
}

//! Changes of files as editors and configuration managers make them, each noticed by inotify alone and by polling alone.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;

use crossbeam_channel::{Receiver, bounded};
use rustix::fs::{CWD, FileType, Mode, Timestamps, inotify};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than a change needs to be notified.
const SILENCE: Duration = Duration::from_millis(800);

/// How a change may be noticed.
#[derive(Clone, Copy, Debug)]
enum By {
    Inotify,
    Polling,
}

fn start(by: By, config: &Path) -> (FileWatcher, Receiver<()>) {
    let (changed, changes) = bounded(1);
    let (notifier, interval) = match by {
        By::Inotify => (Some(Notifier::default()), Duration::from_secs(3600)),
        By::Polling => (None, Duration::from_millis(20)),
    };
    let watcher = FileWatcher::start_with(
        notifier,
        interval,
        files(config, None).unwrap(),
        bounded(1).0,
        changed,
    );
    (watcher.unwrap(), changes)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn a_change_is_notified_as_stirred_before_it_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    write(&config, "one");
    let ((stirred, stirs), (changed, changes)) = (bounded(1), bounded(1));
    let _watcher = FileWatcher::start(&config, None, stirred, changed).unwrap();
    write(&config, "other");
    changes.recv_timeout(Duration::from_secs(20)).unwrap();
    stirs.try_recv().unwrap();
}

#[test]
fn a_change_that_was_read_at_once_and_undone_is_notified() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    write(&config, "one");
    let drop_in = folder.path().join("config.d/a.toml");
    fs::create_dir(drop_in.parent().unwrap()).unwrap();
    let (changed, changes) = bounded(1);
    let watcher = FileWatcher::start(&config, None, bounded(1).0, changed).unwrap();
    write(&drop_in, "two");
    watcher.note_read(watcher.look());
    fs::remove_file(&drop_in).unwrap();
    changes.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn the_folder_of_runtime_drop_ins_is_watched() {
    let top = tempfile::tempdir().unwrap();
    let config = top.path().join("config.toml");
    write(&config, "one");
    let folder = top.path().join("run/config.d");
    let (changed, changes) = bounded(1);
    let _watcher = FileWatcher::start(&config, Some(&folder), bounded(1).0, changed).unwrap();
    let notified = |what: &str| {
        changes
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("{what}"));
    };
    fs::create_dir_all(&folder).unwrap();
    notified("it appears");
    write(&folder.join("a.toml"), "two");
    notified("a drop-in");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&folder, mode).unwrap();
    notified("its permissions");
    fs::remove_dir_all(&folder).unwrap();
    notified("it is removed");
}

/// Writes a temporary file and renames it, as editors do.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    write(&temporary, text);
    fs::rename(&temporary, path).unwrap();
}

/// Replaces a symlink atomically.
fn relink(target: &str, link: &Path) {
    let temporary = link.with_extension("new");
    symlink(target, &temporary).unwrap();
    fs::rename(&temporary, link).unwrap();
}

/// A file, and two versions of a folder with one behind symlinks.
fn lay_out(top: &Path) {
    for folder in ["plain/config.d", "v1", "v2", "links"] {
        fs::create_dir_all(top.join(folder)).unwrap();
    }
    write(&top.join("plain/config.toml"), "one");
    write(&top.join("plain/config.d/a.toml"), "one");
    write(&top.join("v1/config.toml"), "one");
    write(&top.join("v2/config.toml"), "two");
    symlink("v1", top.join("current")).unwrap();
    symlink("../current/config.toml", top.join("links/config.toml")).unwrap();
    // As Kubernetes mounts a ConfigMap, to swap many files at once.
    fs::create_dir(top.join("mounted")).unwrap();
    symlink("../v1", top.join("mounted/..data")).unwrap();
    symlink("..data/config.toml", top.join("mounted/config.toml")).unwrap();
}

type Change = fn(&Path);

/// (the watched file, what happens, how)
const CHANGES: &[(&str, &str, Change)] = &[
    ("plain/config.toml", "a write in place", |top| {
        write(&top.join("plain/config.toml"), "two");
    }),
    ("plain/config.toml", "a write of more", |top| {
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .open(top.join("plain/config.toml"))
            .unwrap();
        file.write_all(b" and more").unwrap();
    }),
    ("plain/config.toml", "a rename over the file", |top| {
        replace(&top.join("plain/config.toml"), "two");
    }),
    ("plain/config.toml", "a save as vim does it", |top| {
        let (file, backup) = (
            top.join("plain/config.toml"),
            top.join("plain/config.toml~"),
        );
        fs::rename(&file, &backup).unwrap();
        write(&file, "two");
        fs::remove_file(&backup).unwrap();
    }),
    ("plain/config.toml", "a new modification time", |top| {
        let file = File::options()
            .write(true)
            .open(top.join("plain/config.toml"));
        let times = Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
        };
        rustix::fs::futimens(file.unwrap(), &times).unwrap();
    }),
    ("plain/config.toml", "the file is removed", |top| {
        fs::remove_file(top.join("plain/config.toml")).unwrap();
    }),
    ("plain/config.toml", "a drop-in is added", |top| {
        write(&top.join("plain/config.d/b.toml"), "two");
    }),
    ("plain/config.toml", "a drop-in changes in place", |top| {
        write(&top.join("plain/config.d/a.toml"), "two");
    }),
    ("plain/config.toml", "a drop-in is removed", |top| {
        fs::remove_file(top.join("plain/config.d/a.toml")).unwrap();
    }),
    (
        "plain/config.toml",
        "the drop-in folder is removed",
        |top| {
            fs::remove_dir_all(top.join("plain/config.d")).unwrap();
        },
    ),
    ("v1/config.toml", "a drop-in folder is added", |top| {
        fs::create_dir(top.join("v1/config.d")).unwrap();
        write(&top.join("v1/config.d/a.toml"), "two");
    }),
    (
        "v1/config.toml",
        "a drop-in folder is added as a symlink",
        |top| {
            symlink("../plain/config.d", top.join("v1/config.d")).unwrap();
        },
    ),
    ("plain/config.toml", "the folder is replaced", |top| {
        fs::rename(top.join("plain"), top.join("old")).unwrap();
        fs::rename(top.join("v2"), top.join("plain")).unwrap();
    }),
    (
        "links/config.toml",
        "a write to the target of a symlink",
        |top| {
            write(&top.join("v1/config.toml"), "two");
        },
    ),
    (
        "links/config.toml",
        "the file's own symlink is swapped",
        |top| {
            relink("../v2/config.toml", &top.join("links/config.toml"));
        },
    ),
    (
        "mounted/config.toml",
        "the symlink of the data folder is swapped",
        |top| {
            let temporary = top.join("mounted/..data_tmp");
            symlink("../v2", &temporary).unwrap();
            fs::rename(&temporary, top.join("mounted/..data")).unwrap();
        },
    ),
    (
        "links/config.toml",
        "a symlink is replaced by a file",
        |top| {
            replace(&top.join("links/config.toml"), "two");
        },
    ),
    ("v1/config.toml", "a pipe replaces the file", |top| {
        let path = top.join("v1/config.toml");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    }),
];

/// The same, for changes in folders that inotify does not watch.
const UNWATCHED: &[(&str, &str, Change)] = &[
    ("plain/config.toml", "a write through a hard link", |top| {
        fs::create_dir(top.join("elsewhere")).unwrap();
        let other = top.join("elsewhere/name");
        fs::hard_link(top.join("plain/config.toml"), &other).unwrap();
        write(&other, "two");
    }),
    (
        "links/config.toml",
        "a symlink on the path is swapped",
        |top| {
            relink("v2", &top.join("current"));
        },
    ),
    (
        "none/config.toml",
        "a file is added with its folder",
        |top| {
            fs::create_dir(top.join("none")).unwrap();
            write(&top.join("none/config.toml"), "two");
        },
    ),
];

#[test]
fn every_kind_of_change_is_notified() {
    // Each row waits for its change to settle, so they wait together.
    std::thread::scope(|scope| {
        for (by, changes) in [
            (By::Inotify, CHANGES),
            (By::Polling, CHANGES),
            (By::Polling, UNWATCHED),
        ] {
            for (config, what, change) in changes {
                scope.spawn(move || {
                    let top = tempfile::tempdir().unwrap();
                    lay_out(top.path());
                    let (_watcher, changes) = start(by, &top.path().join(config));
                    change(top.path());
                    let notified = changes.recv_timeout(DEADLINE);
                    assert!(notified.is_ok(), "by {by:?}: {what}");
                    // The replacement is watched as the original was: a second change is notified too.
                    let path = top.path().join(config);
                    let _ = fs::remove_file(&path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    write(&path, "three");
                    let notified = changes.recv_timeout(DEADLINE);
                    assert!(notified.is_ok(), "by {by:?}: a write after {what}");
                });
            }
        }
    });
}

#[test]
fn what_does_not_change_the_configuration_is_not_notified() {
    let rows: &[(&str, Change)] = &[
        ("the file is read", |top| {
            fs::read(top.join("plain/config.toml")).unwrap();
        }),
        ("an editor writes a swap file", |top| {
            write(&top.join("plain/.config.toml.swp"), "draft");
        }),
        ("another file is added to the drop-in folder", |top| {
            write(&top.join("plain/config.d/a.toml.bak"), "old");
        }),
        (
            "an editor writes a hidden file to the drop-in folder",
            |top| {
                write(&top.join("plain/config.d/.a.toml"), "draft");
            },
        ),
        ("an empty folder is added", |top| {
            fs::create_dir(top.join("plain/other")).unwrap();
        }),
    ];
    std::thread::scope(|scope| {
        for by in [By::Inotify, By::Polling] {
            for (what, change) in rows {
                scope.spawn(move || {
                    let top = tempfile::tempdir().unwrap();
                    lay_out(top.path());
                    let (_watcher, changes) = start(by, &top.path().join("plain/config.toml"));
                    change(top.path());
                    assert!(changes.recv_timeout(SILENCE).is_err(), "by {by:?}: {what}");
                });
            }
        }
    });
}

#[test]
fn a_thousand_saves_are_notified_when_the_last_has_settled() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (_watcher, changes) = start(By::Inotify, &config);
    for n in 1..=1000 {
        match n % 2 {
            0 => replace(&config, &n.to_string()),
            _ => write(&config, &n.to_string()),
        }
    }
    // On a busy machine the writer may pause, and what it had written by then is notified.
    let mut times = 0;
    while changes
        .recv_timeout(if times == 0 { DEADLINE } else { SILENCE })
        .is_ok()
    {
        times += 1;
    }
    assert!((1..10).contains(&times), "notified {times} times");
}

#[test]
fn a_file_that_is_removed_and_written_at_once_is_one_change() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (_watcher, changes) = start(By::Inotify, &config);
    fs::remove_file(&config).unwrap();
    write(&config, "two");
    changes.recv_timeout(DEADLINE).unwrap();
    assert_eq!(fs::read_to_string(&config).unwrap(), "two");
    assert!(changes.recv_timeout(SILENCE).is_err());
}

#[test]
fn a_writer_that_pauses_in_the_middle_is_waited_for() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (_watcher, changes) = start(By::Inotify, &config);
    let mut file = File::create(&config).unwrap();
    let pause = SETTLE_TIME / 3;
    let mut last = Instant::now();
    for piece in ["[no", "de]\n", "name = ", "\"a\"", "\n"] {
        file.write_all(piece.as_bytes()).unwrap();
        let notified = changes.recv_timeout(pause).is_ok();
        // On a busy machine a pause may be as long as the settle time.
        assert!(!notified || last.elapsed() >= SETTLE_TIME, "half-written");
        last = Instant::now();
    }
    changes.recv_timeout(DEADLINE).unwrap();
}

/// Inotify's limits belong to a user namespace: in a new one they can be set to zero without effect on others.
#[test]
fn a_change_is_noticed_where_inotify_is_refused() {
    let body = "watch::tests::a_change_is_noticed_by_the_polling_of_a_whole_watcher";
    let script = "echo 0 >/proc/sys/user/$1 && exec \"$0\" --exact --ignored \"$2\"";
    for limit in ["max_inotify_watches", "max_inotify_instances"] {
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .args([limit, body])
            .output()
            .expect("start unshare (of the package util-linux)");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("1 passed"), "{limit}: {stdout}{output:?}");
    }
}

#[test]
#[ignore = "the test above runs it where inotify is refused"]
fn a_change_is_noticed_by_the_polling_of_a_whole_watcher() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let refused = inotify::init(inotify::CreateFlags::CLOEXEC)
        .and_then(|fd| inotify::add_watch(&fd, top.path(), inotify::WatchFlags::MODIFY));
    assert!(refused.is_err(), "inotify must be refused here");
    let config = top.path().join("plain/config.toml");
    let (changed, changes) = bounded(1);
    let _watcher = FileWatcher::start(&config, None, bounded(1).0, changed).unwrap();
    for text in ["two", "three"] {
        replace(&config, text);
        changes.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn a_file_that_was_just_written_has_not_settled_and_is_not_notified() {
    let top = tempfile::tempdir().unwrap();
    let config = top.path().join("config.toml");
    write(&config, "one");
    let (watcher, changes) = start(By::Polling, &config);
    let seen = watcher.look();
    assert_eq!(watcher.settled(), None, "it may be half-written");
    wait_until_settled(&watcher);
    assert_eq!(watcher.settled(), Some(seen), "it was complete");
    write(&config, "other");
    assert_eq!(watcher.settled(), None);
    changes.recv_timeout(DEADLINE).unwrap();
    assert_ne!(watcher.settled(), None, "a notified change has settled");
    assert!(
        changes.recv_timeout(SILENCE).is_err(),
        "one change, one notification"
    );
    drop(watcher);

    let (watcher, _changes) = start(By::Polling, &config);
    assert_ne!(
        watcher.settled(),
        None,
        "unchanged for long, so settled at once"
    );
}

#[test]
fn a_notification_can_be_repeated() {
    let top = tempfile::tempdir().unwrap();
    let config = top.path().join("config.toml");
    write(&config, "one");
    let (watcher, changes) = start(By::Polling, &config);
    wait_until_settled(&watcher);
    watcher.notify_again();
    changes.recv_timeout(DEADLINE).unwrap();
    assert_ne!(watcher.settled(), None);
    assert!(changes.recv_timeout(SILENCE).is_err());
}

fn wait_until_settled(watcher: &FileWatcher) {
    let begin = Instant::now();
    while watcher.settled().is_none() {
        assert!(begin.elapsed() < DEADLINE, "it never settles");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_is_watched_by_a_relative_path_and_without_drop_ins() {
    // The current folder is the crate's, which has no such file.
    let (changed, _changes) = bounded(1);
    let watcher = FileWatcher::start(Path::new("no-such-file"), None, bounded(1).0, changed);
    assert!(watcher.is_ok());
}

#[test]
fn the_watcher_ends_when_it_is_dropped_while_a_change_settles() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (watcher, changes) = start(By::Polling, &config);
    write(&config, "two");
    drop(watcher);
    while changes.recv_timeout(DEADLINE).is_ok() {}
    assert!(
        changes
            .try_recv()
            .is_err_and(|error| error.is_disconnected())
    );
}

#[test]
fn two_reads_differ_where_the_stamps_do_not() {
    let top = tempfile::tempdir().unwrap();
    let files = Files::of(top.path().join("config.toml"), None);
    write(&files.main, "one");
    let stamps = Stamps::take(&files);
    let first = stamps.digest();
    assert_eq!(stamps.digest(), first, "nothing has changed");
    write(&files.main, "two");
    assert_ne!(stamps.digest(), first, "the same length, other text");
    fs::remove_file(&files.main).unwrap();
    let none = stamps.digest();
    write(&files.main, "");
    assert_ne!(
        stamps.digest(),
        none,
        "a missing file differs from an empty one"
    );
}

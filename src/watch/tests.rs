//! Changes of files as they are met in practice, each seen by notify alone and by the slow look alone.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;

use crossbeam_channel::{Receiver, bounded};
use rustix::fs::{CWD, FileType, Mode, Timestamps};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than a change needs to be told of.
const SILENCE: Duration = Duration::from_millis(800);

/// How a change may be noticed.
#[derive(Clone, Copy, Debug)]
enum By {
    Notify,
    SlowLook,
}

fn start(by: By, config: &Path) -> (FileWatcher, Receiver<()>) {
    let (changed, changes) = bounded(1);
    let (ear, slow) = match by {
        By::Notify => (Some(Notifier::new().unwrap()), Duration::from_secs(3600)),
        By::SlowLook => (None, Duration::from_millis(20)),
    };
    let watcher = FileWatcher::start_with(ear, slow, config, bounded(1).0, changed).unwrap();
    (watcher, changes)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// Who takes its time over a file may begin when the change does.
#[test]
fn a_change_is_said_to_stir_before_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    write(&config, "one");
    let ((stirred, stirs), (changed, changes)) = (bounded(1), bounded(1));
    let _watcher = FileWatcher::start(&config, stirred, changed).unwrap();
    write(&config, "other");
    changes.recv_timeout(Duration::from_secs(20)).unwrap();
    stirs.try_recv().unwrap();
}

/// Writes beside and renames, as good tools do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    write(&beside, text);
    fs::rename(&beside, path).unwrap();
}

/// Puts a symlink in another's place at one moment.
fn relink(target: &str, link: &Path) {
    let beside = link.with_extension("new");
    symlink(target, &beside).unwrap();
    fs::rename(&beside, link).unwrap();
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
    // As a configuration manager lays it out, that swaps many files at once.
    fs::create_dir(top.join("mounted")).unwrap();
    symlink("../v1", top.join("mounted/..data")).unwrap();
    symlink("..data/config.toml", top.join("mounted/config.toml")).unwrap();
}

type Change = fn(&Path);

/// (the file that is followed, what happens, how)
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
    ("plain/config.toml", "the file vanishes", |top| {
        fs::remove_file(top.join("plain/config.toml")).unwrap();
    }),
    ("plain/config.toml", "a drop-in comes", |top| {
        write(&top.join("plain/config.d/b.toml"), "two");
    }),
    ("plain/config.toml", "a drop-in changes in place", |top| {
        write(&top.join("plain/config.d/a.toml"), "two");
    }),
    ("plain/config.toml", "a drop-in goes", |top| {
        fs::remove_file(top.join("plain/config.d/a.toml")).unwrap();
    }),
    ("plain/config.toml", "the drop-in folder goes", |top| {
        fs::remove_dir_all(top.join("plain/config.d")).unwrap();
    }),
    ("v1/config.toml", "a drop-in folder comes", |top| {
        fs::create_dir(top.join("v1/config.d")).unwrap();
        write(&top.join("v1/config.d/a.toml"), "two");
    }),
    (
        "v1/config.toml",
        "a drop-in folder comes as a symlink",
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
        "a write where a symlink leads",
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
        "the folder's link beside the file's is swapped",
        |top| {
            let beside = top.join("mounted/..data_tmp");
            symlink("../v2", &beside).unwrap();
            fs::rename(&beside, top.join("mounted/..data")).unwrap();
        },
    ),
    (
        "links/config.toml",
        "a symlink gives way to a file",
        |top| {
            replace(&top.join("links/config.toml"), "two");
        },
    ),
    ("v1/config.toml", "a pipe takes the file's place", |top| {
        let path = top.join("v1/config.toml");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    }),
];

/// The same, for what happens where notify does not listen.
const UNHEARD: &[(&str, &str, Change)] = &[
    ("plain/config.toml", "a write through another name", |top| {
        fs::create_dir(top.join("elsewhere")).unwrap();
        let other = top.join("elsewhere/name");
        fs::hard_link(top.join("plain/config.toml"), &other).unwrap();
        write(&other, "two");
    }),
    (
        "links/config.toml",
        "a symlink on the way is swapped",
        |top| {
            relink("v2", &top.join("current"));
        },
    ),
    ("none/config.toml", "a file comes with its folder", |top| {
        fs::create_dir(top.join("none")).unwrap();
        write(&top.join("none/config.toml"), "two");
    }),
];

#[test]
fn each_way_to_change_a_configuration_is_told_of() {
    // Rows wait for stillness, so they wait together.
    std::thread::scope(|scope| {
        for (by, changes) in [
            (By::Notify, CHANGES),
            (By::SlowLook, CHANGES),
            (By::SlowLook, UNHEARD),
        ] {
            for (config, what, change) in changes {
                scope.spawn(move || {
                    let top = tempfile::tempdir().unwrap();
                    lay_out(top.path());
                    let (_watcher, changes) = start(by, &top.path().join(config));
                    change(top.path());
                    let told = changes.recv_timeout(DEADLINE);
                    assert!(told.is_ok(), "by {by:?}: {what}");
                    // What has been replaced is followed as the old was: a second change is told of too.
                    let path = top.path().join(config);
                    let _ = fs::remove_file(&path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    write(&path, "three");
                    let told = changes.recv_timeout(DEADLINE);
                    assert!(told.is_ok(), "by {by:?}: a write after {what}");
                });
            }
        }
    });
}

#[test]
fn what_is_no_change_of_the_configuration_is_not_told_of() {
    let rows: &[(&str, Change)] = &[
        ("the file is read", |top| {
            fs::read(top.join("plain/config.toml")).unwrap();
        }),
        ("an editor keeps a file beside it", |top| {
            write(&top.join("plain/.config.toml.swp"), "draft");
        }),
        ("a file that is no drop-in lies among them", |top| {
            write(&top.join("plain/config.d/a.toml.bak"), "old");
        }),
        ("an editor keeps a hidden file among the drop-ins", |top| {
            write(&top.join("plain/config.d/.a.toml"), "draft");
        }),
        ("an empty folder comes", |top| {
            fs::create_dir(top.join("plain/other")).unwrap();
        }),
    ];
    std::thread::scope(|scope| {
        for by in [By::Notify, By::SlowLook] {
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
fn a_thousand_saves_are_told_of_when_the_last_has_come_to_rest() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (_watcher, changes) = start(By::Notify, &config);
    for n in 1..=1000 {
        match n % 2 {
            0 => replace(&config, &n.to_string()),
            _ => write(&config, &n.to_string()),
        }
    }
    // On a busy machine the writer may be held up, and what it had written by then is told of.
    let mut times = 0;
    while changes
        .recv_timeout(if times == 0 { DEADLINE } else { SILENCE })
        .is_ok()
    {
        times += 1;
    }
    assert!((1..10).contains(&times), "told of {times} times");
}

#[test]
fn a_file_that_vanishes_and_returns_at_once_is_one_change() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (_watcher, changes) = start(By::Notify, &config);
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
    let (_watcher, changes) = start(By::Notify, &config);
    let mut file = File::create(&config).unwrap();
    let pause = SETTLE_TIME / 3;
    let mut last = Instant::now();
    for piece in ["[no", "de]\n", "name = ", "\"a\"", "\n"] {
        file.write_all(piece.as_bytes()).unwrap();
        let told = changes.recv_timeout(pause).is_ok();
        // On a busy machine a pause may be as long as stillness.
        assert!(!told || last.elapsed() >= SETTLE_TIME, "told of a part");
        last = Instant::now();
    }
    changes.recv_timeout(DEADLINE).unwrap();
}

/// Inotify's limits belong to a user namespace: in one of its own, a process can be refused without harm to others.
#[test]
fn a_change_is_noticed_where_no_watch_is_left() {
    let body = "watch::tests::a_change_is_noticed_by_the_slow_look_of_a_whole_watcher";
    let script = "echo 0 >/proc/sys/user/$1 && exec \"$0\" --exact --ignored \"$2\"";
    for limit in ["max_inotify_watches", "max_inotify_instances"] {
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .args([limit, body])
            .output()
            .expect("start unshare (of the package util-linux)");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{limit}: {said}{output:?}");
    }
}

#[test]
#[ignore = "the test above runs it where inotify is refused"]
fn a_change_is_noticed_by_the_slow_look_of_a_whole_watcher() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let refused = notify::recommended_watcher(|_| {}).and_then(|mut watcher| {
        notify::Watcher::watch(
            &mut watcher,
            top.path(),
            notify::RecursiveMode::NonRecursive,
        )
    });
    assert!(refused.is_err(), "inotify is to be refused here");
    let config = top.path().join("plain/config.toml");
    let (changed, changes) = bounded(1);
    let _watcher = FileWatcher::start(&config, bounded(1).0, changed).unwrap();
    for text in ["two", "three"] {
        replace(&config, text);
        changes.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn what_was_just_written_is_not_at_rest_yet_and_no_news() {
    let top = tempfile::tempdir().unwrap();
    let config = top.path().join("config.toml");
    write(&config, "one");
    let (watcher, changes) = start(By::SlowLook, &config);
    let seen = watcher.look();
    assert_eq!(watcher.rest(), None, "it may be half of it");
    rests(&watcher);
    assert_eq!(watcher.rest(), Some(seen), "that was all");
    write(&config, "other");
    assert_eq!(watcher.rest(), None);
    changes.recv_timeout(DEADLINE).unwrap();
    assert_ne!(watcher.rest(), None, "who is told of a change may read it");
    assert!(
        changes.recv_timeout(SILENCE).is_err(),
        "one change, told once"
    );
    drop(watcher);

    let (watcher, _changes) = start(By::SlowLook, &config);
    assert_ne!(
        watcher.rest(),
        None,
        "untouched for long, so at rest at once"
    );
}

#[test]
fn what_was_told_of_and_not_read_is_told_of_again() {
    let top = tempfile::tempdir().unwrap();
    let config = top.path().join("config.toml");
    write(&config, "one");
    let (watcher, changes) = start(By::SlowLook, &config);
    rests(&watcher);
    watcher.tell_again();
    changes.recv_timeout(DEADLINE).unwrap();
    assert_ne!(watcher.rest(), None);
    assert!(changes.recv_timeout(SILENCE).is_err());
}

fn rests(watcher: &FileWatcher) {
    let begin = Instant::now();
    while watcher.rest().is_none() {
        assert!(begin.elapsed() < DEADLINE, "it never rests");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_is_followed_by_a_relative_path_and_without_drop_ins() {
    // The current folder is the crate's, in which there is no such file.
    let (changed, _changes) = bounded(1);
    let watcher = FileWatcher::start(Path::new("no-such-file"), bounded(1).0, changed);
    assert!(watcher.is_ok());
}

#[test]
fn the_watcher_ends_when_it_is_dropped_while_it_waits_for_stillness() {
    let top = tempfile::tempdir().unwrap();
    lay_out(top.path());
    let config = top.path().join("plain/config.toml");
    let (watcher, changes) = start(By::SlowLook, &config);
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
    let files = Files::of(top.path().join("config.toml"));
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
        "a file that is gone is not an empty one"
    );
}

//! Reading: which files form a configuration, and the errors of unreadable ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use dpd::config::{Problems, drop_in_folder, load};
use tempfile::TempDir;

/// A folder with these files in it: (path, text).
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn problems(path: &Path) -> Problems {
    load(path).expect_err("a file that can't be used")
}

/// The text of the problems, without the path of the folder.
fn text(folder: &TempDir) -> String {
    let text = problems(&folder.path().join("config.toml")).to_string();
    text.replace(folder.path().to_str().unwrap(), "")
}

#[test]
fn drop_ins_join_in_name_order() {
    let folder = folder(&[
        ("config.toml", b"[node]\nname = \"a\"\n"),
        ("config.d/20-events.toml", b"[events]\nrate = 5\n"),
        ("config.d/10-policy.toml", b"[policy]\naudit = true\n"),
        ("config.d/.hidden.toml", b"not read"),
        ("config.d/30.toml.bak", b"not read"),
        ("config.d/README", b"not read"),
        ("other.d/10.toml", b"not read"),
    ]);
    let path = folder.path().join("config.toml");
    let loaded = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    let names: Vec<_> = loaded
        .sources
        .iter()
        .map(|s| {
            s.path
                .strip_prefix(folder.path())
                .unwrap()
                .to_str()
                .unwrap()
        })
        .collect();
    assert_eq!(
        names,
        [
            "config.toml",
            "config.d/10-policy.toml",
            "config.d/20-events.toml"
        ]
    );
    assert_eq!(loaded.config.path, path);
    assert_eq!(loaded.config.events.rate, 5);
    assert!(loaded.config.policy.audit);
}

#[test]
fn links_are_followed() {
    let folder = folder(&[("real/node.toml", b"[node]\nname = \"a\"\n")]);
    let path = folder.path().join("config.toml");
    symlink("real/node.toml", &path).unwrap();
    assert_eq!(load(&path).unwrap().config.node.name, "a");
}

#[test]
fn the_node_has_the_name_of_its_host() {
    let folder = folder(&[("config.toml", b"[events]\nrate = 5\n")]);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let loaded = load(&folder.path().join("config.toml")).unwrap();
    assert_eq!(loaded.config.node.name, host.trim());
}

#[test]
fn the_folder_of_drop_ins() {
    let rows = [
        ("/etc/dpd/config.toml", Some("/etc/dpd/config.d")),
        ("node-b.toml", Some("node-b.d")),
        ("/etc/dpd/a.b.toml", Some("/etc/dpd/a.b.d")),
        ("/etc/dpd/config", None),
        ("/etc/dpd/config.conf", None),
    ];
    for (path, expected) in rows {
        assert_eq!(
            drop_in_folder(Path::new(path)).as_deref(),
            expected.map(Path::new),
            "{path}"
        );
    }
}

#[test]
fn a_missing_file_points_to_the_example() {
    let expected = "\
error: there is no such file
 --> /config.toml
  = help: start with a copy of examples/config.toml, or name another file with --config or DPD_CONFIG

1 error";
    assert_eq!(text(&folder(&[])), expected);
}

#[test]
fn a_text_that_is_not_utf_8_is_marked() {
    let expected = "\
error: the file is not UTF-8 from here on
 --> /config.toml:2:9
  |
2 | name = \"\u{fffd}b\"
  |         ^
  = help: save it as UTF-8

1 error";
    let folder = folder(&[("config.toml", b"[node]\nname = \"\xffb\"\n")]);
    assert_eq!(text(&folder), expected);
}

#[test]
fn the_mark_and_the_line_ends_of_other_systems_are_no_part_of_the_text() {
    let written = folder(&[("config.toml", b"\xef\xbb\xbf[node]\r\nname = \"a\"\r\n")]);
    let loaded = load(&written.path().join("config.toml"));
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.node.name, "a");
    let wrong = folder(&[("config.toml", b"\xef\xbb\xbfnodes = 1\r\n")]);
    let report = text(&wrong);
    assert!(report.contains(" --> /config.toml:1:9\n"), "{report}");
}

#[test]
fn a_drop_in_of_any_name_breaks_no_line() {
    let folder = folder(&[
        ("config.toml", b"[node]\nname = \"a\"\n"),
        ("config.d/a\nb\x1b[2J.toml", b"[node]\nname = \"b\"\n"),
    ]);
    let report = text(&folder);
    assert!(
        report.contains(r" --> /config.d/a\nb\u{1b}[2J.toml:2:1"),
        "{report}"
    );
    assert!(
        report.contains(" ::: /config.toml:2:1"),
        "both locations: {report}"
    );
}

#[test]
fn files_that_are_not_regular() {
    type Make = fn(&Path);
    let rows: [(&str, Make, &str); 6] = [
        (
            "a folder",
            |path| fs::create_dir(path).unwrap(),
            "this is not a regular file",
        ),
        (
            "a pipe, without waiting for its writer",
            make_pipe,
            "this is not a regular file",
        ),
        (
            "a device",
            |path| symlink("/dev/zero", path).unwrap(),
            "this is not a regular file",
        ),
        (
            "a socket",
            |path| drop(UnixListener::bind(path).unwrap()),
            "this is not a regular file",
        ),
        (
            "a file that gives errors",
            |path| symlink("/proc/self/mem", path).unwrap(),
            "the file can't be read: Input/output error (os error 5)",
        ),
        (
            "a link to itself",
            |path| symlink(path, path).unwrap(),
            "the file can't be read: Too many levels of symbolic links (os error 40)",
        ),
    ];
    for (name, make, message) in rows {
        let folder = folder(&[]);
        let path = folder.path().join("config.toml");
        make(&path);
        let problems = problems(&path);
        let messages: Vec<_> = problems.0.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(messages, [message], "{name}");
    }
}

fn make_pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}

#[test]
fn a_file_that_is_too_large() {
    let folder = folder(&[("config.toml", b"")]);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join("config.toml"))
        .unwrap();
    file.set_len((32 << 20) + 1).unwrap();
    assert!(text(&folder).starts_with("error: the file is larger than 32 MiB\n"));
}

#[test]
fn every_unreadable_file_is_named() {
    let folder = folder(&[
        ("config.d/10.toml", b"\xff"),
        ("config.d/30.toml", b"[events]\n"),
    ]);
    fs::create_dir(folder.path().join("config.d/20.toml")).unwrap();
    symlink("nowhere", folder.path().join("config.d/40.toml")).unwrap();
    let problems = problems(&folder.path().join("config.toml"));
    let found: Vec<_> = problems
        .0
        .iter()
        .map(|p| {
            (
                p.file.file_name().unwrap().to_str().unwrap(),
                p.message.as_str(),
            )
        })
        .collect();
    let expected = [
        ("config.toml", "there is no such file"),
        ("10.toml", "the file is not UTF-8 from here on"),
        ("20.toml", "this is not a regular file"),
        (
            "40.toml",
            "the file is missing: it is a dangling link, or was just removed",
        ),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_drop_in_folder_that_is_a_file() {
    let folder = folder(&[("config.toml", b"[events]\n"), ("config.d", b"")]);
    let expected = "\
error: this is where drop-ins are looked for, but it is not a folder
 --> /config.d
  = help: move it away

1 error";
    assert_eq!(text(&folder), expected);
}

#[test]
fn unchanged_sources_are_not_checked_again() {
    let folder = folder(&[("config.toml", b"[events]\nrate = 5\n")]);
    let path = folder.path().join("config.toml");
    let none = dpd::config::Runtime::default();
    let before = dpd::config::load_again(&path, None, &none).expect("a valid file");
    let again = dpd::config::load_again(&path, Some(before.clone()), &none).expect("a valid file");
    let is_same = std::sync::Arc::ptr_eq(&again.config, &before.config);
    assert!(is_same, "the same text gives the same configuration");
    std::fs::write(&path, "[events]\nrate = 6\n").expect("write the file");
    let changed =
        dpd::config::load_again(&path, Some(before.clone()), &none).expect("a valid file");
    assert_eq!(changed.config.events.rate, 6, "another text");
    std::fs::write(&path, "[events]\nrate = \"six\"\n").expect("write the file");
    dpd::config::load_again(&path, Some(before), &none).expect_err("an invalid file");
}

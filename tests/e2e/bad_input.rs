//! Starts that fail: an error message, and exit status 1.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lab::{NetnsLab, eventually, text};

#[test]
fn each_bad_start_has_a_clear_message() {
    let lab = NetnsLab::started();
    let folder = tempfile::tempdir().expect("make a folder");
    let readable = PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), readable).expect("make the folder readable");
    let place = folder.path().display();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("write a file");
        path.display().to_string()
    };
    // Another user may have no access to the build folder.
    let dpd = folder.path().join("dpd").display().to_string();
    fs::copy(env!("CARGO_BIN_EXE_dpd"), &dpd).expect("copy dpd");

    let running = lab.config().display().to_string();
    let pid = fs::read_to_string(lab.folder().join("dpd.pid")).expect("dpd's pid");
    let second = format!("another dpd (pid {})", pid.trim());
    let no_toml = file("no.toml", "[services.kube-dns\n");
    let wrong = file(
        "wrong.toml",
        "[services.kube-dns]\nfrontends = [\"10.32.0.10:53/udp\"]\nbackend = []\n",
    );
    let empty = file("empty.toml", "");
    let secret = file("secret.toml", "[node]\nname = \"a\"\n");
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("hide a file");
    let daemon = |root: &str| {
        format!(
            "[daemon]\nbpf_root = \"{root}\"\nsocket = \"{place}/dpd.sock\"\n[node]\nname = \"a\"\n"
        )
    };
    let root = lab.bpf_root().display().to_string();
    let with_metrics = file(
        "metrics.toml",
        &(daemon(&root).replace("[node]", "metrics = \"127.0.0.1:9964\"\n[node]")),
    );
    lab.serve("node", "python3 -m http.server 9964 --bind 127.0.0.1", 9964);
    let no_bpffs = file("no-bpffs.toml", &daemon(&format!("{place}/bpf")));
    let dotted = file("dotted.toml", &daemon(&format!("{root}/node.a")));
    let unprivileged = "setpriv --reuid 65534 --regid 65534 --clear-groups";

    let rows = [
        (
            "a missing file",
            format!("{dpd} --config {place}/missing.toml run"),
            "missing.toml",
        ),
        (
            "a folder instead of the file",
            format!("{dpd} --config {place} run"),
            "not a regular file",
        ),
        (
            "a file that may not be read",
            format!("{unprivileged} {dpd} --config {secret} run"),
            "this user may not read the file",
        ),
        (
            "no TOML",
            format!("{dpd} --config {no_toml} run"),
            "no.toml:1",
        ),
        (
            "an unknown key",
            format!("{dpd} --config {wrong} run"),
            "did you mean",
        ),
        (
            "an empty file",
            format!("{dpd} --config {empty} run"),
            "empty",
        ),
        (
            "a second daemon",
            format!("{dpd} --config {running} run"),
            &second,
        ),
        (
            "a second daemon, whose port is taken too",
            format!("{dpd} --config {with_metrics} run"),
            &second,
        ),
        (
            "no bpffs",
            format!("{dpd} --config {no_bpffs} run"),
            "mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
        ),
        (
            "a name that no bpffs takes",
            format!("{dpd} --config {dotted} run"),
            "no name on a bpffs has a dot",
        ),
        (
            "not root",
            format!("{unprivileged} {dpd} --config {running} run"),
            "as root?",
        ),
        (
            "not root, reading",
            format!("{unprivileged} {dpd} --config {running} ct list"),
            "as root?",
        ),
        (
            "not root, cleaning up",
            format!("{unprivileged} {dpd} --config {running} cleanup"),
            "as root?",
        ),
    ];
    for (sentence, line, words) in rows {
        let output = lab.run("node", &format!("timeout 10 {line}"));
        let printed = text(&output);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{sentence}: {line}: {printed}"
        );
        assert!(printed.contains(words), "{sentence}: {printed}");
        assert!(
            !printed.contains("panicked") && !printed.contains("libbpf:"),
            "{sentence}: {printed}"
        );
    }
    lab.ok("node", &format!("{unprivileged} {dpd} check {no_bpffs}"));
    lab.dig("client", "10.32.0.10")
        .expect("the running daemon is not affected");
    lab.dpd("status");
}

/// Port and socket are acquired before anything is changed.
#[test]
fn a_start_that_fails_at_its_socket_changes_nothing() {
    let lab = NetnsLab::started();
    let folder = tempfile::tempdir().expect("make a folder");
    let place = folder.path().display();
    let socket = lab.folder().join("dpd.sock");
    let root = lab.bpf_root().with_file_name("other");
    let example = fs::read_to_string(lab.config()).expect("read the configuration");
    let at = |socket: &str| {
        let root = root.display();
        format!("{example}\n[daemon]\nbpf_root = \"{root}\"\nsocket = \"{socket}\"\n")
    };
    let file = format!("{place}/file");
    fs::write(&file, "mine").expect("write a file");

    let before = lab.attached();
    let revision = lab.revision();
    for (sentence, file, words) in [
        (
            "a running daemon's socket",
            at(&socket.display().to_string()),
            "another daemon listens at",
        ),
        ("another program's file", at(&file), "is not a socket"),
        (
            "a path where none can be created",
            at("/proc/dpd.sock"),
            "/proc/dpd.sock",
        ),
    ] {
        let config = format!("{place}/config.toml");
        fs::write(&config, file).expect("write the configuration");
        let line = format!(
            "timeout 10 {} --config {config} run",
            env!("CARGO_BIN_EXE_dpd")
        );
        let output = lab.run("node", &line);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(1), "{sentence}: {printed}");
        assert!(printed.contains(words), "{sentence}: {printed}");
        let live = lab.run(
            "node",
            &format!("cat {}/abi-*/gen/*/catalog", root.display()),
        );
        assert!(!live.status.success(), "{sentence}: {}", text(&live));
        assert_eq!(lab.attached(), before, "{sentence}");
    }
    assert_eq!(lab.revision(), revision);
    assert_eq!(fs::read(&file).expect("read the file"), b"mine");
    lab.dig("client", "10.32.0.10").expect("a reply");
    assert!(!root.exists(), "no pin is left");
}

/// The descriptors are kept for changes and clients; only the rest holds pins.
#[test]
fn a_low_limit_of_open_files_is_logged_and_suffices() {
    let lab = NetnsLab::laid();
    let log = lab.folder().join("few.log");
    let dpd = env!("CARGO_BIN_EXE_dpd");
    let line = format!("ulimit -n 280 && exec {dpd} run 2>{}", log.display());
    let mut daemon = lab.command("node", "sh");
    let mut daemon = daemon.args(["-c", &line]).spawn().expect("run nsenter");
    let read_log = || fs::read_to_string(&log).unwrap_or_default();
    eventually("it is ready", || {
        let status = lab.run("node", &format!("{dpd} status -o json"));
        let is_up = text(&status).contains("\"state\": \"up\"");
        is_up.then_some(()).ok_or_else(read_log)
    });
    lab.dig("client", "10.32.0.10").expect("a reply");
    for port in [1, 2] {
        lab.drop_in(
            "more",
            &format!("[services.more]\nfrontends = [\"10.32.0.77:{port}/udp\"]\nbackends = []\n"),
        );
        lab.dpd("reload");
    }
    let printed = read_log();
    assert_eq!(
        printed.matches("may open 280 files").count(),
        1,
        "{printed}"
    );
    assert!(!printed.contains("Too many open files"), "{printed}");
    daemon.kill().expect("end it");
    daemon.wait().expect("it ends");
}

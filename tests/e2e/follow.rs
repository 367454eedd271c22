//! Changes of the file are applied; invalid files are not.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use dpd::bpf::reader::Reader;
use dpd::bpf::sys::pins::Pins;
use serde_json::Value;

use crate::lab::{NetnsLab, eventually};

const RULE: &str = r#"ports = ["8080/tcp", "5201/tcp", "5201/udp"]"#;

/// Changes take effect within a second of the save; two more on a machine that is busy with other tests.
const APPLIED: Duration = Duration::from_secs(3);

fn backend_port(lab: &NetnsLab) -> String {
    let rows = lab.json("service get kube-dns");
    rows[0]["backends"][0]["address"].to_string()
}

/// Waits until the DNS service's backend is `port`.
fn applied(lab: &NetnsLab, what: &str, port: u16) {
    let start = Instant::now();
    eventually(what, || {
        let now = backend_port(lab);
        if now.contains(&format!(":{port}\"")) {
            Ok(())
        } else {
            Err(now)
        }
    });
    let took = start.elapsed();
    assert!(took < APPLIED, "{what}: only after {took:?}");
}

/// The tables of a change are staged while the file settles: here it does not settle, so they do not become live.
#[test]
fn a_saved_file_is_staged_before_it_is_live() {
    let lab = NetnsLab::started();
    let text = fs::read_to_string(lab.config()).expect("read the configuration");
    let pins = Pins::new(&lab.bpf_root());
    let live = lab.revision();
    lab.save(&text.replace("\"10.200.0.44:53\"", "\"10.200.0.44:1061\""));
    let file = fs::File::open(lab.config()).expect("open the configuration");
    eventually("its tables are staged", || {
        file.set_modified(SystemTime::now()).expect("touch it");
        let pinned = Pins::numbers(&pins.generations());
        (pinned == [live, live + 1]).then_some(()).ok_or(pinned)
    });
    file.set_modified(SystemTime::now()).expect("touch it");
    let reader = Reader::open(&lab.bpf_root()).expect("read the datapath");
    assert_eq!(
        reader.epoch().expect("read the epoch"),
        live,
        "they are not live"
    );
    applied(&lab, "it has settled", 1061);
    assert_eq!(lab.revision(), live + 1);
    eventually("nothing else is left pinned", || {
        let pinned = Pins::numbers(&pins.generations());
        (pinned == [live + 1]).then_some(()).ok_or(pinned)
    });
}

/// The first half of this file is valid, too.
#[test]
fn a_half_written_file_is_not_applied_by_a_start() {
    let lab = NetnsLab::laid();
    let text = fs::read_to_string(lab.config()).expect("read the configuration");
    let config = lab.config();
    fs::write(&config, text).expect("write the first half in place");
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        let file = fs::OpenOptions::new().append(true).open(&config);
        let mut file = file.expect("open the configuration");
        file.write_all(b"\n[services.late]\nfrontends = [\"10.32.0.77:1/udp\"]\nbackends = []\n")
            .expect("write the rest");
    });
    lab.start();
    writer.join().expect("the writer ends");
    assert_eq!(lab.revision(), 1, "{}", lab.log());
    assert!(
        lab.dpd("service list").contains("10.32.0.77:1/udp"),
        "{}",
        lab.log()
    );
}

/// A file that had settled when the daemon was woken may be half-written when the daemon reads it.
#[test]
fn a_half_written_file_is_not_applied_by_a_late_read() {
    let lab = NetnsLab::started();
    let drop_in = lab.config().with_extension("d").join("more.toml");
    let half =
        |n: u16| format!("[services.half]\nfrontends = [\"10.32.0.78:{n}/udp\"]\nbackends = []\n");
    let rest = "[services.rest]\nfrontends = [\"10.32.0.77:1/udp\"]\nbackends = []\n";
    let is_live = |n: u16| {
        let now = lab.dpd("service list");
        let is_whole = now.contains(&format!("10.32.0.78:{n}/udp")) && now.contains("10.32.0.77:1");
        is_whole.then_some(()).ok_or(now)
    };
    fs::write(&drop_in, half(1) + rest).expect("write a drop-in");
    eventually("the first version is live", || is_live(1));

    let held = hold(&lab.pid());
    fs::write(&drop_in, half(2) + rest).expect("write another version");
    std::thread::sleep(Duration::from_millis(600)); // it has settled, and the daemon is woken
    fs::write(&drop_in, half(3)).expect("write half of a third version");
    drop(held);
    std::thread::sleep(Duration::from_millis(150));
    let file = fs::OpenOptions::new().append(true).open(&drop_in);
    let mut file = file.expect("open the drop-in");
    file.write_all(rest.as_bytes()).expect("write the rest");

    eventually("the third version is live", || is_live(3));
    let log = lab.log();
    assert!(
        !log.contains("- service rest"),
        "half of it was applied: {log}"
    );
}

/// Stops a process's main thread, and no other, until it is dropped.
struct Held(Child);

fn hold(pid: &str) -> Held {
    const SCRIPT: &str = "import ctypes, os, sys
ATTACH, DETACH, ALL = 16, 17, 0x40000000
pid = int(sys.argv[1])
ptrace = ctypes.CDLL(None).ptrace
assert ptrace(ATTACH, pid, 0, 0) == 0
os.waitpid(pid, ALL)
print('held', flush=True)
sys.stdin.read()
assert ptrace(DETACH, pid, 0, 0) == 0";
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT, pid])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run python3");
    let mut word = [0; 4];
    let printed = child.stdout.as_mut().expect("a pipe").read_exact(&mut word);
    printed.expect("the thread is stopped");
    Held(child)
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_saved_file_is_applied() {
    let lab = NetnsLab::started();
    let text = fs::read_to_string(lab.config()).expect("read the configuration");
    let with = |port: u16| {
        text.replace("\"10.200.0.44:53\"", &format!("\"10.200.0.44:{port}\""))
            .replace(
                "\"[fd00:200::44]:53\"",
                &format!("\"[fd00:200::44]:{port}\""),
            )
    };
    lab.dig("client", "10.32.0.10")
        .expect("the service works at first");

    lab.save(&with(1053));
    applied(&lab, "a rename over the file is applied", 1053);
    lab.dig("client", "10.32.0.10")
        .expect_err("nothing listens there");

    fs::write(lab.config(), with(53)).expect("write the file in place");
    applied(&lab, "a write in place is applied", 53);
    lab.dig("client", "10.32.0.10")
        .expect("the service works again");

    let other = lab.folder().join("other.toml");
    fs::write(&other, with(1054)).expect("write another file");
    let link = lab.folder().join("link");
    std::os::unix::fs::symlink(&other, &link).expect("make a symlink");
    fs::rename(&link, lab.config()).expect("put the symlink in place");
    applied(&lab, "a symlink instead of the file is followed", 1054);
    fs::write(&other, with(53)).expect("write to its target");
    applied(&lab, "its target is watched", 53);

    let drop_in = lab.folder().join("config.d/more.toml");
    fs::write(
        &drop_in,
        "[services.more]\nfrontends = [\"10.32.0.77:1/udp\"]\nbackends = []\n",
    )
    .expect("write a drop-in");
    eventually("a drop-in is applied", || {
        let now = lab.dpd("service list");
        if now.contains("10.32.0.77:1/udp") {
            Ok(())
        } else {
            Err(now)
        }
    });
    fs::remove_file(&drop_in).expect("remove the drop-in");
    eventually("its removal is applied", || {
        let now = lab.dpd("service list");
        if now.contains("10.32.0.77") {
            Err(now)
        } else {
            Ok(())
        }
    });
}

#[test]
fn an_invalid_file_changes_nothing() {
    let lab = NetnsLab::started();
    let good = fs::read_to_string(lab.config()).expect("read the configuration");
    let services = lab.services();
    let revision = lab.revision();
    let rows = [
        (
            "a slip",
            good.replace("identity  = \"client\"", "identity  = \"cleint\""),
            "cleint",
        ),
        (
            "an unknown key",
            good.replace("frontends", "fronts"),
            "fronts",
        ),
        (
            "a file cut short",
            good[..good.len() - 60].to_owned(),
            "config.toml",
        ),
        ("an empty file", String::new(), "empty"),
    ];
    for (sentence, bad, word) in rows {
        lab.save(&bad);
        eventually(&format!("{sentence} is reported"), || {
            let status = lab.json("status");
            let error = status["config"]["last_error"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if error.contains(word) {
                Ok(())
            } else {
                Err(error)
            }
        });
        assert!(
            lab.log().contains(word),
            "{sentence} is logged: {}",
            lab.log()
        );
        assert_eq!(lab.services(), services, "{sentence} changes nothing");
        assert_eq!(lab.revision(), revision, "{sentence} changes nothing");
        lab.dig("client", "10.32.0.10").expect(sentence);
    }
    lab.save(&good);
    eventually("a valid file clears the error", || {
        let error = lab.json("status")["config"]["last_error"].clone();
        if error.is_null() { Ok(()) } else { Err(error) }
    });
}

#[test]
fn anything_instead_of_the_file_is_an_error() {
    let lab = NetnsLab::started();
    let config = lab.config();
    let good = fs::read_to_string(&config).expect("read the configuration");
    let revision = lab.revision();
    type Put = fn(&Path, &str);
    let endless: Put = |config, good| {
        fs::write(config, good).expect("write");
        let file = fs::OpenOptions::new().append(true).open(config);
        file.expect("open it").set_len(1 << 40).expect("a hole");
    };
    let rows: [(&str, Put, &str); 10] = [
        (
            "a folder",
            |config, _| fs::create_dir(config).expect("make a folder"),
            "not a regular file",
        ),
        (
            "a pipe without a writer",
            |config, _| {
                let mode = rustix::fs::Mode::RUSR;
                rustix::fs::mknodat(rustix::fs::CWD, config, rustix::fs::FileType::Fifo, mode, 0)
                    .expect("make a pipe");
            },
            "not a regular file",
        ),
        ("nothing", |_, _| {}, "there is no such file"),
        (
            "an empty file",
            |config, _| fs::write(config, "").expect("write"),
            "dpd cleanup",
        ),
        (
            "a dangling symlink",
            |config, _| std::os::unix::fs::symlink("nowhere", config).expect("make a link"),
            "there is no such file",
        ),
        (
            "100 MB",
            |config, good| {
                fs::write(config, good).expect("write");
                let file = fs::OpenOptions::new().append(true).open(config);
                file.expect("open it")
                    .set_len(100_000_000)
                    .expect("make it large");
            },
            "larger than 32 MiB",
        ),
        ("1 TiB, sparse", endless, "larger than 32 MiB"),
        (
            "a line of 20 MB",
            |config, good| {
                let line = "x".repeat(20_000_000);
                fs::write(config, format!("{good}\n{line}\n")).expect("write");
            },
            "config.toml",
        ),
        (
            "no UTF-8",
            |config, _| fs::write(config, b"[node]\nname = \"\xff\"\n").expect("write"),
            "not UTF-8",
        ),
        (
            "half of a file",
            |config, good| fs::write(config, &good[..good.len() - 60]).expect("write"),
            "config.toml",
        ),
    ];
    for (what, put, words) in rows {
        let _ = fs::remove_file(&config);
        put(&config, &good);
        eventually(&format!("{what} is reported"), || {
            let error = lab.json("status")["config"]["last_error"].clone();
            let is_said = error.as_str().is_some_and(|error| error.contains(words));
            is_said.then_some(()).ok_or(error)
        });
        assert_eq!(lab.revision(), revision, "{what} changes nothing");
        lab.dig("client", "10.32.0.10").expect(what);
        let _ = fs::remove_dir(&config);
        let _ = fs::remove_file(&config);
        lab.save(&good);
        eventually(&format!("the valid file is applied after {what}"), || {
            let error = lab.json("status")["config"]["last_error"].clone();
            if error.is_null() { Ok(()) } else { Err(error) }
        });
    }
    assert_eq!(lab.revision(), revision, "it is the same file");
    let log = lab.log();
    let longest = log.lines().map(str::len).max();
    assert!(longest.is_some_and(|longest| longest < 1000), "{longest:?}");

    lab.drop_in("one", "[identities.more]\nid = 300\n");
    lab.drop_in("two", "[identities.more]\nid = 301\n");
    eventually(
        "drop-ins that contradict each other are both reported",
        || {
            let error = lab.json("status")["config"]["last_error"].clone();
            let text = error.as_str().unwrap_or_default();
            (text.contains("one.toml") && text.contains("two.toml"))
                .then_some(())
                .ok_or(error)
        },
    );
    fs::remove_file(config.with_extension("d").join("two.toml")).expect("remove one");
    eventually("the remaining one is applied", || {
        let now = lab.dpd("identity list");
        now.contains("more").then_some(()).ok_or(now)
    });

    endless(&config, &good);
    eventually("1 TiB is being read", || {
        let error = lab.json("status")["config"]["last_error"].clone();
        if error.is_null() { Err(error) } else { Ok(()) }
    });
    let started = Instant::now();
    lab.stop();
    assert!(
        started.elapsed() < APPLIED,
        "it does not delay the daemon's stop: {:?}",
        started.elapsed()
    );
}

#[test]
fn every_kind_of_save_is_applied_once() {
    let lab = NetnsLab::started();
    let saves = [
        ("sed -i", "sed -i 's/20001/20011/' config.toml"),
        (
            "a write in place",
            "sed 's/20011/20012/' config.toml >new && cat new >config.toml",
        ),
        (
            "as vim: the old file renamed, a new one written, the old one removed",
            "mv config.toml config.toml~ && sed 's/20012/20013/' config.toml~ >config.toml && rm config.toml~",
        ),
        (
            "as emacs: the old file kept with another name",
            "mv config.toml config.toml~ && sed 's/20013/20014/' config.toml~ >config.toml",
        ),
        (
            "a symlink through another, as of a Kubernetes ConfigMap",
            "mkdir v1 v2 && sed 's/20014/20015/' config.toml >v1/config.toml &&
            sed 's/20014/20016/' config.toml >v2/config.toml &&
            ln -s v1 ..data && ln -s ..data/config.toml link && mv -T link config.toml",
        ),
        (
            "the symlink on the path swapped",
            "ln -s v2 ..new && mv -T ..new ..data",
        ),
        (
            "many saves one after the other",
            "for id in 1 2 3 4 5 6 7 8 9; do sed 's/20016/2002'$id'/' v2/config.toml >new; cp new config.toml; cp new v2/n; done; rm v2/n",
        ),
        (
            "a drop-in folder that is moved away and back",
            "mv config.d away && mv away config.d && sed -i 's/2002[0-9]/20030/' v2/config.toml",
        ),
    ];
    for (what, line) in saves {
        let revision = lab.revision();
        lab.ok("node", &format!("cd {} && {line}", lab.folder().display()));
        let saved = Instant::now();
        eventually(&format!("{what} is applied"), || {
            let now = lab.revision();
            if now > revision { Ok(()) } else { Err(now) }
        });
        assert!(
            saved.elapsed() < APPLIED,
            "{what}: only after {:?}",
            saved.elapsed()
        );
        lab.signal("HUP");
        eventually("a reload of the same file is done", || {
            let log = lab.log();
            let done = format!("reload: done, revision {}", revision + 1);
            log.contains(&done).then_some(()).ok_or(log)
        });
        assert_eq!(lab.revision(), revision + 1, "{what} is applied once");
    }
}

#[test]
fn concurrent_reloads_end_with_the_last_file() {
    let lab = NetnsLab::started();
    let mut id = 20001;
    for next in 20002..20010 {
        lab.edit(&format!("= {id} "), &format!("= {} ", next + 1000));
        id = next + 1000;
        (0..5).for_each(|_| drop(lab.signal("HUP")));
    }
    eventually("the last file is live", || {
        let now = lab.dpd("identity get client");
        now.contains(&id.to_string()).then_some(()).ok_or(now)
    });
    assert!(!lab.log().contains("ERROR"), "{}", lab.log());
    lab.dig("client", "10.32.0.10").expect("the service works");
}

#[test]
fn a_reload_applies_the_file_at_once() {
    let lab = NetnsLab::started();
    lab.edit("\"10.200.0.44:53\"", "\"10.200.0.44:1053\"");
    lab.signal("HUP");
    eventually("SIGHUP applies the file", || {
        let log = lab.log();
        if log.contains("reload: done") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert!(
        backend_port(&lab).contains(":1053\""),
        "what was reloaded is live"
    );

    lab.save("[services]\nfoo = 1\n");
    lab.signal("HUP");
    eventually("a reload of an invalid file is logged", || {
        let log = lab.log();
        if log.contains("ERROR") && log.contains("nothing is changed") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert!(backend_port(&lab).contains(":1053\""), "it changes nothing");
}

/// A request on an open connection.
fn request_hello(stream: &mut TcpStream, patience: Duration) -> Result<String, String> {
    stream
        .set_read_timeout(Some(patience))
        .expect("set a timeout");
    stream
        .write_all(b"GET /hello HTTP/1.1\r\nHost: web\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut reply = Vec::new();
    let mut piece = [0; 512];
    while !reply.ends_with(b"hello 10.200.0.64\n") {
        match stream.read(&mut piece) {
            Ok(0) => return Err("closed".to_owned()),
            Ok(length) => reply.extend_from_slice(&piece[..length]),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

#[test]
fn a_tightened_policy_ends_open_connections() {
    let lab = NetnsLab::started();
    crate::web::serve(&lab);
    let patience = Duration::from_secs(10);
    let mut stream = lab.connect("client", "10.32.0.80:80").expect("connect");
    request_hello(&mut stream, patience).expect("the connection works");

    let drop_in = lab.folder().join("config.d/servers.toml");
    let allowed = fs::read_to_string(&drop_in).expect("read the drop-in");
    let change = |text: &str| {
        let revision = lab.revision();
        fs::write(&drop_in, text).expect("write the drop-in");
        eventually("the change is applied", || {
            let now = lab.revision();
            if now > revision { Ok(()) } else { Err(now) }
        });
    };

    assert!(allowed.contains(RULE));
    change(&format!(
        "{allowed}# A remark.\n[services.other]\nfrontends = [\"10.32.0.98:80/tcp\"]\nbackends = []\n"
    ));
    request_hello(&mut stream, patience).expect("an unrelated change does not affect it");

    change(&allowed.replace(RULE, r#"ports = ["5201/tcp"]"#));
    request_hello(&mut stream, Duration::from_secs(2)).expect_err("its next packet is dropped");
    eventually("the drop is observed", || {
        let observed = lab.dpd("observe --last 20 --verdict dropped");
        if observed.contains("policy denied: no rule of ingress kube-dns") {
            Ok(())
        } else {
            Err(observed)
        }
    });
    let connections = lab.dpd("ct list");
    let of_it = connections
        .lines()
        .find(|line| line.contains("10.200.0.44:8080"));
    assert!(
        of_it.is_some_and(|line| line.contains("refused")),
        "it is refused: {connections}"
    );
    let refused = lab.run("client", "curl -sS -m 2 http://10.32.0.80/hello");
    assert!(!refused.status.success(), "a new one is denied");

    change(&allowed);
    lab.ok("client", "curl -fsS -m 10 http://10.32.0.80/hello");
}

#[test]
fn a_change_costs_no_packet() {
    let lab = NetnsLab::started();
    lab.serve("coredns", "iperf3 -s -p 5201", 5201);
    let mut client = lab.command("client", "timeout");
    // So slow and short that the server's buffer holds what arrives while it waits for a CPU.
    client.args("60 iperf3 -J -c 10.32.0.52 -p 52 -u -b 500K -l 200 -t 5".split_whitespace());
    let client = client.stdout(Stdio::piped()).spawn().expect("run nsenter");
    eventually("the datagrams flow", || {
        let connections = lab.dpd("ct list");
        let is_there = |line: &str| line.starts_with("udp") && line.contains("10.32.0.52");
        if connections.lines().any(is_there) {
            Ok(())
        } else {
            Err(connections)
        }
    });
    let drop_in = lab.folder().join("config.d/other.toml");
    for port in 1..=4 {
        let revision = lab.revision();
        let other =
            format!("[services.other]\nfrontends = [\"10.32.0.98:{port}/tcp\"]\nbackends = []\n");
        fs::write(&drop_in, other).expect("write a drop-in");
        lab.signal("HUP");
        eventually("the change is applied", || {
            let now = lab.revision();
            if now > revision { Ok(()) } else { Err(now) }
        });
    }
    let output = client.wait_with_output().expect("wait for iperf3");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report in JSON");
    let sum = &report["end"]["sum"];
    assert!(
        sum["packets"]
            .as_u64()
            .is_some_and(|packets| packets > 1000),
        "{report}"
    );
    assert_eq!(sum["lost_packets"], 0, "of {}", sum["packets"]);
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

/// While dpd is stopped, more events occur in the file's folder than inotify queues: the files are looked at all the same.
#[test]
fn an_overflow_of_inotifys_queue_loses_no_change() {
    let lab = NetnsLab::started();
    let bound = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
    let bound: usize = bound.expect("inotify's bound").trim().parse().expect("one");
    lab.signal("STOP");
    let noise = lab.folder().join("noise");
    for _ in 0..=bound {
        fs::write(&noise, "").expect("make a file");
        fs::remove_file(&noise).expect("remove it");
    }
    lab.edit("\"10.200.0.44:53\"", "\"10.200.0.44:1053\"");
    lab.signal("CONT");
    applied(&lab, "the change after the other events", 1053);
    lab.edit("\"10.200.0.44:1053\"", "\"10.200.0.44:53\"");
    applied(&lab, "the next one", 53);
}

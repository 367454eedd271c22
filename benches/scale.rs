//! The time to apply a large file, and a change of one line in it: by step, then with a real daemon, and
//! its memory. The node has all interfaces of the file.

#[path = "../tests/common/mod.rs"]
mod common;
mod generate;
mod lab;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use dpd::bpf::reader::Reader;
use dpd::config::Config;
use dpd::model::catalog::Catalog;
use dpd::plan;
use dpd::reconcile::Reconciler;
use generate::Size;
use lab::Daemon;

/// A large host.
const LARGE: Size = Size {
    services: 10_000,
    backends_per_service: 10,
    endpoints: 1_000,
    identities: 5_000,
    rules: 20_000,
    prefixes: 10_000,
};

/// The size of the lab.
const SMALL: Size = Size {
    services: 1,
    backends_per_service: 1,
    endpoints: 3,
    identities: 3,
    rules: 10,
    prefixes: 3,
};

/// Changes that are measured; the median counts.
const CHANGES: usize = 9;

/// Between two changes: the cleanup after a commit must not count for the next one.
const BETWEEN: Duration = Duration::from_secs(1);

/// What operators look at, and how often it is run.
const LISTINGS: [&str; 7] = [
    "service list",
    "service get svc0",
    "endpoint list",
    "identity list",
    "policy list",
    "ct list",
    "status",
];
const LISTED: usize = 5;

/// Longer than every periodic task of the daemon.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    lab::need_root();
    let _cgroup = lab::own_bpffs();
    let files: [(&str, Size, MakeTexts); 3] = [
        ("small", SMALL, random),
        ("large", LARGE, random),
        ("large, every service with Maglev", LARGE, maglev),
    ];
    for (name, size, make) in files {
        println!("{name}: {size:?}");
        let node = Namespace::new();
        let workloads = Namespace::new();
        lay_endpoints(&node, &workloads, size.endpoints);
        let texts = make(&size);
        steps(&node, &texts);
        daemon(&node, &texts);
    }
}

/// A link for each endpoint, created by one command.
fn lay_endpoints(node: &Namespace, workloads: &Namespace, count: usize) {
    let mut ip = lab::inside(node, "ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start ip");
    let mut words = ip.stdin.take().expect("ip's input is a pipe");
    for number in 0..count {
        writeln!(
            words,
            "link add gen{number} up type veth peer name w{number} netns {}",
            workloads.pid()
        )
        .expect("write to ip");
    }
    drop(words);
    assert!(ip.wait().expect("wait for ip").success(), "ip failed");
}

fn line(what: &str, time: Duration) {
    println!("  {what:44} {:8.1} ms", time.as_secs_f64() * 1e3);
}

fn timed<T>(what: &str, job: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = job();
    line(what, begun.elapsed());
    done
}

fn load(path: &Path) -> Arc<Config> {
    let loaded = dpd::config::load(path).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config
}

/// A file, and the same with one line changed.
type Texts = [String; 2];

type MakeTexts = fn(&Size) -> Texts;

/// The change is one more service.
fn random(size: &Size) -> Texts {
    let text = generate::config(size);
    let service = "\n[services.one-more]\nfrontends = [\"10.99.0.1:80/tcp\"]\nbackends = []\n";
    [text.clone(), text + service]
}

/// The change is the weight of one backend, and so one of the Maglev tables.
fn maglev(size: &Size) -> Texts {
    let text = generate::config(size);
    let text = text.replace("\nbackends = [", "\nalgorithm = \"maglev\"\nbackends = [");
    let backend = r#""10.128.0.13:8080""#;
    let heavier = format!("{{ address = {backend}, weight = 2 }}");
    let changed = text.replacen(backend, &heavier, 1);
    assert_ne!(changed, text, "the file has the backend");
    [text, changed]
}

/// The same with the settings of a daemon.
fn with_daemon(texts: &Texts, root: &Path, socket: &Path) -> Texts {
    let daemon = format!(
        "\n[daemon]\nbpf_root = \"{}\"\nsocket = \"{}\"\nlog = \"stderr\"\nexpedite_rcu = true\n",
        root.display(),
        socket.display()
    );
    texts.each_ref().map(|text| text.clone() + &daemon)
}

/// The steps of a change, in this process.
fn steps(node: &Namespace, texts: &Texts) {
    let folder = tempfile::tempdir().expect("make a folder");
    let root = Path::new("/sys/fs/bpf").join(format!("steps-{}", node.pid()));
    let texts = with_daemon(texts, &root, &folder.path().join("dpd.sock"));
    let path = folder.path().join("config.toml");
    fs::write(&path, &texts[0]).expect("write the configuration");
    let config = timed("read and check the file", || load(&path));
    node.run(|| {
        let world = timed("take a snapshot of the host", || {
            dpd::net::snapshot().expect("look")
        });
        timed("compile", || {
            drop(plan::compile(plan::Inputs {
                config: &config,
                host: &world,
                now_ns: 0,
                previous: &Catalog::default(),
                previous_maglev: &Default::default(),
            }))
        });
        let mut reconciler = timed("load the programs", || {
            Reconciler::start(&config).expect("load the programs")
        });
        timed("first apply, in total", || {
            reconciler.apply(&config, &world, |_, _| {}).expect("apply")
        });
        let mut times = Vec::new();
        for change in 1..=CHANGES {
            fs::write(&path, &texts[change % 2]).expect("write the configuration");
            let begun = Instant::now();
            let config = load(&path);
            let world = dpd::net::snapshot().expect("look");
            let read = begun.elapsed();
            let applied = reconciler.apply(&config, &world, |_, _| {}).expect("apply");
            assert!(
                (1..=2).contains(&applied.changes.len()),
                "{:?}",
                applied.changes
            );
            times.push((read, begun.elapsed() - read));
        }
        times.sort();
        let (read, apply) = times[CHANGES / 2];
        line("a change of one line: read", read);
        line("a change of one line: apply", apply);
    });
    let _ = dpd::reconcile::cleanup(&root, true);
}

/// A daemon: until it is ready, from save to commit, and its memory.
fn daemon(node: &Namespace, files: &Texts) {
    let mut texts = [String::new(), String::new()];
    let begun = Instant::now();
    let daemon = Daemon::start(node, |root, socket| {
        texts = with_daemon(files, root, socket);
        texts[0].clone()
    });
    line("the daemon: until it is ready", begun.elapsed());
    std::thread::sleep(BETWEEN);
    println!(
        "  {:44} {:8.1} MiB",
        "its memory (resident)",
        resident(daemon.pid())
    );
    let reader = Reader::open(daemon.root()).expect("read the datapath");
    let epoch = || reader.epoch().expect("read the epoch");
    let mut times = Vec::new();
    for change in 1..=CHANGES {
        let new = daemon.config().with_extension("new");
        fs::write(&new, &texts[change % 2]).expect("write the configuration");
        std::thread::sleep(BETWEEN);
        let before = epoch();
        fs::rename(&new, daemon.config()).expect("put it in place");
        let begun = Instant::now();
        while epoch() == before {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it is not applied"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        times.push(begun.elapsed());
    }
    times.sort();
    line(
        "from save to commit, 300 ms of them to settle",
        times[CHANGES / 2],
    );
    line("the fastest of them", times[0]);
    let worst = resident(daemon.pid());
    // Catalogs of previous revisions are kept for some seconds.
    std::thread::sleep(Duration::from_secs(15));
    println!(
        "  {:44} {:8.1} MiB",
        format!("its memory after {CHANGES} changes, at rest"),
        resident(daemon.pid())
    );
    println!("  {:44} {worst:8.1} MiB", "the same at the last change");
    listings(node, &daemon);
    let ticks = || lab::ticks(daemon.pid());
    let before = ticks();
    std::thread::sleep(IDLE);
    println!(
        "  {:44} {:8.1} % of a core",
        "when idle",
        (ticks() - before) as f64 / IDLE.as_secs_f64()
    );
}

/// How long each listing takes: the median of some runs.
fn listings(node: &Namespace, daemon: &Daemon) {
    for words in LISTINGS {
        let run = |_| {
            let mut command = lab::inside(node, env!("CARGO_BIN_EXE_dpd"));
            command.arg("--config").arg(daemon.config());
            let command = command.args(words.split(' ')).stdout(Stdio::null());
            let begun = Instant::now();
            let status = command.status().expect("run dpd");
            assert!(status.success(), "dpd {words}: {status}");
            begun.elapsed()
        };
        let mut times: Vec<Duration> = (0..LISTED).map(run).collect();
        times.sort();
        line(&format!("dpd {words}"), times[LISTED / 2]);
    }
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the daemon's status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = kibibytes.and_then(|word| word.parse().ok()).expect("VmRSS");
    kibibytes / 1024.0
}

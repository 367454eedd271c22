//! The tables of 10,000 services with 10 backends each, with each algorithm in turn.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dpd::bpf::reader::Reader;
use dpd::config::Config;
use dpd::reconcile::Reconciler;
use rustix::time::{ClockId, clock_gettime};

use super::{Algorithm, median};
use crate::common::namespace::Namespace;
use crate::generate::{self, Size};

const SIZE: Size = Size {
    services: 10_000,
    backends_per_service: 10,
    endpoints: 0,
    identities: 0,
    rules: 0,
    prefixes: 0,
};
const ROUNDS: usize = 5;

/// The tables that services have.
const TABLES: [&str; 4] = ["services", "backends", "backend_lut", "maglev"];

/// The time that a job takes, and that of all CPUs for it, which other work on the machine does not lengthen much.
struct Took {
    time: Duration,
    cpu: Duration,
}

impl Took {
    fn of(job: impl FnOnce()) -> Took {
        let (begun, before) = (Instant::now(), cpu_time());
        job();
        Took {
            time: begun.elapsed(),
            cpu: cpu_time() - before,
        }
    }
}

/// That this process has had.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.try_into().expect("a time since the start")
}

/// What one round of an algorithm took.
struct Figures {
    first: Took,
    change: Took,
    /// Bytes of each table.
    memory: [u64; TABLES.len()],
}

/// A file, and the same with a heavier backend of one service.
fn texts(algorithm: Algorithm, root: &Path) -> [String; 2] {
    let text = generate::config(&SIZE);
    let keys = format!("\nalgorithm = \"{}\"\nbackends = [", algorithm.name());
    let text = text.replace("\nbackends = [", &keys);
    let daemon = format!("\n[daemon]\nbpf_root = {root:?}\nexpedite_rcu = true\n");
    let backend = r#""10.128.0.13:8080""#;
    let heavier = format!("{{ address = {backend}, weight = 2 }}");
    let changed = text.replacen(backend, &heavier, 1);
    assert_ne!(changed, text, "the file has the backend");
    [text, changed].map(|text| text + &daemon)
}

fn load(path: &Path, text: &str) -> Arc<Config> {
    fs::write(path, text).expect("write the configuration");
    let loaded = dpd::config::load(path).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config
}

/// Loads the programs and applies the file, then its change. The file is read and the programs are loaded before the clock runs.
fn round(node: &Namespace, algorithm: Algorithm) -> Figures {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("config.toml");
    let root = Path::new("/sys/fs/bpf").join(format!("backends-{}", node.pid()));
    let configs = texts(algorithm, &root).map(|text| load(&path, &text));
    let figures = node.run(|| {
        let world = dpd::net::snapshot().expect("look at the host");
        let mut reconciler = Reconciler::start(&configs[0]).expect("load the programs");
        let [first, change] = configs.each_ref().map(|config| {
            Took::of(|| {
                reconciler.apply(config, &world, |_, _| {}).expect("apply");
            })
        });
        let reader = Reader::open(&root).expect("read the datapath");
        let maps = reader.maps().expect("read the maps");
        let memory = TABLES.map(|table| {
            let map = maps.iter().find(|map| map.name == table);
            map.map_or(0, |map| map.memory_bytes)
        });
        Figures {
            first,
            change,
            memory,
        }
    });
    dpd::reconcile::cleanup(&root, true).expect("remove the datapath");
    figures
}

/// A line: the medians of both, and of the ratio of each round.
fn line(what: &str, rounds: &[[Figures; 2]], figure: impl Fn(&Figures) -> f64) {
    let of = |nth: usize| median(rounds.iter().map(|pair| figure(&pair[nth])).collect());
    let ratios = rounds
        .iter()
        .map(|pair| figure(&pair[1]) / figure(&pair[0]));
    let ratio = median(ratios.collect());
    print!("  {what:50} {:14.1} {:14.1}", of(0), of(1));
    match of(0) < 0.1 {
        true => println!(),
        false => println!(" {ratio:5.2}"),
    }
}

pub fn measure() {
    println!(
        "\n{SIZE:?}, medians of {ROUNDS} rounds in turn\n{:52} {:>14} {:>14} {:>5}",
        "", "random", "maglev", "ratio"
    );
    let node = Namespace::new();
    let round = |_| Algorithm::ALL.map(|algorithm| round(&node, algorithm));
    let rounds: Vec<[Figures; 2]> = (0..ROUNDS).map(round).collect();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    line("first apply: plan and write, ms", &rounds, |round| {
        ms(round.first.time)
    });
    line("  its CPU time, ms", &rounds, |round| ms(round.first.cpu));
    line(
        "one changed backend: plan and write, ms",
        &rounds,
        |round| ms(round.change.time),
    );
    line("  its CPU time, ms", &rounds, |round| ms(round.change.cpu));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (nth, table) in TABLES.iter().enumerate() {
        let what = format!("table {table}, MiB");
        line(&what, &rounds, |round| mib(round.memory[nth]));
    }
    line("all of them, MiB", &rounds, |round| {
        mib(round.memory.iter().sum())
    });
}

//! A dpd of another version, or with tables of another layout, takes the datapath over: nothing is lost by it.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use dpd::bpf::load::Release;
use dpd::bpf::pins::{self, Pins};
use dpd::config::Config;
use dpd::reconcile::Reconciler;
use libbpf_rs::{MapCore, MapHandle, MapType};

use crate::common::release::{narrow, other, own};
use crate::host::{CONFIG, Host, SECOND, all_maps, all_programs, on_host, wait_until_gone};

/// Connections that outlive a test on a busy machine.
const LASTING: &str = "[conntrack]\nudp_once = \"1h\"\nudp = \"1h\"\n";

fn lasting(host: &Host) -> Config {
    host.config(&format!("{CONFIG}{LASTING}"))
}

/// With two backends: a connection that were begun anew would be seen to change.
fn of_two(host: &Host, more: &str) -> Config {
    let one = "[\"10.200.0.44:53\"]";
    let two = format!("[\"10.200.0.44:53\", {SECOND:?}]");
    let text = CONFIG.replace(one, &two);
    assert_ne!(text, CONFIG);
    let text = text.replace("[\"53/udp\"]", "[\"53/udp\", \"5353/udp\"]");
    host.config(&format!("{text}{LASTING}{more}"))
}

fn version() -> u32 {
    Release::own().version
}

/// The version before ours, with another layout.
fn former() -> Release<'static> {
    other(version() - 1)
}

fn started(host: &Host, config: &Config, release: Release<'static>) -> Reconciler {
    let mut reconciler = host.take_over_as(config, release);
    host.apply(&mut reconciler, config);
    reconciler
}

/// What is pinned below the root, and what the links are and lead to.
fn picture(host: &Host) -> Vec<String> {
    let mut all = Vec::new();
    for pins in Pins::all(host.root()) {
        let folders = [pins.maps(), pins.loads(), pins.generations()];
        for folder in folders {
            let names = pins::names(&folder);
            all.extend(
                names
                    .iter()
                    .map(|name| folder.join(name).display().to_string()),
            );
        }
        for name in pins::names(&pins.links()) {
            let link = libbpf_rs::Link::open(pins.links().join(&name)).expect("open a link");
            let info = link.info().expect("ask about a link");
            all.push(format!(
                "{}/{name} {} {}",
                pins.name(),
                info.id,
                info.prog_id
            ));
        }
    }
    all
}

/// The ids of the programs and maps that are pinned in a folder of a datapath, whatever its version.
fn pinned(pins: &Pins) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut programs, mut maps) = (BTreeSet::new(), BTreeSet::new());
    let loads = Pins::numbers(&pins.loads());
    let generations = Pins::numbers(&pins.generations());
    let folders = loads.into_iter().map(|number| pins.load(number));
    let folders = folders.chain(generations.into_iter().map(|epoch| pins.generation(epoch)));
    for folder in folders.chain([pins.maps()]) {
        for name in pins::names(&folder) {
            let path = folder.join(name);
            if let Ok(map) = MapHandle::from_pinned_path(&path) {
                // Kernels leak an array of programs when somebody looks at all maps the moment that its last pin goes
                // (prog_array_map_clear takes a reference too many).
                if map.map_type() == MapType::ProgArray {
                    continue;
                }
                maps.insert(map.info().expect("ask about a map").info.id);
            } else if let Ok(program) = libbpf_rs::Program::fd_from_pinned_path(&path) {
                programs.insert(program_id(&program));
            }
        }
    }
    (programs, maps)
}

fn program_id(program: &std::os::fd::OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = fs::read_to_string(path).expect("read what the kernel says of a program");
    let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
    line.expect("it has a number")
        .trim()
        .parse()
        .expect("a number")
}

#[test]
fn connections_counts_and_numbers_are_kept() {
    on_host(|host| {
        let config = lasting(host);
        let first = started(host, &config, former());
        for _ in 0..5 {
            assert!(host.asks(), "the former version serves");
        }
        let old = Pins::of_version(host.root(), version() - 1);
        let catalog = first.live().expect("it is live").catalog.clone();
        let epoch = first.epoch();
        let links = link_ids(&old);
        let (programs, maps) = pinned(&old);
        drop(first);

        let mut second = host.take_over(&config, Mechanism::Tcx);
        let applied = host.apply(&mut second, &config);
        assert_eq!(applied.epoch, epoch + 1, "the epoch goes on");
        assert_eq!(
            pins::names(host.root()),
            [host.pins().name()],
            "the former folder is gone"
        );
        assert_eq!(
            link_ids(&host.pins()),
            links,
            "the links are those that were"
        );
        let now = host.reader().state().unwrap().catalog;
        assert_eq!(now, catalog, "every number means what it meant");

        assert_eq!(
            host.forwarded("lxc-client", "egress"),
            5,
            "counters are kept"
        );
        let hits: u64 = host.reader().rule_hits().unwrap().values().sum();
        assert!(host.asks(), "the service answers");
        let [connection] = &host.connections()[..] else {
            panic!("one connection: {:?}", host.connections());
        };
        assert_eq!(
            (connection.packets, connection.reply_packets),
            (6, 6),
            "it is the same one"
        );
        assert_eq!(now.services[&connection.service].name, "dns");
        assert!(now.backends.contains_key(&connection.backend_id));
        assert_eq!(host.forwarded("lxc-client", "egress"), 6);
        let again: u64 = host.reader().rule_hits().unwrap().values().sum();
        assert!(
            hits >= 1 && again >= hits,
            "hits are kept: {hits}, then {again}"
        );

        let (ours, our_maps) = pinned(&host.pins());
        wait_until_gone("former programs", &(&programs - &ours), all_programs);
        wait_until_gone("former maps", &(&maps - &our_maps), all_maps);
        drop(second);
        let third = started(host, &config, Release::own());
        assert_eq!(third.epoch(), epoch + 2, "and a restart is as ever");
    });
}

fn link_ids(pins: &Pins) -> Vec<(String, u32)> {
    pins::names(&pins.links())
        .into_iter()
        .map(|name| {
            let link = libbpf_rs::Link::open(pins.links().join(&name)).expect("open a link");
            let id = link.info().expect("ask about a link").id;
            (name, id)
        })
        .collect()
}

#[test]
fn no_packet_is_lost_from_version_to_version() {
    on_host(|host| {
        let config = of_two(host, "");
        let smaller = of_two(host, "size = 65536\n");
        // Other layouts, other sizes, both at once, neither.
        let rows = [
            (&config, own(1)),
            (&smaller, other(2)),
            (&config, other(3)),
            (&config, other(4)),
            (&config, own(4 + 1)),
        ];
        let mut running = Some(started(host, &config, other(0)));
        let links = link_ids(&Pins::of_version(host.root(), 0));
        let lost = host.under_traffic(|wait_for| {
            wait_for(20);
            for (config, release) in rows {
                drop(running.take());
                wait_for(5);
                running = Some(started(host, config, release));
                wait_for(20);
            }
        });
        assert_eq!(lost, Vec::<String>::new());
        drop(running);
        assert_eq!(link_ids(&Pins::of_version(host.root(), 5)), links);
        assert_eq!(pins::names(host.root()), ["abi-5"], "nothing else is left");
    });
}

#[test]
fn no_packet_is_lost_by_another_size_of_conntrack() {
    on_host(|host| {
        let config = of_two(host, "");
        let mut reconciler = started(host, &config, Release::own());
        let lost = host.under_traffic(|wait_for| {
            for size in [65536, 262_144, 98304] {
                let config = of_two(host, &format!("size = {size}\n"));
                wait_for(20);
                host.apply(&mut reconciler, &config);
                wait_for(20);
            }
        });
        assert_eq!(lost, Vec::<String>::new());
        assert_eq!(pins::names(host.root()), [host.pins().name()]);
    });
}

/// A packet may still be on its way through the former chain, which is emptied when it goes.
#[test]
fn the_former_programs_go_a_grace_period_after_the_last_link_has_left_them() {
    let rows = [
        ("a restart", Release::own(), "/load/1"),
        ("another version", own(version() + 1), "/maps/dpd_live"),
        (
            "another version's layout",
            other(version() + 1),
            "/maps/dpd_live",
        ),
    ];
    for (what, release, gone) in rows {
        on_host(|host| {
            drop(host.start(Mechanism::Tcx));
            let former = format!("unpin {}{gone}", host.pins().version().display());
            let config = host.config(CONFIG);
            let mut second = host.take_over_as(&config, release);
            let (words, kept) = recorded();
            host.apply(&mut second, &config);
            drop(kept);
            let words = words.lock().unwrap();
            let last = words
                .iter()
                .rposition(|words| words.starts_with("update the link"));
            let first = words.iter().position(|words| *words == former);
            let (Some(last), Some(first)) = (last, first) else {
                panic!("{what}: {words:#?}");
            };
            let between = words.get(last..first).unwrap_or_default();
            // A write to an outer map waits for the programs that have begun.
            let waits = |words: &String| words.starts_with("put table") && words.contains("slot");
            assert!(between.iter().any(waits), "{what}: {words:#?}");
        });
    }
}

/// What is done on this thread, and on those that it starts, for as long as the second answer lives.
fn recorded() -> (Arc<Mutex<Vec<String>>>, gate::Kept) {
    let words = Arc::new(Mutex::new(Vec::new()));
    let note = words.clone();
    let kept = gate::keep(Arc::new(move |what| {
        note.lock().unwrap().push(what.to_owned());
        Ok(())
    }));
    (words, kept)
}

#[test]
fn a_size_that_is_too_small_says_how_many_connections_it_forgets() {
    on_host(|host| {
        let large = lasting(host);
        let mut reconciler = started(host, &large, Release::own());
        for port in 20000..20600 {
            let socket = UdpSocket::bind(("10.200.0.1", port)).expect("bind on the host");
            let sent = socket.send_to(b"nobody listens", "10.200.0.44:9");
            sent.expect("send from the host");
        }
        let open = || {
            let settings = host.reader().state().expect("a configuration").settings;
            let open = host.reader().open_connections(&settings).expect("read");
            open.groups.values().sum::<u64>()
        };
        assert_eq!(open(), 600, "all have room, and none is answered");

        // Of a quarter of the size nobody need have answered.
        let small = host.config(&format!("{CONFIG}{LASTING}size = 1024\n"));
        let applied = host.apply(&mut reconciler, &small);
        let [change] = &applied.changes[..] else {
            panic!("{:?}", applied.changes);
        };
        assert_eq!(
            change.to_string(),
            "~ setting conntrack.size 131072 → 1024: at least 344 connections are forgotten"
        );
        assert!(open() <= 600 - 344, "{} are left", open());

        let applied = host.apply(&mut reconciler, &large);
        let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ setting conntrack.size 1024 → 131072"]);
    });
}

/// What a change does is told by the tables that are carried over, not by those that are still empty.
#[test]
fn what_another_size_comes_with_is_counted_too() {
    on_host(|host| {
        let config = lasting(host);
        let mut reconciler = started(host, &config, Release::own());
        assert!(host.asks(), "a connection through the service");
        let text = format!("{CONFIG}{LASTING}size = 65536\n");
        let without = text.replace("[\"10.200.0.44:53\"]", "[]");
        assert_ne!(text, without);
        let applied = host.apply(&mut reconciler, &host.config(&without));
        let lines: Vec<String> = applied.changes.iter().map(ToString::to_string).collect();
        assert!(
            lines[0].starts_with("- backend 10.200.0.44:53 of service dns:")
                && lines[0].ends_with("1 connection ends"),
            "{lines:?}"
        );
    });
}

#[test]
fn an_upgrade_that_fails_leaves_the_former_whole() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(started(host, &config, former()));
        let before = picture(host);
        let (vanished, world) = crate::failure::with_a_vanished_interface(host, CONFIG);
        for attempt in 1..=2 {
            let mut second = host.take_over(&vanished, Mechanism::Tcx);
            let error = host.refused(&mut second, &vanished, &world);
            assert!(error.contains("lxc-vanished"), "{error}");
            assert!(host.asks(), "attempt {attempt}: the service answers");
            drop(second);
            assert_eq!(picture(host), before, "attempt {attempt}");
            assert!(host.asks(), "attempt {attempt}: the former serves on");
        }
        // The former may come back, and the new one may try again.
        drop(started(host, &config, former()));
        drop(started(host, &config, Release::own()));
        assert!(host.asks(), "the next good one works");
        assert_eq!(pins::names(host.root()), [host.pins().name()]);
    });
}

#[test]
fn an_upgrade_with_clsact_filters() {
    on_host(|host| {
        let config = of_two(host, "");
        let start = |release| {
            let mut reconciler =
                Reconciler::start_as(&config, Mechanism::Clsact, release).expect("take over");
            host.apply(&mut reconciler, &config);
        };
        start(former());
        let lost = host.under_traffic(|wait_for| {
            wait_for(5);
            start(Release::own());
            wait_for(5);
        });
        assert_eq!(lost, Vec::<String>::new());
        let removed = host.cleanup();
        assert_eq!(removed.len(), 3, "two interfaces and the pins: {removed:?}");
        assert!(!host.has_clsact("lxc-client"), "the qdisc was ours");
    });
}

#[test]
fn what_cannot_be_carried_over_is_refused_with_the_ways_out() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(started(host, &config, narrow(version() - 1)));
        let before = picture(host);
        let error = match Reconciler::start(&config) {
            Ok(_) => panic!("this must be refused"),
            Err(error) => format!("{error:#}"),
        };
        let words = [
            "without losing connections and counters",
            "dpd_ct_",
            "created_ns was __u32 and is __u64",
            "start the version again",
            "`dpd cleanup`",
        ];
        for word in words {
            assert!(error.contains(word), "{word:?} is not said: {error}");
        }
        assert_eq!(picture(host), before, "nothing has changed");
        assert!(host.asks(), "the former serves on");
        let removed = host.cleanup();
        assert_eq!(removed.len(), 3, "two interfaces and the pins: {removed:?}");
        assert!(!host.root().exists(), "the pins of another version go too");
    });
}

#[test]
fn an_older_version_leaves_a_newer_datapath_alone() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(started(host, &config, own(version() + 1)));
        let before = picture(host);
        let error = match Reconciler::start(&config) {
            Ok(_) => panic!("this must be refused"),
            Err(error) => format!("{error:#}"),
        };
        let newer = format!("abi-{}", version() + 1);
        for word in [
            &*newer,
            "newer version",
            "start the newer version again",
            "`dpd cleanup`",
        ] {
            assert!(error.contains(word), "{word:?} is not said: {error}");
        }
        assert_eq!(picture(host), before, "nothing has changed");
        assert!(host.asks(), "the newer serves on");
    });
}

#[test]
fn a_takeover_that_was_broken_off_is_finished_by_who_began_it() {
    on_host(|host| {
        let config = lasting(host);
        let mut running = started(host, &config, former());
        assert!(host.asks(), "a connection to carry over");
        drop(running);
        running = host.take_over(&config, Mechanism::Tcx);
        let kept = gate::keep(Arc::new(|words| {
            match words.starts_with("lead to the former") {
                true => Err(std::io::ErrorKind::OutOfMemory.into()),
                false => Ok(()),
            }
        }));
        host.apply(&mut running, &config);
        drop(kept);
        drop(running);
        let (former, between) = (format!("abi-{}", version() - 1), host.pins().name());
        let before = picture(host);
        assert_eq!(pins::names(host.root()), [&*former, &*between]);

        let newer = Reconciler::start_as(&config, Mechanism::Tcx, other(version() + 1));
        let error = match newer {
            Ok(_) => panic!("this must be refused"),
            Err(error) => format!("{error:#}"),
        };
        let start =
            format!("start the version again that made {between}, which finishes its takeover");
        for words in [&*former, &start, "`dpd cleanup`"] {
            assert!(error.contains(words), "{words:?} is not said: {error}");
        }
        assert_eq!(picture(host), before, "nothing has changed");

        drop(started(host, &config, Release::own()));
        assert_eq!(pins::names(host.root()), [between], "it is finished");
        let [connection] = &host.connections()[..] else {
            panic!("one connection: {:?}", host.connections());
        };
        assert_eq!(connection.packets, 1, "it is the one that was");
        drop(started(host, &config, other(version() + 1)));
        assert!(host.asks(), "the newer one serves now");
    });
}

#[test]
fn readers_say_whose_datapath_is_there() {
    on_host(|host| {
        let config = host.config(CONFIG);
        let refused = || match dpd::bpf::reader::Reader::open(host.root()) {
            Ok(_) => panic!("there is nothing for this version to read"),
            Err(error) => format!("{error:#}"),
        };
        drop(started(host, &config, former()));
        let said = refused();
        assert!(said.contains("an older version of dpd"), "{said}");
        assert!(said.contains("restart the daemon"), "{said}");
        drop(started(host, &config, own(version() + 1)));
        let said = refused();
        assert!(said.contains("a newer version of dpd"), "{said}");
    });
}

#[test]
fn what_an_upgrade_left_that_came_to_nothing_is_cleared_away() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let epoch = host.reader().epoch().unwrap();
        // As a newer version that was killed at different moments of its first start, and things that are not ours.
        let next = format!("{}-next/load/1", host.pins().name());
        for left in ["abi-998", "abi-999/maps", &next, "abi-7/links"] {
            fs::create_dir_all(host.root().join(left)).unwrap();
        }
        for strange in ["abi-x", "abi-07", "abi--next", "theirs"] {
            fs::create_dir_all(host.root().join(strange)).unwrap();
        }
        let no_link = host.root().join("abi-7/links/9-ingress");
        let mut counters = MapHandle::from_pinned_path(host.pins().map("dpd_counters")).unwrap();
        counters.pin(&no_link).unwrap();
        let second = host.start(Mechanism::Tcx);
        assert_eq!(
            second.epoch(),
            epoch + 1,
            "the datapath is the one that was"
        );
        assert!(host.asks(), "the service answers");
        let left = pins::names(host.root());
        assert_eq!(
            left,
            [
                "abi--next",
                "abi-07",
                &host.pins().name(),
                "abi-x",
                "theirs"
            ]
        );
    });
}

//! A dpd of another version, or with tables of another layout or size, takes the datapath over without loss.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::image::ProgramImage;
use dpd::bpf::sys::call::inject_faults;
use dpd::bpf::sys::op::Op;
use dpd::bpf::sys::pins::{self, Pins};
use dpd::config::Config;
use dpd::reconcile::Reconciler;
use libbpf_rs::{MapCore, MapHandle, MapType};

use crate::common::image::{narrow, other, own};
use crate::host::{CONFIG, Host, SECOND, all_maps, all_programs, on_host, wait_until_gone};

/// Connections that outlive a test on a busy machine.
const LASTING: &str = "[conntrack]\nudp_once = \"1h\"\nudp = \"1h\"\n";

fn lasting(host: &Host) -> Config {
    host.config(&format!("{CONFIG}{LASTING}"))
}

/// With two backends: a connection that was lost could be seen to change its backend.
fn of_two(host: &Host, more: &str) -> Config {
    let one = "[\"10.200.0.44:53\"]";
    let two = format!("[\"10.200.0.44:53\", {SECOND:?}]");
    let text = CONFIG.replace(one, &two);
    assert_ne!(text, CONFIG);
    let text = text.replace("[\"53/udp\"]", "[\"53/udp\", \"5353/udp\"]");
    host.config(&format!("{text}{LASTING}{more}"))
}

fn version() -> u32 {
    ProgramImage::own().version
}

/// The version before ours, with another layout.
fn previous() -> ProgramImage<'static> {
    other(version() - 1)
}

/// Our version, which takes over from that one: the real one refuses layouts that were never released.
fn current() -> ProgramImage<'static> {
    own(version())
}

fn started(host: &Host, config: &Config, image: ProgramImage<'static>) -> Reconciler {
    let mut reconciler = host.take_over_as(config, image);
    host.apply(&mut reconciler, config);
    reconciler
}

/// The error of a start that must fail.
fn refusal(config: &Config, image: ProgramImage<'static>) -> String {
    match Reconciler::start_as(config, Mechanism::Tcx, image) {
        Ok(_) => panic!("this must be refused"),
        Err(error) => format!("{error:#}"),
    }
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
                // Kernels leak an array of programs when all maps are listed the moment that its last pin goes
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
    let text = fs::read_to_string(path).expect("read what the kernel reports of a program");
    let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
    line.expect("it has a number")
        .trim()
        .parse()
        .expect("a number")
}

#[test]
fn connections_counters_and_ids_are_kept() {
    on_host(|host| {
        let config = lasting(host);
        let first = started(host, &config, previous());
        for _ in 0..5 {
            assert!(host.asks(), "the previous version serves");
        }
        let old = Pins::of_version(host.root(), version() - 1);
        let catalog = first.live().expect("it is live").catalog.clone();
        let epoch = first.epoch();
        let links = link_ids(&old);
        let (programs, maps) = pinned(&old);
        drop(first);

        let mut second = host.take_over_as(&config, current());
        let applied = host.apply(&mut second, &config);
        assert_eq!(applied.epoch, epoch + 1, "the epoch goes on");
        assert_eq!(
            pins::names(host.root()),
            [host.pins().name()],
            "the previous directory is gone"
        );
        assert_eq!(
            link_ids(&host.pins()),
            links,
            "the links are those that were"
        );
        let now = host.reader().state().unwrap().catalog;
        assert_eq!(now, catalog, "every id means what it meant");

        // Five questions, and what the workload's own kernel has sent meanwhile.
        let kept = host.forwarded("lxc-client", "egress");
        assert!(kept >= 5, "counters are kept: {kept}");
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
        assert!(host.forwarded("lxc-client", "egress") > kept);
        let again: u64 = host.reader().rule_hits().unwrap().values().sum();
        assert!(
            hits >= 1 && again >= hits,
            "hits are kept: {hits}, then {again}"
        );

        let (ours, our_maps) = pinned(&host.pins());
        wait_until_gone("previous programs", &(&programs - &ours), all_programs);
        wait_until_gone("previous maps", &(&maps - &our_maps), all_maps);
        drop(second);
        let third = started(host, &config, current());
        assert_eq!(third.epoch(), epoch + 2, "and a restart works as ever");
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
        let last = Pins::of_version(host.root(), 5).name();
        assert_eq!(pins::names(host.root()), [last], "nothing else is left");
    });
}

#[test]
fn no_packet_is_lost_by_another_size_of_conntrack() {
    on_host(|host| {
        let config = of_two(host, "");
        let mut reconciler = started(host, &config, current());
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

/// What matters for the order in which the previous programs are removed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    UpdateLink,
    /// A write to an outer map, which waits for the programs that are running.
    Wait,
    RemovePrevious,
}

/// A packet may still be in the previous chain, which is emptied when it is removed.
#[test]
fn previous_programs_are_removed_a_grace_period_after_the_last_link_was_updated() {
    let rows = [
        ("a restart", own(version()), "load/1"),
        ("another version", own(version() + 1), "maps/dpd_live"),
        (
            "another version's layout",
            other(version() + 1),
            "maps/dpd_live",
        ),
    ];
    for (what, image, removed) in rows {
        on_host(|host| {
            drop(host.start(Mechanism::Tcx));
            let removed = host.pins().version().join(removed);
            let config = host.config(CONFIG);
            let mut second = host.take_over_as(&config, image);
            let steps = Arc::new(Mutex::new(Vec::new()));
            let guard = {
                let steps = steps.clone();
                inject_faults(Arc::new(move |op| {
                    let step = match op {
                        Op::UpdateLink { .. } => Step::UpdateLink,
                        Op::FillSlot { .. } => Step::Wait,
                        Op::Unpin { path } if *path == removed => Step::RemovePrevious,
                        _ => return Ok(()),
                    };
                    steps.lock().unwrap().push(step);
                    Ok(())
                }))
            };
            host.apply(&mut second, &config);
            drop(guard);
            let steps = steps.lock().unwrap();
            let last = steps.iter().rposition(|step| *step == Step::UpdateLink);
            let first = steps.iter().position(|step| *step == Step::RemovePrevious);
            let (Some(last), Some(first)) = (last, first) else {
                panic!("{what}: {steps:?}");
            };
            let between = steps.get(last..first).unwrap_or_default();
            assert!(between.contains(&Step::Wait), "{what}: {steps:?}");
        });
    }
}

#[test]
fn a_size_that_is_too_small_says_how_many_connections_it_forgets() {
    on_host(|host| {
        let large = lasting(host);
        let mut reconciler = started(host, &large, current());
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

/// The effects of a change are counted in the tables that are migrated, not in those that are still empty.
#[test]
fn effects_of_a_change_with_another_size_are_counted_too() {
    on_host(|host| {
        let config = lasting(host);
        let mut reconciler = started(host, &config, current());
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
fn an_upgrade_that_fails_leaves_the_previous_version_intact() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(started(host, &config, previous()));
        let before = picture(host);
        let (vanished, world) = crate::failure::with_a_vanished_interface(host, CONFIG);
        for attempt in 1..=2 {
            let mut second = host.take_over_as(&vanished, current());
            let error = host.refused(&mut second, &vanished, &world);
            assert!(error.contains("lxc-vanished"), "{error}");
            assert!(host.asks(), "attempt {attempt}: the service answers");
            drop(second);
            assert_eq!(picture(host), before, "attempt {attempt}");
            assert!(
                host.asks(),
                "attempt {attempt}: the previous one still serves"
            );
        }
        // The previous version may come back, and the new one may try again.
        drop(started(host, &config, previous()));
        drop(started(host, &config, current()));
        assert!(host.asks(), "the next good one works");
        assert_eq!(pins::names(host.root()), [host.pins().name()]);
    });
}

#[test]
fn an_upgrade_with_clsact_filters() {
    on_host(|host| {
        let config = of_two(host, "");
        let start = |image| {
            let mut reconciler =
                Reconciler::start_as(&config, Mechanism::Clsact, image).expect("take over");
            host.apply(&mut reconciler, &config);
        };
        start(previous());
        let lost = host.under_traffic(|wait_for| {
            wait_for(5);
            start(current());
            wait_for(5);
        });
        assert_eq!(lost, Vec::<String>::new());
        let removed = host.cleanup();
        assert_eq!(removed.len(), 3, "two interfaces and the pins: {removed:?}");
        assert!(!host.has_clsact("lxc-client"), "the qdisc was ours");
    });
}

#[test]
fn what_can_not_be_migrated_is_refused_with_the_remedies() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(started(host, &config, narrow(version() - 1)));
        let before = picture(host);
        let error = refusal(&config, current());
        let words = [
            "without losing connections and counters",
            "dpd_ct_",
            "created_ns was __u32 and is __u64",
            "start the version again",
            "`dpd cleanup`",
        ];
        for word in words {
            assert!(error.contains(word), "{word:?} is missing: {error}");
        }
        assert_eq!(picture(host), before, "nothing has changed");
        assert!(host.asks(), "the previous one still serves");
        let removed = host.cleanup();
        assert_eq!(removed.len(), 3, "two interfaces and the pins: {removed:?}");
        assert!(!host.root().exists(), "the pins of another version go too");
    });
}

/// In the layouts before the first release members had other names, and would be migrated as zero.
#[test]
fn a_layout_that_is_too_old_is_refused_and_serves_on() {
    on_host(|host| {
        let config = lasting(host);
        let old = 3;
        drop(started(host, &config, own(old)));
        let before = picture(host);
        let lost = host.under_traffic(|wait_for| {
            wait_for(5);
            for _ in 0..2 {
                let error = refusal(&config, ProgramImage::own());
                let words = [
                    "an older version of dpd (abi-3)",
                    "can't take over",
                    "its programs and connections continue as they are",
                    "start the older version again",
                    "`dpd cleanup`",
                ];
                for word in words {
                    assert!(error.contains(word), "{word:?} is missing: {error}");
                }
                assert_eq!(picture(host), before, "nothing has changed");
            }
            wait_for(20);
        });
        assert_eq!(lost, Vec::<String>::new());
        drop(started(host, &config, own(old)));
        assert!(host.asks(), "the older version may come back");
        host.cleanup();
        drop(host.start(Mechanism::Tcx));
        assert!(host.asks(), "after the cleanup this one starts");
    });
}

#[test]
fn an_older_version_leaves_a_newer_datapath_alone() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(started(host, &config, own(version() + 1)));
        let before = picture(host);
        let error = refusal(&config, ProgramImage::own());
        let newer = format!("abi-{}", version() + 1);
        for word in [
            &*newer,
            "newer version",
            "start the newer version again",
            "`dpd cleanup`",
        ] {
            assert!(error.contains(word), "{word:?} is missing: {error}");
        }
        assert_eq!(picture(host), before, "nothing has changed");
        assert!(host.asks(), "the newer one still serves");
    });
}

#[test]
fn an_interrupted_takeover_is_finished_by_its_own_version() {
    on_host(|host| {
        let config = lasting(host);
        let mut running = started(host, &config, previous());
        assert!(host.asks(), "a connection to migrate");
        drop(running);
        running = host.take_over_as(&config, current());
        let guard = inject_faults(Arc::new(|op| match op {
            Op::PublishPrevious { .. } => Err(std::io::ErrorKind::OutOfMemory.into()),
            _ => Ok(()),
        }));
        host.apply(&mut running, &config);
        drop(guard);
        drop(running);
        let (previous, between) = (format!("abi-{}", version() - 1), host.pins().name());
        let before = picture(host);
        assert_eq!(pins::names(host.root()), [&*previous, &*between]);

        let error = refusal(&config, other(version() + 1));
        let start = format!("start the version again that created {between}, which finishes it");
        for words in [&*previous, &start, "`dpd cleanup`"] {
            assert!(error.contains(words), "{words:?} is missing: {error}");
        }
        assert_eq!(picture(host), before, "nothing has changed");

        drop(started(host, &config, current()));
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
fn readers_report_a_datapath_of_another_version() {
    on_host(|host| {
        let config = host.config(CONFIG);
        let refused = || match dpd::bpf::reader::Reader::open(host.root()) {
            Ok(_) => panic!("there is nothing for this version to read"),
            Err(error) => format!("{error:#}"),
        };
        drop(started(host, &config, previous()));
        let error = refused();
        assert!(error.contains("an older version of dpd"), "{error}");
        assert!(error.contains("restart the daemon"), "{error}");
        drop(started(host, &config, own(version() + 1)));
        let error = refused();
        assert!(error.contains("a newer version of dpd"), "{error}");
    });
}

#[test]
fn remains_of_an_upgrade_that_failed_are_removed() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let epoch = host.reader().epoch().unwrap();
        // As left by a newer version that was killed during its first start, and names that are not ours.
        let next = format!("{}-next/load/1", host.pins().name());
        for left in ["abi-998", "abi-999/maps", &next, "abi-9/links"] {
            fs::create_dir_all(host.root().join(left)).unwrap();
        }
        for strange in ["abi-x", "abi-07", "abi--next", "theirs"] {
            fs::create_dir_all(host.root().join(strange)).unwrap();
        }
        let no_link = host.root().join("abi-9/links/9-ingress");
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

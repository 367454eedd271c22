//! The daemon with the capabilities of its unit and no others, and with each of them taken away.

use std::time::Duration;

use dpd::bpf::attach::Mechanism;
use dpd::bpf::sys::capabilities::{NEEDED, OPTIONAL};
use dpd::bpf::sys::pins::{self, Pins};
use dpd::config::Config;
use dpd::net::neighbour::LinkSocket;
use dpd::reconcile::Reconciler;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::common::image::{other, own};
use crate::host::{CONFIG, Host, on_host};

/// Those of the unit.
fn granted() -> CapabilitySet {
    let needs = NEEDED.iter().chain(&OPTIONAL);
    needs.fold(CapabilitySet::empty(), |all, need| all | need.capability)
}

/// Does a job on this thread with these capabilities alone; threads that it starts have no others.
fn with<T>(effective: CapabilitySet, job: impl FnOnce() -> T) -> T {
    let all = capabilities(None).expect("read the capabilities");
    let some = CapabilitySets { effective, ..all };
    set_capabilities(None, some).expect("put capabilities aside");
    let done = job();
    set_capabilities(None, all).expect("take them back");
    done
}

/// A start that is applied, or its error.
fn start(host: &Host, config: &Config) -> Result<Reconciler, String> {
    start_with(Mechanism::Tcx, host, config)
}

fn start_with(mechanism: Mechanism, host: &Host, config: &Config) -> Result<Reconciler, String> {
    let started = Reconciler::start_with(config, mechanism).and_then(|mut reconciler| {
        reconciler.apply(config, &host.world(), |_, _| {})?;
        Ok(reconciler)
    });
    started.map_err(|error| format!("{error:#}"))
}

/// The error of a start that must fail with these capabilities.
fn refusal(effective: CapabilitySet, host: &Host, config: &Config) -> String {
    match with(effective, || start(host, config)) {
        Ok(_) => panic!("without {:?} it starts", granted() - effective),
        Err(error) => error,
    }
}

#[test]
fn those_of_the_unit_suffice_for_every_change() {
    on_host(|host| {
        let first = host.config(CONFIG);
        let second = host.config(&CONFIG.replace("10.32.0.10", "10.32.0.20"));
        for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
            with(granted(), || {
                let mut reconciler = start_with(mechanism, host, &first).expect("start");
                host.apply(&mut reconciler, &second);
                drop(reconciler);
                let mut reconciler = start_with(mechanism, host, &second).expect("take over");
                host.apply(&mut reconciler, &first);
            });
            assert!(host.asks(), "the service answers");
            with(granted(), || host.cleanup());
            assert!(!host.root().exists(), "all is removed");
        }
    });
}

#[test]
fn each_that_is_needed_is_named_where_it_lacks() {
    on_host(|host| {
        let config = host.config(CONFIG);
        for need in NEEDED {
            let error = refusal(granted() - need.capability, host, &config);
            let words = format!("dpd lacks {} {}", need.name, need.purpose);
            assert!(error.contains(&words), "{words} is missing: {error}");
            assert!(!error.contains("libbpf"), "noise of libbpf: {error}");
            let others = NEEDED.iter().filter(|other| other.name != need.name);
            for other in others {
                let word = format!("{} ", other.name);
                assert!(!error.contains(&word), "{word} is there: {error}");
            }
            assert_eq!(pins::names(host.root()), [""; 0], "nothing is left");
        }
    });
}

/// Without CAP_SYS_ADMIN, which alone may open the kernel's types of the previous maps.
#[test]
fn a_datapath_of_another_layout_is_taken_over_with_those_of_the_unit() {
    on_host(|host| {
        let version = Pins::new(host.root()).number();
        let config = host.config(&format!(
            "{CONFIG}[conntrack]\nudp = \"1h\"\nudp_once = \"1h\"\n"
        ));
        with(granted(), || {
            let mut first = host.take_over_as(&config, other(version - 1));
            host.apply(&mut first, &config);
            assert!(host.asks(), "the previous version serves");
            drop(first);
            let mut second = host.take_over_as(&config, own(version));
            host.apply(&mut second, &config);
        });
        assert!(host.asks(), "this version serves");
        let [connection] = &host.connections()[..] else {
            panic!("one connection: {:?}", host.connections());
        };
        assert_eq!((connection.packets, connection.reply_packets), (2, 2));
    });
}

/// What only root can repair is neither guessed nor begun afresh.
#[test]
fn a_lost_epoch_is_refused_to_who_may_not_search_for_it() {
    on_host(|host| {
        let config = host.config(CONFIG);
        drop(host.start(Mechanism::Tcx));
        let epoch = host.reader().epoch().expect("read the epoch");
        std::fs::remove_file(host.pins().map("dpd_live")).expect("delete a pin");
        let error = refusal(granted(), host, &config);
        for word in [
            "dpd_live",
            "CAP_SYS_ADMIN",
            "`dpd run` once as root",
            "`dpd cleanup`",
        ] {
            assert!(error.contains(word), "{word} is missing: {error}");
        }
        assert!(host.asks(), "the datapath serves");
        let reconciler = start(host, &config).expect("root may");
        assert!(reconciler.epoch() >= epoch, "epochs continue");
    });
}

/// Whether a change of the client's MAC address, in its own namespace, wakes a watcher that has these capabilities.
fn notices(effective: CapabilitySet, host: &Host, mac: &str) -> bool {
    /// Longer than the host's own links take to check their addresses for duplicates.
    const QUIET: Duration = Duration::from_secs(3);
    let (wake, woken) = crossbeam_channel::bounded(1);
    let _watcher = with(effective, || dpd::net::Watcher::start(wake)).expect("start a watcher");
    // What the host's own links still have to report.
    while woken.recv_timeout(QUIET).is_ok() {}
    host.client.ip(&format!("link set eth0 address {mac}"));
    woken.recv_timeout(QUIET).is_ok()
}

#[test]
fn changes_in_the_workloads_namespaces_are_noticed_with_the_optional_one() {
    on_host(|host| {
        let all = granted();
        assert!(notices(all, host, "02:00:00:00:00:01"));
        let without = all - CapabilitySet::NET_BROADCAST;
        assert!(!notices(without, host, "02:00:00:00:00:02"));
        assert!(notices(all, host, "02:00:00:00:00:03"));
    });
}

#[test]
fn links_are_heard_with_the_one_for_announcements() {
    on_host(|_| {
        let ifindex = dpd::net::ifindex("lxc-client").expect("the client's link");
        let open = |effective| {
            with(effective, || {
                LinkSocket::arp(ifindex)?;
                LinkSocket::neighbour_discovery(ifindex)
            })
        };
        open(granted()).expect("open packet sockets");
        let error = open(granted() - CapabilitySet::NET_RAW).expect_err("it is not permitted");
        assert!(format!("{error:#}").contains("open a packet socket"));
    });
}

//! Uplinks: the programs of both tc hooks, and XDP while a prefilter has prefixes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use dpd::bpf::attach::hook::{Role, XDP_ENTRY};
use dpd::bpf::attach::xdp::{self, Attached};
use dpd::bpf::attach::{self, Mechanism};
use dpd::bpf::sys::pins::{self, Pins};
use dpd::model::xdp::XdpMode;
use dpd::reconcile::{AttachError, HookKind};
use libbpf_rs::{Link, Program};

use crate::common::namespace::Namespace;
use crate::host::{CONFIG, Host, all_links, on_host, wait_until_gone};

const DENIED: &str = "203.0.113.66";
const PREFILTER: &str = "[prefilter.abusers]\ndeny = [\"203.0.113.0/24\", \"2001:db8:bad::/48\"]\n";

/// `CONFIG` and an uplink, in these words for its XDP, with what stands behind it in the file.
fn with_uplink(xdp: &str, rest: &str) -> String {
    format!("{CONFIG}\n[interfaces.uplink0]\nrole = \"uplink\"\nxdp = \"{xdp}\"\n{rest}")
}

/// Gives the host a veth as its uplink, with a neighbour that has a denied address too.
fn create_veth(host: &Host) -> Namespace {
    let neighbour = Namespace::new();
    let pid = neighbour.pid();
    host.namespace.ip(&format!(
        "link add uplink0 type veth peer name eth0 netns {pid}"
    ));
    host.namespace.ip("address add 192.0.2.1/24 dev uplink0");
    host.namespace.ip("link set uplink0 up");
    host.namespace.ip("route add 203.0.113.0/24 via 192.0.2.2");
    neighbour.ip("address add 192.0.2.2/24 dev eth0");
    neighbour.ip(&format!("address add {DENIED}/32 dev eth0"));
    neighbour.ip("link set eth0 up");
    neighbour
}

/// Gives the host an uplink whose driver knows nothing of XDP.
fn create_bridge(host: &Host) {
    host.namespace.ip("link add uplink0 type bridge");
    host.namespace.ip("link set uplink0 up");
}

/// The functions on the two tc hooks of an interface, by their links.
fn programs(host: &Host, interface: &str) -> Vec<String> {
    let (links, ifindex) = (host.links(), host.ifindex(interface));
    let programs = host.reader().programs().expect("read the programs");
    ["ingress", "egress"]
        .into_iter()
        .filter_map(|hook| links.get(&format!("{ifindex}-{hook}")))
        .map(|link| {
            let program = programs.iter().find(|program| program.id == link.prog_id);
            program.map_or("another load's".to_owned(), |program| program.name.clone())
        })
        .collect()
}

fn xdp_of(host: &Host) -> Option<Attached> {
    xdp::find(&host.pins(), host.ifindex("uplink0"))
}

/// Whether the host answers a ping from one of the neighbour's addresses.
fn answers(neighbour: &Namespace, source: &str) -> bool {
    ping(neighbour, source, "1")
}

/// Whether a ping from the denied address is not answered.
fn denies(neighbour: &Namespace) -> bool {
    !ping(neighbour, DENIED, "0.2")
}

fn ping(neighbour: &Namespace, source: &str, wait: &str) -> bool {
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", neighbour.pid()))
        .args(["ping", "-n", "-c1", "-W", wait, "-I", source, "192.0.2.1"])
        .output()
        .expect("start ping (of the package iputils-ping)");
    output.status.success()
}

#[test]
fn an_uplink_has_programs_of_its_own_until_it_leaves_the_file() {
    for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
        on_host(|host| {
            let neighbour = create_veth(host);
            let mut reconciler = host.start(mechanism);
            host.apply(&mut reconciler, &host.config(&with_uplink("auto", "")));
            let ifindex = host.ifindex("uplink0");
            let found = attach::find(&host.pins(), ifindex, Role::Uplink);
            let found: Vec<_> = found.iter().map(|found| found.program).collect();
            assert_eq!(found, Role::Uplink.hooks());
            assert_eq!(xdp_of(host), None, "no prefilter, no XDP");
            assert!(host.asks(), "workloads are served");
            assert!(answers(&neighbour, "192.0.2.2"), "the host is left alone");
            host.apply(&mut reconciler, &host.config(CONFIG));
            assert_eq!(attach::find(&host.pins(), ifindex, Role::Uplink), []);
            assert!(!attach::held(&host.pins()).contains(&ifindex));
            assert!(host.asks(), "workloads are served");
        });
    }
}

#[test]
fn an_interface_changes_its_role_in_place() {
    on_host(|host| {
        let mut reconciler = host.start(Mechanism::Tcx);
        let before = host.links();
        let endpoint = ["dpd_from_container", "dpd_to_container"];
        assert_eq!(programs(host, "lxc-server"), endpoint);
        let (start, end) = CONFIG.split_once("[interfaces.lxc-server]").unwrap();
        let (_, end) = end.split_once("[identities.client]").unwrap();
        let uplink = "[interfaces.lxc-server]\nrole = \"uplink\"\n[identities.client]";
        let uplink = format!("{start}{uplink}{end}{PREFILTER}");
        host.apply(&mut reconciler, &host.config(&uplink));
        assert_eq!(
            programs(host, "lxc-server"),
            ["dpd_from_netdev", "dpd_to_netdev"]
        );
        let ifindex = host.ifindex("lxc-server");
        assert!(xdp::find(&host.pins(), ifindex).is_some());
        host.apply(
            &mut reconciler,
            &host.config(&format!("{CONFIG}{PREFILTER}")),
        );
        assert_eq!(programs(host, "lxc-server"), endpoint);
        assert_eq!(xdp::find(&host.pins(), ifindex), None);
        let after = host.links();
        assert!(before.keys().eq(after.keys()), "{:?}", after.keys());
        for (name, link) in after {
            assert_eq!(link.id, before[&name].id, "{name} is the link that it was");
        }
        assert!(host.asks(), "the service answers");
    });
}

#[test]
fn a_refused_change_of_role_is_rolled_back() {
    on_host(|host| {
        create_bridge(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        let before = host.link_ids();
        let (start, end) = CONFIG.split_once("[interfaces.lxc-server]").unwrap();
        let (_, end) = end.split_once("[identities.client]").unwrap();
        let role = "[interfaces.lxc-server]\nrole = \"uplink\"\n[identities.client]";
        let bridge = "[interfaces.uplink0]\nrole = \"uplink\"\nxdp = \"native\"\n";
        let config = host.config(&format!("{start}{role}{end}{bridge}{PREFILTER}"));
        host.refused(&mut reconciler, &config, &host.world());
        assert_eq!(host.link_ids(), before);
        assert!(host.asks(), "the service answers");
    });
}

#[test]
fn xdp_is_attached_by_the_configured_mode_and_the_driver() {
    use Attached::{Generic, Native};
    // The file's word, on a veth, on a bridge; None: refused.
    let rows = [
        ("auto", Some(Native), Some(Generic)),
        ("generic", Some(Generic), Some(Generic)),
        ("auto", Some(Native), Some(Generic)), // the driver is tried again
        ("generic", Some(Generic), Some(Generic)),
        ("native", Some(Native), None),
        ("generic", Some(Generic), Some(Generic)),
        ("native", Some(Native), None),
        ("auto", Some(Native), Some(Generic)), // what is there suits
        ("off", None, None),
        ("native", Some(Native), None),
        ("off", None, None),
        ("generic", Some(Generic), Some(Generic)),
    ];
    for is_veth in [true, false] {
        on_host(|host| {
            let neighbour = match is_veth {
                true => Some(create_veth(host)),
                false => {
                    create_bridge(host);
                    None
                }
            };
            let mut reconciler = host.start(Mechanism::Tcx);
            for (word, on_veth, on_bridge) in rows {
                if !is_veth && word == "native" {
                    continue; // refused, in a test of its own
                }
                let expected = if is_veth { on_veth } else { on_bridge };
                let config = host.config(&with_uplink(word, PREFILTER));
                host.apply(&mut reconciler, &config);
                assert_eq!(xdp_of(host), expected, "{word}, veth: {is_veth}");
                if let Some(neighbour) = &neighbour {
                    assert_eq!(denies(neighbour), expected.is_some(), "{word}");
                    assert!(answers(neighbour, "192.0.2.2"), "{word}");
                }
                let shown = host.reader().attachments().expect("look at the hooks");
                let shown = shown.iter().find(|shown| shown.hook == "xdp");
                let shown = shown.map(|shown| (&shown.interface[..], &shown.mechanism[..]));
                let expected = expected.map(|expected| ("uplink0", expected.name()));
                assert_eq!(shown, expected, "{word}, veth: {is_veth}");
            }
            host.apply(
                &mut reconciler,
                &host.config(&with_uplink("auto", PREFILTER)),
            );
            assert!(xdp_of(host).is_some());
            host.apply(&mut reconciler, &host.config(&with_uplink("auto", "")));
            assert_eq!(xdp_of(host), None, "the prefilter is empty");
            assert!(
                pins::names(&host.pins().links())
                    .iter()
                    .all(|name| !name.ends_with("-xdp"))
            );
        });
    }
}

#[test]
fn native_mode_without_driver_support_is_an_error() {
    on_host(|host| {
        create_bridge(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        for before in ["", PREFILTER] {
            host.apply(&mut reconciler, &host.config(&with_uplink("auto", before)));
            let (was, epoch) = (xdp_of(host), reconciler.epoch());
            let config = host.config(&with_uplink("native", PREFILTER));
            let error = host.refused(&mut reconciler, &config, &host.world());
            for words in [
                "interface uplink0",
                "the driver does not support native XDP",
                "xdp = \"auto\"",
            ] {
                assert!(error.contains(words), "{error}");
            }
            assert_eq!(xdp_of(host), was, "it is as it was");
            assert_eq!(reconciler.epoch(), epoch);
        }
    });
}

/// What has fallen back to generic mode stays there: trying the driver would leave a gap.
#[test]
fn auto_that_fell_back_is_not_tried_again_with_every_change() {
    on_host(|host| {
        create_bridge(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        let more = PREFILTER.replace("deny = [", "deny = [\"198.51.100.0/24\", ");
        let mut link = None;
        for prefilter in [PREFILTER, &more, PREFILTER] {
            let config = host.config(&with_uplink("auto", prefilter));
            host.apply(&mut reconciler, &config);
            let ifindex = host.ifindex("uplink0");
            let now = host.links()[&format!("{ifindex}-xdp")].id;
            assert_eq!(xdp_of(host), Some(Attached::Generic));
            assert_eq!(*link.get_or_insert(now), now, "the link that it was");
        }
    });
}

/// Another tool's XDP program on the uplink, until `detach`.
struct Foreign {
    pins: Pins,
    ifindex: u32,
}

impl Foreign {
    /// It is one of ours, but its link is not pinned where ours are.
    fn attach(host: &Host) -> Foreign {
        let load = Pins::numbers(&host.pins().loads())[0];
        let program = host.pins().load(load).join(XDP_ENTRY.program);
        let program = Program::fd_from_pinned_path(program).expect("open a program");
        let pins = Pins::new(&host.root().join("theirs"));
        std::fs::create_dir_all(pins.links()).unwrap();
        let ifindex = host.ifindex("uplink0");
        let fd = std::os::fd::AsFd::as_fd(&program);
        xdp::attach(&pins, ifindex, XdpMode::Native, None, fd).expect("attach theirs");
        Foreign { pins, ifindex }
    }

    fn is_there(&self) -> bool {
        xdp::find(&self.pins, self.ifindex) == Some(Attached::Native)
    }

    fn detach(self) {
        xdp::detach(&self.pins, self.ifindex).expect("detach theirs");
    }
}

#[test]
fn another_tools_xdp_program_is_left_alone() {
    on_host(|host| {
        let neighbour = create_veth(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        let theirs = Foreign::attach(host);
        for word in ["native", "generic"] {
            let config = host.config(&with_uplink(word, PREFILTER));
            let epoch = reconciler.epoch();
            let error = host.refused(&mut reconciler, &config, &host.world());
            assert!(error.contains("interface uplink0"), "{error}");
            assert!(error.contains("another tool's program is there"), "{error}");
            assert!(theirs.is_there(), "{word}");
            assert_eq!(reconciler.epoch(), epoch, "{word}: nothing has changed");
        }
        let config = host.config(&with_uplink("off", PREFILTER));
        host.apply(&mut reconciler, &config);
        assert_eq!(reconciler.foreign(), Vec::<String>::new(), "as asked for");

        let config = host.config(&with_uplink("auto", PREFILTER));
        host.apply(&mut reconciler, &config);
        assert!(theirs.is_there());
        let found = attach::find(&host.pins(), theirs.ifindex, Role::Uplink);
        assert_eq!(found.len(), 2, "the tc hooks are ours");
        let sentences = reconciler.foreign();
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        for words in [
            "uplink0",
            XDP_ENTRY.program,
            "drops nothing",
            "xdp = \"off\"",
        ] {
            assert!(sentences[0].contains(words), "{words}: {sentences:?}");
        }
        // While it stays, another look changes nothing; another change is applied.
        let epoch = reconciler.epoch();
        host.apply(&mut reconciler, &config);
        assert_eq!(reconciler.epoch(), epoch);
        let more = PREFILTER.replace("deny = [", "deny = [\"198.51.100.0/24\", ");
        let config = host.config(&with_uplink("auto", &more));
        host.apply(&mut reconciler, &config);
        assert_eq!(reconciler.epoch(), epoch + 1);
        assert!(theirs.is_there());
        assert!(host.asks(), "the service answers");

        theirs.detach();
        host.apply(&mut reconciler, &config);
        assert_eq!(xdp_of(host), Some(Attached::Native), "the next look");
        assert!(denies(&neighbour));
        assert!(answers(&neighbour, "192.0.2.2"));
        assert_eq!(reconciler.foreign(), Vec::<String>::new());
    });
}

/// A refusal leaves the hooks as they were, also where something else had changed them.
#[test]
fn an_uplink_whose_xdp_another_tool_took_keeps_its_other_programs() {
    on_host(|host| {
        let neighbour = create_veth(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = host.config(&with_uplink("native", PREFILTER));
        host.apply(&mut reconciler, &config);
        let ifindex = host.ifindex("uplink0");
        let epoch = reconciler.epoch();
        xdp::detach(&host.pins(), ifindex).expect("take ours off");
        let theirs = Foreign::attach(host);
        for look in ["the first look", "the next"] {
            let done = reconciler.apply(&config, &host.world(), |_, _| {});
            let error = done.expect_err("it can't have XDP");
            let refused = AttachError {
                interface: "uplink0".to_owned(),
                kind: HookKind::Xdp,
            };
            assert_eq!(error.downcast_ref(), Some(&refused), "{look}: {error:#}");
            let found = attach::find(&host.pins(), ifindex, Role::Uplink);
            assert_eq!(found.len(), 2, "{look}: the tc hooks are ours");
            assert_eq!(reconciler.epoch(), epoch, "{look}");
        }
        let without = host.config(&with_uplink("off", PREFILTER));
        host.apply(&mut reconciler, &without);
        assert!(!reconciler.has_drifted(), "there is nothing to repair");
        assert!(host.asks(), "the service answers");

        theirs.detach();
        host.apply(&mut reconciler, &config);
        assert!(denies(&neighbour), "ours again");
        assert!(!reconciler.has_drifted());
    });
}

#[test]
fn a_daemon_that_starts_with_another_tools_xdp_program_applies_the_rest() {
    on_host(|host| {
        let _neighbour = create_veth(host);
        let first = host.start(Mechanism::Tcx);
        let theirs = Foreign::attach(host);
        drop(first);
        for word in ["native", "auto"] {
            let config = host.config(&with_uplink(word, PREFILTER));
            let mut next = host.take_over(&config, Mechanism::Tcx);
            if word == "native" {
                host.refused(&mut next, &config, &host.world());
                assert_eq!(next.foreign(), Vec::<String>::new());
            } else {
                host.apply(&mut next, &config);
                assert_eq!(next.foreign().len(), 1);
            }
            assert!(theirs.is_there(), "{word}");
            assert!(host.asks(), "{word}: the service answers");
        }
        theirs.detach();
    });
}

#[test]
fn a_daemon_that_takes_over_keeps_the_links_and_the_counts() {
    on_host(|host| {
        let neighbour = create_veth(host);
        let mut first = host.start(Mechanism::Tcx);
        let config = host.config(&with_uplink("auto", PREFILTER));
        host.apply(&mut first, &config);
        assert!(denies(&neighbour));
        let links = host.links();
        drop(first); // a crash: nothing is taken away
        assert!(denies(&neighbour), "denied without a daemon, too");
        assert!(answers(&neighbour, "192.0.2.2"));
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut second, &config);
        let after = host.links();
        assert!(links.keys().eq(after.keys()), "{:?}", after.keys());
        for (name, link) in after {
            assert_eq!(link.id, links[&name].id, "{name} is the link that it was");
            assert_ne!(
                link.prog_id, links[&name].prog_id,
                "{name} has the new program"
            );
        }
        let hits: Vec<u64> = host
            .reader()
            .prefilter_hits()
            .unwrap()
            .into_values()
            .collect();
        assert!(hits.len() == 1 && hits[0] >= 2, "{hits:?}");
    });
}

#[test]
fn programs_detached_from_an_uplink_are_attached_again() {
    on_host(|host| {
        let neighbour = create_veth(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        let config = host.config(&with_uplink("auto", PREFILTER));
        host.apply(&mut reconciler, &config);
        let ifindex = host.ifindex("uplink0");
        for hook in ["xdp", "ingress", "egress"] {
            let path = host.pins().links().join(format!("{ifindex}-{hook}"));
            Link::open(&path).unwrap().detach().unwrap();
            host.apply(&mut reconciler, &config);
            assert_eq!(xdp_of(host), Some(Attached::Native), "without {hook}");
            let found = attach::find(&host.pins(), ifindex, Role::Uplink);
            assert_eq!(found.len(), 2, "without {hook}");
        }
        assert!(denies(&neighbour));
        assert!(answers(&neighbour, "192.0.2.2"));
    });
}

/// Links move with their interface to another network namespace, and report only its index.
#[test]
fn another_uplink_with_the_index_of_one_that_moved_away() {
    on_host(|host| {
        let _neighbour = create_veth(host);
        let config = host.config(&with_uplink("auto", PREFILTER));
        let mut reconciler = host.start(Mechanism::Tcx);
        host.apply(&mut reconciler, &config);
        drop(reconciler);
        let ifindex = host.ifindex("uplink0");
        let link = host.links()[&format!("{ifindex}-xdp")].id;
        let elsewhere = host.elsewhere.pid();
        let ip = |words: &str| host.namespace.ip(words);
        ip(&format!("link set uplink0 netns {elsewhere}"));
        ip(&format!(
            "link add uplink0 index {ifindex} type veth peer name uplink0-p"
        ));
        ip("link set uplink0 up");
        let found = xdp::program_on(&host.pins(), ifindex);
        assert_eq!(found, None, "the new one has no program yet");
        let mut second = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut second, &config);
        assert_eq!(host.ifindex("uplink0"), ifindex);
        assert_eq!(xdp_of(host), Some(Attached::Native));
        assert!(!second.has_drifted());
        wait_until_gone(
            "the link that moved away",
            &BTreeSet::from([link]),
            all_links,
        );
        let moved = host.elsewhere.output("ip", "link show uplink0");
        assert!(!moved.contains("xdp"), "what moved has none: {moved}");
    });
}

#[test]
fn drops_are_counted_by_prefix_and_deleted_with_it() {
    on_host(|host| {
        let neighbour = create_veth(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        host.apply(
            &mut reconciler,
            &host.config(&with_uplink("auto", PREFILTER)),
        );
        assert!(host.reader().prefilter_hits().unwrap().is_empty());
        assert!(denies(&neighbour));
        let catalog = host.reader().state().unwrap().catalog;
        let hits = host.reader().prefilter_hits().unwrap();
        let (number, packets) = hits.first_key_value().expect("it is counted");
        let address: IpAddr = DENIED.parse().unwrap();
        assert!(catalog.prefilter[number].prefix.contains(&address));
        assert!(*packets >= 1);
        let ifindex = host.ifindex("uplink0");
        let metrics = host.reader().metrics().unwrap();
        let dropped = metrics
            .iter()
            .find(|m| (m.ifindex, m.reason) == (ifindex, 221));
        assert!(
            dropped.is_some_and(|m| m.packets >= *packets),
            "{metrics:?}"
        );
        let other = PREFILTER.replace("203.0.113.0/24", "203.0.113.64/30");
        host.apply(&mut reconciler, &host.config(&with_uplink("auto", &other)));
        assert!(
            host.reader().prefilter_hits().unwrap().is_empty(),
            "a new prefix, a new count"
        );
        assert!(denies(&neighbour));
        assert_eq!(host.reader().prefilter_hits().unwrap().len(), 1);
        host.apply(&mut reconciler, &host.config(&with_uplink("auto", "")));
        assert!(answers(&neighbour, DENIED), "nothing is denied any more");
        assert!(host.reader().prefilter_hits().unwrap().is_empty());
    });
}

#[test]
fn cleanup_takes_an_uplinks_programs_too() {
    on_host(|host| {
        let neighbour = create_veth(host);
        let mut reconciler = host.start(Mechanism::Tcx);
        host.apply(
            &mut reconciler,
            &host.config(&with_uplink("auto", PREFILTER)),
        );
        let links: BTreeSet<u32> = host.links().values().map(|link| link.id).collect();
        assert_eq!(links.len(), 7, "two for each interface, and XDP");
        drop(reconciler);
        host.cleanup();
        wait_until_gone("links", &links, all_links);
        assert!(answers(&neighbour, DENIED), "nothing is denied any more");
    });
}

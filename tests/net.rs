//! The host by netlink: snapshots, the watcher and the checks, in namespaces of the tests' own.

#[path = "net/advice.rs"]
mod advice;
#[path = "net/cgroup.rs"]
mod cgroup;
#[path = "common/netns.rs"]
mod netns;
#[path = "net/netns_cookie.rs"]
mod netns_cookie;
#[path = "common/cgroup.rs"]
mod own_cgroup;
#[path = "net/sock_diag.rs"]
mod sock_diag;
#[path = "net/stack.rs"]
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use dpd::config::{
    Config, Conntrack, Daemon, EnforcementMode, Events, HostSettings, Interface, JournalFlows,
    LogTarget, Node, PolicySettings, RemoteNode, XdpMode,
};
use dpd::model::host::{HostState, LinkPeer, Master, is_routable};
use dpd::model::state::Aggregation;
use dpd::net::{self, Watcher, snapshot};
use netns::Netns;
use rustix::thread::{CapabilitySet, CapabilitySets};

const DEADLINE: Duration = Duration::from_secs(10);

fn look(netns: &Netns) -> HostState {
    netns.enter(|| snapshot().unwrap())
}

/// Runs lines by `ip -batch`: much faster than a process for each.
fn batch(netns: &Netns, lines: &str) {
    let mut ip = netns
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    ip.stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(ip.wait().unwrap().success());
}

#[test]
fn the_root_qdisc_of_an_interface_is_known() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    let qdisc = || look(&node).links["lxc-a"].qdisc.clone();
    assert_eq!(qdisc(), "noqueue");
    node.run("tc", "qdisc add dev lxc-a clsact");
    assert_eq!(qdisc(), "noqueue", "clsact is no root");
    let shaper = "qdisc add dev lxc-a root tbf rate 1mbit burst 3000 limit 9000";
    node.run("tc", shaper);
    assert_eq!(qdisc(), "tbf");
}

#[test]
fn the_peer_of_a_veth_in_another_namespace_is_known_with_its_mac() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    node.ip("link set lxc-a mtu 1400");
    workload.ip("link set eth0 mtu 1300");
    let world = look(&node);
    let link = &world.links["lxc-a"];
    let peer = LinkPeer {
        ifindex: workload.ifindex("eth0"),
        mac: Some(workload.mac("eth0")),
        same_namespace: false,
        mtu: 1300,
        is_bridge_port: false,
    };
    assert_eq!(link.peer, Some(peer));
    assert_eq!(link.ifindex, node.ifindex("lxc-a"));
    assert_eq!(link.mac, node.mac("lxc-a"));
    assert_eq!((link.mtu, link.up), (1400, true));
}

#[test]
fn an_interface_is_known_with_its_own_addresses() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    node.ip("address add 192.0.2.1/24 dev left");
    node.ip("address add 192.0.2.129 peer 192.0.2.130 dev right");
    node.ip("address add 2001:db8::1/64 dev left nodad");
    let world = look(&node);
    let own = |name: &str| -> Vec<String> {
        let addresses = world.links[name].addresses.iter();
        let own = addresses.map(ToString::to_string);
        own.filter(|address| !address.starts_with("fe80")).collect()
    };
    assert_eq!(own("left"), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(own("right"), ["192.0.2.129"]);
}

#[test]
fn the_peer_of_a_veth_in_the_same_namespace_is_known_as_such() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    node.ip("link set left down");
    let world = look(&node);
    let peer = LinkPeer {
        ifindex: node.ifindex("right"),
        mac: Some(node.mac("right")),
        same_namespace: true,
        mtu: 1500,
        is_bridge_port: false,
    };
    assert_eq!(world.links["left"].peer, Some(peer));
    assert!(!world.links["left"].up);
}

#[test]
fn interfaces_that_are_no_veth_have_no_peer() {
    let node = Netns::new();
    node.ip("link add bridge0 type bridge");
    node.ip("tuntap add dev tap0 mode tap");
    node.veth("left", &node, "right");
    // A macvlan is linked to an interface too, but that is not a peer.
    node.ip("link add link left name above type macvlan");
    let world = look(&node);
    for name in ["lo", "bridge0", "tap0", "above"] {
        assert_eq!(world.links[name].peer, None, "{name}");
    }
    assert_eq!(world.links["lo"].mac, [0; 6]);
}

#[test]
fn a_port_of_a_bridge_is_known_with_it() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    node.ip("link add bridge0 type bridge");
    assert_eq!(look(&node).links["left"].master, None);
    node.ip("link set left master bridge0");
    let world = look(&node);
    let bridge = Master {
        ifindex: node.ifindex("bridge0"),
        is_bridge: true,
    };
    assert_eq!(world.links["left"].master, Some(bridge));
    for name in ["right", "bridge0"] {
        assert_eq!(world.links[name].master, None, "{name} is no port");
    }
}

#[test]
fn a_peer_with_a_name_that_is_not_utf8_is_known_with_its_mac() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    let status = workload
        .command("ip")
        .args(["link", "set", "eth0", "alias"])
        .arg(OsStr::from_bytes(b"\xff\xfe"))
        .status()
        .unwrap();
    assert!(status.success());
    let world = look(&node);
    let peer = world.links["lxc-a"].peer.as_ref().unwrap();
    assert_eq!(peer.mac, Some(workload.mac("eth0")));
}

#[test]
fn the_hosts_addresses_are_local_ones_and_not_the_peers() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    node.ip("address add 192.0.2.1/24 dev left");
    node.ip("address add 192.0.2.129 peer 192.0.2.130 dev right");
    node.ip("address add 2001:db8::1/64 dev left nodad");
    let world = look(&node);
    let expected = [
        "127.0.0.1",
        "::1",
        "192.0.2.1",
        "192.0.2.129",
        "2001:db8::1",
    ];
    let expected: BTreeSet<IpAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
    // The kernel adds link-local addresses.
    let own: BTreeSet<IpAddr> = world
        .addresses
        .into_iter()
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    assert_eq!(own, expected);
}

/// The prefixes that the host receives, in words, without those of loopback and of links.
fn received(netns: &Netns) -> Vec<String> {
    let prefixes = look(netns).local_prefixes.into_iter();
    let usual = ["127.", "fe80:", "::1/128"];
    prefixes
        .map(|prefix| prefix.to_string())
        .filter(|prefix| !usual.iter().any(|usual| prefix.starts_with(usual)))
        .collect()
}

#[test]
fn what_the_host_receives_is_known_by_its_routes() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    // Without a carrier there is no anycast address yet.
    wait_for_carrier(&node, "left");
    node.run("sysctl", "-wq net.ipv6.conf.all.forwarding=1");
    let loopback: BTreeSet<_> = look(&node).local_prefixes;
    assert!(loopback.contains(&"127.0.0.0/8".parse().unwrap()));
    let is_multicast = |prefix: &ipnet::IpNet| prefix.addr().is_multicast();
    assert!(!loopback.iter().any(is_multicast), "multicast is nobody's");
    /// (what, commands, the prefixes)
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (
            "an address and its subnet's broadcast address",
            &["ip address add 192.0.2.1/24 dev left"],
            &["192.0.2.255/32"],
        ),
        (
            "the subnet of an address of lo",
            &["ip address add 10.9.0.1/24 dev lo"],
            &["10.9.0.0/24", "10.9.0.255/32"],
        ),
        (
            "AnyIP",
            &[
                "ip route add local 203.0.113.0/24 dev lo",
                "ip route add local 2001:db8:9::/64 dev lo",
            ],
            &["203.0.113.0/24", "2001:db8:9::/64"],
        ),
        (
            "the anycast address of a subnet's routers",
            &["ip address add 2001:db8:5::1/64 dev left nodad"],
            &["2001:db8:5::/128"],
        ),
        (
            "a route in another table, without a rule that leads there",
            &["ip route add local 198.51.100.0/24 dev lo table 1000"],
            &[],
        ),
        (
            "the same, with a rule of a transparent proxy",
            &[
                "ip route add local 198.51.100.0/24 dev lo table 1000",
                "ip route add local 2001:db8:7::/64 dev lo table 1000",
                "ip rule add fwmark 1 lookup 1000",
                "ip -6 rule add fwmark 1 lookup 1000",
            ],
            &[],
        ),
        (
            "the same, with a rule for the rest",
            &[
                "ip route add local 198.51.100.0/24 dev lo table 1000",
                "ip route add local 2001:db8:7::/64 dev lo table 1000",
                "ip rule add not fwmark 1 lookup 1000",
                "ip -6 rule add lookup 1000",
            ],
            &["198.51.100.0/24", "2001:db8:7::/64"],
        ),
        (
            "everything stays the world",
            &[
                "ip route add local default dev lo table 1000",
                "ip rule add iif right lookup 1000",
            ],
            &[],
        ),
        (
            "routes of other types",
            &[
                "ip route add blackhole 198.51.100.0/24",
                "ip route add multicast 233.252.0.0/24 dev left table local",
                "ip route add 203.0.113.0/24 dev left",
                "ip route add anycast 2001:db8:8::/64 dev left",
            ],
            &["2001:db8:8::/64"],
        ),
    ];
    for (what, commands, expected) in rows {
        commands.iter().for_each(|line| give(&node, line));
        assert_eq!(received(&node), *expected, "{what}");
        give(
            &node,
            "ip -4 route flush type local dev lo root 10/7 table local; ip -4 address flush dev left; \
             ip -6 address flush dev left scope global; ip address del 10.9.0.1/24 dev lo; \
             for family in -4 -6; do ip $family route flush table 1000; ip $family route flush root 200::/3; \
             ip $family rule delete lookup 1000; done; ip route flush table main; \
             ip route flush table local root 128.0.0.0/1; ip -6 route flush table local root 2000::/3; true",
        );
        assert_eq!(received(&node), [""; 0], "{what}: it is gone");
    }
}

#[test]
fn the_watcher_wakes_for_routes_to_the_host_and_not_for_others() {
    let node = Netns::new();
    // New interfaces get link-local addresses later, which would be notified too.
    node.run("sysctl", "-wq net.ipv6.conf.default.addr_gen_mode=1");
    node.veth("left", &node, "right");
    wait_for_carrier(&node, "left");
    node.ip("address add 192.0.2.1/24 dev left");
    let (wake, news) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| Watcher::start(wake).unwrap());
    wait_for_quiet(&news);
    let rows = [
        ("route add local 203.0.113.0/24 dev lo", true),
        ("route del local 203.0.113.0/24 dev lo", true),
        ("-6 route add local 2001:db8:9::/64 dev lo", true),
        ("-6 route del local 2001:db8:9::/64 dev lo", true),
        ("route add 203.0.113.0/24 via 192.0.2.2", false),
        ("route del 203.0.113.0/24", false),
        ("-6 route add 2001:db8:9::/64 dev left", false),
        ("-6 route del 2001:db8:9::/64 dev left", false),
        ("route add blackhole 203.0.113.0/24", false),
        ("rule add fwmark 1 lookup 1000", true),
        ("-6 rule add fwmark 1 lookup 1000", true),
    ];
    for (words, expected) in rows {
        wait_for_quiet(&news);
        node.ip(words);
        match expected {
            true => assert!(news.recv_timeout(DEADLINE).is_ok(), "ip {words}"),
            false => assert!(
                news.recv_timeout(Duration::from_millis(150)).is_err(),
                "a notification of ip {words}"
            ),
        }
    }
    let many = |verb: &str| -> String {
        let route = |n| {
            format!(
                "route {verb} 10.{}.{}.0/24 via 192.0.2.2\n",
                n / 256,
                n % 256
            )
        };
        (0..20_000).map(route).collect()
    };
    let begin = Instant::now();
    batch(&node, &many("add"));
    batch(&node, &many("del"));
    let woken = news.try_iter().count() as u64;
    assert!(
        woken <= begin.elapsed().as_secs(),
        "a router's table wakes once a second at most, where messages are lost"
    );
}

#[test]
fn a_host_with_hundreds_of_workloads_is_listed_completely() {
    let (node, workloads) = (Netns::new(), Netns::new());
    let there = workloads.name();
    let lines: String = (0..200)
        .map(|n| format!("link add lxc-{n} type veth peer name eth{n} netns {there}\n"))
        .collect();
    batch(&node, &lines);
    let world = look(&node);
    assert_eq!(world.links.len(), 201);
    for (name, link) in world.links.iter().filter(|(name, _)| *name != "lo") {
        let mac = link.peer.as_ref().and_then(|peer| peer.mac);
        assert!(mac.is_some(), "{name} has a peer with a MAC");
    }
}

#[test]
fn a_listing_is_complete_while_interfaces_are_added_and_removed() {
    let node = Netns::new();
    let lines: String = (0..60)
        .map(|n| format!("link add stays-{n} type veth peer name other-{n}\n"))
        .collect();
    batch(&node, &lines);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                node.ip("link add comes type veth peer name goes");
                node.ip("link delete comes");
            }
        });
        for _ in 0..50 {
            let world = node.enter(snapshot);
            let count = world.map(|world| {
                let stays = |name: &&String| name.starts_with("stays-");
                world.links.keys().filter(stays).count()
            });
            if count.as_ref().ok() != Some(&60) {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(count.unwrap(), 60);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// For the calling thread.
fn drop_capabilities() {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).unwrap();
}

#[test]
fn without_privilege_the_host_is_listed_without_the_peers_macs() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    // A first snapshot with privilege makes the kernel assign an id to the other namespace.
    let privileged = look(&node);
    let world = node.enter(|| {
        drop_capabilities();
        let (wake, _news) = crossbeam_channel::bounded(1);
        Watcher::start(wake).unwrap();
        let world = snapshot().unwrap();
        let lacks = net::checks(&config(&[("lxc-a", &["10.200.0.64/32"])]), &world);
        assert!(
            lacks
                .iter()
                .any(|lack| lack.contains("route to 10.200.0.64/32")),
            "{lacks:?}"
        );
        world
    });
    let mut expected = privileged;
    let peer = expected
        .links
        .get_mut("lxc-a")
        .and_then(|link| link.peer.as_mut());
    let peer = peer.unwrap();
    assert!(peer.mac.take().is_some());
    assert_eq!(std::mem::take(&mut peer.mtu), 1500);
    assert_eq!(world.links, expected.links);
}

/// Reads earlier notifications: returns once there was none for a while.
fn wait_for_quiet(news: &Receiver<()>) {
    while news.recv_timeout(Duration::from_millis(300)).is_ok() {}
}

fn wait_for_carrier(netns: &Netns, interface: &str) {
    let begin = Instant::now();
    while !netns
        .ip(&format!("link show dev {interface}"))
        .contains("state UP")
    {
        assert!(begin.elapsed() < DEADLINE, "{interface} has no carrier");
    }
}

#[test]
fn the_watcher_wakes_for_each_change_that_concerns_delivery() {
    let (node, workload) = (Netns::new(), Netns::new());
    // New interfaces get link-local addresses and their carrier later, which would be notified too.
    for netns in [&node, &workload] {
        netns.run("sysctl", "-wq net.ipv6.conf.default.disable_ipv6=1");
    }
    node.veth("lxc-a", &workload, "eth0");
    wait_for_carrier(&node, "lxc-a");
    wait_for_carrier(&workload, "eth0");
    // The kernel sends messages of namespaces that have an id here: a first snapshot assigns one.
    let (wake, news) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| {
        let watcher = Watcher::start(wake).unwrap();
        snapshot().unwrap();
        watcher
    });
    let mac = [2, 0, 0, 0, 0, 7];
    type Seen = fn(&HostState) -> bool;
    let rows: [(&Netns, &str, Seen, &str); 8] = [
        (
            &workload,
            "link set eth0 address 02:00:00:00:00:07",
            |world| {
                let peer = world.links["lxc-a"].peer.as_ref();
                peer.and_then(|peer| peer.mac) == Some([2, 0, 0, 0, 0, 7])
            },
            "the workload changes its MAC",
        ),
        (
            &node,
            "link set lxc-a address 02:00:00:00:00:08",
            |world| world.links["lxc-a"].mac == [2, 0, 0, 0, 0, 8],
            "the host's side changes its MAC",
        ),
        (
            &node,
            "link set lxc-a down",
            |world| !world.links["lxc-a"].up,
            "an interface goes down",
        ),
        (
            &node,
            "link set lxc-a name lxc-b",
            |world| world.links.contains_key("lxc-b") && !world.links.contains_key("lxc-a"),
            "an interface is renamed",
        ),
        (
            &node,
            "address add 192.0.2.1/24 dev lo",
            |world| world.addresses.contains(&"192.0.2.1".parse().unwrap()),
            "an IPv4 address is added",
        ),
        (
            &node,
            "address add 2001:db8::1/64 dev lo",
            |world| world.addresses.contains(&"2001:db8::1".parse().unwrap()),
            "an IPv6 address is added",
        ),
        (
            &node,
            "link add lxc-c type veth peer name other",
            |world| world.links.contains_key("lxc-c"),
            "an interface is added",
        ),
        (
            &workload,
            "link delete eth0",
            |world| !world.links.contains_key("lxc-b"),
            "a workload removes its interface",
        ),
    ];
    assert_ne!(workload.mac("eth0"), mac);
    for (netns, change, seen, what) in rows {
        wait_for_quiet(&news);
        assert!(!seen(&look(&node)), "{what}: not yet");
        netns.ip(change);
        loop {
            let woken = news.recv_timeout(DEADLINE);
            assert!(woken.is_ok(), "no notification when {what}");
            if seen(&look(&node)) {
                break;
            }
        }
    }
    wait_for_quiet(&news);
    assert!(news.is_empty(), "no notification without a change");
}

/// Waits until a snapshot after a notification matches.
fn wait_until(netns: &Netns, news: &Receiver<()>, seen: impl Fn(&HostState) -> bool, what: &str) {
    while !seen(&look(netns)) {
        assert!(
            news.recv_timeout(DEADLINE).is_ok(),
            "no notification when {what}"
        );
    }
}

#[test]
fn a_workloads_interface_is_watched_in_other_namespaces() {
    let (node, workload, other) = (Netns::new(), Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    let (wake, news) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| {
        let watcher = Watcher::start(wake).unwrap();
        snapshot().unwrap();
        watcher
    });
    let peer = |world: &HostState| world.links["lxc-a"].peer.clone();
    let is_here = |world: &HostState| peer(world).is_some_and(|peer| peer.same_namespace);
    wait_for_quiet(&news);
    let rows: [(&Netns, &Netns, bool, &str); 4] = [
        (&workload, &node, true, "it is moved to the host's"),
        (&node, &other, false, "it is moved to another"),
        (&other, &workload, false, "it is moved back to its first"),
        (&workload, &other, false, "it is moved to one with an id"),
    ];
    for (from, to, expected, what) in rows {
        from.ip(&format!(
            "link set eth0 address 02:00:00:00:00:0{} netns {}",
            1 + u8::from(expected),
            to.name()
        ));
        wait_until(&node, &news, |world| is_here(world) == expected, what);
        let mac = Some(to.mac("eth0"));
        let is_known = |world: &HostState| peer(world).is_some_and(|peer| peer.mac == mac);
        wait_until(&node, &news, is_known, what);
    }
}

#[test]
fn the_watcher_wakes_for_removed_filters_and_not_for_new_ones() {
    let node = Netns::new();
    node.ip("link add bridge0 type bridge");
    let (wake, news) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| Watcher::start(wake).unwrap());
    wait_for_quiet(&news);
    let rows = [
        ("qdisc add dev bridge0 clsact", false),
        (
            "filter add dev bridge0 ingress prio 7 bpf bytecode 1,6~0~0~0",
            false,
        ),
        ("filter del dev bridge0 ingress prio 7", true),
        (
            "filter add dev bridge0 egress prio 7 bpf bytecode 1,6~0~0~0",
            false,
        ),
        ("filter del dev bridge0 egress", true),
        ("qdisc del dev bridge0 clsact", true),
    ];
    for (words, expected) in rows {
        // The bytecode is one word.
        let words: Vec<String> = words
            .split_whitespace()
            .map(|word| word.replace('~', " "))
            .collect();
        let done = node.command("tc").args(&words).status();
        assert!(done.is_ok_and(|status| status.success()), "tc {words:?}");
        match expected {
            true => assert!(
                news.recv_timeout(DEADLINE).is_ok(),
                "no notification of tc {words:?}"
            ),
            false => assert!(
                news.recv_timeout(Duration::from_millis(100)).is_err(),
                "a notification of tc {words:?}"
            ),
        }
    }
}

/// Messages that the kernel dropped, as the sockets of a namespace were full.
fn lost_messages(netns: &Netns) -> u64 {
    let table = netns.run("cat", "/proc/net/netlink");
    let lost = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
    table.lines().filter_map(lost).sum()
}

#[test]
fn the_last_change_is_notified_though_messages_were_dropped() {
    let node = Netns::new();
    let (wake, news) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| Watcher::start(wake).unwrap());
    let changes: String = (0..4000)
        .map(|n| format!("link set lo mtu {}\n", 40_000 + n))
        .collect();
    batch(&node, &changes);
    let is_last = |world: &HostState| world.links["lo"].mtu == 43_999;
    assert!(lost_messages(&node) > 0, "the kernel's queue was full");
    // Whether or not the queue was full at the last change, it is notified.
    assert!(news.recv_timeout(DEADLINE).is_ok(), "no news");
    assert!(is_last(&look(&node)));
    wait_for_quiet(&news);
    node.ip("link set lo mtu 50000");
    assert!(
        news.recv_timeout(DEADLINE).is_ok(),
        "no notification after it"
    );
}

#[test]
fn the_watcher_ends_when_it_or_its_channel_is_dropped() {
    let node = Netns::new();
    let (wake, news) = crossbeam_channel::bounded(1);
    let watcher = node.enter(|| Watcher::start(wake).unwrap());
    drop(watcher);
    // The thread has ended and dropped its sender.
    assert!(
        news.recv_timeout(DEADLINE)
            .is_err_and(|e| e.is_disconnected())
    );
}

/// The endpoints of a file: (interface, its addresses).
type Endpoints<'a> = &'a [(&'a str, &'a [&'a str])];

/// A file with nothing but these endpoints.
fn config(endpoints: Endpoints<'_>) -> Config {
    let interface = |(name, addresses): &(&str, &[&str])| {
        let endpoint = Interface::Endpoint {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            identity: "client".to_owned(),
            multicast: false,
        };
        ((*name).to_owned(), endpoint)
    };
    let minute = Duration::from_secs(60);
    Config {
        masquerade: Default::default(),
        host: HostSettings { services: false },
        path: "config.toml".into(),
        node: Node {
            name: "node-a".to_owned(),
            addresses: None,
        },
        daemon: Daemon {
            bpf_root: "/sys/fs/bpf/dpd".into(),
            socket: "/run/dpd/dpd.sock".into(),
            runtime_config: None,
            log: LogTarget::Stderr,
            metrics: None,
            expedite_rcu: false,
        },
        interfaces: endpoints.iter().map(interface).collect(),
        identities: BTreeMap::new(),
        services: BTreeMap::new(),
        policies: BTreeMap::new(),
        nodes: BTreeMap::new(),
        prefilter: BTreeMap::new(),
        policy: PolicySettings {
            enforcement: EnforcementMode::Default,
            audit: false,
            allow_host: true,
        },
        conntrack: Conntrack {
            size: 1024,
            per_endpoint: None,
            strict: false,
            tcp: minute,
            tcp_syn: minute,
            tcp_close: minute,
            udp: minute,
            udp_once: minute,
            icmp: minute,
        },
        events: Events {
            aggregation: Aggregation::Medium,
            interval: minute,
            rate: 1,
            journal: JournalFlows::Off,
        },
        drop_ins: BTreeMap::new(),
    }
}

/// The result of the checks in `node`.
fn check(node: &Netns, endpoints: Endpoints<'_>) -> Vec<String> {
    let config = config(endpoints);
    node.enter(|| net::checks(&config, &snapshot().unwrap()))
}

/// Runs a line of words inside.
fn give(node: &Netns, line: &str) {
    let output = node.command("sh").args(["-c", line]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

#[test]
fn each_lack_has_the_command_that_fixes_it() {
    const BOTH: Endpoints<'_> = &[("lxc-a", &["10.200.0.64/32", "fd00:200::64/128"])];
    const ROUTED: Endpoints<'_> = &[("lxc-a", &["10.200.0.64/32", "10.9.0.0/24"])];
    const DOTTED: Endpoints<'_> = &[("eth0.100", &["10.200.0.65/32"])];
    const ABSENT: Endpoints<'_> = &[("lxc-z", &["10.200.0.99/32"])];
    /// (the state, the commands that make it, the file, the result of the checks)
    type Row<'a> = (&'a str, &'a [&'a str], Endpoints<'a>, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("the host lacks nothing", &[], BOTH, &[]),
        (
            "IPv4 forwarding is off",
            &["sysctl -wq net.ipv4.ip_forward=0"],
            BOTH,
            &[
                "IPv4 forwarding is off, nothing passes between endpoints and other hosts: \
               sysctl -w net.ipv4.ip_forward=1",
            ],
        ),
        (
            "IPv6 forwarding is off, and no endpoint has IPv6",
            &["sysctl -wq net.ipv6.conf.all.forwarding=0"],
            ROUTED,
            &[],
        ),
        (
            "IPv6 forwarding is off",
            &[],
            BOTH,
            &[
                "IPv6 forwarding is off, nothing passes between endpoints and other hosts: \
               sysctl -w net.ipv6.conf.all.forwarding=1",
            ],
        ),
        (
            "forwarding is off on one interface",
            &["sysctl -wq net.ipv4.conf.lxc-a.forwarding=0"],
            BOTH,
            &[
                "IPv4 forwarding is off on lxc-a, nothing from there gets to other hosts: \
               sysctl -w net.ipv4.conf.lxc-a.forwarding=1",
            ],
        ),
        (
            "forwarding is off on an interface with a dot in its name",
            &["sysctl -wq net.ipv4.conf.eth0/100.forwarding=0"],
            DOTTED,
            &[
                "IPv4 forwarding is off on eth0.100, nothing from there gets to other hosts: \
               sysctl -w net.ipv4.conf.eth0/100.forwarding=1",
            ],
        ),
        (
            "IPv6 is off on an interface, and its routes are removed",
            &["sysctl -wq net.ipv6.conf.lxc-a.disable_ipv6=1"],
            BOTH,
            &[
                "IPv6 is off on lxc-a, the host can't reach the workload by it: \
                 sysctl -w net.ipv6.conf.lxc-a.disable_ipv6=0",
                "the host's route to fd00:200::64/128 of endpoint lxc-a is missing: \
                 ip route replace fd00:200::64/128 dev lxc-a",
            ],
        ),
        (
            "an interface is down, and its routes are removed",
            &["ip link set dev lxc-a down"],
            BOTH,
            &[
                "interface lxc-a is down, its workload is cut off: ip link set dev lxc-a up",
                "the host's route to 10.200.0.64/32 of endpoint lxc-a is missing: \
                 ip route replace 10.200.0.64/32 dev lxc-a",
                "the host's route to fd00:200::64/128 of endpoint lxc-a is missing: \
                 ip route replace fd00:200::64/128 dev lxc-a",
            ],
        ),
        (
            "a prefix behind a workload has no route",
            &[],
            ROUTED,
            &[
                "the host's route to 10.9.0.0/24 of endpoint lxc-a is missing: \
               ip route replace 10.9.0.0/24 via 10.200.0.64 dev lxc-a onlink",
            ],
        ),
        (
            "a route leads elsewhere, and the reverse path filter is strict",
            &[
                "sysctl -wq net.ipv4.conf.lxc-a.rp_filter=1",
                "ip route replace 10.200.0.64/32 dev eth0.100",
            ],
            BOTH,
            &[
                "the host's route to 10.200.0.64/32 of endpoint lxc-a leads to eth0.100, and the strict \
               reverse path filter of lxc-a drops what comes from there: \
               ip route replace 10.200.0.64/32 dev lxc-a",
            ],
        ),
        (
            "a route is unreachable, and the loose reverse path filter overrides the strict",
            &[
                "sysctl -wq net.ipv4.conf.all.rp_filter=2",
                "ip route replace unreachable 10.200.0.64/32",
            ],
            BOTH,
            &[
                "the host's route to 10.200.0.64/32 of endpoint lxc-a is missing: \
               ip route replace 10.200.0.64/32 dev lxc-a",
            ],
        ),
        (
            "the host has the workload's address itself",
            &["ip address add 10.200.0.64/32 dev lo"],
            BOTH,
            &[
                "10.200.0.64 of endpoint lxc-a is an address of the host too, which receives its packets: \
               find it with 'ip address show to 10.200.0.64' and remove it with 'ip address delete'",
            ],
        ),
        (
            "the host is the gateway of the workload's subnet",
            &[
                "ip address delete 10.200.0.64/32 dev lo",
                "ip address add 10.9.0.1/24 dev lxc-a",
            ],
            ROUTED,
            &[],
        ),
        ("a pending interface lacks nothing", &[], ABSENT, &[]),
    ];
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    node.veth("eth0.100", &workload, "eth1");
    for line in [
        "sysctl -wq net.ipv4.ip_forward=1",
        "sysctl -wq net.ipv6.conf.all.forwarding=1",
        "sysctl -wq net.ipv4.conf.all.rp_filter=0",
        "sysctl -wq net.ipv4.conf.lxc-a.rp_filter=0",
        "ip route add 10.200.0.64/32 dev lxc-a",
        "ip route add 10.9.0.0/24 dev lxc-a",
        "ip route add 10.200.0.65/32 dev eth0.100",
        "ip route add fd00:200::64/128 dev lxc-a",
    ] {
        give(&node, line);
    }
    for (what, before, endpoints, expected) in rows {
        before.iter().for_each(|line| give(&node, line));
        let lacks = check(&node, endpoints);
        assert_eq!(lacks, *expected, "{what}");
        // The commands fix what is lacking, so the next row starts with a host that lacks nothing.
        for (_, fix) in lacks.iter().filter_map(|lack| lack.rsplit_once(": ")) {
            if !fix.starts_with("find") {
                give(&node, fix);
            }
        }
    }
    assert_eq!(check(&node, BOTH), [""; 0], "the commands have fixed all");
}

/// An endpoint, the uplinks of these names, and two other nodes: one on link, one behind a router.
fn config_between_hosts(uplinks: &[&str]) -> Config {
    let mut config = config(&[("lxc-a", &["10.200.0.64/32", "fd00:200::64/128"])]);
    for name in uplinks {
        let uplink = Interface::Uplink {
            xdp: XdpMode::Auto,
            forwarding: dpd::config::ForwardingMode::Auto,
            masquerade: Default::default(),
            l2_announce: false,
        };
        config.interfaces.insert((*name).to_owned(), uplink);
    }
    let node = |addresses: &[&str], cidrs: &[&str]| RemoteNode {
        endpoints: Default::default(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
    };
    config.nodes = [
        (
            "node-b".to_owned(),
            // An endpoint of this host has an address of the second prefix.
            node(&["192.0.2.2"], &["10.200.1.0/24", "10.200.0.64/30"]),
        ),
        (
            "node-c".to_owned(),
            node(
                &["198.51.100.3", "2001:db8:3::3"],
                &["10.200.3.0/24", "fd00:203::/64"],
            ),
        ),
    ]
    .into();
    config
}

#[test]
fn each_lack_between_hosts_has_the_command_that_fixes_it() {
    /// (the state, the commands that make it, the uplinks of the file, the result of the checks)
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("the host lacks nothing", &[], &["ens5"], &[]),
        (
            "an uplink does not exist",
            &[],
            &["ens5", "ens7"],
            &[
                "uplink ens7 does not exist yet and is pending: find the NIC's name with 'ip -brief link'",
            ],
        ),
        (
            "no uplink exists: routes through it are not checked",
            &["ip route delete 10.200.1.0/24"],
            &["ens7"],
            &[
                "uplink ens7 does not exist yet and is pending: find the NIC's name with 'ip -brief link'",
            ],
        ),
        (
            "the workloads behind a node have no route",
            &[],
            &["ens5"],
            &[
                "the host's route to 10.200.1.0/24 of node node-b is missing: \
                 ip route replace 10.200.1.0/24 via 192.0.2.2 dev ens5",
            ],
        ),
        (
            "the workloads of a node behind a router are reached via the router",
            &[
                "ip route delete 10.200.3.0/24",
                "ip route delete fd00:203::/64",
            ],
            &["ens5"],
            &[
                "the host's route to 10.200.3.0/24 of node node-c is missing: \
                 ip route replace 10.200.3.0/24 via 192.0.2.254 dev ens5",
                "the host's route to fd00:203::/64 of node node-c is missing: \
                 ip route replace fd00:203::/64 via 2001:db8:2::254 dev ens5",
            ],
        ),
        (
            "a route leads elsewhere, and the reverse path filter of the uplink is strict",
            &[
                "sysctl -wq net.ipv4.conf.ens5.rp_filter=1",
                "ip route replace 10.200.1.0/24 dev ens6",
            ],
            &["ens5"],
            &[
                "the host's route to 10.200.1.0/24 of node node-b leads to ens6, which is no uplink, and the \
                 strict reverse path filter of ens5 drops what comes from there to this host: \
                 ip route replace 10.200.1.0/24 via 192.0.2.2 dev ens5",
            ],
        ),
        (
            "a route leads through another uplink",
            &["ip route replace 10.200.1.0/24 dev ens6"],
            &["ens5", "ens6"],
            &[],
        ),
        (
            "a route is a black hole",
            &[
                "sysctl -wq net.ipv4.conf.ens5.rp_filter=0",
                "ip route replace blackhole 10.200.1.0/24",
            ],
            &["ens5"],
            &[
                "the host's route to 10.200.1.0/24 of node node-b is missing: \
                 ip route replace 10.200.1.0/24 via 192.0.2.2 dev ens5",
            ],
        ),
        (
            "a node and its workloads can't be reached",
            &[
                "ip route delete 198.51.100.3",
                "ip route delete 10.200.3.0/24",
            ],
            &["ens5"],
            &[
                "the host's route to 198.51.100.3 of node node-c is missing: \
                 ip route replace 198.51.100.3 via GATEWAY dev ens5",
                "the host's route to 10.200.3.0/24 of node node-c is missing: \
                 ip route replace 10.200.3.0/24 via GATEWAY dev ens5",
            ],
        ),
        (
            "this host has a node's address",
            &["ip address add 198.51.100.3/32 dev lo"],
            &["ens5"],
            &[
                "198.51.100.3 of node node-c is an address of this host too: \
                 find it with 'ip address show to 198.51.100.3'",
            ],
        ),
        (
            "forwarding is off on an uplink",
            &[
                "ip address delete 198.51.100.3/32 dev lo",
                "sysctl -wq net.ipv4.conf.ens5.forwarding=0",
            ],
            &["ens5"],
            &[
                "IPv4 forwarding is off on uplink ens5, nothing from there is forwarded: \
                 sysctl -w net.ipv4.conf.ens5.forwarding=1",
            ],
        ),
        (
            "IPv6 forwarding is off on an uplink that accepts router advertisements",
            &["sysctl -wq net.ipv6.conf.ens5.forwarding=0 net.ipv6.conf.ens5.accept_ra=1"],
            &["ens5"],
            &[
                "IPv6 forwarding is off on uplink ens5, nothing from there is forwarded: \
                 sysctl -w net.ipv6.conf.ens5.accept_ra=2 && sysctl -w net.ipv6.conf.ens5.forwarding=1",
            ],
        ),
        (
            "IPv6 forwarding is off on the host",
            &["sysctl -wq net.ipv6.conf.all.forwarding=0 net.ipv6.conf.ens5.accept_ra=1"],
            &["ens5"],
            &[
                "IPv6 forwarding is off, nothing passes between endpoints and other hosts: \
                 sysctl -w net.ipv6.conf.ens5.accept_ra=2 && sysctl -w net.ipv6.conf.all.forwarding=1",
            ],
        ),
        (
            "an uplink has no address",
            &["ip address flush dev ens6"],
            &["ens5", "ens6"],
            &[
                "uplink ens6 has no address, other hosts can't reach this one by it: \
                 ip address add ADDRESS/LENGTH dev ens6",
            ],
        ),
        (
            "an uplink is down",
            &["ip link set dev ens6 down"],
            &["ens5", "ens6"],
            &["uplink ens6 is down, other hosts are cut off: ip link set dev ens6 up"],
        ),
        (
            "the file has no uplink",
            &["ip route delete 198.51.100.3"],
            &[],
            &[],
        ),
    ];
    let (node, other) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &other, "eth0");
    node.veth("ens5", &other, "eth1");
    node.veth("ens6", &other, "eth2");
    for line in [
        "sysctl -wq net.ipv4.ip_forward=1",
        "sysctl -wq net.ipv6.conf.all.forwarding=1",
        "sysctl -wq net.ipv4.conf.all.rp_filter=0",
        "sysctl -wq net.ipv4.conf.ens5.rp_filter=0",
        "ip route add 10.200.0.64/32 dev lxc-a",
        "ip route add fd00:200::64/128 dev lxc-a",
        "ip address add 192.0.2.1/24 dev ens5",
        "ip address add 2001:db8:2::1/64 dev ens5 nodad",
        "ip address add 203.0.113.1/24 dev ens6",
        "ip route add 10.200.1.0/24 via 192.0.2.2",
        "ip route add 10.200.0.64/30 via 192.0.2.2",
        "ip route add 198.51.100.3 via 192.0.2.254",
        "ip route add 2001:db8:3::3 via 2001:db8:2::254",
        "ip route add 10.200.3.0/24 via 192.0.2.254",
        "ip route add fd00:203::/64 via 2001:db8:2::254",
    ] {
        give(&node, line);
    }
    for (what, before, uplinks, expected) in rows {
        before.iter().for_each(|line| give(&node, line));
        let config = config_between_hosts(uplinks);
        let look = || node.enter(|| net::checks(&config, &snapshot().unwrap()));
        let lacks = look();
        assert_eq!(lacks, *expected, "{what}");
        // The commands fix what is lacking, as far as dpd can know them.
        for (_, fix) in lacks.iter().filter_map(|lack| lack.rsplit_once(": ")) {
            if !uplinks.contains(&"ens7") && !fix.starts_with("find") {
                let fix = fix.replace("GATEWAY", "192.0.2.254");
                give(&node, &fix.replace("ADDRESS/LENGTH", "203.0.113.1/24"));
            }
        }
    }
}

#[test]
fn the_reverse_path_filter_is_the_greater_of_two_numbers_and_followed() {
    use dpd::model::host::ReversePath::{self, Loose, Off, Strict};
    let node = Netns::new();
    node.veth("left", &node, "right");
    let (wake, woken) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| Watcher::start(wake).expect("follow the namespace"));
    let rows: [(&str, u8, u8, ReversePath); 5] = [
        ("off", 0, 0, Off),
        ("its own", 0, 1, Strict),
        ("that of all", 1, 0, Strict),
        ("loose is greater", 2, 1, Loose),
        ("and the same of its own", 1, 2, Loose),
    ];
    for (says, all, own, expected) in rows {
        while woken.try_recv().is_ok() {}
        node.run(
            "sysctl",
            &format!("-qw net.ipv4.conf.all.rp_filter={all} net.ipv4.conf.left.rp_filter={own}"),
        );
        if says != "off" {
            woken
                .recv_timeout(std::time::Duration::from_secs(10))
                .expect("a change wakes");
        }
        assert_eq!(look(&node).links["left"].reverse_path, expected, "{says}");
    }
}

#[test]
fn a_port_of_a_bridge_is_known_here_and_beyond_a_veth() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    node.ip("link add br0 type bridge");
    node.ip("link set lxc-a master br0");
    let bridge = node.ifindex("br0");
    assert_eq!(look(&node).links["lxc-a"].bridge(), Some(bridge));
    let inside = |node: &Netns| {
        look(node).links["lxc-a"]
            .peer
            .as_ref()
            .map(|peer| peer.is_bridge_port)
    };
    assert_eq!(inside(&node), Some(false));
    workload.ip("link add inside type bridge");
    workload.ip("link set eth0 master inside");
    assert_eq!(inside(&node), Some(true));
}

/// Otherwise each link that comes up would be two changes of the host.
/// Of IPv4 the flag of a temporary address says that it is not the first of its subnet.
#[test]
fn addresses_that_new_connections_may_not_take_are_known() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    node.run("sysctl", "-wq net.ipv6.conf.left.accept_dad=0");
    node.run("sysctl", "-wq net.ipv6.conf.left.use_tempaddr=2");
    for address in [
        "192.0.2.1/24",
        "192.0.2.2/24",
        "2001:db8:6::1/64 nodad",
        "2001:db8:6::2/64 nodad preferred_lft 0",
        "2001:db8:7::1/64 nodad mngtmpaddr",
    ] {
        node.ip(&format!("address add {address} dev left"));
    }
    let temporary = node.ip("-6 -oneline address show dev left temporary");
    let temporary: Vec<IpAddr> = temporary
        .split_whitespace()
        .filter_map(|word| word.strip_suffix("/64")?.parse().ok())
        .collect();
    assert_eq!(temporary.len(), 1, "the kernel makes one");
    let mut unsteady = look(&node).links["left"].unsteady.clone();
    unsteady.retain(|address| is_routable(*address)); // the other one may have to wait for duplicates
    let expected = ["2001:db8:6::2".parse().unwrap(), temporary[0]];
    assert_eq!(unsteady, expected.into());
}

#[test]
fn an_address_is_known_before_its_duplicates_have_had_their_time() {
    let node = Netns::new();
    node.veth("left", &node, "right");
    wait_for_carrier(&node, "left");
    let is_tentative = || {
        node.ip("-6 address show dev left tentative")
            .contains("2001:db8:6::1")
    };
    node.ip("address add 2001:db8:6::1/64 dev left");
    let (first, was_tentative) = (look(&node), is_tentative());
    assert!(was_tentative && first.addresses.contains(&"2001:db8:6::1".parse().unwrap()));
    while is_tentative() {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(50));
    let added = |state: &HostState| {
        let prefixes = state.local_prefixes.iter().map(ToString::to_string);
        prefixes
            .filter(|prefix| prefix.starts_with("2001:"))
            .collect::<Vec<_>>()
    };
    assert_eq!(added(&look(&node)), added(&first));
}

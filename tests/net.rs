//! The host as netlink tells it: snapshots, the watcher and the checks, in namespaces of the tests' own.

#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use dpd::model::world::{LinkPeer, World};
use dpd::net::{Watcher, snapshot};
use netns::Netns;

const DEADLINE: Duration = Duration::from_secs(10);

fn look(netns: &Netns) -> World {
    netns.enter(|| snapshot().unwrap())
}

/// Feeds `ip -batch` inside: much faster than a process for each line.
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
fn the_peer_of_a_veth_in_another_namespace_is_known_with_its_mac() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    node.ip("link set lxc-a mtu 1400");
    let world = look(&node);
    let link = &world.links["lxc-a"];
    let peer = LinkPeer {
        ifindex: workload.ifindex("eth0"),
        mac: Some(workload.mac("eth0")),
        same_namespace: false,
    };
    assert_eq!(link.peer, Some(peer));
    assert_eq!(link.ifindex, node.ifindex("lxc-a"));
    assert_eq!(link.mac, node.mac("lxc-a"));
    assert_eq!((link.mtu, link.up), (1400, true));
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
    // A macvlan is linked to an interface too, but that one is not its other end.
    node.ip("link add link left name above type macvlan");
    let world = look(&node);
    for name in ["lo", "bridge0", "tap0", "above"] {
        assert_eq!(world.links[name].peer, None, "{name}");
    }
    assert_eq!(world.links["lo"].mac, [0; 6]);
}

#[test]
fn a_workload_cannot_hide_its_mac_behind_a_name_that_is_not_text() {
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
fn the_hosts_addresses_are_its_own_and_not_the_other_sides() {
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
    // Beside these there are the link-local addresses that the kernel makes.
    let own: BTreeSet<IpAddr> = world
        .addresses
        .into_iter()
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    assert_eq!(own, expected);
}

#[test]
fn a_host_with_hundreds_of_workloads_is_listed_whole() {
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
fn a_listing_misses_nothing_while_interfaces_come_and_go() {
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

/// Takes what is left of earlier news: returns once there was none for a while.
fn wait_for_quiet(news: &Receiver<()>) {
    while news.recv_timeout(Duration::from_millis(300)).is_ok() {}
}

#[test]
fn the_watcher_wakes_for_each_change_that_concerns_delivery() {
    let (node, workload) = (Netns::new(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    // The kernel sends news of namespaces that it has a number for here: a first look gives one.
    let (wake, news) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| {
        let watcher = Watcher::start(wake).unwrap();
        snapshot().unwrap();
        watcher
    });
    let mac = [2, 0, 0, 0, 0, 7];
    type Seen = fn(&World) -> bool;
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
            "an IPv4 address comes",
        ),
        (
            &node,
            "address add 2001:db8::1/64 dev lo",
            |world| world.addresses.contains(&"2001:db8::1".parse().unwrap()),
            "an IPv6 address comes",
        ),
        (
            &node,
            "link add lxc-c type veth peer name other",
            |world| world.links.contains_key("lxc-c"),
            "an interface comes",
        ),
        (
            &workload,
            "link delete eth0",
            |world| !world.links.contains_key("lxc-b"),
            "a workload takes its interface away",
        ),
    ];
    assert_ne!(workload.mac("eth0"), mac);
    for (netns, change, seen, what) in rows {
        wait_for_quiet(&news);
        assert!(!seen(&look(&node)), "{what}: not yet");
        netns.ip(change);
        loop {
            let woken = news.recv_timeout(DEADLINE);
            assert!(woken.is_ok(), "no news when {what}");
            if seen(&look(&node)) {
                break;
            }
        }
    }
    wait_for_quiet(&news);
    assert!(news.is_empty(), "no news while nothing changes");
}

#[test]
fn the_watcher_ends_when_nobody_listens_or_holds_it() {
    let node = Netns::new();
    let (wake, news) = crossbeam_channel::bounded(1);
    let watcher = node.enter(|| Watcher::start(wake).unwrap());
    drop(watcher);
    // The thread has ended, and with it the channel's sending side.
    assert!(
        news.recv_timeout(DEADLINE)
            .is_err_and(|e| e.is_disconnected())
    );
}

//! The checks on hosts of several kinds: silent where nothing is lacking, and right where something is.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use dpd::config::{Backend, Config, ForwardingMode, Interface, Service, XdpMode};
use dpd::model::protocol::Protocol;
use dpd::model::service::{BackendState, Frontend, NodePort};
use dpd::net::{self, snapshot};

use super::{Endpoints, Netns, config, give, look};

fn check(node: &Netns, config: &Config) -> Vec<String> {
    let names = config.interfaces.keys();
    node.enter(|| net::checks(config, &snapshot().unwrap().named_by(names).0))
}

/// A host that forwards, without reverse path filter.
fn router() -> Netns {
    let node = Netns::new();
    give(
        &node,
        "sysctl -wq net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0",
    );
    node
}

/// A host with a bridge that has these addresses, and a workload at a port of it with an address of each family.
fn bridged(addresses: &[&str]) -> (Netns, Netns) {
    let (node, workload) = (router(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    give(
        &node,
        "ip link add br0 type bridge; ip link set br0 up; ip link set lxc-a master br0",
    );
    for address in addresses {
        give(&node, &format!("ip address add {address} dev br0 nodad"));
    }
    give(
        &workload,
        "ip address add 198.51.100.10/24 dev eth0; ip address add 2001:db8:5::10/64 dev eth0 nodad; \
         ip route add default via 198.51.100.1",
    );
    (node, workload)
}

const BRIDGED: Endpoints<'_> = &[("lxc-a", &["198.51.100.10/32", "2001:db8:5::10/128"])];

#[test]
fn the_host_has_the_workload_of_a_bridge_by_the_bridge() {
    /// (the state, the commands that make it, the result of the checks)
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("nothing is lacking", &[], &[]),
        (
            "the port has no IPv6 of its own, and does not forward",
            &[
                "sysctl -wq net.ipv6.conf.lxc-a.disable_ipv6=1 net.ipv4.conf.lxc-a.forwarding=0",
                "sysctl -wq net.ipv4.conf.lxc-a.rp_filter=1",
            ],
            &[],
        ),
        (
            "the bridge does not forward",
            &["sysctl -wq net.ipv4.conf.br0.forwarding=0"],
            &[
                "IPv4 forwarding is off on br0, nothing from there gets to other hosts: \
                 sysctl -w net.ipv4.conf.br0.forwarding=1",
            ],
        ),
        (
            "a route leads to the port, whose ARP gets no reply",
            &["ip route replace 198.51.100.10/32 dev lxc-a"],
            &[
                "the host's route to 198.51.100.10/32 of endpoint lxc-a leads to lxc-a: \
                 ip route replace 198.51.100.10/32 dev br0",
            ],
        ),
        (
            "a route leads elsewhere",
            &["ip route replace 2001:db8:5::10/128 dev other"],
            &[
                "the host's route to 2001:db8:5::10/128 of endpoint lxc-a leads to other: \
                 ip route replace 2001:db8:5::10/128 dev br0",
            ],
        ),
        (
            "the bridge is down",
            &["ip link set br0 down"],
            &[
                "bridge br0 is down, its workloads are cut off: ip link set dev br0 up",
                "the host's route to 198.51.100.10/32 of endpoint lxc-a is missing: \
                 ip route replace 198.51.100.10/32 dev br0",
                "the host's route to 2001:db8:5::10/128 of endpoint lxc-a is missing: \
                 ip route replace 2001:db8:5::10/128 dev br0",
            ],
        ),
        ("all of it is right again", &[], &[]),
    ];
    let (node, _workload) = bridged(&["198.51.100.1/24", "2001:db8:5::1/64"]);
    node.veth("other", &node, "elsewhere");
    let config = config(BRIDGED);
    for (what, before, expected) in rows {
        before.iter().for_each(|line| give(&node, line));
        let lacks = check(&node, &config);
        assert_eq!(lacks, *expected, "{what}");
        for (_, fix) in lacks.iter().filter_map(|lack| lack.rsplit_once(": ")) {
            give(&node, fix);
        }
        let left = check(&node, &config);
        assert_eq!(left, [""; 0], "{what}: the commands have fixed it");
        give(&node, "ping -c1 -W5 198.51.100.10");
        give(
            &node,
            "ping -c1 -W5 2001:db8:5::10 || ping -c1 -W5 2001:db8:5::10",
        );
    }
}

#[test]
fn a_host_without_a_part_in_the_bridge_lacks_nothing() {
    let (node, _workload) = bridged(&[]);
    node.veth("nic0", &node, "world");
    let rows = [
        (
            "the host has it by a router, and no IPv6",
            "ip address add 192.0.2.1/24 dev nic0; ip route add default via 192.0.2.254; \
             sysctl -wq net.ipv6.conf.br0.disable_ipv6=1",
        ),
        (
            "the host has it by an interface on the bridge",
            "ip route delete default; ip address add 10.7.0.1/24 dev br0; \
             ip link add link br0 name br0.10 type macvlan; ip link set br0.10 up; \
             ip address add 198.51.100.1/24 dev br0.10",
        ),
    ];
    for (what, command) in rows {
        give(&node, command);
        assert_eq!(check(&node, &config(BRIDGED)), [""; 0], "{what}");
    }
    give(
        &node,
        "ip address flush dev br0.10; ip address flush dev br0",
    );
    assert_eq!(
        check(&node, &config(BRIDGED)),
        [
            "the host's route to 198.51.100.10/32 of endpoint lxc-a is missing: \
             ip route replace 198.51.100.10/32 dev br0"
        ]
    );
}

#[test]
fn a_healthy_host_lacks_nothing() {
    let (node, workload) = (router(), Netns::new());
    node.veth("ve-a", &workload, "eth0");
    node.veth("up0", &workload, "eth1");
    node.veth("up1", &workload, "eth2");
    node.ip("tuntap add dev tap0 mode tap");
    for line in [
        // The container's own network, of which the host has the first address.
        "ip address add 198.51.100.65/28 dev ve-a",
        "ip address add 2001:db8:7::1/64 dev ve-a nodad",
        "ip link set tap0 up",
        "ip route add 198.51.100.20/32 dev tap0",
        "ip route add 203.0.113.64/28 via 198.51.100.20 dev tap0 onlink",
        "ip address add 192.0.2.1/24 dev up0",
        "ip address add 2001:db8::1/64 dev up0 nodad",
        "ip address add 192.0.2.129/25 dev up1",
        "ip route add default via 192.0.2.254",
        // The host is in the subnet of the other node's workloads, with its anycast address.
        "ip address add 2001:db8:99::1/64 dev up1 nodad",
        "ip address add 203.0.113.200/32 dev lo",
        "ip route add 10.200.1.0/24 via 192.0.2.2",
    ] {
        give(&node, line);
    }
    let endpoints: Endpoints<'_> = &[
        ("ve-a", &["198.51.100.64/28", "2001:db8:7::/64"]),
        ("tap0", &["198.51.100.20/32", "203.0.113.64/28"]),
    ];
    let mut config = config(endpoints);
    for name in ["up0", "up1"] {
        config.interfaces.insert(name.to_owned(), uplink());
    }
    let remote = dpd::config::RemoteNode {
        endpoints: Default::default(),
        addresses: ["192.0.2.2".parse().unwrap()].into(),
        cidrs: ["10.200.1.0/24", "2001:db8:99::/64"]
            .map(|cidr| cidr.parse().unwrap())
            .into(),
    };
    config.nodes.insert("node-b".to_owned(), remote);
    assert_eq!(check(&node, &config), [""; 0]);
}

#[test]
fn an_uplink_needs_no_address_where_lo_has_the_hosts() {
    let (node, router) = (router(), Netns::new());
    node.veth("up0", &router, "to-node");
    let mut config = config(&[]);
    config.interfaces.insert("up0".to_owned(), uplink());
    let lacks = check(&node, &config);
    assert!(
        lacks[0].starts_with("uplink up0 has no address"),
        "{lacks:?}"
    );
    node.ip("address add 203.0.113.1/32 dev lo");
    assert_eq!(check(&node, &config), [""; 0]);
}

fn uplink() -> Interface {
    Interface::Uplink {
        xdp: XdpMode::Auto,
        forwarding: ForwardingMode::Auto,
        masquerade: Default::default(),
        l2_announce: false,
    }
}

#[test]
fn a_route_to_the_host_itself_is_no_lack_of_a_route_to_the_workload() {
    let (node, workload) = (router(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    give(
        &workload,
        "ip address add 10.9.0.5/32 dev eth0; ip route add default dev eth0",
    );
    give(&node, "ip route add 10.9.0.5/32 dev lxc-a");
    give(&node, "ip address add 192.0.2.1/32 dev lo");
    let config = config(&[("lxc-a", &["10.9.0.5/32"])]);
    assert_eq!(check(&node, &config), [""; 0]);
    give(&node, "ip route add local 10.9.0.0/24 dev lo");
    let lacks = check(&node, &config);
    assert_eq!(
        lacks,
        [
            "the host itself receives packets to 10.9.0.5/32 of endpoint lxc-a: find the route with \
             'ip route show table local match 10.9.0.5' and remove it, or the address that it comes from"
        ]
    );
    let find = lacks[0].split('\'').nth(1).unwrap();
    let output = node.command("sh").args(["-c", find]).output().unwrap();
    let route = String::from_utf8(output.stdout).unwrap();
    assert!(route.starts_with("local 10.9.0.0/24 dev lo"), "{route}");
    give(
        &node,
        &format!("ip route delete {} table local", route.trim()),
    );
    assert_eq!(check(&node, &config), [""; 0]);
    give(&node, "ping -c1 -W5 10.9.0.5");
}

#[test]
fn a_prefix_behind_a_workload_is_reached_by_the_command() {
    let (node, workload) = (router(), Netns::new());
    node.veth("lxc-a", &workload, "eth0");
    give(
        &workload,
        "ip address add 10.200.0.64/32 dev eth0; ip address add 10.9.0.5/32 dev lo; ip route add default dev eth0",
    );
    give(
        &node,
        "ip address add 192.0.2.1/32 dev lo; ip route add 10.200.0.64/32 dev lxc-a",
    );
    let config = config(&[("lxc-a", &["10.200.0.64/32", "10.9.0.0/24"])]);
    let lacks = check(&node, &config);
    let (_, fix) = lacks[0].rsplit_once(": ").unwrap();
    give(&node, &format!("! ping -c1 -W1 10.9.0.5 && {fix}"));
    assert_eq!(check(&node, &config), [""; 0]);
    give(&node, "ping -c1 -W5 10.9.0.5");
}

fn service(frontends: &[(&str, Protocol)], backends: &[&str]) -> Service {
    let frontend = |(address, protocol): &(&str, Protocol)| {
        let address: SocketAddr = address.parse().unwrap();
        Frontend {
            address: address.ip(),
            port: address.port(),
            protocol: *protocol,
        }
    };
    let backend = |address: &&str| Backend {
        address: address.parse().unwrap(),
        weight: 1,
        state: BackendState::Active,
    };
    Service {
        frontends: frontends.iter().map(frontend).collect(),
        backends: backends.iter().map(backend).collect(),
        ..Service::default()
    }
}

#[test]
fn a_frontend_that_hides_something_of_the_host_is_named() {
    use Protocol::{Tcp, Udp};
    let node = router();
    node.veth("up0", &node, "other");
    give(&node, "ip address add 192.0.2.1/24 dev up0");
    give(&node, "ip address add 2001:db8::1/64 dev up0 nodad");
    give(&node, "ip route add local 203.0.113.0/24 dev lo");
    give(&node, "ip route add local 203.0.114.1 dev lo");
    let _sockets = node.enter(|| {
        (
            TcpListener::bind("[::]:80").unwrap(),
            TcpListener::bind("192.0.2.1:443").unwrap(),
            UdpSocket::bind("127.0.0.1:53").unwrap(),
            UdpSocket::bind("0.0.0.0:123").unwrap(),
            TcpListener::bind("0.0.0.0:8080").unwrap(),
        )
    });
    let process = std::fs::read_to_string("/proc/self/comm").unwrap();
    let hidden_from = |who: &str, frontend: &str, socket: &str| {
        let process = process.trim_end();
        format!(
            "service s has {frontend} as a frontend, at which a socket of the host listens ({socket} of {process}): {who} \
             reach the service's backends there, and not the socket; give the service another address or port"
        )
    };
    let hidden = |frontend: &str, socket: &str| hidden_from("workloads", frontend, socket);
    let all = "the network and workloads";
    let external = |frontends, backends, node_ports: &[(u16, Protocol)]| Service {
        external: true,
        node_ports: node_ports
            .iter()
            .map(|(port, protocol)| NodePort {
                port: *port,
                protocol: *protocol,
            })
            .collect(),
        ..service(frontends, backends)
    };
    let rows = [
        (
            "an address that nobody has, though a wildcard listens on the port",
            service(&[("198.51.100.1:80", Tcp)], &["10.0.0.1:80"]),
            vec![],
        ),
        (
            "the host's address, and no socket",
            service(
                &[("192.0.2.1:81", Tcp), ("192.0.2.1:80", Udp)],
                &["10.0.0.1:80"],
            ),
            vec![],
        ),
        (
            "a wildcard of IPv6, for IPv4 too",
            service(&[("192.0.2.1:80", Tcp)], &["10.0.0.1:80"]),
            vec![hidden("192.0.2.1:80/tcp", "[::]:80")],
        ),
        (
            "the same for IPv6",
            service(&[("[2001:db8::1]:80", Tcp)], &["[fd00::1]:80"]),
            vec![hidden("[2001:db8::1]:80/tcp", "[::]:80")],
        ),
        (
            "a socket at the address",
            service(&[("192.0.2.1:443", Tcp)], &["10.0.0.1:80"]),
            vec![hidden("192.0.2.1:443/tcp", "192.0.2.1:443")],
        ),
        (
            "a socket at another address",
            service(&[("192.0.2.1:53", Udp)], &["10.0.0.1:53"]),
            vec![],
        ),
        (
            "UDP, at an address that the host receives by a route",
            service(&[("203.0.114.1:123", Udp)], &["10.0.0.1:123"]),
            vec![hidden("203.0.114.1:123/udp", "0.0.0.0:123")],
        ),
        (
            "the same for the network, at which all ports are the service's",
            external(&[("203.0.114.1:123", Udp)], &["10.0.0.1:123"], &[]),
            vec![
                "service s has 203.0.114.1, which is the host's own, as a frontend: the network and workloads reach no other \
                 port of the host at this address; give the service an address that nobody has"
                    .to_owned(),
                hidden_from(all, "203.0.114.1:123/udp", "0.0.0.0:123"),
            ],
        ),
        (
            "and by the route of a prefix, whose address it is alone",
            service(&[("203.0.113.7:123", Udp)], &["10.0.0.1:123"]),
            vec![
                "service s has 203.0.113.7, which is the host's own, as a frontend: workloads reach no other port of the \
                 host at this address; give the service an address that nobody has"
                    .to_owned(),
                hidden("203.0.113.7:123/udp", "0.0.0.0:123"),
            ],
        ),
        (
            "the socket is the backend",
            service(&[("192.0.2.1:8080", Tcp)], &["192.0.2.1:8080"]),
            vec![],
        ),
        (
            "a service for the network",
            external(&[("192.0.2.1:443", Tcp)], &["10.0.0.1:80"], &[]),
            vec![hidden_from(all, "192.0.2.1:443/tcp", "192.0.2.1:443")],
        ),
        (
            "node ports",
            external(&[], &["10.0.0.1:80"], &[(80, Tcp), (81, Tcp), (53, Udp)]),
            vec![hidden_from(all, "node:80/tcp", "[::]:80")],
        ),
        (
            "a node port in the family of its backends",
            external(&[], &["[fd00::1]:80"], &[(443, Tcp), (8080, Tcp)]),
            vec![],
        ),
    ];
    for (what, service, expected) in rows {
        let mut config = config(&[]);
        config.services.insert("s".to_owned(), service);
        assert_eq!(check(&node, &config), expected, "{what}");
    }
}

#[test]
fn external_services_need_forwarding_without_a_workload_too() {
    let node = Netns::new();
    node.veth("up0", &node, "other");
    give(
        &node,
        "ip address add 192.0.2.1/24 dev up0; sysctl -wq net.ipv4.ip_forward=0",
    );
    let mut config = config(&[]);
    config.interfaces.insert("up0".to_owned(), uplink());
    let inner = service(&[("203.0.113.1:80", Protocol::Tcp)], &["10.9.0.1:80"]);
    config.services.insert("s".to_owned(), inner);
    assert_eq!(check(&node, &config), [""; 0]);
    config.services.get_mut("s").unwrap().external = true;
    let off = "IPv4 forwarding is off, nothing passes between external services and other hosts: sysctl -w net.ipv4.ip_forward=1";
    assert_eq!(check(&node, &config), [off]);
    give(
        &node,
        "sysctl -wq net.ipv4.ip_forward=1 net.ipv4.conf.up0.forwarding=0",
    );
    let lacks = check(&node, &config);
    assert_eq!(lacks.len(), 1, "{lacks:?}");
    assert!(
        lacks[0].contains("forwarding is off on uplink up0"),
        "{lacks:?}"
    );
}

#[test]
fn a_name_of_the_file_that_no_interface_has_is_named() {
    let node = router();
    node.veth("vb", &node, "other");
    node.ip("link property add dev vb altname ve-long-name altname ve-other");
    node.ip("route add 10.0.0.1/32 dev vb");
    let mut config = config(&[
        ("ve-long-name", &["10.0.0.1/32"]),
        ("lxc-z", &["10.0.0.2/32"]),
    ]);
    config.interfaces.insert("ve-other".to_owned(), uplink());
    let same = "ve-long-name and ve-other of the file are names of one interface: remove [interfaces.ve-other] or \
                [interfaces.ve-long-name]";
    assert_eq!(check(&node, &config), [same]);
    assert_eq!(
        net::absent(&config, &look(&node)),
        ["endpoint lxc-z does not exist yet and is pending"]
    );
    // As the sentence says.
    let endpoint = config.interfaces.remove("ve-long-name").unwrap();
    config.interfaces.remove("ve-other");
    config.interfaces.insert("ve-other".to_owned(), endpoint);
    assert_eq!(check(&node, &config), [""; 0]);
}

#[test]
fn an_uplink_that_is_a_port_of_a_bridge_is_named() {
    let node = router();
    node.veth("nic0", &node, "world");
    give(
        &node,
        "ip link add br0 type bridge; ip link set br0 up; ip link set nic0 master br0; \
         ip address add 192.0.2.1/24 dev br0",
    );
    let mut config = config(&[]);
    let remote = dpd::config::RemoteNode {
        endpoints: Default::default(),
        addresses: ["192.0.2.2".parse().unwrap()].into(),
        cidrs: vec![],
    };
    config.nodes.insert("node-b".to_owned(), remote);
    config.interfaces.insert("nic0".to_owned(), uplink());
    assert_eq!(
        check(&node, &config),
        [
            "uplink nic0 is a port of bridge br0, to which the host's addresses and routes belong: \
             write br0 in the file instead"
        ]
    );
    config.interfaces.remove("nic0");
    config.interfaces.insert("br0".to_owned(), uplink());
    assert_eq!(check(&node, &config), [""; 0]);
}

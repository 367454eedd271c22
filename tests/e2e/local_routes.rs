//! What the host's stack receives is the host's, by whichever route of its tables.

use std::net::{SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::time::Duration;

use crate::lab::{NetnsLab, eventually};

const PORT: u16 = 7099;

/// How the host gets the address, and whether TCP connects to it too.
const ADDRESSES: [(&str, &str, &str, bool); 7] = [
    (
        "the subnet of an address of lo",
        "ip address add 10.9.0.1/24 dev lo",
        "10.9.0.77",
        true,
    ),
    (
        "AnyIP",
        "ip route add local 203.0.113.0/24 dev lo",
        "203.0.113.7",
        true,
    ),
    (
        "AnyIP, IPv6",
        "ip -6 route add local 2001:db8:9::/64 dev lo",
        "2001:db8:9::7",
        true,
    ),
    (
        "a table with a rule without a mark",
        "ip route add local 198.51.100.0/24 dev lo table 1000 && ip rule add lookup 1000",
        "198.51.100.7",
        // The kernel sends from addresses of the table local only.
        false,
    ),
    (
        "a broadcast address",
        "ip address add 10.77.0.1/24 dev lxc-coredns",
        "10.77.0.255",
        false,
    ),
    (
        "the anycast address of a subnet's routers",
        "sysctl -qw net.ipv6.conf.all.forwarding=1 && ip address add 2001:db8:5::1/64 dev lxc-coredns",
        "2001:db8:5::",
        false,
    ),
    ("an address", "true", "10.77.0.1", true),
];

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), PORT)
}

/// Allows the client's egress to these peers only.
fn allow(lab: &NetnsLab, peers: &str) {
    lab.apply(
        "egress",
        &format!("[policies.egress]\nsubject = \"client\"\negress = [{{ to = [{peers}] }}]\n"),
    );
}

#[test]
fn world_reaches_no_socket_of_the_host_by_any_route_and_host_does() {
    let lab = NetnsLab::started();
    // Wildcards of both families.
    let wildcard = SocketAddr::from(([0u16; 8], PORT));
    let udp = lab.within("node", || UdpSocket::bind(wildcard).expect("a socket"));
    let tcp = lab.within("node", || TcpListener::bind(wildcard).expect("a listener"));
    udp.set_nonblocking(true).expect("not blocking");
    tcp.set_nonblocking(true).expect("not blocking");
    for (what, command, address, _) in ADDRESSES {
        lab.ok("node", command);
        eventually(&format!("{what} is known"), || {
            let checked = lab.run(
                "node",
                &format!(
                    "{} policy check --from client --to {address} {PORT}/udp",
                    env!("CARGO_BIN_EXE_dpd")
                ),
            );
            let checked = crate::lab::text(&checked);
            let is_host = checked.contains("host");
            if is_host { Ok(()) } else { Err(checked) }
        });
    }
    let send = |address: &str| {
        let family = if address.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        lab.within("client", || {
            let socket = UdpSocket::bind(family).expect("a socket");
            // A rejection is an error of the next call.
            let _ = socket.send_to(address.as_bytes(), at(address));
        });
    };
    let connect = |address: &str| {
        let timeout = Duration::from_millis(500);
        let to = at(address);
        lab.within("client", || {
            std::net::TcpStream::connect_timeout(&to, timeout)
        })
    };
    let received = || {
        let mut buffer = [0; 64];
        let length = udp.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };

    allow(&lab, "\"world\"");
    for (what, _, address, is_tcp) in ADDRESSES {
        send(address);
        eventually(&format!("{what}: it is dropped"), || {
            let flows = lab.flows();
            let is_dropped = flows.iter().any(|flow| {
                flow["dst_ip"] == address
                    && flow["verdict"] == "dropped"
                    && flow["dst_name"] == "host"
            });
            if is_dropped { Ok(()) } else { Err(flows) }
        });
        if is_tcp {
            assert!(connect(address).is_err(), "{what}: TCP");
        }
    }
    assert_eq!(received(), None, "nothing has arrived");
    assert!(tcp.accept().is_err(), "nobody has connected");

    allow(&lab, "\"world\", \"host\"");
    for (what, _, address, is_tcp) in ADDRESSES {
        eventually(&format!("{what}: it arrives"), || {
            send(address);
            let found = received();
            if found.as_deref() == Some(address) {
                Ok(())
            } else {
                Err(found)
            }
        });
        if is_tcp {
            assert!(connect(address).is_ok(), "{what}: TCP");
        }
    }

    // A route that is removed is followed, too.
    lab.ok("node", "ip route del local 203.0.113.0/24 dev lo");
    eventually("the prefix is the world's again", || {
        let listed = lab.dpd("identity list");
        if listed.contains("203.0.113.0/24") {
            Err(listed)
        } else {
            Ok(())
        }
    });
}

/// Its stack sends a copy back to itself, by the interface that the packet left by.
#[test]
fn the_hosts_own_multicast_is_no_packet_of_a_workload() {
    const PACKETS: u64 = 3;
    let lab = NetnsLab::started();
    let client = || {
        let endpoints = lab.json("endpoint list");
        let mut rows = endpoints.as_array().expect("a list").iter();
        let client = rows.find(|row| row["interface"] == "lxc-client");
        client.expect("the client").clone()
    };
    let number = |key: &str| client()[key].as_u64().expect("a number");
    let (before, ifindex) = (number("packets_in"), number("ifindex"));
    // Nobody answers a datagram to all on the link.
    let all = SocketAddrV6::new("ff02::1".parse().expect("an address"), 9, 0, ifindex as u32);
    lab.within("node", || {
        let socket = UdpSocket::bind("[::]:0").expect("a socket");
        for _ in 0..PACKETS {
            socket.send_to(b"?", all).expect("send to all on the link");
        }
    });
    assert!(number("packets_in") >= before + PACKETS, "{}", client());
    assert_eq!(number("drops_out"), 0, "{:?}", lab.drops());
}

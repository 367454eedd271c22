//! Services with Maglev at the same frontends on both hosts: a flow of the world gets the same backend by either, though each
//! host has the backends in another order and by other numbers. Its router sends the frontends' packets to one host at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};

use crate::lab::{DEADLINE, NetnsLab};
use crate::web;

/// Workloads of both hosts, all of them backends: web servers at port 8080, DNS servers at port 53.
const BACKENDS: [(&str, &str, &str); 5] = [
    ("client", "10.200.0.64", "fd00:200::64"),
    ("intruder", "10.200.0.65", "fd00:200::65"),
    ("coredns-a", "10.200.0.44", "fd00:200::44"),
    ("client-b", "10.200.1.64", "fd00:201::64"),
    ("coredns", "10.200.1.44", "fd00:201::44"),
];

/// Queries to the web servers by flows of fixed source ports. A line has a flow and the IPv4 address of the server that replied. By
/// HTTP/1.0 the server closes, and curl waits for that: else its port would be taken for a minute.
const PAGES: &str = r#"
page() { curl -sS -0 --ignore-content-length -m 5 --local-port $2 "http://$1/who" 2>&1; }
for number in $(seq 10 19); do
    echo "tcp4 $number $(page 10.90.0.1 200$number)"
    echo "tcp6 $number $(page '[fd00:90::1]' 201$number)"
done"#;

/// Source ports of the queries to the DNS servers. Tables that were filled in another order differ in two of a hundred columns.
const PORTS: std::ops::Range<u16> = 20_000..20_400;

/// A query for the server's name: `id.server`, type TXT, class CH (RFC 4892).
const QUERY: &[u8] = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x02id\x06server\0\0\x10\0\x03";

/// The backend of each flow.
type Picks = BTreeMap<String, String>;

/// Both services, with these backends in this order.
fn services(prefix: &str, backends: &[(&str, &str, &str)]) -> String {
    let service = |name: &str, protocol: &str, port: u16, own: u16| {
        let backends = backends
            .iter()
            .map(|(_, four, six)| format!("\"{four}:{own}\", \"[{six}]:{own}\""));
        let backends: Vec<String> = backends.collect();
        format!(
            "\n[services.{prefix}-{name}]\nfrontends = [\"10.90.0.1:{port}/{protocol}\", \"[fd00:90::1]:{port}/{protocol}\"]\n\
             backends = [{}]\nalgorithm = \"maglev\"\nexternal = true\n",
            backends.join(", ")
        )
    };
    let policy = "\n[policies.published]\nsubject = \"kube-dns\"\n\
        ingress = [{ from = [\"world\", \"remote-node\"], ports = [\"53/udp\", \"8080/tcp\"] }]\n";
    service("pages", "tcp", 80, 8080) + &service("names", "udp", 53, 53) + policy
}

/// On the second host another service has numbers of the same backends before.
const BEFORE: &str = r#"
[services.another]
frontends = ["10.90.0.9:80/tcp", "[fd00:90::9]:80/tcp"]
backends = ["10.200.1.44:8080", "10.200.0.64:8080", "[fd00:201::44]:8080", "10.200.9.9:80"]
algorithm = "maglev"
table_size = 4093
"#;

/// The frontends' packets take the way by this host from now on.
fn lead_to(host: &NetnsLab) {
    let (four, six) = match host.node() {
        "node-a" => ("192.0.2.1", "2001:db8:1::1"),
        _ => ("198.51.100.2", "2001:db8:2::2"),
    };
    host.ok(
        "router",
        &format!("ip route replace 10.90.0.0/24 via {four}"),
    );
    host.ok(
        "router",
        &format!("ip route replace fd00:90::/64 via {six}"),
    );
}

/// The workload with this IPv4 address.
fn name_of(address: &str) -> Option<&'static str> {
    let backend = BACKENDS.into_iter().find(|backend| backend.1 == address);
    backend.map(|(name, ..)| name)
}

/// The backends that the flows get by this host, none of which it knows already.
fn picks(host: &NetnsLab) -> Picks {
    lead_to(host);
    host.dpd("ct flush");
    let printed = host.ok("world", PAGES);
    let of_line = |line: &str| {
        let (flow, address) = line.rsplit_once(' ')?;
        Some((flow.to_owned(), name_of(address)?.to_owned()))
    };
    let mut picks: Picks = printed.lines().filter_map(of_line).collect();
    assert_eq!(picks.len(), 20, "{}: {printed}", host.node());
    for (any, frontend) in [("0.0.0.0", "10.90.0.1:53"), ("::", "[fd00:90::1]:53")] {
        host.within("world", || {
            picks.extend(PORTS.map(|port| {
                let flow = format!("udp {frontend} {port}");
                let name = server_name(any, port, frontend);
                (
                    flow.clone(),
                    name.unwrap_or_else(|error| panic!("{flow}: {error}")),
                )
            }));
        });
    }
    picks
}

/// The name of the DNS server that replies to this port.
fn server_name(any: &str, port: u16, frontend: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind((any, port))?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.connect(frontend)?;
    socket.send(QUERY)?;
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply)?;
    // The text is the end of the reply, after its length.
    let is =
        |name: &str| reply[..length].ends_with(&[&[name.len() as u8], name.as_bytes()].concat());
    let known = BACKENDS.into_iter().find(|backend| is(backend.0));
    let (name, ..) = known.ok_or(ErrorKind::InvalidData)?;
    Ok(name.to_owned())
}

/// What both hosts pick.
fn agreed(hosts: [&NetnsLab; 2], what: &str) -> Picks {
    let [a, b] = hosts.map(picks);
    let differ = a.iter().filter(|(flow, name)| b[*flow] != **name);
    let differ: Vec<_> = differ.map(|(flow, name)| (flow, name, &b[flow])).collect();
    assert!(
        differ.is_empty(),
        "{what}, {} flows: {differ:?}",
        differ.len()
    );
    a
}

fn used(picks: &Picks) -> BTreeSet<&str> {
    picks.values().map(String::as_str).collect()
}

/// A DNS server that replies to queries for `id.server` with the workload's name. Two workloads have one from the start.
fn serve_names(lab: &NetnsLab, (name, four, six): (&str, &str, &str)) {
    let folder = lab.folder().join(format!("names-{name}"));
    fs::create_dir_all(&folder).expect("make the server's folder");
    let place = folder.display();
    let config = format!(
        "server:\n  identity: {name}\n  rundir: {place}\n  pidfile: {place}/pid\n  listen: [ {four}@53, \"{six}@53\" ]\n  \
         udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: {place}\n  \
         journal-db-max-size: 1M\n  timer-db-max-size: 1M\n"
    );
    fs::write(folder.join("knot.conf"), config).expect("write knot.conf");
    lab.serve(name, &format!("knotd -c {place}/knot.conf"), 53);
}

fn without(name: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    BACKENDS
        .into_iter()
        .filter(|backend| backend.0 != name)
        .collect()
}

/// Both hosts with the services, and the servers.
fn published() -> (NetnsLab, NetnsLab) {
    let (a, b) = NetnsLab::hosts_laid(1500);
    let mut reversed = BACKENDS;
    reversed.reverse();
    // A backend that comes later has a higher number than those with higher addresses.
    let lowest = BACKENDS[2].0;
    a.drop_in("published", &services("a", &without(lowest)));
    b.drop_in(
        "published",
        &(BEFORE.to_owned() + &services("z", &reversed)),
    );
    a.start();
    b.start();
    a.drop_in("published", &services("a", &BACKENDS));
    a.dpd("reload");
    for backend in BACKENDS {
        let (name, four, six) = backend;
        web::serve_in(&a, name, four, six, &format!("pages-{name}"));
        if !name.starts_with("coredns") {
            serve_names(&a, backend);
        }
    }
    (a, b)
}

/// A connection of the world that stays open, with the name of the server at its other end.
struct Open {
    stream: TcpStream,
    server: &'static str,
}

impl Open {
    fn new(lab: &NetnsLab) -> Open {
        let stream = lab.connect("world", "10.90.0.1:80").expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut open = Open { stream, server: "" };
        open.server = open.name().expect("a reply");
        open
    }

    /// Which server now replies.
    fn name(&mut self) -> std::io::Result<&'static str> {
        self.stream
            .write_all(b"GET /who HTTP/1.1\r\nHost: pages\r\n\r\n")?;
        let mut reply = String::new();
        let mut piece = [0; 1024];
        loop {
            let body = reply.split_once("\r\n\r\n").map(|(_, body)| body);
            if let Some(address) = body.and_then(|body| body.strip_suffix('\n')) {
                return name_of(address).ok_or(ErrorKind::InvalidData.into());
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => reply += &String::from_utf8_lossy(&piece[..length]),
            }
        }
    }
}

/// So many connections by each host.
fn open_by(hosts: [&NetnsLab; 2]) -> [Vec<Open>; 2] {
    hosts.map(|host| {
        lead_to(host);
        let open: Vec<Open> = (0..12).map(|_| Open::new(host)).collect();
        let servers: BTreeSet<&str> = open.iter().map(|open| open.server).collect();
        assert!(servers.len() > 2, "{}: {servers:?}", host.node());
        open
    })
}

#[test]
fn a_flow_gets_the_same_backend_by_either_host() {
    let (a, b) = published();
    let hosts = [&a, &b];
    let first = agreed(hosts, "at first");
    assert_eq!(used(&first).len(), BACKENDS.len(), "{first:?}");

    let mut rotated = BACKENDS;
    rotated.rotate_left(2);
    a.drop_in("published", &services("renamed", &rotated));
    a.dpd("reload");
    let again = agreed(hosts, "with another order and other names on one host");
    assert_eq!(again, first);

    let mut open = open_by(hosts);
    let gone = BACKENDS[1].0;
    let left = without(gone);
    for (host, prefix) in [(&a, "renamed"), (&b, "z")] {
        host.drop_in("published", &services(prefix, &left));
        host.dpd("reload");
    }
    for (host, open) in hosts.into_iter().zip(&mut open) {
        lead_to(host);
        for open in open.iter_mut().filter(|open| open.server != gone) {
            let name = open.name().expect("the connection stays open");
            assert_eq!(name, open.server, "{}", host.node());
        }
    }
    // A backend on another host knows a connection by an address of the host that it came by first (SNAT).
    lead_to(&b);
    for open in &mut open[0] {
        let ended = open
            .name()
            .expect_err("by the other host it has another source");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{}", open.server);
    }
    drop(open);
    let after = agreed(hosts, "without one of the backends");
    assert_eq!(used(&after).len(), left.len(), "{after:?}");
    let moved = first
        .iter()
        .filter(|(flow, name)| *name != gone && after[*flow] != **name);
    let moved: Vec<_> = moved.collect();
    assert!(
        moved.len() <= first.len() / 10,
        "flows of backends that stay: {moved:?}"
    );
}

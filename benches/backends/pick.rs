//! The first packet of a connection by test runs: to a service, and to a backend's own address.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

use dpd::bpf::attach::hook::Hook;

use super::{Algorithm, median};
use crate::common::packet::udp;
use crate::common::runner::Node;

const CLIENT: &str = "lxc-client";
/// Rounds in which all rows take turns.
const ROUNDS: usize = 31;
/// Connections of each row in a round.
const CONNECTIONS: usize = 300;
const BACKENDS: [usize; 4] = [2, 10, 100, 1000];

/// Who opens the connections of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// One address, by another port each time.
    One,
    /// Another address each time.
    Many,
}

/// What a connection is opened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// One backend after the other, by its own address.
    Backend,
    Service {
        backends: usize,
        algorithm: Algorithm,
        has_affinity: bool,
    },
}

/// A column for each algorithm and a row for each number of backends.
struct Table {
    title: &'static str,
    clients: Clients,
    has_affinity: bool,
}

const TABLES: [Table; 4] = [
    Table {
        title: "from one client",
        clients: Clients::One,
        has_affinity: false,
    },
    Table {
        title: "from many clients",
        clients: Clients::Many,
        has_affinity: false,
    },
    Table {
        title: "with affinity, from one client, which has a backend",
        clients: Clients::One,
        has_affinity: true,
    },
    Table {
        title: "with affinity, from many clients, which have none",
        clients: Clients::Many,
        has_affinity: true,
    },
];

/// The address of a backend of any service.
fn backend(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 4, 1).to_bits() + number as u32)
}

/// All services, whose frontends are in this order.
fn services() -> Vec<Target> {
    let mut services = Vec::new();
    for backends in BACKENDS {
        for algorithm in Algorithm::ALL {
            services.extend([false, true].map(|has_affinity| Target::Service {
                backends,
                algorithm,
                has_affinity,
            }));
        }
    }
    services
}

fn place(service: Target) -> u8 {
    let place = services().iter().position(|known| *known == service);
    place.expect("a service of the file") as u8
}

fn frontend(service: Target) -> SocketAddr {
    SocketAddr::from(([10, 32, 0, 1 + place(service)], 7))
}

/// A service's own port of its backends: else the replies to a client's port would be ambiguous, and another backend be picked.
fn port(service: Target) -> u16 {
    7001 + u16::from(place(service))
}

fn config() -> String {
    let mut file = String::from(
        r#"
[node]
name = "node-a"
addresses = ["192.0.2.1"]

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64", "10.201.0.0/16"]
identity = "client"

[interfaces.lxc-server]
role = "endpoint"
addresses = ["10.200.4.0/22"]
identity = "server"

[identities]
client = { id = 20001 }
server = { id = 20002 }

[conntrack]
size = 1000000
per_endpoint = 0

[events]
rate = 1000000
"#,
    );
    for service in services() {
        let Target::Service {
            backends,
            algorithm,
            has_affinity,
        } = service
        else {
            continue;
        };
        let list: Vec<String> = (0..backends)
            .map(|number| format!("\"{}:{}\"", backend(number), port(service)))
            .collect();
        let affinity = if has_affinity { "1h" } else { "0s" };
        let frontend = frontend(service);
        // Writing to a string can't fail.
        let _ = write!(
            file,
            "\n[services.s{}]\nfrontends = [\"{frontend}/udp\"]\nalgorithm = \"{}\"\naffinity = \"{affinity}\"\nbackends = [{}]\n",
            place(service),
            algorithm.name(),
            list.join(", ")
        );
    }
    file
}

/// A row and its mean of each round, in nanoseconds.
struct Row {
    clients: Clients,
    target: Target,
    means: Vec<f64>,
}

impl Row {
    fn new(clients: Clients, target: Target) -> Row {
        let means = Vec::new();
        Row {
            clients,
            target,
            means,
        }
    }

    /// The first packets of new connections.
    fn frames(&self, round: usize) -> Vec<Vec<u8>> {
        let first = round * CONNECTIONS;
        let numbers = first..first + CONNECTIONS;
        let frame = |number: usize| {
            let client = match self.clients {
                Clients::One => SocketAddr::from(([10, 200, 0, 64], 10_000 + number as u16)),
                Clients::Many => {
                    SocketAddr::from(([10, 201, (number >> 8) as u8, number as u8], 9))
                }
            };
            let to = match self.target {
                Target::Backend => SocketAddr::from((backend(number % 1000), 7000)),
                service => frontend(service),
            };
            udp(client, to).payload(&[0; 36]).build()
        };
        numbers.map(frame).collect()
    }

    /// A round: the mean of the middle half.
    fn run(&mut self, node: &Node, round: usize) {
        let mut times = node.time(Hook::FromContainer, CLIENT, self.frames(round));
        times.sort_unstable();
        let middle = &times[CONNECTIONS / 4..CONNECTIONS * 3 / 4];
        let sum = middle.iter().sum::<std::time::Duration>();
        self.means.push(sum.as_nanos() as f64 / middle.len() as f64);
    }
}

fn rows() -> Vec<Row> {
    let direct = [Clients::One, Clients::Many].map(|clients| Row::new(clients, Target::Backend));
    let to_services = TABLES.iter().flat_map(|table| {
        let own = services().into_iter().filter(|service| match service {
            Target::Service { has_affinity, .. } => *has_affinity == table.has_affinity,
            Target::Backend => false,
        });
        own.map(|service| Row::new(table.clients, service))
    });
    direct.into_iter().chain(to_services).collect()
}

/// The median over the rounds of what two rows have in each.
fn compare(row: &Row, other: &Row, figure: fn(f64, f64) -> f64) -> f64 {
    let rounds = row.means.iter().zip(&other.means);
    median(rounds.map(|(row, other)| figure(*row, *other)).collect())
}

fn print(table: &Table, rows: &[Row]) {
    let find = |target| {
        let mut rows = rows.iter();
        let row = rows.find(|row| row.clients == table.clients && row.target == target);
        row.expect("the row was measured")
    };
    let direct = find(Target::Backend);
    let line = |backends| {
        let [random, maglev] = Algorithm::ALL.map(|algorithm| {
            find(Target::Service {
                backends,
                algorithm,
                has_affinity: table.has_affinity,
            })
        });
        let more = [random, maglev].map(|row| compare(row, direct, |row, direct| row - direct));
        let ratio = compare(maglev, random, |maglev, random| maglev / random);
        (more, ratio)
    };
    println!("{:52} {:6.0}", table.title, median(direct.means.clone()));
    for backends in BACKENDS {
        let ([random, maglev], ratio) = line(backends);
        println!(
            "  {backends:4} backends {:42} {random:+8.0} {maglev:+8.0} {ratio:6.2}",
            ""
        );
    }
}

pub fn measure() {
    println!(
        "nanoseconds of a new UDP connection by test runs: to a backend itself, and how much more to a service; and the ratio of both \
         algorithms' whole times. Medians of {ROUNDS} rounds in turn\n{:52} {:>6} {:>8} {:>8} {:>6}",
        "", "itself", "random", "maglev", "ratio"
    );
    let node = Node::new(&config());
    let mut rows = rows();
    for round in 0..ROUNDS {
        for row in &mut rows {
            row.run(&node, round);
        }
    }
    for table in &TABLES {
        print(table, &rows);
    }
}

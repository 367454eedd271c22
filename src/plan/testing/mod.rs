//! Configurations in few words for the plan's tests, and a random number generator with a fixed seed.

mod random;

pub use random::{IDENTITIES, PORTS, all_addresses, random_address, random_config};

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::*;
use crate::model::host::{HostState, Link, LinkPeer};
use crate::model::policy::{Action, Peer, Ports};
use crate::model::protocol::Protocol;
use crate::model::service::{BackendState, Frontend, NodePort};
use crate::model::state::{Aggregation, State};
use crate::plan::Inputs;

/// A configuration and the host that it is compiled for.
#[derive(Clone)]
pub struct TestConfig {
    pub config: Config,
    pub host: HostState,
    pub now_ns: u64,
}

impl TestConfig {
    /// Nothing but defaults, on a host with two addresses.
    pub fn new() -> TestConfig {
        let config = Config {
            masquerade: Default::default(),
            host: HostSettings { services: true },
            path: PathBuf::from("/etc/dpd/config.toml"),
            node: Node {
                name: "node-a".to_owned(),
                addresses: None,
            },
            daemon: Daemon {
                bpf_root: PathBuf::from("/sys/fs/bpf/dpd"),
                socket: PathBuf::from("/run/dpd/dpd.sock"),
                runtime_config: None,
                log: LogTarget::Auto,
                metrics: None,
                expedite_rcu: false,
            },
            interfaces: Default::default(),
            identities: Default::default(),
            services: Default::default(),
            policies: Default::default(),
            nodes: Default::default(),
            prefilter: Default::default(),
            policy: PolicySettings {
                enforcement: EnforcementMode::Default,
                audit: false,
                allow_host: true,
            },
            conntrack: Conntrack {
                size: 131_072,
                per_endpoint: None,
                strict: false,
                tcp: Duration::from_secs(8000),
                tcp_syn: Duration::from_secs(60),
                tcp_close: Duration::from_secs(10),
                udp: Duration::from_secs(30),
                udp_once: Duration::from_secs(5),
                icmp: Duration::from_secs(30),
            },
            events: Events {
                aggregation: Aggregation::Medium,
                interval: Duration::from_secs(5),
                rate: 10_000,
                journal: JournalFlows::Drops,
            },
            drop_ins: Default::default(),
        };
        let host = HostState {
            socket_ports: Default::default(),
            announced: Default::default(),
            netns_cookie: 4096,
            links: Default::default(),
            addresses: [ip("192.0.2.1"), ip("2001:db8::1")].into(),
            local_prefixes: Default::default(),
            stack: Default::default(),
        };
        TestConfig {
            config,
            host,
            now_ns: 1,
        }
    }

    /// The first state on a host.
    pub fn compile(&self) -> State {
        self.compile_after(&State::default())
    }

    /// The state that follows `before`.
    pub fn compile_after(&self, before: &State) -> State {
        let inputs = Inputs {
            config: &self.config,
            host: &self.host,
            previous: &before.catalog,
            previous_maglev: &before.maglev,
            now_ns: self.now_ns,
        };
        super::compile(inputs).unwrap()
    }

    pub fn try_compile(&self) -> Result<State, super::policy::TooManyRows> {
        super::compile(Inputs {
            config: &self.config,
            host: &self.host,
            previous: &State::default().catalog,
            previous_maglev: &Default::default(),
            now_ns: self.now_ns,
        })
    }

    /// `labels` as `KEY=VALUE KEY=VALUE`. An identity that exists keeps its prefixes.
    pub fn identity(mut self, name: &str, id: u32, labels: &str) -> TestConfig {
        let labels = labels.split_whitespace().map(|label| {
            let (key, value) = label.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        });
        let labels = labels.collect();
        let before = self.config.identities.remove(name);
        let identity = Identity {
            id,
            labels,
            cidrs: before.map_or_else(Vec::new, |identity| identity.cidrs),
        };
        self.config.identities.insert(name.to_owned(), identity);
        self
    }

    /// The `cidrs` of an identity that exists, separated by spaces.
    pub fn cidrs(mut self, identity: &str, cidrs: &str) -> TestConfig {
        let identity = self.config.identities.get_mut(identity).unwrap();
        identity.cidrs = nets(cidrs);
        self
    }

    /// Another node; addresses and prefixes separated by spaces.
    pub fn node(mut self, name: &str, addresses: &str, cidrs: &str) -> TestConfig {
        let node = RemoteNode {
            addresses: addresses.split_whitespace().map(ip).collect(),
            cidrs: nets(cidrs),
            endpoints: Default::default(),
        };
        self.config.nodes.insert(name.to_owned(), node);
        self
    }

    /// Workloads of a node that exists, separated by spaces: `10.200.1.44=kube-dns`.
    pub fn node_endpoints(mut self, node: &str, endpoints: &str) -> TestConfig {
        let endpoints = endpoints.split_whitespace().map(|endpoint| {
            let (address, identity) = endpoint.split_once('=').unwrap();
            (ip(address), identity.to_owned())
        });
        let node = self.config.nodes.get_mut(node).unwrap();
        node.endpoints = endpoints.collect();
        self
    }

    /// A table of the prefilter; prefixes separated by spaces.
    pub fn prefilter(mut self, table: &str, deny: &str) -> TestConfig {
        self.config.prefilter.insert(table.to_owned(), nets(deny));
        self
    }

    /// An uplink whose interface exists.
    pub fn uplink(mut self, name: &str, xdp: XdpMode) -> TestConfig {
        let link = Link {
            peer: None,
            ..self.next_link()
        };
        self.host.links.insert(name.to_owned(), link);
        let uplink = Interface::Uplink {
            xdp,
            forwarding: ForwardingMode::Auto,
            masquerade: Default::default(),
            l2_announce: false,
        };
        self.config.interfaces.insert(name.to_owned(), uplink);
        self
    }

    /// A veth into another namespace, with its own ifindex and MACs.
    fn next_link(&self) -> Link {
        let links = &self.host.links;
        let is_free = |ifindex: &u32| links.values().all(|link| link.ifindex != *ifindex);
        let ifindex = (10..).find(is_free).unwrap();
        Link {
            ifindex,
            mac: [2, 0, 0, 0, 0, ifindex as u8],
            mtu: 1500,
            up: true,
            peer: Some(LinkPeer {
                ifindex: 2,
                mac: Some([2, 0, 0, 0, 1, ifindex as u8]),
                same_namespace: false,
                mtu: 1500,
                is_bridge_port: false,
            }),
            ..Link::default()
        }
    }

    /// An endpoint with the veth `lxc-NAME`, which exists; `addresses` separated by spaces.
    pub fn endpoint(mut self, name: &str, identity: &str, addresses: &str) -> TestConfig {
        let link = self.next_link();
        self.host.links.insert(format!("lxc-{name}"), link);
        let endpoint = Interface::Endpoint {
            addresses: nets(addresses),
            identity: identity.to_owned(),
            multicast: false,
        };
        self.config
            .interfaces
            .insert(format!("lxc-{name}"), endpoint);
        self
    }

    /// `frontends` and `backends` separated by spaces: `10.32.0.10:53/udp`, `10.200.0.44:53` or `@IDENTITY:53` with `*WEIGHT`
    /// and `!STATE` after it.
    pub fn service(mut self, name: &str, frontends: &str, backends: &str) -> TestConfig {
        let (identities, addresses): (Vec<&str>, Vec<&str>) = backends
            .split_whitespace()
            .partition(|backend| backend.starts_with('@'));
        let service = Service {
            frontends: frontends.split_whitespace().map(frontend).collect(),
            backends: addresses.into_iter().map(backend).collect(),
            identity_backends: identities.into_iter().map(identity_backends).collect(),
            ..Service::default()
        };
        self.config.services.insert(name.to_owned(), service);
        self
    }

    /// Makes a service that exists external, with node ports as `8443/tcp`, separated by spaces.
    pub fn external(mut self, service: &str, node_ports: &str) -> TestConfig {
        let service = self.config.services.get_mut(service).unwrap();
        service.external = true;
        service.node_ports = node_ports.split_whitespace().map(node_port).collect();
        self
    }

    /// Lists as in [`rules`]; `None`: the policy does not name the direction.
    pub fn policy(
        mut self,
        name: &str,
        subject: &str,
        ingress: Option<&str>,
        egress: Option<&str>,
    ) -> TestConfig {
        let policy = Policy {
            subject: subject.to_owned(),
            ingress: ingress.map(rules),
            egress: egress.map(rules),
        };
        self.config.policies.insert(name.to_owned(), policy);
        self
    }

    pub fn enforcement(mut self, mode: EnforcementMode) -> TestConfig {
        self.config.policy.enforcement = mode;
        self
    }
}

/// Rules with `;` between them, each `ACTION PEER,PEER [PORTS,PORTS]`.
pub fn rules(text: &str) -> Vec<Rule> {
    let rules = text.split(';').filter(|rule| !rule.trim().is_empty());
    rules.map(rule).collect()
}

fn rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split_whitespace().collect();
    let ports = words.get(2).into_iter().flat_map(|ports| ports.split(','));
    Rule {
        peers: words[1].split(',').map(peer).collect(),
        ports: ports.map(self::ports).collect(),
        action: match words[0] {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            other => panic!("{other:?} is no action"),
        },
        location: SourceLocation {
            file: PathBuf::from("/etc/dpd/config.toml"),
            line: 1,
        },
    }
}

pub fn peer(text: &str) -> Peer {
    match text {
        "any" => Peer::Any,
        "host" => Peer::Host,
        "remote-node" => Peer::RemoteNode,
        "world" => Peer::World,
        _ => {
            if let Some(prefix) = text.strip_prefix("cidr:") {
                return Peer::Cidr(net(prefix));
            }
            match text
                .strip_prefix("label:")
                .and_then(|label| label.split_once('='))
            {
                Some((key, value)) => Peer::Label {
                    key: key.to_owned(),
                    value: value.to_owned(),
                },
                None => Peer::Identity(text.to_owned()),
            }
        }
    }
}

fn ports(text: &str) -> Ports {
    let Some((range, protocol)) = text.split_once('/') else {
        let protocol = text.parse().unwrap();
        return Ports {
            protocol,
            range: None,
        };
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Ports {
        protocol: protocol.parse().unwrap(),
        range: Some((first.parse().unwrap(), last.parse().unwrap())),
    }
}

pub fn frontend(text: &str) -> Frontend {
    let (address, protocol) = text.split_once('/').unwrap();
    let address: std::net::SocketAddr = address.parse().unwrap();
    let protocol: Protocol = protocol.parse().unwrap();
    Frontend {
        address: address.ip(),
        port: address.port(),
        protocol,
    }
}

fn node_port(text: &str) -> NodePort {
    let (port, protocol) = text.split_once('/').unwrap();
    NodePort {
        port: port.parse().unwrap(),
        protocol: protocol.parse().unwrap(),
    }
}

fn backend(text: &str) -> Backend {
    let (text, state) = text.split_once('!').unwrap_or((text, "active"));
    let (address, weight) = text.split_once('*').unwrap_or((text, "1"));
    Backend {
        address: address.parse().unwrap(),
        weight: weight.parse().unwrap(),
        state: match state {
            "active" => BackendState::Active,
            "draining" => BackendState::Draining,
            "maintenance" => BackendState::Maintenance,
            other => panic!("{other:?} is no state"),
        },
    }
}

fn identity_backends(text: &str) -> IdentityBackends {
    let (identity, rest) = text[1..].split_once(':').unwrap();
    let Backend {
        address,
        weight,
        state,
    } = backend(&format!("0.0.0.0:{rest}"));
    IdentityBackends {
        identity: identity.to_owned(),
        port: address.port(),
        weight,
        state,
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A prefix; a whole address is one of full length.
pub fn net(text: &str) -> IpNet {
    match text.parse() {
        Ok(prefix) => prefix,
        Err(_) => IpNet::from(ip(text)),
    }
}

/// Prefixes separated by spaces.
fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(net).collect()
}

/// A linear congruential generator (Knuth's MMIX): the same numbers in each run.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed);
        rng.below(2);
        rng
    }

    /// 0 to `end` - 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

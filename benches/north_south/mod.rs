//! The same node between the network and two servers several times, with different forwarding:
//!
//! ```text
//!                       │      ├─lxc-server│eth0── server 10.200.0.44, a workload
//!   world 192.0.2.9 ─up0│ node │
//!                       │      ├─up1── far 10.200.1.44, a workload of another host
//! ```
//!
//! Plain routing, where the world uses the servers' own addresses; nftables with DNAT, masquerade and a stateful filter; dpd with
//! external services, masquerade and a policy; and HAProxy in TCP mode.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::common::namespace::Namespace;
use crate::compare::{Compared, Process, Side};
use crate::lab::{self, Daemon, PORTS, SERVER, inside, ports, rules};

/// The server on another host.
pub const FAR: &str = "10.200.1.44";
pub const WORLD: &str = "192.0.2.9";
/// The services' addresses, where there are services.
const FRONTEND: &str = "203.0.113.10";
const FRONTEND_FAR: &str = "203.0.113.20";

/// What the node does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forwarder {
    #[default]
    Plain,
    Nftables,
    Dpd,
    Haproxy,
}

impl Forwarder {
    pub const ALL: [Forwarder; 4] = [
        Forwarder::Plain,
        Forwarder::Nftables,
        Forwarder::Dpd,
        Forwarder::Haproxy,
    ];
}

impl Compared for Forwarder {
    fn name(self) -> &'static str {
        match self {
            Forwarder::Plain => "plain",
            Forwarder::Nftables => "nftables",
            Forwarder::Dpd => "dpd",
            Forwarder::Haproxy => "haproxy",
        }
    }
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The world to the workload here.
    Here,
    /// The world to the server on another host, which sees an address of the node.
    Far,
    /// The workload to the world, which sees an address of the node.
    Out,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Here, Way::Far, Way::Out];

    pub fn name(self) -> &'static str {
        match self {
            Way::Here => "here",
            Way::Far => "far",
            Way::Out => "out",
        }
    }
}

pub struct NorthSouthLab {
    pub forwarder: Forwarder,
    world: Namespace,
    server: Namespace,
    far: Namespace,
    /// What forwards, before the node that it runs on.
    daemon: Option<Daemon>,
    haproxy: Option<(Process, TempDir)>,
    node: Namespace,
}

impl NorthSouthLab {
    pub fn new(forwarder: Forwarder) -> NorthSouthLab {
        let mut net = NorthSouthLab {
            forwarder,
            world: Namespace::new(),
            server: Namespace::new(),
            far: Namespace::new(),
            daemon: None,
            haproxy: None,
            node: Namespace::new(),
        };
        net.lay();
        match forwarder {
            Forwarder::Plain => {}
            Forwarder::Nftables => nftables(&net.node),
            Forwarder::Dpd => net.daemon = Some(Daemon::start(&net.node, configuration)),
            Forwarder::Haproxy => net.haproxy = Some(haproxy(&net.node)),
        }
        net
    }

    fn lay(&self) {
        self.node.sysctl("net.ipv4.ip_forward=1");
        lab::lay_uplink(&self.node, "up0", "192.0.2.1", &self.world, WORLD);
        lab::lay_uplink(&self.node, "up1", "198.51.100.1", &self.far, "198.51.100.2");
        lab::lay_workload(&self.node, "server", SERVER, &self.server);
        self.far.ip(&format!("address add {FAR}/32 dev eth0"));
        self.node.ip(&format!("route add {FAR} via 198.51.100.2"));
    }

    /// The client and the server of this way.
    pub fn side(&self, way: Way) -> Side<'_, Forwarder> {
        let is_plain = self.forwarder == Forwarder::Plain;
        let (client, server, to) = match way {
            Way::Here if is_plain => (&self.world, &self.server, SERVER),
            Way::Here => (&self.world, &self.server, FRONTEND),
            Way::Far if is_plain => (&self.world, &self.far, FAR),
            Way::Far => (&self.world, &self.far, FRONTEND_FAR),
            Way::Out => (&self.server, &self.world, WORLD),
        };
        let to: IpAddr = to.parse().expect("an address");
        Side {
            setup: self.forwarder,
            client,
            server,
            to,
        }
    }

    /// The place and the address of each server.
    pub fn servers(&self) -> [(&Namespace, &'static str); 3] {
        [
            (&self.server, SERVER),
            (&self.far, FAR),
            (&self.world, WORLD),
        ]
    }
}

/// Hand-written rules for the same as dpd's.
fn nftables(node: &Namespace) {
    let ports = ports();
    rules(
        node,
        &format!(
            "table ip bench {{
                chain service {{
                    type nat hook prerouting priority dstnat
                    ip daddr {FRONTEND} tcp dport {{ {ports} }} dnat to {SERVER}
                    ip daddr {FRONTEND} udp dport {{ {ports} }} dnat to {SERVER}
                    ip daddr {FRONTEND_FAR} tcp dport {{ {ports} }} dnat to {FAR}
                    ip daddr {FRONTEND_FAR} udp dport {{ {ports} }} dnat to {FAR}
                }}
                chain source {{
                    type nat hook postrouting priority srcnat
                    ip daddr {FAR} masquerade
                    oifname up0 ip saddr {SERVER} masquerade
                }}
                chain filter {{
                    type filter hook forward priority filter; policy drop
                    ct state established,related accept
                    ct state invalid drop
                    iifname up0 ip daddr {{ {SERVER}, {FAR} }} tcp dport {{ {ports} }} accept
                    iifname up0 ip daddr {{ {SERVER}, {FAR} }} udp dport {{ {ports} }} accept
                    iifname lxc-server ip saddr {SERVER} accept
                }}
            }}"
        ),
    );
}

fn configuration(root: &Path, socket: &Path) -> String {
    let mut text = format!(
        r#"
[node]
name = "node-a"

[daemon]
bpf_root = "{}"
socket = "{}"
log = "stderr"

[interfaces.up0]
role = "uplink"
masquerade = "ipv4"

[interfaces.up1]
role = "uplink"

[interfaces.lxc-server]
role = "endpoint"
addresses = ["{SERVER}"]
identity = "server"

[identities.server]
id = 20002

[nodes.node-b]
addresses = ["198.51.100.2"]
cidrs = ["{FAR}"]

[policies.network]
subject = "server"
ingress = [{{ from = ["world"], ports = ["7000-7003/tcp", "7000-7003/udp", "5201/tcp"] }}]
"#,
        root.display(),
        socket.display(),
    );
    for (name, frontend, backend) in [("here", FRONTEND, SERVER), ("far", FRONTEND_FAR, FAR)] {
        text.push_str(&external_services(name, frontend, backend));
    }
    text
}

/// An external service for each port that servers have.
fn external_services(name: &str, frontend: &str, backend: &str) -> String {
    let service = |port: u16| {
        format!(
            "\n[services.{name}-{port}]\nfrontends = [\"{frontend}:{port}/udp\", \"{frontend}:{port}/tcp\"]\n\
             backends = [\"{backend}:{port}\"]\nexternal = true\n"
        )
    };
    PORTS.map(service).concat()
}

/// HAProxy with the services' addresses as its own, and one thread for each core.
fn haproxy(node: &Namespace) -> (Process, TempDir) {
    let mut text = String::from(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n",
    );
    for (frontend, backend) in [(FRONTEND, SERVER), (FRONTEND_FAR, FAR)] {
        node.ip(&format!("address add {frontend}/32 dev lo"));
        for port in PORTS {
            text.push_str(&format!(
                "listen {frontend}-{port}\n  bind {frontend}:{port}\n  server backend {backend}:{port}\n"
            ));
        }
    }
    let folder = TempDir::new().expect("make a folder");
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, text).expect("write HAProxy's configuration");
    let mut command = inside(node, "haproxy");
    command.args(["-db", "-q", "-f"]).arg(&file);
    let process = command.stdout(Stdio::null()).spawn();
    let process = Process(process.expect("start haproxy"));
    for port in PORTS {
        lab::wait_for_listener(node, port);
    }
    (process, folder)
}

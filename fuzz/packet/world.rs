//! The node that inputs meet: one configuration, with a workload that hardly anybody may reach.

use std::net::IpAddr;

/// A workload's interface and its addresses.
pub struct Endpoint {
    pub interface: &'static str,
    pub addresses: [&'static str; 2],
}

pub const CLIENT: usize = 0;
pub const DNS: usize = 1;
pub const INTRUDER: usize = 2;
pub const WEB: usize = 3;

pub const ENDPOINTS: [Endpoint; 4] = [
    Endpoint {
        interface: "lxc-client",
        addresses: ["10.200.0.64", "fd00:200::64"],
    },
    Endpoint {
        interface: "lxc-coredns",
        addresses: ["10.200.0.44", "fd00:200::44"],
    },
    Endpoint {
        interface: "lxc-intruder",
        addresses: ["10.200.0.65", "fd00:200::65"],
    },
    Endpoint {
        interface: "lxc-web",
        addresses: ["10.200.0.45", "fd00:200::45"],
    },
];

pub const UPLINK: &str = "ens5";
pub const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub const FRONTENDS: [&str; 4] = ["10.32.0.10", "fd00:32::10", "10.32.0.20", "fd00:32::20"];
/// Prefixes of the prefilter, as (first address, length).
pub const DENIED: [(&str, u32); 2] = [("203.0.113.0", 24), ("2001:db8:bad::", 48)];

/// The port on which `DNS` answers, and the one on which it reaches `CLIENT`, by UDP.
pub const DNS_PORT: u16 = 53;
pub const NOTIFY_PORT: u16 = 9;

/// `DNS` is reached by `CLIENT` on one port, and by the host; it reaches `CLIENT` on another. Nothing else may arrive there.
pub const CONFIG: &str = r#"
[node]
name = "node-a"
addresses = ["192.0.2.1", "2001:db8::1"]

[interfaces.ens5]
role = "uplink"

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64", "fd00:200::64"]
identity = "client"

[interfaces.lxc-coredns]
role = "endpoint"
addresses = ["10.200.0.44", "fd00:200::44"]
identity = "kube-dns"

[interfaces.lxc-intruder]
role = "endpoint"
addresses = ["10.200.0.65", "fd00:200::65"]
identity = "intruder"

[interfaces.lxc-web]
role = "endpoint"
addresses = ["10.200.0.45", "fd00:200::45"]
identity = "web"

[identities]
client = { id = 20001, labels = ["app=client"] }
kube-dns = { id = 18203, labels = ["k8s-app=kube-dns"] }
intruder = { id = 20002, labels = ["app=intruder"] }
web = { id = 20003, labels = ["app=web"] }

[services.kube-dns]
frontends = ["10.32.0.10:53/udp", "10.32.0.10:53/tcp", "[fd00:32::10]:53/udp", "[fd00:32::10]:53/tcp"]
backends = ["10.200.0.44:53", "[fd00:200::44]:53"]

[services.web]
frontends = ["10.32.0.20:80/udp", "10.32.0.20:80/tcp", "[fd00:32::20]:80/udp", "[fd00:32::20]:80/tcp"]
backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[policies.dns-clients]
subject = "kube-dns"
ingress = [{ from = ["client"], ports = ["53/udp", "53/tcp"] }]
egress = [{ to = ["client"], ports = ["9/udp"] }]

[prefilter.abusers]
deny = ["203.0.113.0/24", "2001:db8:bad::/48"]

[conntrack]
size = 4096

[events]
aggregation = "none"
"#;

pub fn is_one_of(address: IpAddr, texts: &[&str]) -> bool {
    texts.iter().any(|text| text.parse() == Ok(address))
}

/// The endpoint that has the address.
pub fn owner(address: IpAddr) -> Option<usize> {
    ENDPOINTS
        .iter()
        .position(|endpoint| is_one_of(address, &endpoint.addresses))
}

/// Whether the prefilter denies the address.
pub fn is_denied(address: IpAddr) -> bool {
    DENIED
        .iter()
        .any(|(first, length)| match (address, first.parse()) {
            (IpAddr::V4(address), Ok(IpAddr::V4(first))) => {
                (address.to_bits() ^ first.to_bits()) >> (32 - length) == 0
            }
            (IpAddr::V6(address), Ok(IpAddr::V6(first))) => {
                (address.to_bits() ^ first.to_bits()) >> (128 - length) == 0
            }
            _ => false,
        })
}

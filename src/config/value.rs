//! Parses single texts of the file: words, addresses, ports, peers, durations, paths.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::name::{is_digits, label, plain};
use super::suggest::{did_you_mean, suggest};
use super::wrong::{Parsed, Wrong};
use crate::model::link_local;
use crate::model::policy::{Peer, Ports};
use crate::model::prefix;
use crate::model::protocol::Protocol;
use crate::model::service::{Frontend, NodePort};

/// The source addresses of hairpin connections: a workload that reaches itself through a service sees them as the client.
const HAIRPIN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 42, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Parsed<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let known = || words.iter().map(|(word, _)| *word);
    let wrong = Wrong::new(format!(
        "{text:?} is not one of {}",
        Vec::from_iter(known()).join(", ")
    ));
    Err(Wrong {
        help: did_you_mean(text, known()),
        ..wrong
    })
}

/// A single address that a host can have.
pub(super) fn address(text: &str) -> Parsed<IpAddr> {
    let address = text.parse().map_err(|_| {
        Wrong::new(format!("{text:?} is no IP address"))
            .help("write it as 192.0.2.1 or 2001:db8::1")
    })?;
    usable(address)
}

/// An address of a workload on another host.
pub(super) fn remote_endpoint(text: &str) -> Parsed<IpAddr> {
    if text.parse::<IpNet>().is_ok() {
        return Err(Wrong::new(format!(
            "{text:?} is a prefix, and a workload here is one address"
        ))
        .help("a prefix has an identity by `cidrs` of the identity"));
    }
    let address = address(text)?;
    if link_local::is_link_local(address) {
        let wrong = Wrong::new(format!("{address} is a link-local address"));
        return Err(wrong.help("it means nothing beyond its link"));
    }
    Ok(address)
}

/// A source address of an endpoint, or a prefix that is routed to it.
pub(super) fn endpoint_prefix(text: &str) -> Parsed<IpNet> {
    let prefix = match text.contains('/') {
        true => prefix(text)?,
        false => plain_link_local(text, IpNet::from(address(text)?))?,
    };
    if prefix.prefix_len() == 0 {
        return Err(
            Wrong::new(format!("{text:?} would make every address this endpoint's"))
                .help("name the prefixes that are routed behind it"),
        );
    }
    if link_local::is_link_local(prefix.addr()) && !link_local::is_of_a_link(prefix) {
        let shortest = link_local::PREFIX_MIN;
        return Err(Wrong::new(format!(
            "{text:?} is wider than the link-local addresses of a link"
        ))
        .help(format!("name single addresses, or fe80::/{shortest}")));
    }
    Ok(prefix)
}

/// In the tables the bytes between fe80::/32 and the interface's part are the link's: a prefix that ends among them, or an
/// address that sets them, would mean some links and not others.
fn plain_link_local(text: &str, prefix: IpNet) -> Parsed<IpNet> {
    let IpNet::V6(v6) = prefix else {
        return Ok(prefix);
    };
    let is_split = (33..link_local::PREFIX_MIN).contains(&v6.prefix_len());
    let is_of_link = link_local::is_link_local(prefix.addr());
    if is_of_link && (is_split || link_local::unscope(prefix.addr()) != prefix.addr()) {
        let message =
            format!("{text:?} is no link-local prefix: bits 32 to 63 are zero (RFC 4291, 2.5.6)");
        return Err(
            Wrong::new(message).help("name fe80::/10, fe80::/64, or addresses of fe80::/64")
        );
    }
    Ok(prefix)
}

/// A prefix without host bits, of addresses that a host can have.
pub(super) fn prefix(text: &str) -> Parsed<IpNet> {
    let prefix = any_prefix(text)?;
    // A whole family is a valid prefix, although its first address is not a valid address.
    if prefix.prefix_len() > 0 {
        usable(prefix.network())?;
    }
    plain_link_local(text, prefix)
}

/// The prefix of a `cidr:` peer: of addresses that a host can have, or of multicast groups, to which a workload may send.
fn peer_prefix(text: &str) -> Parsed<IpNet> {
    let prefix = any_prefix(text)?;
    let is_group = prefix.prefix_len() > 0 && prefix.network().is_multicast();
    if is_group {
        Ok(prefix)
    } else {
        self::prefix(text)
    }
}

/// A prefix without host bits, of any addresses: a packet can have any source.
pub(super) fn any_prefix(text: &str) -> Parsed<IpNet> {
    let form = "write it as 192.0.2.0/24 or 2001:db8::/64";
    let prefix: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse()
            .map_err(|_| Wrong::new(format!("{text:?} is no prefix")).help(form))?,
    };
    if prefix.trunc() != prefix {
        return Err(Wrong::new(format!("{text:?} has host bits set"))
            .help(format!("the prefix is {}", prefix.trunc())));
    }
    if let IpNet::V6(v6) = prefix
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.network().to_ipv4_mapped()
    {
        let prefix = Ipv4Net::new_assert(v4, v6.prefix_len() - 96);
        return Err(
            Wrong::new(format!("{text:?} is an IPv4 prefix written as IPv6"))
                .help(format!("write {}", prefix::text(prefix.into()))),
        );
    }
    Ok(prefix)
}

/// A frontend as the file writes it.
#[derive(Clone, Copy)]
pub(super) enum AnyFrontend {
    Address(Frontend),
    Node(NodePort),
}

/// `10.32.0.10:53/udp` or `node:53/udp`
pub(super) fn any_frontend(text: &str) -> Parsed<AnyFrontend> {
    match is_node_port(text) {
        true => node_port(text).map(AnyFrontend::Node),
        false => frontend(text).map(AnyFrontend::Address),
    }
}

fn is_node_port(text: &str) -> bool {
    let word = text.split(['/', ':']).next();
    word == Some("node")
}

/// `node:8443/tcp`
fn node_port(text: &str) -> Parsed<NodePort> {
    let (port, protocol) = with_protocol(text, "write it as node:8443/tcp")?;
    let port = port.strip_prefix("node").unwrap_or_default();
    let Some(port) = port.strip_prefix(':') else {
        let wrong = Wrong::new(format!("the frontend {text:?} lacks its port"));
        return Err(wrong.help("write it as node:8443/tcp"));
    };
    Ok(NodePort {
        port: self::port(port, text)?,
        protocol,
    })
}

/// What comes before the protocol of a frontend, and the protocol.
fn with_protocol<'t>(text: &'t str, form: &str) -> Parsed<(&'t str, Protocol)> {
    let (rest, protocol) = text.rsplit_once('/').ok_or_else(|| {
        Wrong::new(format!("the frontend {text:?} lacks its protocol")).help(form)
    })?;
    let protocol = self::protocol(protocol)?;
    if !protocol.has_ports() {
        return Err(Wrong::new(format!("a frontend can't be {protocol}")).help(
            "a frontend is tcp, udp or sctp; dpd itself responds to pings of a service address",
        ));
    }
    Ok((rest, protocol))
}

/// `10.32.0.10:53/udp`
pub(super) fn frontend(text: &str) -> Parsed<Frontend> {
    let form = "write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp";
    let (socket, protocol) = with_protocol(text, form)?;
    let socket = socket_address(socket, form)?;
    if link_local::is_link_local(socket.ip()) {
        let message = format!(
            "{} is a link-local address, which no service has",
            socket.ip()
        );
        return Err(Wrong::new(message).help("it means nothing beyond its link"));
    }
    Ok(Frontend {
        address: socket.ip(),
        port: socket.port(),
        protocol,
    })
}

/// `10.200.0.44:53`
pub(super) fn backend(text: &str) -> Parsed<SocketAddr> {
    let form = "write it as 192.0.2.1:53 or [2001:db8::1]:53";
    if let Some((_, protocol)) = text.rsplit_once('/') {
        return Err(
            Wrong::new(format!("the backend {text:?} can't have a protocol")).help(format!(
                "the frontends name the protocol: remove \"/{protocol}\""
            )),
        );
    }
    socket_address(text, form)
}

/// An address to listen on: also a loopback address, or the unspecified one.
pub(super) fn listen_address(text: &str) -> Parsed<SocketAddr> {
    let socket = address_with_port(text, "write it as 127.0.0.1:9964 or [::1]:9964")?;
    let problem = match socket.ip() {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4 address written as IPv6",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address",
        ip if ip.is_multicast() => "is a multicast address, which no host has as its own",
        _ => return Ok(socket),
    };
    Err(Wrong::new(format!("{} {problem}", socket.ip())))
}

fn socket_address(text: &str, form: &str) -> Parsed<SocketAddr> {
    let socket = address_with_port(text, form)?;
    usable(socket.ip())?;
    Ok(socket)
}

fn address_with_port(text: &str, form: &str) -> Parsed<SocketAddr> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(Wrong::new(format!("{text:?} lacks its port")).help(form));
    }
    let socket = match text.parse() {
        // A zone, as in `fe80::1%2`, is local to one host.
        Ok(SocketAddr::V6(socket)) if socket.scope_id() != 0 => None,
        Ok(socket) => Some(socket),
        Err(_) => None,
    };
    let socket = socket
        .ok_or_else(|| Wrong::new(format!("{text:?} is no address with a port")).help(form))?;
    if socket.port() == 0 {
        return Err(
            Wrong::new(format!("{text:?} has port 0, which is not valid"))
                .help("ports are 1 to 65535"),
        );
    }
    Ok(socket)
}

/// Refuses addresses that no workload, service or host can have on the network.
fn usable(address: IpAddr) -> Parsed<IpAddr> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(
            Wrong::new(format!("{address} is an IPv4 address written as IPv6"))
                .help(format!("write {v4}")),
        );
    }
    let problem = match address {
        _ if address.is_unspecified() => "is the unspecified address",
        _ if address.is_loopback() => "is a loopback address, which never leaves its host",
        _ if address.is_multicast() => "is a multicast address, which no host has as its own",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address",
        _ if HAIRPIN.contains(&address) => {
            "is the address that dpd uses for hairpin connections of a workload to itself through a service"
        }
        _ => return Ok(address),
    };
    Err(Wrong::new(format!("{address} {problem}")))
}

fn protocol(text: &str) -> Parsed<Protocol> {
    word(
        text,
        &Protocol::ALL.map(|protocol| (protocol.name(), protocol)),
    )
}

/// `53/udp`, `8000-8080/tcp`, `icmp`
pub(super) fn ports(text: &str) -> Parsed<Ports> {
    let Some((range, name)) = text.split_once('/') else {
        let protocol = match text.parse::<u16>() {
            Ok(_) => Err(Wrong::new(format!("the port {text:?} lacks its protocol"))
                .help(format!("write {text}/tcp or {text}/udp"))),
            Err(_) => protocol(text),
        };
        return protocol.map(|protocol| Ports {
            protocol,
            range: None,
        });
    };
    let protocol = protocol(name)?;
    if !protocol.has_ports() {
        return Err(Wrong::new(format!("{protocol} has no ports")).help(format!(
            "write {protocol:?} alone",
            protocol = protocol.name()
        )));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (port(first, text)?, port(last, text)?);
    if first > last {
        return Err(
            Wrong::new(format!("the range {text:?} ends before it begins"))
                .help(format!("write {last}-{first}/{protocol}")),
        );
    }
    Ok(Ports {
        protocol,
        range: Some((first, last)),
    })
}

fn port(text: &str, whole: &str) -> Parsed<u16> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.filter(|_| is_digits(text)).ok_or_else(|| {
        Wrong::new(format!("{text:?} in {whole:?} is no port"))
            .help("ports are 1 to 65535, as in 53/udp or 8000-8080/tcp")
    })
}

/// A peer of a rule. Whether an identity of this name exists is checked elsewhere.
pub(super) fn peer(text: &str) -> Parsed<Peer> {
    match (text, text.split_once(':')) {
        ("any", _) => return Ok(Peer::Any),
        ("host", _) => return Ok(Peer::Host),
        ("remote-node", _) => return Ok(Peer::RemoteNode),
        ("world", _) => return Ok(Peer::World),
        (_, Some(("cidr", rest))) => return peer_prefix(rest).map(Peer::Cidr),
        (_, Some(("label", rest))) => {
            return label(rest).map(|(key, value)| Peer::Label { key, value });
        }
        _ => {}
    }
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        return Err(Wrong::new(format!("{text:?} is no identity's name"))
            .help(format!("write \"cidr:{text}\"")));
    }
    if let Some((kind, rest)) = text.split_once(':') {
        let near = suggest(kind, ["label", "cidr"]);
        let help = match near {
            Some(near) => format!("did you mean \"{near}:{}\"?", rest.escape_debug()),
            None => "a peer is an identity's name, label:KEY=VALUE, cidr:PREFIX, any, host, remote-node or world".into(),
        };
        return Err(Wrong::new(format!("{text:?} is no peer")).help(help));
    }
    Ok(Peer::Identity(text.to_owned()))
}

/// `250ms`, `5s`, `10m`, `3h`
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let wrong = || {
        Wrong::new(format!("{text:?} is no duration"))
            .help("a duration is a whole number with its unit: 250ms, 5s, 10m or 3h")
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let total = number.checked_mul(milliseconds).ok_or_else(wrong)?;
    Ok(Duration::from_millis(total))
}

/// A duration in the file's spelling, for the command line.
///
/// # Errors
/// A sentence, if it is none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|wrong| match wrong.help {
        Some(help) => format!("{}: {help}", wrong.message),
        None => wrong.message,
    })
}

/// A duration in the file's spelling, with the largest unit that gives a whole number.
pub(super) fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let unit = units
        .iter()
        .find(|(size, _)| milliseconds > 0 && milliseconds.is_multiple_of(*size));
    match unit {
        Some((size, unit)) => format!("{}{unit}", milliseconds / size),
        None if milliseconds == 0 => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

/// An absolute path, since the daemon and the commands may run in different folders.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    plain(text, "the path", 4095)?;
    let path = PathBuf::from(text);
    let is_fixed = path.is_absolute() && !text.split('/').any(|part| part == "..");
    match is_fixed {
        true => Ok(path),
        false => Err(Wrong::new(format!("{text:?} is not a whole path"))
            .help("start it with `/`, and omit `..`")),
    }
}

/// The path of a Unix socket, which the kernel limits to 107 bytes.
pub(super) fn socket_path(text: &str) -> Parsed<PathBuf> {
    match text.len() {
        0..=107 => path(text),
        _ => Err(Wrong::new(
            "the path of a socket can't be longer than 107 bytes",
        )),
    }
}

//! Packets as text, for the messages of tests that fail.

use std::fmt::Write as _;

use super::address::Mac;
use super::parse::{Parsed, ParsedIp, parse};
use super::protocol;
use super::verify::verify;

/// One line, much as tcpdump has it.
pub fn summary(frame: &[u8]) -> String {
    let parsed = parse(frame);
    let mut line = match parsed.vlan {
        Some(id) => format!("vlan {} ", id & 0xfff),
        None => String::new(),
    };
    line += &summary_of(&parsed);
    if let Err(problem) = verify(frame) {
        let _ = write!(line, " [{problem}]");
    }
    line
}

/// A line for each field, under its one-line summary.
pub fn text(frame: &[u8]) -> String {
    let mut lines = summary(frame);
    for (name, value) in fields(&parse(frame)) {
        let _ = write!(lines, "\n    {name:<20} {value}");
    }
    lines
}

/// The fields that differ, then the bytes that do. Empty if there is no difference.
pub fn diff(expected: &[u8], got: &[u8]) -> String {
    if expected == got {
        return String::new();
    }
    let mut lines = format!(
        "expected  {}\ngot       {}",
        summary(expected),
        summary(got)
    );
    let (expected_fields, got_fields) = (fields(&parse(expected)), fields(&parse(got)));
    for (name, value) in &expected_fields {
        let other = find(&got_fields, name);
        if other != Some(value) {
            let other = other.map_or("none", |value| value);
            let _ = write!(lines, "\n    {name:<20} expected {value}, got {other}");
        }
    }
    for (name, value) in &got_fields {
        if find(&expected_fields, name).is_none() {
            let _ = write!(lines, "\n    {name:<20} expected none, got {value}");
        }
    }
    let _ = write!(
        lines,
        "\n  expected, {} bytes:\n{}\n  got, {} bytes:\n{}",
        expected.len(),
        marked_hex(expected, got),
        got.len(),
        marked_hex(got, expected)
    );
    lines
}

/// Sixteen bytes a line.
pub fn hex(bytes: &[u8]) -> String {
    marked_hex(bytes, bytes)
}

/// As `hex`, with a star before each byte that differs from `other`'s.
fn marked_hex(bytes: &[u8], other: &[u8]) -> String {
    let line = |(row, chunk): (usize, &[u8])| {
        let mut line = format!("    {:04x} ", row * 16);
        for (column, byte) in chunk.iter().enumerate() {
            let same = other.get(row * 16 + column) == Some(byte);
            let _ = write!(line, "{}{byte:02x}", if same { ' ' } else { '*' });
        }
        line
    };
    bytes
        .chunks(16)
        .enumerate()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a String> {
    fields
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value)
}

fn summary_of(parsed: &Parsed) -> String {
    if let Some(arp) = &parsed.arp {
        return match arp.operation {
            1 => format!("ARP who-has {} tell {}", arp.target, arp.sender),
            2 => format!("ARP {} is-at {}", arp.sender, mac_text(arp.sender_mac)),
            other => format!("ARP operation {other}"),
        };
    }
    let Some(ip) = &parsed.ip else {
        return match parsed.cut {
            Some(header) => format!("cut within the {header}"),
            None => format!(
                "ethertype {:#06x}, {} bytes",
                parsed.ethertype,
                parsed.payload.len()
            ),
        };
    };
    let family = if ip.is_v4() { "IP" } else { "IP6" };
    let mut line = format!(
        "{family} {} > {}: {}",
        socket_text(ip.src, parsed.src_port),
        socket_text(ip.dst, parsed.dst_port),
        transport_text(parsed, ip)
    );
    if ip.is_fragment() {
        let more = if ip.more_fragments { "+" } else { "" };
        let _ = write!(line, ", fragment {}@{}{more}", ip.id, ip.offset);
    }
    let _ = write!(line, ", ttl {}", ip.ttl);
    if let Some(header) = parsed.cut {
        let _ = write!(line, ", cut within the {header}");
    }
    line
}

fn transport_text(parsed: &Parsed, ip: &ParsedIp) -> String {
    let length = parsed.payload.len();
    if let Some(tcp) = &parsed.tcp {
        return format!(
            "TCP [{}], seq {}, ack {}, win {}, length {length}",
            flags_text(tcp.flags),
            tcp.seq,
            tcp.ack,
            tcp.window
        );
    }
    if let Some(icmp) = &parsed.icmp {
        let mut line = icmp_text(ip.is_v4(), icmp.kind, icmp.code, icmp.echo());
        if let Some(quoted) = &icmp.quoted {
            let _ = write!(line, " about ({})", summary_of(quoted));
        } else {
            let _ = write!(line, ", length {length}");
        }
        return line;
    }
    match ip.protocol {
        protocol::UDP => format!("UDP, length {length}"),
        protocol::TCP => format!("TCP, length {length}"),
        protocol::SCTP => format!("SCTP, length {length}"),
        protocol::IGMP => format!("IGMP, length {length}"),
        protocol::GRE => format!("GRE, length {length}"),
        other => format!("protocol {other}, length {length}"),
    }
}

fn icmp_text(is_v4: bool, kind: u8, code: u8, (id, seq): (u16, u16)) -> String {
    match (is_v4, kind) {
        (true, 8) | (false, 128) => format!("echo request id {id} seq {seq}"),
        (true, 0) | (false, 129) => format!("echo reply id {id} seq {seq}"),
        (true, 3) if code == 4 => format!("fragmentation needed, mtu {seq}"),
        (false, 2) => format!("packet too big, mtu {seq}"),
        (true, 3) | (false, 1) => format!("unreachable code {code}"),
        (true, 11) | (false, 3) => format!("time exceeded code {code}"),
        (true, 12) | (false, 4) => "parameter problem".to_owned(),
        (false, 133) => "router solicitation".to_owned(),
        (false, 134) => "router advertisement".to_owned(),
        (false, 135) => "neighbour solicitation".to_owned(),
        (false, 136) => "neighbour advertisement".to_owned(),
        (true, _) => format!("ICMP type {kind} code {code}"),
        (false, _) => format!("ICMPv6 type {kind} code {code}"),
    }
}

/// SYN, FIN, RST and PSH by their letters, ACK as a dot.
fn flags_text(flags: u8) -> String {
    let letters = [
        (2, 'S'),
        (1, 'F'),
        (4, 'R'),
        (8, 'P'),
        (16, '.'),
        (32, 'U'),
        (64, 'E'),
        (128, 'W'),
    ];
    letters
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

fn socket_text(address: std::net::IpAddr, port: u16) -> String {
    match port {
        0 => address.to_string(),
        port => std::net::SocketAddr::new(address, port).to_string(),
    }
}

fn mac_text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Names and values in the order of the packet; names are unique.
fn fields(parsed: &Parsed) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    add(&mut fields, "eth.src", mac_text(parsed.src_mac));
    add(&mut fields, "eth.dst", mac_text(parsed.dst_mac));
    if let Some(tag) = parsed.vlan {
        add(&mut fields, "vlan", tag);
    }
    add(
        &mut fields,
        "eth.type",
        format!("{:#06x}", parsed.ethertype),
    );
    if let Some(arp) = &parsed.arp {
        add(&mut fields, "arp.operation", arp.operation);
        add(
            &mut fields,
            "arp.sender",
            format!("{} at {}", arp.sender, mac_text(arp.sender_mac)),
        );
        add(
            &mut fields,
            "arp.target",
            format!("{} at {}", arp.target, mac_text(arp.target_mac)),
        );
    }
    add_network(&mut fields, "", parsed);
    fields
}

fn add_network(fields: &mut Vec<(String, String)>, prefix: &str, parsed: &Parsed) {
    let mut put = |name: &str, value: String| add(fields, &format!("{prefix}{name}"), value);
    if let Some(ip) = &parsed.ip {
        put("ip.src", ip.src.to_string());
        put("ip.dst", ip.dst.to_string());
        put("ip.ttl", ip.ttl.to_string());
        put("ip.tos", format!("{:#04x}", ip.tos));
        put("ip.flow_label", format!("{:#07x}", ip.flow_label));
        put("ip.id", ip.id.to_string());
        put("ip.dont_fragment", ip.dont_fragment.to_string());
        put("ip.more_fragments", ip.more_fragments.to_string());
        put("ip.offset", ip.offset.to_string());
        put("ip.options", format!("{:02x?}", ip.options));
        put("ip.extensions", format!("{:?}", ip.extensions));
        put("ip.protocol", ip.protocol.to_string());
        put("ip.length", ip.length.to_string());
        if let Some(sum) = ip.checksum {
            put("ip.checksum", format!("{sum:#06x}"));
        }
    }
    if parsed.src_port != 0 || parsed.dst_port != 0 {
        put("src_port", parsed.src_port.to_string());
        put("dst_port", parsed.dst_port.to_string());
    }
    if let Some(tcp) = &parsed.tcp {
        put("tcp.seq", tcp.seq.to_string());
        put("tcp.ack", tcp.ack.to_string());
        put("tcp.flags", flags_text(tcp.flags));
        put("tcp.window", tcp.window.to_string());
        put("tcp.options", format!("{:02x?}", tcp.options));
    }
    if let Some(length) = parsed.udp_length {
        put("udp.length", length.to_string());
    }
    if let Some(tag) = parsed.sctp_tag {
        put("sctp.tag", format!("{tag:#010x}"));
    }
    if let Some(icmp) = &parsed.icmp {
        put("icmp.type", icmp.kind.to_string());
        put("icmp.code", icmp.code.to_string());
        put("icmp.rest", format!("{:02x?}", icmp.rest));
    }
    if let Some(sum) = parsed.checksum {
        put("checksum", format!("{sum:#06x}"));
    }
    match parsed.icmp.as_ref().and_then(|icmp| icmp.quoted.as_ref()) {
        Some(quoted) => add_network(fields, &format!("{prefix}quoted "), quoted),
        None => put("payload", format!("{:02x?}", parsed.payload)),
    }
}

fn add(fields: &mut Vec<(String, String)>, name: &str, value: impl ToString) {
    fields.push((name.to_owned(), value.to_string()));
}

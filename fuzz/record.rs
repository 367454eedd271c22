//! Invariants of every record that the ring may hold, from its bytes to lines, JSON and the journal. The fuzzer generates
//! records; an ordinary test checks those of `corpus/record`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::SystemTime;

use dpd::bpf::state::events::Event;
use dpd::model::catalog::{Catalog, EndpointInfo, IdentityInfo, RuleInfo, ServiceInfo, UplinkInfo};
use dpd::model::flow::Flow;
use dpd::model::policy::{Action, Direction};
use dpd::model::xdp::XdpMode;
use dpd::observe::journal;
use dpd::observe::line::{self, Colours};
use dpd::observe::protocol::Reply;
use dpd::observe::record::Record;
use dpd::observe::translate::{self, Clock};
use jiff::tz::TimeZone;

/// The length of `struct event`: written down, since what the decoder takes for it is what is tested.
const EVENT_LENGTH: usize = 144;

/// Panics if an invariant does not hold for these bytes.
pub fn check(bytes: &[u8]) {
    let decoded = Event::decode(bytes);
    if bytes.len() != EVENT_LENGTH {
        let error = decoded.expect_err("a record of another length is refused");
        assert!(
            error.to_string().contains(&bytes.len().to_string()),
            "{error}"
        );
        return;
    }
    let event = decoded.expect("any bytes of the right length are an event");
    for catalog in [&Catalog::default(), &*CATALOG] {
        let flow = translate::flow(&event, catalog, Clock::read(), |_| None);
        check_flow(bytes, &flow);
        let record = Record::from(&flow);
        check_record(bytes, &record);
        check_json(&record);
        check_lines(&record);
        check_entry(&flow);
    }
}

/// Names that the file would not allow, for the numbers from 0 to 3: what shows them must not rely on the file.
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let odd = [
        "plain",
        "two\nlines \"quoted\"",
        "\u{1b}[31mred\u{202e}",
        "=\0\r\\",
    ];
    let names = || (0u32..).zip(odd.map(str::to_owned));
    let identity = |name: String| IdentityInfo {
        ingress_enforced_by: vec![name.clone(), String::new()],
        name,
        ..IdentityInfo::default()
    };
    let service = |name| ServiceInfo {
        name,
        ..ServiceInfo::default()
    };
    let endpoint = |ifindex| EndpointInfo {
        ifindex: Some(ifindex),
        identity: 1,
        addresses: Default::default(),
        row: 1,
    };
    let uplink = UplinkInfo {
        masquerade: Default::default(),
        announced: Default::default(),
        ifindex: Some(9),
        is_ethernet: true,
        xdp: XdpMode::Auto,
        forwarding: dpd::model::forwarding::Forwarding::Direct,
        forwarding_reason: String::new(),
    };
    Catalog {
        identities: names().map(|(id, name)| (id, identity(name))).collect(),
        services: names().map(|(id, name)| (id, service(name))).collect(),
        rules: names().map(|(id, name)| (id, rule(name))).collect(),
        endpoints: names().map(|(id, name)| (name, endpoint(id))).collect(),
        uplinks: [("up\tlink".to_owned(), uplink)].into(),
        ..Catalog::default()
    }
});

fn rule(policy: String) -> RuleInfo {
    RuleInfo {
        file: policy.clone(),
        policy,
        direction: Direction::Ingress,
        index: 0,
        subject: 1,
        action: Action::Deny,
        peers: Vec::new(),
        ports: Vec::new(),
        line: 7,
    }
}

/// The bytes of a record by the offsets of `struct event` in `bpf/abi.h`.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    /// An address at one offset, and a port at another.
    fn socket(&self, address: usize, port: usize) -> SocketAddr {
        let octets: [u8; 16] = self.0[address..address + 16].try_into().expect("16 bytes");
        let ip = Ipv6Addr::from(octets);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        let port = u16::from_be_bytes([self.0[port], self.0[port + 1]]);
        SocketAddr::new(ip, port)
    }
}

/// The flow says what the record says.
fn check_flow(bytes: &[u8], flow: &Flow) {
    let raw = Bytes(bytes);
    let (src, dst) = (raw.socket(16, 48), raw.socket(32, 50));
    let translated = raw.socket(72, 90);
    let is_translated = bytes[136] == 0 && dst != translated;
    assert_eq!((flow.src.ip, flow.src.port), (src.ip(), src.port()));
    assert_eq!(
        (flow.dst.ip, flow.dst.port),
        (translated.ip(), translated.port())
    );
    let expected = is_translated.then_some((dst.ip(), dst.port()));
    assert_eq!(
        flow.orig_dst, expected,
        "only a translated destination is shown twice"
    );
    assert_eq!(
        (flow.src.identity, flow.dst.identity),
        (raw.u32(104), raw.u32(108))
    );
    assert_eq!((flow.bytes, flow.repeats), (raw.u32(100), raw.u32(128)));
    assert_eq!((flow.protocol, flow.tcp_flags), (bytes[52], bytes[137]));
    assert_eq!((flow.revision, flow.reply), (raw.u64(8), bytes[136] != 0));
    assert_eq!(flow.drop_reason.map_or(0, |(code, _)| code), bytes[134]);
    assert_eq!(flow.ct_state.is_none(), bytes[138] == 255);
    let direction = match bytes[135] {
        1 => Direction::Egress,
        _ => Direction::Ingress,
    };
    assert_eq!(flow.direction, direction);
    assert!(!flow.src.name.is_empty() && !flow.dst.name.is_empty());
    assert!(flow.time <= SystemTime::now() + std::time::Duration::from_nanos(raw.u64(0)));
}

/// Its record does, too.
fn check_record(bytes: &[u8], record: &Record) {
    let raw = Bytes(bytes);
    let verdict = match bytes[132] {
        2 => "dropped",
        3 => "audit",
        _ => "forwarded",
    };
    assert_eq!(record.verdict, verdict);
    assert_eq!(
        record.drop_reason_code.is_some(),
        record.drop_reason.is_some()
    );
    assert_eq!((record.bytes, record.repeats), (raw.u32(100), raw.u32(128)));
    let is_tcp = bytes[52] == 6;
    assert_eq!(record.tcp_flags.is_some(), is_tcp && bytes[137] != 0);
    let has_ports = matches!(bytes[52], 6 | 17 | 132);
    if let Some(port) = record.src_port {
        assert!(has_ports && port == raw.socket(16, 48).port());
    }
    assert_eq!(record.src_port.is_some(), record.dst_port.is_some());
    assert_eq!(record.config_file.is_some(), record.rule.is_some());
}

/// One line, which reads back as what it was made from.
fn check_json(record: &Record) {
    let text = serde_json::to_string(&Reply::Flow(record.clone())).expect("a record as JSON");
    assert!(!text.contains(char::is_control), "{text:?}");
    let read: Reply = serde_json::from_str(&text).expect("JSON that can be read");
    let Reply::Flow(read) = read else {
        panic!("{text} is read as {read:?}");
    };
    // JSON has milliseconds.
    let difference = record.time.duration_since(read.time).as_millis().abs();
    assert!(difference <= 1, "{} is read as {}", record.time, read.time);
    let read = Record {
        time: record.time,
        ..read
    };
    assert_eq!(&read, record, "{text}");
}

/// No name breaks a line, or hides what it says.
fn check_lines(record: &Record) {
    let plain = line::line(record, &TimeZone::UTC, Colours::None);
    let message = line::message(record);
    assert!(plain.ends_with(&message), "{plain:?}, {message:?}");
    for text in [&plain, &message] {
        let is_disruptive = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(is_disruptive), "{text:?}");
    }
    let coloured = line::line(record, &TimeZone::UTC, Colours::Ansi);
    let mut bare = coloured.clone();
    for escape in ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
        bare = bare.replacen(escape, "", 1);
    }
    assert_eq!(bare, plain, "{coloured:?}");
    let verdict = record.verdict.to_uppercase();
    assert!(plain.contains(&verdict), "{plain:?}");
}

/// journald's field names, and a message of one line.
fn check_entry(flow: &Flow) {
    let entry = journal::entry(flow);
    let messages = entry.iter().filter(|(name, _)| name == "MESSAGE").count();
    assert_eq!(messages, 1, "{entry:?}");
    for (name, value) in &entry {
        let is_name = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
        let starts_well = name.starts_with(|c: char| c.is_ascii_uppercase());
        assert!(starts_well && name.bytes().all(is_name), "{name:?}");
        let is_text = name != "MESSAGE" || !value.contains(char::is_control);
        assert!(is_text, "{value:?}");
    }
}

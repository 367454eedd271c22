//! The settings: `[node]`, `[daemon]`, `[host]`, `[policy]`, `[conntrack]`, `[events]`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::fields::{Fields, refuse_repeats, values};
use crate::config::checked::{
    Conntrack, Daemon, EnforcementMode, Events, HostSettings, JournalFlows, LogTarget, Node,
    PolicySettings,
};
use crate::config::drop_in::{DEFAULT_BPF_ROOT, runtime_folder};
use crate::config::report::Report;
use crate::config::tree::Table;
use crate::config::{name, value};
use crate::model::state::Aggregation;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The range of connection lifetimes. Expired entries are removed once a second at most.
const LIFETIME: RangeInclusive<Duration> = SECOND..=Duration::from_secs(30 * 24 * 3600);
const REPORT_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;
/// The range of `conntrack.size`; 16 Mi connections take some 7 GB.
const CONNECTIONS: RangeInclusive<u32> = 1024..=16_777_216;
const EVENT_RATE: RangeInclusive<u32> = 1..=10_000_000;

pub(super) fn node(root: &Table, host_name: &str, report: &mut Report) -> Node {
    let mut fields = Fields::section(root, "node", report);
    let name = fields.parsed("name", |text| name::name(text).map(|()| text.to_owned()));
    let addresses = fields.parsed_list("addresses", value::address);
    fields.refuse_empty("addresses", "omit the key to use all addresses of the host");
    let named = addresses.as_deref().unwrap_or_default();
    refuse_repeats(
        named,
        |address| format!("the address {address}"),
        fields.report,
    );
    Node {
        name: name.map_or_else(|| host_name.to_owned(), |name| name.value),
        addresses: addresses.map(values),
    }
}

pub(super) fn daemon(root: &Table, report: &mut Report) -> Daemon {
    let mut fields = Fields::section(root, "daemon", report);
    let bpf_root = fields.parsed("bpf_root", value::path);
    let socket = fields.parsed("socket", value::socket_path);
    if let (Some(root), Some(socket)) = (&bpf_root, &socket)
        && socket.value.starts_with(&root.value)
    {
        let message = "the socket can't be in `daemon.bpf_root`, which is only for pinned maps";
        fields
            .report
            .error(socket.span, message)
            .note(root.span, "the pins' folder");
    }
    let words = [
        ("auto", LogTarget::Auto),
        ("journald", LogTarget::Journald),
        ("stderr", LogTarget::Stderr),
    ];
    let bpf_root = bpf_root.map_or_else(|| PathBuf::from(DEFAULT_BPF_ROOT), |path| path.value);
    let runtime_config = fields.parsed("runtime_config", value::path);
    Daemon {
        runtime_config: runtime_folder(&bpf_root, runtime_config.map(|path| path.value)),
        bpf_root,
        socket: socket.map_or_else(|| PathBuf::from("/run/dpd/dpd.sock"), |path| path.value),
        log: fields.word("log", &words, LogTarget::Auto),
        metrics: fields
            .parsed("metrics", value::listen_address)
            .map(|address| address.value),
        expedite_rcu: fields.switch("expedite_rcu", false),
    }
}

pub(super) fn host(root: &Table, report: &mut Report) -> HostSettings {
    let mut fields = Fields::section(root, "host", report);
    HostSettings {
        services: fields.switch("services", true),
    }
}

pub(super) fn policy(root: &Table, report: &mut Report) -> PolicySettings {
    let mut fields = Fields::section(root, "policy", report);
    let words = [
        ("default", EnforcementMode::Default),
        ("always", EnforcementMode::Always),
        ("never", EnforcementMode::Never),
    ];
    PolicySettings {
        enforcement: fields.word("enforcement", &words, EnforcementMode::Default),
        audit: fields.switch("audit", false),
        allow_host: fields.switch("allow_host", true),
    }
}

pub(super) fn conntrack(root: &Table, report: &mut Report) -> Conntrack {
    let mut fields = Fields::section(root, "conntrack", report);
    let size = fields.number("size", CONNECTIONS, 131_072);
    let mut lifetime = |key, seconds| fields.duration(key, &LIFETIME, Duration::from_secs(seconds));
    Conntrack {
        size,
        tcp: lifetime("tcp", 8000),
        tcp_syn: lifetime("tcp_syn", 60),
        tcp_close: lifetime("tcp_close", 10),
        udp: lifetime("udp", 30),
        udp_once: lifetime("udp_once", 5),
        icmp: lifetime("icmp", 30),
        per_endpoint: fields.optional_number("per_endpoint", 0..=size),
        strict: fields.switch("strict", false),
    }
}

pub(super) fn events(root: &Table, report: &mut Report) -> Events {
    let mut fields = Fields::section(root, "events", report);
    let levels = [
        ("none", Aggregation::None),
        ("low", Aggregation::Low),
        ("medium", Aggregation::Medium),
    ];
    let flows = [
        ("drops", JournalFlows::Drops),
        ("all", JournalFlows::All),
        ("off", JournalFlows::Off),
    ];
    Events {
        aggregation: fields.word("aggregation", &levels, Aggregation::Medium),
        interval: fields.duration("interval", &REPORT_INTERVAL, Duration::from_secs(5)),
        rate: fields.number("rate", EVENT_RATE, 10_000),
        journal: fields.word("journal", &flows, JournalFlows::Drops),
    }
}

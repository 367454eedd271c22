//! Which way the packets of workloads leave by an uplink: past the host's stack, or through it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::families::Families;

/// What the file wants of an uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardingMode {
    /// By the stack while that has something to do with forwarded packets, else directly.
    #[default]
    Auto,
    Direct,
    Stack,
}

impl ForwardingMode {
    pub const ALL: [ForwardingMode; 3] = [
        ForwardingMode::Auto,
        ForwardingMode::Direct,
        ForwardingMode::Stack,
    ];

    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            ForwardingMode::Auto => "auto",
            ForwardingMode::Direct => "direct",
            ForwardingMode::Stack => "stack",
        }
    }
}

/// The way that new connections take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    #[default]
    Direct,
    Stack,
}

impl Forwarding {
    pub fn name(self) -> &'static str {
        match self {
            Forwarding::Direct => "direct",
            Forwarding::Stack => "stack",
        }
    }
}

/// What the host's stack does with packets that it forwards, and what nothing does with packets past it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStack {
    /// In order, each once.
    pub filters: BTreeSet<StackFilter>,
    /// Frames between ports of a bridge pass the filters of IP, too (`net.bridge.bridge-nf-call-iptables`).
    pub filters_bridged: bool,
}

/// A chain or an XFRM policy. The first in order is the one that is named first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StackFilter {
    pub hook: StackHook,
    /// `nftables inet filter/forward`
    pub name: String,
    /// `has rules`
    pub why: &'static str,
    /// The families whose sources its rules may translate: it is a chain of NAT behind routing.
    pub translates: Families,
}

/// Where packets meet it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StackHook {
    Forward,
    /// Before or after routing.
    Routing,
    /// At an interface: its name, or the beginning of names with `*` after it.
    Interface(String),
    /// A transformation by IPsec.
    Xfrm,
    /// Between the ports of a bridge. It does not concern what leaves by an uplink.
    Bridge,
}

impl StackHook {
    /// Whether packets that the stack forwards from a workload to this uplink, or back, meet it.
    pub fn concerns(&self, uplink: &str) -> bool {
        match self {
            StackHook::Forward | StackHook::Routing | StackHook::Xfrm => true,
            StackHook::Interface(name) => match name.strip_suffix('*') {
                Some(beginning) => uplink.starts_with(beginning),
                None => uplink == name,
            },
            StackHook::Bridge => false,
        }
    }
}

impl fmt::Display for StackFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.why)
    }
}

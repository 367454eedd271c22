//! Which way the packets of workloads leave by an uplink: past the host's stack, or through it.

use serde::{Deserialize, Serialize};

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

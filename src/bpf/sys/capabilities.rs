//! The capabilities that dpd needs, and which of them this process lacks.

use rustix::thread::{CapabilitySet, capabilities};

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub capability: CapabilitySet,
    pub name: &'static str,
    pub purpose: &'static str,
}

/// Without one of these the daemon does not start.
pub const NEEDED: [Need; 3] = [
    Need {
        capability: CapabilitySet::BPF,
        name: "CAP_BPF",
        purpose: "to create maps and load programs",
    },
    Need {
        capability: CapabilitySet::PERFMON,
        name: "CAP_PERFMON",
        purpose: "for programs that compute addresses",
    },
    Need {
        capability: CapabilitySet::NET_ADMIN,
        name: "CAP_NET_ADMIN",
        purpose: "to load network programs and attach them to interfaces",
    },
];

/// Without one of these the daemon warns: it notices some changes late, or announces no addresses.
pub const OPTIONAL: [Need; 2] = [
    Need {
        capability: CapabilitySet::NET_BROADCAST,
        name: "CAP_NET_BROADCAST",
        purpose: "to get messages on links in the workloads' network namespaces",
    },
    Need {
        capability: CapabilitySet::NET_RAW,
        name: "CAP_NET_RAW",
        purpose: "to hear and announce addresses on uplinks with l2_announce",
    },
];

/// The needed ones that this thread does not have, and none if that is unknown.
pub fn missing() -> Vec<Need> {
    let Ok(sets) = capabilities(None) else {
        return Vec::new();
    };
    let lacks = |need: &Need| !sets.effective.contains(need.capability);
    NEEDED.into_iter().filter(lacks).collect()
}

/// What to do about an operation that the kernel does not permit.
pub fn remedy() -> String {
    let missing: Vec<String> = missing()
        .iter()
        .map(|need| format!("{} {}", need.name, need.purpose))
        .collect();
    match missing.is_empty() {
        false => format!(
            "dpd lacks {}: run it as root, or with the capabilities of its unit",
            missing.join(", and ")
        ),
        true => "dpd has the capabilities that it needs, so something else forbids it: a security module, seccomp, a \
                 container, or kernel lockdown (/sys/kernel/security/lockdown)"
            .to_owned(),
    }
}

//! The hooks, a row each: the table of `bpf/lib/mechanism/hook.h` with the programs' names. `tests/house` holds the two equal.

use crate::bpf::abi;
use crate::model::catalog::UplinkInfo;

/// Properties of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookRow {
    pub number: abi::hook,
    /// The name of its function, as `bpftool prog` shows it.
    pub program: &'static str,
    pub attach_point: AttachPoint,
    /// Of the interfaces that have it. `dpd_to_netdev` is that of both kinds of uplinks.
    pub role: Role,
    /// In events about packets that arrive.
    pub point: abi::point,
    /// Whose policy a packet meets first, seen from the workload.
    pub direction: abi::direction,
    /// Who sends what arrives.
    pub sender: abi::party,
    /// After parsing.
    pub first_step: abi::step,
    /// A delivered packet continues to the interface that it is at.
    pub passes_on: bool,
    /// A packet whose next step is missing passes.
    pub fails_open: bool,
}

/// Where in the kernel a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachPoint {
    Tc(TcSide),
    Xdp,
}

impl AttachPoint {
    /// As pins of links and listings name it.
    pub fn name(self) -> &'static str {
        match self {
            AttachPoint::Tc(side) => side.name(),
            AttachPoint::Xdp => "xdp",
        }
    }
}

/// The tc hooks of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcSide {
    Ingress,
    Egress,
}

impl TcSide {
    /// As tc names it.
    pub fn name(self) -> &'static str {
        match self {
            TcSide::Ingress => "ingress",
            TcSide::Egress => "egress",
        }
    }
}

/// What an interface is for, which decides what programs it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Endpoint,
    Uplink,
    /// An uplink without Ethernet headers.
    L3Uplink,
}

/// The hooks of tc; each has its row in [`HOOKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    FromContainer,
    ToContainer,
    FromNetdev,
    ToNetdev,
    FromL3dev,
}

const FROM_CONTAINER: HookRow = HookRow {
    number: abi::hook::HOOK_FROM_CONTAINER,
    program: "dpd_from_container",
    attach_point: AttachPoint::Tc(TcSide::Ingress),
    role: Role::Endpoint,
    point: abi::point::POINT_FROM_ENDPOINT,
    direction: abi::direction::DIRECTION_EGRESS,
    sender: abi::party::PARTY_ENDPOINT,
    first_step: abi::step::STEP_LB,
    passes_on: false,
    fails_open: false,
};

const TO_CONTAINER: HookRow = HookRow {
    number: abi::hook::HOOK_TO_CONTAINER,
    program: "dpd_to_container",
    attach_point: AttachPoint::Tc(TcSide::Egress),
    role: Role::Endpoint,
    point: abi::point::POINT_TO_ENDPOINT,
    direction: abi::direction::DIRECTION_INGRESS,
    sender: abi::party::PARTY_HOST,
    first_step: abi::step::STEP_CT,
    passes_on: true,
    fails_open: false,
};

const FROM_NETDEV: HookRow = HookRow {
    number: abi::hook::HOOK_FROM_NETDEV,
    program: "dpd_from_netdev",
    attach_point: AttachPoint::Tc(TcSide::Ingress),
    role: Role::Uplink,
    point: abi::point::POINT_FROM_NETWORK,
    direction: abi::direction::DIRECTION_INGRESS,
    sender: abi::party::PARTY_UPLINK,
    first_step: abi::step::STEP_CT,
    passes_on: false,
    fails_open: false,
};

const TO_NETDEV: HookRow = HookRow {
    number: abi::hook::HOOK_TO_NETDEV,
    program: "dpd_to_netdev",
    attach_point: AttachPoint::Tc(TcSide::Egress),
    role: Role::Uplink,
    point: abi::point::POINT_TO_NETWORK,
    direction: abi::direction::DIRECTION_EGRESS,
    sender: abi::party::PARTY_HOST,
    first_step: abi::step::STEP_CT,
    passes_on: true,
    fails_open: true,
};

const FROM_L3DEV: HookRow = HookRow {
    number: abi::hook::HOOK_FROM_L3DEV,
    program: "dpd_from_l3dev",
    role: Role::L3Uplink,
    ..FROM_NETDEV
};

/// XDP of an uplink.
pub const XDP_ENTRY: HookRow = HookRow {
    number: abi::hook::HOOK_XDP_ENTRY,
    program: "dpd_xdp_entry",
    attach_point: AttachPoint::Xdp,
    role: Role::Uplink,
    point: abi::point::POINT_XDP,
    direction: abi::direction::DIRECTION_INGRESS,
    sender: abi::party::PARTY_UPLINK,
    first_step: abi::step::STEP_CT,
    passes_on: false,
    fails_open: true,
};

/// Every hook.
pub const HOOKS: [HookRow; 6] = [
    FROM_CONTAINER,
    TO_CONTAINER,
    FROM_NETDEV,
    TO_NETDEV,
    XDP_ENTRY,
    FROM_L3DEV,
];

impl Hook {
    pub const ALL: [Hook; 5] = [
        Hook::FromContainer,
        Hook::ToContainer,
        Hook::FromNetdev,
        Hook::ToNetdev,
        Hook::FromL3dev,
    ];

    pub fn row(self) -> &'static HookRow {
        match self {
            Hook::FromContainer => &FROM_CONTAINER,
            Hook::ToContainer => &TO_CONTAINER,
            Hook::FromNetdev => &FROM_NETDEV,
            Hook::ToNetdev => &TO_NETDEV,
            Hook::FromL3dev => &FROM_L3DEV,
        }
    }

    /// The name of its program.
    pub fn name(self) -> &'static str {
        self.row().program
    }

    pub fn side(self) -> TcSide {
        match self.row().attach_point {
            AttachPoint::Tc(side) => side,
            AttachPoint::Xdp => TcSide::Ingress, // no row of a tc hook
        }
    }
}

impl Role {
    pub fn of_uplink(uplink: &UplinkInfo) -> Role {
        match uplink.is_ethernet {
            true => Role::Uplink,
            false => Role::L3Uplink,
        }
    }

    /// One for each tc hook of an interface.
    pub fn hooks(self) -> [Hook; 2] {
        match self {
            Role::Endpoint => [Hook::FromContainer, Hook::ToContainer],
            Role::Uplink => [Hook::FromNetdev, Hook::ToNetdev],
            Role::L3Uplink => [Hook::FromL3dev, Hook::ToNetdev],
        }
    }
}

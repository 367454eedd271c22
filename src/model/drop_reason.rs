//! The sentences of drop reasons. The numbers are those of `enum reason` in `bpf/abi.h`.

/// No rule allows it.
pub const POLICY: u8 = 133;
/// A rule denies it.
pub const POLICY_DENY: u8 = 181;

/// (number, name in words), Cilium's numbers where it has one (`api/v1/flow/flow.proto`), ours from 220.
pub const REASONS: &[(u8, &str)] = &[
    (132, "invalid source"),
    (POLICY, "policy denied"),
    (134, "invalid packet"),
    (137, "unknown L4 protocol"),
    (139, "unsupported L3 protocol"),
    (140, "missed tail call"),
    (155, "conntrack insertion failed"),
    (157, "fragment not supported"),
    (158, "no backend"),
    (166, "unsupported L2 protocol"),
    (169, "no route"),
    (175, "fragment without first"),
    (177, "outside the source range"),
    (POLICY_DENY, "policy denied"),
    (196, "TTL exceeded"),
    (198, "rate limited"),
    (220, "no service on this address"),
    (221, "prefilter"),
    (222, "not started"),
    (223, "encapsulation or VLAN from a workload"),
    (224, "tuple collision"),
    (225, "too many connections of this endpoint"),
    (226, "multicast or broadcast"),
    (227, "too big for the route"),
];

/// The words for a reason's number.
pub fn words(number: u8) -> &'static str {
    REASONS
        .iter()
        .find(|(known, _)| *known == number)
        .map_or("unknown reason", |(_, words)| words)
}

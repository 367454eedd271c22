//! Drop reasons in words. The numbers are those of `enum reason` in `bpf/abi.h`.

/// No rule allows it.
pub const POLICY: u8 = 133;
/// A rule denies it.
pub const POLICY_DENY: u8 = 181;

/// (number, words), Cilium's numbers where it has one (`api/v1/flow/flow.proto`), ours from 220.
pub const REASONS: &[(u8, &str)] = &[
    (132, "invalid source"),
    (POLICY, "policy denied: no rule"),
    (134, "invalid packet"),
    (136, "fragmentation needed"),
    (139, "unsupported L3 protocol"),
    (140, "missed tail call"),
    (155, "conntrack insertion failed"),
    (156, "invalid IPv6 extension header"),
    (158, "no backend"),
    (165, "no configuration"),
    (166, "unsupported L2 protocol"),
    (167, "no free source port for SNAT"),
    (168, "unsupported protocol for SNAT"),
    (169, "no route"),
    (170, "encapsulation"),
    (175, "first fragment not found"),
    (177, "source range"),
    (POLICY_DENY, "policy denied: deny rule"),
    (182, "VLAN"),
    (196, "TTL exceeded"),
    (198, "rate limited"),
    (220, "no service on this address"),
    (221, "prefilter"),
    (222, "TCP without SYN"),
    (224, "no free source port"),
    (225, "connection limit"),
    (226, "multicast or broadcast"),
    (228, "reverse path or martian"),
    (229, "source route"),
    (230, "neighbour failed"),
    (231, "unrelated ICMP"),
    (232, "SNAT address gone"),
];

/// The words for a reason's number.
pub fn words(number: u8) -> &'static str {
    REASONS
        .iter()
        .find(|(known, _)| *known == number)
        .map_or("unknown reason", |(_, words)| words)
}

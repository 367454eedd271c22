//! What no packet may bring about, whatever was before it: see `world::CONFIG` for who may reach whom.

use std::net::IpAddr;

use dpd::bpf::state::events::Event;
use dpd::model::flow::Verdict::Dropped;

use super::counts;
use super::frame::{self, Network};
use super::input::{At, Step, Via};
use super::outcome::Outcome;
use super::world::{
    self, CLIENT, DNS, DNS_PORT, ENDPOINTS, FRONTENDS, HOST, NOTIFY_PORT, is_one_of, owner,
};
use crate::common::packet::{ethertype, protocol, verify};
use crate::common::runner::{Verdict, workload_mac};

/// Panics if the packet did what it may not.
pub fn check(outcome: &Outcome) {
    let checks = [
        counts::check,
        check_prefilter,
        check_source,
        check_policy,
        check_passed,
        check_bytes,
    ];
    for check in checks {
        if let Err(problem) = check(outcome) {
            panic!("{problem}\n{outcome}");
        }
    }
}

/// Whether the host's stack would send it: it forwards nothing from a source that names no single sender, or one of its link.
pub fn is_possible(step: &Step, frame: &[u8]) -> bool {
    let Some(network) = frame::network(frame).filter(|_| step.at == At::ToContainer) else {
        return true;
    };
    names_sender(network.src) || network.is_discovery(frame) || is_to_many(network.dst)
}

/// What a prefix of the prefilter sends is dropped by XDP, and nothing else is.
fn check_prefilter(outcome: &Outcome) -> Result<(), String> {
    if outcome.step.at != At::Xdp {
        return Ok(());
    }
    let network = frame::network(&outcome.frame);
    let is_denied = network.is_some_and(|it| it.is_consistent && world::is_denied(it.src));
    match (is_denied, outcome.verdict) {
        (true, Verdict::Drop) | (false, Verdict::Pass) => Ok(()),
        (true, _) => Err("XDP passes a denied source".to_owned()),
        (false, _) => Err("XDP drops what no prefix denies".to_owned()),
    }
}

/// The workload that the packet reaches, if one does: by its counters, by its addresses, or by the hook that it passes.
fn delivered_to(outcome: &Outcome) -> Option<usize> {
    if let Some(receiver) = outcome.counted.iter().position(|row| row.received > 0) {
        return Some(receiver);
    }
    let arrived_at =
        |endpoint| outcome.step.at == At::FromContainer && outcome.step.endpoint == endpoint;
    match outcome.verdict {
        Verdict::Pass if outcome.step.at == At::ToContainer => Some(outcome.step.endpoint),
        Verdict::Redirect => {
            // Responses go back to where the packet came from.
            let mac = ENDPOINTS
                .iter()
                .position(|endpoint| outcome.left.starts_with(&workload_mac(endpoint.interface)));
            let address = frame::network(&outcome.left).and_then(|network| owner(network.dst));
            mac.or(address).filter(|endpoint| !arrived_at(*endpoint))
        }
        _ => None,
    }
}

/// No packet with a source that is not its sender's goes anywhere.
fn check_source(outcome: &Outcome) -> Result<(), String> {
    let Some(network) = frame::network(&outcome.frame) else {
        return Ok(());
    };
    let is_redirected = outcome.verdict == Verdict::Redirect;
    let is_own = match outcome.step.at {
        At::FromContainer => {
            !(is_redirected || has_connection(outcome))
                || owner(network.src) == Some(outcome.step.endpoint)
                || (network.is_solicitation(&outcome.frame) && is_link_local(network.src))
        }
        At::FromNetdev => !is_redirected || may_come_from_network(network.src),
        At::ToContainer => {
            delivered_to(outcome).is_none()
                || is_exempt_from_host(outcome, &network)
                || owner(network.src).is_none_or(|sender| outcome.step.via == Via::Endpoint(sender))
        }
        At::ToNetdev | At::Xdp => true,
    };
    match is_own {
        true => Ok(()),
        false => Err(format!("a packet from {} is believed", network.src)),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_to_many(address: IpAddr) -> bool {
    address.is_multicast() || is_one_of(address, &["255.255.255.255"])
}

/// Whether a router forwards packets from it. IPv4's link-local addresses are, as by the kernel.
fn names_sender(source: IpAddr) -> bool {
    let is_of_link = source.is_ipv6() && is_link_local(source);
    !(is_to_many(source) || source.is_unspecified() || is_of_link)
}

fn may_come_from_network(source: IpAddr) -> bool {
    let is_ours =
        owner(source).is_some() || is_one_of(source, &HOST) || is_one_of(source, &FRONTENDS);
    names_sender(source) && !source.is_loopback() && !is_ours
}

/// What the host's stack needs on the link, and what a hook has sent by way of it.
fn is_exempt_from_host(outcome: &Outcome, network: &Network) -> bool {
    let is_host =
        is_one_of(network.src, &HOST) || is_link_local(network.src) || network.src.is_unspecified();
    outcome.step.is_judged()
        || network.is_discovery(&outcome.frame)
        || (is_to_many(network.dst) && is_host)
}

/// Nothing reaches `DNS` but what its policy allows.
fn check_policy(outcome: &Outcome) -> Result<(), String> {
    if delivered_to(outcome) != Some(DNS) {
        return Ok(());
    }
    let is_allowed = match outcome.step.at {
        At::FromContainer => match outcome.step.endpoint {
            CLIENT => is_allowed_client(outcome),
            sender => sender == DNS, // to itself, through its service
        },
        At::ToContainer => match outcome.step.via {
            Via::Endpoint(DNS) => true,
            Via::Endpoint(CLIENT) if is_allowed_client(outcome) => true,
            _ => is_allowed_host(outcome),
        },
        At::FromNetdev | At::ToNetdev | At::Xdp => false,
    };
    match is_allowed {
        true => Ok(()),
        false => Err("it reaches the protected workload".to_owned()),
    }
}

/// As the packet was delivered: a question, an answer to what `DNS` sent, an error about either; or the rest of a datagram,
/// whose ports are those of its first fragment.
fn is_allowed_client(outcome: &Outcome) -> bool {
    let Some(network) = frame::network(&outcome.left) else {
        return false;
    };
    let Some((source, destination)) = network.ports(&outcome.left) else {
        return network.is_icmp_error(&outcome.left) || network.is_later_fragment;
    };
    match network.protocol {
        protocol::TCP => destination == DNS_PORT,
        protocol::UDP => destination == DNS_PORT || source == NOTIFY_PORT,
        _ => false,
    }
}

/// The host itself may, and what is no IP is between it and the link.
fn is_allowed_host(outcome: &Outcome) -> bool {
    let kind = outcome
        .frame
        .get(12..14)
        .map(|two| u16::from_be_bytes([two[0], two[1]]));
    let is_ip = matches!(kind, Some(ethertype::IPV4 | ethertype::IPV6));
    let Some(network) = frame::network(&outcome.frame) else {
        return !is_ip;
    };
    let has_hosts_address = is_one_of(network.src, &HOST) || network.src.is_loopback();
    // Only the host itself opens connections to it; packets of such a connection pass, forwarded ones too.
    let is_hosts_own = has_hosts_address && (outcome.step.via == Via::Itself || !outcome.opens);
    !is_ip
        || is_exempt_from_host(outcome, &network)
        || is_hosts_own
        || network.is_icmp_error(&outcome.frame)
}

/// Whether it goes on as part of a connection: every such packet is reported.
fn has_connection(outcome: &Outcome) -> bool {
    // The reports of protocol 0 name no state.
    let has_state = |event: &Event| event.ct_state.is_some() || event.protocol == 0;
    let mut events = outcome.events.iter();
    events.any(|event| event.verdict != Dropped && has_state(event))
}

/// What a workload sends past policy, to the host's stack, ends there or on the link.
fn check_passed(outcome: &Outcome) -> Result<(), String> {
    let is_passed = outcome.step.at == At::FromContainer
        && outcome.verdict == Verdict::Pass
        && !has_connection(outcome);
    if !is_passed {
        return Ok(());
    }
    let is_arp = frame::ethernet(&outcome.frame).is_some_and(|(kind, _)| kind == ethertype::ARP);
    let network = frame::network(&outcome.frame);
    let is_needed = network.is_some_and(|network| {
        let is_to_link =
            is_to_many(network.dst) || is_link_local(network.dst) || is_one_of(network.dst, &HOST);
        // The kernel forwards nothing from nowhere.
        let stays = is_to_link || network.src.is_unspecified();
        stays && network.is_of_link(&outcome.frame)
    });
    match is_arp || is_needed {
        true => Ok(()),
        false => Err("it passes to the host's stack without a connection".to_owned()),
    }
}

/// A packet whose lengths and checksums are right is so when it leaves, too.
fn check_bytes(outcome: &Outcome) -> Result<(), String> {
    let is_plain = outcome.step.merged.is_none()
        && frame::ethernet(&outcome.frame).is_some_and(|(_, at)| at == 14);
    if outcome.verdict == Verdict::Drop || !is_plain || verify(&outcome.frame).is_err() {
        return Ok(());
    }
    verify(&outcome.left).map_err(|problem| format!("what was right leaves wrong: {problem}"))
}

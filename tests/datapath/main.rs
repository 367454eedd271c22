//! The real programs under test runs: packets built here, verdicts and bytes expected to the last one, in both
//! families. Each file is a feature; a row is a sentence, a hook, a packet and its answer.

#[path = "../common/mod.rs"]
mod common;

mod balanced;
mod l3;
mod lab;
mod random;
mod walk;

mod affinity;
mod announce;
mod atomic;
mod conntrack;
mod delivery;
mod draining;
mod event;
mod external;
mod fault;
mod forged;
mod fragment;
mod from_network;
mod hairpin;
mod host_errors;
mod icmp;
mod impact;
mod link;
mod link_local;
mod maglev;
mod masquerade;
mod multicast;
mod neighbour;
mod oracle;
mod parse;
mod policy;
mod prefilter;
mod refused;
mod reverse_path;
mod service;
mod unmanaged;
mod uplink;
mod verifier;
mod via_stack;
mod vlan;

//! Attacks from each seat: a workload, the network, a process of the host. Real servers receive what passes, and frames are
//! forged at the attacker's own interface. docs/security.md says what must hold.

mod flood;
mod fragments;
mod gone_backend;
mod icmp_error;
mod mark;
mod masquerade;
mod neighbours;
mod reset;
mod seat;
mod service;
mod source_route;
mod talk;
mod tightened;
mod vlan;

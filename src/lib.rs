//! dpd: a Cilium-style eBPF datapath for bare-metal Linux hosts, from one file.
//!
//! The layers, from the bottom: `model` (plain data), `config` and `plan` (pure), `bpf` and `net` (the kernel),
//! `reconcile` (makes the kernel equal to the plan), `daemon` and `cli`.

pub mod bpf;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod host_sockets;
pub mod http;
pub mod journal;
mod listener;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod net;
pub mod observe;
pub mod parallel;
pub mod plan;
pub mod process;
pub mod reconcile;
pub mod systemd;
pub mod watch;
pub mod worker;

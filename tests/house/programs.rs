//! The programs in the kernel: what the verifier has to do with each, and that no workload costs one.
//!
//! Needs root: they are loaded in a network namespace and a bpffs of the test's own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dpd::bpf::attach::hook::Hook;
use dpd::bpf::attach::hook::Role;
use dpd::bpf::attach::socket::SOCKET_HOOKS;
use dpd::bpf::load::chain::CHAIN;
use dpd::bpf::reader::Reader;
use dpd::bpf::sys::pins::{self, Pins};
use dpd::config::Config;
use dpd::model::status::ProgramStatus;
use dpd::reconcile::Reconciler;
use rustix::thread::LinkNameSpaceType;

use super::common::namespace::Namespace;
use super::common::programs::own_bpffs;

/// What the kernel's verifier is willing to go through for one program (BPF_COMPLEXITY_LIMIT_INSNS).
const LIMIT: u32 = 1_000_000;

/// Instructions that the verifier may go through for a program. Kernels differ by a fifth or so; one more path through
/// a step doubles it, and that is what is to be seen.
const BUDGET: u32 = 30_000;

/// Those that need more, with the reason.
const BUDGETS: [(&str, u32, &str); 6] = [
    (
        "dpd_from_container",
        60_000,
        "the established path stands in it whole, for each table that the connection may lie in",
    ),
    ("dpd_from_netdev", 60_000, "the same"),
    ("dpd_from_l3dev", 60_000, "the same"),
    (
        "tail_ct",
        50_000,
        "backends and ports are tried in loops, each with lookups",
    ),
    (
        "tail_deliver",
        50_000,
        "to a workload, over an uplink or up the stack, each rewritten in both families",
    ),
    (
        "tail_icmp_error",
        50_000,
        "the same, and the packet that the error quotes",
    ),
];

fn budget(name: &str) -> u32 {
    let known = BUDGETS.iter().find(|(known, ..)| *known == name);
    known.map_or(BUDGET, |(_, budget, _)| *budget)
}

#[test]
fn the_verifier_is_done_with_each_program_within_its_budget() {
    let programs = on_a_node(0, |node| node.programs());
    let mut table = format!(
        "{:24} {:>9} {:>9} {:>9}\n",
        "PROGRAM", "VERIFIED", "BUDGET", "LIMIT"
    );
    for program in &programs {
        let (name, count) = (&program.name, program.verified_instructions);
        let _ = writeln!(table, "{name:24} {count:>9} {:>9} {LIMIT:>9}", budget(name));
    }
    println!("{table}");
    assert_eq!(
        programs.len(),
        CHAIN.len() + Hook::ALL.len() + 1 + SOCKET_HOOKS.len(),
        "the chain, the tc hooks, XDP and the hooks of sockets are loaded:\n{table}"
    );
    for program in &programs {
        let (name, count) = (&program.name, program.verified_instructions);
        assert!(count > 0, "the kernel counts {name}:\n{table}");
        assert!(count <= budget(name), "{name} is over its budget:\n{table}");
        assert!(
            program.jited_bytes > 0,
            "{name} is compiled to machine code:\n{table}"
        );
    }
}

#[test]
fn fifty_workloads_have_the_programs_and_maps_of_one() {
    let counts = on_a_node(50, |node| {
        let mut seen = Vec::new();
        for workloads in [1, 50, 2] {
            node.apply(workloads);
            let reader = node.reader();
            let attachments = reader.attachments().expect("look at the hooks");
            assert_eq!(
                attachments.len(),
                workloads * Role::Endpoint.hooks().len(),
                "every hook has its program"
            );
            let maps = reader.maps().expect("look at the maps");
            let ids: BTreeMap<String, u32> = node
                .programs()
                .into_iter()
                .map(|program| (program.name, program.id))
                .collect();
            let loads = Pins::numbers(&node.pins.loads());
            let pinned = pins::names(&node.pins.load(loads[0]));
            seen.push((workloads, ids, loads, pinned, maps.len()));
        }
        seen
    });
    for (workloads, ids, loads, pinned, maps) in &counts {
        let (_, first_ids, first_loads, first_pinned, first_maps) = &counts[0];
        assert_eq!(ids, first_ids, "the programs with {workloads} workloads");
        assert_eq!(loads, first_loads, "the loads with {workloads} workloads");
        assert_eq!(
            pinned, first_pinned,
            "what a load holds with {workloads} workloads"
        );
        assert_eq!(maps, first_maps, "the maps with {workloads} workloads");
    }
}

/// A node with its datapath, on a thread that has the namespaces.
struct Node {
    pins: Pins,
    folder: tempfile::TempDir,
    reconciler: Reconciler,
}

/// Runs `look` on a node that has so many interfaces for workloads, none of them in its configuration yet.
fn on_a_node<R: Send + 'static>(
    interfaces: usize,
    look: impl FnOnce(&mut Node) -> R + Send + 'static,
) -> R {
    let namespace = Namespace::new();
    for number in 0..interfaces {
        namespace.ip(&format!(
            "link add lxc{number} type veth peer name workload{number}"
        ));
    }
    let network = namespace.handle();
    let thread = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )
        .expect("enter the network namespace");
        let mut node = Node::new(&own_bpffs());
        look(&mut node)
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Node {
    fn new(bpf_root: &Path) -> Node {
        let folder = tempfile::tempdir().expect("make a folder for the configuration");
        let config = config(folder.path(), bpf_root, 0);
        Node {
            pins: Pins::new(bpf_root),
            folder,
            reconciler: Reconciler::start(&config).expect("load the programs"),
        }
    }

    fn apply(&mut self, workloads: usize) {
        let config = config(self.folder.path(), self.pins.root(), workloads);
        let world = dpd::net::snapshot().expect("look at the interfaces");
        let applied = self.reconciler.apply(&config, &world, |_, _| {});
        applied.expect("apply the configuration");
    }

    fn reader(&self) -> Reader {
        Reader::open(self.pins.root()).expect("read the datapath")
    }

    fn programs(&self) -> Vec<ProgramStatus> {
        self.reader().programs().expect("look at the programs")
    }
}

/// A configuration of so many workloads.
fn config(folder: &Path, bpf_root: &Path, workloads: usize) -> Arc<Config> {
    let mut text = format!(
        "[daemon]\nbpf_root = \"{}\"\nsocket = \"{}/dpd.sock\"\n[host]\nservices = false\n[conntrack]\nsize = 1024\n[identities.app]\nid = 20001\n",
        bpf_root.display(),
        folder.display()
    );
    for number in 0..workloads {
        let _ = write!(
            text,
            "[interfaces.lxc{number}]\nrole = \"endpoint\"\naddresses = [\"10.200.0.{}\"]\nidentity = \"app\"\n",
            number + 1
        );
    }
    let path = folder.join("config.toml");
    fs::write(&path, text).expect("write the configuration");
    let loaded = dpd::config::load(&path);
    loaded
        .unwrap_or_else(|problems| panic!("the test's configuration is wrong:\n{problems}"))
        .config
}

//! What the network sends to a workload and to a server on another host, and what a workload sends to the network: plain routing,
//! nftables with DNAT and masquerade, dpd with external services and masquerade, and HAProxy in TCP mode, in turn.
//!
//! `cargo bench --bench external -- far udp dpd` runs what it names alone: `here`, `far`, `out`; `udp`, `tcp`, `connect`, `bulk`;
//! and what forwards, by its name.

#[path = "../tests/common/mod.rs"]
mod common;
mod compare;
mod lab;
mod load;
mod north_south;

use compare::{CORE, Chosen, Compared, Side, bulk, turns};
use lab::port;
use load::Servers;
use north_south::{Forwarder, NorthSouthLab, Way};

/// What is measured, by its name on the command line.
const JOBS: [&str; 4] = ["udp", "tcp", "connect", "bulk"];

fn main() {
    lab::need_root();
    lab::need_programs(&["nft", "iperf3"]);
    let _cgroup = lab::own_bpffs();
    lab::warn_if_busy();
    let chosen = Chosen::new();
    let labs: Vec<NorthSouthLab> = forwarders(&chosen)
        .into_iter()
        .map(NorthSouthLab::new)
        .collect();
    let _servers: Vec<Servers> = labs.iter().flat_map(serve).collect();
    compare::print_head(labs.iter().map(|lab| lab.forwarder));
    for way in Way::ALL {
        if !chosen.has(way.name(), &Way::ALL.map(Way::name)) {
            continue;
        }
        println!("{}", title(way));
        for job in JOBS {
            if chosen.has(job, &JOBS) {
                measure(&labs, way, job);
            }
        }
    }
}

/// Those that are chosen and can run here.
fn forwarders(chosen: &Chosen) -> Vec<Forwarder> {
    let names = Forwarder::ALL.map(Forwarder::name);
    let can_run = |forwarder: &Forwarder| {
        let can_run = *forwarder != Forwarder::Haproxy || lab::has_program("haproxy");
        if !can_run {
            println!("NOTE: haproxy is missing here, and so are its figures");
        }
        can_run
    };
    let forwarders = Forwarder::ALL.into_iter();
    forwarders
        .filter(|forwarder| chosen.has(forwarder.name(), &names))
        .filter(can_run)
        .collect()
}

fn title(way: Way) -> &'static str {
    match way {
        Way::Here => "from the network to a workload here",
        Way::Far => "from the network to a server on another host, by SNAT",
        Way::Out => "from a workload to the network, masqueraded",
    }
}

fn serve(lab: &NorthSouthLab) -> Vec<Servers> {
    let serve = |(place, address): (&common::namespace::Namespace, &str)| {
        place.run(|| Servers::start(lab::at(address, port::ECHO), CORE))
    };
    lab.servers().into_iter().map(serve).collect()
}

/// HAProxy has no UDP, and is no way out.
fn measure(labs: &[NorthSouthLab], way: Way, job: &str) {
    let has_haproxy = way != Way::Out && job != "udp";
    let sides: Vec<Side<Forwarder>> = labs
        .iter()
        .filter(|lab| has_haproxy || lab.forwarder != Forwarder::Haproxy)
        .map(|lab| lab.side(way))
        .collect();
    match job {
        "udp" => turns(&sides, "UDP round trips", load::udp_ping_pong),
        "tcp" => turns(&sides, "TCP round trips", load::tcp_ping_pong),
        "connect" => turns(&sides, "TCP connect, request, close", load::tcp_connect),
        _ => bulk(&sides),
    }
}

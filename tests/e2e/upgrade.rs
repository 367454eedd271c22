//! Daemons of two versions are started, stopped and killed at any time: traffic is not affected.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dpd::bpf::attach;
use dpd::bpf::image::ProgramImage;
use dpd::bpf::sys::pins::{self, Pins};
use dpd::reconcile::Reconciler;
use libbpf_rs::Link;
use serde_json::Value;

use crate::common::image::other;
use crate::lab::{NetnsLab, eventually};
use crate::load::{ECHO, under_load};
use crate::web;

/// A daemon of another layout: it makes the datapath match the file, and is gone. Earlier versions are refused, so it has our
/// number.
fn previous_daemon(lab: &NetnsLab, release: ProgramImage<'static>) {
    let config = dpd::config::load(&lab.config())
        .expect("a good file")
        .config;
    lab.within_host(|| {
        let mut previous = Reconciler::start_as(&config, attach::probe(), release).expect("start");
        previous.serve_host_sockets();
        let world = dpd::net::snapshot().expect("look at the interfaces");
        previous
            .apply(&config, &world, |_, _| {})
            .expect("apply the configuration");
    });
}

/// The links of all that is pinned: name, and the id that is the link's own.
fn links(lab: &NetnsLab) -> Vec<(String, u32)> {
    let all = Pins::all(&lab.bpf_root());
    let [pins] = &all[..] else {
        panic!("one datapath is pinned: {all:?}");
    };
    let names = pins::names(&pins.links()).into_iter();
    let names = names.filter(|name| pins.links().join(name).is_file());
    names
        .map(|name| {
            let link = Link::open(pins.links().join(&name)).expect("open a link");
            let id = link.info().expect("read a link's info").id;
            (name, id)
        })
        .collect()
}

/// Nothing is left over: one datapath of this version, with one load of the programs and one generation.
fn assert_tidy(lab: &NetnsLab) {
    let pins = Pins::new(&lab.bpf_root());
    assert_eq!(pins::names(&lab.bpf_root()), [pins.name()]);
    let [loads, generations] =
        [pins.loads(), pins.generations()].map(|folder| Pins::numbers(&folder));
    assert_eq!(
        (loads.len(), generations.len()),
        (1, 1),
        "{loads:?}, {generations:?}"
    );
    let attached = lab.attached().len() + lab.sockets();
    assert_eq!(
        lab.hooked(&lab.programs()),
        attached,
        "each program is attached once"
    );
}

/// The connection from this port of the client.
fn connection(lab: &NetnsLab, port: u16) -> Value {
    let connections = lab.json("ct list");
    let rows = connections.as_array().expect("an array");
    let row = rows.iter().find(|row| row["src_port"] == port);
    row.unwrap_or_else(|| panic!("no connection from port {port}: {connections}"))
        .clone()
}

fn packets(connection: &Value) -> u64 {
    connection["packets"].as_u64().expect("packets")
}

#[test]
fn traffic_is_not_affected_by_an_upgrade_a_crash_or_a_restart() {
    let lab = NetnsLab::laid();
    lab.drop_in("echo", ECHO);
    previous_daemon(&lab, other(ProgramImage::own().version));
    web::serve(&lab);
    lab.serve("coredns", "iperf3 -s -p 5201", 5201);
    let before = links(&lab);
    let wrong = under_load(&lab, |load| {
        lab.start();
        load.goes_on("after the upgrade");
        assert_eq!(links(&lab), before, "links are updated in place");
        assert_tidy(&lab);
        let first = connection(&lab, load.stream);
        assert!(
            packets(&first) > 5,
            "what the previous one counted is kept: {first}"
        );
        let services = lab.services();

        lab.kill();
        load.goes_on("after SIGKILL");
        lab.start();
        load.goes_on("after the takeover");
        lab.stop();
        load.goes_on("after SIGTERM");

        // Changes without a daemon are applied by the next start in one step.
        let revision = lab.revision();
        lab.drop_in(
            "more",
            "[identities.later]\nid = 20099\n[conntrack]\nsize = 65536\n",
        );
        lab.start();
        load.goes_on("at the end");
        assert_eq!(lab.revision(), revision + 1, "one step");
        assert!(lab.dpd("identity list").contains("later"));
        assert_eq!(links(&lab), before, "the links are the same");
        assert_tidy(&lab);
        assert_eq!(lab.services(), services, "numbers keep their meaning");
        let last = connection(&lab, load.stream);
        assert_eq!(last["dnat_ip"], first["dnat_ip"], "it has the same backend");
        assert!(
            packets(&last) > packets(&first),
            "and is the same: {first}, {last}"
        );
        let age = |row: &Value| row["age_seconds"].as_f64().expect("an age");
        assert!(age(&last) > age(&first), "{first}, {last}");
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_daemon_that_is_killed_at_any_time_of_its_start_leaves_nothing_behind() {
    const KILLS: u32 = 12;
    let lab = NetnsLab::laid();
    previous_daemon(&lab, other(ProgramImage::own().version));
    let before = links(&lab);
    let started = Instant::now();
    lab.start();
    let span = started.elapsed();
    lab.stop();
    for round in 0..KILLS {
        // Both kinds of change: another conntrack.size migrates the maps, another identity changes the configuration.
        let (size, id) = (4096 << (round % 3), 20100 + round);
        let text = format!("[identities.later]\nid = {id}\n[conntrack]\nsize = {size}\n");
        lab.drop_in("more", &text);
        kill_after(&lab, span * round / KILLS);
        lab.dig("client", "10.32.0.10")
            .unwrap_or_else(|error| panic!("killed in round {round}: {error}"));
    }
    lab.start();
    lab.dig("client", "10.32.0.10")
        .expect("the next start succeeds");
    assert_eq!(links(&lab), before, "the links are the initial ones");
    assert_tidy(&lab);
    assert!(
        lab.dpd("identity list").contains("20111"),
        "the file is applied"
    );
}

/// Starts a daemon and kills it after this time.
fn kill_after(lab: &NetnsLab, time: Duration) {
    let mut daemon = lab.command("node", env!("CARGO_BIN_EXE_dpd"));
    let daemon = daemon
        .arg("run")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut daemon = daemon.spawn().expect("start dpd");
    let started = Instant::now();
    let _: () = eventually("the moment to kill it", || {
        (started.elapsed() >= time).then_some(()).ok_or(())
    });
    daemon.kill().expect("kill dpd");
    daemon.wait().expect("wait for dpd");
}

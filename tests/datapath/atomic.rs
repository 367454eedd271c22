//! One configuration, one moment: packets on every CPU while two configurations take turns as fast as they can. In the
//! one a service leads to one backend, in the other to another; whom policy allows, the numbers of identities and the
//! prefixes that they stand for change in step, so that a packet that saw a mixture would be dropped or go elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dpd::bpf::attach::hook::Hook;

use crate::common::packet::{self, Packet, summary};
use crate::common::programs::Bench;
use crate::common::runner::{Node, Verdict, host_mac, workload_mac};
use crate::lab::*;

const UPLINK: &str = "ens5";

/// Checked packets; `DPD_TEST_PACKETS` asks for another number.
const PACKETS: usize = 500_000;
/// The client's ports, one after the other: more than the tables of connections hold.
const PORTS: u16 = 2048;

/// The one configuration or the other.
fn configuration(number: usize) -> String {
    // What the lab's configuration says, and each of the two.
    let changes = [
        (
            "client = { id = 20001",
            ["client = { id = 20001", "client = { id = 20003"],
        ),
        (
            "web = { id = 20003",
            ["web = { id = 20003", "web = { id = 20001"],
        ),
        (WEB_IS_WEB, [WEB_IS_WEB, WEB_IS_SPARE]),
        (WEB_2_IS_WEB, [WEB_2_IS_SPARE, WEB_2_IS_WEB]),
        (FIRST_BACKENDS, [FIRST_BACKENDS, SECOND_BACKENDS]),
        (
            "\n[conntrack]",
            [
                "\n[conntrack]\nper_endpoint = 0\nstrict = false",
                SECOND_REST,
            ],
        ),
    ];
    let mut config = CONFIG.to_owned();
    for (from, to) in changes {
        config = changed(&config, from, to[number]);
    }
    let port = [8080, 9090][number];
    let far = [30001, 30002][number];
    let denied = ["203.0.113.0/24", "203.0.113.0/25"][number];
    config
        + &format!(
            r#"
[interfaces.ens5]
role = "uplink"

[identities.spare]
id = 20004

[identities.far]
id = {far}
cidrs = ["198.51.100.0/24", "2001:db8:ffff::/48"]

[policies.web]
subject = "web"
ingress = [{{ from = ["client"], ports = ["{port}/udp", "{port}/tcp"] }}]

[policies.spare]
subject = "spare"
ingress = []

[policies.dns-from-afar]
subject = "kube-dns"
ingress = [{{ from = ["far"], ports = ["53/udp"] }}]

[prefilter.abusers]
deny = ["{denied}"]
"#
        )
}

const WEB_IS_WEB: &str = "\"fd00:200::45\"]\nidentity = \"web\"";
const WEB_IS_SPARE: &str = "\"fd00:200::45\"]\nidentity = \"spare\"";
const WEB_2_IS_WEB: &str = "\"fd00:200::46\"]\nidentity = \"web\"";
const WEB_2_IS_SPARE: &str = "\"fd00:200::46\"]\nidentity = \"spare\"";

const FIRST_BACKENDS: &str = r#""[fd00:32::20]:80/tcp"]
backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]"#;
const SECOND_BACKENDS: &str = r#""[fd00:32::20]:80/tcp"]
backends = ["10.200.0.46:9090", "[fd00:200::46]:9090"]"#;

/// A service that moves the others' places in the table of backends, and a setting.
const SECOND_REST: &str = r#"
[services.before]
frontends = ["10.32.0.50:1/udp"]
backends = ["10.200.0.44:1", "10.200.0.44:2"]

[conntrack]
per_endpoint = 0
strict = true"#;

/// What is to become of a packet under each of the two configurations.
struct Row {
    says: &'static str,
    hook: Option<Hook>,
    interface: &'static str,
    frame: Vec<u8>,
    expect: [Expect; 2],
    /// What may come instead, if it belongs to a connection from before: its backend is gone.
    reset: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq)]
enum Expect {
    Delivered(Vec<u8>),
    Dropped,
    Passed,
}

/// As the workload's own stack gets it.
fn delivered(interface: &str, packet: &Packet) -> Expect {
    let macs = (host_mac(interface), workload_mac(interface));
    Expect::Delivered(packet.clone().ttl(63).macs(macs.0, macs.1).build())
}

fn row(
    says: &'static str,
    from: Hook,
    interface: &'static str,
    packet: &Packet,
    expect: [Expect; 2],
) -> Row {
    let macs = (workload_mac(interface), host_mac(interface));
    Row {
        says,
        hook: Some(from),
        interface,
        frame: packet.clone().macs(macs.0, macs.1).build(),
        expect,
        reset: None,
    }
}

/// The packets from one port of the client.
fn rows(port: u16) -> Vec<Row> {
    use Hook::{FromContainer, FromNetdev};
    let mut rows = Vec::new();
    for family in families() {
        let to_backends = |packet: &Packet| {
            [
                delivered(WEB, &packet.clone().dst(at(family.web, 8080))),
                delivered(WEB_2, &packet.clone().dst(at(family.web_2, 9090))),
            ]
        };
        let asked = packet::udp(at(family.client, port), at(family.web_service, 80)).payload(b"?");
        let expect = to_backends(&asked);
        rows.push(row(
            "the service that moves",
            FromContainer,
            CLIENT,
            &asked,
            expect,
        ));
        // Ports that come again and again: their connections are of a configuration before, or of this.
        let again = packet::udp(at(family.client, port % 8 + 1), at(family.web_service, 80));
        let expect = to_backends(&again);
        rows.push(row(
            "a connection from before",
            FromContainer,
            CLIENT,
            &again,
            expect,
        ));
        let middle = packet::tcp(at(family.client, port), at(family.web_service, 80)).ack();
        let [before, _] = to_backends(&middle);
        let expect = [before, Expect::Dropped];
        let reset = reset(&middle).macs(host_mac(CLIENT), workload_mac(CLIENT));
        rows.push(Row {
            reset: Some(reset.build()),
            ..row(
                "TCP that did not start",
                FromContainer,
                CLIENT,
                &middle,
                expect,
            )
        });
        let steady = family.question(port);
        let reply = delivered(DNS, &steady.clone().dst(family.dns));
        let expect = [reply.clone(), reply];
        rows.push(row(
            "the service that stays",
            FromContainer,
            CLIENT,
            &steady,
            expect,
        ));
        let afar = packet::udp(at(family.world, port), at(family.dns, 53)).payload(b"?");
        let reply = delivered(DNS, &afar);
        let expect = [reply.clone(), reply];
        rows.push(row("from the network", FromNetdev, UPLINK, &afar, expect));
    }
    for (says, source, expect) in [
        ("a denied sender", "203.0.113.7", Expect::Dropped),
        ("its neighbour", "203.0.112.7", Expect::Passed),
    ] {
        let frame = packet::udp(at(ip(source), port), at(ip("192.0.2.1"), 6)).build();
        let (hook, interface) = (None, "lo");
        let expect = [expect.clone(), expect];
        rows.push(Row {
            says,
            hook,
            interface,
            frame,
            expect,
            reset: None,
        });
    }
    rows
}

/// Runs one packet; an error if that is no answer of a configuration that was live meanwhile.
fn check_packet(bench: &Bench, row: &Row) -> Result<(), String> {
    let begun = bench.epoch();
    let (verdict, frame) = match row.hook {
        Some(hook) => bench.run(hook, row.interface, &row.frame),
        None => (bench.run_xdp(&row.frame), Vec::new()),
    };
    let ended = bench.epoch();
    if verdict == Verdict::Redirect && row.reset.as_ref() == Some(&frame) {
        return Ok(());
    }
    let is_answer = |expect: &Expect| match (verdict, expect) {
        (Verdict::Redirect, Expect::Delivered(expected)) => frame == *expected,
        (Verdict::Drop, Expect::Dropped) | (Verdict::Pass, Expect::Passed) => true,
        _ => false,
    };
    // The first configuration is that of the odd epochs.
    let live = (begun..=ended.min(begun + 1)).map(|epoch| (epoch as usize + 1) % 2);
    if live.clone().any(|number| is_answer(&row.expect[number])) {
        return Ok(());
    }
    Err(format!(
        "{} at epochs {begun} to {ended}: {verdict:?} {}",
        row.says,
        summary(&frame)
    ))
}

fn stay_on(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("stay on a CPU");
}

#[test]
fn no_packet_meets_a_mixture_of_two_configurations() {
    let wanted = std::env::var("DPD_TEST_PACKETS").map_or(PACKETS, |text| {
        text.parse().expect("DPD_TEST_PACKETS is a number")
    });
    let cpus = std::thread::available_parallelism()
        .expect("count the CPUs")
        .get();
    let node = Node::new(&configuration(0));
    let benches: Vec<Bench> = (0..cpus).map(|_| node.bench()).collect();
    let (checked, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let switches = AtomicU64::new(0);
    let namespace = node.namespace();
    let rows: Vec<Row> = (10_000..10_000 + PORTS).flat_map(rows).collect();
    let run = |cpu: usize, bench: &Bench| {
        stay_on(cpu);
        while !failed.load(Ordering::Relaxed) {
            let number = checked.fetch_add(1, Ordering::Relaxed);
            if number >= wanted {
                break;
            }
            // The CPUs meet the same connection at about the same time, and it may be new to all of them.
            let row = &rows[number / cpus % rows.len()];
            check_packet(bench, row).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (run, bench) = (&run, &benches[cpu]);
                scope.spawn(move || namespace.run(|| run(cpu, bench)))
            })
            .collect();
        while !runners.iter().all(|runner| runner.is_finished()) {
            let number = switches.fetch_add(1, Ordering::Relaxed) + 1;
            node.reload(&configuration(number as usize % 2));
        }
        let ended = runners
            .into_iter()
            .map(|runner| runner.join().expect("a runner"));
        ended.filter_map(Result::err).collect()
    });
    let switches = switches.into_inner();
    assert_eq!(
        wrong,
        Vec::<String>::new(),
        "after {checked:?} packets and {switches} switches"
    );
    println!("{checked:?} packets on {cpus} CPUs over {switches} switches");
    assert!(switches > 10, "only {switches} switches");
}

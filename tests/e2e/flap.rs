//! A workload whose link changes many times a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::lab::{NetnsLab, eventually};
use crate::new_workloads::LATE;

/// Twenty changes a second, for some seconds; the last is what it was.
const FLAP: &str = "
was=$(cat /sys/class/net/eth0/address)
for i in $(seq 50); do
    ip link set eth0 address 02:00:00:00:99:99 && sleep 0.05
    ip link set eth0 address $was && sleep 0.05
done";

/// Of a joining workload: it appears, and is set up in two more steps.
const JOINS: u64 = 3;

#[test]
fn a_flapping_mac_costs_a_generation_a_second_and_delays_no_joiner() {
    let lab = NetnsLab::started();
    lab.apply("late", LATE);
    let before = lab.revision();
    let start = Instant::now();
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.ok("client", FLAP);
            has_ended.store(true, Ordering::Relaxed);
        });
        eventually("the flap is noticed", || match lab.revision() {
            revision if revision > before => Ok(()),
            revision => Err(revision),
        });
        let peer = lab.netns_name("intruder");
        lab.ok(
            "node",
            &format!("ip link add lxc-late type veth peer name late netns {peer} && ip link set lxc-late up"),
        );
        lab.dpd("endpoint wait lxc-late");
        assert!(!has_ended.load(Ordering::Relaxed), "it is served meanwhile");
    });
    let revisions = lab.revision() - before;
    let most = start.elapsed().as_secs() + 2 + JOINS;
    assert!(revisions <= most, "{revisions} generations, {most} at most");
    eventually("the workload is served by its own address", || {
        lab.dig("client", "10.32.0.10")
    });
}

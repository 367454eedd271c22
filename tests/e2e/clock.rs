//! dpd in a time namespace, where CLOCK_MONOTONIC is not that of the programs.

use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::lab::{NetnsLab, eventually, text};

/// Ahead by more than every lifetime, and behind.
const OFFSETS_SECONDS: [i64; 2] = [1_000_000, -240];

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn started_in_time_namespace(lab: &NetnsLab, offset: i64) -> Daemon {
    let mut command = lab.command("node", "unshare");
    command.args(["--time", "--monotonic", &offset.to_string()]);
    command.args(["--", env!("CARGO_BIN_EXE_dpd"), "run"]);
    command.stderr(Stdio::null());
    let daemon = Daemon(command.spawn().expect("start unshare"));
    eventually("the daemon serves", || {
        let output = lab.run(
            "node",
            &format!("{} observe --last 1", env!("CARGO_BIN_EXE_dpd")),
        );
        let is_served = output.status.success();
        is_served.then_some(()).ok_or_else(|| text(&output))
    });
    daemon
}

/// The remaining lifetimes, read in the same time namespace.
fn remaining(lab: &NetnsLab, offset: i64) -> Vec<f64> {
    let dpd = env!("CARGO_BIN_EXE_dpd");
    let line = format!("unshare --time --monotonic {offset} -- {dpd} ct list -o json");
    let printed = lab.ok("node", &line);
    let rows: Vec<Value> = serde_json::from_str(&printed).expect("an array in JSON");
    let seconds = rows.iter().map(|row| row["remaining_seconds"].as_f64());
    seconds
        .map(|seconds| seconds.expect("a lifetime"))
        .collect()
}

fn sweeps(lab: &NetnsLab) -> f64 {
    let page = lab.ok(
        "node",
        "curl -sS --fail -m 10 http://127.0.0.1:9964/metrics",
    );
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix("dpd_conntrack_sweep_duration_seconds_count "));
    count.expect("a count of sweeps").parse().expect("a number")
}

#[test]
fn times_are_those_of_the_programs() {
    for offset in OFFSETS_SECONDS {
        let lab = NetnsLab::laid();
        let keys = "[daemon]\nmetrics = \"127.0.0.1:9964\"\n[conntrack]\nudp_once = \"1h\"\n";
        lab.drop_in("clock", keys);
        let _daemon = started_in_time_namespace(&lab, offset);
        lab.dig("client", "10.32.0.10").expect("a query");
        let lifetimes = remaining(&lab, offset);
        assert!(!lifetimes.is_empty(), "{offset}: the query's connection");
        for lifetime in &lifetimes {
            assert!((1.0..=3600.0).contains(lifetime), "{offset}: {lifetimes:?}");
        }
        let flows = lab.flows();
        let time = flows.last().expect("a flow")["time"].to_string();
        let time = lab.ok("node", &format!("date -d {time} +%s"));
        let time =
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.trim().parse().expect("seconds"));
        let now = SystemTime::now();
        let distance = now
            .duration_since(time)
            .or_else(|_| time.duration_since(now));
        assert!(
            distance.expect("one is later") < Duration::from_secs(120),
            "{offset}: {time:?}"
        );
        let before = sweeps(&lab);
        eventually("two sweeps", || match sweeps(&lab) {
            count if count >= before + 2.0 => Ok(()),
            count => Err(count),
        });
        assert_eq!(
            lab.connections().len(),
            lifetimes.len(),
            "{offset}: nothing is swept early"
        );
    }
}

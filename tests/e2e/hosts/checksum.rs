//! Checksums as receivers see them: a wrong one is found only if the checksum was completed before, which
//! between veths it usually is not.

use crate::lab::NetnsLab;

/// Packets that receivers dropped for a wrong checksum.
fn refused(lab: &NetnsLab, workload: &str) -> Vec<String> {
    let all = lab.ok(workload, "nstat -asz");
    let errors = all.lines().filter(|line| line.contains("InCsumErrors"));
    let count = |line: &&str| line.split_whitespace().nth(1) != Some("0");
    errors.filter(count).map(str::to_owned).collect()
}

fn exchange(lab: &NetnsLab, what: &str) {
    for server in ["10.32.0.10", "fd00:32::10"] {
        for transport in ["+notcp", "+tcp"] {
            let line =
                format!("dig +short +tries=1 +time=5 {transport} @{server} id.server CH TXT");
            assert_eq!(lab.ok("client", &line), "\"coredns\"\n", "{what}: {line}");
        }
    }
    for words in [
        "-c 10.32.0.52 -n 2M",
        "-c 10.32.0.52 -n 2M -R",
        "-c fd00:32::52 -n 2M",
        "-c fd00:32::52 -n 2M -R",
        "-c 10.32.0.52 -u -b 20M -n 200K",
        "-c fd00:32::52 -u -b 20M -n 200K -R",
    ] {
        lab.ok("client", &format!("timeout 30 iperf3 -p 52 {words}"));
    }
    for workload in ["client", "coredns"] {
        assert_eq!(refused(lab, workload), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn checksums_are_right_wherever_they_are_completed() {
    let (a, _b) = NetnsLab::hosts(1500);
    a.serve("coredns", "iperf3 -s -p 5201", 5201);
    let rows = [
        (
            "completed when they leave the hosts",
            [("node-a", "uplink0"), ("node-b", "uplink0")],
        ),
        (
            "completed by the workloads",
            [("client", "eth0"), ("coredns", "eth0")],
        ),
    ];
    for (what, interfaces) in rows {
        for (place, interface) in interfaces {
            a.ok(place, &format!("ethtool -K {interface} tx off"));
        }
        exchange(&a, what);
        for (place, interface) in interfaces {
            a.ok(place, &format!("ethtool -K {interface} tx on"));
        }
    }
}

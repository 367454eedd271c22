//! Services with a backend on the other host.

use serde_json::Value;

use crate::lab::{NetnsLab, eventually};
use crate::web;

#[test]
fn queries_are_answered_by_the_other_host() {
    let (a, b) = NetnsLab::hosts(1500);
    for (client, four, six, reply) in [
        ("client", "10.32.0.10", "fd00:32::10", "\"coredns\"\n"),
        ("client-b", "10.32.0.12", "fd00:32::12", "\"coredns-a\"\n"),
    ] {
        for server in [four, six] {
            for transport in ["+notcp", "+tcp"] {
                let line =
                    format!("dig +short +tries=1 +time=5 {transport} @{server} id.server CH TXT");
                assert_eq!(a.ok(client, &line), reply, "{client}: {line}");
            }
        }
    }
    for lab in [&a, &b] {
        assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
    }
}

/// Rows of a listing with a port.
fn of_port(rows: &[Value], port: u16) -> Vec<&Value> {
    let is = |row: &&Value| row["src_port"] == port || row["dst_port"] == port;
    rows.iter().filter(is).collect()
}

#[test]
fn both_hosts_have_the_connection_and_its_flows() {
    let (a, b) = NetnsLab::hosts_laid(1500);
    for lab in [&a, &b] {
        lab.drop_in("events", "[events]\naggregation = \"none\"\n");
        lab.start();
    }
    for (from, to, client, port, frontend, source, backend) in [
        (
            &a,
            &b,
            "client",
            40053,
            "10.32.0.10",
            "10.200.0.64",
            "10.200.1.44",
        ),
        (
            &a,
            &b,
            "client",
            40054,
            "fd00:32::10",
            "fd00:200::64",
            "fd00:201::44",
        ),
        (
            &b,
            &a,
            "client-b",
            40055,
            "10.32.0.12",
            "10.200.1.64",
            "10.200.0.44",
        ),
        (
            &b,
            &a,
            "client-b",
            40056,
            "fd00:32::12",
            "fd00:201::64",
            "fd00:200::44",
        ),
    ] {
        let line = format!("dig -b '{source}#{port}' +short +tries=1 @{frontend} id.server CH TXT");
        from.ok(client, &line);
        let mut hosts = Vec::new();
        for lab in [from, to] {
            let rows = lab.json("ct list");
            let rows = of_port(rows.as_array().expect("an array"), port);
            assert_eq!(
                rows.len(),
                1,
                "{line}: one connection on each host: {rows:?}"
            );
            let row = rows[0];
            assert_eq!(row["src_ip"], source, "{line}: {row}");
            assert_eq!(row["src_identity"], 20001, "{line}: {row}");
            assert_eq!(row["dst_identity"], 18203, "{line}: {row}");
            assert_eq!(
                [&row["packets"], &row["reply_packets"]],
                [1, 1],
                "{line}: {row}"
            );
            hosts.push(row.clone());
        }
        assert_eq!(hosts[0]["dst_ip"], frontend, "the sender's host translates");
        assert_eq!(hosts[0]["dnat_ip"], backend);
        assert_eq!(
            hosts[0]["ingress_rule"],
            Value::Null,
            "it applies no ingress policy"
        );
        assert_eq!(
            hosts[1]["dst_ip"], backend,
            "the receiver's host sees the backend"
        );
        assert_eq!(hosts[1]["service"], Value::Null);
        assert_eq!(hosts[1]["ingress_rule"], "dns-clients/ingress/0");

        for (lab, sentence, expected) in [
            (
                from,
                "the client's host",
                vec![
                    ("from-endpoint", false),
                    ("to-network", false),
                    ("from-network", true),
                    ("to-endpoint", true),
                ],
            ),
            (
                to,
                "the server's host",
                vec![
                    ("from-network", false),
                    ("to-endpoint", false),
                    ("from-endpoint", true),
                    ("to-network", true),
                ],
            ),
        ] {
            eventually(&format!("{line}: the flows on {sentence}"), || {
                let flows = lab.flows();
                let points: Vec<(String, bool)> = of_port(&flows, port)
                    .iter()
                    .map(|flow| {
                        let point = flow["point"].as_str().expect("a point").to_owned();
                        (point, flow["reply"] == true)
                    })
                    .collect();
                let seen: Vec<(&str, bool)> = points
                    .iter()
                    .map(|(point, reply)| (point.as_str(), *reply))
                    .collect();
                if seen == expected {
                    Ok(())
                } else {
                    Err(points)
                }
            });
        }
    }
}

#[test]
fn web_and_bulk_traffic_cross_the_hosts() {
    let (a, b) = NetnsLab::hosts(1500);
    web::serve_in(&a, "coredns", "10.200.1.44", "fd00:201::44", "web-b");
    web::serve_in(&a, "coredns-a", "10.200.0.44", "fd00:200::44", "web-a");
    a.serve("coredns", "iperf3 -s -p 5201", 5201);
    for (client, url, seen) in [
        ("client", "http://10.32.0.80/hello", "10.200.0.64"),
        ("client", "http://[fd00:32::80]/hello", "fd00:200::64"),
        ("client-b", "http://10.32.0.81/hello", "10.200.1.64"),
        ("client-b", "http://[fd00:32::81]/hello", "fd00:201::64"),
    ] {
        let printed = a.ok(client, &format!("curl -sS -m 10 '{url}'"));
        assert_eq!(printed, format!("hello {seen}\n"), "{client}: {url}");
    }
    for words in [
        "-c 10.32.0.52 -n 50M",
        "-c 10.32.0.52 -n 50M -R",
        "-c fd00:32::52 -n 50M",
        "-c fd00:32::52 -n 50M -R",
        "-c 10.32.0.52 -u -b 20M -n 1M",
        "-c fd00:32::52 -u -b 20M -n 1M -R",
        "-c 10.32.0.52 -u -b 20M -n 1M -l 4000",
        "-c fd00:32::52 -u -b 20M -n 1M -l 4000 -R",
    ] {
        let printed = a.ok("client", &format!("timeout 60 iperf3 -J -p 52 {words}"));
        let report: Value = serde_json::from_str(&printed).expect(words);
        let bytes = &report["end"]["sum_received"]["bytes"];
        assert!(bytes.as_u64() > Some(500_000), "{words}: {report}");
    }
    for lab in [&a, &b] {
        assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
    }
}

#[test]
fn weights_hold_across_hosts() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    // The address takes precedence over the same one by identity.
    a.edit(
        "backends = [{ identity = \"kube-dns\", port = 53 }]",
        "backends = [{ identity = \"kube-dns\", port = 53 }, { address = \"10.200.0.44:53\", weight = 3 }]",
    );
    a.start();
    let (queries, weight) = (400.0, [3.0, 1.0]);
    let line = "for i in $(seq 400); do echo '@10.32.0.11 id.server CH TXT'; done \
                | dig +short +tries=2 +time=2 -f -";
    let printed = a.ok("client", line);
    let count = |name: &str| printed.lines().filter(|line| *line == name).count() as f64;
    let seen = [count("\"coredns-a\""), count("\"coredns\"")];
    assert_eq!(
        seen[0] + seen[1],
        queries,
        "each query gets a reply: {seen:?}"
    );
    let chi_square: f64 = std::iter::zip(seen, weight)
        .map(|(seen, weight)| {
            let expected = queries * weight / 4.0;
            (seen - expected).powi(2) / expected
        })
        .sum();
    // One degree of freedom: exceeded by chance once in a million runs.
    assert!(
        chi_square < 24.0,
        "{seen:?} of weights 3 and 1: {chi_square}"
    );
}

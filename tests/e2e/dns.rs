//! Queries to a real DNS server through the service's address, and their connections and flows.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;

use crate::lab::{NetnsLab, eventually};
use serde_json::{Value, json};

/// The fields of a row, in order.
fn fields(row: &Value, keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| row[key].clone()).collect()
}

#[test]
fn a_query_goes_through_the_service() {
    let lab = NetnsLab::started();
    let rows = [
        (
            "over UDP",
            "@10.32.0.10 kubernetes.default.svc.cluster.local",
            "10.32.0.1",
        ),
        (
            "over TCP",
            "+tcp @10.32.0.10 kubernetes.default.svc.cluster.local",
            "10.32.0.1",
        ),
        (
            "over UDP and IPv6",
            "@fd00:32::10 kubernetes.default.svc.cluster.local AAAA",
            "fd00:32::1",
        ),
        (
            "over TCP and IPv6",
            "+tcp @fd00:32::10 kubernetes.default.svc.cluster.local AAAA",
            "fd00:32::1",
        ),
        (
            "a response too large for UDP comes over TCP",
            "@10.32.0.10 large.test.cluster.local TXT",
            "part-12-part-12",
        ),
        (
            "and over IPv6",
            "@fd00:32::10 large.test.cluster.local TXT",
            "part-12-part-12",
        ),
        (
            "the server's own address",
            "@10.200.0.44 kubernetes.default.svc.cluster.local",
            "10.32.0.1",
        ),
    ];
    for (sentence, query, reply) in rows {
        let printed = lab.ok("client", &format!("dig +short +tries=1 +time=5 {query}"));
        assert!(printed.contains(reply), "{sentence}: {printed}");
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn the_connection_and_the_flows_of_a_query() {
    let lab = NetnsLab::started();
    for (sentence, server, client, backend) in [
        ("IPv4", "10.32.0.10", "10.200.0.64", "10.200.0.44"),
        ("IPv6", "fd00:32::10", "fd00:200::64", "fd00:200::44"),
    ] {
        lab.dpd("ct flush");
        lab.dig("client", server).expect(sentence);
        let connections = lab.json("ct list");
        let connections: Vec<Vec<Value>> = connections
            .as_array()
            .expect("an array")
            .iter()
            .filter(|row| row["protocol"] == "udp")
            .map(|row| {
                let keys = [
                    "src_ip",
                    "src_identity",
                    "dst_ip",
                    "dst_port",
                    "dst_identity",
                    "dnat_ip",
                    "dnat_port",
                    "service",
                    "packets",
                    "reply_packets",
                    "ingress_rule",
                ];
                fields(row, &keys)
            })
            .collect();
        let expected = json!([
            client,
            20001,
            server,
            53,
            18203,
            backend,
            53,
            "kube-dns",
            1,
            1,
            "dns-clients/ingress/0"
        ]);
        assert_eq!(json!(connections), json!([expected]), "{sentence}");

        let keys = [
            "src_ip",
            "src_name",
            "dst_ip",
            "dst_name",
            "verdict",
            "reply",
            "service",
            "orig_dst_ip",
        ];
        let flows = eventually("the flows of request and reply are observed", || {
            let flows: Vec<Value> = lab
                .flows()
                .iter()
                .filter(|flow| flow["protocol"] == "udp")
                .filter(|flow| flow["src_ip"] == client || flow["dst_ip"] == client)
                .cloned()
                .collect();
            if flows.len() >= 2 {
                Ok(flows)
            } else {
                Err(flows)
            }
        });
        let observed: Vec<Vec<Value>> = flows.iter().map(|flow| fields(flow, &keys)).collect();
        assert_eq!(
            observed.len(),
            2,
            "{sentence}: one flow for each direction: {observed:?}"
        );
        assert_eq!(
            json!(observed[0][..7]),
            json!([
                client,
                "client",
                backend,
                "kube-dns",
                "forwarded",
                false,
                "kube-dns"
            ]),
            "{sentence}: the request"
        );
        assert_eq!(
            observed[0][7], server,
            "{sentence}: the original destination"
        );
        assert_eq!(
            json!(observed[1][4..7]),
            json!(["forwarded", true, "kube-dns"]),
            "{sentence}: the reply"
        );
    }
}

#[test]
fn the_intruder_is_denied_and_its_drops_are_reported() {
    let lab = NetnsLab::started();
    for (server, line) in [
        (
            "10.32.0.10",
            "(intruder) -> kube-dns 10.200.0.44:53 (kube-dns) DROPPED (policy denied: no rule of ingress kube-dns) (UDP)",
        ),
        (
            "fd00:32::10",
            "(intruder) -> kube-dns [fd00:200::44]:53 (kube-dns) DROPPED (policy denied: no rule of ingress kube-dns) (UDP)",
        ),
        (
            "10.200.0.44",
            "(intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (policy denied: no rule of ingress kube-dns) (UDP)",
        ),
    ] {
        let printed = lab
            .dig("intruder", server)
            .expect_err("no rule allows the intruder");
        assert!(printed.contains("timed out"), "{server}: {printed}");
        eventually(&format!("the drop of {server} is observed"), || {
            let observed = lab.dpd("observe --last 10 --verdict dropped");
            if observed.contains(line) {
                Ok(())
            } else {
                Err(observed)
            }
        });
    }
    assert!(
        lab.log()
            .contains("(intruder) -> kube-dns 10.200.0.44:53 (kube-dns) DROPPED"),
        "and logged: {}",
        lab.log()
    );
    lab.dig("client", "10.32.0.10")
        .expect("the client is not affected");
}

#[test]
fn flows_are_observed_live() {
    let lab = NetnsLab::started();
    let mut watching = lab.command("node", env!("CARGO_BIN_EXE_dpd"));
    watching.args("observe --verdict dropped --from intruder".split_whitespace());
    let mut watching = watching
        .stdout(Stdio::piped())
        .spawn()
        .expect("run nsenter");
    let (sender, lines) = channel();
    let stdout = BufReader::new(watching.stdout.take().expect("its output is a pipe"));
    std::thread::spawn(move || {
        stdout
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    // The first queries may come before the observer.
    let line = eventually("a drop is observed", || {
        let _ = lab.dig("client", "10.32.0.10");
        let _ = lab.dig("intruder", "10.32.0.10");
        lines.try_recv()
    });
    assert!(
        line.contains("(intruder) -> kube-dns"),
        "and nothing else: {line}"
    );
    lab.stop();
    let status = watching.wait().expect("wait for the observer");
    assert_eq!(status.code(), Some(1), "an observer exits with the daemon");
}

//! Questions to a real DNS server through the service's address, and what dpd tells of them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;

use crate::lab::{Lab, eventually};
use serde_json::{Value, json};

/// The fields of a row, in order.
fn fields(row: &Value, keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| row[key].clone()).collect()
}

#[test]
fn a_query_goes_through_the_service() {
    let lab = Lab::started();
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
            "an answer too large for UDP comes over TCP",
            "@10.32.0.10 large.test.cluster.local TXT",
            "part-12-part-12",
        ),
        (
            "and over IPv6",
            "@fd00:32::10 large.test.cluster.local TXT",
            "part-12-part-12",
        ),
        (
            "the server itself may be asked, too",
            "@10.200.0.44 kubernetes.default.svc.cluster.local",
            "10.32.0.1",
        ),
    ];
    for (sentence, question, answer) in rows {
        let said = lab.ok("client", &format!("dig +short +tries=1 +time=5 {question}"));
        assert!(said.contains(answer), "{sentence}: {said}");
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn the_connection_and_the_flows_of_a_query() {
    let lab = Lab::started();
    for (sentence, server, client, backend) in [
        ("IPv4", "10.32.0.10", "10.200.0.64", "10.200.0.44"),
        ("IPv6", "fd00:32::10", "fd00:200::64", "fd00:200::44"),
    ] {
        lab.dpd("ct flush");
        lab.ask("client", server).expect(sentence);
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
                    "backend_ip",
                    "backend_port",
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
        let flows = eventually("the question's and the reply's flow are told", || {
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
        let told: Vec<Vec<Value>> = flows.iter().map(|flow| fields(flow, &keys)).collect();
        assert_eq!(told.len(), 2, "{sentence}: one flow each way: {told:?}");
        assert_eq!(
            json!(told[0][..7]),
            json!([
                client,
                "client",
                backend,
                "kube-dns",
                "forwarded",
                false,
                "kube-dns"
            ]),
            "{sentence}: the question"
        );
        assert_eq!(told[0][7], server, "{sentence}: where the client sent it");
        assert_eq!(
            json!(told[1][4..7]),
            json!(["forwarded", true, "kube-dns"]),
            "{sentence}: the reply"
        );
    }
}

#[test]
fn the_intruder_is_refused_and_that_is_told() {
    let lab = Lab::started();
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
        let said = lab
            .ask("intruder", server)
            .expect_err("no rule lets the intruder in");
        assert!(said.contains("timed out"), "{server}: {said}");
        eventually(&format!("the drop is told of {server}"), || {
            let told = lab.dpd("observe --last 10 --verdict dropped");
            if told.contains(line) {
                Ok(())
            } else {
                Err(told)
            }
        });
    }
    assert!(
        lab.log()
            .contains("(intruder) -> kube-dns 10.200.0.44:53 (kube-dns) DROPPED"),
        "and logged: {}",
        lab.log()
    );
    lab.ask("client", "10.32.0.10")
        .expect("the client has nothing to suffer for it");
}

#[test]
fn flows_are_told_as_they_happen() {
    let lab = Lab::started();
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
    // The first questions may come before the observer.
    let line = eventually("a drop is told", || {
        let _ = lab.ask("client", "10.32.0.10");
        let _ = lab.ask("intruder", "10.32.0.10");
        lines.try_recv()
    });
    assert!(
        line.contains("(intruder) -> kube-dns"),
        "and nothing else: {line}"
    );
    lab.stop();
    let status = watching.wait().expect("wait for the observer");
    assert_eq!(
        status.code(),
        Some(1),
        "an observer does not outlive the daemon in silence"
    );
}

//! The host's own programs at services with backends on both hosts, internal and external, and what is not the host's own.

use serde_json::Value;

use super::external::{asked, published, serve};
use crate::lab::eventually;

#[test]
fn the_host_reaches_backends_here_and_on_another_host() {
    let (a, _b) = published(1500);
    serve(&a);
    // Through an address that is routed, one of the host's own, and a node port, all external.
    for (server, client) in [
        ("10.90.0.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:8001", "192.0.2.1"),
        ("[fd00:90::1]", "2001:db8:1::1"),
        ("10.90.0.2", "192.0.2.1"),
        ("192.0.2.1:81", "192.0.2.1"),
        ("192.0.2.1:8002", "192.0.2.1"),
        ("[fd00:90::2]", "2001:db8:1::1"),
    ] {
        assert_eq!(
            asked(&a, "node-a", server),
            format!("hello {client}\n"),
            "{server}"
        );
    }
    // A connection to another host has no conntrack entry: what is known is its socket.
    let script = "import socket, time; s = socket.create_connection(('10.90.0.2', 80)); print('up', flush=True); time.sleep(60)";
    let mut command = a.command("node-a", "python3");
    command
        .args(["-c", script])
        .stdout(std::process::Stdio::null());
    let mut child = command.spawn().expect("run python3");
    eventually("the socket is listed", || {
        let list = a.connections();
        let row = list.iter().find(|row| row["dst_ip"] == "10.90.0.2");
        let row = row.ok_or_else(|| format!("{list:?}"))?;
        let words = ["src_ip", "src_name", "dnat_ip", "service", "state"];
        let words = words.map(|key| row[key].as_str().unwrap_or_default());
        assert_eq!(
            words,
            ["192.0.2.1", "host", "10.200.1.64", "far", "established"]
        );
        assert_eq!(row["packets"], Value::Null);
        Ok::<(), String>(())
    });
    child.kill().expect("end the program");
    child.wait().expect("wait for it");
}

#[test]
fn a_container_in_a_group_of_the_host_is_not_the_host() {
    let (a, _b) = published(1500);
    serve(&a);
    let netns = a.netns("client");
    let line = format!(
        "nsenter --net={} curl -sS -m 10 http://10.90.0.1/hello",
        netns.display()
    );
    assert_eq!(a.ok("node-a", &line), "hello 10.200.0.64\n");
    let flows = a.flows();
    let of_sockets = flows.iter().filter(|flow| flow["point"] == "from-host");
    assert_eq!(of_sockets.count(), 0, "{flows:?}");
    let translated = flows.iter().any(|flow| {
        flow["point"] == "to-endpoint"
            && flow["orig_dst_ip"] == "10.90.0.1"
            && flow["src_ip"] == "10.200.0.64"
    });
    assert!(translated, "its packets are translated: {flows:?}");
}

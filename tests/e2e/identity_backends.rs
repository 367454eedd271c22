//! Backends by identity: a workload that joins by a runtime drop-in is a backend at once, and its connections end when it leaves.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use crate::lab::{DEADLINE, NetnsLab, text};
use crate::web;

/// The server's interface, as the example has it.
const SERVER: &str = r#"[interfaces.lxc-coredns]
role      = "endpoint"
addresses = ["10.200.0.44", "fd00:200::44"]
identity  = "kube-dns"
"#;

const SERVICE: &str = r#"
[services.api]
frontends = ["10.32.0.90:80/tcp", "[fd00:32::90]:80/tcp"]
backends  = [{ identity = "kube-dns", port = 8080 }]
"#;

/// The backends of a frontend, as `10.200.0.44:8080 kube-dns here`.
fn backends(lab: &NetnsLab, frontend: &str) -> Vec<String> {
    let services = lab.json("service list");
    let mut rows = services.as_array().expect("services").iter();
    let row = rows.find(|row| row["frontend"] == frontend);
    let backends = row.expect(frontend)["backends"].as_array().expect("a list");
    let words =
        |backend: &serde_json::Value, key: &str| backend[key].as_str().unwrap_or("none").to_owned();
    backends
        .iter()
        .map(|backend| ["address", "identity", "location"].map(|key| words(backend, key)))
        .map(|words| words.join(" "))
        .collect()
}

fn greet(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut reply = Vec::new();
    let mut piece = [0; 512];
    while !reply.ends_with(b"hello 10.200.0.64\n") {
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => reply.extend_from_slice(&piece[..length]),
        }
    }
    Ok(())
}

#[test]
fn a_workload_joins_and_leaves_a_service_by_a_runtime_drop_in() {
    let lab = NetnsLab::laid();
    let folder: PathBuf = lab.folder().join("run.d");
    fs::create_dir_all(&folder).expect("the folder");
    lab.drop_in(
        "runtime",
        &format!("[daemon]\nruntime_config = {folder:?}\n{SERVICE}"),
    );
    lab.edit(SERVER, "");
    lab.start();
    web::serve(&lab);
    let curl = |host: &str| {
        let output = lab.run("client", &format!("curl -sS -m 10 http://{host}/hello"));
        match output.status.success() {
            true => Ok(text(&output)),
            false => Err(text(&output)),
        }
    };
    assert_eq!(
        backends(&lab, "10.32.0.90:80/tcp"),
        [""; 0],
        "nobody is there"
    );
    let refused = curl("10.32.0.90").expect_err("it has no backend");
    assert!(refused.contains("curl: (7)"), "at once: {refused}");
    let checked = text(&lab.run("node", &format!("{} check", env!("CARGO_BIN_EXE_dpd"))));
    assert!(
        checked.contains("no workload has the identity `kube-dns` by a single address"),
        "{checked}"
    );

    for (nth, round) in (1..).zip(["joins", "joins again"]) {
        fs::write(folder.join("server.toml"), SERVER).expect("write the drop-in");
        lab.dpd("reload");
        for (frontend, backend) in [
            ("10.32.0.90:80/tcp", "10.200.0.44:8080 kube-dns here"),
            ("[fd00:32::90]:80/tcp", "[fd00:200::44]:8080 kube-dns here"),
        ] {
            assert_eq!(backends(&lab, frontend), [backend], "{round}");
        }
        let table = lab.dpd("service list");
        assert!(
            table.contains("→ 10.200.0.44:8080 (identity kube-dns) "),
            "{table}"
        );
        assert_eq!(
            curl("[fd00:32::90]").as_deref(),
            Ok("hello fd00:200::64\n"),
            "{round}"
        );
        let mut open = lab.connect("client", "10.32.0.90:80").expect(round);
        greet(&mut open).expect(round);

        fs::remove_file(folder.join("server.toml")).expect("remove the drop-in");
        lab.dpd("reload");
        let ends = "- backend 10.200.0.44:8080 of service api: 1 connection ends";
        assert_eq!(lab.log().matches(ends).count(), nth, "{}", lab.log());
        let ended = greet(&mut open).expect_err("its connections end");
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{round}");
        assert_eq!(backends(&lab, "10.32.0.90:80/tcp"), [""; 0], "{round}");
        let refused = curl("10.32.0.90").expect_err("it has no backend");
        assert!(refused.contains("curl: (7)"), "at once: {refused}");
    }
}

//! `dpd plan` predicts the impact of a file on open connections, and applying the file has that impact.

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;

use serde_json::Value;

use crate::lab::{DEADLINE, NetnsLab, eventually, text};
use crate::web;

/// The plan of a file, which must exit with this status; the errors of an invalid one.
fn plan(lab: &NetnsLab, words: &str, status: i32) -> String {
    let line = format!("{} plan {words}", env!("CARGO_BIN_EXE_dpd"));
    let output = lab.run("node", &line);
    let printed = text(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "plan {words}: {printed}"
    );
    let of_plan = if status == 1 {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8(of_plan).expect("a plan in UTF-8")
}

/// The configuration and its drop-in as one file, with a change.
fn candidate(lab: &NetnsLab, from: &str, to: &str) -> String {
    let whole = [lab.config(), lab.folder().join("config.d/servers.toml")]
        .map(|path| fs::read_to_string(path).expect("read the configuration"))
        .concat();
    assert!(whole.contains(from), "the configuration has no {from:?}");
    let path = lab.folder().join("candidate.toml");
    fs::write(&path, whole.replace(from, to)).expect("write a candidate");
    path.display().to_string()
}

#[test]
fn what_is_planned_is_what_happens() {
    let lab = NetnsLab::laid();
    let first = plan(&lab, "", 3);
    assert!(
        first.lines().all(|line| line.starts_with("+ ")),
        "everything is added: {first}"
    );
    assert!(first.contains("+ service kube-dns 10.32.0.10:53/udp\n"));
    lab.start();
    assert!(plan(&lab, "", 0).starts_with("no changes: "));
    assert_eq!(plan(&lab, "-o json", 0).trim(), "[]");

    web::serve(&lab);
    let connect = |to| {
        let mut stream = lab
            .connect("client", to)
            .expect("connect to the web server");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("set a deadline");
        greet(&mut stream).expect("it replies");
        stream
    };
    let mut through = [(); 3].map(|()| connect("10.32.0.80:80"));
    let mut straight = connect("10.200.0.44:8080");

    let no_rule = candidate(&lab, "\"8080/tcp\", ", "");
    let policy = plan(&lab, &no_rule, 3);
    assert_eq!(
        policy,
        "+ rule servers/ingress allow from client ports 5201/tcp, 5201/udp subject kube-dns\n\
         - rule servers/ingress allow from client ports 8080/tcp, 5201/tcp, 5201/udp: 4 connections end\n"
    );

    let moved = candidate(&lab, "\"10.200.0.44:8080\"", "\"10.200.0.44:8081\"");
    let ends = "- backend 10.200.0.44:8080 of service web: 3 connections end";
    let comes = "+ backend 10.200.0.44:8081 of service web weight 1, state active";
    lab.stop();
    assert_eq!(
        plan(&lab, &moved, 3),
        format!("{ends}\n{comes}\n"),
        "also while the daemon is down"
    );
    lab.start();
    let revision = lab.revision();
    let rows: Value =
        serde_json::from_str(&plan(&lab, &format!("{moved} -o json"), 3)).expect("a plan in JSON");
    assert_eq!(
        (
            &rows[0]["change"],
            &rows[0]["kind"],
            &rows[0]["connections"],
            &rows[0]["ended"]
        ),
        (&"remove".into(), &"backend".into(), &3.into(), &3.into())
    );
    assert_eq!(lab.revision(), revision, "a plan changes nothing");
    for stream in &mut through {
        greet(stream).expect("it ends no connection");
    }

    lab.apply(
        "servers",
        &fs::read_to_string(lab.folder().join("config.d/servers.toml"))
            .expect("read the drop-in")
            .replace("\"10.200.0.44:8080\"", "\"10.200.0.44:8081\""),
    );
    eventually("the daemon logs the plan's lines", || {
        let log = lab.log();
        let has = |line: &str| log.lines().any(|printed| printed.ends_with(line));
        (has(ends) && has(comes)).then_some(()).ok_or(log)
    });
    for stream in &mut through {
        greet(stream).expect_err("what was predicted to end has ended");
    }
    greet(&mut straight).expect("the other connection works");
}

/// A hash picks the backends: a change of them moves a share of the new connections, and no open one.
#[test]
fn the_share_of_new_connections_that_move_is_planned() {
    let lab = NetnsLab::started();
    web::serve(&lab);
    let drop_in = lab.folder().join("config.d/servers.toml");
    let text = fs::read_to_string(drop_in).expect("read the drop-in");
    let by_hash = text.replace(
        "[services.web]\n",
        "[services.web]\nalgorithm = \"maglev\"\n",
    );
    lab.apply("servers", &by_hash);
    eventually("the service has a table", || {
        let rows = lab.json("service get web");
        let is_listed = rows[0]["algorithm"] == "maglev" && rows[0]["table_size"] == 251;
        is_listed.then_some(()).ok_or(rows)
    });
    assert!(lab.dpd("service list").contains("  maglev 251  "));
    for url in ["http://10.32.0.80/hello", "http://[fd00:32::80]/hello"] {
        for place in ["client", "node"] {
            let reply = lab.ok(place, &format!("curl -sS -m 5 {url}"));
            assert!(reply.starts_with("hello "), "{place} {url}: {reply}");
        }
    }
    let mut open = lab.connect("client", "10.32.0.80:80").expect("connect");
    greet(&mut open).expect("it replies");
    let comes = "+ backend 10.200.0.44:8081 of service web weight 1, state active";
    let moves = "~ service web: 49.8 % of new connections go to another backend, no open one does";
    let (from, to) = (
        "\"10.200.0.44:8080\"",
        "\"10.200.0.44:8080\", \"10.200.0.44:8081\"",
    );
    let more = candidate(&lab, from, to);
    assert_eq!(plan(&lab, &more, 3), format!("{comes}\n{moves}\n"));
    lab.apply("servers", &by_hash.replace(from, to));
    eventually("the daemon logs the plan's line", || {
        let log = lab.log();
        log.contains(moves).then_some(()).ok_or(log)
    });
    greet(&mut open).expect("an open connection stays");
}

#[test]
fn the_impact_of_smaller_conntrack_maps_is_planned() {
    let lab = NetnsLab::laid();
    let lasting = "[conntrack]\nudp_once = \"1h\"\n";
    lab.edit(
        "[identities.client]",
        &format!("{lasting}[identities.client]"),
    );
    lab.start();
    // Nothing replies at this port; 256 unreplied connections have room.
    lab.within("client", || {
        for port in 20000..20300 {
            let socket = UdpSocket::bind(("10.200.0.64", port)).expect("bind");
            socket.send_to(b"x", "10.200.0.44:5201").expect("send");
        }
    });
    let smaller = candidate(&lab, lasting, &format!("{lasting}size = 1024\n"));
    let line = "~ setting conntrack.size 131072 → 1024: at least 44 connections are forgotten";
    assert_eq!(plan(&lab, &smaller, 3), format!("{line}\n"));
    let rows = plan(&lab, &format!("{smaller} -o json"), 3);
    let rows: Value = serde_json::from_str(&rows).expect("a plan in JSON");
    assert_eq!(
        (&rows[0]["forgotten"], &rows[0]["ended"]),
        (&44.into(), &0.into())
    );

    lab.apply("size", "[conntrack]\nsize = 1024\n");
    eventually("the daemon logs the plan's line", || {
        let log = lab.log();
        log.contains(line).then_some(()).ok_or(log)
    });
}

/// A backend that is no longer an endpoint is still reached. A client that is no longer one does not reach a service, nor a
/// server that allows only that client, since its identity is unknown.
#[test]
fn an_endpoint_that_leaves_ends_only_connections_that_need_it() {
    let lab = NetnsLab::laid();
    lab.start();
    web::serve(&lab);
    let mut streams = ["10.32.0.80:80", "10.32.0.80:80", "10.200.0.44:8080"].map(|to| {
        let mut stream = lab
            .connect("client", to)
            .expect("connect to the web server");
        let deadline = stream.set_read_timeout(Some(DEADLINE));
        deadline.expect("set a deadline");
        greet(&mut stream).expect("it replies");
        stream
    });
    let whole = fs::read_to_string(lab.config()).expect("read the configuration");
    let without = |interface: &str| {
        let table = whole
            .split("\n[")
            .find(|table| table.starts_with(&format!("interfaces.{interface}]")));
        format!("\n[{}", table.expect("its table"))
    };
    let server = plan(&lab, &candidate(&lab, &without("lxc-coredns"), ""), 3);
    assert!(
        server.contains("- endpoint lxc-coredns: 3 connections go on without dpd\n"),
        "{server}"
    );
    let client = plan(&lab, &candidate(&lab, &without("lxc-client"), ""), 3);
    assert!(
        client.contains("- endpoint lxc-client: 3 connections end"),
        "{client}"
    );

    lab.save(&whole.replace(&without("lxc-coredns"), ""));
    eventually("it is removed", || {
        let attached = lab.attached();
        let is_there = attached.iter().any(|row| row.starts_with("lxc-coredns "));
        (!is_there).then_some(()).ok_or(attached)
    });
    for stream in &mut streams {
        greet(stream).expect("the connection works");
    }
}

#[test]
fn an_invalid_file_has_no_plan() {
    let lab = NetnsLab::laid();
    let wrong = candidate(&lab, "identity  = \"client\"", "identity  = \"cleint\"");
    let printed = plan(&lab, &wrong, 1);
    assert!(printed.contains("did you mean `client`?"), "{printed}");
    let check = lab.run(
        "node",
        &format!("{} check {wrong}", env!("CARGO_BIN_EXE_dpd")),
    );
    assert_eq!(text(&check), printed, "the same errors as of `dpd check`");
}

/// A request on a persistent connection.
fn greet(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut reply = [0; 12];
    stream.read_exact(&mut reply)?;
    assert_eq!(&reply, b"HTTP/1.1 200");
    let mut rest = Vec::new();
    while !rest.ends_with(b"hello 10.200.0.64\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        rest.extend(byte);
    }
    Ok(())
}

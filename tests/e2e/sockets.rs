//! The host's own programs at services.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually};
use crate::web;

/// The flows at `from-host` to a frontend.
fn from_host(lab: &NetnsLab, frontend: &str) -> Vec<Value> {
    let mut flows = lab.flows();
    flows.retain(|flow| {
        let asked = match flow["orig_dst_ip"].as_str() {
            Some(ip) => ip,
            None => flow["dst_ip"].as_str().unwrap_or_default(),
        };
        flow["point"] == "from-host" && asked == frontend
    });
    flows
}

/// The connections of the host, as `frontend backend service`.
fn connections(lab: &NetnsLab) -> Vec<String> {
    let list = lab.connections();
    let own = list.iter().filter(|row| row["src_name"] == "host");
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let mut rows: Vec<String> = own
        .map(|row| {
            let [to, at, by] = ["dst_ip", "dnat_ip", "service"].map(|key| word(row, key));
            format!("{to} {at} {by}")
        })
        .collect();
    rows.sort();
    rows
}

/// A Python program on the node that says `up` and waits for what is done to it.
struct Waiting(Child);

impl Waiting {
    fn start(lab: &NetnsLab, script: &str) -> Waiting {
        let mut command = lab.command(lab.node(), "python3");
        command.args(["-u", "-c", script]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run python3");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its first line");
        assert_eq!(line, "up\n", "the program is connected");
        child.stdout = Some(output.into_inner());
        Waiting(child)
    }

    /// What it prints until it ends.
    fn finish(mut self) -> String {
        let mut rest = String::new();
        let output = self.0.stdout.as_mut().expect("its output");
        output.read_to_string(&mut rest).expect("its output");
        self.0.wait().expect("wait for it");
        rest
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pool of connections that stay idle, over TCP and UDP, one that has no service, and one that has it no more; then what became
/// of each.
const POOL: &str = r#"
import socket, sys, time
tcp = socket.create_connection(("10.32.0.80", 80))
six = socket.create_connection(("fd00:32::80", 80))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect(("10.32.0.10", 53))
moved = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for to in ("10.32.0.10", "10.200.0.44"): moved.connect((to, 53))
direct = socket.create_connection(("10.200.0.44", 8080))
for s in (tcp, six, udp, direct): s.settimeout(20)
print("up")
def state(name, s):
    try: print(name, "closed" if s.recv(1) == b"" else "data")
    except OSError as error: print(name, "error", error.errno)
state("tcp", tcp); state("six", six); state("udp", udp)
direct.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
print("direct", direct.recv(12).decode())
moved.setblocking(False)
print("moved", moved.getpeername()[0], moved.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
"#;

/// What the pool prints if what it is connected to leaves: ECONNABORTED at once, but what has no service continues.
const ENDED: &str =
    "tcp error 103\nsix error 103\nudp error 103\ndirect HTTP/1.1 200\nmoved 10.200.0.44 0\n";

#[test]
fn the_hosts_programs_reach_services() {
    let lab = NetnsLab::started();
    web::serve(&lab);
    for (url, peer) in [
        ("http://10.32.0.80/hello", "10.200.0.1"),
        ("http://[fd00:32::80]/hello", "fd00:200::1"),
    ] {
        let printed = lab.ok("node", &format!("curl -sS -m 10 '{url}'"));
        assert_eq!(printed, format!("hello {peer}\n"), "{url}");
    }
    for server in ["10.32.0.10", "fd00:32::10"] {
        lab.dig("node", server).expect("over UDP");
        let name = "kubernetes.default.svc.cluster.local";
        lab.ok(
            "node",
            &format!("dig +tcp +short +tries=1 +time=2 @{server} {name} | grep ."),
        );
    }
    let mapped = "import socket; s = socket.socket(socket.AF_INET6); \
                  s.connect(('::ffff:10.32.0.80', 80)); print(s.getpeername()[:2])";
    let printed = lab.ok("node", &format!("python3 -c \"{mapped}\""));
    assert_eq!(
        printed, "('::ffff:10.32.0.80', 80)\n",
        "IPv4 by an IPv6 socket"
    );

    let flows = from_host(&lab, "10.32.0.80");
    let flow = flows.first().expect("a flow of each connection");
    let words = [
        "verdict",
        "service",
        "src_name",
        "dst_ip",
        "dst_name",
        "orig_dst_ip",
    ];
    assert_eq!(
        words.map(|key| flow[key].as_str().unwrap_or_default()),
        [
            "forwarded",
            "web",
            "host",
            "10.200.0.44",
            "kube-dns",
            "10.32.0.80"
        ]
    );
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn resolvers_and_streams_of_the_host_reach_services() {
    let lab = NetnsLab::started();
    let name = "kubernetes.default.svc.cluster.local";
    for server in ["10.32.0.10", "fd00:32::10"] {
        // The mounts of a command on the node are its own.
        let resolver = lab.folder().join("resolv.host");
        fs::write(&resolver, format!("nameserver {server}\n")).expect("write it");
        let line = format!(
            "mount --bind {} /etc/resolv.conf && getent hosts {name}",
            resolver.display()
        );
        assert!(lab.ok("node", &line).contains(name), "{server}");
    }
    lab.serve("coredns", "iperf3 -s -p 5201", 5201);
    for words in [
        "10.32.0.52",
        "fd00:32::52",
        "10.32.0.52 -u -b 20M",
        "fd00:32::52 -u -b 20M",
    ] {
        lab.ok("node", &format!("iperf3 -p 52 -t 1 -c {words}"));
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn udp_sockets_without_a_peer_get_answers_from_whom_they_asked() {
    let lab = NetnsLab::started();
    // As musl's resolver: one socket for several servers, whose answers it knows by their sender.
    let script = r#"
import socket, struct
def query(number):
    name = b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b"."))
    return struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"
for family, servers in (
    (socket.AF_INET, ["10.32.0.10", "10.32.0.11", "10.200.0.44"]),
    (socket.AF_INET6, ["fd00:32::10", "fd00:32::11"]),
    (socket.AF_INET6, ["::ffff:10.32.0.10"]),
):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5)
    for turn in range(2):
        for number, server in enumerate(servers):
            s.sendto(query(number), (server, 53))
            answer, sender = s.recvfrom(2000)
            print(server == sender[0] and sender[1] == 53 and answer[1] == number, server, sender[0])
"#;
    // A second service with another name server.
    lab.apply(
        "second",
        "[services.second]\nfrontends = [\"10.32.0.11:53/udp\", \"[fd00:32::11]:53/udp\"]\n\
         backends = [\"10.200.0.44:5353\", \"[fd00:200::44]:5353\"]\n\
         [policies.second]\nsubject = \"kube-dns\"\ningress = [{ from = [\"client\"], ports = [\"5353/udp\"] }]\n",
    );
    let echo = "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 5353))\n\
                while True: data, sender = s.recvfrom(2000); s.sendto(data, sender)";
    let mut server = lab.command("coredns", "python3");
    let _server = Waiting(server.args(["-c", echo]).spawn().expect("run python3"));
    eventually("the second server listens", || {
        let listening = lab.ok("coredns", "ss -Hlun 'sport = :5353'");
        (listening.lines().count() >= 1)
            .then_some(())
            .ok_or(listening)
    });
    let printed = lab.command("node", "python3").args(["-c", script]).output();
    let printed = printed.expect("run python3");
    let text = crate::lab::text(&printed);
    assert!(printed.status.success(), "{text}");
    let answers = text.lines().filter(|line| line.starts_with("True")).count();
    assert_eq!(
        answers, 12,
        "each answer is from the server that was asked:\n{text}"
    );
}

/// Servers that reply with their port; the TCP port shows that they are up.
const PORTS: &str = r#"
import selectors, socket
ready = selectors.DefaultSelector()
for port in range(7001, 7009):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("10.200.0.44", port))
    ready.register(s, selectors.EVENT_READ)
up = socket.create_server(("10.200.0.44", 7000))
while True:
    for key, _ in ready.select():
        data, sender = key.fileobj.recvfrom(100)
        key.fileobj.sendto(str(key.fileobj.getsockname()[1]).encode(), sender)
"#;

/// Which servers connections of the host get, one after the other.
fn ports_of_connections(lab: &NetnsLab, count: usize) -> BTreeSet<String> {
    let script = format!(
        "import socket\nfor turn in range({count}):\n    \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n    \
         s.connect((\"10.32.0.70\", 70)); s.send(b\"?\"); print(s.recv(100).decode())"
    );
    let printed = lab
        .command("node", "python3")
        .args(["-c", &script])
        .output();
    let text = crate::lab::text(&printed.expect("run python3"));
    let ports: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    assert!(ports.iter().all(|port| port.starts_with("700")), "{text}");
    ports
}

/// An old socket that sends all the time, without connect(), and ends if another server than PORT replies.
const SENDS: &str = r#"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
for turn in range(10000):
    s.sendto(b"?", ("10.32.0.70", 70))
    assert s.recvfrom(100)[0] == b"PORT"
    if turn == 0: print("up")
    time.sleep(0.01)
"#;

#[test]
fn the_hosts_connections_keep_their_backend_by_affinity() {
    let lab = NetnsLab::started();
    let script = lab.folder().join("ports.py");
    fs::write(&script, PORTS).expect("write the servers");
    lab.serve("coredns", &format!("python3 {}", script.display()), 7000);
    let service = |affinity: &str, draining: &str| {
        let row = |port: u32| {
            let state = match draining.ends_with(&port.to_string()) {
                true => ", state = \"draining\"",
                false => "",
            };
            format!("{{ address = \"10.200.0.44:{port}\"{state} }}")
        };
        let backends: Vec<String> = (7001..7009).map(row).collect();
        format!(
            "[services.ports]\nfrontends = [\"10.32.0.70:70/udp\"]\nbackends = [{}]\n{affinity}\n",
            backends.join(", ")
        )
    };
    let kept = "affinity = \"1h\"";
    lab.apply("ports", &service("", ""));
    let ports = ports_of_connections(&lab, 40);
    assert!(ports.len() > 1, "without affinity: {ports:?}");

    lab.apply("ports", &service(kept, ""));
    let expected = ports_of_connections(&lab, 20);
    assert_eq!(expected.len(), 1, "{expected:?}");
    let first: String = expected.iter().cloned().collect();
    let mut old = Waiting::start(&lab, &SENDS.replace("PORT", &first));

    // Others get another one while that drains, and keep it, though the old socket continues to send to the first.
    lab.apply("ports", &service(kept, &first));
    let others = ports_of_connections(&lab, 20);
    assert_eq!(others.len(), 1, "{others:?}");
    assert_ne!(others, expected);
    std::thread::sleep(Duration::from_millis(200));
    lab.apply("ports", &service(kept, ""));
    assert_eq!(ports_of_connections(&lab, 20), others);
    assert!(old.0.try_wait().expect("look at it").is_none());
}

/// Connects by UDP to a TCP service, and to a port that is none.
const PROBE: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(*(s.connect_ex(("10.32.0.80", port)) for port in (80, 65535)))
"#;

/// A socket asks a name server by a service, and itself after it has disconnected; prints who has answered.
const DISCONNECTS: &str = r#"
import ctypes, socket
query = bytes.fromhex("000101000001000000000000") + b"\x04none\0" + bytes.fromhex("00010001")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.connect(("10.32.0.10", 53)); s.send(query)
print(s.recvfrom(2000)[1][0])
assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0  # AF_UNSPEC
s.sendto(query, ("10.200.0.44", 53))
print(s.recvfrom(2000)[1][0])
"#;

#[test]
fn a_udp_socket_that_disconnects_gets_answers_from_whom_it_asks_then() {
    let lab = NetnsLab::started();
    let mut command = lab.command("node", "python3");
    let output = command.args(["-c", DISCONNECTS]).output();
    let text = crate::lab::text(&output.expect("run python3"));
    assert_eq!(text, "10.32.0.10\n10.200.0.44\n");
}

#[test]
fn what_nobody_answers_is_refused_at_once() {
    let lab = NetnsLab::started();
    let rows = [
        ("no backend", "10.32.0.99:80", "no backend"),
        ("no backend, IPv6", "[fd00:32::99]:80", "no backend"),
        (
            "no such port",
            "10.32.0.10:80",
            "no service on this address",
        ),
    ];
    for (what, to, reason) in rows {
        let before = lab.dropped(reason);
        let output = lab.run("node", &format!("curl -sS -m 10 http://{to}/"));
        let text = crate::lab::text(&output);
        assert_eq!(output.status.code(), Some(7), "{what}: {text}");
        assert!(lab.dropped(reason) > before, "{what}: the drop is counted");
    }
    let udp = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
               try: s.sendto(b'x', ('10.32.0.99', 53))\nexcept OSError as e: print(e.errno)";
    let output = lab.command("node", "python3").args(["-c", udp]).output();
    let output = output.expect("run python3");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "111\n",
        "ECONNREFUSED"
    );
    // As a resolver sorts the addresses of a name: nothing is sent.
    let before = lab.dropped("no service on this address");
    let output = lab.command("node", "python3").args(["-c", PROBE]).output();
    let output = output.expect("run python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "111 111\n");
    assert_eq!(lab.dropped("no service on this address"), before);
    let flows = from_host(&lab, "10.32.0.99");
    assert!(
        flows
            .iter()
            .any(|flow| flow["verdict"] == "dropped" && flow["service"] == "empty"),
        "{flows:?}"
    );
    // What is no frontend's is the host's.
    let output = lab.run("node", "curl -sS -m 10 http://10.200.0.1:81/");
    assert_eq!(output.status.code(), Some(7), "by the kernel, as always");
    assert_eq!(from_host(&lab, "10.200.0.1"), Vec::<Value>::new());
}

#[test]
fn a_backend_that_leaves_ends_its_sockets() {
    let lab = NetnsLab::started();
    web::serve(&lab);
    let pool = Waiting::start(&lab, POOL);
    assert_eq!(
        connections(&lab),
        [
            "10.200.0.44 - -",
            "10.32.0.10 10.200.0.44 kube-dns",
            "10.32.0.80 10.200.0.44 web",
            "fd00:32::80 fd00:200::44 web",
        ],
        "a connected UDP socket that has sent nothing is listed, too"
    );
    // Another port, and no name server.
    let moved = "[services.web]\nfrontends = [\"10.32.0.80:80/tcp\", \"[fd00:32::80]:80/tcp\"]\n\
                 backends = [\"10.200.0.44:8081\", \"[fd00:200::44]:8081\"]\n";
    lab.edit("10.200.0.44:53", "10.200.0.44:54");
    lab.apply("servers", moved);
    assert_eq!(pool.finish(), ENDED);
    // In one change or two: the daemon may have followed the file before the reload.
    let log = lab.log();
    let counts = log.split("ended ").skip(1).filter_map(|rest| {
        let (count, of) = rest.split_once(' ')?;
        let is_of_sockets = of.starts_with("of the host's sockets");
        is_of_sockets.then(|| count.parse::<u32>().ok())?
    });
    assert_eq!(counts.sum::<u32>(), 3, "{log}");
}

#[test]
fn the_last_services_that_leave_end_their_sockets() {
    let lab = NetnsLab::started();
    web::serve(&lab);
    let pool = Waiting::start(&lab, POOL);
    let config = fs::read_to_string(lab.config()).expect("read the configuration");
    let before = config.find("[services.kube-dns]").expect("its service");
    let after = config.find("# ---- Policies").expect("its policies");
    lab.save(&(config[..before].to_owned() + &config[after..]));
    lab.apply("servers", "# none\n");
    let services = lab.dpd("service list");
    assert!(!services.contains("10.32.0."), "{services}");
    assert_eq!(pool.finish(), ENDED);
}

#[test]
fn connections_outlive_restarts_and_the_switch() {
    let lab = NetnsLab::started();
    web::serve(&lab);
    let links = |lab: &NetnsLab| {
        let root = lab.bpf_root();
        let line = format!("ls {}/abi-*/links | grep -c cgroup || true", root.display());
        lab.ok("node", &line).trim().to_owned()
    };
    assert_eq!(links(&lab), "8");
    let script = r#"
import socket, sys
s = socket.create_connection(("10.32.0.80", 80)); s.settimeout(20)
print("up")
sys.stdin.readline()
s.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
print(s.getpeername()[0], s.recv(12).decode())
"#;
    let ask = |lab: &NetnsLab| {
        let mut command = lab.command("node", "python3");
        command.args(["-u", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run python3");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its first line");
        assert_eq!(line, "up\n");
        (child, output)
    };
    let answer = |(mut child, mut output): (Child, BufReader<std::process::ChildStdout>)| {
        drop(child.stdin.take());
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("its output");
        child.wait().expect("wait for it");
        rest
    };
    let (first, second) = (ask(&lab), ask(&lab));
    lab.kill();
    lab.ok("node", "curl -fsS -m 10 http://10.32.0.80/hello");
    lab.start();
    assert_eq!(links(&lab), "8", "they are adopted");
    lab.stop();
    lab.start();
    assert_eq!(answer(first), "10.32.0.80 HTTP/1.1 200\n");

    lab.apply("host", "[host]\nservices = false\n");
    assert_eq!(links(&lab), "0", "none is left");
    let output = lab.run("node", "curl -sS -m 2 http://10.32.0.80/hello");
    assert!(
        !output.status.success(),
        "the host does not reach services any more"
    );
    assert_eq!(
        answer(second),
        "10.200.0.44 HTTP/1.1 200\n",
        "its connections continue"
    );
    lab.apply("host", "[host]\nservices = true\n");
    assert_eq!(links(&lab), "8");
    lab.ok("node", "curl -fsS -m 10 http://10.32.0.80/hello");
    lab.apply("size", "[conntrack]\nsize = 65536\n");
    lab.dpd("reload");
    let drift = lab.json("status")["drift"]["attachments"].clone();
    assert_eq!(
        drift, 0,
        "another load has its programs at the hooks at once"
    );
    lab.stop();
    lab.dpd("cleanup");
    let output = lab.run("node", "curl -sS -m 2 http://10.32.0.80/hello");
    assert!(!output.status.success(), "nothing is left of dpd");
}

/// The lines of a script, on the node, where `$cgroup` is its group of cgroup2 and `$pins` its pins.
fn bpftool(lab: &NetnsLab, lines: &str) -> String {
    let pins = lab.bpf_root().display().to_string();
    lab.ok(
        "node",
        &format!(
            "set -e; cgroup=$(awk '$3 == \"cgroup2\" {{ print $2; exit }}' /proc/self/mounts)\n\
             pins=$(echo {pins}/abi-*)\n{lines}"
        ),
    )
}

fn reaches(lab: &NetnsLab) -> bool {
    let output = lab.run("node", "curl -fsS -m 2 http://10.32.0.80/hello");
    output.status.success()
}

#[test]
fn other_tools_programs_on_the_group_stay() {
    let lab = NetnsLab::laid();
    lab.drop_in("host", "[host]\nservices = false\n");
    lab.start();
    web::serve(&lab);
    // A program that does nothing without the others: dpd's own.
    const PROGRAM: &str = "$cgroup getpeername4 pinned $pins/load/1/dpd_sock_getpeername4";
    let shown = "bpftool cgroup show $cgroup | grep -c dpd_sock_getpeername4 || true";

    bpftool(&lab, &format!("bpftool cgroup attach {PROGRAM}"));
    lab.apply("host", "[host]\nservices = true\n");
    let warnings = lab.json("status")["warnings"].to_string();
    assert!(
        warnings.contains(
            "another tool's program dpd_sock_getpee is attached at getpeername4 and admits no other"
        ),
        "{warnings}"
    );
    assert!(!reaches(&lab), "all or none of the programs are attached");
    lab.dig("client", "10.32.0.10").expect("all else works");
    assert_eq!(bpftool(&lab, shown), "1\n");

    bpftool(&lab, &format!("bpftool cgroup detach {PROGRAM}"));
    bpftool(&lab, &format!("bpftool cgroup attach {PROGRAM} multi"));
    lab.dpd("reload");
    assert!(reaches(&lab), "with a program that admits others");
    assert_eq!(bpftool(&lab, shown), "2\n");
    let warnings = lab.json("status")["warnings"].to_string();
    assert!(!warnings.contains("another tool"), "{warnings}");
    lab.stop();
    lab.dpd("cleanup");
    assert_eq!(bpftool(&lab, shown), "1\n", "the other one stays");
}

#[test]
fn lost_programs_are_attached_again() {
    let lab = NetnsLab::started();
    web::serve(&lab);
    bpftool(
        &lab,
        "bpftool link detach pinned $pins/links/cgroup-connect4; rm $pins/links/cgroup-sendmsg4",
    );
    eventually("the drift is repaired", || {
        let drift = lab.json("status")["drift"].clone();
        let is_counted = drift["attachments"] == 1 && drift["pins"] == 1;
        is_counted.then_some(()).ok_or(drift)
    });
    assert!(reaches(&lab));
    let listed = lab.json("status")["sockets"].as_array().map(Vec::len);
    assert_eq!(listed, Some(8));
    let text = lab.dpd("status");
    assert!(
        text.contains("sockets:    services answer the host's own, by 8 programs at /"),
        "{text}"
    );
}

//! A real web server through a service with DNAT of the port.

use std::fs;

use crate::lab::NetnsLab;

/// nginx in the server's namespace, with a folder that takes uploads.
pub fn serve(lab: &NetnsLab) {
    serve_in(lab, "coredns", "10.200.0.44", "fd00:200::44", "web");
}

/// The same in any namespace, with a folder of its own.
pub fn serve_in(lab: &NetnsLab, workload: &str, address4: &str, address6: &str, folder: &str) {
    let folder = lab.folder().join(folder);
    fs::create_dir_all(&folder).expect("make the web server's folder");
    let place = folder.display();
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            client_max_body_size 100m;
            client_body_temp_path {place}/body;
            server {{
                listen {address4}:8080;
                listen [{address6}]:8080;
                root {place};
                dav_methods PUT;
                location = /hello {{ return 200 \"hello $remote_addr\\n\"; }}
                location = /who {{ return 200 \"{address4}\\n\"; }}
                location ~ ^/(slow|endless)$ {{ limit_rate 20k; }}
            }}
        }}"
    );
    fs::write(folder.join("nginx.conf"), config).expect("write nginx.conf");
    lab.serve(
        workload,
        &format!("nginx -p {place} -e {place}/error.log -c {place}/nginx.conf"),
        8080,
    );
}

const SIZE: usize = 50 << 20;

/// Varying bytes, the same each time.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[test]
fn a_web_server_is_reached_through_dnat_of_the_port() {
    let lab = NetnsLab::started();
    serve(&lab);
    for (url, client) in [
        ("http://10.32.0.80/hello", "10.200.0.64"),
        ("http://[fd00:32::80]/hello", "fd00:200::64"),
        ("http://10.200.0.44:8080/hello", "10.200.0.64"),
    ] {
        let printed = lab.ok("client", &format!("curl -sS -m 10 '{url}'"));
        assert_eq!(
            printed,
            format!("hello {client}\n"),
            "{url}: the server sees the client's address"
        );
    }
    let folder = lab.folder();
    let sent = noise();
    fs::write(folder.join("sent"), &sent).expect("write a large file");
    let place = folder.display();
    for (name, host) in [("four", "10.32.0.80"), ("six", "[fd00:32::80]")] {
        lab.ok(
            "client",
            &format!("curl -fsS -m 60 -T {place}/sent 'http://{host}/{name}'"),
        );
        assert!(
            fs::read(folder.join("web").join(name)).expect("what was uploaded") == sent,
            "{host}: the upload is complete"
        );
        lab.ok(
            "client",
            &format!("curl -fsS -m 60 -o {place}/got 'http://{host}/{name}'"),
        );
        assert!(
            fs::read(folder.join("got")).expect("what was downloaded") == sent,
            "{host}: the download is complete"
        );
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn hairpin_a_workload_reaches_itself_through_its_own_service() {
    let lab = NetnsLab::started();
    serve(&lab);
    for (url, peer) in [
        ("http://10.32.0.80/hello", "169.254.42.1"),
        ("http://[fd00:32::80]/hello", "fe80::1"),
    ] {
        let printed = lab.ok("coredns", &format!("curl -sS -m 10 '{url}'"));
        assert_eq!(printed, format!("hello {peer}\n"), "{url}");
    }
    for server in ["10.32.0.10", "fd00:32::10"] {
        lab.dig("coredns", server).expect("over UDP, too");
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

//! dpd beside other tools of a host, with the real ones: what packets bypass, firewalls, container engines, IPsec policies.

mod bypassed;
mod nspawn;
mod podman;
mod private;
mod ufw;
mod xfrm;

use crate::lab::{NetnsLab, eventually};

/// The way of node-a's uplink becomes this, for a reason that begins so. A tool may be amid its rules when dpd looks.
fn way_becomes(a: &NetnsLab, way: &str, reason: &str) {
    eventually(&format!("the way becomes {way}: {reason}"), || {
        let status = a.json("status");
        let interfaces = status["interfaces"].as_array().expect("interfaces");
        let uplink = interfaces.iter().find(|row| row["role"] == "uplink");
        let uplink = uplink.expect("an uplink");
        let given = uplink["forwarding_reason"].as_str().unwrap_or_default();
        match uplink["forwarding"] == way && given.starts_with(reason) {
            true => Ok(()),
            false => Err(uplink.to_string()),
        }
    });
}

/// What curl prints: the page, or its error.
fn curl(a: &NetnsLab, place: &str, url: &str) -> String {
    crate::lab::text(&a.run(place, &format!("curl -sS --max-time 3 {url}")))
}

/// The policy of the containers, which have the identity of the client.
fn ingress(a: &NetnsLab, rules: &str) {
    let policy = format!("[policies.container]\nsubject = \"client\"\ningress = [{rules}]\n");
    a.apply("container", &policy);
}

/// A container with a web server on port 80, published as port 8088 of the host; its own address is masqueraded. `inside` runs
/// a command in it.
fn published_masqueraded_and_under_policy(
    a: &NetnsLab,
    address: &str,
    inside: impl Fn(&str) -> String,
) {
    let flows = || a.dpd("observe --last 20");
    let published = || curl(a, "world", "http://192.0.2.1:8088");
    assert_eq!(published(), "container\n", "{}", flows());
    let seen = inside("timeout 3 busybox wget -q -O - http://203.0.113.9:8080/hello");
    assert_eq!(seen, "hello 192.0.2.1\n", "masqueraded: {}", flows());
    let seen = inside("timeout 3 busybox wget -q -O - http://10.32.0.81/hello");
    assert_eq!(seen, format!("hello {address}\n"), "a service: {}", flows());
    assert!(
        flows().contains(&format!("{address}:")),
        "dpd sees it: {}",
        flows()
    );
    ingress(a, "");
    let refused = published();
    assert!(
        refused.starts_with("curl:"),
        "policy: {refused} {}",
        flows()
    );
    ingress(a, "{ from = [\"world\"], ports = [\"80/tcp\"] }");
    assert_eq!(published(), "container\n", "{}", flows());
}

/// Servers for what a container asks: in the world, and a workload behind a service.
fn serve(a: &NetnsLab) {
    crate::web::serve_in(a, "world", "203.0.113.9", "2001:db8:3::9", "world");
    crate::web::serve_in(a, "coredns-a", "10.200.0.44", "fd00:200::44", "web");
}

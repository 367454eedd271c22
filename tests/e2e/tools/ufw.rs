//! ufw, whose forward chain drops what it does not allow.

use super::private::Private;
use super::{curl, way_becomes};
use crate::common::page::blocks;
use crate::lab::NetnsLab;

/// The page's rules, with the names of the lab.
fn rules() -> String {
    let page = include_str!("../../../docs/beside-other-tools.md");
    let block = blocks(page)
        .into_iter()
        .find(|block| block.heading == "nftables and ufw" && block.language == "sh");
    let rules = block.expect("the page has rules").text;
    rules
        .replace("lxc-web", "lxc-client")
        .replace("10.200.0.70", "10.200.0.64")
        .replace("ens5", "uplink0")
}

#[test]
fn the_forward_rules_of_ufw_decide_about_the_way_to_the_world() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    super::serve(&a);
    a.start();
    way_becomes_direct(&a);
    let world = || curl(&a, "client", "http://203.0.113.9:8080/hello");
    assert_eq!(world(), "hello 10.200.0.64\n");

    let host = Private::new(&a);
    host.ok("cp -a /etc/ufw /mnt/ufw && mount --bind /mnt/ufw /etc/ufw && ufw --force enable");
    way_becomes(&a, "stack", "nftables ip filter/FORWARD");
    let refused = world();
    assert!(refused.starts_with("curl:"), "{refused}");

    host.ok(&rules());
    assert_eq!(
        world(),
        "hello 10.200.0.64\n",
        "{}",
        a.dpd("observe --last 9")
    );

    // Between workloads dpd's policies decide, and a warning says so.
    let page = curl(&a, "client", "http://10.200.0.44:8080/hello");
    assert_eq!(page, "hello 10.200.0.64\n");
    let bypass = "packets between workloads bypass nftables ip filter/FORWARD";
    assert_eq!(a.log().matches(bypass).count(), 1, "{}", a.log());
}

fn way_becomes_direct(a: &NetnsLab) {
    let status = a.dpd("status");
    assert!(status.contains("uplink0: forwarding direct"), "{status}");
}

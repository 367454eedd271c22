//! A container of podman on its bridge network.

use super::private::Private;
use super::{ingress, published_masqueraded_and_under_policy, serve, way_becomes};
use crate::common::page::blocks;
use crate::lab::NetnsLab;

const PODMAN: &str = "podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend none \
    --network-config-dir /mnt/networks";

/// Limits of its processes that need no privilege, and no control group.
const RUN: &str =
    "run -d --name web --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// The page's own: the kernel has chosen the name on the host.
fn script_that_finds_the_name() -> &'static str {
    let page = include_str!("../../../docs/first-service.md");
    let mut blocks = blocks(page).into_iter();
    let block = blocks.find(|block| block.heading == "Names that change" && block.language == "sh");
    block.expect("the page has the script").text
}

#[test]
fn a_container_of_podman_is_published_masqueraded_and_under_policy() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    serve(&a);
    let host = Private::with_root(&a);
    let podman = |words: &str| host.ok(&format!("{PODMAN} {words}"));
    host.ok("tar -C /mnt/root -cf /mnt/image.tar .");
    podman("import /mnt/image.tar local/box");
    podman("network create --disable-dns --subnet 192.168.77.0/24 app");
    podman(&format!(
        "{RUN} --network app:ip=192.168.77.10 -p 8088:80 local/box httpd -f -p 80 -h /www"
    ));
    let port = host.ok(&format!(
        "podman() {{ command {PODMAN} \"$@\"; }}\n{}",
        script_that_finds_the_name()
    ));
    a.drop_in(
        "podman",
        &format!(
            "[interfaces.{}]\nrole = \"endpoint\"\naddresses = [\"192.168.77.10\"]\nidentity = \"client\"\n",
            port.trim()
        ),
    );
    a.start();
    way_becomes(&a, "stack", "nftables ip filter/FORWARD");
    ingress(&a, "{ from = [\"world\"], ports = [\"80/tcp\"] }");
    published_masqueraded_and_under_policy(&a, "192.168.77.10", |line| {
        podman(&format!("exec web {line}"))
    });
}

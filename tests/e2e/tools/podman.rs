//! A container of podman on its bridge network.

use super::private::Private;
use super::{ingress, published_masqueraded_and_under_policy, serve, way_becomes};
use crate::lab::NetnsLab;

const PODMAN: &str = "podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend none \
    --network-config-dir /mnt/networks";

/// Limits of its processes that need no privilege, and no control group.
const RUN: &str =
    "run -d --name web --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// The page's own: the kernel has chosen the name on the host.
fn lines_that_find_the_name() -> &'static str {
    let page = include_str!("../../../docs/beside-other-tools.md");
    let from = page.find("pid=$(podman inspect").expect("the script");
    let lines = page[from..].split("\n\n").next();
    lines.expect("its first lines")
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
        "podman() {{ command {PODMAN} \"$@\"; }}\n{}\necho \"$veth\"",
        lines_that_find_the_name()
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

//! A container of systemd-nspawn with a veth pair of its own.

use super::private::Private;
use super::{ingress, published_masqueraded_and_under_policy, serve, way_becomes};
use crate::lab::NetnsLab;

/// What systemd-networkd does inside: 80-container-host0.network.
const INSIDE: &str = "#!/bin/sh
ip address add 192.168.77.2/24 dev host0
ip link set host0 up
ip route add default via 192.168.77.1
exec httpd -f -p 80 -h /www
";

/// And on the host: 80-container-ve.network.
const OUTSIDE: &str = "
ip address add 192.168.77.1/24 dev ve-web
ip link set ve-web up
nft -f - <<END
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat
        oifname uplink0 ip saddr 192.168.77.0/24 masquerade
    }
}
END";

const ENDPOINT: &str = "
[interfaces.ve-web]
role = \"endpoint\"
addresses = [\"192.168.77.2\"]
identity = \"client\"
";

#[test]
fn a_container_of_nspawn_is_published_masqueraded_and_under_policy() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    serve(&a);
    let host = Private::with_root(&a);
    host.ok(&format!(
        "cat >/mnt/root/start <<'END'\n{INSIDE}END\nchmod +x /mnt/root/start"
    ));
    host.spawn(
        "systemd-nspawn --quiet --register=no --keep-unit --machine=web --directory=/mnt/root \
         --network-veth --port=tcp:8088:80 /start",
    );
    host.eventually("the container has its link", "ip link show ve-web");
    host.ok(OUTSIDE);
    a.drop_in("nspawn", ENDPOINT);
    a.start();
    // nspawn's own table, for the port.
    host.eventually(
        "the port is published",
        "nft list table ip io.systemd.nat | grep -q 8088",
    );
    way_becomes(&a, "stack", "nftables ip");
    ingress(&a, "{ from = [\"world\"], ports = [\"80/tcp\"] }");
    let pid = host.ok("pgrep -f '^httpd'");
    published_masqueraded_and_under_policy(&a, "192.168.77.2", |line| {
        host.ok(&format!("nsenter --net --target {} {line}", pid.trim()))
    });
}

//! Each command that `dpd check` advises, run on a host that has the fault: the warning is gone after it, and traffic works.

use std::thread;

use crate::lab::{NetnsLab, eventually, text};

/// What a healthy host can do: (where, line).
const TRAFFIC: [(&str, &str); 10] = [
    ("node-a", "ping -n -c1 -W1 10.200.0.64"),
    ("node-a", "ping -n -c1 -W1 fd00:200::64"),
    ("client", "ping -n -c1 -W1 192.0.2.1"),
    ("client", "ping -n -c1 -W1 203.0.113.9"),
    ("client", "ping -n -c1 -W1 2001:db8:3::9"),
    ("world", "ping -n -c1 -W1 10.200.0.64"),
    ("world", "ping -n -c1 -W1 fd00:200::64"),
    ("client", "ping -n -c1 -W1 198.51.100.2"),
    (
        "client",
        "dig +short +tries=1 +time=1 @10.32.0.10 kubernetes.default.svc.cluster.local | grep -q 10.32.0.1",
    ),
    (
        "client",
        "dig +short +tries=1 +time=1 @fd00:32::10 kubernetes.default.svc.cluster.local | grep -q 10.32.0.1",
    ),
];

struct Row {
    what: &'static str,
    fault: &'static str,
    /// A part of each warning, in their order.
    warnings: &'static [&'static str],
    /// Whether some of the traffic fails before the commands are run.
    breaks: bool,
}

const ROWS: [Row; 13] = [
    Row {
        what: "an endpoint's interface is down",
        fault: "ip link set lxc-client down",
        warnings: &[
            "interface lxc-client is down",
            "route to 10.200.0.64/32",
            "route to fd00:200::64/128",
        ],
        breaks: true,
    },
    Row {
        what: "IPv6 is off on an endpoint's interface",
        fault: "sysctl -qw net.ipv6.conf.lxc-client.disable_ipv6=1",
        warnings: &["IPv6 is off on lxc-client", "route to fd00:200::64/128"],
        breaks: true,
    },
    Row {
        what: "the host does not forward",
        fault: "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        warnings: &["IPv4 forwarding is off", "IPv6 forwarding is off"],
        breaks: true,
    },
    Row {
        what: "an endpoint's interface does not forward",
        fault: "sysctl -qw net.ipv4.conf.lxc-client.forwarding=0 net.ipv6.conf.lxc-client.forwarding=0",
        warnings: &[
            "IPv4 forwarding is off on lxc-client",
            "IPv6 forwarding is off on lxc-client",
        ],
        breaks: true,
    },
    Row {
        what: "an uplink does not forward",
        fault: "sysctl -qw net.ipv4.conf.uplink0.forwarding=0 net.ipv6.conf.uplink0.forwarding=0",
        warnings: &[
            "IPv4 forwarding is off on uplink uplink0",
            "IPv6 forwarding is off on uplink uplink0",
        ],
        // dpd delivers what comes from there itself.
        breaks: false,
    },
    Row {
        what: "the host has no routes to an endpoint",
        fault: "ip route del 10.200.0.64/32; ip -6 route del fd00:200::64/128",
        warnings: &["route to 10.200.0.64/32", "route to fd00:200::64/128"],
        breaks: true,
    },
    Row {
        what: "a route leads elsewhere, with a strict reverse path filter",
        fault: "sysctl -qw net.ipv4.conf.lxc-client.rp_filter=1; ip route replace 10.200.0.64/32 dev lxc-intruder",
        warnings: &["and the strict reverse path filter of lxc-client"],
        breaks: true,
    },
    Row {
        what: "a route is a black hole",
        fault: "ip route replace blackhole 10.200.0.64/32; ip -6 route replace blackhole fd00:200::64/128",
        warnings: &["route to 10.200.0.64/32", "route to fd00:200::64/128"],
        breaks: true,
    },
    Row {
        what: "a route to a node's workloads leads elsewhere",
        fault: "ip route replace 10.200.1.0/24 dev lxc-intruder; ip -6 route replace fd00:201::/64 dev lxc-intruder",
        warnings: &[
            "route to 10.200.1.0/24 of node node-b leads to lxc-intruder",
            "route to fd00:201::/64 of node node-b leads to lxc-intruder",
        ],
        breaks: true,
    },
    Row {
        what: "a node has no route",
        fault: "ip route add blackhole 198.51.100.2",
        warnings: &["route to 198.51.100.2 of node node-b is missing"],
        breaks: true,
    },
    Row {
        what: "an uplink is down",
        // Addresses stay, as with a manager of networks.
        fault: "sysctl -qw net.ipv6.conf.uplink0.keep_addr_on_down=1; ip link set uplink0 down",
        warnings: &[
            "uplink uplink0 is down",
            "198.51.100.2 of node",
            "2001:db8:2::2 of node",
            "10.200.1.0/24 of node",
            "fd00:201::/64 of node",
        ],
        breaks: true,
    },
    Row {
        what: "an uplink has no address",
        // Routes with its address as their source go with it; those of IPv6 stay.
        fault: "ip address flush dev uplink0 scope global",
        warnings: &[
            "uplink uplink0 has no address",
            "route to 10.200.0.44/32",
            "route to 10.200.0.65/32",
            "198.51.100.2 of node",
            "10.200.1.0/24 of node",
        ],
        breaks: true,
    },
    Row {
        what: "the host has the workload's addresses itself",
        fault: "ip address add 10.200.0.64/32 dev lo; ip route add local fd00:200::/64 dev lo",
        warnings: &[
            "10.200.0.64 of endpoint lxc-client is an address of the host too",
            "the host itself receives packets to fd00:200::64/128",
            "the host itself receives packets to fd00:200::44/128",
            "the host itself receives packets to fd00:200::65/128",
        ],
        breaks: true,
    },
];

fn warnings(lab: &NetnsLab) -> Vec<String> {
    let printed = lab.dpd("check 2>&1");
    let warnings = printed
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "));
    // The file's own, of a service without backends.
    let of_host = warnings.filter(|warning| !warning.starts_with('`'));
    of_host.map(str::to_owned).collect()
}

/// The commands of the warnings, with what only the reader can know.
fn commands(warnings: &[String]) -> Vec<String> {
    let commands = warnings.iter().map(|warning| {
        let command = warning.rsplit_once(": ").map_or("", |(_, command)| command);
        let gateway = if warning.contains("::") { "2001:db8:1::254" } else { "192.0.2.254" };
        let command = command.replace("GATEWAY", gateway);
        match command.split('\'').nth(1) {
            Some(find) if find.starts_with("ip address show") => {
                format!("{find} | grep 10.200.0.64; ip address delete 10.200.0.64/32 dev lo")
            }
            Some(find) => format!(
                "{find} | sed -n 's/^local \\([^ ]*\\) dev lo .*/\\1/p' | while read p; do ip -6 route delete local $p; done"
            ),
            None if command.contains("ADDRESS/LENGTH") => format!(
                "{}; {}",
                command.replace("ADDRESS/LENGTH", "192.0.2.1/24"),
                command.replace("ADDRESS/LENGTH", "2001:db8:1::1/64 nodad"),
            ),
            None => command,
        }
    });
    commands.collect()
}

/// The traffic that fails.
fn failing(lab: &NetnsLab) -> Vec<String> {
    let try_line = |(place, line): (&str, &str)| {
        let output = lab.run(place, line);
        (!output.status.success()).then(|| format!("{place}: {line}: {}", text(&output)))
    };
    thread::scope(|scope| {
        let tries = TRAFFIC.map(|line| scope.spawn(move || try_line(line)));
        let failed = tries
            .into_iter()
            .filter_map(|tried| tried.join().expect("a try"));
        failed.collect()
    })
}

#[test]
fn each_command_that_check_advises_helps() {
    let (a, _b) = NetnsLab::hosts(1500);
    // A link that goes down loses these, and dpd does not know them.
    let defaults =
        "ip route replace default via 192.0.2.254; ip -6 route replace default via 2001:db8:1::254";
    eventually("the host is healthy", || match failing(&a) {
        failed if failed.is_empty() => Ok(()),
        failed => Err(failed),
    });
    assert_eq!(warnings(&a), [""; 0], "a healthy host lacks nothing");
    for Row {
        what,
        fault,
        warnings: expected,
        breaks,
    } in ROWS
    {
        a.ok("node-a", fault);
        let found = warnings(&a);
        let are_as_expected = found.len() == expected.len()
            && expected
                .iter()
                .zip(&found)
                .all(|(part, found)| found.contains(part));
        assert!(are_as_expected, "{what}: {found:#?}");
        if breaks {
            assert_ne!(failing(&a), [""; 0], "{what}: the traffic shows the fault");
        }
        for command in commands(&found) {
            a.ok("node-a", &format!("{command}\ntrue"));
        }
        let is_of_uplink = what.contains("an uplink");
        if is_of_uplink {
            a.ok("node-a", defaults);
        }
        let left = warnings(&a);
        assert_eq!(left, [""; 0], "{what}: the warnings are gone");
        eventually(&format!("{what}: traffic works again"), || {
            match failing(&a) {
                failed if failed.is_empty() => Ok(()),
                failed => Err(failed),
            }
        });
    }
}

//! The sysctls below `/proc/sys/net`: read here, set by the commands of the checks.

use std::fs;
use std::path::Path;

use ipnet::IpNet;

/// Whether the kernel drops packets from `interface` that it would not route back there. It uses the larger of the
/// values of `all` and of the interface: 1 is strict, 2 is loose.
pub fn is_strict(interface: &str, prefix: &IpNet) -> bool {
    let value = |name: &str| read(&format!("ipv4/conf/{name}/rp_filter")).unwrap_or(0);
    prefix.addr().is_ipv4() && value("all").max(value(interface)) == 1
}

pub fn is_on(path: &str) -> Option<bool> {
    read(path).map(|value| value != 0)
}

pub fn is_known(path: &str) -> bool {
    Path::new("/proc/sys/net").join(path).exists()
}

/// A sysctl below `/proc/sys/net`; `None` where this kernel has none.
pub fn read(path: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
    text.trim().parse().ok()
}

/// The command that sets a sysctl below `/proc/sys/net`. `sysctl` has dots for slashes, and slashes for the dots of an
/// interface's name.
pub fn set(path: &str, value: u32) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    let name: String = path.chars().map(swap).collect();
    format!("sysctl -w net.{name}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_have_dots_for_slashes_and_slashes_for_dots() {
        let command = set("ipv4/conf/eth0.100/forwarding", 1);
        assert_eq!(command, "sysctl -w net.ipv4.conf.eth0/100.forwarding=1");
    }
}

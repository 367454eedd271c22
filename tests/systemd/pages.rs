//! Commands of the documents on a host with a systemd: a first service with workloads of several tools, changes of
//! the file, restarts.

use crate::Machine;
use crate::page::{blocks, commands, script};

const FIRST: &str = include_str!("../../docs/first-service.md");
const UPGRADE: &str = include_str!("../../docs/upgrade.md");
const CONFIG: &str = include_str!("../../docs/config.md");
const COMMANDS: &str = include_str!("../../docs/commands.md");

/// A root file system of nothing but busybox, whose first process does what systemd and networkd of the page's
/// container do.
const ROOT: &str = "set -e
mkdir -p /var/lib/machines/web && cd /var/lib/machines/web
mkdir bin sbin etc usr proc sys dev tmp run www
cp /usr/bin/busybox bin/
for name in sh httpd ip; do ln -s busybox bin/$name; done
echo ID=test >etc/os-release
echo a page >www/index.html
cat >sbin/init <<'END'
#!/bin/sh
ip address add 192.168.77.2/24 dev host0
ip link set host0 up
ip route add default via 192.168.77.1
exec httpd -f -p 80 -h /www
END
chmod +x sbin/init";

/// The page's image, from the same files. The machine has no file system for overlays and no message bus, and of the
/// kernel's settings it may write those of its own network alone.
const IMAGE: &str = "set -e
mkdir -p /etc/containers /run/proc
echo '{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}' >/etc/containers/policy.json
printf '[storage]\\ndriver = \"vfs\"\\nrunroot = \"/run/containers\"\\ngraphroot = \"/var/lib/containers\"\\n' >/etc/containers/storage.conf
cat >/etc/containers/containers.conf <<'END'
[containers]
cgroups = \"disabled\"
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
END
mount -t proc proc /run/proc && mount --bind /run/proc/sys/net /proc/sys/net
tar -C /var/lib/machines/web -cf /run/image.tar bin etc usr www tmp
podman import --change 'CMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]' /run/image.tar docker.io/library/nginx";

/// Plays the virtual machine: hands frames between the page's tap and one in a network namespace.
const GUEST: &str = "
import ctypes, fcntl, os, select, struct

def tap(name):
    # TUNSETIFF; IFF_TAP | IFF_NO_PI (linux/if_tun.h)
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', name.encode(), 0x1002))
    return fd

host = tap('vm-web')
with open('/run/netns/vm') as namespace:
    assert ctypes.CDLL(None).setns(namespace.fileno(), 0x40000000) == 0 # CLONE_NEWNET
guest = tap('eth0')
other = {host: guest, guest: host}
while True:
    for fd in select.select([host, guest], [], [])[0]:
        try:
            os.write(other[fd], os.read(fd, 65536))
        except OSError:
            pass # the other end is down
";

/// A host with the example, and the page's workloads made by hand.
fn host() -> Machine {
    let machine = Machine::boot(include_str!("../../examples/config.toml"));
    machine.ok(&script(FIRST, "Workloads"));
    machine.ok("systemctl start dpd");
    machine
}

/// The page's service in front of a workload that has this interface and address.
fn serve(machine: &Machine, interface: &str, address: &str) {
    let blocks = blocks(FIRST);
    let mut section = blocks.iter().filter(|block| block.heading == "The service");
    let file = section.clone().find(|block| block.language == "toml");
    let file = file.expect("the page has the file").text;
    let file = file
        .replace("interfaces.ve-web", &format!("interfaces.{interface}"))
        .replace("[\"192.168.77.2\"]", &format!("[\"{address}\"]"));
    let editor = format!("cat >/run/web.toml <<'END'\n{file}\nEND\nmv /run/web.toml ");
    let consoles = section.by_ref().filter(|block| block.language == "console");
    for mut shown in consoles.flat_map(|block| commands(block.text, &["# "])) {
        let line = shown.line.replace("editor ", &editor);
        shown.line = &line;
        machine.shows(&shown);
    }
    let page = machine.ok("ip netns exec client curl -sS --max-time 5 http://10.32.0.80/");
    assert_eq!(page, "a page\n");
    let refused = machine.fails("ip netns exec intruder curl -sS --max-time 1 http://10.32.0.80/");
    assert!(refused.starts_with("curl: (28)"), "{refused}");
}

#[test]
fn a_container_of_nspawn_is_served_as_the_page_says() {
    let machine = host();
    machine.ok(ROOT);
    // The machine has no machined.
    let script = script(FIRST, "systemd-nspawn");
    machine.ok(&script.replace("--keep-unit", "--keep-unit --register=no"));
    serve(&machine, "ve-web", "192.168.77.2");
}

#[test]
fn a_container_of_podman_is_served_as_the_page_says() {
    let machine = host();
    machine.ok(ROOT);
    machine.ok(IMAGE);
    machine.ok(&script(FIRST, "Podman"));
    let blocks = blocks(FIRST);
    let mut names = blocks
        .iter()
        .filter(|block| block.heading == "Names that change");
    let script = names.next().expect("the page has the script").text;
    let name = machine.ok(script);
    serve(&machine, name.trim(), "10.89.0.10");
}

#[test]
fn a_virtual_machine_is_served_as_the_page_says() {
    let machine = host();
    machine.ok("mkdir -p /dev/net && mknod /dev/net/tun c 10 200");
    machine.ok(&script(FIRST, "A virtual machine"));
    machine.ok(&format!(
        "cat >/run/guest.py <<'END'{GUEST}END\nip netns add vm"
    ));
    machine.ok("systemd-run --unit=vm python3 /run/guest.py");
    machine.eventually("it has its link", "ip -n vm link set eth0 up");
    machine.ok("ip -n vm address add 192.168.122.10/24 dev eth0 && ip -n vm route add default via 192.168.122.1");
    machine.ok("mkdir /run/page && echo a page >/run/page/index.html");
    machine.ok("systemd-run --unit=page ip netns exec vm busybox httpd -f -p 80 -h /run/page");
    serve(&machine, "vm-web", "192.168.122.10");
}

#[test]
fn the_file_is_changed_and_the_daemon_restarted_as_the_pages_say() {
    let machine = host();
    let blocks = blocks(CONFIG);
    let change = blocks
        .iter()
        .find(|block| block.heading == "Changing the file");
    let change = change.expect("the page has commands").text;
    machine.ok(&format!(
        "EDITOR='sed -i s/10.32.0.10/10.32.0.20/'\n{change}"
    ));
    machine.eventually(
        "the change is live",
        "dpd service list | grep -F 10.32.0.20",
    );
    machine.ok(&change.replace("$EDITOR", "sed -i s/10.32.0.20/10.32.0.10/"));
    machine.eventually("it is undone", "dpd service list | grep -F 10.32.0.10");

    let printed =
        machine
            .ok(&script(UPGRADE, "Upgrading")
                .replace("dpd cleanup", "systemctl stop dpd; dpd cleanup"));
    assert!(printed.contains("health:"), "{printed}");
    machine.ok("dpd service list | grep -F 10.32.0.10");
}

#[test]
fn policy_is_checked_and_flows_are_found_in_the_journal_as_the_page_says() {
    let machine = host();
    let blocks = blocks(COMMANDS);
    let consoles = |heading: &str| {
        let of = blocks.iter().filter(|block| block.heading == heading);
        let text = of
            .filter(|block| block.language == "console")
            .map(|block| block.text);
        let shown: Vec<_> = text.flat_map(|text| commands(text, &["# "])).collect();
        assert!(!shown.is_empty(), "{heading} has commands");
        shown
    };
    for shown in consoles("`dpd policy check`") {
        machine.shows(&shown);
    }
    machine.fails("ip netns exec intruder dig +timeout=1 +tries=1 @10.32.0.10 example.test");
    for shown in consoles("`dpd observe`") {
        machine.eventually(
            "the journal has it",
            &format!("{} | grep -F policy", shown.line),
        );
    }
}

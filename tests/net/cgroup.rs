//! The control group that programs of sockets are attached to.

use std::fs;
use std::os::fd::AsRawFd;

use dpd::config::{Config, Service};
use dpd::net::{self, find_cgroup, snapshot};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::own_cgroup::OwnCgroup;
use super::{Netns, config};

/// The machine's own: at its root, or, in a container, at a part of it.
#[test]
fn the_control_group_of_the_machine_is_found() {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
    let is_mounted = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let cgroup = match find_cgroup() {
        Ok(cgroup) => cgroup,
        Err(error) => {
            assert!(!is_mounted, "{error}");
            return;
        }
    };
    let path = &cgroup.path;
    assert!(path.join("cgroup.procs").exists(), "{}", path.display());
    assert_eq!(cgroup.is_root, !path.join("cgroup.type").exists());
    let open = format!("/proc/self/fd/{}", cgroup.folder.as_raw_fd());
    assert_eq!(fs::read_link(open).expect("its open folder"), *path);
}

/// A group that is mounted over the hierarchy, as in a container, is what a thread finds, wherever its processes are.
#[test]
fn a_part_of_the_hierarchy_is_none_of_its_root() {
    let Some(own) = OwnCgroup::new() else { return };
    let whole = find_cgroup().expect("the machine's");
    let own_groups = || {
        let groups = fs::read_dir(&whole.path).expect("the groups").flatten();
        let of_this = format!("dpd-t-{}-", std::process::id());
        groups
            .filter(|group| group.file_name().to_string_lossy().starts_with(&of_this))
            .count()
    };
    assert_eq!(own_groups(), 1);
    let look = || {
        own_mounts();
        own.mount();
        let found = find_cgroup().expect("the part is found");
        assert_eq!(found.path, whole.path);
        assert!(!found.is_root);
        let processes = found.path.join("cgroup.procs");
        let mut command = own.command("cat");
        let output = command.arg(processes).output().expect("run cat");
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    let processes = std::thread::scope(|scope| scope.spawn(look).join());
    let processes = processes.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(processes, 1, "the command alone");
    drop(own);
    assert_eq!(own_groups(), 0, "it is removed");
}

/// From here on what this thread mounts is its own.
fn own_mounts() {
    // SAFETY: only this thread's view of the mounts is unshared, and it holds no paths that depend on it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("make a mount namespace: needs root");
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).expect("keep mounts to ourselves");
}

/// In a namespace of its own, so that a part of the hierarchy is enough.
#[test]
fn a_host_without_the_hierarchy_lacks_it_for_its_own_sockets() {
    let mut config = config(&[]);
    config.services.insert("web".to_owned(), Service::default());
    let lacks = |config: &Config| Netns::new().enter(|| look_without_hierarchy(config));
    assert_eq!(lacks(&config), [""; 0], "host.services is off");
    config.host.services = true;
    let found = lacks(&config);
    assert!(
        found[0].contains("no cgroup2 hierarchy is mounted: boot with"),
        "{found:?}"
    );
    assert_eq!(found.len(), 1, "{found:?}");
    config.services.clear();
    assert_eq!(lacks(&config), [""; 0], "there is no service");
}

fn look_without_hierarchy(config: &Config) -> Vec<String> {
    own_mounts();
    while let Ok(cgroup) = find_cgroup() {
        unmount(&cgroup.path, UnmountFlags::DETACH).expect("unmount the hierarchy");
    }
    net::checks(config, &snapshot().expect("look at the interfaces"))
}

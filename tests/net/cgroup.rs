//! The control group that programs of sockets are attached to.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use dpd::net::find_cgroup;

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

/// A folder of a control group that is mounted over the hierarchy, as in a container, is what a thread finds.
#[test]
fn a_part_of_the_hierarchy_is_none_of_its_root() {
    let Ok(whole) = find_cgroup() else { return };
    let part = whole.path.join(format!("dpd-t-{}", std::process::id()));
    fs::create_dir(&part).expect("make a control group: this test needs root");
    let found = std::thread::scope(|scope| scope.spawn(|| find_below(&part, &whole.path)).join());
    fs::remove_dir(&part).expect("remove the control group");
    let (path, is_root, has_it) = found.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(path, whole.path);
    assert!(!is_root && has_it);
}

fn find_below(part: &Path, over: &Path) -> (PathBuf, bool, bool) {
    // SAFETY: only this thread's view of the mounts is unshared, and it holds no paths that depend on it.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .expect("make a mount namespace");
    let private = rustix::mount::MountPropagationFlags::PRIVATE;
    let all = rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private | all).expect("keep mounts to ourselves");
    rustix::mount::mount_bind(part, over).expect("mount the part over the whole");
    let found = find_cgroup().expect("the part is found");
    let id = |folder: &dyn AsRawFd| {
        let path = format!("/proc/thread-self/fd/{}", folder.as_raw_fd());
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("its number"))
    };
    let has_it = id(&found.folder) == id(&fs::File::open(over).expect("open it"));
    (found.path, found.is_root, has_it)
}

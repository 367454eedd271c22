//! Roots where no daemon may start or clean up: each error has the reason and the remedy.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::reader::Reader;
use dpd::bpf::sys::call::{FaultGuard, inject_faults};
use dpd::bpf::sys::lock;
use dpd::bpf::sys::op::Op;
use dpd::bpf::sys::write_access;
use dpd::config::Config;
use dpd::reconcile::{Reconciler, cleanup};
use rustix::mount::MountFlags;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::host::{CONFIG, Host, on_host};

fn refusal(config: &Config) -> String {
    match Reconciler::start(config) {
        Ok(_) => panic!("this must be refused"),
        Err(error) => format!("{error:#}"),
    }
}

fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is missing: {error}");
    }
}

#[test]
fn a_second_daemon_on_the_same_root() {
    on_host(|host| {
        let mut first = host.start(Mechanism::Tcx);
        let links = host.link_ids();
        let pid = format!("(pid {})", std::process::id());
        let place = host.root().display().to_string();
        let words = [&*pid, &*place, "stop it first"];
        assert_says(&refusal(&host.config(CONFIG)), &words);
        let error = cleanup(host.root(), false).unwrap_err();
        assert_says(&format!("{error:#}"), &words);
        assert_eq!(host.link_ids(), links, "nothing has changed");
        host.apply(&mut first, &host.changed("20001", "20009"));
        drop(first);
        drop(host.start(Mechanism::Tcx));
    });
}

/// The verifier gives up for a signal, and on a busy host libbpf's own attempts may not be enough.
#[test]
fn a_load_that_is_interrupted_is_tried_again() {
    on_host(|host| {
        let interrupted = Arc::new(AtomicU32::new(0));
        let count = interrupted.clone();
        let guard = inject_faults(Arc::new(move |op| match op {
            Op::LoadPrograms if count.fetch_add(1, Ordering::Relaxed) < 3 => {
                Err(rustix::io::Errno::AGAIN.into())
            }
            _ => Ok(()),
        }));
        drop(host.start(Mechanism::Tcx));
        drop(guard);
        assert_eq!(interrupted.load(Ordering::Relaxed), 4);
        let guard = inject_faults(Arc::new(|op| match op {
            Op::LoadPrograms => Err(rustix::io::Errno::AGAIN.into()),
            _ => Ok(()),
        }));
        assert_says(&refusal(&host.config(CONFIG)), &["temporarily unavailable"]);
        drop(guard);
        assert!(host.asks(), "the service answers");
    });
}

/// Runs a job once, right before an operation.
fn before(
    is_due: impl Fn(&Op<'_>) -> bool + Send + Sync + 'static,
    job: impl Fn() + Send + Sync + 'static,
) -> FaultGuard {
    let is_done = AtomicBool::new(false);
    inject_faults(Arc::new(move |op| {
        if is_due(op) && !is_done.swap(true, Ordering::Relaxed) {
            job();
        }
        Ok(())
    }))
}

#[test]
fn a_daemon_that_starts_while_the_root_is_cleaned_away() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let root = host.root().to_owned();
        let is_lock = |op: &Op<'_>| matches!(op, Op::LockDir { .. });
        let guard = before(is_lock, move || {
            cleanup(&root, false).expect("clean up");
            assert!(!root.exists(), "the folder that was opened is gone");
        });
        let first = host.start(Mechanism::Tcx);
        drop(guard);
        assert_says(&refusal(&host.config(CONFIG)), &["stop it first"]);
        drop(first);
    });
}

#[test]
fn no_daemon_starts_in_a_root_that_is_being_removed() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let root = host.root().to_owned();
        let dir = root.clone();
        let is_removal = move |op: &Op<'_>| matches!(op, Op::RemoveDir { path } if *path == dir);
        let guard = before(is_removal, move || {
            let error = lock::lock(&root).expect_err("it is locked");
            assert_says(&format!("{error:#}"), &["stop it first"]);
        });
        host.cleanup();
        drop(guard);
        assert!(!host.root().exists());
    });
}

#[test]
fn a_second_daemon_on_another_root_starts() {
    on_host(|host| {
        let _first = host.start(Mechanism::Tcx);
        let mut config = host.config("");
        config.daemon.bpf_root = host.root().with_file_name("dpd-b");
        let mut second = Reconciler::start(&config).unwrap();
        host.apply(&mut second, &config);
        assert!(host.asks(), "the first still serves");
    });
}

#[test]
fn an_interface_of_another_root_is_refused_and_its_owner_named() {
    for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
        on_host(|host: &Host| {
            let first = host.start(mechanism);
            let mut config = host.config(CONFIG);
            config.daemon.bpf_root = host.root().with_file_name("dpd-b");
            let mut second = Reconciler::start_with(&config, mechanism).unwrap();
            let links = host.link_ids();
            let error = second.apply(&config, &host.world(), |_, _| {}).unwrap_err();
            let owner = format!("another dpd, at {}", host.root().display());
            assert_says(
                &format!("{error:#}"),
                &["interface ", &owner, "configured by", "`dpd cleanup"],
            );
            assert_eq!(host.link_ids(), links, "nothing of the first is touched");
            assert!(host.asks(), "the first still serves");
            drop(first);
            // Without CAP_SYS_ADMIN, which alone may read the names of programs.
            let all = capabilities(None).unwrap();
            let effective = all.effective - CapabilitySet::SYS_ADMIN;
            set_capabilities(None, CapabilitySets { effective, ..all }).unwrap();
            let error = second.apply(&config, &host.world(), |_, _| {}).unwrap_err();
            set_capabilities(None, all).unwrap();
            assert_says(&format!("{error:#}"), &[&owner]);
            let error = second.apply(&config, &host.world(), |_, _| {}).unwrap_err();
            assert_says(&format!("{error:#}"), &[&owner]);
            host.cleanup();
            host.apply(&mut second, &config);
            // Its own programs are no other's after a start.
            drop(second);
            let mut second = Reconciler::start_with(&config, mechanism).unwrap();
            host.apply(&mut second, &config);
        });
    }
}

/// Nobody pins them, but this process holds their links.
#[test]
fn an_interface_of_another_root_that_was_deleted() {
    on_host(|host: &Host| {
        let first = host.start(Mechanism::Tcx);
        shell(&format!("rm -rf {}", host.root().display()));
        let mut config = host.config(CONFIG);
        config.daemon.bpf_root = host.root().with_file_name("dpd-b");
        let mut second = Reconciler::start(&config).unwrap();
        let error = second.apply(&config, &host.world(), |_, _| {}).unwrap_err();
        let owner = format!("process {}", std::process::id());
        assert_says(&format!("{error:#}"), &["another dpd", &owner]);
        drop(first);
        host.apply(&mut second, &config);
    });
}

#[test]
fn a_folder_that_is_no_bpffs() {
    on_host(|host: &Host| {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("abi-1");
        fs::create_dir(&precious).unwrap();
        let mut config = host.config(CONFIG);
        config.daemon.bpf_root = folder.path().to_owned();
        let words = [
            "not on a bpffs",
            "mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
        ];
        assert_says(&refusal(&config), &words);
        let error = cleanup(folder.path(), false).unwrap_err();
        assert_says(&format!("{error:#}"), &["not on a bpffs"]);
        assert!(precious.exists(), "cleanup touched nothing");
        config.daemon.bpf_root = folder.path().join("deep/er");
        assert_says(&refusal(&config), &words);
        assert!(!folder.path().join("deep").exists(), "nothing was made");
    });
}

/// The bpffs of these tests has the kernel's default mode, 1777.
#[test]
fn a_root_that_others_could_have_made_or_may_write() {
    const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    on_host(|host: &Host| {
        let config = host.config(CONFIG);
        let own = host.root().display().to_string();
        // How it comes to be, and what is named.
        let rows = [
            (
                format!("rm -rf {own} && {NOBODY} mkdir {own}"),
                format!("{own} has owner uid 65534 and mode 0755"),
            ),
            (
                format!("rm -rf {own} && {NOBODY} ln -s /sys/fs/bpf {own}"),
                format!("{own} has owner uid 65534"),
            ),
            (
                format!("chmod 0777 {own}"),
                format!("{own} has owner uid 0 and mode 0777"),
            ),
            (
                format!("chmod 1777 {own}"),
                format!("{own} has owner uid 0 and mode 1777"),
            ),
            (
                format!("chmod 0770 {own}"),
                format!("{own} has owner uid 0 and mode 0770"),
            ),
            (
                format!("chmod 1777 {own} && {NOBODY} mkdir {own}/abi-99 && chmod 0755 {own}"),
                format!("{own}/abi-99 has owner uid 65534"),
            ),
            (
                format!("chmod 0666 {own}/abi-*/maps/dpd_live"),
                "dpd_live has owner uid 0 and mode 0666".to_owned(),
            ),
            (
                "chmod 0777 /sys/fs/bpf".to_owned(),
                "/sys/fs/bpf has owner uid 0 and mode 0777".to_owned(),
            ),
            (
                "chown 65534 /sys/fs/bpf".to_owned(),
                "/sys/fs/bpf has owner uid 65534".to_owned(),
            ),
        ];
        shell(&format!("mkdir -p {own}"));
        for (change, words) in rows {
            shell(&change);
            let error = refusal(&config);
            assert_says(&error, &[&words, "users other than root could replace"]);
            let read = Reader::open(host.root()).map(drop).unwrap_err();
            assert_says(&format!("{read:#}"), &[&words]);
            let removal = cleanup(host.root(), false).unwrap_err();
            assert_says(&format!("{removal:#}"), &[&words]);
            shell(error.split('`').nth(1).expect("a command to run"));
            host.apply(&mut Reconciler::start(&config).expect(&change), &config);
        }
    });
}

#[test]
fn a_root_is_made_writable_by_root_alone_whatever_the_umask() {
    on_host(|host: &Host| {
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        drop(host.start(Mechanism::Clsact));
        rustix::process::umask(umask);
        shell(&format!(
            "test -z \"$(find {} -type d -perm /0022)\"",
            host.root().display()
        ));
    });
}

#[test]
fn a_link_to_the_root() {
    on_host(|host: &Host| {
        let folder = tempfile::tempdir().unwrap(); // in a sticky directory
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/sys/fs/bpf", &link).unwrap();
        let mut config = host.config(CONFIG);
        config.daemon.bpf_root = link.join("dpd");
        shell(&format!("chown -h 65534 {}", link.display()));
        let words = ["has owner uid 65534", "set a path in daemon.bpf_root"];
        assert_says(&refusal(&config), &words);
        assert!(!host.root().exists(), "nothing was made");
        shell(&format!("chown -h 0 {}", link.display()));
        drop(Reconciler::start(&config).unwrap());
        // It ends in a directory that is sticky, as one on the way may be.
        let dot = host.root().with_file_name("dot");
        std::os::unix::fs::symlink(".", &dot).unwrap();
        config.daemon.bpf_root = dot;
        assert_says(
            &refusal(&config),
            &["/sys/fs/bpf has owner uid 0 and mode 1777"],
        );
    });
}

#[test]
fn a_bpffs_that_others_may_write_is_a_warning() {
    on_host(|host: &Host| {
        let warning = write_access::warning(host.root()).expect("a warning");
        assert_says(&warning, &["/sys/fs/bpf,", "chmod 0700 /sys/fs/bpf"]);
        shell(warning.split('`').nth(1).expect("a command to run"));
        assert_eq!(write_access::warning(host.root()), None);
    });
}

fn shell(line: &str) {
    let done = Command::new("sh").args(["-c", line]).status();
    assert!(done.expect("start sh").success(), "{line}");
}

#[test]
fn a_read_only_bpffs() {
    on_host(|host| {
        let place = "/sys/fs/bpf";
        let words = [place, "Read-only", "mount -o remount,rw"];
        rustix::mount::mount_remount(place, MountFlags::RDONLY, "").unwrap();
        let error = refusal(&host.config(CONFIG));
        rustix::mount::mount_remount(place, MountFlags::empty(), "").unwrap();
        assert_says(&error, &words);
        drop(host.start(Mechanism::Tcx));
        rustix::mount::mount_remount(place, MountFlags::RDONLY, "").unwrap();
        let error = refusal(&host.config(CONFIG));
        rustix::mount::mount_remount(place, MountFlags::empty(), "").unwrap();
        assert_says(&error, &words);
        assert!(host.asks(), "what was there continues");
    });
}

#[test]
fn a_pinned_map_of_another_layout() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        // The counters are pinned as the table of fragments.
        let path = host.pins().map("dpd_fragments");
        let stranger = host.pins().map("dpd_counters");
        fs::remove_file(&path).unwrap();
        libbpf_rs::MapHandle::from_pinned_path(stranger)
            .unwrap()
            .pin(&path)
            .unwrap();
        let links = host.link_ids();
        let words = ["dpd_fragments", "another map type", "dpd cleanup"];
        assert_says(&refusal(&host.config(CONFIG)), &words);
        assert_eq!(host.link_ids(), links, "nothing has changed");
    });
}

#[test]
fn a_first_start_with_a_table_that_no_memory_holds() {
    on_host(|host| {
        let mut config = host.config(CONFIG);
        config.conntrack.size = 1 << 29;
        let words = ["load the eBPF programs", "messages of libbpf", "dpd_ct_tcp"];
        assert_says(&refusal(&config), &words);
        for folder in [host.pins().maps(), host.pins().loads()] {
            let left = dpd::bpf::sys::pins::names(&folder);
            assert!(left.is_empty(), "{}: {left:?}", folder.display());
        }
        drop(host.start(Mechanism::Tcx));
    });
}

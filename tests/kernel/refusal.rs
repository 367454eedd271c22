//! Places where no daemon may start or clean up: each says why, and what to do.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use dpd::bpf::pins;
use dpd::config::Config;
use dpd::reconcile::{Reconciler, cleanup};
use rustix::mount::MountFlags;

use crate::host::{CONFIG, Host, on_host};

fn refusal(config: &Config) -> String {
    match Reconciler::start(config) {
        Ok(_) => panic!("this must be refused"),
        Err(error) => format!("{error:#}"),
    }
}

fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not said: {error}");
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
        let error = cleanup(host.root()).unwrap_err();
        assert_says(&format!("{error:#}"), &words);
        assert_eq!(host.link_ids(), links, "nothing has changed");
        host.apply(&mut first, &host.changed("20001", "20009"));
        drop(first);
        drop(host.start(Mechanism::Tcx));
    });
}

/// Does something once, right before an operation of these words.
fn before(words: String, job: impl Fn() + Send + Sync + 'static) -> gate::Kept {
    let is_done = AtomicBool::new(false);
    gate::keep(Arc::new(move |what| {
        if what == words && !is_done.swap(true, Ordering::Relaxed) {
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
        let kept = before(format!("lock {}", root.display()), move || {
            cleanup(&root).expect("clean up");
            assert!(!root.exists(), "the folder that was opened is gone");
        });
        let first = host.start(Mechanism::Tcx);
        drop(kept);
        assert_says(&refusal(&host.config(CONFIG)), &["stop it first"]);
        drop(first);
    });
}

#[test]
fn nobody_starts_in_a_root_that_is_about_to_go() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        let root = host.root().to_owned();
        let kept = before(format!("remove {}", root.display()), move || {
            let error = pins::lock(&root).expect_err("it is locked");
            assert_says(&format!("{error:#}"), &["stop it first"]);
        });
        host.cleanup();
        drop(kept);
        assert!(!host.root().exists());
    });
}

#[test]
fn a_second_daemon_on_another_root_is_welcome() {
    on_host(|host| {
        let _first = host.start(Mechanism::Tcx);
        let mut config = host.config("");
        config.daemon.bpf_root = host.root().with_file_name("dpd-b");
        let mut second = Reconciler::start(&config).unwrap();
        host.apply(&mut second, &config);
        assert!(host.asks(), "the first serves on");
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
        let words = ["not on a bpffs", "mount -t bpf bpf /sys/fs/bpf"];
        assert_says(&refusal(&config), &words);
        let error = cleanup(folder.path()).unwrap_err();
        assert_says(&format!("{error:#}"), &["not on a bpffs"]);
        assert!(precious.exists(), "cleanup touched nothing");
        config.daemon.bpf_root = folder.path().join("deep/er");
        assert_says(&refusal(&config), &words);
        assert!(!folder.path().join("deep").exists(), "nothing was made");
    });
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
        assert!(host.asks(), "what was there goes on");
    });
}

#[test]
fn a_pinned_map_of_another_layout() {
    on_host(|host| {
        drop(host.start(Mechanism::Tcx));
        // The counters where the table of fragments is wanted.
        let path = host.pins().map("dpd_fragments");
        let stranger = host.pins().map("dpd_counters");
        fs::remove_file(&path).unwrap();
        libbpf_rs::MapHandle::from_pinned_path(stranger)
            .unwrap()
            .pin(&path)
            .unwrap();
        let links = host.link_ids();
        let words = ["dpd_fragments", "another kind", "dpd cleanup"];
        assert_says(&refusal(&host.config(CONFIG)), &words);
        assert_eq!(host.link_ids(), links, "nothing has changed");
    });
}

#[test]
fn a_first_start_with_a_table_that_no_memory_holds() {
    on_host(|host| {
        let mut config = host.config(CONFIG);
        config.conntrack.size = 1 << 29;
        let words = ["load the eBPF programs", "libbpf's words", "dpd_ct_tcp"];
        assert_says(&refusal(&config), &words);
        for folder in [host.pins().maps(), host.pins().loads()] {
            let left = dpd::bpf::pins::names(&folder);
            assert!(left.is_empty(), "{}: {left:?}", folder.display());
        }
        drop(host.start(Mechanism::Tcx));
    });
}

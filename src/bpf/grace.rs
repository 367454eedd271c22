//! The kernel's grace periods, hurried while very many programs are attached or detached.
//!
//! A tcx link is made and taken off under the lock of all interfaces, with a wait for a grace period of some 10 ms
//! (kernel/bpf/tcx.c, `tcx_entry_sync`), so that a thousand workloads take half a minute. While the kernel's own switch for
//! it is on, a grace period takes microseconds of each CPU's time. It is put back by whoever put it on; if that one is
//! killed, by the next daemon, which sees the mark that it left.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::gate;

/// So many interfaces take long enough to hurry for: about a second.
pub const MANY: usize = 64;

/// The kernel's switches, as files (Documentation/admin-guide/kernel-parameters.txt, `rcupdate.rcu_expedited`).
#[derive(Clone, Debug)]
struct Switches {
    expedited: PathBuf,
    /// Wins over the other, for hosts on which no CPU is to be disturbed.
    normal: PathBuf,
}

impl Switches {
    fn of_kernel() -> Switches {
        Switches {
            expedited: PathBuf::from("/sys/kernel/rcu_expedited"),
            normal: PathBuf::from("/sys/kernel/rcu_normal"),
        }
    }

    /// Whether both are as the kernel has them by itself. Where one is not there, nothing is to be hurried.
    fn are_off(&self) -> bool {
        [&self.expedited, &self.normal]
            .into_iter()
            .all(|switch| fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0"))
    }

    fn expedite(&self) -> Result<()> {
        self.write("1")
    }

    fn put_back(&self) -> Result<()> {
        self.write("0")
    }

    fn write(&self, text: &str) -> Result<()> {
        gate::pass(
            format_args!("write {text} to {}", self.expedited.display()),
            || fs::write(&self.expedited, text),
        )
    }
}

/// Grace periods are hurried until it is dropped.
#[derive(Debug)]
pub struct ExpeditedRcu {
    switches: Switches,
    mark: PathBuf,
}

impl ExpeditedRcu {
    /// Hurries for this many interfaces of the datapath below `root`, which is locked by the caller.
    ///
    /// `None`: they are too few; or the host has its own will; or we may not, which is said at level debug.
    pub fn begin(root: &Path, interfaces: usize) -> Option<ExpeditedRcu> {
        match interfaces >= MANY {
            true => ExpeditedRcu::begin_with(Switches::of_kernel(), root),
            false => None,
        }
    }

    fn begin_with(switches: Switches, root: &Path) -> Option<ExpeditedRcu> {
        if !switches.are_off() {
            return None;
        }
        let mark = mark(root);
        match begin(&switches, &mark) {
            Ok(()) => Some(ExpeditedRcu { switches, mark }),
            Err(error) => {
                log::debug!("grace periods are not hurried: {error:#}");
                None
            }
        }
    }
}

impl Drop for ExpeditedRcu {
    fn drop(&mut self) {
        end(&self.switches, &self.mark);
    }
}

/// Ends what a daemon that was killed had begun below this root, which is locked by the caller.
pub fn recover(root: &Path) {
    recover_with(&Switches::of_kernel(), root);
}

fn recover_with(switches: &Switches, root: &Path) {
    let mark = mark(root);
    if mark.is_dir() {
        end(switches, &mark);
    }
}

/// The mark first, so that there is no moment at which nobody knows whose doing it is.
fn begin(switches: &Switches, mark: &Path) -> Result<()> {
    gate::pass(format_args!("make the folder {}", mark.display()), || {
        fs::create_dir(mark)
    })?;
    switches.expedite().inspect_err(|_| remove(mark))
}

fn end(switches: &Switches, mark: &Path) {
    match switches.put_back() {
        Ok(()) => remove(mark),
        // The mark stays, for the next daemon.
        Err(error) => {
            log::warn!("grace periods are still hurried, which costs the host some CPU: {error:#}")
        }
    }
}

fn remove(mark: &Path) {
    if let Err(error) = fs::remove_dir(mark) {
        log::debug!("remove {}: {error}", mark.display());
    }
}

fn mark(root: &Path) -> PathBuf {
    root.join("dpd-expedited") // others may have pins beside ours
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        folder: tempfile::TempDir,
        switches: Switches,
    }

    impl Host {
        fn new(expedited: &str, normal: &str) -> Host {
            let folder = tempfile::tempdir().unwrap();
            let switches = Switches {
                expedited: folder.path().join("rcu_expedited"),
                normal: folder.path().join("rcu_normal"),
            };
            fs::write(&switches.expedited, expedited).unwrap();
            fs::write(&switches.normal, normal).unwrap();
            Host { folder, switches }
        }

        fn begin(&self) -> Option<ExpeditedRcu> {
            ExpeditedRcu::begin_with(self.switches.clone(), self.folder.path())
        }

        /// What the switch says, and whether there is a mark.
        fn is(&self) -> (String, bool) {
            let text = fs::read_to_string(&self.switches.expedited).unwrap();
            (text, mark(self.folder.path()).is_dir())
        }
    }

    #[test]
    fn it_is_as_it_was_afterwards() {
        let host = Host::new("0\n", "0\n");
        let hurry = host.begin().expect("it begins");
        assert_eq!(host.is(), ("1".to_owned(), true));
        drop(hurry);
        assert_eq!(host.is(), ("0".to_owned(), false));
    }

    #[test]
    fn a_host_of_its_own_will_is_left_alone() {
        for (expedited, normal) in [("1\n", "0\n"), ("0\n", "1\n"), ("0\n", "")] {
            let host = Host::new(expedited, normal);
            assert!(host.begin().is_none(), "{expedited:?} {normal:?}");
            assert_eq!(host.is(), (expedited.to_owned(), false));
        }
        let host = Host::new("0\n", "0\n");
        fs::remove_file(&host.switches.normal).unwrap();
        assert!(host.begin().is_none(), "a kernel without the switch");
    }

    #[test]
    fn the_next_daemon_ends_what_was_left() {
        let host = Host::new("0\n", "0\n");
        std::mem::forget(host.begin().expect("it begins"));
        recover_with(&host.switches, host.folder.path());
        assert_eq!(host.is(), ("0".to_owned(), false));
        // What the operator has switched on since is the operator's.
        fs::write(&host.switches.expedited, "1").unwrap();
        recover_with(&host.switches, host.folder.path());
        assert_eq!(host.is(), ("1".to_owned(), false));
    }

    #[test]
    fn a_switch_that_may_not_be_written_leaves_nothing() {
        let host = Host::new("0\n", "0\n");
        let kept = gate::keep(std::sync::Arc::new(|words: &str| {
            match words.starts_with("write ") {
                true => Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
                false => Ok(()),
            }
        }));
        assert!(host.begin().is_none());
        drop(kept);
        assert_eq!(host.is(), ("0\n".to_owned(), false));
    }

    #[test]
    fn few_interfaces_are_not_hurried_for() {
        assert!(ExpeditedRcu::begin(Path::new("/nowhere"), MANY - 1).is_none());
    }
}

//! Expedited RCU grace periods while very many programs are attached or detached (`daemon.expedite_rcu`).
//!
//! A tcx link is attached and detached under the lock of all interfaces, with a wait for a grace period of some 10 ms
//! (kernel/bpf/tcx.c, `tcx_entry_sync`), so that a thousand workloads take half a minute. While `rcu_expedited` is on, a
//! grace period takes microseconds of each CPU's time. The daemon that set the switch resets it; if it is killed, the next
//! daemon does, which finds the marker. That switch is the whole host's, hence the opt-in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::bpffs;
use super::call::call;
use super::op::Op;

/// So many interfaces take about a second.
pub const MANY: usize = 64;

/// The kernel's switches, as files (Documentation/admin-guide/kernel-parameters.txt, `rcupdate.rcu_expedited`).
#[derive(Clone, Debug)]
struct Switches {
    expedited: PathBuf,
    /// Overrides the other, for hosts on which no CPU is to be disturbed.
    normal: PathBuf,
}

impl Switches {
    fn of_kernel() -> Switches {
        Switches {
            expedited: PathBuf::from("/sys/kernel/rcu_expedited"),
            normal: PathBuf::from("/sys/kernel/rcu_normal"),
        }
    }

    /// Whether both have the kernel's default. A kernel without one of them is left alone.
    fn are_off(&self) -> bool {
        [&self.expedited, &self.normal]
            .into_iter()
            .all(|switch| fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0"))
    }

    fn expedite(&self) -> Result<()> {
        self.write("1")
    }

    fn reset(&self) -> Result<()> {
        self.write("0")
    }

    fn write(&self, value: &str) -> Result<()> {
        let path = &self.expedited;
        call(Op::WriteSwitch { path, value }, || fs::write(path, value))
    }
}

/// Grace periods are expedited until it is dropped.
#[derive(Debug)]
pub struct ExpeditedRcu {
    switches: Switches,
    marker: PathBuf,
}

impl ExpeditedRcu {
    /// Expedites grace periods for this many interfaces of the datapath below `root`, which is locked by the caller.
    ///
    /// `None`: they are fewer than [`MANY`]; or the host has set one of the switches itself; or the switch can't be written,
    /// which is logged at level debug.
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
        let marker = marker(root);
        match begin(&switches, &marker) {
            Ok(()) => Some(ExpeditedRcu { switches, marker }),
            Err(error) => {
                log::debug!("grace periods are not expedited: {error:#}");
                None
            }
        }
    }
}

impl Drop for ExpeditedRcu {
    fn drop(&mut self) {
        end(&self.switches, &self.marker);
    }
}

/// Resets the switch of a daemon that was killed, below this root, which is locked by the caller.
pub fn recover(root: &Path) {
    recover_with(&Switches::of_kernel(), root);
}

fn recover_with(switches: &Switches, root: &Path) {
    let marker = marker(root);
    if marker.is_dir() {
        end(switches, &marker);
    }
}

/// The marker first: a switch that is on without one would be taken for the operator's.
fn begin(switches: &Switches, marker: &Path) -> Result<()> {
    call(Op::CreateDir { path: marker }, || {
        bpffs::dir_builder().create(marker)
    })?;
    switches.expedite().inspect_err(|_| remove(marker))
}

fn end(switches: &Switches, marker: &Path) {
    match switches.reset() {
        Ok(()) => remove(marker),
        // The marker stays, for the next daemon.
        Err(error) => {
            log::warn!(
                "grace periods are still expedited, which costs the host some CPU: {error:#}"
            )
        }
    }
}

fn remove(marker: &Path) {
    if let Err(error) = fs::remove_dir(marker) {
        log::debug!("remove {}: {error}", marker.display());
    }
}

fn marker(root: &Path) -> PathBuf {
    root.join("dpd-expedited") // a name that no other tool with pins there uses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::sys::call::inject_faults;

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

        /// The switch, and whether there is a marker.
        fn state(&self) -> (String, bool) {
            let text = fs::read_to_string(&self.switches.expedited).unwrap();
            (text, marker(self.folder.path()).is_dir())
        }
    }

    #[test]
    fn the_switch_is_reset_afterwards() {
        let host = Host::new("0\n", "0\n");
        let expedited = host.begin().expect("it begins");
        assert_eq!(host.state(), ("1".to_owned(), true));
        drop(expedited);
        assert_eq!(host.state(), ("0".to_owned(), false));
    }

    #[test]
    fn a_host_that_has_set_a_switch_is_left_alone() {
        for (expedited, normal) in [("1\n", "0\n"), ("0\n", "1\n"), ("0\n", "")] {
            let host = Host::new(expedited, normal);
            assert!(host.begin().is_none(), "{expedited:?} {normal:?}");
            assert_eq!(host.state(), (expedited.to_owned(), false));
        }
        let host = Host::new("0\n", "0\n");
        fs::remove_file(&host.switches.normal).unwrap();
        assert!(host.begin().is_none(), "a kernel without the switch");
    }

    #[test]
    fn the_next_daemon_resets_what_a_killed_one_set() {
        let host = Host::new("0\n", "0\n");
        std::mem::forget(host.begin().expect("it begins"));
        recover_with(&host.switches, host.folder.path());
        assert_eq!(host.state(), ("0".to_owned(), false));
        // What the operator has switched on since stays.
        fs::write(&host.switches.expedited, "1").unwrap();
        recover_with(&host.switches, host.folder.path());
        assert_eq!(host.state(), ("1".to_owned(), false));
    }

    #[test]
    fn a_switch_that_can_not_be_written_leaves_no_marker() {
        let host = Host::new("0\n", "0\n");
        let guard = inject_faults(std::sync::Arc::new(|op: &Op<'_>| match op {
            Op::WriteSwitch { .. } => Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
            _ => Ok(()),
        }));
        assert!(host.begin().is_none());
        drop(guard);
        assert_eq!(host.state(), ("0\n".to_owned(), false));
    }

    #[test]
    fn for_few_interfaces_nothing_is_expedited() {
        assert!(ExpeditedRcu::begin(Path::new("/nowhere"), MANY - 1).is_none());
    }
}

//! Very many interfaces at once: with `daemon.expedite_rcu` grace periods are expedited meanwhile, and the switch is reset.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::{self, File};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::sys::call::inject_faults;
use dpd::bpf::sys::expedited_rcu::MANY;
use dpd::bpf::sys::op::Op;
use rustix::fs::FlockOperation;

use crate::host::{CONFIG, Host, on_host};

/// The key on.
const EXPEDITE: &str = "expedite_rcu = true\n";
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The switch is the whole host's: one test at a time has it, and leaves it off.
struct Switch {
    _lock: File,
}

impl Switch {
    fn lock() -> Switch {
        let switch = File::open(SWITCH).expect("open the kernel's switch");
        rustix::fs::flock(&switch, FlockOperation::LockExclusive).expect("lock the switch");
        assert_eq!(switch_now(), "0", "the machine's own {SWITCH}");
        Switch { _lock: switch }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        fs::write(SWITCH, "0").expect("put the switch back");
    }
}

fn switch_now() -> String {
    let text = fs::read_to_string(SWITCH).expect("read the kernel's switch");
    text.trim().to_owned()
}

/// The values of the switch at each link that is created or detached.
fn switch_at(is_due: fn(&Op<'_>) -> bool, job: impl FnOnce()) -> BTreeSet<String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let guard = {
        let seen = seen.clone();
        inject_faults(Arc::new(move |op| {
            if is_due(op) {
                seen.lock().unwrap().insert(switch_now());
            }
            Ok(())
        }))
    };
    job();
    drop(guard);
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn is_creation(op: &Op<'_>) -> bool {
    matches!(op, Op::CreateLink { .. })
}

fn is_detachment(op: &Op<'_>) -> bool {
    matches!(op, Op::DetachLink { .. })
}

/// Creates interfaces for so many endpoints more than in `CONFIG`; returns the configuration of all.
fn crowd(host: &Host, endpoints: usize) -> String {
    let mut text = CONFIG.to_owned();
    for number in 0..endpoints {
        host.namespace.ip(&format!(
            "link add crowd{number} up type veth peer name w{number}"
        ));
        write!(
            text,
            "[interfaces.crowd{number}]\nrole = \"endpoint\"\naddresses = [\"10.201.0.{number}\"]\nidentity = \"client\"\n"
        )
        .unwrap();
    }
    text
}

/// Many interfaces come, go, and come again; then all is cleaned up.
fn come_and_go(daemon: &str, expected: &str) {
    on_host(|host| {
        let few = host.config_with(daemon, CONFIG);
        let many = host.config_with(daemon, &crowd(host, MANY));
        let switch = Switch::lock();
        let mut reconciler = host.take_over(&few, Mechanism::Tcx);
        let mut seen =
            |is_due, config| switch_at(is_due, || drop(host.apply(&mut reconciler, config)));
        let off = BTreeSet::from(["0".to_owned()]);
        let expected = BTreeSet::from([expected.to_owned()]);
        assert_eq!(seen(is_creation, &few), off, "two interfaces come");
        assert_eq!(seen(is_creation, &many), expected, "many come");
        assert_eq!(switch_now(), "0");
        assert_eq!(seen(is_detachment, &few), expected, "many go");
        assert_eq!(switch_now(), "0");
        assert_eq!(seen(is_creation, &many), expected, "many come again");
        drop(reconciler);
        let may_expedite = many.daemon.expedite_rcu;
        let cleaned = switch_at(is_detachment, || {
            host.cleanup_with(may_expedite);
        });
        assert_eq!(
            (cleaned, switch_now()),
            (expected, "0".to_owned()),
            "cleanup"
        );
        assert!(!host.root().exists(), "nothing is left");
        drop(switch);
    });
}

#[test]
fn grace_periods_are_expedited_while_many_interfaces_come_and_go() {
    come_and_go(EXPEDITE, "1");
}

#[test]
fn without_the_key_the_switch_is_never_touched() {
    come_and_go("", "0");
}

#[test]
fn a_rollback_of_many_interfaces_resets_the_switch() {
    on_host(|host| {
        let many = host.config_with(EXPEDITE, &crowd(host, MANY));
        let switch = Switch::lock();
        let mut reconciler = host.start(Mechanism::Tcx);
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let guard = {
            let seen = seen.clone();
            inject_faults(Arc::new(move |op| match op {
                Op::CreateLink { hook: "egress" } => Err(rustix::io::Errno::NOSPC.into()),
                Op::DetachLink { .. } => {
                    seen.lock().unwrap().insert(switch_now());
                    Ok(())
                }
                _ => Ok(()),
            }))
        };
        let error = host.refused(&mut reconciler, &many, &host.world());
        drop(guard);
        let on = BTreeSet::from(["1".to_owned()]);
        assert_eq!(*seen.lock().unwrap(), on, "the rollback is expedited too");
        assert!(error.contains("create a tcx link at egress"), "{error}");
        assert_eq!(switch_now(), "0");
        assert_eq!(host.links().len(), 4, "what was there before");
        drop(switch);
    });
}

#[test]
fn the_next_daemon_resets_the_switch_of_one_that_was_killed() {
    on_host(|host| {
        let switch = Switch::lock();
        drop(host.start(Mechanism::Tcx));
        fs::create_dir(host.root().join("dpd-expedited")).expect("leave a marker");
        fs::write(SWITCH, "1").expect("leave the switch on");
        drop(host.start(Mechanism::Tcx));
        let has_marker = host.root().join("dpd-expedited").exists();
        assert_eq!((switch_now().as_str(), has_marker), ("0", false));
        drop(switch);
    });
}

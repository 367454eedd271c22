//! Very many interfaces at once: the kernel's grace periods are hurried meanwhile, and are afterwards what they were.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::{self, File};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use dpd::bpf::grace::MANY;
use rustix::fs::FlockOperation;

use crate::host::{CONFIG, Host, on_host};

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The switch is the whole machine's: one test at a time has it, of all that run, and leaves it off.
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

/// What the switch said at each operation that begins with these words.
fn switch_at(words: &'static str, job: impl FnOnce()) -> BTreeSet<String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let kept = {
        let seen = seen.clone();
        gate::keep(Arc::new(move |operation| {
            if operation.starts_with(words) {
                seen.lock().unwrap().insert(switch_now());
            }
            Ok(())
        }))
    };
    job();
    drop(kept);
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// `CONFIG` and so many endpoints more, whose interfaces are there.
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

#[test]
fn many_interfaces_are_hurried_for_when_they_come_and_go() {
    on_host(|host| {
        let (few, many) = (host.config(CONFIG), host.config(&crowd(host, MANY)));
        let switch = Switch::lock();
        let mut reconciler = host.take_over(&few, Mechanism::Tcx);
        let mut seen =
            |words, config| switch_at(words, || drop(host.apply(&mut reconciler, config)));
        let (attach, detach) = ("create a tcx link", "detach the link");
        let off = BTreeSet::from(["0".to_owned()]);
        let on = BTreeSet::from(["1".to_owned()]);
        assert_eq!(seen(attach, &few), off, "two interfaces come");
        assert_eq!(seen(attach, &many), on, "many come");
        assert_eq!(switch_now(), "0");
        assert_eq!(seen(detach, &few), on, "many go");
        assert_eq!(switch_now(), "0");
        assert_eq!(seen(attach, &many), on, "many come again");
        drop(reconciler);
        let cleaned = switch_at(detach, || {
            host.cleanup();
        });
        assert_eq!((cleaned, switch_now()), (on, "0".to_owned()), "cleanup");
        assert!(!host.root().exists(), "nothing is left");
        drop(switch);
    });
}

#[test]
fn a_refused_crowd_leaves_the_switch_as_it_was() {
    on_host(|host| {
        let many = host.config(&crowd(host, MANY));
        let switch = Switch::lock();
        let mut reconciler = host.start(Mechanism::Tcx);
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let kept = {
            let seen = seen.clone();
            gate::keep(Arc::new(move |operation| {
                if operation.starts_with("detach the link") {
                    seen.lock().unwrap().insert(switch_now());
                }
                match operation {
                    "create a tcx link at egress" => Err(rustix::io::Errno::NOSPC.into()),
                    _ => Ok(()),
                }
            }))
        };
        let error = host.refused(&mut reconciler, &many, &host.world());
        drop(kept);
        let on = BTreeSet::from(["1".to_owned()]);
        assert_eq!(*seen.lock().unwrap(), on, "taking back is hurried too");
        assert!(error.contains("create a tcx link at egress"), "{error}");
        assert_eq!(switch_now(), "0");
        assert_eq!(host.links().len(), 4, "what was there before");
        drop(switch);
    });
}

#[test]
fn the_next_daemon_ends_the_hurry_of_one_that_was_killed() {
    on_host(|host| {
        let switch = Switch::lock();
        drop(host.start(Mechanism::Tcx));
        fs::create_dir(host.root().join("dpd-expedited")).expect("leave a mark");
        fs::write(SWITCH, "1").expect("leave the switch on");
        drop(host.start(Mechanism::Tcx));
        let is_marked = host.root().join("dpd-expedited").exists();
        assert_eq!((switch_now().as_str(), is_marked), ("0", false));
        drop(switch);
    });
}

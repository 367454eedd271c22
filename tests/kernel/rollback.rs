//! Each operation of a change is refused in turn: before the switch all stays as it was and the error says which
//! operation it was; after the switch the change stands, and what was left is cleared away with the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::gate;
use dpd::config::Config;
use dpd::reconcile::Reconciler;
use rustix::io::Errno;

use crate::host::{CONFIG, Host, Picture, on_host};

/// What both configurations have. `lxc-turning` is an endpoint in one and an uplink in the other.
const COMMON: &str = r#"
[interfaces.lxc-client]
role      = "endpoint"
addresses = ["10.200.0.64"]
identity  = "client"

[interfaces.lxc-server]
role      = "endpoint"
addresses = ["10.200.0.44"]
identity  = "server"

[interfaces.uplink0]
role = "uplink"
xdp  = "native"
"#;

const OLD_TABLES: &str = r#"
[interfaces.lxc-leaving]
role      = "endpoint"
addresses = ["10.200.0.70"]
identity  = "client"

[interfaces.lxc-turning]
role      = "endpoint"
addresses = ["10.200.0.71"]
identity  = "client"

[identities]
client = { id = 20001 }
server = { id = 18203 }

[services.dns]
frontends = ["10.32.0.10:53/udp"]
backends  = ["10.200.0.44:53"]

[policies.dns-clients]
subject = "server"
ingress = [{ from = ["client"], ports = ["53/udp"] }]
"#;

const NEW_TABLES: &str = r#"
[interfaces.lxc-coming]
role      = "endpoint"
addresses = ["10.200.0.72"]
identity  = "client"

[interfaces.lxc-turning]
role = "uplink"
xdp  = "off"

[identities]
client = { id = 30001 }
server = { id = 28203 }

[services.dns]
frontends = ["10.32.0.11:53/udp"]
backends  = ["10.200.0.44:53", { address = "10.200.0.44:54", state = "maintenance" }]

[services.web]
frontends = ["10.32.0.11:80/tcp"]
backends  = ["10.200.0.44:80"]

[policies.dns-clients]
subject = "server"
ingress = [{ from = ["client"], ports = ["53-54/udp"] }]

[policy]
audit = true

[prefilter.abusers]
deny = ["203.0.113.0/24"]
"#;

/// A configuration and the service that answers under it.
struct Side<'a> {
    tables: &'a str,
    rest: &'a str,
    service: &'a str,
}

const OLD: Side<'_> = Side {
    tables: OLD_TABLES,
    rest: "",
    service: "10.32.0.10:53",
};

const NEW: Side<'_> = Side {
    tables: NEW_TABLES,
    rest: "",
    service: "10.32.0.11:53",
};

const RESIZED: Side<'_> = Side {
    rest: "[conntrack]\nsize = 4096\n",
    ..OLD
};

fn lay_interfaces(host: &Host) {
    for name in ["lxc-leaving", "lxc-turning", "lxc-coming", "uplink0"] {
        host.namespace
            .ip(&format!("link add {name} type veth peer name {name}-p"));
        host.namespace.ip(&format!("link set {name} up"));
    }
}

/// The configuration of a side; `note` changes nothing that a packet could meet.
fn configuration(host: &Host, side: &Side<'_>, note: &str) -> Config {
    let Side { tables, rest, .. } = side;
    let label = format!("client = {{ labels = [\"note={note}\"], id");
    let tables = tables.replace("client = { id", &label);
    host.config(&format!("{COMMON}{tables}{rest}"))
}

/// Refuses one operation of a change, each time another.
struct Refuser {
    /// Which it may refuse at all.
    may: fn(&str) -> bool,
    /// What was refused in other tries: an operation without its numbers, which differ from change to change, and how
    /// often it had been asked for before.
    refused: BTreeSet<(String, usize)>,
    asked: BTreeMap<String, usize>,
    /// What is refused in this try, in its own words.
    fired: Option<String>,
}

impl Refuser {
    fn ask(&mut self, words: &str) -> std::io::Result<()> {
        let name = without_numbers(words);
        let count = self.asked.entry(name.clone()).or_default();
        *count += 1;
        let may = self.fired.is_none() && (self.may)(words);
        if !may || !self.refused.insert((name, *count)) {
            return Ok(());
        }
        self.fired = Some(words.to_owned());
        Err(Errno::NOMEM.into())
    }
}

fn without_numbers(words: &str) -> String {
    let numbers = words.chars().filter(|c| !c.is_ascii_digit());
    numbers.collect()
}

/// What came of one try.
struct Outcome {
    refused: Option<String>,
    error: Option<String>,
}

/// When the tables of a change are written.
#[derive(Clone, Copy, PartialEq)]
enum Writing {
    Ahead,
    Then,
}

fn try_once(
    host: &Host,
    reconciler: &mut Reconciler,
    refuser: &Arc<Mutex<Refuser>>,
    config: &Arc<Config>,
    writing: Writing,
) -> Outcome {
    if writing == Writing::Ahead {
        reconciler.prepare_ahead(config.clone(), host.world());
    }
    refuser.lock().unwrap().asked.clear();
    let asked = refuser.clone();
    let kept = gate::keep(Arc::new(move |words| asked.lock().unwrap().ask(words)));
    let done = reconciler.apply(config, &host.world(), |_, _| {
        let fired = &refuser.lock().unwrap().fired;
        assert_eq!(*fired, None, "refused, and the change goes on");
    });
    drop(kept);
    Outcome {
        refused: refuser.lock().unwrap().fired.take(),
        error: done.err().map(|error| format!("{error:#}")),
    }
}

/// Refuses each operation of the change from one side to the other in turn that may be refused; answers with their
/// words.
fn refuse_each(
    host: &Host,
    reconciler: &mut Reconciler,
    [from, to]: [&Side<'_>; 2],
    may: fn(&str) -> bool,
    writing: Writing,
) -> Vec<String> {
    let refuser = Arc::new(Mutex::new(Refuser {
        may,
        refused: BTreeSet::new(),
        asked: BTreeMap::new(),
        fired: None,
    }));
    let mut words = Vec::new();
    let config = Arc::new(configuration(host, to, "x"));
    let clean = Picture::of(host).tidy("at the start");
    let mut left = Vec::new();
    for round in 0.. {
        let before = Picture::of(host);
        let outcome = try_once(host, reconciler, &refuser, &config, writing);
        let Some(refused) = outcome.refused else {
            assert_eq!(outcome.error, None, "nothing was refused");
            break;
        };
        let what = format!("round {round}, refused: {refused}");
        match outcome.error {
            Some(error) => {
                assert!(error.contains(&refused), "{what}: the error says {error}");
                assert!(
                    error.contains("MemoryMax="),
                    "{what}: no way out in {error}"
                );
                Picture::of(host).assert_still(&before, &what);
                assert!(
                    host.asks_at(from.service),
                    "{what}: the old service answers"
                );
            }
            None => {
                // The next look clears away what is left. There is none if nothing is.
                if !reconciler.is_unfinished() {
                    left.push(Picture::of(host).tidy(&what));
                }
                let epoch = reconciler.epoch();
                host.apply(reconciler, &config);
                assert!(
                    !reconciler.is_unfinished(),
                    "{what}: it would look for ever"
                );
                assert_eq!(
                    reconciler.epoch(),
                    epoch,
                    "{what}: nothing is to be changed"
                );
                assert!(host.asks_at(to.service), "{what}: the new service answers");
                left.push(Picture::of(host).tidy(&what));
            }
        }
        let good = configuration(host, from, &format!("r{round}"));
        host.apply(reconciler, &good);
        assert_eq!(
            Picture::of(host).tidy(&what),
            clean,
            "{what}: the next good file"
        );
        assert!(
            host.asks_at(from.service),
            "{what}: the next good file's service answers"
        );
        let folders = Picture::of(host).folders;
        assert_eq!(folders.len(), 1, "{what}: {folders:?}");
        words.push(refused);
    }
    let clean = Picture::of(host).tidy("at the end");
    assert!(
        left.iter().all(|left| *left == clean),
        "{left:?}, and at the end {clean:?}"
    );
    assert!(host.asks_at(to.service), "the new service answers at last");
    words
}

fn check(
    mechanism: Mechanism,
    changes: &[[&Side<'_>; 2]],
    may: fn(&str) -> bool,
    writing: Writing,
    expected: &[&str],
) {
    on_host(|host| {
        lay_interfaces(host);
        let first = configuration(host, changes[0][0], "start");
        let mut reconciler = host.take_over(&first, mechanism);
        host.apply(&mut reconciler, &first);
        assert!(host.asks_at(changes[0][0].service));
        let mut refused = Vec::new();
        for change in changes {
            refused.extend(refuse_each(host, &mut reconciler, *change, may, writing));
        }
        for words in expected {
            assert!(
                refused.iter().any(|refused| refused.contains(words)),
                "nothing was refused that says {words:?}: {refused:#?}"
            );
        }
    });
}

#[test]
fn each_operation_of_a_change_refused_in_turn_with_tcx() {
    let changes = [[&OLD, &NEW], [&NEW, &OLD]];
    check(
        Mechanism::Tcx,
        &changes,
        |_| true,
        Writing::Then,
        &[
            "make the folder",
            "make map policy for",
            "table services: write rows",
            "/catalog",
            "into slot",
            "create a tcx link at ingress",
            "update the link",
            "attach dpd_xdp_entry",
            "-egress",
            "detach the link",
            "unpin",
            "delete a row of",
        ],
    );
}

/// The tables have been written before: nothing of them may be left either.
#[test]
fn each_operation_of_a_switch_refused_in_turn() {
    check(
        Mechanism::Tcx,
        &[[&OLD, &NEW], [&NEW, &OLD]],
        |_| true,
        Writing::Ahead,
        &[
            "clear row",
            "create a tcx link at ingress",
            "update the link",
            "attach dpd_xdp_entry",
            "detach the link",
            "unpin",
            "delete a row of",
        ],
    );
}

#[test]
fn each_operation_of_a_change_refused_in_turn_with_clsact() {
    check(
        Mechanism::Clsact,
        &[[&OLD, &NEW]],
        |_| true,
        Writing::Then,
        &[
            "make the clsact qdisc",
            "put a filter into the clsact qdisc at egress",
            "attach dpd_xdp_entry",
            "take a filter off the clsact qdisc at ingress",
            "remove the clsact qdisc",
            "-qdisc",
            "-clsact",
        ],
    );
}

#[test]
fn operations_of_a_change_of_size_refused_in_turn() {
    // Each try loads the programs anew. Of many alike the first and the last will do, and what other changes have too
    // is refused there; all are refused where somebody has the time.
    let may = |words: &str| {
        const SOME: [&str; 12] = [
            "dpd_live",
            "dpd_ct_tcp",
            "load the eBPF programs",
            "-next/load/",
            "tail_handle_ipv4 into",
            "tail_respond into",
            "make the folder",
            "table prefilter into",
            "-ingress",
            "former dpd_from_container",
            "move ",
            "dpd_drop_counts",
        ];
        const BUT: [&str; 2] = ["/load/1/tail_", "/load/1/dpd_"];
        let is_first_or_last = words.ends_with("/dpd_scratch") || words.ends_with("/dpd_xdp_entry");
        std::env::var_os("DPD_TEST_EACH_OPERATION").is_some()
            || is_first_or_last
            || SOME.iter().any(|some| words.contains(some))
                && !BUT.iter().any(|but| words.contains(but))
    };
    check(
        Mechanism::Tcx,
        &[[&OLD, &RESIZED]],
        may,
        Writing::Then,
        &[
            "load the eBPF programs",
            "-next/maps/dpd_ct_tcp",
            "-next/load/1/dpd_xdp_entry",
            "put tail_respond into the chain",
            "lead to the former dpd_from_container",
            "lead to the former dpd_ct_tcp",
            "update the link",
            "move ",
        ],
    );
}

/// Refuses an operation that says the one word, and from then on all that say one of the others.
fn refuse_from(first: &'static str, then: &'static [&'static str]) -> gate::Kept {
    let begun = AtomicBool::new(false);
    gate::keep(Arc::new(move |words| {
        let begins = words.contains(first) && !begun.swap(true, Ordering::Relaxed);
        let goes_on = begun.load(Ordering::Relaxed) && then.iter().any(|then| words.contains(then));
        if begins || goes_on {
            return Err(Errno::NOMEM.into());
        }
        Ok(())
    }))
}

#[test]
fn an_interface_that_would_not_go_back_to_the_programs_before() {
    on_host(|host| {
        let old = host.config(CONFIG);
        let mut reconciler = host.start(Mechanism::Tcx);
        let [client, server] = ["lxc-client", "lxc-server"].map(|name| host.ifindex(name));
        assert!(client < server, "they are attached in this order");
        let config = host.config(&format!("{CONFIG}[conntrack]\nsize = 4096\n"));
        // The client's hook has the new programs when the server's refuses them, and keeps them.
        let links = host.pins().next().links();
        let update = |name: String| &*format!("update the link {}/{name}", links.display()).leak();
        let kept = refuse_from(
            update(format!("{server}-egress")),
            Vec::leak(vec![update(format!("{client}-"))]),
        );
        let error = host.refused(&mut reconciler, &config, &host.world());
        drop(kept);
        assert!(error.contains("interface lxc-server"), "{error}");
        assert!(
            host.asks_anew(),
            "a new connection meets one table on both hooks"
        );
        assert_eq!(reconciler.epoch(), 1, "under the configuration before");
        Picture::of(host).tidy("one load");
        host.apply(&mut reconciler, &old);
        assert!(host.asks_anew(), "the next good file's service answers");
        Picture::of(host).tidy("the size is as it was");
    });
}

#[test]
fn a_kernel_that_refuses_all_from_some_operation_on_and_recovers() {
    for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
        on_host(|host| {
            lay_interfaces(host);
            let [old, new] = [&OLD, &NEW].map(|side| configuration(host, side, "x"));
            let mut reconciler = host.take_over(&old, mechanism);
            host.apply(&mut reconciler, &old);
            for (round, first) in ["write rows", "into slot", "links/", "-xdp", "hits"]
                .into_iter()
                .enumerate()
            {
                let kept = refuse_from(first, &[""]);
                let done = reconciler.apply(&new, &host.world(), |_, _| {});
                drop(kept);
                let side = if done.is_ok() { &NEW } else { &OLD };
                assert!(host.asks_at(side.service), "{first}: {done:?}");
                for (side, note) in [(&NEW, "new"), (&OLD, "old")] {
                    let config = configuration(host, side, &format!("{note}{round}"));
                    host.apply(&mut reconciler, &config);
                    assert!(
                        host.asks_at(side.service),
                        "{first}: {note}, when it has recovered"
                    );
                    Picture::of(host).tidy(first);
                }
            }
        });
    }
}

//! Each operation of a change is made to fail in turn. A row says what must be left: before the commit all is rolled back and
//! the error names the operation; after it the change stands, and the next look cleans up the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dpd::bpf::attach::Mechanism;
use dpd::bpf::sys::call::{FaultGuard, inject_faults};
use dpd::bpf::sys::op::Op;
use dpd::config::Config;
use dpd::reconcile::Reconciler;
use rustix::io::Errno;

use crate::host::{CONFIG, Host, Picture, on_host};

/// What both configurations have. `lxc-turning` changes its role between them.
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

/// A configuration and the service that answers with it.
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

fn create_interfaces(host: &Host) {
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

/// What must be left of a change with a failed operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    /// All is as before the change: the operation comes before the commit.
    RolledBack,
    /// The change stands, and the next look does the rest: the operation comes after the commit.
    Committed,
}

/// A kind of operation, and what must be left if one of it fails.
struct Row {
    name: &'static str,
    is_it: fn(&Op<'_>) -> bool,
    left: &'static [Left],
}

const BEFORE: &[Left] = &[Left::RolledBack];
const AFTER: &[Left] = &[Left::Committed];
/// Of the kind there are operations before the commit, and others after it.
const BOTH: &[Left] = &[Left::RolledBack, Left::Committed];

macro_rules! row {
    ($pattern:pat $(if $guard:expr)?, $left:expr) => {
        Row {
            name: stringify!($pattern $(if $guard)?),
            is_it: |op| matches!(*op, $pattern $(if $guard)?),
            left: $left,
        }
    };
}

/// Makes one operation of a change fail, each time another.
struct Failing {
    /// The operations that may fail at all.
    may_fail: fn(&Op<'_>) -> bool,
    rows: &'static [Row],
    /// What failed in earlier rounds: an operation and how often it came before. Rounds differ in their epochs, loads and
    /// rows, so numbers are left out.
    failed: BTreeSet<(String, usize)>,
    seen: BTreeMap<String, usize>,
    /// What fails in this round: its text, and its rows.
    now: Option<Failed>,
}

#[derive(Clone, Debug, PartialEq)]
struct Failed {
    text: String,
    /// Index of its row; `None`: it has none.
    row: Option<usize>,
}

impl Failing {
    fn see(&mut self, op: &Op<'_>) -> std::io::Result<()> {
        let text = op.to_string();
        let name: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        let count = self.seen.entry(name.clone()).or_default();
        *count += 1;
        let may_fail = self.now.is_none() && (self.may_fail)(op);
        if !may_fail || !self.failed.insert((name, *count)) {
            return Ok(());
        }
        let row = self.rows.iter().position(|row| (row.is_it)(op));
        self.now = Some(Failed { text, row });
        Err(Errno::NOMEM.into())
    }
}

/// The result of one round.
struct Outcome {
    failed: Option<Failed>,
    error: Option<String>,
}

/// When the tables of a change are staged.
#[derive(Clone, Copy, PartialEq)]
enum Staging {
    Ahead,
    /// Those of another change are, which never comes.
    OthersAhead,
    WithTheChange,
}

fn try_once(
    host: &Host,
    reconciler: &mut Reconciler,
    failing: &Arc<Mutex<Failing>>,
    config: &Arc<Config>,
    staging: Staging,
) -> Outcome {
    // What is staged for another world is not used, and IPv6 addresses come a while after their interfaces.
    let world = host.world();
    match staging {
        Staging::Ahead => reconciler.stage_ahead(config.clone(), world.clone()),
        Staging::OthersAhead => {
            let other = Arc::new(configuration(host, &NEW, "another"));
            reconciler.stage_ahead(other, world.clone());
        }
        Staging::WithTheChange => {}
    }
    failing.lock().unwrap().seen.clear();
    let seen = failing.clone();
    let guard = inject_faults(Arc::new(move |op| seen.lock().unwrap().see(op)));
    let done = reconciler.apply(config, &world, |_, _| {
        let failed = &failing.lock().unwrap().now;
        assert_eq!(*failed, None, "it failed, and the change goes on");
    });
    drop(guard);
    Outcome {
        failed: failing.lock().unwrap().now.take(),
        error: done.err().map(|error| format!("{error:#}")),
    }
}

/// A change, and the operations of it that are to fail.
struct Case<'a> {
    from: &'a Side<'a>,
    to: &'a Side<'a>,
    may_fail: fn(&Op<'_>) -> bool,
    staging: Staging,
    rows: &'static [Row],
}

/// The change with each of its operations failing in turn; returns what was left, by row.
fn fail_each(
    host: &Host,
    reconciler: &mut Reconciler,
    case: &Case<'_>,
) -> BTreeMap<usize, Vec<Left>> {
    let failing = Arc::new(Mutex::new(Failing {
        may_fail: case.may_fail,
        rows: case.rows,
        failed: BTreeSet::new(),
        seen: BTreeMap::new(),
        now: None,
    }));
    let config = Arc::new(configuration(host, case.to, "x"));
    let clean = Picture::of(host).tidy("at the start");
    let mut by_row: BTreeMap<usize, Vec<Left>> = BTreeMap::new();
    let mut hooks = Vec::new();
    for round in 0.. {
        let before = Picture::of(host);
        let outcome = try_once(host, reconciler, &failing, &config, case.staging);
        let Some(failed) = outcome.failed else {
            assert_eq!(outcome.error, None, "nothing failed");
            break;
        };
        let what = format!("round {round}, failed: {}", failed.text);
        let row = failed
            .row
            .unwrap_or_else(|| panic!("{what}: it has no row"));
        let left = match outcome.error {
            Some(error) => {
                assert!(error.contains(&failed.text), "{what}: the error is {error}");
                assert!(error.contains("MemoryMax="), "{what}: no remedy in {error}");
                Picture::of(host).assert_still(&before, &what);
                assert!(host.asks_at(case.from.service), "{what}: the old service");
                Left::RolledBack
            }
            None => {
                hooks.extend(clean_up(host, reconciler, &config, &what));
                assert!(host.asks_at(case.to.service), "{what}: the new service");
                Left::Committed
            }
        };
        let expected = case.rows[row].left;
        assert!(
            expected.contains(&left),
            "{what}: {left:?}, not {expected:?}"
        );
        by_row.entry(row).or_default().push(left);
        restore(host, reconciler, case.from, &clean, &format!("r{round}"));
    }
    let clean = Picture::of(host).tidy("at the end");
    assert!(
        hooks.iter().all(|left| *left == clean),
        "{hooks:?}, and at the end {clean:?}"
    );
    assert!(host.asks_at(case.to.service), "the new service at last");
    by_row
}

/// The next look cleans up what is left, if anything is, and changes nothing else; returns what is on the hooks.
fn clean_up(
    host: &Host,
    reconciler: &mut Reconciler,
    config: &Config,
    what: &str,
) -> Vec<(Vec<String>, usize)> {
    let mut hooks = Vec::new();
    if !reconciler.is_unfinished() {
        hooks.push(Picture::of(host).tidy(what));
    }
    let epoch = reconciler.epoch();
    host.apply(reconciler, config);
    assert!(
        !reconciler.is_unfinished(),
        "{what}: it would retry forever"
    );
    assert_eq!(reconciler.epoch(), epoch, "{what}: no new generation");
    hooks.push(Picture::of(host).tidy(what));
    hooks
}

/// The next good configuration leaves nothing of a failure.
fn restore(
    host: &Host,
    reconciler: &mut Reconciler,
    from: &Side<'_>,
    clean: &(Vec<String>, usize),
    note: &str,
) {
    let good = configuration(host, from, note);
    host.apply(reconciler, &good);
    let what = format!("the next good file, {note}");
    assert_eq!(Picture::of(host).tidy(&what), *clean, "{what}");
    assert!(host.asks_at(from.service), "{what}: its service answers");
    let folders = Picture::of(host).folders;
    assert_eq!(folders.len(), 1, "{what}: {folders:?}");
}

/// Each row must be hit, in every way that it lists.
fn check(mechanism: Mechanism, cases: &[Case<'_>]) {
    on_host(|host| {
        create_interfaces(host);
        let first = configuration(host, cases[0].from, "start");
        let mut reconciler = host.take_over(&first, mechanism);
        host.apply(&mut reconciler, &first);
        assert!(host.asks_at(cases[0].from.service));
        let rows = cases[0].rows;
        let mut by_row: BTreeMap<usize, Vec<Left>> = BTreeMap::new();
        for case in cases {
            for (row, left) in fail_each(host, &mut reconciler, case) {
                by_row.entry(row).or_default().extend(left);
            }
        }
        let seen = |index| by_row.get(&index).cloned().unwrap_or_default();
        let missing = rows.iter().enumerate().flat_map(|(index, row)| {
            let left = row.left.iter();
            let missing = left.filter(move |left| !seen(index).contains(left));
            missing.map(|left| format!("{}: never {left:?}", row.name))
        });
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<String>::new());
    });
}

#[test]
fn each_operation_of_a_change_fails_in_turn_with_tcx() {
    let case = |from, to| Case {
        from,
        to,
        may_fail: |_| true,
        staging: Staging::WithTheChange,
        rows: TCX,
    };
    check(Mechanism::Tcx, &[case(&OLD, &NEW), case(&NEW, &OLD)]);
}

const TCX: &[Row] = &[
    row!(Op::CreateDir { .. }, BEFORE),
    row!(Op::CreateMap { map: "policy", .. }, BEFORE),
    row!(Op::CreateMap { .. }, BEFORE),
    row!(
        Op::WriteRows {
            table: "services",
            ..
        },
        BEFORE
    ),
    row!(Op::WriteRows { .. }, BEFORE),
    row!(Op::Pin { path } if path.ends_with("catalog"), BEFORE),
    row!(Op::Pin { .. }, BEFORE),
    row!(Op::SetMode { .. }, BEFORE),
    row!(Op::FillSlot { .. }, BEFORE),
    row!(Op::CreateLink { hook: "ingress" }, BEFORE),
    row!(Op::CreateLink { .. }, BEFORE),
    row!(Op::UpdateLink { .. }, BEFORE),
    row!(Op::AttachXdp { .. }, BEFORE),
    row!(Op::MarkUnmanaged { .. }, BEFORE),
    row!(Op::ClearCounters { .. }, BEFORE),
    row!(Op::OpenMap { .. }, BOTH),
    row!(Op::DetachLink { .. }, AFTER),
    row!(Op::Unpin { .. }, BOTH),
    row!(Op::DeleteRow { .. }, AFTER),
    row!(Op::RemoveDir { .. }, AFTER),
];

/// The tables were staged before: nothing of them may be left either.
#[test]
fn each_operation_of_a_commit_fails_in_turn() {
    let case = |from, to| Case {
        from,
        to,
        may_fail: |_| true,
        staging: Staging::Ahead,
        rows: STAGED_AHEAD,
    };
    check(Mechanism::Tcx, &[case(&OLD, &NEW), case(&NEW, &OLD)]);
}

const STAGED_AHEAD: &[Row] = &[
    row!(Op::ClearCounters { .. }, BEFORE),
    row!(Op::CreateLink { hook: "ingress" }, BEFORE),
    row!(Op::CreateLink { .. }, BEFORE),
    row!(Op::UpdateLink { .. }, BEFORE),
    row!(Op::AttachXdp { .. }, BEFORE),
    row!(Op::MarkUnmanaged { .. }, BEFORE),
    row!(Op::OpenMap { .. }, BOTH),
    row!(Op::Pin { .. }, BEFORE),
    row!(Op::DetachLink { .. }, AFTER),
    row!(Op::Unpin { .. }, BOTH),
    row!(Op::DeleteRow { .. }, AFTER),
    row!(Op::RemoveDir { .. }, AFTER),
];

/// The tables of the other change are in the slots that the change writes first.
#[test]
fn tables_that_were_staged_for_another_change_are_not_kept() {
    let case = Case {
        from: &OLD,
        to: &NEW,
        may_fail: |op| matches!(*op, Op::Unpin { path } if is_of_generation(path)),
        staging: Staging::OthersAhead,
        rows: OTHERS_AHEAD,
    };
    check(Mechanism::Tcx, &[case]);
}

const OTHERS_AHEAD: &[Row] = &[row!(Op::Unpin { .. }, BOTH)];

fn is_of_generation(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("gen"))
}

#[test]
fn each_operation_of_a_change_fails_in_turn_with_clsact() {
    let case = Case {
        from: &OLD,
        to: &NEW,
        may_fail: |_| true,
        staging: Staging::WithTheChange,
        rows: CLSACT,
    };
    check(Mechanism::Clsact, &[case]);
}

const CLSACT: &[Row] = &[
    row!(Op::CreateQdisc, BEFORE),
    row!(Op::AttachFilter { hook: "egress" }, BEFORE),
    row!(Op::AttachFilter { .. }, BEFORE),
    row!(Op::AttachXdp { .. }, BEFORE),
    row!(Op::CreateDir { path } if is_marker(path, "-qdisc"), BEFORE),
    row!(Op::CreateDir { path } if is_marker(path, "-clsact"), BEFORE),
    row!(Op::CreateDir { .. }, BEFORE),
    row!(Op::DetachFilter { hook: "ingress" }, AFTER),
    row!(Op::DetachFilter { .. }, AFTER),
    row!(Op::DeleteQdisc, AFTER),
    row!(Op::RemoveDir { path } if is_marker(path, "-qdisc"), AFTER),
    row!(Op::RemoveDir { path } if is_marker(path, "-clsact"), AFTER),
    row!(Op::CreateMap { .. }, BEFORE),
    row!(Op::WriteRows { .. }, BEFORE),
    row!(Op::Pin { .. }, BEFORE),
    row!(Op::SetMode { .. }, BEFORE),
    row!(Op::FillSlot { .. }, BEFORE),
    row!(Op::MarkUnmanaged { .. }, BEFORE),
    row!(Op::ClearCounters { .. }, BEFORE),
    row!(Op::OpenMap { .. }, BOTH),
    row!(Op::Unpin { .. }, BOTH),
    row!(Op::DeleteRow { .. }, AFTER),
];

fn is_marker(path: &Path, suffix: &str) -> bool {
    path.to_string_lossy().ends_with(suffix)
}

#[test]
fn operations_of_a_change_of_size_fail_in_turn() {
    let case = Case {
        from: &OLD,
        to: &RESIZED,
        may_fail: is_worth_a_load,
        staging: Staging::WithTheChange,
        rows: RESIZE,
    };
    check(Mechanism::Tcx, &[case]);
}

/// Each round loads the programs again. Of many operations alike the first and the last will do, and other changes have the
/// rest; all of them fail with `DPD_TEST_EACH_OPERATION` set.
fn is_worth_a_load(op: &Op<'_>) -> bool {
    let is_first_load = |path: &Path| path.parent().is_some_and(|dir| dir.ends_with("load/1"));
    let is_next = |path: &Path| path.to_string_lossy().contains("-next/");
    let is_it = match *op {
        Op::LoadPrograms | Op::CreateDir { .. } | Op::CreatePinDir { .. } | Op::MoveDir { .. } => {
            true
        }
        Op::FillChain { step } => ["tail_handle_ipv4", "tail_respond"].contains(&step),
        Op::FillSlot { table, .. } => table == "prefilter",
        Op::PublishPrevious { object } => ["dpd_from_container", "dpd_ct_tcp"].contains(&object),
        Op::ReuseMap { map } => map == "dpd_drop_counts",
        Op::Unpin { path } | Op::Pin { path } | Op::SetMode { path } | Op::OpenMap { path } => {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.unwrap_or_default();
            let is_one = ["dpd_live", "dpd_ct_tcp", "dpd_drop_counts"].contains(&name);
            let is_end = ["dpd_scratch", "dpd_xdp_entry"].contains(&name);
            is_one || is_end || name.ends_with("-ingress") || (is_first_load(path) && is_next(path))
        }
        Op::UpdateLink { path } => is_marker(path, "-ingress"),
        Op::DeleteRow { map } => map == "dpd_drop_counts",
        _ => false,
    };
    is_it || std::env::var_os("DPD_TEST_EACH_OPERATION").is_some()
}

const RESIZE: &[Row] = &[
    row!(Op::LoadPrograms, BEFORE),
    row!(Op::ReuseMap { .. }, BEFORE),
    row!(
        Op::FillChain {
            step: "tail_respond"
        },
        BEFORE
    ),
    row!(Op::FillChain { .. }, BEFORE),
    row!(Op::Pin { path } if path.ends_with("maps/dpd_ct_tcp"), BEFORE),
    row!(Op::Pin { path } if path.ends_with("load/1/dpd_xdp_entry"), BEFORE),
    row!(Op::Pin { .. }, BEFORE),
    row!(Op::SetMode { .. }, BEFORE),
    row!(Op::CreatePinDir { .. }, BEFORE),
    row!(Op::CreateDir { .. }, BEFORE),
    // Published before the programs are attached, and once more when the migration begins.
    row!(
        Op::PublishPrevious {
            object: "dpd_from_container"
        },
        BEFORE
    ),
    row!(
        Op::PublishPrevious {
            object: "dpd_ct_tcp"
        },
        BOTH
    ),
    row!(Op::FillSlot { .. }, BEFORE),
    row!(Op::UpdateLink { .. }, BEFORE),
    row!(Op::OpenMap { .. }, BOTH),
    row!(Op::Unpin { .. }, AFTER),
    row!(Op::MoveDir { .. }, AFTER),
];

/// Makes an operation fail, and from then on all others of a kind.
fn fail_from(
    is_first: impl Fn(&Op<'_>) -> bool + Send + Sync + 'static,
    is_later: impl Fn(&Op<'_>) -> bool + Send + Sync + 'static,
) -> FaultGuard {
    let has_begun = AtomicBool::new(false);
    inject_faults(Arc::new(move |op| {
        let begins = is_first(op) && !has_begun.swap(true, Ordering::Relaxed);
        if begins || (has_begun.load(Ordering::Relaxed) && is_later(op)) {
            return Err(Errno::NOMEM.into());
        }
        Ok(())
    }))
}

#[test]
fn an_interface_whose_programs_can_not_be_rolled_back() {
    on_host(|host| {
        let old = host.config(CONFIG);
        let mut reconciler = host.start(Mechanism::Tcx);
        let [client, server] = ["lxc-client", "lxc-server"].map(|name| host.ifindex(name));
        assert!(client < server, "they are attached in this order");
        let config = host.config(&format!("{CONFIG}[conntrack]\nsize = 4096\n"));
        // The client's hooks have the new programs when the server's refuses them, and can't be updated back.
        let links = host.pins().next().links();
        let last = links.join(format!("{server}-egress"));
        let of_client = ["ingress", "egress"].map(|side| links.join(format!("{client}-{side}")));
        let is_last = move |op: &Op<'_>| matches!(op, Op::UpdateLink { path } if *path == last);
        let is_client = move |op: &Op<'_>| matches!(op, Op::UpdateLink { path } if of_client.iter().any(|link| link == path));
        let guard = fail_from(is_last, is_client);
        let error = host.refused(&mut reconciler, &config, &host.world());
        drop(guard);
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
fn all_operations_fail_from_one_on_until_the_kernel_recovers() {
    for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
        on_host(|host| {
            create_interfaces(host);
            let [old, new] = [&OLD, &NEW].map(|side| configuration(host, side, "x"));
            let mut reconciler = host.take_over(&old, mechanism);
            host.apply(&mut reconciler, &old);
            type First = fn(&Op<'_>) -> bool;
            let rows: [(&str, First); 5] = [
                ("rows", |op| matches!(op, Op::WriteRows { .. })),
                ("slots", |op| {
                    matches!(op, Op::FillSlot { .. } | Op::ClearSlot { .. })
                }),
                ("links", |op| text_has(op, "links/")),
                ("XDP", |op| text_has(op, "-xdp")),
                ("hits", |op| text_has(op, "hits")),
            ];
            for (round, (first, is_first)) in rows.into_iter().enumerate() {
                let guard = fail_from(is_first, |_| true);
                let done = reconciler.apply(&new, &host.world(), |_, _| {});
                drop(guard);
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

/// For operations that have a path or name in common, whatever their kind.
fn text_has(op: &Op<'_>, word: &str) -> bool {
    op.to_string().contains(word)
}

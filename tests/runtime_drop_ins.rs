//! Runtime drop-ins: which of them are in effect, and why the others are skipped. Run as root: they have to be root's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use dpd::config::{InEffect, Loaded, load, load_once};
use tempfile::TempDir;

const OPERATOR: &str = "
[identities.base]
id     = 300
labels = [\"tier=base\"]
[interfaces.lxc-base]
role      = \"endpoint\"
addresses = [\"10.1.0.1\"]
identity  = \"base\"
[services.dns]
frontends = [\"10.32.0.10:53/udp\"]
backends  = [\"10.1.0.1:53\"]
[policies.base]
subject = \"base\"
ingress = [{ from = [\"label:tier=base\"] }]
";

/// A node's files.
struct Node(TempDir);

impl Node {
    fn new() -> Node {
        let node = Node(tempfile::tempdir().unwrap());
        fs::create_dir(node.folder()).unwrap();
        node.operator("");
        node
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn folder(&self) -> std::path::PathBuf {
        self.path().join("run.d")
    }

    /// The operator's file with more of it.
    fn operator(&self, more: &str) {
        let folder = self.folder();
        let text = format!("[daemon]\nruntime_config = {folder:?}\n{OPERATOR}{more}");
        fs::write(self.path().join("config.toml"), text).unwrap();
    }

    fn drop_in(&self, name: &str, text: &str) {
        fs::write(self.folder().join(name), text).unwrap();
    }

    fn load(&self, in_effect: &InEffect) -> Loaded {
        let loaded = load_once(&self.path().join("config.toml"), in_effect);
        loaded.unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn loaded(&self) -> Loaded {
        self.load(&InEffect::new())
    }
}

/// A workload with an identity of its own.
fn workload(name: &str, number: u32) -> String {
    let (high, low) = (number / 256, number % 256);
    format!(
        "[identities.{name}]\nid = {}\n[interfaces.{name}]\nrole = \"endpoint\"\naddresses = [\"10.2.{high}.{low}\"]\nidentity = \"{name}\"\n",
        1000 + number
    )
}

/// The names of those in effect, as `a b`.
fn in_effect(loaded: &Loaded) -> String {
    let named = loaded
        .drop_ins
        .iter()
        .filter(|drop_in| !drop_in.is_skipped());
    let names = named.map(|drop_in| drop_in.path.file_stem().unwrap().to_string_lossy());
    Vec::from_iter(names).join(" ")
}

/// Why one is skipped.
fn reason(loaded: &Loaded, name: &str) -> String {
    let mut drop_ins = loaded.drop_ins.iter();
    let drop_in = drop_ins.find(|drop_in| drop_in.path.ends_with(name));
    drop_in.expect(name).reason().expect("it is skipped")
}

#[test]
fn a_wrong_one_is_skipped_as_a_whole_with_its_place() {
    let rows = [
        ("no TOML", "[identities.x]\nid = \n", "x.toml:2:6"),
        ("empty", "", "the drop-in is empty"),
        (
            "an unknown key",
            "[identities.x]\nid = 400\ncolour = 1\n",
            "`identities.x` has no key `colour`",
        ),
        (
            "an unknown table",
            "[colours.x]\nid = 400\n",
            "there is no key or table `colours`",
        ),
        (
            "a missing key",
            "[identities.x]\nlabels = []\n",
            "`identities.x` lacks the key `id`",
        ),
        ("a wrong value", "[identities.x]\nid = 7\n", "x.toml:2:6"),
        (
            "a reference to nothing",
            "[policies.x]\nsubject = \"nobody\"\ningress = []\n",
            "x.toml:2:11",
        ),
        (
            "a backend by an identity of nothing",
            "[services.x]\nfrontends = [\"10.32.0.20:1/tcp\"]\nbackends = [{ identity = \"nobody\", port = 1 }]\n",
            "x.toml:3:26",
        ),
        (
            "an endpoint of a node with an identity of nothing",
            "[nodes.x]\naddresses = [\"192.0.2.2\"]\nendpoints = { \"10.9.0.1\" = \"nobody\" }\n",
            "x.toml:3:28",
        ),
        (
            "an endpoint of the operator's behind another node",
            "[nodes.x]\naddresses = [\"192.0.2.2\"]\nendpoints = { \"10.1.0.1\" = \"base\" }\n",
            "10.1.0.1 of the node `x` belongs to the endpoint `lxc-base`",
        ),
        (
            "a label of nothing",
            "[policies.x]\nsubject = \"base\"\ningress = [{ from = [\"label:a=b\"] }]\n",
            "no identity carries the label \"a=b\"",
        ),
        (
            "a name of the operator's",
            "[identities.base]\nid = 400\n",
            "`identities.base.id` is given twice",
        ),
        (
            "an id of the operator's",
            "[identities.x]\nid = 300\n",
            "the id 300 already belongs to `base`",
        ),
        (
            "an address of the operator's",
            "[interfaces.x]\nrole = \"endpoint\"\naddresses = [\"10.1.0.1\"]\nidentity = \"base\"\n",
            "10.1.0.1 already belongs to the endpoint `lxc-base`",
        ),
        (
            "an endpoint at a service of the operator's",
            "[interfaces.x]\nrole = \"endpoint\"\naddresses = [\"10.32.0.10\"]\nidentity = \"base\"\n",
            "belongs to the endpoint `x`",
        ),
        (
            "settings",
            "[policy]\nenforcement = \"never\"\n",
            "a runtime drop-in can't have `policy`: it is the operator's",
        ),
        (
            "what the host's own sockets reach",
            "[host]\nservices = false\n",
            "a runtime drop-in can't have `host`: it is the operator's",
        ),
        (
            "the daemon's table",
            "[daemon]\nlog = \"stderr\"\n",
            "can't have `daemon`",
        ),
    ];
    for (what, text, expected) in rows {
        let node = Node::new();
        node.drop_in("x.toml", &format!("{text}[identities.also]\nid = 500\n"));
        if text.is_empty() {
            node.drop_in("x.toml", "");
        }
        node.drop_in("y.toml", &workload("y", 1));
        let loaded = node.loaded();
        assert_eq!(in_effect(&loaded), "y", "{what}");
        let reason = reason(&loaded, "x.toml");
        assert!(reason.contains(expected), "{what}: {reason}");
        assert!(
            reason.contains("x.toml:1:") || reason.contains("x.toml:"),
            "{what}: {reason}"
        );
        assert!(
            !loaded.config.identities.contains_key("also"),
            "{what}: skipped whole"
        );
        assert!(loaded.config.interfaces.contains_key("y"), "{what}");
    }
}

#[test]
fn they_may_hold_every_table_of_workloads() {
    let node = Node::new();
    let text = workload("x", 1)
        + "[nodes.b]\naddresses = [\"192.0.2.2\"]\n[services.web]\nfrontends = [\"10.32.0.80:80/tcp\"]\nbackends = [\"10.2.0.1:80\"]\n\
           [policies.x]\nsubject = \"x\"\ningress = [{ from = [\"base\"] }]\n[prefilter.p]\ndeny = [\"203.0.113.0/24\"]\n";
    node.drop_in("x.toml", &text);
    let loaded = node.loaded();
    assert_eq!(in_effect(&loaded), "x");
    let config = &loaded.config;
    assert!(config.nodes.contains_key("b") && config.services.contains_key("web"));
    assert!(config.policies.contains_key("x") && config.prefilter.contains_key("p"));
    let rule = &config.policies["x"].ingress.as_ref().unwrap()[0];
    assert!(rule.location.file.ends_with("run.d/x.toml"));
}

#[test]
fn what_is_in_effect_wins_then_the_names_decide() {
    let node = Node::new();
    node.drop_in("m.toml", &workload("m", 1));
    let first = node.loaded();
    node.drop_in("a.toml", &workload("a", 1));
    node.drop_in("z.toml", &workload("z", 1));
    assert_eq!(in_effect(&node.load(&first.config.drop_ins)), "m");
    assert_eq!(in_effect(&node.loaded()), "a", "by the names alone");
    let reason = reason(&node.load(&first.config.drop_ins), "a.toml");
    assert!(
        reason.contains("m.toml:") && reason.contains("a.toml:"),
        "{reason}"
    );

    // It has changed, so it is not in effect as it is now.
    node.drop_in("m.toml", &format!("# changed\n{}", workload("m", 1)));
    assert_eq!(in_effect(&node.load(&first.config.drop_ins)), "a");
    fs::remove_file(node.folder().join("a.toml")).unwrap();
    assert_eq!(in_effect(&node.load(&first.config.drop_ins)), "m");
}

#[test]
fn the_operators_files_win() {
    let node = Node::new();
    node.drop_in("x.toml", &workload("x", 1));
    let loaded = node.loaded();
    node.operator(&workload("mine", 1));
    let after = node.load(&loaded.config.drop_ins);
    assert_eq!(in_effect(&after), "");
    assert!(after.config.interfaces.contains_key("mine"));
    assert!(reason(&after, "x.toml").contains("config.toml:"));
}

#[test]
fn a_node_port_does_not_take_a_frontend_of_the_operators() {
    let node = Node::new();
    node.operator(
        "[node]\naddresses = [\"192.0.2.1\"]\n[services.own]\nfrontends = [\"192.0.2.1:80/tcp\"]\n\
         backends = [\"10.1.0.1:80\"]\n",
    );
    let service = |port: u16| {
        format!(
            "[services.x]\nfrontends = [\"node:{port}/tcp\"]\nbackends = [\"10.1.0.1:80\"]\nexternal = true\n"
        )
    };
    node.drop_in("x.toml", &service(81));
    assert_eq!(in_effect(&node.loaded()), "x");
    node.drop_in("x.toml", &service(80));
    let loaded = node.loaded();
    assert_eq!(in_effect(&loaded), "");
    let reason = reason(&loaded, "x.toml");
    assert!(reason.contains("already belongs to `x`"), "{reason}");
    assert!(reason.contains("x.toml:2:"), "{reason}");
}

#[test]
fn the_operators_files_must_be_valid_alone() {
    let node = Node::new();
    node.drop_in("x.toml", "[identities.x]\nid = 400\n");
    node.operator("[policies.p]\nsubject = \"x\"\ningress = []\n");
    let problems = load(&node.path().join("config.toml")).unwrap_err();
    assert!(
        problems.to_string().contains("there is no identity \"x\""),
        "{problems}"
    );
}

/// `a` needs `b`, `b` needs `c`; `c` is `end`.
fn chain(node: &Node, end: &str) {
    let link = |name: &str, id: u32, subject: &str| {
        format!(
            "[identities.{name}]\nid = {id}\n[policies.{name}]\nsubject = \"{subject}\"\ningress = []\n"
        )
    };
    node.drop_in("a.toml", &link("a", 401, "b"));
    node.drop_in("b.toml", &link("b", 402, "c"));
    node.drop_in("c.toml", end);
}

#[test]
fn skipping_one_skips_those_that_build_on_it() {
    let node = Node::new();
    chain(&node, "[identities.c]\nid = 403\n");
    assert_eq!(in_effect(&node.loaded()), "a b c");
    chain(&node, "[identities.c]\nid = 3\n");
    node.drop_in("d.toml", &workload("d", 1));
    let loaded = node.loaded();
    assert_eq!(in_effect(&loaded), "d");
    let text = reason(&loaded, "a.toml");
    assert!(
        text.contains("a.toml:4:11") && text.contains("b.toml defines it, and is skipped"),
        "{text}"
    );
    // It becomes right, and all are in effect.
    chain(&node, "[identities.c]\nid = 403\n");
    assert_eq!(in_effect(&node.load(&loaded.config.drop_ins)), "a b c d");
    // In a circle too, which is whole or not at all.
    chain(
        &node,
        "[identities.c]\nid = 403\n[policies.c]\nsubject = \"a\"\ningress = []\n",
    );
    assert_eq!(in_effect(&node.loaded()), "a b c d");
    chain(
        &node,
        "[identities.c]\nid = 300\n[policies.c]\nsubject = \"a\"\ningress = []\n",
    );
    assert_eq!(in_effect(&node.loaded()), "d");
}

#[test]
fn what_lost_against_a_skipped_one_is_in_effect() {
    let node = Node::new();
    // `b` has the address of `c`, and builds on `x`, which has the name of `a`.
    node.drop_in("a.toml", "[identities.same]\nid = 401\n");
    node.drop_in(
        "b.toml",
        &(workload("b", 7) + "[policies.b]\nsubject = \"x\"\ningress = []\n"),
    );
    node.drop_in("c.toml", &workload("c", 7));
    node.drop_in(
        "x.toml",
        "[identities.same]\nid = 402\n[identities.x]\nid = 403\n",
    );
    assert_eq!(in_effect(&node.loaded()), "a c");
}

#[test]
fn a_service_is_in_effect_with_the_identity_of_its_backends() {
    let node = Node::new();
    node.drop_in(
        "a.toml",
        "[services.x]\nfrontends = [\"10.32.0.20:1/tcp\"]\nbackends = [{ identity = \"job\", port = 1 }]\n",
    );
    assert_eq!(in_effect(&node.loaded()), "");
    node.drop_in("b.toml", &workload("job", 1));
    assert_eq!(in_effect(&node.loaded()), "a b");
    node.drop_in("b.toml", &format!("{}colour = 1\n", workload("job", 1)));
    let loaded = node.loaded();
    assert_eq!(in_effect(&loaded), "");
    let why = reason(&loaded, "a.toml");
    assert!(why.contains("b.toml defines it, and is skipped"), "{why}");
}

#[test]
fn tables_of_several_join() {
    let node = Node::new();
    node.drop_in("a.toml", "[identities.x]\nid = 400\n");
    node.drop_in("b.toml", "[identities.x]\nlabels = [\"a=b\"]\n");
    assert_eq!(in_effect(&node.loaded()), "a b");
    fs::remove_file(node.folder().join("a.toml")).unwrap();
    assert_eq!(in_effect(&node.loaded()), "");
}

#[test]
fn only_roots_regular_files_are_read() {
    let node = Node::new();
    let folder = node.folder();
    let text = |name: &str| workload(name, 1);
    node.drop_in("good.toml", &text("good"));
    for name in ["owner", "group", "others"] {
        node.drop_in(&format!("{name}.toml"), "[identities.no]\nid = 999\n");
    }
    chown(folder.join("owner.toml"), Some(65534), None).unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    mode("group.toml", 0o664);
    mode("others.toml", 0o646);
    fs::create_dir(folder.join("folder.toml")).unwrap();
    symlink(folder.join("good.toml"), folder.join("link.toml")).unwrap();
    symlink("nowhere", folder.join("dangling.toml")).unwrap();
    let fifo = folder.join("fifo.toml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket.toml")).unwrap();
    fs::File::create(folder.join("large.toml"))
        .unwrap()
        .set_len(5 << 20)
        .unwrap();
    fs::write(folder.join("latin.toml"), b"[identities.x]\n# \xe9\n").unwrap();
    node.drop_in(".hidden.toml", "nonsense");
    node.drop_in("other.conf", "nonsense");

    let loaded = node.loaded();
    assert_eq!(in_effect(&loaded), "good");
    assert_eq!(loaded.drop_ins.len(), 11);
    for (name, expected) in [
        (
            "owner.toml",
            "the drop-in belongs to the user 65534, not to root",
        ),
        (
            "group.toml",
            "can be written by users other than root: its mode is 0664",
        ),
        ("others.toml", "its mode is 0646"),
        ("folder.toml", "must be a regular file"),
        ("link.toml", "this is a symlink"),
        ("dangling.toml", "this is a symlink"),
        ("fifo.toml", "must be a regular file"),
        ("socket.toml", "this is a socket"),
        ("large.toml", "larger than 4 MiB"),
        ("latin.toml", "latin.toml:2:3"),
    ] {
        let reason = reason(&loaded, name);
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

#[test]
fn the_folder_is_roots_too_and_may_be_absent() {
    let node = Node::new();
    node.drop_in("x.toml", &workload("x", 1));
    let mode = |mode| fs::set_permissions(node.folder(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    let loaded = node.loaded();
    assert_eq!(in_effect(&loaded), "");
    assert!(
        reason(&loaded, "run.d").contains("the folder can be written by users other than root")
    );
    mode(0o755);
    chown(node.folder(), Some(65534), None).unwrap();
    assert!(reason(&node.loaded(), "run.d").contains("the folder belongs to the user 65534"));
    chown(node.folder(), Some(0), None).unwrap();
    assert_eq!(in_effect(&node.loaded()), "x");
    fs::remove_dir_all(node.folder()).unwrap();
    assert!(node.loaded().drop_ins.is_empty());
    fs::write(node.folder(), "").unwrap();
    assert!(reason(&node.loaded(), "run.d").contains("it is not a folder"));
}

/// A thousand drop-ins need about the time of one file of their size, whatever is wrong with them: a test by counting would
/// need a clock, so this one only has to end.
#[test]
fn a_thousand_of_each_kind() {
    type Text = fn(u32) -> String;
    let own = |nth: u32| workload(&format!("w{nth}"), nth);
    let rows: [(&str, Text, usize); 5] = [
        ("right", own, 1000),
        (
            "all with a wrong key",
            |nth| workload(&format!("w{nth}"), nth) + "colour = 1\n",
            0,
        ),
        (
            "all with one address",
            |nth| {
                let text = workload(&format!("w{nth}"), nth);
                let lines = text
                    .lines()
                    .map(|line| match line.starts_with("addresses") {
                        true => "addresses = [\"10.2.0.1\"]",
                        false => line,
                    });
                Vec::from_iter(lines).join("\n")
            },
            1,
        ),
        (
            "each builds on the next, and the last on nothing",
            |nth| {
                let (id, next) = (1000 + nth, nth + 1);
                format!(
                    "[identities.w{nth}]\nid = {id}\n[policies.w{nth}]\nsubject = \"w{next}\"\ningress = []\n"
                )
            },
            0,
        ),
        ("pairs", |nth| workload(&format!("w{nth}"), nth / 2), 500),
    ];
    for (what, text, expected) in rows {
        let node = Node::new();
        for nth in 0..1000 {
            node.drop_in(&format!("{nth:04}.toml"), &text(nth));
        }
        let loaded = node.loaded();
        let count = loaded
            .drop_ins
            .iter()
            .filter(|drop_in| !drop_in.is_skipped())
            .count();
        assert_eq!(count, expected, "{what}");
    }
}

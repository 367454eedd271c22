//! Every key of the file: the kind of its value, and whether it is required.

use Shape::{List, Named, Number, Switch, Table, Text, TextOr, Texts};

/// The kind of value that a key takes.
pub(super) enum Shape {
    Text,
    Number,
    Switch,
    List(&'static Shape),
    Table(&'static [Key]),
    /// A string, or a table with more keys.
    TextOr(&'static [Key]),
    /// Tables with names that the user chooses.
    Named(&'static [Key]),
    /// Strings with keys that the user chooses.
    Texts,
}

pub(super) struct Key {
    pub name: &'static str,
    pub need: Need,
    pub shape: Shape,
}

pub(super) enum Need {
    Required,
    Optional,
    /// A key that is not allowed here, and what to do instead.
    Never(&'static str),
}

const fn required(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        need: Need::Required,
    }
}

const fn optional(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        need: Need::Optional,
    }
}

const fn never(name: &'static str, instead: &'static str) -> Key {
    Key {
        name,
        shape: Text,
        need: Need::Never(instead),
    }
}

const TEXTS: Shape = List(&Text);

/// The keys of a whole file.
pub(super) const ROOT: &[Key] = &[
    optional("node", Table(NODE)),
    optional("daemon", Table(DAEMON)),
    optional("interfaces", Named(INTERFACE)),
    optional("identities", Named(IDENTITY)),
    optional("nodes", Named(REMOTE_NODE)),
    optional("services", Named(SERVICE)),
    optional("policies", Named(POLICY)),
    optional("masquerade", Table(MASQUERADE)),
    optional("host", Table(HOST)),
    optional("policy", Table(POLICY_SETTINGS)),
    optional("prefilter", Named(PREFILTER)),
    optional("conntrack", Table(CONNTRACK)),
    optional("events", Table(EVENTS)),
];

const NODE: &[Key] = &[optional("name", Text), optional("addresses", TEXTS)];

const DAEMON: &[Key] = &[
    optional("bpf_root", Text),
    optional("socket", Text),
    optional("runtime_config", Text),
    optional("log", Text),
    optional("metrics", Text),
    optional("expedite_rcu", Switch),
];

/// The keys that an interface needs and may have depend on its role, and are checked with it.
const INTERFACE: &[Key] = &[
    required("role", Text),
    optional("addresses", TEXTS),
    optional("identity", Text),
    optional("multicast", Switch),
    optional("xdp", Text),
    optional("forwarding", Text),
    optional("masquerade", Text),
    optional("l2_announce", Switch),
];

const MASQUERADE: &[Key] = &[optional("except", TEXTS)];

const HOST: &[Key] = &[optional("services", Switch)];

const IDENTITY: &[Key] = &[
    required("id", Number),
    optional("labels", TEXTS),
    optional("cidrs", TEXTS),
];

const REMOTE_NODE: &[Key] = &[
    required("addresses", TEXTS),
    optional("cidrs", TEXTS),
    optional("endpoints", Texts),
];

const PREFILTER: &[Key] = &[required("deny", TEXTS)];

const SERVICE: &[Key] = &[
    required("frontends", TEXTS),
    required("backends", List(&TextOr(BACKEND))),
    optional("algorithm", Text),
    optional("affinity", Text),
    optional("drain_timeout", Text),
    optional("table_size", Number),
    optional("external", Switch),
    optional("sources", TEXTS),
    optional("locality", Text),
    optional("remote", Text),
];

/// One of `address` and `identity`, which is checked with their values.
const BACKEND: &[Key] = &[
    optional("address", Text),
    optional("identity", Text),
    optional("port", Number),
    optional("weight", Number),
    optional("state", Text),
];

const POLICY: &[Key] = &[
    required("subject", Text),
    optional("ingress", List(&Table(INGRESS_RULE))),
    optional("egress", List(&Table(EGRESS_RULE))),
];

const INGRESS_RULE: &[Key] = &[
    required("from", TEXTS),
    optional("ports", TEXTS),
    optional("action", Text),
    never("to", "an ingress rule names who sends: write `from`"),
];

const EGRESS_RULE: &[Key] = &[
    required("to", TEXTS),
    optional("ports", TEXTS),
    optional("action", Text),
    never("from", "an egress rule names who receives: write `to`"),
];

const POLICY_SETTINGS: &[Key] = &[
    optional("enforcement", Text),
    optional("audit", Switch),
    optional("allow_host", Switch),
];

const CONNTRACK: &[Key] = &[
    optional("size", Number),
    optional("per_endpoint", Number),
    optional("strict", Switch),
    optional("tcp", Text),
    optional("tcp_syn", Text),
    optional("tcp_close", Text),
    optional("udp", Text),
    optional("udp_once", Text),
    optional("icmp", Text),
];

const EVENTS: &[Key] = &[
    optional("aggregation", Text),
    optional("interval", Text),
    optional("rate", Number),
    optional("journal", Text),
];

/// The path of every key that takes a value: `services.*.backends[].weight`.
pub fn keys() -> Vec<String> {
    let mut paths = Vec::new();
    collect(ROOT, "", &mut paths);
    paths
}

fn collect(keys: &[Key], prefix: &str, paths: &mut Vec<String>) {
    let known = |key: &&Key| !matches!(key.need, Need::Never(_));
    for key in keys.iter().filter(known) {
        let path = format!("{prefix}{}", key.name);
        match &key.shape {
            Table(inner) => collect(inner, &format!("{path}."), paths),
            Named(inner) => collect(inner, &format!("{path}.*."), paths),
            Texts => paths.push(format!("{path}.*")),
            List(Table(inner)) => collect(inner, &format!("{path}[]."), paths),
            List(TextOr(inner)) => {
                paths.push(path.clone());
                collect(inner, &format!("{path}[]."), paths);
            }
            Text | Number | Switch | List(_) | TextOr(_) => paths.push(path),
        }
    }
}

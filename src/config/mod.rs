//! The configuration: from the files to the checked types that the program works with.
//!
//! The files pass through `load` (reading), `read` (TOML, several files joined), `shape` (the tree against the keys of
//! `schema`) and `check` (what values mean, and whether they are consistent). `report` collects every problem on the way.
//! The result is `checked`. The drop-ins of tools go through `runtime`, with the same checks.

mod check;
mod checked;
mod daemon_keys;
mod drop_in;
mod file_problem;
mod host_name;
mod load;
mod locate;
mod members;
mod name;
mod parallel_toml;
mod parse;
mod path;
mod pieces;
mod printable;
mod problem;
mod read;
mod report;
mod runtime;
mod schema;
mod shape;
mod source;
mod suggest;
mod toml_tree;
mod tree;
mod value;
mod wrong;

pub use crate::model::catalog::InEffect;
pub use crate::model::forwarding::ForwardingMode;
pub use crate::model::xdp::XdpMode;
pub use checked::{
    Backend, Config, Conntrack, Daemon, EnforcementMode, Events, HostSettings, Identity,
    IdentityBackends, Interface, JournalFlows, LogTarget, Node, Policy, PolicySettings, RemoteNode,
    Rule, Service, SourceLocation,
};
pub use daemon_keys::{Scalar, daemon_keys};
pub use drop_in::{DEFAULT_BPF_ROOT, DropIn, Refusal, Runtime, is_drop_in, runtime_folder};
pub use load::{
    Loaded, SIZE_MAX, drop_in_folder, drop_ins, load, load_again, load_once, read_lossy,
};
pub use locate::locate;
pub use members::{Members, ServiceBackend};
pub use parse::parse;
pub use problem::{Excerpt, Note, Problem, Problems, Severity};
pub use schema::keys;
pub use source::Source;
pub use value::parse_duration;

//! Runtime drop-ins as data: files in which tools declare the workloads that they create, such as container engines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::source::Source;
use crate::model::catalog::InEffect;
use crate::model::digest::fnv1a;

/// The folder of a node that moves neither its pins nor this folder.
const DEFAULT_FOLDER: &str = "/run/dpd/config.d";
/// `daemon.bpf_root` without the key.
pub const DEFAULT_BPF_ROOT: &str = "/sys/fs/bpf/dpd";

/// A runtime drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    pub path: PathBuf,
    /// Why it is skipped; empty: it is in effect.
    pub problems: Vec<Problem>,
}

impl DropIn {
    pub fn is_skipped(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Why it is skipped, as text; `None`: it is in effect.
    pub fn reason(&self) -> Option<String> {
        let texts: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        self.is_skipped().then(|| texts.join("\n"))
    }
}

/// A file of the folder: its text, or why it can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub source: Result<Source, Box<Problem>>,
}

/// The runtime drop-ins of a running daemon.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// `None`: there are none.
    pub folder: Option<PathBuf>,
    pub in_effect: InEffect,
    /// Those that the kernel has refused, by file name.
    pub refused: BTreeMap<String, Refusal>,
}

/// A text that the kernel has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub digest: u64,
    pub error: String,
}

/// The folder of a node's runtime drop-ins; `None`: it has none. `given` is `daemon.runtime_config`.
///
/// Several nodes on one machine differ in `daemon.bpf_root`, so at most one of them uses the default folder.
pub fn runtime_folder(bpf_root: &Path, given: Option<PathBuf>) -> Option<PathBuf> {
    let is_default = bpf_root == Path::new(DEFAULT_BPF_ROOT);
    given.or_else(|| is_default.then(|| PathBuf::from(DEFAULT_FOLDER)))
}

/// The name by which a drop-in is known in [`InEffect`].
pub(super) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The same in each version of dpd, since the catalog holds it. No defence against forgery is needed: the files are root's.
pub(super) fn digest(text: &str) -> u64 {
    fnv1a(text.bytes())
}

/// Whether a file of the folder is a drop-in, by its name. Hidden files belong to editors and package managers.
pub fn is_drop_in(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    !is_hidden && path.extension().is_some_and(|ending| ending == "toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_with_the_default_pins_has_a_default_folder() {
        let rows = [
            (DEFAULT_BPF_ROOT, None, Some(DEFAULT_FOLDER)),
            (DEFAULT_BPF_ROOT, Some("/run/a.d"), Some("/run/a.d")),
            ("/sys/fs/bpf/dpd-a", None, None),
            ("/sys/fs/bpf/dpd-a", Some("/run/a.d"), Some("/run/a.d")),
        ];
        for (root, given, expected) in rows {
            let folder = runtime_folder(Path::new(root), given.map(PathBuf::from));
            assert_eq!(
                folder.as_deref(),
                expected.map(Path::new),
                "{root} {given:?}"
            );
        }
    }

    #[test]
    fn a_digest_is_that_of_fnv_1a() {
        assert_eq!(digest(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest("a"), 0xaf63_dc4c_8601_ec8c);
    }
}

//! Finds a node's datapath and daemon: reads the few keys of the file that the commands need.
//!
//! With a broken file the running datapath must still be readable, and the reason why the file is rejected. So the keys
//! are taken from the parts that parse, without validating the rest.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::de::{DeTable, DeValue};

use crate::bpf::reader::Reader;
use crate::config::{
    DEFAULT_BPF_ROOT, InEffect, LogTarget, Scalar, daemon_keys, drop_ins, read_lossy,
    runtime_folder,
};

/// Texts up to this size are parsed as a whole.
const SMALL: usize = 256 << 10;

/// The configuration file without `--config`.
pub const DEFAULT_CONFIG: &str = "/etc/dpd/config.toml";

/// A node on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub config: PathBuf,
    pub bpf_root: PathBuf,
    pub socket: PathBuf,
    /// The folder of the runtime drop-ins; `None`: there are none.
    pub runtime_config: Option<PathBuf>,
    pub log: LogTarget,
    pub expedite_rcu: bool,
    /// All of the file is TOML. If not, the keys may be in the parts that did not parse.
    pub is_certain: bool,
}

impl Node {
    /// The node of a configuration file. Warns on stderr if a part of it does not parse.
    ///
    /// # Errors
    /// If the file can't be read. A missing file is no error if it is [`DEFAULT_CONFIG`], which means the default node,
    /// or if it has drop-ins: an editor may be replacing it.
    pub fn find(config: &Path) -> Result<Node> {
        let mut node = Node::default_of(config);
        let sources = match sources(config) {
            Ok(sources) => sources,
            Err(error) if is_missing(&error) && config == Path::new(DEFAULT_CONFIG) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut given = None;
        let mut broken = Vec::new();
        for (path, text) in sources {
            let what = match text {
                Some(text) if node.take(&text, &mut given) => continue,
                Some(_) => "is not valid TOML (see `dpd check`)",
                None => "can't be read (see `dpd check`)",
            };
            broken.push((path, what));
            node.is_certain = false;
        }
        node.runtime_config = runtime_folder(&node.bpf_root, given);
        // After all files are read, since a later one may have set `bpf_root`.
        for (path, what) in broken {
            eprintln!(
                "dpd: {} {what}: reading {}",
                path.display(),
                node.bpf_root.display()
            );
        }
        Ok(node)
    }

    /// The node for commands that change it.
    ///
    /// # Errors
    /// If a broken file leaves open which node is meant.
    pub fn certain(&self) -> Result<&Node> {
        if !self.is_certain {
            bail!(
                "{} is not valid TOML, so it is not certain which node it means: fix it, or give another --config",
                self.config.display()
            );
        }
        Ok(self)
    }

    /// The same for the daemon, which reads the file again and logs its problems itself.
    pub fn find_quietly(config: &Path) -> Node {
        let mut node = Node::default_of(config);
        let sources = sources(config).unwrap_or_default();
        let mut given = None;
        for text in sources.into_iter().filter_map(|(_, text)| text) {
            node.take(&text, &mut given);
        }
        node.runtime_config = runtime_folder(&node.bpf_root, given);
        node
    }

    /// A reader of this node's maps and programs.
    pub fn reader(&self) -> Result<Reader> {
        Reader::open(&self.bpf_root)
    }

    /// The runtime drop-ins that the live datapath was compiled from; none if it can't be read.
    pub fn drop_ins_in_effect(&self) -> InEffect {
        let catalog = self.reader().and_then(|reader| reader.catalog());
        catalog.map(|catalog| catalog.drop_ins).unwrap_or_default()
    }

    fn default_of(config: &Path) -> Node {
        Node {
            config: config.to_owned(),
            bpf_root: PathBuf::from(DEFAULT_BPF_ROOT),
            runtime_config: None,
            socket: PathBuf::from("/run/dpd/dpd.sock"),
            log: LogTarget::Auto,
            expedite_rcu: false,
            is_certain: true,
        }
    }

    /// Takes the keys of `[daemon]`, and `runtime_config` of them into `given`; returns whether all of the text is TOML.
    fn take(&mut self, text: &str, given: &mut Option<PathBuf>) -> bool {
        let is_large = text.len() > SMALL;
        let (keys, is_toml) = match is_large.then(|| daemon_keys(text)).flatten() {
            Some(keys) => (keys, true),
            None => recovered_keys(text),
        };
        let find = |key: &str| match keys.get(key)? {
            Scalar::Text(text) => Some(text.as_str()),
            Scalar::Switch(_) => None,
        };
        if let Some(path) = find("bpf_root") {
            self.bpf_root = path.into();
        }
        if let Some(path) = find("runtime_config") {
            *given = Some(path.into());
        }
        if let Some(path) = find("socket") {
            self.socket = path.into();
        }
        if let Some(Scalar::Switch(expedite_rcu)) = keys.get("expedite_rcu") {
            self.expedite_rcu = *expedite_rcu;
        }
        match find("log") {
            Some("journald") => self.log = LogTarget::Journald,
            Some("stderr") => self.log = LogTarget::Stderr,
            _ => {}
        }
        is_toml
    }
}

/// The keys in the parts of a text that parse, and whether that is all of it.
fn recovered_keys(text: &str) -> (BTreeMap<String, Scalar>, bool) {
    let section = match text.len() <= SMALL {
        true => text,
        false => broken_daemon_section(text),
    };
    let (table, errors) = DeTable::parse_recoverable(section);
    let mut keys = BTreeMap::new();
    let daemon = table.get_ref().get("daemon").map(|value| value.get_ref());
    if let Some(DeValue::Table(daemon)) = daemon {
        for (key, value) in daemon {
            let scalar = match value.get_ref() {
                DeValue::String(text) => Scalar::Text(text.to_string()),
                DeValue::Boolean(switch) => Scalar::Switch(*switch),
                _ => continue,
            };
            keys.insert(key.get_ref().to_string(), scalar);
        }
    }
    (keys, section.len() == text.len() && errors.is_empty())
}

/// Where a large text that is no TOML seems to have its table `[daemon]`.
fn broken_daemon_section(text: &str) -> &str {
    let section = match text.strip_prefix("[daemon]") {
        Some(_) => Some(text),
        None => text.find("\n[daemon]").map(|at| &text[at + 1..]),
    };
    let section = section.unwrap_or_default();
    let end = section.find("\n[").map_or(section.len(), |end| end + 1);
    let section = &section[..end];
    // One that lasts is none.
    section.get(..SMALL).map_or(section, |_| "")
}

/// The file and its drop-ins, in the order in which they are merged; `None` for one that can't be read.
fn sources(config: &Path) -> Result<Vec<(PathBuf, Option<String>)>> {
    let mut paths = vec![config.to_owned()];
    // A drop-in folder that can't be read counts as missing.
    paths.append(&mut drop_ins(config).unwrap_or_default());
    let has_drop_ins = paths.len() > 1;
    paths
        .into_iter()
        .map(|path| {
            let text = match read_lossy(&path) {
                Err(_) if has_drop_ins => None,
                text => {
                    text.with_context(|| format!("read the configuration {}", path.display()))?
                }
            };
            Ok((path, text))
        })
        .collect()
}

fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn keys_are_taken_from_what_parses() {
        let rows = [
            (
                "an empty file leaves the defaults",
                "",
                "/sys/fs/bpf/dpd",
                "/run/dpd/dpd.sock",
                true,
            ),
            (
                "both paths are taken",
                "[daemon]\nbpf_root = \"/sys/fs/bpf/a\"\nsocket = \"/run/a.sock\"\n",
                "/sys/fs/bpf/a",
                "/run/a.sock",
                true,
            ),
            (
                "unknown tables are ignored",
                "[daemon]\nsocket = \"/run/a.sock\"\n[colour]\nred = 1\n",
                "/sys/fs/bpf/dpd",
                "/run/a.sock",
                true,
            ),
            (
                "a file that is truncated after its daemon table",
                "[daemon]\nsocket = \"/run/a.sock\"\n[services.kube-dns]\nfrontends = [\"10.",
                "/sys/fs/bpf/dpd",
                "/run/a.sock",
                false,
            ),
            (
                "a value of the wrong type is ignored",
                "[daemon]\nsocket = 7\nbpf_root = \"/sys/fs/bpf/a\"",
                "/sys/fs/bpf/a",
                "/run/dpd/dpd.sock",
                true,
            ),
            (
                "no table at all",
                "daemon = 3",
                "/sys/fs/bpf/dpd",
                "/run/dpd/dpd.sock",
                true,
            ),
        ];
        for (sentence, text, bpf_root, socket, is_toml) in rows {
            let mut node = Node::default_of(Path::new("x.toml"));
            assert_eq!(node.take(text, &mut None), is_toml, "{sentence}");
            assert_eq!(node.bpf_root, Path::new(bpf_root), "{sentence}");
            assert_eq!(node.socket, Path::new(socket), "{sentence}");
        }
    }

    /// Of a large text, which takes another way.
    #[test]
    fn keys_of_a_large_text() {
        let comments = "# a comment\n".repeat(SMALL / 8);
        let rows = [
            ("a header", "[daemon]\nbpf_root = \"/a\"\n", true),
            (
                "spaces in the header",
                "[ daemon ]\nbpf_root = \"/a\"\n",
                true,
            ),
            ("a dotted key", "daemon.bpf_root = \"/a\"\n", true),
            ("an inline table", "daemon = { bpf_root = \"/a\" }\n", true),
            (
                "a byte order mark",
                "\u{feff}[daemon]\nbpf_root = \"/a\"\n",
                true,
            ),
            (
                "a text that ends too early",
                "[daemon]\nbpf_root = \"/a\"\n[x]\ny = [",
                false,
            ),
        ];
        for (sentence, keys, is_toml) in rows {
            let text = match is_toml {
                true => format!("{keys}{comments}"),
                false => format!("{comments}{keys}"),
            };
            let mut node = Node::default_of(Path::new("x.toml"));
            assert_eq!(node.take(&text, &mut None), is_toml, "{sentence}");
            assert_eq!(node.bpf_root, Path::new("/a"), "{sentence}");
        }
        let in_a_string =
            format!("[node]\nname = \"\"\"\n[daemon]\nbpf_root = '/a'\n\"\"\"\n{comments}");
        let mut node = Node::default_of(Path::new("x.toml"));
        assert!(node.take(&in_a_string, &mut None));
        assert_eq!(node.bpf_root, Path::new(DEFAULT_BPF_ROOT));
    }

    #[test]
    fn drop_ins_are_read_where_the_main_file_can_not_be() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("node-a.toml");
        fs::create_dir(folder.path().join("node-a.d")).unwrap();
        let drop_in = folder.path().join("node-a.d/10-place.toml");
        fs::write(drop_in, "[daemon]\nsocket = \"/run/a.sock\"\n").unwrap();
        let find = |what: &str| {
            let node = Node::find(&config).unwrap();
            assert_eq!(node.socket, Path::new("/run/a.sock"), "{what}");
            assert!(node.certain().is_err(), "{what}");
            assert_eq!(Node::find_quietly(&config).socket, node.socket, "{what}");
        };
        fs::create_dir(&config).unwrap();
        find("a folder");
        fs::remove_dir(&config).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &config,
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
        find("a pipe without a writer");
        fs::remove_file(&config).unwrap();
        find("a missing file");
        let file = fs::File::create(&config).unwrap();
        file.set_len(100 << 20).unwrap();
        find("a file over the size limit");
    }

    #[test]
    fn drop_ins_are_read_and_a_missing_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("node-a.toml");
        let missing = Node::find(&config).unwrap_err();
        assert!(
            format!("{missing:#}").contains("node-a.toml"),
            "{missing:#}"
        );

        fs::write(&config, "[node]\nname = \"a\"\n").unwrap();
        fs::create_dir(folder.path().join("node-a.d")).unwrap();
        let drop_in = folder.path().join("node-a.d/10-place.toml");
        fs::write(
            drop_in,
            "[daemon]\nsocket = \"/run/a.sock\"\nlog = \"stderr\"\n",
        )
        .unwrap();
        let node = Node::find(&config).unwrap();
        assert_eq!(node.socket, Path::new("/run/a.sock"));
        assert_eq!(node.log, LogTarget::Stderr);
    }

    #[test]
    fn a_hidden_drop_in_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("node-a.toml");
        fs::write(&config, "[daemon]\nsocket = \"/run/a.sock\"\n").unwrap();
        let drop_ins = folder.path().join("node-a.d");
        fs::create_dir(&drop_ins).unwrap();
        let other = "[daemon]\nbpf_root = \"/sys/fs/bpf/other\"\n";
        fs::write(drop_ins.join(".10-place.toml"), other).unwrap();
        // The lock file of emacs.
        std::os::unix::fs::symlink("me@here.4711:1", drop_ins.join(".#x.toml")).unwrap();
        let node = Node::find(&config).unwrap();
        assert_eq!(node.bpf_root, Path::new("/sys/fs/bpf/dpd"));
        assert_eq!(node.socket, Path::new("/run/a.sock"));
        node.certain().unwrap();
        assert_eq!(Node::find_quietly(&config), node);
    }
}

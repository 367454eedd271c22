//! The paths of a configuration: the main file, the folder of its drop-ins, and that of the runtime drop-ins.

use std::path::{Path, PathBuf};

use crate::config::drop_in_folder;

/// The files of a configuration.
#[derive(Debug)]
pub struct Files {
    pub main: PathBuf,
    /// The drop-in folder; a file whose name does not end in `.toml` has none.
    pub drop_ins: Option<PathBuf>,
    /// The folder of the runtime drop-ins.
    pub runtime: Option<PathBuf>,
}

impl Files {
    pub fn of(main: PathBuf, runtime: Option<PathBuf>) -> Files {
        Files {
            drop_ins: drop_in_folder(&main),
            main,
            runtime,
        }
    }

    /// The folders of drop-ins of both kinds.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        let folders = self.drop_ins.iter().chain(&self.runtime);
        folders.map(PathBuf::as_path)
    }
}

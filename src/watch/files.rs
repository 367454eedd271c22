//! The paths of a configuration: the main file and the folder of its drop-ins.

use std::path::PathBuf;

use crate::config::drop_in_folder;

/// The files of a configuration.
#[derive(Debug)]
pub struct Files {
    pub main: PathBuf,
    /// The drop-in folder; a file whose name does not end in `.toml` has none.
    pub drop_ins: Option<PathBuf>,
}

impl Files {
    pub fn of(main: PathBuf) -> Files {
        Files {
            drop_ins: drop_in_folder(&main),
            main,
        }
    }
}

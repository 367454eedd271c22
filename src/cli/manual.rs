//! `dpd manual`: writes the manual pages and the shells' completions, for packages and `make install`.
//!
//! Names, synopses and completions come from the definition of the command line; the text of the pages comes from
//! `docs/commands.md` and `docs/config.md`, which tests compare with that definition and with the configuration.

mod man;
mod page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder to write to, laid out as /usr/share.
    folder: PathBuf,
}

/// Where each shell looks for completions below `/usr/share`. Debian's zsh has another place for packages
/// (`zsh/vendor-completions`).
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/dpd"),
    (Shell::Zsh, "zsh/site-functions/_dpd"),
    (Shell::Fish, "fish/vendor_completions.d/dpd.fish"),
];

/// Takes the definition of the whole command line.
pub fn run(arguments: &Arguments, mut command: Command) -> Result<()> {
    let definition = command.clone();
    command.build();
    for page in page::all(&command) {
        write(&arguments.folder, &page.path(), page.text.as_bytes())?;
    }
    for (shell, path) in COMPLETIONS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut definition.clone(), "dpd", &mut script);
        write(&arguments.folder, path, &script)?;
    }
    Ok(())
}

fn write(folder: &Path, path: &str, text: &[u8]) -> Result<()> {
    let path = folder.join(path);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

//! Interfaces that are refused for what they are, before anything is changed.

use anyhow::{Result, anyhow};

use super::hooks::{AttachError, HookKind};
use crate::config::Config;
use crate::model::host::HostState;
use crate::plan::links;

/// # Errors
/// If a present interface can't have its role, with an [`AttachError`].
pub(super) fn check(config: &Config, host: &HostState) -> Result<()> {
    match links::unusable(config, host).first() {
        None => Ok(()),
        Some(refused) => {
            let error = anyhow!("{}: {}", refused.reason, refused.help);
            Err(error.context(AttachError {
                interface: refused.interface.to_owned(),
                kind: match refused.key {
                    "xdp" => HookKind::Xdp,
                    _ => HookKind::Link,
                },
            }))
        }
    }
}

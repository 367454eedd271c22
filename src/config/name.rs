//! Valid names of tables, identities, interfaces and labels.

use std::net::IpAddr;

use super::printable::is_invisible;
use super::wrong::{Parsed, Wrong};

/// The longest name, in bytes.
const NAME_MAX: usize = 128;
/// The longest label, in bytes: Kubernetes allows 317 for a key and 63 for a value.
const LABEL_MAX: usize = 512;
/// The longest name of an interface, in bytes (Linux: IFNAMSIZ without the terminating zero).
const INTERFACE_MAX: usize = 15;

/// Peers of rules, which are no valid names of identities.
pub(super) const RESERVED: [&str; 4] = ["any", "host", "remote-node", "world"];

/// A name that the user chooses.
pub(super) fn name(text: &str) -> Parsed<()> {
    plain(text, "the name", NAME_MAX)
}

/// The name of an identity, which must differ from the numbers, addresses and selectors of the command line.
pub(super) fn identity_name(text: &str) -> Parsed<()> {
    name(text)?;
    let problem = match text {
        _ if RESERVED.contains(&text) => "it is a reserved word of policy peers",
        _ if text.parse::<IpAddr>().is_ok() => "it is an address",
        _ if text.contains(':') => "a `:` marks a selector, as in label:KEY=VALUE",
        _ if text.contains('/') => "a `/` marks a prefix",
        _ if is_digits(text) => "it is a number, and numbers are identities' ids",
        _ => return Ok(()),
    };
    Err(
        Wrong::new(format!("an identity can't be called {text:?}: {problem}"))
            .help("give it another name"),
    )
}

/// The name of a Linux interface, by the rules of the kernel.
pub(super) fn interface_name(text: &str) -> Parsed<()> {
    plain(text, "the name", NAME_MAX)?;
    let problem = match text {
        "." | ".." => "this name is reserved by the file system",
        _ if text.len() > INTERFACE_MAX => "Linux allows 15 bytes",
        _ if text.contains(['/', ':']) => "Linux allows no `/` and no `:`",
        _ => return Ok(()),
    };
    Err(Wrong::new(format!(
        "an interface can't be called {text:?}: {problem}"
    )))
}

/// Refuses what would break a listing, a log line or a copied command.
pub(super) fn plain(text: &str, what: &str, max: usize) -> Parsed<()> {
    let is_bad =
        |c: char| is_invisible(c) || c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '\\');
    if text.is_empty() {
        return Err(Wrong::new(format!("{what} is empty")));
    }
    if text.len() > max {
        return Err(Wrong::new(format!(
            "{what} has {} bytes, but may have {max}",
            text.len()
        )));
    }
    match text.chars().find(|c| is_bad(*c)) {
        None => Ok(()),
        Some(bad) => Err(Wrong::new(format!("{what} {text:?} has {bad:?} in it"))
            .help("spaces, quotes, backslashes and control characters are not allowed here")),
    }
}

/// `KEY=VALUE`; the value may be empty.
pub(super) fn label(text: &str) -> Parsed<(String, String)> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = split.ok_or_else(|| {
        Wrong::new(format!("{text:?} is no label")).help("a label is KEY=VALUE, as in app=client")
    })?;
    plain(text, "the label", LABEL_MAX)?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

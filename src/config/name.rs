//! What things may be called: tables, identities, interfaces, labels.

use std::net::IpAddr;

use super::report::{Parsed, Wrong};

/// Bytes that a name of the user's own may have.
const NAME_MAX: usize = 128;
/// Bytes that a label may have: Kubernetes' own bounds are 317 for a key and 63 for a value.
const LABEL_MAX: usize = 512;
/// Bytes that an interface name may have (Linux, IFNAMSIZ less its ending zero).
const INTERFACE_MAX: usize = 15;

/// Words of policy peers that no identity can be called.
pub(super) const RESERVED: [&str; 4] = ["any", "host", "remote-node", "world"];

/// A name of the user's own.
pub(super) fn name(text: &str) -> Parsed<()> {
    plain(text, "the name", NAME_MAX)
}

/// The name of an identity, which stands beside numbers, addresses and selectors on the command line.
pub(super) fn identity_name(text: &str) -> Parsed<()> {
    name(text)?;
    let trouble = match text {
        _ if RESERVED.contains(&text) => "it is a reserved word of policy peers",
        _ if text.parse::<IpAddr>().is_ok() => "it is an address",
        _ if text.contains(':') => "a `:` marks a selector, as in label:KEY=VALUE",
        _ if text.contains('/') => "a `/` marks a prefix",
        _ if is_digits(text) => "it is a number, and numbers are identities' ids",
        _ => return Ok(()),
    };
    Err(
        Wrong::new(format!("an identity can't be called {text:?}: {trouble}"))
            .help("give it another name"),
    )
}

/// The name of a Linux interface, by the kernel's rule.
pub(super) fn interface_name(text: &str) -> Parsed<()> {
    plain(text, "the name", NAME_MAX)?;
    let trouble = match text {
        "." | ".." => "this name is the file system's",
        _ if text.len() > INTERFACE_MAX => "Linux allows 15 bytes",
        _ if text.contains(['/', ':']) => "Linux allows no `/` and no `:`",
        _ => return Ok(()),
    };
    Err(Wrong::new(format!(
        "an interface can't be called {text:?}: {trouble}"
    )))
}

/// Refuses what would break a listing, a log line or a command that somebody copies.
pub(super) fn plain(text: &str, what: &str, max: usize) -> Parsed<()> {
    let is_bad =
        |c: char| is_unseen(c) || c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '\\');
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

/// Characters that a terminal does not show, or that change how it shows others: controls, joiners, marks of direction.
pub(super) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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

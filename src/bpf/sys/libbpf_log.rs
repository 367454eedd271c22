//! The messages of libbpf: to the log at debug, and into the error of what failed.

use std::cell::RefCell;
use std::sync::Once;

use anyhow::{Error, Result, bail};
use libbpf_rs::PrintLevel;
use rustix::io::Errno;

use super::call::errno;
use super::capabilities;

/// Lines that an error quotes. The verifier gives its reason in the last ones.
const QUOTED: usize = 30;

thread_local! {
    /// The warnings of libbpf on this thread, while they are collected.
    static WARNINGS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Redirects libbpf from stderr to the log. May be called any number of times.
pub fn to_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Info, log_message)));
    });
}

fn log_message(level: PrintLevel, text: String) {
    log::debug!("{}", text.trim_end());
    if level == PrintLevel::Warn {
        WARNINGS.with_borrow_mut(|warnings| {
            if let Some(warnings) = warnings {
                warnings.push_str(&text);
            }
        });
    }
}

/// Does a job of libbpf. If it fails, the error ends with the warnings of libbpf and the kernel, which are noise where a
/// capability is missing: libbpf then blames RLIMIT_MEMLOCK, and the verifier each access to an address.
pub fn quote<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    to_log();
    WARNINGS.set(Some(String::new()));
    let done = job();
    let warnings = WARNINGS.take().unwrap_or_default();
    match done {
        Err(error) if !warnings.is_empty() && !is_explained(&error) => {
            let lines = last_lines(&warnings, QUOTED);
            // One text, not a chain: the error stands before the messages, and not again behind them.
            bail!("{error:#}; messages of libbpf:\n{lines}")
        }
        done => done,
    }
}

fn is_explained(error: &Error) -> bool {
    let is_denied = matches!(errno(error), Some(Errno::PERM | Errno::ACCESS));
    is_denied && !capabilities::missing().is_empty()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    lines[first..].join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use libbpf_rs::ObjectBuilder;

    use super::*;

    #[test]
    fn an_error_ends_with_the_messages_of_libbpf() {
        let error = quote(|| {
            ObjectBuilder::default()
                .open_memory(b"no ELF")
                .map(drop)
                .context("open it")
        })
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("open it"), "{text}");
        assert_eq!(text.matches("open it").count(), 1, "{text}");
        assert!(text.contains("messages of libbpf:\n"), "{text}");
        assert!(text.contains("elf"), "{text}");
    }

    #[test]
    fn an_error_of_our_own_is_left_as_it_is() {
        let error = quote(|| Err::<(), _>(anyhow!("mine"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "mine");
    }

    #[test]
    fn of_a_long_log_the_end_is_quoted() {
        let rows = [
            ("nothing", "", 2, ""),
            ("less than asked for", "a\n", 2, "a"),
            ("all of it", "a\nb\n", 2, "a\nb"),
            ("the end", "a\nb\nc\n", 2, "b\nc"),
        ];
        for (what, text, count, expected) in rows {
            assert_eq!(last_lines(text, count), expected, "{what}");
        }
    }
}

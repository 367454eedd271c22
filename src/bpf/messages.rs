//! libbpf's own words: to the log at debug, and into the error of what failed.

use std::cell::RefCell;
use std::sync::Once;

use anyhow::{Context, Result};
use libbpf_rs::PrintLevel;

/// Lines that an error quotes. What a program was refused for stands in the last ones.
const QUOTED: usize = 30;

thread_local! {
    /// What libbpf warned of on this thread, while somebody wants to know.
    static WARNINGS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps libbpf from writing to stderr by itself. May be called any number of times.
pub fn to_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Info, hear)));
    });
}

fn hear(level: PrintLevel, words: String) {
    log::debug!("{}", words.trim_end());
    if level == PrintLevel::Warn {
        WARNINGS.with_borrow_mut(|warnings| {
            if let Some(warnings) = warnings {
                warnings.push_str(&words);
            }
        });
    }
}

/// Does a job of libbpf's. If it fails, the error ends with what libbpf and the kernel said of it.
pub fn quote<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    to_log();
    WARNINGS.set(Some(String::new()));
    let done = job();
    let warnings = WARNINGS.take().unwrap_or_default();
    match done {
        Err(error) if !warnings.is_empty() => {
            let words = last_lines(&warnings, QUOTED);
            let sentence = format!("{error:#}; libbpf's words:\n{words}");
            Err(error).context(sentence)
        }
        done => done,
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    lines[first..].join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use libbpf_rs::ObjectBuilder;

    use super::*;

    #[test]
    fn an_error_ends_with_libbpfs_words() {
        let error = quote(|| {
            ObjectBuilder::default()
                .open_memory(b"no ELF")
                .map(drop)
                .context("open it")
        })
        .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("open it"), "{text}");
        assert!(text.contains("libbpf's words:\n"), "{text}");
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

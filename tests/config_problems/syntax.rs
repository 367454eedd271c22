//! Texts that are no configuration: not TOML, empty, truncated or damaged.

use dpd::config::parse;

use super::{check, source};

#[test]
fn texts_that_are_no_configuration() {
    check(&[
        (
            "a file of comments alone is empty",
            "
# nothing
",
            &[
                "1:1..2 the file is empty: it has no table and no key (to remove everything that dpd has put on this host, run `dpd cleanup`)",
            ],
        ),
        (
            "no byte at all is empty too",
            "",
            &[
                "1:1..2 the file is empty: it has no table and no key (to remove everything that dpd has put on this host, run `dpd cleanup`)",
            ],
        ),
        (
            "an unclosed string is not TOML",
            r#"
[node]
name = "a
"#,
            &[r#"2:10..11 this is not TOML: invalid basic string, expected `"`"#],
        ),
        (
            "every line that is not TOML is reported",
            r#"
[node
name = "a"
[daemon]
log = auto
[events]
rate = 1 2
"#,
            &[
                "1:6..7 this is not TOML: unclosed table, expected `]`",
                "4:7..11 this is not TOML: string values must be quoted, expected literal string",
                "6:8..11 this is not TOML: string values must be quoted, expected literal string",
            ],
        ),
        (
            "a key twice in one table",
            "
[policy]
audit = true
audit = false
",
            &[
                "3:1..6 `audit` is given twice [2:1 first given here] (keep one of the two, or give one of them another name)",
            ],
        ),
        (
            "a table twice in one file",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
[services.s]
"#,
            &[
                "4:11..12 `s` is given twice [1:1 first given here] (keep one of the two, or give one of them another name)",
            ],
        ),
        (
            "after a double key the rest is checked too",
            r#"
[policy]
audit = true
audit = false
enforcement = "alway"
"#,
            &[
                "3:1..6 `audit` is given twice [2:1 first given here] (keep one of the two, or give one of them another name)",
                r#"4:15..22 "alway" is not one of default, always, never (did you mean `always`?)"#,
            ],
        ),
        (
            "Windows line ends do not move the place",
            "[policy]\r\naudit = 1\r\n",
            &["2:9..10 `policy.audit` is a whole number here, but takes true or false"],
        ),
        (
            "columns are characters, not bytes",
            r#"
events = { journal = "drops", "größe" = 1 }
"#,
            &[
                "1:31..38 `events` has no key `größe` (it can have: aggregation, interval, rate, journal)",
            ],
        ),
    ]);
}

/// Half-written files occur in practice: none of them may stop the daemon.
#[test]
fn a_truncated_file_causes_no_panic() {
    let example = include_str!("../../examples/config.toml");
    for cut in 0..example.len() {
        if let Some(text) = example.get(..cut) {
            let _ = parse(vec![source("dpd.toml", text)]).map_err(|problems| problems.to_string());
        }
    }
}

/// Any character may be a typo.
#[test]
fn a_file_with_one_wrong_character_causes_no_panic() {
    let example = include_str!("../../examples/config.toml");
    for at in (0..example.len())
        .step_by(7)
        .filter(|at| example.is_char_boundary(*at))
    {
        for wrong in ["\"", "[", "]", "{", "=", ".", "\n", "\0", "ß", "'''", "#"] {
            let text = format!("{}{wrong}{}", &example[..at], &example[at..]);
            let _ = parse(vec![source("dpd.toml", &text)]).map_err(|problems| problems.to_string());
        }
    }
}

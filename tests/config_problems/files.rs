//! A configuration of several files.

use dpd::config::parse;

use super::{brief, source};

#[test]
fn files_join_their_tables_but_not_their_keys() {
    // (sentence, main file, drop-in, problems)
    let rows: &[(&str, &str, &str, &[&str])] = &[
        (
            "tables with other keys join",
            "[conntrack]\nsize = 2048\n",
            "[conntrack]\nstrict = true\n[events]\nrate = 1\n",
            &[],
        ),
        (
            "a key in both",
            "[conntrack]\nsize = 2048\n",
            "[conntrack]\nsize = 2048\n",
            &[
                "2:1..5 `conntrack.size` is given twice [2:1 first given here] (files join their tables, but a key can be set in one file only: remove one)",
            ],
        ),
        (
            "lists do not join",
            "[node]\naddresses = [\"10.0.0.1\"]\n",
            "[node]\n\naddresses = [\"10.0.0.2\"]\n",
            &[
                "3:1..10 `node.addresses` is given twice [2:1 first given here] (files join their tables, but a key can be set in one file only: remove one)",
            ],
        ),
        (
            "a table in one and a value in the other",
            "[events]\nrate = 1\n",
            "events = 5\n",
            &[
                "1:1..7 `events` is given twice [1:2 first given here] (files join their tables, but a key can be set in one file only: remove one)",
            ],
        ),
        (
            "a reference into another file, dangling",
            "[identities.client]\nid = 300\n",
            "[policies.p]\nsubject = \"clients\"\ningress = []\n",
            &["2:11..20 there is no identity \"clients\" (did you mean `client`?)"],
        ),
        (
            "an empty drop-in is one that is just being written",
            "[events]\nrate = 1\n",
            " \n",
            &["1:1..2 the drop-in is empty (remove it, or put a comment into it)"],
        ),
        (
            "a drop-in may be all comments",
            "[events]\nrate = 1\n",
            "# rate = 2\n",
            &[],
        ),
        (
            "a main file that is empty is not made up for by its drop-ins",
            "# all is in the drop-ins\n",
            "[events]\nrate = 1\n",
            &[
                "1:1..2 the file is empty: it has no table and no key (to remove everything that dpd has put on this host, run `dpd cleanup`)",
            ],
        ),
        (
            "one file that is not TOML hides what the others mean, not what is wrong with their form",
            "[events\n",
            "rate = \n",
            &[
                "1:8..9 this is not TOML: unclosed table, expected `]`",
                "1:8..9 this is not TOML: string values must be quoted, expected literal string",
            ],
        ),
    ];
    for (name, main, drop_in, expected) in rows {
        let sources = vec![source("dpd.toml", main), source("dpd.d/10.toml", drop_in)];
        let found: Vec<_> = match parse(sources) {
            Ok(_) => vec![],
            Err(problems) => problems.0.iter().map(brief).collect(),
        };
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn a_problem_names_both_files() {
    let main = source("dpd.toml", "[policy]\naudit = true\n");
    let drop_in = source("dpd.d/10.toml", "\n\n[policy]\naudit = false\n");
    let text = parse(vec![main, drop_in])
        .expect_err("one key twice")
        .to_string();
    let expected = r#"
error: `policy.audit` is given twice
 --> dpd.d/10.toml:3:1
  |
3 | audit = false
  | ^^^^^
 ::: dpd.toml:2:1
  |
2 | audit = true
  | ----- first given here
  = help: files join their tables, but a key can be set in one file only: remove one

1 error"#;
    assert_eq!(text, expected.trim_start());
}

//! Invariants of every text that may be given as a configuration. The fuzzer generates texts; an ordinary test checks those of
//! `corpus/` and the examples.

use std::path::Path;

use dpd::bpf::tables::{catalog, table};
use dpd::config::{self, Config, Excerpt, Problems, Source};
use dpd::model::catalog::Catalog;
use dpd::model::host::HostState;
use dpd::model::state::State;
use dpd::plan::{self, Inputs};

/// Separates the main file and its drop-ins.
const NEXT_FILE: &str = "\n#### next file\n";

/// Panics if an invariant does not hold for these bytes.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return check_unreadable(bytes);
    };
    match config::parse(sources(text)) {
        Ok(config) => {
            let again = config::parse(sources(text));
            assert_eq!(
                again.as_ref(),
                Ok(&config),
                "the same text gives the same configuration"
            );
            check_config(&config);
        }
        Err(problems) => check_problems(&sources(text), &problems),
    }
}

fn sources(text: &str) -> Vec<Source> {
    let texts = text.split(NEXT_FILE).enumerate();
    let source = |(number, text): (usize, &str)| Source {
        path: format!("{number}.toml").into(),
        text: text.to_owned(),
    };
    texts.map(source).collect()
}

/// A text that is not UTF-8 is refused when the file is read.
fn check_unreadable(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("dpd-invariants-{}.toml", std::process::id()));
    std::fs::write(&path, bytes).expect("write a file");
    let loaded = config::load(&path);
    std::fs::remove_file(&path).expect("remove the file");
    let problems = loaded.expect_err("a text that is not UTF-8 is no configuration");
    let excerpt = problems
        .0
        .first()
        .and_then(|problem| problem.excerpt.as_ref());
    check_excerpt(excerpt.expect("the location"));
    check_text(&problems);
}

fn check_problems(sources: &[Source], problems: &Problems) {
    assert!(
        problems.error_count() > 0,
        "refused without an error: {problems}"
    );
    for problem in &problems.0 {
        let Some(excerpt) = &problem.excerpt else {
            assert!(
                problem.message.ends_with(" are not shown"),
                "no location: {problem}"
            );
            continue;
        };
        let notes = problem
            .notes
            .iter()
            .map(|note| (note.file.as_path(), &note.excerpt));
        for (file, excerpt) in notes.chain([(problem.file.as_path(), excerpt)]) {
            check_location(sources, file, excerpt);
        }
    }
    check_text(problems);
}

fn check_location(sources: &[Source], file: &Path, excerpt: &Excerpt) {
    let source = sources.iter().find(|source| source.path == file);
    let source = source.expect("a file of the configuration");
    let line = source.text.split('\n').nth(excerpt.line - 1);
    let line = line.unwrap_or_else(|| panic!("there is no line {}", excerpt.line));
    assert!(
        excerpt.column <= line.chars().count() + 1,
        "{excerpt:?} of {line:?}"
    );
    check_excerpt(excerpt);
}

fn check_excerpt(excerpt: &Excerpt) {
    let shown = excerpt.text.chars().count();
    assert!(
        !excerpt.mark.is_empty() && excerpt.mark.start <= shown,
        "{excerpt:?}"
    );
    assert!(
        excerpt.mark.end <= shown.max(excerpt.mark.start + 1),
        "{excerpt:?}"
    );
}

/// A problem is shown on a terminal and in the journal.
fn check_text(problems: &Problems) {
    let text = problems.to_string();
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

fn check_config(config: &Config) {
    let nothing = State::default();
    for host in [HostState::default(), plan::assumed_host(config)] {
        let compile = |previous: &State| {
            plan::compile(Inputs {
                config,
                host: &host,
                now_ns: 0,
                previous: &previous.catalog,
                previous_maglev: &previous.maglev,
            })
        };
        let Ok(state) = compile(&nothing) else {
            return; // too many rows of the policy table
        };
        assert!(
            plan::diff(&state, &state).is_empty(),
            "a state differs from itself"
        );
        let again = compile(&state);
        assert!(
            again.as_ref() == Ok(&state),
            "the same file applied twice gives another state"
        );
        check_lines(&nothing, &state, '+');
        check_lines(&state, &nothing, '-');
        for (kind, rows) in table::sizes(&state) {
            assert!(
                rows < 1 << 24,
                "{}: {rows} rows of so small a file",
                kind.name
            );
        }
        catalog::size(&state.catalog).expect("a catalog that can be written");
        let text = serde_json::to_string(&*state.catalog).expect("a catalog as text");
        let read: Catalog = serde_json::from_str(&text).expect("a catalog that can be read");
        assert!(
            read == *state.catalog,
            "the catalog changes when it is written and read"
        );
    }
}

fn check_lines(old: &State, new: &State, sign: char) {
    for change in plan::diff(old, new) {
        let line = change.to_string();
        assert_eq!(change.sign, sign, "{line}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}

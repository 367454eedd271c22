//! Files that are large, or make much of little: they are refused with the place, in little memory.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The size of the files, in bytes.
const SIZE: usize = 8 << 20;
/// The most memory for each byte of a file, and the program's own.
const MEMORY_FACTOR: u64 = 20;
const OWN_MEMORY: u64 = 128 << 20;

/// Checks a file with no more memory than it may take: `dpd check` fails to allocate beyond it, and is killed.
fn check(path: &Path) -> (Option<i32>, String) {
    let size = fs::metadata(path).unwrap().len();
    // Address space, of which the threads' stacks and arenas take more than they use.
    let limit = MEMORY_FACTOR * size + OWN_MEMORY + (256 << 20);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpd"));
    command.arg("check").arg(path).env("MALLOC_ARENA_MAX", "2");
    let rlimit = rustix::process::Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    // SAFETY: the child only makes a system call between fork and exec.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setrlimit(rustix::process::Resource::As, rlimit)?;
            Ok(())
        });
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

fn repeat(text: &str) -> Vec<u8> {
    text.repeat(SIZE / text.len()).into_bytes()
}

fn lines(line: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = Vec::new();
    for nth in 0.. {
        text.extend(line(nth).into_bytes());
        if text.len() > SIZE {
            break;
        }
    }
    text
}

#[test]
fn checking_takes_twenty_times_the_files_memory_at_most() {
    let around = |before: &str, text: Vec<u8>, after: &str| {
        [before.as_bytes(), &text, after.as_bytes()].concat()
    };
    let address = |nth: usize| format!("10.{}.{}.{}", nth >> 16 & 255, nth >> 8 & 255, nth & 255);
    let rows: Vec<(&str, Vec<u8>, i32, &str)> = vec![
        ("brackets", repeat("["), 1, "values and separators"),
        (
            "brackets in a value",
            around("[a]\nx = ", repeat("["), ""),
            1,
            "values and separators",
        ),
        ("one long line", repeat("a!? "), 1, "error: "),
        ("many errors", repeat("=\n"), 1, "more errors are not shown"),
        ("wrong values", repeat("ab = zz\n"), 1, "this is not TOML"),
        ("NULs", repeat("\0"), 1, "error: "),
        ("no UTF-8", vec![0xff; SIZE], 1, "not UTF-8"),
        (
            "a long string",
            around("[node]\nname = \"", repeat("x"), "\"\n"),
            1,
            "error: ",
        ),
        (
            "an open string",
            around("[node]\nname = \"", repeat("x"), ""),
            1,
            "this is not TOML",
        ),
        (
            "an open long string",
            around("[node]\nname = \"\"\"", repeat("x\n"), ""),
            1,
            "this is not TOML",
        ),
        (
            "numbers",
            around("[node]\naddresses = [", repeat("1,"), "]\n"),
            1,
            "values and separators",
        ),
        (
            "tables",
            lines(|nth| format!("[a.x{nth}]\n")),
            1,
            "no key or table `a`",
        ),
        (
            "a list of tables",
            repeat("[[a]]\n"),
            1,
            "values and separators",
        ),
        (
            "keys",
            lines(|nth| format!("a{nth}=1\n")),
            1,
            "values and separators",
        ),
        (
            "a key again and again",
            repeat("a=1\n"),
            1,
            "values and separators",
        ),
        (
            "a dotted key",
            around("a", repeat(".a"), "=1\n"),
            1,
            "values and separators",
        ),
        ("inline tables", repeat("a={"), 1, "error: "),
        (
            "commas",
            around("a=[", repeat(","), ""),
            1,
            "values and separators",
        ),
        (
            "empty lines",
            around("[node]\n", repeat("\n"), ""),
            1,
            "values and separators",
        ),
        (
            "a list of prefixes",
            around(
                "[prefilter.a]\ndeny = [\n",
                lines(|nth| format!("  \"{}\",\n", address(nth))),
                "]\n",
            ),
            0,
            "",
        ),
        (
            "services",
            lines(|nth| {
                format!(
                    "[services.s{nth}]\nfrontends = [\"10.{}.{}.{}:80/tcp\"]\nbackends = [\"172.16.0.1:80\"]\n",
                    32 + (nth >> 16),
                    nth >> 8 & 255,
                    nth & 255
                )
            }),
            0,
            "",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (what, text, status, expected) in rows {
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        let (code, printed) = check(&path);
        let start: String = printed.chars().take(400).collect();
        assert_eq!(code, Some(status), "{what}: {start}");
        assert!(printed.contains(expected), "{what}: {start}");
        assert!(
            printed.len() < 1 << 20,
            "{what}: {} bytes are printed",
            printed.len()
        );
    }
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 36).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dpd"))
        .arg("check")
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("the file is larger than 32 MiB"), "{text}");
}

/// 5,000 identities with a label, and a rule for it in each of 300 policies.
#[test]
fn rules_that_multiply_out_are_refused_at_their_line() {
    let identities = (0..5000).map(|nth| {
        format!(
            "[identities.i{nth}]\nid = {}\nlabels = [\"all=yes\"]\n",
            256 + nth
        )
    });
    let mut text: String = identities.collect();
    let policies = |count: usize, ports: &str| {
        let policies = (0..count).map(|nth| format!("[policies.p{nth:03}]\nsubject = \"i{nth}\"\ningress = [\n  {{ from = [\"label:all=yes\"]{ports} }},\n]\n"));
        policies.collect::<String>()
    };
    let rows = [
        (200, "", None),
        (300, "", Some((209, "this rule makes 5000 rows"))),
        (
            10,
            ", ports = [\"1-65534/tcp\"]",
            Some((
                6,
                "this rule makes 150000 rows of the policy table (5000 peers, 30 prefixes of ports), and with those before it there are 1050000: more than 1048576",
            )),
        ),
    ];
    let identities_lines = text.lines().count();
    for (count, ports, refused) in rows {
        let whole = format!("{text}{}", policies(count, ports));
        let source = dpd::config::Source {
            path: "config.toml".into(),
            text: whole,
        };
        match (dpd::config::parse(vec![source]), refused) {
            (Ok(_), None) => {}
            (Err(problems), Some((nth, message))) => {
                let [problem] = &problems.0[..] else {
                    panic!("one problem: {problems}")
                };
                assert!(problem.message.contains(message), "{problems}");
                let line = identities_lines + nth * 5 + 4;
                assert_eq!(problem.excerpt.as_ref().unwrap().line, line, "{problems}");
            }
            (found, _) => panic!("{count} {ports}: {found:?}"),
        }
    }
    text.clear();
}

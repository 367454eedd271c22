//! Rust: who may use whom, and what has its one place.

use super::source::{self, below, keep, product};

/// The layers, the highest first: a module uses those below its own layer, and none of its own layer.
const LAYERS: [&[&str]; 7] = [
    &["cli"],
    &["daemon"],
    &["reconcile", "observe"],
    &["logging", "host_sockets"],
    &[
        "plan", "metrics", "bpf", "net", "watch", "journal", "systemd", "http", "process",
    ],
    &["config", "listener"],
    &["model", "parallel", "worker"],
];

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("{module} has no place among the layers: give it one"))
}

/// The module of the crate that a file belongs to; the crate's own roots are above all of them.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (module != "lib" && module != "main").then_some(module)
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut breaches = Vec::new();
    for text in product() {
        let Some(user) = module(&text.path) else {
            continue;
        };
        for (number, line) in text.code() {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_');
                let used = used.map(str::to_owned).next().unwrap_or_default();
                if used != user && layer(&used) <= layer(user) {
                    breaches.push(format!("{}:{number}: {user} uses {used}", text.path));
                }
            }
        }
    }
    keep("a `use crate::` points down", breaches);
}

/// The rooms of `src/bpf`, the lowest first.
const BPF_ROOMS: [&str; 9] = [
    "abi", "image", "sys", "attach", "tables", "state", "takeover", "load", "reader",
];

#[test]
fn a_room_of_bpf_uses_those_below_it() {
    let order = |room: &str| BPF_ROOMS.iter().position(|known| *known == room);
    let mut breaches = Vec::new();
    for text in below("src/bpf/", ".rs") {
        let inside = text.path.trim_start_matches("src/bpf/");
        let room = inside.split('/').next().unwrap_or_default();
        let room = room.trim_end_matches(".rs");
        let Some(own) = order(room) else {
            assert_eq!(room, "mod", "{} has no place among the rooms", text.path);
            continue;
        };
        for (number, line) in text.code() {
            for used in line.split("crate::bpf::").skip(1) {
                let used = used
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next();
                let used = used.unwrap_or_default();
                if order(used).is_none_or(|used| used > own) {
                    breaches.push(format!("{}:{number}: {room} uses {used}", text.path));
                }
            }
        }
    }
    keep("src/bpf: a room uses those below it", breaches);
}

/// Words that only some places may say.
struct Place {
    rule: &'static str,
    /// Where the rule holds.
    folder: &'static str,
    words: &'static [&'static str],
    /// Files and folders that may, each with the reason.
    but: &'static [(&'static str, &'static str)],
}

const PLACES: [Place; 10] = [
    Place {
        rule: "`unsafe` lives in src/bpf",
        folder: "src/",
        words: &["unsafe"],
        but: &[
            ("src/bpf/", "the door to the kernel"),
            (
                "src/process/memory.rs",
                "the allocators have no safe interface",
            ),
            (
                "src/net/sockopt.rs",
                "these socket options have no safe interface",
            ),
            (
                "src/net/neighbour/link_socket.rs",
                "packet sockets have no safe interface",
            ),
        ],
    },
    Place {
        rule: "byte order lives in src/bpf",
        folder: "src/",
        words: &[
            "to_be(", "from_be(", "to_le(", "from_le(", "to_ne_", "from_ne_", "to_be_", "from_be_",
            "to_le_", "from_le_",
        ],
        but: &[
            ("src/bpf/", "the door to the kernel"),
            (
                "src/journal.rs",
                "the journal's protocol has lengths in little endian",
            ),
            (
                "src/net/",
                "netlink's attributes are bytes in the host's order",
            ),
            (
                "src/worker.rs",
                "an eventfd is written a number in the host's order",
            ),
            (
                "src/daemon/announcer/mod.rs",
                "the same, and random bytes are a number",
            ),
        ],
    },
    Place {
        rule: "libbpf is spoken to in src/bpf",
        folder: "src/",
        words: &["libbpf_rs", "libbpf_sys"],
        but: &[("src/bpf/", "the door to the kernel")],
    },
    Place {
        rule: "plan is pure: no files, clocks, kernel or log, and no threads of its own",
        folder: "src/plan/",
        words: IMPURE,
        but: &[],
    },
    Place {
        rule: "metrics is pure: facts become text",
        folder: "src/metrics/",
        words: IMPURE,
        but: &[],
    },
    Place {
        rule: "config is pure but for the reading of its files",
        folder: "src/config/",
        words: IMPURE,
        but: &[
            ("src/config/load.rs", "it reads the files"),
            (
                "src/config/runtime/folder.rs",
                "it reads the runtime drop-ins",
            ),
            ("src/config/host_name.rs", "it reads the host's name"),
        ],
    },
    Place {
        rule: "model is plain data",
        folder: "src/model/",
        words: &[
            "std::fs",
            "std::env",
            "std::process",
            "std::thread",
            "rustix",
            "log::",
        ],
        but: &[],
    },
    Place {
        rule: "a failure is returned, not panicked about",
        folder: "src/",
        words: &[
            ".unwrap()",
            ".expect(",
            ".unwrap_err()",
            ".expect_err(",
            "panic!(",
            "todo!(",
            "unimplemented!(",
            "unreachable!(",
            "dbg!(",
        ],
        but: &[],
    },
    Place {
        rule: "every channel is bounded",
        folder: "src/",
        words: &["unbounded(", "mpsc"],
        but: &[],
    },
    Place {
        rule: "threads, no async",
        folder: "src/",
        words: &["async fn", "async move", ".await", "tokio"],
        but: &[],
    },
];

const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "Instant::",
    "rustix",
    "log::",
    "println!",
];

/// Whether the word stands in the line, and not as the end of a longer one.
fn says(line: &str, word: &str) -> bool {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    let goes_on = word.starts_with(is_inside);
    line.match_indices(word)
        .any(|(at, _)| !goes_on || !line[..at].ends_with(is_inside))
}

#[test]
fn everything_has_its_place() {
    for place in &PLACES {
        let mut breaches = Vec::new();
        for text in product().filter(|text| text.path.starts_with(place.folder)) {
            if place
                .but
                .iter()
                .any(|(path, _)| text.path.starts_with(path))
            {
                continue;
            }
            for (number, line) in text.code() {
                for word in place.words.iter().filter(|word| says(line, word)) {
                    breaches.push(format!("{}:{number}: {word}", text.path));
                }
            }
        }
        keep(place.rule, breaches);
    }
}

#[test]
fn an_exception_is_one() {
    let mut breaches = Vec::new();
    for place in &PLACES {
        for (path, reason) in place.but {
            let is_used = product().any(|text| {
                text.path.starts_with(path)
                    && text
                        .code()
                        .any(|(_, line)| place.words.iter().any(|word| says(line, word)))
            });
            if !is_used {
                breaches.push(format!("{path} ({reason}): {}", place.rule));
            }
        }
    }
    keep("an exception that nothing needs any more goes", breaches);
}

#[test]
fn every_file_opens_with_its_job() {
    let files = source::all()
        .iter()
        .filter(|text| text.path.ends_with(".rs"));
    let breaches = files.filter(|text| !text.text.starts_with("//! "));
    let breaches = breaches.map(|text| text.path.clone()).collect();
    keep(
        "a Rust file's first line is `//!` and what it is for",
        breaches,
    );
}

#[test]
fn a_file_is_named_after_what_it_does() {
    const NOTHING_SAID: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];
    let files = below("src/", "").chain(below("bpf/", ""));
    let says_nothing = |text: &&source::Text| {
        let mut parts = text.path.split(['/', '.', '_']);
        parts.any(|part| NOTHING_SAID.contains(&part))
    };
    let breaches = files
        .filter(says_nothing)
        .map(|text| text.path.clone())
        .collect();
    keep(
        "a drawer for everything has everybody's things in it",
        breaches,
    );
}

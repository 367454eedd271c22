//! C: what includes what, and what no program has.

use super::source::{Text, all, below, keep};

/// The headers of a room, the lowest first: one includes those before it, and none after. All of mechanism lies below all of
/// feature.
const MECHANISM: [&str; 15] = [
    "address.h",
    "csum.h",
    "hook.h",
    "generation.h",
    "settings.h",
    "counters.h",
    "ipcache.h",
    "packet.h",
    "parse.h",
    "l3.h",
    "ipv6.h",
    "vlan.h",
    "neighbour_message.h",
    "event.h",
    "chain.h",
];
const FEATURE: [&str; 35] = [
    "unmanaged.h",
    "uplink.h",
    "prefilter.h",
    "maglev.h",
    "service.h",
    "affinity.h",
    "socket_peer.h",
    "socket_lb.h",
    "policy.h",
    "link_local.h",
    "endpoint.h",
    "fragment.h",
    "link.h",
    "conntrack.h",
    "reply_tuple.h",
    "host_socket.h",
    "snat.h",
    "route.h",
    "neighbour.h",
    "reverse_path.h",
    "snat_source.h",
    "masquerade.h",
    "external.h",
    "nat.h",
    "delivery.h",
    "asked.h",
    "takeover.h",
    "policy_verdict.h",
    "ct_create.h",
    "ct_commit.h",
    "icmp_inner.h",
    "admission.h",
    "fastpath.h",
    "announce.h",
    "from_network.h",
];
/// Of feature too, and of no use to the others there.
const RESPOND: [&str; 2] = ["respond.h", "neighbour_response.h"];

/// Where a header of bpf/ stands in the order of layers; `None`: it is a program.
fn layer(path: &str) -> Option<usize> {
    let of = |room: &[&str], name: &str| {
        let place = room.iter().position(|header| *header == name);
        place.unwrap_or_else(|| panic!("{path} has no place among the layers: give it one"))
    };
    match path.strip_prefix("bpf/").unwrap_or(path) {
        "kernel.h" => Some(0),
        "abi.h" => Some(1),
        inside => match inside.split_once("lib/")?.1.split_once('/') {
            Some(("mechanism", name)) => Some(2 + of(&MECHANISM, name)),
            Some(("feature", name)) if RESPOND.contains(&name) => {
                Some(2 + MECHANISM.len() + FEATURE.len() + of(&RESPOND, name))
            }
            Some(("feature", name)) => Some(2 + MECHANISM.len() + of(&FEATURE, name)),
            _ => panic!("{path} stands in no room of bpf/lib"),
        },
    }
}

/// The path of a file that is included with quotes.
fn resolve(by: &str, included: &str) -> String {
    let mut path: Vec<&str> = by.split('/').collect();
    path.pop();
    for part in included.split('/') {
        match part {
            ".." => {
                path.pop();
            }
            name => path.push(name),
        }
    }
    path.join("/")
}

#[test]
fn an_include_points_down() {
    let mut breaches = Vec::new();
    for text in below("bpf/", "") {
        for (number, line) in text.code() {
            let Some(included) = line.strip_prefix("#include ") else {
                continue;
            };
            let allowed = match included.trim().strip_prefix('"') {
                // Programs are above all headers, and nothing includes a program.
                Some(included) => {
                    let included = resolve(&text.path, included.trim_end_matches('"'));
                    let below = layer(&included);
                    below.is_some() && layer(&text.path).is_none_or(|own| below < Some(own))
                }
                // The kernel's own headers come in through kernel.h alone.
                None => text.path == "bpf/kernel.h",
            };
            if !allowed {
                breaches.push(format!("{}:{number}: {line}", text.path));
            }
        }
    }
    keep(
        "programs → feature → mechanism → abi.h → kernel.h, and within a room the later on the earlier",
        breaches,
    );
}

/// `DPD_CONNTRACK_H` of bpf/lib/conntrack.h.
fn guard(text: &Text) -> String {
    let name = text.name().trim_end_matches(".h").to_uppercase();
    format!("DPD_{name}_H")
}

#[test]
fn no_program_is_written_twice() {
    let mut breaches = Vec::new();
    for text in below("bpf/", "") {
        let directives: Vec<_> = text
            .code()
            .map(|(number, line)| (number, line.trim()))
            .filter(|(_, line)| {
                line.starts_with("#if") || line.starts_with("#el") || line.starts_with("#endif")
            })
            .collect();
        let guard = format!("#ifndef {}", guard(text));
        let is_right = match directives.as_slice() {
            [] => text.path.ends_with(".bpf.c"),
            [(_, first), (_, "#endif")] => text.path.ends_with(".h") && *first == guard,
            _ => false,
        };
        if !is_right {
            breaches.push(format!(
                "{}: {directives:?}, where `{guard}` is meant",
                text.path
            ));
        }
    }
    keep(
        "no conditional of the preprocessor but a header's guard",
        breaches,
    );
}

#[test]
fn every_file_says_its_licence_and_its_job() {
    let breaches = below("bpf/", "").filter(|text| {
        let mut lines = text.text.lines();
        let licence = lines.next().unwrap_or_default();
        let job = lines.next().unwrap_or_default();
        !licence.contains("SPDX-License-Identifier: GPL-2.0-only") || !job.starts_with("/*")
    });
    let breaches = breaches.map(|text| text.path.clone()).collect();
    keep(
        "SPDX first, then a comment that says what it is for",
        breaches,
    );
}

#[test]
fn a_program_is_named_after_its_file() {
    let mut breaches = Vec::new();
    for text in below("bpf/", ".bpf.c") {
        let stem = text.name().trim_end_matches(".bpf.c");
        let sections = text.text.split("\nSEC(\"").skip(1);
        let programs =
            sections.filter_map(|rest| rest.split_once("\")\nint ")?.1.split('(').next());
        let programs: Vec<_> = programs.collect();
        let named = [format!("tail_{stem}"), format!("dpd_{stem}")];
        let is_right = match programs.as_slice() {
            [] => stem == "export",
            [one] => named.iter().any(|name| name == one),
            _ => false,
        };
        if !is_right {
            breaches.push(format!("{}: {programs:?}", text.path));
        }
    }
    keep("one program in a file, of its name", breaches);
}

#[test]
fn the_daemons_tables_are_not_for_programs_to_write() {
    let mut breaches = Vec::new();
    let mut tables = 0;
    for text in below("bpf/lib/", ".h") {
        for table in text.text.split("\nstruct ").skip(1) {
            let (name, rest) = table.split_once(" {").unwrap_or((table, ""));
            if !name.ends_with("_table") {
                continue;
            }
            tables += 1;
            let body = rest.split("};").next().unwrap_or_default();
            if !body.contains("BPF_F_RDONLY_PROG") {
                breaches.push(format!("{}: struct {name}", text.path));
            }
        }
    }
    assert!(tables > 5, "the tables of a generation are found");
    keep(
        "what the daemon writes is BPF_F_RDONLY_PROG, so that the verifier keeps programs from it",
        breaches,
    );
}

#[test]
fn the_clock_is_read_at_the_hook() {
    const MAY: [&str; 7] = [
        "bpf/lib/feature/socket_lb.h",
        "bpf/lib/mechanism/packet.h",
        "bpf/lib/feature/fastpath.h",
        "bpf/from_l3dev.bpf.c",
        "bpf/to_container.bpf.c",
        "bpf/to_netdev.bpf.c",
        "bpf/xdp_entry.bpf.c",
    ];
    let readers = below("bpf/", "")
        .filter(|text| text.text.contains("bpf_ktime_get") || text.text.contains("bpf_jiffies"));
    let breaches = readers.filter(|text| !MAY.contains(&text.path.as_str()));
    let breaches = breaches.map(|text| text.path.clone()).collect();
    keep("below the entry of a packet time is an argument", breaches);
}

#[test]
fn a_constant_is_defined_once() {
    let mut seen = std::collections::BTreeMap::new();
    let mut breaches = Vec::new();
    for text in all().iter().filter(|text| text.path.starts_with("bpf/")) {
        for (number, line) in text.code() {
            let line = line.trim();
            let Some((name, _)) = line.split_once(" = ") else {
                continue;
            };
            let name = name.trim_start_matches("enum { ");
            let is_constant = name.len() > 2
                && name
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
            if !is_constant {
                continue;
            }
            let place = format!("{}:{number}", text.path);
            if let Some(first) = seen.insert(name.to_owned(), place.clone()) {
                breaches.push(format!("{name}: {first} and {place}"));
            }
        }
    }
    keep("a constant has one definition", breaches);
}

//! The layout of what lies in kept maps, pinned: a change by accident would make a new daemon misread what an older
//! one left in the kernel.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use dpd::bpf::abi;
use libbpf_rs::HasSize;
use libbpf_rs::btf::types::{MemberAttr, Struct};

use super::parity::{constants, object_types};

/// Enums whose numbers never leave one load of the programs.
const OF_A_LOAD: [&str; 3] = ["step", "hook", "hook_flags"];

const HEADER: &str = include_str!("../../bpf/abi.h");
const PINNED: &str = include_str!("layout.txt");

/// The names behind a keyword at the start of a line of abi.h.
fn declared(keyword: &str) -> Vec<&'static str> {
    let lines = HEADER.lines().filter_map(|line| line.strip_prefix(keyword));
    lines
        .filter_map(|rest| rest.split_once(" {").map(|(name, _)| name.trim()))
        .collect()
}

/// One line for each struct, with offsets in bytes, and one for each constant.
fn layout() -> String {
    let mut out = format!("abi {}\n", abi::abi::DPD_ABI_VERSION.0);
    let types = object_types();
    for name in declared("struct ") {
        let of: Struct<'_> = types.type_by_name(name).unwrap_or_else(|| {
            panic!("the object lacks struct {name}: name it in bpf/export.bpf.c")
        });
        let _ = write!(out, "struct {name} {}:", of.size());
        for member in of.iter() {
            let MemberAttr::Normal { offset } = member.attr else {
                panic!("struct {name} has a field of bits");
            };
            let _ = write!(
                out,
                " {}@{}",
                member.name.unwrap_or_default().to_string_lossy(),
                offset / 8
            );
        }
        out.push('\n');
    }
    for name in declared("enum ")
        .into_iter()
        .filter(|name| !OF_A_LOAD.contains(name))
    {
        for (constant, value) in constants(name) {
            // How many there are is no meaning that could change.
            if !constant.ends_with("_COUNT") && name != "abi" {
                let _ = writeln!(out, "{name} {constant} {value}");
            }
        }
    }
    out
}

#[test]
fn the_layout_is_the_pinned_one() {
    let now = layout();
    if now == PINNED {
        return;
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout.txt");
    fs::write(&place, &now).expect("write the layout as it is now");
    let before: BTreeSet<&str> = PINNED.lines().collect();
    let after: BTreeSet<&str> = now.lines().collect();
    let lost: Vec<_> = before.difference(&after).collect();
    let new: Vec<_> = after.difference(&before).collect();
    let advice = if lost.is_empty() {
        "New numbers and structs change nothing for what is there."
    } else {
        "A released daemon's maps would be misread: raise DPD_ABI_VERSION in bpf/abi.h."
    };
    panic!(
        "the layout of what is shared with the kernel has changed.\nwas: {lost:#?}\nis: {new:#?}\n{advice} If it is \
         meant:\n  cp {} tests/house/layout.txt",
        place.display()
    );
}

#[test]
fn every_struct_is_without_holes_in_the_daemons_eyes_too() {
    // (struct, its size in Rust): those that are read and written as bytes.
    macro_rules! sizes {
        ($($name:ident),*) => { [$((stringify!($name), size_of::<abi::$name>())),*] };
    }
    let sizes = sizes!(
        address,
        backend,
        ct_entry,
        endpoint,
        event,
        ipcache_entry,
        address_prefix_key,
        packet_count,
        drop_count_key,
        policy,
        policy_key,
        prefilter,
        service,
        service_key,
        backend_lut_entry,
        maglev_row,
        settings,
        flow_tuple,
        conn_usage,
        uplink
    );
    let types = object_types();
    for (name, size) in sizes {
        let of: Struct<'_> = types
            .type_by_name(name)
            .expect("the struct is in the object");
        assert_eq!(of.size(), size, "struct {name}");
    }
}

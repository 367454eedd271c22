//! The numbers that programs and daemon share, read from the object itself: each has a name, and each name a number.

use std::collections::{BTreeMap, BTreeSet};

use dpd::bpf::abi;
use dpd::bpf::chain::CHAIN;
use dpd::bpf::load::{HookProgram, XDP_PROGRAM};
use dpd::model::drop_reason::REASONS;
use dpd::model::policy::reserved;
use libbpf_rs::ObjectBuilder;
use libbpf_rs::btf::{Btf, types::Enum};

/// The constants of an enum of the object, by name.
pub fn constants(name: &str) -> BTreeMap<String, i64> {
    let btf = object_types();
    let of: Enum<'_> = btf
        .type_by_name(name)
        .unwrap_or_else(|| panic!("the object has no enum {name}"));
    let text =
        |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
    of.iter()
        .map(|member| (text(member.name), member.value))
        .collect()
}

pub fn object_types() -> Btf<'static> {
    Btf::from_raw("dpd", abi::OBJECT)
        .expect("read the object")
        .expect("the object has types")
}

/// The programs of the object.
fn programs() -> BTreeSet<String> {
    let object = ObjectBuilder::default()
        .open_memory(abi::OBJECT)
        .expect("open the object");
    object
        .progs()
        .map(|program| program.name().to_string_lossy().into_owned())
        .collect()
}

/// Reasons of Cilium's list and ours that have words, though no program drops for them yet.
const NOT_MADE: [u8; 2] = [157, 177];

#[test]
fn every_drop_reason_has_words() {
    let made: BTreeSet<i64> = constants("reason")
        .into_values()
        .filter(|number| *number != 0)
        .collect();
    let named: BTreeSet<i64> = REASONS
        .iter()
        .map(|(number, _)| i64::from(*number))
        .collect();
    let not_made: BTreeSet<i64> = NOT_MADE.into_iter().map(i64::from).collect();
    assert_eq!(REASONS.len(), named.len(), "a number has its words once");
    assert!(
        made.iter().all(|number| (132..=255).contains(number)),
        "a reason is a byte: {made:?}"
    );
    assert_eq!(
        &made | &not_made,
        named,
        "bpf/abi.h and src/model/drop_reason.rs"
    );
    assert!(
        made.is_disjoint(&not_made),
        "what is made has left the list of what is not"
    );
}

#[test]
fn every_step_of_the_chain_has_its_program() {
    let mut places = constants("call");
    let count = places.remove("CALL_COUNT").expect("CALL_COUNT is there");
    let chain: BTreeMap<String, i64> = CHAIN
        .iter()
        .map(|(name, place)| ((*name).to_owned(), i64::from(place.0)))
        .collect();
    assert_eq!(CHAIN.len(), chain.len(), "each program once");
    assert_eq!(count, chain.len() as i64, "CALL_COUNT counts them");
    let named: BTreeMap<String, i64> = places
        .into_iter()
        .map(|(name, place)| (name.replace("CALL_", "tail_").to_lowercase(), place))
        .collect();
    assert_eq!(
        named, chain,
        "enum call of bpf/abi.h and CHAIN of src/bpf/chain.rs"
    );
    let distinct: BTreeSet<i64> = chain.values().copied().collect();
    assert_eq!(
        distinct,
        (0..count).collect(),
        "each place once, without a hole"
    );
}

#[test]
fn the_object_has_the_programs_that_are_loaded_and_no_others() {
    let chain = CHAIN.iter().map(|(name, _)| *name);
    let hooks = HookProgram::ALL.iter().map(|hook| hook.name());
    let all = chain.chain(hooks).chain([XDP_PROGRAM]);
    let wanted: BTreeSet<String> = all.map(str::to_owned).collect();
    assert_eq!(programs(), wanted);
}

#[test]
fn hooks_and_their_programs_are_as_many() {
    assert_eq!(constants("hook").len(), HookProgram::ALL.len());
}

#[test]
fn the_classes_of_peers_with_rows_of_their_own_are_the_plans() {
    let planned = [
        ("POLICY_CLASS_ANY", reserved::CLASS_ANY),
        ("POLICY_CLASS_WORLD", reserved::CLASS_WORLD),
    ];
    let planned = planned.map(|(name, number)| (name.to_owned(), number));
    let made = constants("policy_class");
    let made = made.into_iter().map(|(name, number)| (name, number as u32));
    assert_eq!(made.collect::<BTreeMap<_, _>>(), planned.into());
}

#[test]
fn settings_have_room_for_every_lifetime() {
    let mut lifetimes = constants("lifetime");
    let count = lifetimes
        .remove("LIFETIME_COUNT")
        .expect("LIFETIME_COUNT is there");
    let distinct: BTreeSet<i64> = lifetimes.values().copied().collect();
    assert_eq!(
        distinct,
        (0..count).collect(),
        "each place once, without a hole"
    );
    assert_eq!(abi::settings::default().lifetime_ns.len() as i64, count);
}

#[test]
fn every_counter_has_its_place() {
    let mut counters = constants("counter");
    let count = counters
        .remove("COUNTER_COUNT")
        .expect("COUNTER_COUNT is there");
    let distinct: BTreeSet<i64> = counters.values().copied().collect();
    assert_eq!(
        distinct,
        (0..count).collect(),
        "each place once, without a hole"
    );
}

#[test]
fn flags_are_single_bits() {
    for (name, flag) in constants("connection_flags") {
        assert_eq!(flag.count_ones(), 1, "{name}");
        assert!(flag <= 255, "{name} fits into its byte");
    }
}

/// `to-endpoint` of POINT_TO_ENDPOINT.
fn name_of(constant: &str, prefix: &str) -> String {
    constant
        .trim_start_matches(prefix)
        .to_lowercase()
        .replace('_', "-")
}

#[test]
fn every_point_has_its_name() {
    for (constant, number) in constants("point") {
        let named = dpd::bpf::events::point(number as u8);
        assert_eq!(named, name_of(&constant, "POINT_"));
    }
}

#[test]
fn every_verdict_has_its_name() {
    for (constant, number) in constants("verdict") {
        let verdict = dpd::bpf::events::verdict(number as u8);
        let named = dpd::observe::record::verdict_name(verdict);
        assert_eq!(named, name_of(&constant, "VERDICT_"));
    }
}

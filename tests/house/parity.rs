//! The numbers that programs and daemon share, read from the object itself: each has a name, and each name a number.

use std::collections::{BTreeMap, BTreeSet};

use dpd::bpf::abi::{self, Plain};
use dpd::bpf::attach::hook::{AttachPoint, HOOKS, Role, TcSide};
use dpd::bpf::attach::socket::SOCKET_HOOKS;
use dpd::bpf::load::chain::CHAIN;
use dpd::model::drop_reason::REASONS;
use dpd::model::policy::reserved;
use libbpf_rs::ObjectBuilder;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{DataSec, Enum, Var};

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
    assert_eq!(REASONS.len(), named.len(), "a number has its words once");
    assert!(
        made.iter().all(|number| (132..=255).contains(number)),
        "a reason is a byte: {made:?}"
    );
    assert_eq!(made, named, "bpf/abi.h and src/model/drop_reason.rs");
}

#[test]
fn every_step_of_the_chain_has_its_program() {
    let mut places = constants("step");
    let count = places.remove("STEP_COUNT").expect("STEP_COUNT is there");
    let chain: BTreeMap<String, i64> = CHAIN
        .iter()
        .map(|(name, place)| ((*name).to_owned(), i64::from(place.0)))
        .collect();
    assert_eq!(CHAIN.len(), chain.len(), "each program once");
    assert_eq!(count, chain.len() as i64, "STEP_COUNT counts them");
    let named: BTreeMap<String, i64> = places
        .into_iter()
        .map(|(name, place)| (name.replace("STEP_", "tail_").to_lowercase(), place))
        .collect();
    assert_eq!(
        named, chain,
        "enum step of bpf/abi.h and CHAIN of src/bpf/load/chain.rs"
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
    let hooks = HOOKS.iter().map(|hook| hook.program);
    let sockets = SOCKET_HOOKS.iter().map(|hook| hook.program);
    let all = chain.chain(hooks).chain(sockets);
    let wanted: BTreeSet<String> = all.map(str::to_owned).collect();
    assert_eq!(programs(), wanted);
}

/// The rows of `dpd_hooks`, as the object has them, without that of 0, which is no hook.
fn hook_rows() -> Vec<abi::hook_row> {
    let object = ObjectBuilder::default()
        .open_memory(abi::OBJECT)
        .expect("open the object");
    let constants = object
        .maps()
        .find(|map| map.name().to_string_lossy().ends_with(".data.hooks"));
    let constants = constants.expect("the object has constants");
    let bytes = constants
        .initial_value()
        .expect("the constants have values");
    let types = object_types();
    let section: DataSec<'_> = types
        .type_by_name(".data.hooks")
        .expect("the object has constants");
    let table = section.iter().find(|variable| {
        let name = types.type_by_id::<Var<'_>>(variable.ty);
        name.is_some_and(|of| of.name().is_some_and(|name| name == "dpd_hooks"))
    });
    let table = table.expect("export.bpf.c has the table of hooks");
    let rows = &bytes[table.offset as usize..][..table.size];
    let rows = rows.chunks(size_of::<abi::hook_row>());
    let rows =
        rows.map(|row| abi::hook_row::from_bytes(row).expect("a row is as long as its struct"));
    rows.skip(1).collect()
}

#[test]
fn the_table_of_hooks_is_the_programs() {
    let rows = HOOKS.map(|hook| abi::hook_row {
        hook: hook.number.0 as u8,
        attach_point: match hook.attach_point {
            AttachPoint::Tc(TcSide::Ingress) => abi::attach_point::ATTACH_TC_INGRESS.0 as u8,
            AttachPoint::Tc(TcSide::Egress) => abi::attach_point::ATTACH_TC_EGRESS.0 as u8,
            AttachPoint::Xdp => abi::attach_point::ATTACH_XDP.0 as u8,
        },
        role: match hook.role {
            Role::Endpoint => abi::interface_role::ROLE_ENDPOINT.0 as u8,
            Role::Uplink | Role::L3Uplink => abi::interface_role::ROLE_UPLINK.0 as u8,
        },
        point: hook.point.0 as u8,
        direction: hook.direction.0 as u8,
        sender: hook.sender.0 as u8,
        first_step: hook.first_step.0 as u8,
        flags: u8::from(hook.passes_on) * abi::hook_flags::HOOK_PASSES_ON.0 as u8
            + u8::from(hook.fails_open) * abi::hook_flags::HOOK_FAILS_OPEN.0 as u8,
    });
    assert_eq!(
        hook_rows().iter().map(Plain::as_bytes).collect::<Vec<_>>(),
        rows.iter().map(Plain::as_bytes).collect::<Vec<_>>(),
        "HOOK_TABLE of bpf/lib/mechanism/hook.h and HOOKS of src/bpf/attach/hook.rs"
    );
}

#[test]
fn each_role_has_the_tc_hooks_of_its_rows() {
    for role in [Role::Endpoint, Role::Uplink, Role::L3Uplink] {
        let of_rows = HOOKS.iter().filter(|row| row.role == role);
        let of_rows = of_rows.filter(|row| row.attach_point != AttachPoint::Xdp);
        let mut named: Vec<&str> = of_rows.map(|row| row.program).collect();
        if role == Role::L3Uplink {
            named.push("dpd_to_netdev"); // reads no header: both kinds of uplinks have it
        }
        assert_eq!(
            role.hooks().map(|hook| hook.name()).to_vec(),
            named,
            "{role:?}"
        );
    }
}

#[test]
fn the_identities_that_programs_name_are_the_models() {
    let planned = [("IDENTITY_HOST".to_owned(), i64::from(reserved::HOST))];
    assert_eq!(constants("reserved_identity"), planned.into());
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
    for (name, flag) in constants("ct_flags") {
        assert_eq!(flag.count_ones(), 1, "{name}");
        assert!(
            flag <= i64::from(u16::MAX),
            "{name} fits into its two bytes"
        );
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
        let named = dpd::bpf::state::events::point(number as u8);
        assert_eq!(named, name_of(&constant, "POINT_"));
    }
}

#[test]
fn every_verdict_has_its_name() {
    for (constant, number) in constants("verdict") {
        let verdict = dpd::bpf::state::events::verdict(number as u8);
        let named = dpd::observe::record::verdict_name(verdict);
        assert_eq!(named, name_of(&constant, "VERDICT_"));
    }
}

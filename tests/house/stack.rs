//! The stack of the programs, as the oldest kernel that is supported counts it. Newer ones round less, and let pass what that one
//! refuses.
//!
//! Needs root: the verifier's input is complete once libbpf has loaded the object.

use std::collections::BTreeMap;

use dpd::bpf::abi;
use libbpf_rs::libbpf_sys::{self, bpf_insn};
use libbpf_rs::{MapType, Object, ObjectBuilder};

/// `MAX_BPF_STACK`: bytes that a program and the functions below it may have together.
const LIMIT: usize = 512;
/// Each function takes a multiple of this, and one at least (`check_max_stack_depth` in kernel/bpf/verifier.c, before Linux 6.10).
const ROUNDED_TO: usize = 32;

const FRAME_POINTER: u8 = libbpf_sys::BPF_REG_10 as u8;
const CALL: u8 = (libbpf_sys::BPF_JMP | libbpf_sys::BPF_CALL) as u8;
const MOVE: u8 = (libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_X) as u8;
const ADD: u8 = (libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_ADD | libbpf_sys::BPF_K) as u8;

/// A function: the bytes of its stack, and the first instructions of those that it calls.
#[derive(Default)]
struct Frame {
    bytes: usize,
    calls: Vec<usize>,
}

/// The target of a call of another function of the program.
fn called(at: usize, insn: &bpf_insn) -> Option<usize> {
    let is_own = insn.code == CALL && u32::from(insn.src_reg()) == libbpf_sys::BPF_PSEUDO_CALL;
    is_own.then(|| (at + 1).checked_add_signed(insn.imm as isize))?
}

/// The functions of a program, by their first instruction.
fn frames(insns: &[bpf_insn]) -> BTreeMap<usize, Frame> {
    let calls = || insns.iter().enumerate();
    let targets = calls().filter_map(|(at, insn)| called(at, insn));
    let starts = std::iter::once(0).chain(targets);
    let mut frames: BTreeMap<usize, Frame> = starts.map(|at| (at, Frame::default())).collect();
    // Registers that hold the frame pointer, of which the next instructions take an address.
    let mut pointers = 0u16;
    for (at, insn) in calls() {
        let frame = frames.range_mut(..=at).next_back().expect("the first").1;
        let mut touch = |offset: i64| frame.bytes = frame.bytes.max(-offset.min(0) as usize);
        let is_memory = matches!(u32::from(insn.code & 7), 1..=3); // BPF_LDX, BPF_ST, BPF_STX
        let base = match u32::from(insn.code & 7) == libbpf_sys::BPF_LDX {
            true => insn.src_reg(),
            false => insn.dst_reg(),
        };
        if is_memory && base == FRAME_POINTER {
            touch(insn.off.into());
        }
        let bit = 1 << insn.dst_reg();
        match insn.code {
            MOVE if insn.src_reg() == FRAME_POINTER => pointers |= bit,
            ADD if pointers & bit != 0 => {
                touch(insn.imm.into());
                pointers &= !bit;
            }
            _ => {}
        }
        frame.calls.extend(called(at, insn));
    }
    frames
}

/// The most that a function and those below it take, and the sizes on that way.
fn deepest(frames: &BTreeMap<usize, Frame>, at: usize) -> (usize, Vec<usize>) {
    let frame = &frames[&at];
    let below = frame.calls.iter().map(|target| deepest(frames, *target));
    let (sum, mut sizes) = below.max().unwrap_or_default();
    sizes.insert(0, frame.bytes);
    let own = frame.bytes.max(1).next_multiple_of(ROUNDED_TO);
    (own + sum, sizes)
}

/// The object with all functions in each program.
fn load() -> Object {
    let mut open = ObjectBuilder::default()
        .open_memory(abi::OBJECT)
        .expect("open the object");
    for mut map in open.maps_mut() {
        let is_section = map.name().to_string_lossy().contains('.');
        map.set_autocreate(!is_section).expect("choose the maps");
        if map.max_entries() == 0 && map.map_type() != MapType::SkStorage {
            map.set_max_entries(1).expect("give the map a size");
        }
    }
    open.load().expect("load the programs (as root?)")
}

#[test]
fn each_program_has_room_on_the_stack_of_linux_6_1() {
    let object = load();
    let mut programs = 0;
    for program in object.progs() {
        let name = program.name().to_string_lossy().into_owned();
        let (bytes, sizes) = deepest(&frames(program.insns()), 0);
        println!("{name:24} {bytes:>4} {sizes:?}");
        assert!(
            bytes > 0 && bytes <= LIMIT,
            "{name}: {bytes} of {LIMIT}: {sizes:?}"
        );
        programs += 1;
    }
    assert!(programs > 10, "{programs}");
}

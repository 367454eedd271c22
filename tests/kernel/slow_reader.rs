//! A slot is written again only when no program reads it any more. Packets take microseconds; here a program takes milliseconds
//! between two lookups in its epoch's tables.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use dpd::bpf::abi;
use dpd::bpf::attach::Mechanism;
use dpd::bpf::tables::generation::Generations;
use libbpf_rs::{MapHandle, libbpf_sys};

use crate::host::{Host, on_host};

/// Runs during which a commit must have happened.
const OVERTAKEN: usize = 20;

fn instruction(code: u8, registers: u8, off: i16, imm: i32) -> libbpf_sys::bpf_insn {
    let mut instruction = libbpf_sys::bpf_insn {
        code,
        off,
        imm,
        ..Default::default()
    };
    instruction.set_dst_reg(registers & 15);
    instruction.set_src_reg(registers >> 4);
    instruction
}

/// Looks up `dpd_live`, then the settings of its epoch, waits, and looks up the settings of the same slot again.
/// Returns 0 if they are the same, 1 if not, 2 if something is missing.
fn slow_reader(live: &MapHandle, settings: &MapHandle) -> OwnedFd {
    const LOOKUP: i32 = 1;
    const KTIME: i32 = 5;
    /// Together some milliseconds; the verifier follows each turn.
    const TURNS: i32 = 8192;
    const CALLS: usize = 32;
    /// As bytes of registers: the source's number, then the destination's.
    const R1_R0: u8 = 0x01;
    const R2_R10: u8 = 0xa2;
    let value = offset_of!(abi::settings, report_interval_ns) as i16;

    let mov = |registers| instruction(0xbf, registers, 0, 0);
    let set = |register, imm| instruction(0xb7, register, 0, imm);
    let add = |register, imm| instruction(0x07, register, 0, imm);
    let load = |registers, off| instruction(0x79, registers, off, 0);
    let store = |registers, off| instruction(0x63, registers, off, 0);
    let call = |helper| instruction(0x85, 0, 0, helper);
    // Two slots of one instruction: the map by its descriptor (BPF_PSEUDO_MAP_FD).
    let map = |of: &MapHandle| {
        let head = instruction(0x18, 0x11, 0, of.as_fd().as_raw_fd());
        [head, instruction(0, 0, 0, 0)]
    };
    // r0 = look up the key at the stack's offset in the map in r1; 2 if it is not there.
    let lookup = |key: i32| {
        [
            mov(R2_R10),
            add(2, key),
            call(LOOKUP),
            instruction(0x55, 0, 2, 0), // if r0 != 0 skip the next two
            set(0, 2),
            instruction(0x95, 0, 0, 0),
        ]
    };
    let read_settings = |into: u8| {
        let mut code = Vec::from(map(settings));
        code.extend(lookup(-8)); // the slot
        code.push(mov(R1_R0));
        code.extend(lookup(-4)); // key 0 of the inner map
        code.push(load(into, value));
        code
    };
    let mut code = vec![set(1, 0), store(0x1a, -4)];
    code.extend(map(live));
    code.extend(lookup(-4));
    code.extend([load(0x07, 0), instruction(0x57, 7, 0, 1), store(0x7a, -8)]);
    code.extend(read_settings(0x08));
    code.push(set(6, TURNS));
    code.extend(vec![call(KTIME); CALLS]);
    code.extend([
        add(6, -1),
        instruction(0x55, 6, -(CALLS as i16) - 2, 0), // if r6 != 0 once more
    ]);
    code.extend(read_settings(0x09));
    code.extend([
        set(0, 0),
        instruction(0x1d, 0x98, 1, 0), // if r8 == r9 skip the next
        set(0, 1),
        instruction(0x95, 0, 0, 0),
    ]);
    // SAFETY: the names end in a zero byte, and the number of instructions is right; all live for the whole call.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"slow_reader".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as u64,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "the kernel refuses the slow reader: {fd}");
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn run(program: &OwnedFd) -> u32 {
    let frame = [0u8; 64];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the frame has the length in the options, and both live for the whole call.
    let done = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    assert_eq!(done, 0, "the kernel refuses the test run");
    options.retval
}

fn open(host: &Host, name: &str) -> MapHandle {
    MapHandle::from_pinned_path(host.pins().map(name)).expect("open a map")
}

#[test]
fn a_program_that_takes_its_time_sees_one_configuration_to_its_end() {
    on_host(|host| {
        let mut state = host.start(Mechanism::Tcx).live().cloned().expect("a state");
        let mut generations = Generations::open(&host.pins()).expect("open the tables");
        let program = slow_reader(&open(host, "dpd_live"), &open(host, "dpd_settings"));
        let reader = host.reader();
        let epoch = || reader.epoch().expect("the live epoch");
        let is_over = AtomicBool::new(false);
        let overtaken = std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut overtaken = 0;
                while overtaken < OVERTAKEN {
                    let begun = epoch();
                    let answer = run(&program);
                    is_over.store(answer != 0, Ordering::Relaxed);
                    assert_eq!(answer, 0, "from epoch {begun} to {}", epoch());
                    overtaken += usize::from(epoch() > begun);
                }
                is_over.store(true, Ordering::Relaxed);
                overtaken
            });
            while !is_over.load(Ordering::Relaxed) {
                let live = state.clone();
                state.settings.interval_ns += 1;
                let prepared = generations.stage(&state, Some(&live));
                generations.commit(prepared.expect("write the tables"));
                generations.forget_old();
            }
            looks.join()
        });
        assert_eq!(overtaken.ok(), Some(OVERTAKEN), "its panic is above");
    });
}

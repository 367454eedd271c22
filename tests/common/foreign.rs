//! Programs of another tool, on the same hooks as ours.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::{TC_INGRESS, TcHook, TcHookBuilder};

/// What the program does with every packet.
#[derive(Clone, Copy)]
pub enum Does {
    /// `TCX_NEXT`, `TC_ACT_UNSPEC`
    Next = -1,
    /// `TC_ACT_SHOT`
    Drop = 2,
}

/// Loads `r0 = does; exit` under a name.
pub fn program(name: &std::ffi::CStr, does: Does) -> OwnedFd {
    load(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, name, does as i32)
}

/// Loads `r0 = result; exit` as a program of a type (`BPF_PROG_TYPE_*`).
pub fn load(kind: u32, name: &std::ffi::CStr, result: i32) -> OwnedFd {
    load_instructions(kind, name, &[move_to(0, result), exit()])
}

/// Loads `return bpf_redirect_peer(ifindex, 0)`: nothing else happens to a packet.
pub fn redirect(name: &std::ffi::CStr, ifindex: u32) -> OwnedFd {
    const CALL: u8 = 0x85; // BPF_JMP | BPF_CALL
    let call = libbpf_sys::bpf_insn {
        code: CALL,
        imm: libbpf_sys::BPF_FUNC_redirect_peer as i32,
        ..Default::default()
    };
    let instructions = [move_to(1, ifindex as i32), move_to(2, 0), call, exit()];
    load_instructions(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, name, &instructions)
}

/// `rN = value`
fn move_to(register: u8, value: i32) -> libbpf_sys::bpf_insn {
    let mut instruction = libbpf_sys::bpf_insn {
        code: 0xb7, // BPF_ALU64 | BPF_MOV | BPF_K
        imm: value,
        ..Default::default()
    };
    instruction.set_dst_reg(register);
    instruction
}

fn exit() -> libbpf_sys::bpf_insn {
    libbpf_sys::bpf_insn {
        code: 0x95, // BPF_JMP | BPF_EXIT
        ..Default::default()
    }
}

fn load_instructions(
    kind: u32,
    name: &std::ffi::CStr,
    instructions: &[libbpf_sys::bpf_insn],
) -> OwnedFd {
    // SAFETY: the names end in a zero byte, and the number of instructions is right; all live for the whole call.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as u64,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "the kernel refuses the foreign program: {fd}");
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Attaches it to the tcx ingress of an interface, before all that is there. It stays for as long as the answer lives.
pub fn attach_first(ifindex: u32, program: &OwnedFd) -> OwnedFd {
    attach_first_at(ifindex, program, libbpf_sys::BPF_TCX_INGRESS)
}

/// The same at either hook (`BPF_TCX_*`).
pub fn attach_first_at(ifindex: u32, program: &OwnedFd, hook: u32) -> OwnedFd {
    const BPF_F_BEFORE: u32 = 1 << 3;
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: BPF_F_BEFORE,
        ..Default::default()
    };
    // SAFETY: the program's descriptor and the options live for the whole call.
    let fd =
        unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex as i32, hook, &options) };
    assert!(fd >= 0, "the kernel refuses the foreign link: {fd}");
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Puts it into the clsact qdisc of an interface, behind our filter; makes the qdisc if it lacks.
pub fn filter(ifindex: u32, program: &OwnedFd) -> TcHook {
    let mut hook = TcHookBuilder::new(program.as_fd())
        .ifindex(ifindex as i32)
        .handle(1)
        .priority(50)
        .hook(TC_INGRESS);
    hook.create().expect("make the clsact qdisc");
    hook.attach().expect("attach the foreign filter");
    hook
}

/// Puts it into our own filter on the clsact ingress of an interface.
pub fn replace_ours(ifindex: u32, program: &OwnedFd) {
    TcHookBuilder::new(program.as_fd())
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(0xd9d)
        .priority(1)
        .hook(TC_INGRESS)
        .attach()
        .expect("replace our filter");
}

/// The ids of the programs on a tcx hook of an interface, in their order.
pub fn order(ifindex: u32, attach_type: u32) -> Vec<u32> {
    let mut ids = [0u32; 64];
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = 64;
    // SAFETY: the array has the length in the options, and all live for the whole call.
    let done =
        unsafe { libbpf_sys::bpf_prog_query_opts(ifindex as i32, attach_type, &mut options) };
    assert_eq!(done, 0, "ask for the programs of a hook");
    // SAFETY: both arms of the union are the count.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    ids[..count].to_vec()
}

/// The id of a loaded program.
pub fn id(program: &OwnedFd) -> u32 {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which asks for no arrays.
    let done = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_raw_fd(),
            std::ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    assert_eq!(done, 0, "ask about a program");
    info.id
}

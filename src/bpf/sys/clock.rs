//! The clock of the programs: `bpf_ktime_get_ns` is CLOCK_MONOTONIC of the machine, while this process may be in a time
//! namespace, where CLOCK_MONOTONIC has an offset (time_namespaces(7)).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys;

use super::parse;

/// `BPF_F_SLEEPABLE`, which programs of this type must have (include/uapi/linux/bpf.h).
const SLEEPABLE: u32 = 1 << 4;

/// CLOCK_MONOTONIC as programs read it, in nanoseconds.
pub fn now_ns() -> u64 {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let offset = OFFSET_NS.get_or_init(|| {
        // A member of the group that reads the maps may load no program.
        measure_offset()
            .or_else(|_| recorded_offset())
            .unwrap_or_else(|error| {
                log::debug!("read the clock of programs: {error:#}");
                0
            })
    });
    own_ns().wrapping_add_signed(-offset)
}

/// CLOCK_MONOTONIC of this process.
fn own_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How far this process's clock is ahead; 0 in the machine's own time namespace.
fn measure_offset() -> Result<i64> {
    let program = load().context("load a program that reads the clock")?;
    let before = own_ns();
    let kernel = run(&program).context("run a program that reads the clock")?;
    let after = own_ns();
    if (before..=after).contains(&kernel) {
        return Ok(0);
    }
    Ok(before.midpoint(after).wrapping_sub(kernel).cast_signed())
}

/// The offset of the time namespace by its file. That is the one of children: the same but for a process that has left its
/// namespace and not started another program by fork.
fn recorded_offset() -> Result<i64> {
    let text = fs::read_to_string("/proc/self/timens_offsets");
    parse_offsets(&text.context("read /proc/self/timens_offsets")?)
}

/// `monotonic  1000000  500`: seconds and nanoseconds.
fn parse_offsets(text: &str) -> Result<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("monotonic"));
    let mut numbers = line
        .unwrap_or_default()
        .split_whitespace()
        .map(str::parse::<i64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(seconds)), Some(Ok(nanoseconds))) => Ok(seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(nanoseconds)),
        _ => bail!("/proc/self/timens_offsets has no offset of the monotonic clock"),
    }
}

/// `*(u64 *)ctx = bpf_ktime_get_ns(); return 0;`
fn load() -> io::Result<OwnedFd> {
    let instruction = |code, registers: (u8, u8), imm| {
        let mut instruction = libbpf_sys::bpf_insn {
            code,
            imm,
            ..Default::default()
        };
        instruction.set_dst_reg(registers.0);
        instruction.set_src_reg(registers.1);
        instruction
    };
    let instructions = [
        instruction(0xbf, (6, 1), 0), // BPF_ALU64 | BPF_MOV | BPF_X
        instruction(0x85, (0, 0), libbpf_sys::BPF_FUNC_ktime_get_ns as i32), // BPF_JMP | BPF_CALL
        instruction(0x7b, (6, 0), 0), // BPF_STX | BPF_MEM | BPF_DW
        instruction(0xb7, (0, 0), 0), // BPF_ALU64 | BPF_MOV | BPF_K
        instruction(0x95, (0, 0), 0), // BPF_JMP | BPF_EXIT
    ];
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        prog_flags: SLEEPABLE,
        ..Default::default()
    };
    // SAFETY: the names end in a zero byte, the number of instructions is theirs, and all live for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SYSCALL,
            c"dpd_clock".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            &raw mut options,
        )
    };
    // SAFETY: the kernel has just created this descriptor for us.
    parse(done).map(|program| unsafe { OwnedFd::from_raw_fd(program) })
}

fn run(program: &OwnedFd) -> io::Result<u64> {
    let mut read = 0u64;
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        ctx_in: (&raw mut read).cast(),
        ctx_size_in: size_of::<u64>() as u32,
        ..Default::default()
    };
    // SAFETY: the context, which the kernel reads and writes, has the size that is given, and lives for the whole call.
    let done = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    parse(done)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_time_namespace() {
        let rows = [
            (
                "monotonic           0         0\nboottime            0         0\n",
                Some(0),
            ),
            (
                "monotonic     1000000       500\n",
                Some(1_000_000_000_000_500),
            ),
            ("monotonic        -240         0\n", Some(-240_000_000_000)),
            ("boottime            0         0\n", None),
            ("monotonic        many         0\n", None),
        ];
        for (text, offset) in rows {
            assert_eq!(parse_offsets(text).ok(), offset, "{text}");
        }
    }
}

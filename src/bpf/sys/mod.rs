//! System calls on eBPF objects: each passes one gate, and its error names the operation.

pub mod bpffs;
pub mod btf;
pub mod call;
pub mod capabilities;
pub mod clock;
pub mod expedited_rcu;
pub mod libbpf_log;
pub mod lock;
pub mod map;
pub mod mapped_word;
pub mod op;
pub mod pin_guard;
pub mod pins;
pub mod program;
pub mod record_layout;
pub mod requirements;
pub mod text_map;
pub mod write_access;

use std::io;

/// The result of a libbpf function: minus an errno, or a number.
pub(in crate::bpf) fn parse(done: i32) -> io::Result<i32> {
    match done {
        0.. => Ok(done),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

//! The resources of a process.

/// The resources that one process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds, in user space and in the kernel.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    /// `None`: unlimited.
    pub max_fds: Option<u64>,
    pub threads: u64,
    /// The start time, in seconds of Unix time.
    pub started_seconds: f64,
}

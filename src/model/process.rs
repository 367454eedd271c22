//! What a process takes of its host.

/// What one process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds of all CPUs, in its own code and in the kernel for it.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    /// `None`: as many as it likes.
    pub max_fds: Option<u64>,
    pub threads: u64,
    /// When it was started, in seconds of Unix time.
    pub started_seconds: f64,
}

//! The resource usage of this process, and its memory.

pub mod memory;

use anyhow::{Context, Result};
use procfs::WithCurrentSystemInfo;
use procfs::process::{LimitValue, Process};

use crate::model::process::Usage;

/// Reads the usage from `/proc`.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn usage() -> Result<Usage> {
    let process = Process::myself().context("open /proc/self")?;
    let stat = process.stat().context("read /proc/self/stat")?;
    let limits = process.limits().context("read /proc/self/limits")?;
    let ticks = procfs::ticks_per_second() as f64;
    let booted = procfs::boot_time_secs().context("read /proc/stat")?;
    Ok(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count().context("list /proc/self/fd")? as u64,
        max_fds: match limits.max_open_files.soft_limit {
            LimitValue::Value(most) => Some(most),
            LimitValue::Unlimited => None,
        },
        threads: stat.num_threads.unsigned_abs(),
        started_seconds: booted as f64 + stat.starttime as f64 / ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_this_process_is_plausible() {
        let now = usage().unwrap();
        assert!(now.cpu_seconds >= 0.0);
        assert!(now.resident_bytes > 0 && now.virtual_bytes > now.resident_bytes);
        assert!(now.threads > 0 && now.open_fds >= 3, "{now:?}");
        assert!(now.max_fds.is_none_or(|most| most >= now.open_fds));
        let time = std::time::SystemTime::now();
        let time = time.duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = time.as_secs_f64() - now.started_seconds;
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    }
}

//! Which processes have a socket.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of the processes that have the socket with this inode; none where those can't be read, which takes root.
///
/// Reads the open files of every process of the host.
pub fn owners(inode: u64) -> BTreeSet<String> {
    let socket = format!("socket:[{inode}]");
    let Ok(processes) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = processes.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_process = is_number(entry.file_name().to_str()?);
        is_process.then(|| entry.path())
    });
    processes
        .filter(|process| has_open(process, &socket))
        .filter_map(|process| name(&process))
        .collect()
}

/// Whether a process has a file open, by the text that the kernel gives for it.
fn has_open(process: &Path, file: &str) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return false; // no process, not ours to read, or gone
    };
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.into_iter().any(|target| target == Path::new(file))
}

/// The process may have set it to anything.
fn name(process: &Path) -> Option<String> {
    let name = fs::read(process.join("comm")).ok()?;
    let name = String::from_utf8_lossy(&name);
    Some(name.trim_end().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_process_of_a_socket_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode: String = link
            .to_string_lossy()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let inode: u64 = inode.parse().unwrap();
        assert_eq!(owners(inode), [own.trim_end().to_owned()].into());
        assert_eq!(owners(0), BTreeSet::new());
    }
}

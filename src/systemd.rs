//! Notifies systemd of the daemon's state, by the protocol of `sd_notify(3)`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::ClockId;

/// The daemon is up and the datapath matches the file; ends [`reloading`] too.
pub const READY: &str = "READY=1";

/// The daemon makes progress.
pub const WATCHDOG: &str = "WATCHDOG=1";

/// The daemon is about to end.
pub const STOPPING: &str = "STOPPING=1";

/// A reload has begun; systemd requires the time at which it did.
pub fn reloading() -> String {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")
}

/// A line for `systemctl status`.
pub fn status(text: &str) -> String {
    // A second line would be another assignment.
    format!("STATUS={}", text.replace('\n', " "))
}

/// Sends `state` to systemd, one assignment a line. Does nothing without a service manager.
pub fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        log::debug!(
            "notify systemd of {state:?} at {}: {error}",
            socket.display()
        );
    }
}

/// `socket` is a path, or an abstract name after an `@`.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let timeout = Some(Duration::from_secs(10));
        socket.set_read_timeout(timeout).unwrap();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_state_arrives_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), READY).unwrap();
        assert_eq!(receive(&manager), "READY=1");
    }

    #[test]
    fn a_state_arrives_at_an_abstract_name() {
        let name = format!("dpd-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        assert_eq!(receive(&manager), "STOPPING=1");
    }

    #[test]
    fn a_missing_service_manager_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nobody");
        let error = send(path.as_os_str(), READY).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_reload_carries_the_monotonic_time_and_a_status_stays_one_line() {
        let text = reloading();
        let microseconds = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(microseconds.parse::<u64>().unwrap() > 0, "{text}");
        assert_eq!(status("one\nREADY=1"), "STATUS=one READY=1");
    }
}

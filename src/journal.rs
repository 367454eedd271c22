//! journald's native protocol (systemd, `docs/JOURNAL_NATIVE_PROTOCOL.md`): one datagram for each record.
//!
//! Nothing here waits. A journal that is missing, restarting or full costs the record, which is counted.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

const IDENTIFIER: &str = "dpd";

/// syslog's priorities, as far as they are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

/// A way into the journal.
pub struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
    lost: AtomicU64,
}

impl Journal {
    /// Prepares to send to the socket at `path`; nobody needs to listen there yet.
    pub fn open(path: &Path) -> Result<Journal> {
        let address = SocketAddrUnix::new(path)
            .with_context(|| format!("name the journal's socket {}", path.display()))?;
        // Not connected: the next record finds a journal that was restarted meanwhile.
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .context("make a socket for the journal")?;
        Ok(Journal {
            socket,
            address,
            lost: AtomicU64::new(0),
        })
    }

    /// The fields that every record has.
    pub fn entry(priority: Priority, message: String) -> Vec<(String, String)> {
        vec![
            ("MESSAGE".to_owned(), message),
            ("PRIORITY".to_owned(), (priority as u8).to_string()),
            ("SYSLOG_IDENTIFIER".to_owned(), IDENTIFIER.to_owned()),
        ]
    }

    /// Sends one record of (name, value); says whether journald has it. Names are upper case letters, digits and
    /// underscores, and begin with a letter.
    pub fn send(&self, fields: &[(String, String)]) -> bool {
        let is_sent = self.deliver(&encode(fields)).is_ok();
        if !is_sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// Records that journald did not take.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn deliver(&self, record: &[u8]) -> io::Result<()> {
        // A peer that has gone is an answer here, not a signal.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendto(&self.socket, record, flags, &self.address) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.deliver_as_file(record),
            Err(error) => Err(error.into()),
        }
    }

    /// A record that is too large for a datagram goes as a sealed file in memory.
    fn deliver_as_file(&self, record: &[u8]) -> io::Result<()> {
        let memory = rustix::fs::memfd_create(
            "dpd-journal",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let mut file = std::fs::File::from(memory);
        file.write_all(record)?;
        // journald maps it only if nobody can change it any more.
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
        )?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a file descriptor"));
        }
        rustix::net::sendmsg_addr(
            &self.socket,
            &self.address,
            &[IoSlice::new(&[])],
            &mut control,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

/// `NAME=value`, or for a value of several lines `NAME`, its length as 64 bits little endian, and the value.
fn encode(fields: &[(String, String)]) -> Vec<u8> {
    let mut record = Vec::with_capacity(1024);
    for (name, value) in fields {
        record.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            record.push(b'\n');
            record.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            record.push(b'=');
        }
        record.extend_from_slice(value.as_bytes());
        record.push(b'\n');
    }
    record
}

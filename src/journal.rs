//! journald's native protocol (systemd, `docs/JOURNAL_NATIVE_PROTOCOL.md`): one datagram for each record.
//!
//! Nothing here blocks. With a journal that is missing, restarting or full the record is lost, and counted.

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

/// journald's socket.
pub const SOCKET: &str = "/run/systemd/journal/socket";

const IDENTIFIER: &str = "dpd";

/// syslog's priorities that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

/// A sender of records.
pub struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
    lost: AtomicU64,
}

impl Journal {
    /// Sends to the socket at `path`, where journald need not listen yet.
    ///
    /// # Errors
    /// If no socket can be created.
    pub fn open(path: &Path) -> Result<Journal> {
        let address = SocketAddrUnix::new(path)
            .with_context(|| format!("name the journal's socket {}", path.display()))?;
        // Not connected, so that records reach a restarted journal.
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .context("create a socket for the journal")?;
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

    /// Sends one record of (name, value); returns whether journald has received it. Names are upper case letters, digits
    /// and underscores, and begin with a letter.
    pub fn send(&self, fields: &[(String, String)]) -> bool {
        let is_sent = self.deliver(&encode(fields)).is_ok();
        if !is_sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// Records that journald did not receive.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn deliver(&self, record: &[u8]) -> io::Result<()> {
        // A closed socket is an error here, not a signal.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendto(&self.socket, record, flags, &self.address) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.deliver_as_file(record),
            Err(error) => Err(error.into()),
        }
    }

    /// A record that is too large for a datagram is sent as a sealed memfd.
    fn deliver_as_file(&self, record: &[u8]) -> io::Result<()> {
        let memory = rustix::fs::memfd_create(
            "dpd-journal",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let mut file = std::fs::File::from(memory);
        file.write_all(record)?;
        // journald accepts it only if it can't be changed any more.
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
        )?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no space for a file descriptor"));
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

/// `NAME=value`, or for a value of several lines `NAME`, its length as 64 bits in little endian, and the value.
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Read, Seek};
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    use tempfile::TempDir;

    use super::*;

    /// A journald that only listens.
    fn journald() -> (TempDir, UnixDatagram, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let journal = Journal::open(&path).unwrap();
        (folder, socket, journal)
    }

    /// The next record, out of the datagram or out of the file that came with it.
    fn receive(socket: &UnixDatagram) -> Vec<u8> {
        let mut datagram = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut datagram)];
        let received =
            rustix::net::recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        match files.flatten().next() {
            Some(file) => {
                let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
                assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW));
                let (mut file, mut record) = (File::from(file), Vec::new());
                file.rewind().unwrap();
                file.read_to_end(&mut record).unwrap();
                record
            }
            None => datagram[..received.bytes].to_vec(),
        }
    }

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn fields(fields: Fields) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    #[test]
    fn records() {
        let (_folder, socket, journal) = journald();
        let large = "x".repeat(1 << 20);
        let large_record = format!("MESSAGE={large}\nPRIORITY=6\n");
        let rows: [(&str, Fields, &[u8]); 4] = [
            (
                "plain values",
                &[("MESSAGE", "hello"), ("PRIORITY", "6")],
                b"MESSAGE=hello\nPRIORITY=6\n",
            ),
            (
                "a value of two lines goes with its length",
                &[("MESSAGE", "a\nb"), ("PRIORITY", "3")],
                b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\n",
            ),
            (
                "values may have = and other letters",
                &[("MESSAGE", "x=→")],
                "MESSAGE=x=→\n".as_bytes(),
            ),
            (
                "a record of a megabyte goes as a file",
                &[("MESSAGE", &large), ("PRIORITY", "6")],
                large_record.as_bytes(),
            ),
        ];
        for (sentence, record, expected) in rows {
            assert!(journal.send(&fields(record)), "{sentence}");
            assert!(receive(&socket) == expected, "{sentence}");
        }
        assert_eq!(journal.lost(), 0);
    }

    #[test]
    fn a_journal_that_goes_and_comes_back_costs_what_was_sent_meanwhile() {
        let (folder, socket, journal) = journald();
        let path = folder.path().join("socket");
        let record = fields(&[("MESSAGE", "hello")]);
        drop(socket);
        assert!(!journal.send(&record), "without a listener");
        std::fs::remove_file(&path).unwrap();
        assert!(!journal.send(&record), "no socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        assert!(journal.send(&record), "the restarted one gets it");
        assert_eq!(receive(&socket), b"MESSAGE=hello\n");
        assert_eq!(journal.lost(), 2);
    }

    #[test]
    fn a_journal_that_does_not_read_holds_nobody_up() {
        let (_folder, socket, journal) = journald();
        let record = fields(&[("MESSAGE", "hello")]);
        let taken = (0..10_000).filter(|_| journal.send(&record)).count();
        assert_eq!(journal.lost(), 10_000 - taken as u64);
        assert!(journal.lost() > 0);
        receive(&socket);
        assert!(journal.send(&record), "there is room again");
    }
}

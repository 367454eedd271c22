//! Two tun devices in two namespaces, joined by a thread that carries packets: a tunnel, as a VPN makes one. Its packets have no
//! Ethernet header. Segmentation and checksums are left to the other end, so that large TCP packets pass whole.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often the thread checks whether the test has ended.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// `TUN_F_*` (`linux/if_tun.h`): checksums, and TCP of both families, with ECN.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// Bytes of `struct virtio_net_hdr`, which each packet has in front; all zero: nothing is left to do for it.
const HEADER: usize = 10;

/// A tun device of the calling thread's namespace. It exists as long as its file is open.
pub fn open(name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = options.custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.expect("open /dev/net/tun");
    // SAFETY: all zero is a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).expect("a name in ASCII");
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("flags of 16 bits");
    // SAFETY: the request lives for the whole call; the second one takes a number.
    let done = unsafe {
        [
            libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request),
            libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS),
        ]
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(done, [0, 0], "make the tun device {name}: {error}");
    file
}

/// The thread between two devices; ends, and the devices with it, when dropped.
pub struct Cable {
    ends: [Arc<File>; 2],
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    pub fn join(one: File, other: File) -> Cable {
        let ends = [Arc::new(one), Arc::new(other)];
        let end = Arc::new(AtomicBool::new(false));
        let (carried, until) = (ends.clone(), end.clone());
        Cable {
            ends,
            end,
            thread: Some(thread::spawn(move || carry(&carried, &until))),
        }
    }

    /// A packet that the first device receives, from its network header on.
    pub fn send_to_first(&self, packet: &[u8]) {
        let framed = [&[0; HEADER], packet].concat();
        let sent = (&*self.ends[0])
            .write(&framed)
            .expect("send to the tun device");
        assert_eq!(sent, framed.len());
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(ends: &[Arc<File>; 2], until: &AtomicBool) {
    let mut packet = vec![0; HEADER + 0x1_0000];
    while !until.load(Ordering::Relaxed) {
        let mut readable = [0, 1].map(|n| PollFd::from_borrowed_fd(ends[n].as_fd(), PollFlags::IN));
        if poll(&mut readable, Some(&LOOK)).is_err() {
            continue;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            while let Ok(length) = (&*ends[from]).read(&mut packet) {
                // A device that is down takes no packet.
                let _ = (&*ends[to]).write(&packet[..length]);
            }
        }
    }
}

//! The place of the daemon's socket, had before anybody is heard at it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The socket's mode: its owner and group may ask.
pub(super) const MODE: u32 = 0o660;

/// The socket's file, which is ours, and at which nobody is heard yet. Dropping it takes the file away.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    pub(super) path: PathBuf,
    /// Device and inode of our file, so that another's is left alone.
    file: (u64, u64),
}

impl Socket {
    /// Takes the place at `path`. What a dead daemon left there is replaced.
    ///
    /// # Errors
    /// If a live daemon listens there, or there is something else than a socket, or no file can be made.
    pub fn open(path: &Path) -> Result<Socket> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("make the folder {} for the socket", folder.display()))?;
        }
        remove_stale(path)?;
        let address = SocketAddrUnix::new(path)
            .with_context(|| format!("name the socket {} (108 bytes at most)", path.display()))?;
        let socket =
            bind(path, &address).with_context(|| format!("listen at {}", path.display()))?;
        let metadata = fs::symlink_metadata(path)
            .with_context(|| format!("look at the new socket {}", path.display()))?;
        Ok(Socket {
            socket,
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        })
    }

    fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file)
    }

    pub(super) fn listen(&self) -> Result<UnixListener> {
        if !self.is_in_place() {
            // To whoever came meanwhile, it looked like a dead daemon's.
            bail!(
                "somebody has taken the place of our socket {}: give daemon.socket another path",
                self.path.display()
            );
        }
        rustix::net::listen(&self.socket, 128)
            .with_context(|| format!("listen at {}", self.path.display()))?;
        let copy = self.socket.try_clone();
        copy.map(UnixListener::from)
            .context("copy the listening socket")
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the socket {} stays behind: {error}", self.path.display());
        }
    }
}

fn bind(path: &Path, address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // Linux gives a socket's file the mode of the socket less the umask: it is never wider than meant …
    rustix::fs::fchmod(&socket, MODE.into())?;
    rustix::net::bind(&socket, address)?;
    // … and here it gets back what the umask took.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(socket)
}

/// A socket that nobody listens to any more is what a killed daemon leaves behind.
fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("look at {}", path.display()));
        }
    };
    if !metadata.file_type().is_socket() {
        bail!(
            "{} is there and is no socket: move it away, or give daemon.socket another path",
            path.display()
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!(
            "another daemon listens at {}: stop it, or give daemon.socket another path",
            path.display()
        ),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .with_context(|| format!("take the dead daemon's socket {} away", path.display())),
        Err(error) => Err(error)
            .with_context(|| format!("ask whether another daemon listens at {}", path.display())),
    }
}

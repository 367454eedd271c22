//! The file of the daemon's socket: created before the daemon listens on it, removed with it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The socket's mode: its owner and group may connect.
pub(super) const MODE: u32 = 0o660;

/// A bound socket that does not listen yet. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    pub(super) path: PathBuf,
    /// Device and inode of our file: another process's file at the same path is left alone.
    file: (u64, u64),
}

impl Socket {
    /// Binds a socket at `path`. The file of a killed daemon is replaced.
    ///
    /// # Errors
    /// If a running daemon listens there, the path is something else than a socket, or no file can be created.
    pub fn open(path: &Path) -> Result<Socket> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("create the folder {} of the socket", folder.display()))?;
        }
        remove_stale(path)?;
        let address = SocketAddrUnix::new(path)
            .with_context(|| format!("name the socket {} (108 bytes at most)", path.display()))?;
        let socket =
            bind(path, &address).with_context(|| format!("listen at {}", path.display()))?;
        let metadata = fs::symlink_metadata(path)
            .with_context(|| format!("stat the new socket {}", path.display()))?;
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

    /// Starts listening; a copy of the socket.
    pub(super) fn listen(&self) -> Result<OwnedFd> {
        if !self.is_in_place() {
            // Until it listens, it looks like the socket of a killed daemon.
            bail!(
                "the socket {} was replaced by another process: give daemon.socket another path",
                self.path.display()
            );
        }
        rustix::net::listen(&self.socket, 128)
            .with_context(|| format!("listen at {}", self.path.display()))?;
        self.socket.try_clone().context("copy the listening socket")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("remove the socket {}: {error}", self.path.display());
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
    // Linux gives the socket's file the mode of the socket less the umask: it is never wider than MODE …
    rustix::fs::fchmod(&socket, MODE.into())?;
    rustix::net::bind(&socket, address)?;
    // … and here it gets back the bits that the umask removed.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(socket)
}

/// A killed daemon leaves a socket on which nothing listens.
fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("stat {}", path.display()));
        }
    };
    if !metadata.file_type().is_socket() {
        bail!(
            "{} exists and is not a socket: move it away, or give daemon.socket another path",
            path.display()
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!(
            "another daemon listens at {}: stop it, or give daemon.socket another path",
            path.display()
        ),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .with_context(|| format!("remove the killed daemon's socket {}", path.display())),
        Err(error) => Err(error)
            .with_context(|| format!("check whether another daemon listens at {}", path.display())),
    }
}

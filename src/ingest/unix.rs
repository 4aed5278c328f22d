//! Unix sockets by name: files, which a dead owner may have left behind, and abstract names.

use std::fs::{self, Permissions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use super::hold::Hold;
use crate::config::listen::UnixAddress;

/// Everyone on the host may send, as with Veneur 14.
const MODE: u32 = 0o666;

/// A socket's file, removed when this is dropped, if the socket is ours alone.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have put its own file in place of ours.
    identity: (u64, u64),
    hold: Hold,
}

impl SocketFile {
    pub(super) fn of(path: &Path, hold: Hold) -> io::Result<SocketFile> {
        let identity = identity_of(path)?;
        Ok(SocketFile { path: path.to_owned(), identity, hold })
    }

    /// The file of a socket that was taken over, if there still is one.
    pub(super) fn of_address(address: &UnixAddress, hold: &Hold) -> Option<SocketFile> {
        match address {
            UnixAddress::Abstract(_) => None,
            UnixAddress::Path(path) => SocketFile::of(path, hold.clone()).ok(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = || identity_of(&self.path).is_ok_and(|now| now == self.identity);
        if self.hold.is_ours()
            && is_ours()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Binds a non-blocking datagram socket, with its file if the address is one.
pub(super) fn bind_datagram(
    address: &UnixAddress,
    hold: &Hold,
) -> io::Result<(UnixDatagram, Option<SocketFile>)> {
    let (socket, file) = bind(address, hold, UnixDatagram::bind_addr)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

/// Binds a non-blocking, listening stream socket, with its file if the address is one.
pub(super) fn bind_stream(
    address: &UnixAddress,
    hold: &Hold,
) -> io::Result<(UnixListener, Option<SocketFile>)> {
    let (socket, file) = bind(address, hold, UnixListener::bind_addr)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

fn bind<S>(
    address: &UnixAddress,
    hold: &Hold,
    bind: impl FnOnce(&SocketAddr) -> io::Result<S>,
) -> io::Result<(S, Option<SocketFile>)> {
    match address {
        UnixAddress::Abstract(name) => Ok((bind(&SocketAddr::from_abstract_name(name)?)?, None)),
        UnixAddress::Path(path) => {
            make_way(path)?;
            let socket = bind(&SocketAddr::from_pathname(path)?)?;
            fs::set_permissions(path, Permissions::from_mode(MODE))?;
            Ok((socket, Some(SocketFile::of(path, hold.clone())?)))
        }
    }
}

/// Removes a socket's file if nobody answers behind it any more.
///
/// # Errors
/// A sentence on what is in the way, or missing on the way there.
pub(super) fn make_way(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return has_directory(path),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let in_the_way = "there is a file of that name that is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, in_the_way));
    }
    // Whatever kind of socket it is, only one without an owner refuses the connection.
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already")),
    }
}

fn has_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            let missing = format!("there is no directory {}", parent.display());
            Err(io::Error::new(io::ErrorKind::NotFound, missing))
        }
        _ => Ok(()),
    }
}

//! Unix sockets by name: files, which a dead owner may have left behind, and abstract names.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::hold::Hold;
use crate::config::listen::{FileAccess, UnixAddress};

/// Connections the kernel completes before we accept them; it has a limit of its own.
const BACKLOG: i32 = 1024;

/// Everyone on the host may send, as with Veneur 14, unless the configuration says otherwise.
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
}

/// The file of a socket that was taken over, if there still is one; from now on it is as
/// `access` says, if that says anything.
pub(super) fn adopt_file(
    address: &UnixAddress,
    access: FileAccess,
    hold: &Hold,
) -> io::Result<Option<SocketFile>> {
    let UnixAddress::Path(path) = address else { return Ok(None) };
    let Ok(file) = SocketFile::of(path, hold.clone()) else { return Ok(None) };
    if access != FileAccess::default() {
        open_to(path, access)?;
    }
    Ok(Some(file))
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
    access: FileAccess,
    hold: &Hold,
) -> io::Result<(Socket, Option<SocketFile>)> {
    bind(Type::DGRAM, address, access, hold)
}

/// Binds a non-blocking, listening stream socket, with its file if the address is one.
pub(super) fn bind_stream(
    address: &UnixAddress,
    access: FileAccess,
    hold: &Hold,
) -> io::Result<(Socket, Option<SocketFile>)> {
    let (socket, file) = bind(Type::STREAM, address, access, hold)?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

fn bind(
    kind: Type,
    address: &UnixAddress,
    access: FileAccess,
    hold: &Hold,
) -> io::Result<(Socket, Option<SocketFile>)> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    match address {
        UnixAddress::Abstract(name) => {
            socket.bind(&SockAddr::unix(OsStr::from_bytes(&[b"\0", &name[..]].concat()))?)?;
            Ok((socket, None))
        }
        UnixAddress::Path(path) => {
            make_way(path)?;
            let socket = bind_closed(socket, path)?;
            // From here on it is removed again if something fails.
            let file = SocketFile::of(path, hold.clone())?;
            open_to(path, access)?;
            Ok((socket, Some(file)))
        }
    }
}

/// Binds a socket to a file that nobody may use yet: there is no moment in which it is open
/// wider than it is to be.
///
/// Source: unix(7) has the file get the mode of the socket, as fchmod(2) has set it, less the
/// umask.
fn bind_closed(socket: Socket, path: &Path) -> io::Result<Socket> {
    let socket = File::from(OwnedFd::from(socket));
    socket.set_permissions(Permissions::from_mode(0o000))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Gives a socket's file away as asked, and opens it.
fn open_to(path: &Path, access: FileAccess) -> io::Result<()> {
    let FileAccess { mode, owner, group } = access;
    if owner.is_some() || group.is_some() {
        let context = |error: io::Error| {
            let whom = |what, number: Option<u32>| {
                number.map_or(String::new(), |number| format!(" {what} {number}"))
            };
            let (user, group) = (whom("user", owner), whom("group", group));
            io::Error::new(error.kind(), format!("cannot give its file to{user}{group}: {error}"))
        };
        lchown(path, owner, group).map_err(context)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode.unwrap_or(MODE)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of the mode of a socket that is not bound yet.
    #[test]
    fn a_socket_is_closed_to_everyone_until_it_is_opened() {
        let name = format!("veneur-unix-test-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("sockets are to be had");
        let _socket = bind_closed(socket, &path).expect("nobody else uses that name");
        let mode = fs::metadata(&path).expect("the socket's file").mode();
        fs::remove_file(&path).expect("it is ours");
        assert_eq!(mode & 0o777, 0);
    }
}

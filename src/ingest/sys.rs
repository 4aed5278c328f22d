//! The Linux calls that neither the standard library nor socket2 has.
//!
//! [`RecvSlab`] receives many datagrams with one call; [`wait_readable`] lets a thread
//! sleep until one of several descriptors wakes it; [`send_message`] and [`receive_message`] pass
//! a descriptor to another process; the rest reads or sets what a socket has.
//! Everything here is safe to call; nothing else contains `unsafe`.
//!
//! Sources: recvmmsg(2), ppoll(2), socket(7), unix(7), cmsg(3), sock_diag(7), `linux/sock_diag.h`.
#![allow(unsafe_code)] // Calls into the kernel: each block says why it is sound.

mod slab;

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use socket2::{MaybeUninitSlice, MsgHdr, MsgHdrMut, Socket};

pub use slab::{Datagram, RecvSlab};

/// Sleeps until one of `fds` has something to read, or `timeout` is over (`None`: never), or
/// a signal comes. The caller finds out which by trying.
///
/// # Errors
/// What the kernel says, except that a signal came.
pub fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<()> {
    let mut polled =
        fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout = timeout.map(|timeout| {
        // SAFETY: all zeros is a valid timespec; some targets have padding in it.
        let mut spec: libc::timespec = unsafe { mem::zeroed() };
        spec.tv_sec = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
        spec.tv_nsec = timeout.subsec_nanos().into();
        spec
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `polled` holds N entries and `timeout` is null or points to a timespec that
    // lives until the end of this function; a null signal mask leaves the mask alone.
    let ready =
        unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, timeout, ptr::null()) };
    if ready >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// How many datagrams the kernel has dropped at this socket since it was made, modulo 2^32.
///
/// # Errors
/// The kernel does not tell (before Linux 4.12).
pub fn dropped_datagrams(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const LENGTH: usize = libc::SK_MEMINFO_DROPS as usize + 1;
    let mut info = [0u32; LENGTH];
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` and `length` are ours, and `length` says how many bytes `info` has.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < mem::size_of_val(&info) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(info[LENGTH - 1])
}

/// Sets a socket's receive buffer without regard to `net.core.rmem_max`.
///
/// # Errors
/// The process lacks `CAP_NET_ADMIN`.
pub fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is the integer `bytes`, which lives until after the call.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            ptr::from_ref(&bytes).cast(),
            mem::size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A descriptor of our own for what descriptor `number` of this process is, which stays open:
/// whoever it belongs to, this takes nothing from them. The new one is closed on exec.
///
/// # Errors
/// Nothing is open under that number.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // Above the standard streams, should those be closed.
    const LOWEST: libc::c_int = 3;
    // SAFETY: the call takes integers, and fails for a number that is not open.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, LOWEST) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The control message that carries one descriptor: length, level and kind, and the number. One
/// descriptor a message makes all of this constant.
const RIGHTS_HEADER: usize = mem::size_of::<usize>() + 2 * mem::size_of::<libc::c_int>();
const RIGHTS_LENGTH: usize = RIGHTS_HEADER + mem::size_of::<RawFd>();
/// Each control message is padded to the size of its length.
const RIGHTS_SPACE: usize = RIGHTS_LENGTH.next_multiple_of(mem::size_of::<usize>());

fn rights_header() -> [u8; RIGHTS_HEADER] {
    let mut header = [0; RIGHTS_HEADER];
    let (length, rest) = header.split_at_mut(mem::size_of::<usize>());
    length.copy_from_slice(&RIGHTS_LENGTH.to_ne_bytes());
    let (level, kind) = rest.split_at_mut(mem::size_of::<libc::c_int>());
    level.copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    kind.copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    header
}

/// Sends `bytes` as one message over a connected Unix socket, and with it what `descriptor` is.
///
/// # Errors
/// What the kernel says; the peer's end does not raise a signal.
pub fn send_message(
    socket: &Socket,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let buffers = [IoSlice::new(bytes)];
    let mut rights = [0; RIGHTS_SPACE];
    let mut message = MsgHdr::new().with_buffers(&buffers);
    if let Some(descriptor) = descriptor {
        rights[..RIGHTS_HEADER].copy_from_slice(&rights_header());
        rights[RIGHTS_HEADER..RIGHTS_LENGTH].copy_from_slice(&descriptor.as_raw_fd().to_ne_bytes());
        message = message.with_control(&rights);
    }
    socket.sendmsg(&message, libc::MSG_NOSIGNAL).map(drop)
}

/// Receives one message from a connected Unix socket into `bytes`: its length, which is 0 when
/// the peer has closed, and the descriptor that came with it. That is closed on exec.
///
/// # Errors
/// What the kernel says, or a message that is longer than `bytes`.
pub fn receive_message(socket: &Socket, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut rights = [MaybeUninit::new(0); RIGHTS_SPACE];
    // SAFETY: initialised bytes may be seen as bytes that need not be, and the kernel, which is
    // all that writes to them, makes none uninitialised.
    let into = unsafe { &mut *(ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) };
    let mut buffers = [MaybeUninitSlice::new(into)];
    let mut message = MsgHdrMut::new().with_buffers(&mut buffers).with_control(&mut rights);
    let length = socket.recvmsg(&mut message, libc::MSG_CMSG_CLOEXEC)?;
    let (is_cut, control) = (message.flags().is_truncated(), message.control_len());
    // SAFETY: every byte was initialised above, and the kernel makes none uninitialised.
    let rights = rights.map(|byte| unsafe { byte.assume_init() });
    let (header, number) = rights[..RIGHTS_LENGTH].split_at(RIGHTS_HEADER);
    let descriptor = (control >= RIGHTS_LENGTH && header == rights_header())
        .then(|| number.try_into().map(RawFd::from_ne_bytes).ok())
        .flatten()
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    if is_cut {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((length, descriptor))
}

/// The user who connected to, or who listens at, the other end of a Unix stream.
///
/// # Errors
/// It is no such socket.
pub fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = mem::size_of_val(&peer) as libc::socklen_t;
    // SAFETY: `peer` and `length` are ours, and `length` says how many bytes `peer` has.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut peer).cast(),
            &mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(peer.uid)
}

/// The user as whom this process acts.
pub fn own_user() -> u32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;

    pub(in crate::ingest::sys) fn pair() -> (UdpSocket, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
        receiver.set_nonblocking(true).expect("a fresh socket");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
        sender.connect(receiver.local_addr().expect("it is bound")).expect("loopback is there");
        (receiver, sender)
    }

    #[test]
    fn a_wait_ends_when_something_can_be_read_or_time_is_up() {
        let (receiver, sender) = pair();
        let (pipe, mut other_end) = io::pipe().expect("descriptors are to be had");
        let fds = [receiver.as_fd(), pipe.as_fd()];
        wait_readable(fds, Some(Duration::ZERO)).expect("both are open");

        let long = Duration::from_secs(60);
        let start = Instant::now();
        sender.send(b"x").expect("room for it");
        wait_readable(fds, Some(long)).expect("both are open");
        let mut slab = RecvSlab::new(1, 1);
        assert_eq!(slab.receive(receiver.as_fd()).expect("an open socket"), 1);
        other_end.write_all(b"x").expect("room for it");
        wait_readable(fds, Some(long)).expect("both are open");
        assert!(start.elapsed() < long);
    }

    #[test]
    fn the_kernel_tells_how_many_datagrams_it_dropped() {
        let (receiver, sender) = pair();
        assert_eq!(dropped_datagrams(receiver.as_fd()).expect("Linux 4.12 or later"), 0);
        socket2::SockRef::from(&receiver).set_recv_buffer_size(1).expect("small is allowed");
        let sent = 1000;
        for _ in 0..sent {
            sender.send(&[0; 100]).expect("loopback takes it");
        }
        let mut slab = RecvSlab::new(sent, 100);
        let received = slab.receive(receiver.as_fd()).expect("an open socket");
        let dropped = dropped_datagrams(receiver.as_fd()).expect("Linux 4.12 or later");
        assert!(received < sent);
        assert_eq!(received + dropped as usize, sent);
    }

    #[test]
    fn a_duplicate_is_the_same_socket_under_another_number() {
        let (receiver, _) = pair();
        let copy = duplicate(receiver.as_raw_fd()).expect("it is open");
        assert_ne!(copy.as_raw_fd(), receiver.as_raw_fd());
        let copy = UdpSocket::from(copy);
        assert_eq!(copy.local_addr().expect("bound"), receiver.local_addr().expect("bound"));
        assert!(duplicate(RawFd::MAX).is_err());
    }

    #[test]
    fn a_message_carries_a_descriptor_to_another_process() {
        let packets = Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None);
        let (here, there) = packets.expect("descriptors are to be had");
        let (receiver, sender) = pair();
        send_message(&here, b"with", Some(receiver.as_fd())).expect("room for it");
        send_message(&here, b"without", None).expect("room for it");
        drop((here, receiver));

        let mut bytes = [0; 100];
        let (length, passed) = receive_message(&there, &mut bytes).expect("it is open");
        assert_eq!(&bytes[..length], b"with");
        sender.send(b"x").expect("the socket is still open");
        let passed = UdpSocket::from(passed.expect("it came with the message"));
        assert_eq!(passed.recv(&mut bytes).expect("it is what was sent"), 1);
        let (length, passed) = receive_message(&there, &mut bytes).expect("it is open");
        assert_eq!((&bytes[..length], passed.is_none()), (&b"without"[..], true));
        assert_eq!(receive_message(&there, &mut bytes).expect("it is closed").0, 0);
    }

    #[test]
    fn a_peer_has_a_user() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().expect("it is to be had");
        assert_eq!(peer_user(here.as_fd()).expect("it is a Unix stream"), own_user());
    }
}

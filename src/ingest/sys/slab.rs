//! Receiving many datagrams with one call.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// What one slot of a [`RecvSlab`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A datagram as it was sent.
    Whole(&'a [u8]),
    /// One that is longer than a slot allows; what is missing cannot be known.
    TooLong,
}

/// Room for a number of datagrams, filled by one call.
///
/// A slot takes one byte more than the longest datagram allowed, so that a longer one shows.
/// The memory is asked for zeroed and touched only as far as datagrams reach, so generous
/// slots cost address space, not memory. Not `Send`: make it in the thread that uses it.
pub struct RecvSlab {
    slots: Box<[u8]>,
    longest: usize,
    /// Bytes from one slot to the next.
    stride: usize,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Who sent them; empty if nobody wants to know.
    sources: Box<[libc::sockaddr_storage]>,
    /// How many slots the last call filled.
    received: usize,
}

impl RecvSlab {
    /// Room for `capacity` datagrams of at most `longest` bytes.
    pub fn new(capacity: usize, longest: usize) -> RecvSlab {
        let stride = stride_for(longest);
        let iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: longest + 1 };
        // SAFETY: mmsghdr is a C struct of integers and pointers, for which all zeros is a
        // valid value; it cannot be written as a literal because some targets have padding.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_iovlen = 1;
        RecvSlab {
            slots: vec![0; capacity * stride].into_boxed_slice(),
            longest,
            stride,
            iovecs: vec![iovec; capacity].into_boxed_slice(),
            headers: vec![header; capacity].into_boxed_slice(),
            sources: Box::default(),
            received: 0,
        }
    }

    /// Has the kernel say who sent each datagram ([`RecvSlab::source`]).
    #[must_use]
    pub fn with_sources(self) -> RecvSlab {
        // SAFETY: all zeros is a valid sockaddr_storage, of no family.
        let nobody: libc::sockaddr_storage = unsafe { mem::zeroed() };
        RecvSlab { sources: vec![nobody; self.capacity()].into_boxed_slice(), ..self }
    }

    /// The most datagrams one call can take.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Takes what a non-blocking socket has queued, up to the capacity. 0 if it has nothing.
    ///
    /// # Errors
    /// What the kernel says, except that there is nothing or that a signal came.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = 0;
        // Pointers are set anew for each call, so that this struct may be moved in between.
        let slots = self.slots.chunks_exact_mut(self.stride);
        for ((slot, iovec), header) in slots.zip(&mut self.iovecs).zip(&mut self.headers) {
            iovec.iov_base = slot.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = iovec;
        }
        for (source, header) in self.sources.iter_mut().zip(&mut self.headers) {
            source.ss_family = libc::AF_UNSPEC as libc::sa_family_t;
            header.msg_hdr.msg_name = ptr::from_mut(source).cast();
            header.msg_hdr.msg_namelen = mem::size_of_val(source) as libc::socklen_t;
        }
        let capacity = libc::c_uint::try_from(self.headers.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: the first `capacity` headers are ours; each points to one iovec of ours, and
        // that to a slot of `iov_len` bytes of ours, all borrowed exclusively by `self` until
        // after the call. Name pointers are null with length 0, or point to an address of ours
        // with its size; control pointers are null with length 0.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                capacity,
                0,
                ptr::null_mut(),
            )
        };
        if let Ok(received) = usize::try_from(received) {
            self.received = received;
            return Ok(received);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => Ok(0),
            io::ErrorKind::Interrupted => self.receive(socket),
            _ => Err(error),
        }
    }

    /// The memory that datagrams are in.
    pub fn bytes(&self) -> &[u8] {
        &self.slots
    }

    /// What the last call received, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let slots = self.slots.chunks_exact(self.stride);
        slots.zip(&self.headers[..self.received]).map(|(slot, header)| {
            match header.msg_len as usize {
                length if length <= self.longest => Datagram::Whole(&slot[..length]),
                _ => Datagram::TooLong,
            }
        })
    }

    /// Who sent what is in place `place` of [`RecvSlab::datagrams`]; `None` if that was not asked
    /// for, or if it is no host.
    pub fn source(&self, place: usize) -> Option<IpAddr> {
        let source = self.sources.get(place)?;
        match libc::c_int::from(source.ss_family) {
            libc::AF_INET => {
                // SAFETY: a sockaddr_storage is as large as any address, aligned for each, and
                // of the kind its family says; every byte of it is initialised.
                let source = unsafe { &*ptr::from_ref(source).cast::<libc::sockaddr_in>() };
                // It is in the order of the network, as are the bytes of an address.
                Some(IpAddr::V4(source.sin_addr.s_addr.to_ne_bytes().into()))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let source = unsafe { &*ptr::from_ref(source).cast::<libc::sockaddr_in6>() };
                Some(IpAddr::V6(source.sin6_addr.s6_addr.into()))
            }
            _ => None,
        }
    }
}

/// Bytes from one slot to the next: an odd number of cache lines. At a distance of a power of
/// two, which the longest datagram is by default, all slots would meet in a few sets of the
/// cache and push each other out before anyone has read them.
fn stride_for(longest: usize) -> usize {
    const LINE: usize = 64;
    ((longest + 1).div_ceil(LINE) | 1) * LINE
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::ingest::sys::tests::pair;

    #[test]
    fn a_slab_takes_many_datagrams_at_once_and_in_order() {
        let (receiver, sender) = pair();
        let mut slab = RecvSlab::new(3, 4);
        assert_eq!(slab.receive(receiver.as_fd()).expect("an open socket"), 0);
        for datagram in [&b"one"[..], b"four", b"", b"later"] {
            sender.send(datagram).expect("room for it");
        }
        assert_eq!(slab.receive(receiver.as_fd()).expect("an open socket"), 3);
        let got: Vec<_> = slab.datagrams().collect();
        let want: [&[u8]; 3] = [b"one", b"four", b""];
        assert_eq!(got, want.map(Datagram::Whole));

        assert_eq!(slab.receive(receiver.as_fd()).expect("an open socket"), 1);
        assert_eq!(slab.datagrams().collect::<Vec<_>>(), [Datagram::TooLong]);
        assert_eq!(slab.receive(receiver.as_fd()).expect("an open socket"), 0);
        assert_eq!(slab.datagrams().count(), 0);
    }

    #[test]
    fn a_slab_knows_who_sent_what_if_it_is_to() {
        for (listen, from, shown) in [
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1:0", "::ffff:127.0.0.1"),
        ] {
            let receiver = UdpSocket::bind(listen).expect("loopback is there");
            receiver.set_nonblocking(true).expect("a fresh socket");
            let sender = UdpSocket::bind(from).expect("loopback is there");
            let mut to = receiver.local_addr().expect("it is bound");
            to.set_ip(sender.local_addr().expect("it is bound").ip());
            sender.send_to(b"x", to).expect("loopback is there");
            let mut slab = RecvSlab::new(2, 4).with_sources();
            assert_eq!(slab.receive(receiver.as_fd()).expect("an open socket"), 1);
            let shown = shown.parse().expect("an address");
            assert_eq!((slab.source(0), slab.source(1)), (Some(shown), None));
        }
        assert_eq!(RecvSlab::new(1, 1).source(0), None, "nobody asked");
    }
}

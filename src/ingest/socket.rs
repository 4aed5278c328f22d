//! IP sockets: UDP in groups that a socket can leave again, with a receive buffer; and TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Where a socket connects to when it leaves its group. Nobody sends from port 9 (discard,
/// RFC 863), so a socket connected to it gets nothing more.
const DISCARD_PORT: u16 = 9;

/// Binds `readers` sockets that share `address` and the datagrams sent there.
///
/// An IPv6 wildcard takes IPv4 as well, and only IPv4 where there is no IPv6. With port 0 the
/// kernel chooses one port for all.
pub(super) fn bind_udp_group(address: SocketAddr, readers: usize) -> io::Result<Vec<Socket>> {
    with_or_without_ipv6(address, |address| bind_group(address, readers))
}

fn bind_group(mut address: SocketAddr, readers: usize) -> io::Result<Vec<Socket>> {
    (0..readers)
        .map(|_| {
            let socket =
                Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            if address.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            address = inet_address(&socket)?;
            Ok(socket)
        })
        .collect()
}

/// Connections the kernel completes before we accept them; it has a limit of its own.
const BACKLOG: i32 = 1024;

/// Binds a listening TCP socket. An IPv6 wildcard takes IPv4 as well, and only IPv4 where there
/// is no IPv6.
pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    with_or_without_ipv6(address, listen)
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of a predecessor that are still closing do not count as an owner.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Binds `address`, or the IPv4 wildcard if it is the one of IPv6 and this kernel has none: who
/// writes `:8126` means every address there is.
fn with_or_without_ipv6<T>(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    bind(address).or_else(|error| {
        let lacks_ipv6 =
            matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
        if lacks_ipv6 && address.ip() == Ipv6Addr::UNSPECIFIED {
            return bind((Ipv4Addr::UNSPECIFIED, address.port()).into());
        }
        Err(error)
    })
}

/// What an IP socket is bound to.
pub(super) fn inet_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Sets the receive buffer to `bytes` or as near as may be had; 0 leaves it as it is.
pub(super) fn ask_for_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    // Only the superuser may go beyond net.core.rmem_max; everyone else gets that at most.
    match sys::force_receive_buffer(socket.as_fd(), bytes) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(bytes),
    }
}

/// Takes a socket out of its group: the kernel gives it no further datagrams, and what it has
/// queued stays readable. Those still to come go to other sockets of the address, such as a
/// successor's.
///
/// Source: a connected UDP socket takes datagrams of its peer only (udp(7)), and Linux does
/// not choose connected sockets of a SO_REUSEPORT group.
pub(super) fn leave_group(socket: &Socket) -> io::Result<()> {
    let own = inet_address(socket)?;
    let connect = |ip: IpAddr| {
        let mut peer = own; // with its scope, which a link-local address needs
        peer.set_ip(ip);
        peer.set_port(DISCARD_PORT);
        socket.connect(&peer.into())
    };
    match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => connect(Ipv4Addr::LOCALHOST.into()),
        // A host may have the IPv6 wildcard without an IPv6 loopback address.
        IpAddr::V6(ip) if ip.is_unspecified() => connect(Ipv6Addr::LOCALHOST.into())
            .or_else(|_| connect(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into())),
        // Its own address: always routed.
        ip => connect(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ipv6_wildcard_is_bound_without_ipv6() {
        for (address, error, bound) in [
            ("[::]:8126", libc::EAFNOSUPPORT, Ok("0.0.0.0:8126")),
            ("[::]:8126", libc::EADDRNOTAVAIL, Ok("0.0.0.0:8126")),
            ("[::]:8126", libc::EADDRINUSE, Err(libc::EADDRINUSE)),
            ("[::1]:8126", libc::EADDRNOTAVAIL, Err(libc::EADDRNOTAVAIL)),
            ("192.0.2.1:8126", libc::EADDRNOTAVAIL, Err(libc::EADDRNOTAVAIL)),
        ] {
            let refused = |at: SocketAddr| match at.to_string() == address {
                true => Err(io::Error::from_raw_os_error(error)),
                false => Ok(at.to_string()),
            };
            let outcome = with_or_without_ipv6(address.parse().expect("an address"), refused);
            let outcome = outcome.map_err(|error| error.raw_os_error().unwrap_or_default());
            assert_eq!(outcome, bound.map(str::to_owned), "{address} {error}");
        }
    }
}

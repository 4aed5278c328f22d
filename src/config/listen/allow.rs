//! Networks, and who is in one of them.

use std::fmt;
use std::net::IpAddr;

use super::Wrong;

/// The networks whose hosts may talk to a listener. None listed: everyone may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AllowList(Vec<Network>);

impl AllowList {
    /// From networks and addresses separated by commas: `10.0.0.0/8,127.0.0.1,fd00::/8`.
    ///
    /// # Errors
    /// Names the first one that is none.
    pub fn parse(text: &str) -> Result<AllowList, Wrong> {
        text.split(',').map(Network::parse).collect::<Result<_, _>>().map(AllowList)
    }

    /// Whether everyone may, so that nobody has to be looked at.
    pub fn is_everyone(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `peer` may. One that an IPv6 socket shows as `::ffff:10.0.0.1` is `10.0.0.1`.
    pub fn admits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.is_everyone() || self.0.iter().any(|network| network.contains(peer))
    }
}

/// As it may be written.
impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Network { address, prefix }) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{address}/{prefix}")?;
        }
        Ok(())
    }
}

/// The addresses of one family whose first `prefix` bits are those of `address`, whose others
/// are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Network, Wrong> {
        let none = || format!("{text:?} is no network such as 10.0.0.0/8 or fd00::/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| none())?;
        let width = width(address);
        let prefix = match prefix {
            None => width,
            // Digits alone: `+8` parses as a number.
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(none)?
            }
            Some(_) => return Err(none()),
        };
        let network = Network { address, prefix };
        let masked = network.masked(address);
        if masked != address {
            // More likely a slip than a way to write the network.
            return Err(format!("{text:?} is no network: that would be {masked}/{prefix}"));
        }
        Ok(network)
    }

    fn contains(&self, peer: IpAddr) -> bool {
        width(peer) == width(self.address) && self.masked(peer) == self.address
    }

    /// `address` without the bits behind the prefix.
    fn masked(&self, address: IpAddr) -> IpAddr {
        let behind = width(address) - self.prefix;
        match address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(behind).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        }
    }
}

/// Bits of an address of that family.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peer_is_admitted_if_it_is_in_one_of_the_networks() {
        for (list, peer, is_admitted) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::ffff:11.1.2.3", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.0/8,192.168.1.0/24", "192.168.1.255", true),
            ("10.0.0.0/8,192.168.1.0/24", "192.168.2.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "::ffff:10.1.2.3", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("fe80::/10", "febf::1", true),
        ] {
            let list = AllowList::parse(list).expect("the table holds networks");
            let peer: IpAddr = peer.parse().expect("the table holds addresses");
            assert_eq!(list.admits(peer), is_admitted, "{list} {peer}");
        }
        assert!(AllowList::default().admits(Ipv4Addr::LOCALHOST.into()), "nobody is left out");
    }

    #[test]
    fn a_list_is_refused_because() {
        for (list, why) in [
            ("", "\"\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("10.0.0.0/8,", "\"\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("localhost", "\"localhost\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("10.0.0.0/33", "\"10.0.0.0/33\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("10.0.0.0/+8", "\"10.0.0.0/+8\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("10.0.0.0/", "\"10.0.0.0/\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("10/8", "\"10/8\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("::1/129", "\"::1/129\" is no network such as 10.0.0.0/8 or fd00::/8"),
            ("10.0.0.1/8", "\"10.0.0.1/8\" is no network: that would be 10.0.0.0/8"),
            ("fd00::1/64", "\"fd00::1/64\" is no network: that would be fd00::/64"),
        ] {
            assert_eq!(AllowList::parse(list), Err(why.to_owned()));
        }
    }

    proptest! {
        /// A network of `prefix` bits holds exactly the addresses that agree with it in so many,
        /// whether IPv4 is shown as such or mapped; and it is read as it is shown.
        #[test]
        fn a_network_is_its_leading_bits(own: u32, prefix in 0u32..=32, flip in 0u32..32) {
            let network = Network { address: Ipv4Addr::from(own).into(), prefix };
            let network = Network { address: network.masked(network.address), prefix };
            let list = AllowList(vec![network]);
            prop_assert_eq!(&AllowList::parse(&list.to_string()), &Ok(list.clone()));
            let peer = Ipv4Addr::from(own ^ (1 << (31 - flip)));
            prop_assert_eq!(list.admits(peer.into()), flip >= prefix);
            prop_assert_eq!(list.admits(peer.to_ipv6_mapped().into()), flip >= prefix);
        }

        /// The same for IPv6.
        #[test]
        fn a_network_of_ipv6_is_its_leading_bits(own: u128, prefix in 0u32..=128, flip in 0u32..128) {
            // Not of the addresses that stand for IPv4.
            let own = own | 1 << 127;
            let network = Network { address: Ipv6Addr::from(own).into(), prefix };
            let list = AllowList(vec![Network { address: network.masked(network.address), prefix }]);
            prop_assert_eq!(&AllowList::parse(&list.to_string()), &Ok(list.clone()));
            let peer = Ipv6Addr::from(own ^ (1 << (127 - flip)));
            prop_assert_eq!(list.admits(peer.into()), flip >= prefix);
        }
    }
}

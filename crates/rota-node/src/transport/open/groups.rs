//! Where in the internet an address is: what one party can have many of, and what it cannot.
//!
//! Keys cost nothing and neighbouring addresses cost little; addresses in many networks cost money
//! and contracts. So places among a server's neighbours are counted by network group, as Bitcoin
//! does (Heilman et al., *Eclipse Attacks on Bitcoin's Peer-to-Peer Network*, USENIX Security
//! 2015).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A network group: IPv4 addresses with the same first 16 bits, IPv6 addresses with the same first
/// 32 (what a provider gets from its registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// An IPv4 /16.
    V4([u8; 2]),
    /// An IPv6 /32.
    V6([u16; 2]),
    /// An address that only this machine or this house can have: a group of its own.
    Local(SocketAddr),
}

/// How a server sees addresses.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// Whether it listens on a local address itself: then its peers are programs of the same
    /// machine or house, which are not counted against each other, and local addresses are as good
    /// as any. Otherwise a local address in a peer's mouth means a machine of *our* house, which
    /// strangers are not to make us talk to.
    local: bool,
}

impl Groups {
    /// Of a server that listens there.
    pub fn new(listen: IpAddr) -> Self {
        Self { local: is_local(listen.to_canonical()) }
    }

    /// An address's group.
    pub fn of(self, at: SocketAddr) -> Group {
        let address = at.ip().to_canonical();
        if self.local && is_local(address) {
            return Group::Local(SocketAddr::new(address, at.port()));
        }
        match address {
            IpAddr::V4(address) => v4(address),
            IpAddr::V6(address) => v6(address),
        }
    }

    /// Whether an address that somebody else told of may be dialled.
    pub fn is_sane(self, at: SocketAddr) -> bool {
        let address = at.ip().to_canonical();
        let nobody = address.is_unspecified() || address.is_multicast();
        let reserved = match address {
            // "This network", broadcast and everything reserved for the future.
            IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
            IpAddr::V6(_) => false,
        };
        at.port() != 0 && !nobody && !reserved && (self.local || !is_local(address))
    }

    /// Whose fault is kept with an address: nobody's, where many servers share one.
    pub fn blamed(self, at: SocketAddr) -> Option<IpAddr> {
        match (self.of(at), at.ip().to_canonical()) {
            (Group::Local(_), _) => None,
            (_, IpAddr::V4(address)) => Some(address.into()),
            // A household has a whole /64.
            (_, IpAddr::V6(address)) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Some(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

fn v4(address: Ipv4Addr) -> Group {
    let [a, b, ..] = address.octets();
    Group::V4([a, b])
}

/// Tunnels give everybody with an IPv4 address an IPv6 network of its own: 6to4 (RFC 3056) and
/// NAT64 (RFC 6052) count as the IPv4 address in them.
fn v6(address: Ipv6Addr) -> Group {
    let bytes = address.octets();
    match (address.segments(), bytes) {
        ([0x2002, ..], [_, _, a, b, ..]) => Group::V4([a, b]),
        ([0x64, 0xff9b, 0, 0, 0, 0, ..], [.., a, b, _, _]) => Group::V4([a, b]),
        ([first, second, ..], _) => Group::V6([first, second]),
    }
}

/// Loopback, private (RFC 1918, RFC 4193) and link-local addresses.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            let first = address.segments()[0];
            address.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn groups(listen: &str) -> Groups {
        Groups::new(listen.parse().unwrap())
    }

    #[test]
    fn neighbouring_addresses_are_one_group() {
        let same = [
            ("203.0.113.5:1", "203.0.7.7:2"),
            ("[2001:db8:1::1]:1", "[2001:db8:ffff::9]:2"),
            ("203.0.113.5:1", "[::ffff:203.0.1.1]:1"),
            ("203.0.113.5:1", "[2002:cb00:1::1]:1"),
            ("203.0.113.5:1", "[64:ff9b::203.0.9.9]:1"),
            ("10.0.0.1:1", "10.0.9.9:1"),
        ];
        for (a, b) in same {
            let open = groups("0.0.0.0");
            assert_eq!(open.of(at(a)), open.of(at(b)), "{a} {b}");
        }
        let open = groups("0.0.0.0");
        assert_ne!(open.of(at("203.0.113.5:1")), open.of(at("203.1.113.5:1")));
        assert_ne!(open.of(at("[2001:db8::1]:1")), open.of(at("[2001:db9::1]:1")));
    }

    #[test]
    fn local_addresses_are_groups_of_their_own_for_a_local_server_only() {
        let (local, open) = (groups("127.0.0.1"), groups("0.0.0.0"));
        for (a, b) in [("127.0.0.1:1", "127.0.0.1:2"), ("192.168.1.1:1", "192.168.1.2:1")] {
            assert_ne!(local.of(at(a)), local.of(at(b)));
            assert_eq!(open.of(at(a)), open.of(at(b)));
            assert!(local.is_sane(at(a)) && !open.is_sane(at(a)));
            assert!(local.blamed(at(a)).is_none() && open.blamed(at(a)).is_some());
        }
        assert_eq!(local.of(at("8.8.8.8:1")), local.of(at("8.8.4.4:1")));
    }

    #[test]
    fn addresses_that_nobody_has_are_not_dialled() {
        for bad in [
            "0.0.0.0:7001",
            "8.8.8.8:0",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
        ] {
            assert!(!groups("127.0.0.1").is_sane(at(bad)), "{bad}");
        }
        assert!(groups("0.0.0.0").is_sane(at("8.8.8.8:7001")));
    }

    #[test]
    fn a_household_pays_as_one() {
        let open = groups("::");
        let blamed = |text| open.blamed(at(text));
        assert_eq!(blamed("[2001:db8::1]:1"), blamed("[2001:db8::ffff:1]:9"));
        assert_ne!(blamed("[2001:db8::1]:1"), blamed("[2001:db8:0:1::1]:1"));
        assert_eq!(blamed("1.2.3.4:1"), blamed("[::ffff:1.2.3.4]:2"));
    }
}

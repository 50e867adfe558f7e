//! Addresses that mean something else than one machine, by the registries of special-purpose addresses (RFC 6890).
//!
//! Private, shared, and documentation prefixes are like all others here. So is 240.0.0.0/4: Linux takes it for
//! ordinary addresses, and clouds give it to pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an address is that is not one machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// 0.0.0.0 or ::.
    Unspecified,
    /// 0.0.0.0/8 (RFC 1122, section 3.2.1.3).
    ThisNetwork,
    /// 127.0.0.0/8 or `::1`.
    Loopback,
    /// 169.254.0.0/16 (RFC 3927) or `fe80::/10` (RFC 4291): another machine on each link.
    LinkLocal,
    /// 224.0.0.0/4 or `ff00::/8`.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// `::ffff:0:0/96` (RFC 4291): an IPv4 address in the interface of programs, never on a wire.
    Mapped,
    /// The rest of `::/96`, which was given up (RFC 4291, section 2.5.5.1).
    Compatible,
}

/// The blocks, the smaller ones first.
fn blocks() -> [(IpNet, Special); 12] {
    let v4 = |a, b, length| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let v6 = |address: Ipv6Addr, length| IpNet::from(Ipv6Net::new_assert(address, length));
    let at = |first, sixth| Ipv6Addr::new(first, 0, 0, 0, 0, sixth, 0, 0);
    [
        (v4(0, 0, 32), Special::Unspecified),
        (v4(0, 0, 8), Special::ThisNetwork),
        (v4(127, 0, 8), Special::Loopback),
        (v4(169, 254, 16), Special::LinkLocal),
        (v4(224, 0, 4), Special::Multicast),
        (IpNet::from(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)), Special::Broadcast),
        (v6(Ipv6Addr::UNSPECIFIED, 128), Special::Unspecified),
        (v6(Ipv6Addr::LOCALHOST, 128), Special::Loopback),
        (v6(at(0, 0xffff), 96), Special::Mapped),
        (v6(at(0, 0), 96), Special::Compatible),
        (v6(at(0xfe80, 0), 10), Special::LinkLocal),
        (v6(at(0xff00, 0), 8), Special::Multicast),
    ]
}

impl Special {
    /// What `address` is, if it is not one machine's.
    pub fn of(address: IpAddr) -> Option<Self> {
        blocks().into_iter().find(|(block, _)| block.contains(&address)).map(|(_, special)| special)
    }

    /// The blocks that have addresses in common with `prefix`.
    pub fn in_prefix(prefix: IpNet) -> impl Iterator<Item = (IpNet, Self)> {
        blocks().into_iter().filter(move |(block, _)| prefix.contains(block) || block.contains(&prefix))
    }

    /// What such an address is, after "is".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "the unspecified address",
            Self::ThisNetwork => "an address of 0.0.0.0/8 (\"this network\"), which no machine can have",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address, which differs on every link",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Mapped => "an IPv4 address in IPv6 form",
            Self::Compatible => "an address of ::/96, which is deprecated",
        }
    }

    /// What the addresses of such a block are, after "holds".
    pub const fn block(self) -> &'static str {
        match self {
            Self::Unspecified | Self::ThisNetwork => "addresses of \"this network\"",
            Self::Loopback => "loopback addresses",
            Self::LinkLocal => "link-local addresses",
            Self::Multicast => "multicast addresses",
            Self::Broadcast => "the broadcast address",
            Self::Mapped => "IPv4 addresses in IPv6 form",
            Self::Compatible => "deprecated addresses",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_told_from_those_of_machines() {
        let special = |text: &str| Special::of(text.parse().expect("an address"));
        for (text, expected) in [
            ("0.0.0.0", Special::Unspecified),
            ("0.202.61.70", Special::ThisNetwork),
            ("127.255.0.1", Special::Loopback),
            ("169.254.1.1", Special::LinkLocal),
            ("224.0.0.1", Special::Multicast),
            ("239.255.255.255", Special::Multicast),
            ("255.255.255.255", Special::Broadcast),
            ("::", Special::Unspecified),
            ("::1", Special::Loopback),
            ("::ffff:10.0.0.1", Special::Mapped),
            ("::10.0.0.1", Special::Compatible),
            ("fe80::1", Special::LinkLocal),
            ("febf::1", Special::LinkLocal),
            ("ff02::1", Special::Multicast),
        ] {
            assert_eq!(special(text), Some(expected), "{text}");
        }
        for text in [
            "1.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
            "255.255.255.254",
            "64:ff9b::1",
            "2001:db8::1",
            "fd00::1",
            "fec0::1",
        ] {
            assert_eq!(special(text), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_is_special_by_any_part_of_it() {
        let first = |text: &str| {
            Special::in_prefix(text.parse().expect("a prefix")).next().map(|(_, special)| special)
        };
        assert_eq!(first("126.0.0.0/7"), Some(Special::Loopback));
        assert_eq!(first("127.1.0.0/16"), Some(Special::Loopback));
        assert_eq!(first("192.0.0.0/2"), Some(Special::Multicast));
        assert_eq!(first("255.0.0.0/8"), Some(Special::Broadcast));
        assert_eq!(first("fe00::/8"), Some(Special::LinkLocal));
        assert_eq!(first("::ffff:10.0.0.0/104"), Some(Special::Mapped));
        for text in ["10.0.0.0/8", "240.0.0.0/8", "192.168.0.0/16", "fc00::/7", "2000::/3"] {
            assert_eq!(first(text), None, "{text}");
        }
    }
}

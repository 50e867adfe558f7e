//! Special-purpose addresses (RFC 6890) that do not identify a single machine.
//!
//! Private, shared, and documentation prefixes are ordinary here. So is 240.0.0.0/4: Linux treats it as unicast, and
//! cloud providers assign it to pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The purpose of an address that does not identify a single machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpecialAddress {
    /// 0.0.0.0 or ::.
    Unspecified,
    /// 0.0.0.0/8 (RFC 1122, section 3.2.1.3).
    ThisNetwork,
    /// 127.0.0.0/8 or `::1`.
    Loopback,
    /// 169.254.0.0/16 (RFC 3927) or `fe80::/10` (RFC 4291): unique only on its link.
    LinkLocal,
    /// 224.0.0.0/4 or `ff00::/8`.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// `::ffff:0:0/96` (RFC 4291): an IPv4 address in a programming interface, never on the wire.
    Mapped,
    /// The rest of `::/96`, which is deprecated (RFC 4291, section 2.5.5.1).
    Compatible,
}

/// The special-purpose blocks; of two nested ones, the smaller comes first.
fn blocks() -> [(IpNet, SpecialAddress); 12] {
    let v4 = |a, b, length| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let v6 = |address: Ipv6Addr, length| IpNet::from(Ipv6Net::new_assert(address, length));
    let at = |first, sixth| Ipv6Addr::new(first, 0, 0, 0, 0, sixth, 0, 0);
    [
        (v4(0, 0, 32), SpecialAddress::Unspecified),
        (v4(0, 0, 8), SpecialAddress::ThisNetwork),
        (v4(127, 0, 8), SpecialAddress::Loopback),
        (v4(169, 254, 16), SpecialAddress::LinkLocal),
        (v4(224, 0, 4), SpecialAddress::Multicast),
        (IpNet::from(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)), SpecialAddress::Broadcast),
        (v6(Ipv6Addr::UNSPECIFIED, 128), SpecialAddress::Unspecified),
        (v6(Ipv6Addr::LOCALHOST, 128), SpecialAddress::Loopback),
        (v6(at(0, 0xffff), 96), SpecialAddress::Mapped),
        (v6(at(0, 0), 96), SpecialAddress::Compatible),
        (v6(at(0xfe80, 0), 10), SpecialAddress::LinkLocal),
        (v6(at(0xff00, 0), 8), SpecialAddress::Multicast),
    ]
}

impl SpecialAddress {
    /// Classifies `address`; `None` if it is ordinary.
    pub fn of(address: IpAddr) -> Option<Self> {
        blocks().into_iter().find(|(block, _)| block.contains(&address)).map(|(_, special)| special)
    }

    /// The special-purpose blocks that overlap `prefix`.
    pub fn in_prefix(prefix: IpNet) -> impl Iterator<Item = (IpNet, Self)> {
        blocks().into_iter().filter(move |(block, _)| prefix.contains(block) || block.contains(&prefix))
    }

    /// The kind of address, as a noun phrase after "is".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "the unspecified address",
            Self::ThisNetwork => "in 0.0.0.0/8 (\"this network\"), which cannot be assigned to a machine",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address, which is unique only on its link",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Mapped => "an IPv4-mapped IPv6 address",
            Self::Compatible => "an IPv4-compatible IPv6 address, which is deprecated",
        }
    }

    /// The addresses of such a block, as a noun phrase after "contains".
    pub const fn block(self) -> &'static str {
        match self {
            Self::Unspecified | Self::ThisNetwork => "\"this network\" addresses",
            Self::Loopback => "loopback addresses",
            Self::LinkLocal => "link-local addresses",
            Self::Multicast => "multicast addresses",
            Self::Broadcast => "the broadcast address",
            Self::Mapped => "IPv4-mapped IPv6 addresses",
            Self::Compatible => "deprecated IPv4-compatible IPv6 addresses",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_classified() {
        let special = |text: &str| SpecialAddress::of(text.parse().expect("an address"));
        for (text, expected) in [
            ("0.0.0.0", SpecialAddress::Unspecified),
            ("0.202.61.70", SpecialAddress::ThisNetwork),
            ("127.255.0.1", SpecialAddress::Loopback),
            ("169.254.1.1", SpecialAddress::LinkLocal),
            ("224.0.0.1", SpecialAddress::Multicast),
            ("239.255.255.255", SpecialAddress::Multicast),
            ("255.255.255.255", SpecialAddress::Broadcast),
            ("::", SpecialAddress::Unspecified),
            ("::1", SpecialAddress::Loopback),
            ("::ffff:10.0.0.1", SpecialAddress::Mapped),
            ("::10.0.0.1", SpecialAddress::Compatible),
            ("fe80::1", SpecialAddress::LinkLocal),
            ("febf::1", SpecialAddress::LinkLocal),
            ("ff02::1", SpecialAddress::Multicast),
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
    fn a_prefix_is_special_if_any_part_of_it_is() {
        let first = |text: &str| {
            SpecialAddress::in_prefix(text.parse().expect("a prefix")).next().map(|(_, special)| special)
        };
        assert_eq!(first("126.0.0.0/7"), Some(SpecialAddress::Loopback));
        assert_eq!(first("127.1.0.0/16"), Some(SpecialAddress::Loopback));
        assert_eq!(first("192.0.0.0/2"), Some(SpecialAddress::Multicast));
        assert_eq!(first("255.0.0.0/8"), Some(SpecialAddress::Broadcast));
        assert_eq!(first("fe00::/8"), Some(SpecialAddress::LinkLocal));
        assert_eq!(first("::ffff:10.0.0.0/104"), Some(SpecialAddress::Mapped));
        for text in ["10.0.0.0/8", "240.0.0.0/8", "192.168.0.0/16", "fc00::/7", "2000::/3"] {
            assert_eq!(first(text), None, "{text}");
        }
    }
}

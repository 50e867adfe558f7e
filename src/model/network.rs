//! Prefixes that contain other prefixes or addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Family;

/// Returns the smallest prefix that contains all of these; `None` if there are none, or of both families.
pub fn common_prefix(prefixes: impl Iterator<Item = IpNet>) -> Option<IpNet> {
    prefixes.map(|prefix| Some(prefix.trunc())).reduce(|a, b| {
        let (mut net, b) = (a?, b?);
        while !net.contains(&b) {
            net = net.supernet()?;
        }
        Some(net)
    })?
}

/// Returns the network that the address of a node is in, in most clusters: its /24 (IPv4) or /64 (IPv6).
#[must_use]
pub fn usual_network(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// Returns an address as a number, which is unique in its family.
#[must_use]
pub const fn address_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Returns the address of a family with this number.
#[must_use]
pub fn address_at(family: Family, number: u128) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).ok()?).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    })
}

/// Returns the solicited-node multicast address of `address` (RFC 4291, 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Returns the first and the last address of a prefix as numbers.
#[must_use]
pub fn prefix_bounds(prefix: IpNet) -> (u128, u128) {
    (address_number(prefix.network()), address_number(prefix.broadcast()))
}

/// Returns `true` if an address only works on its link.
#[must_use]
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_common_prefix_contains_both_and_no_smaller_one_does() {
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        for (one, other, expected) in [
            ("10.244.0.0/24", "10.244.0.0/24", "10.244.0.0/24"),
            ("10.244.0.0/24", "10.244.1.0/24", "10.244.0.0/23"),
            ("10.244.1.0/24", "10.244.2.0/24", "10.244.0.0/22"),
            ("10.244.0.0/16", "10.244.2.0/24", "10.244.0.0/16"),
            ("10.0.0.0/24", "192.168.0.0/24", "0.0.0.0/0"),
            ("fd00:244::/64", "fd00:244:0:1::/64", "fd00:244::/63"),
            ("8000::/16", "::/16", "::/0"),
        ] {
            let common = |nets: [&str; 2]| common_prefix(nets.map(net).into_iter());
            assert_eq!(common([one, other]), Some(net(expected)), "{one} {other}");
            assert_eq!(common([other, one]), Some(net(expected)), "{other} {one}");
        }
    }
}

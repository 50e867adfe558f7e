//! Pod CIDRs and the arithmetic of pod gateways.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{Family, OperatingSystem, Prefixed};

/// The pod subnet of one node. It has no host bits set, and room for the pod gateway on either operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodCidr(IpNet);

/// The reason that a prefix is not a pod CIDR, as a fragment to follow "… is not a pod CIDR: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPodCidr {
    /// It has host bits set. The value is the network.
    HostBits(IpNet),
    /// It is a /31, /32, /127 or /128 and has no second host address for a gateway.
    TooSmall,
}

impl fmt::Display for InvalidPodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostBits(network) => write!(f, "host bits set; did you mean {network}?"),
            Self::TooSmall => f.write_str("too small for a pod gateway and a pod"),
        }
    }
}

impl PodCidr {
    /// Creates a pod CIDR.
    ///
    /// # Errors
    /// Returns an error if host bits are set or there is no room for a gateway.
    pub fn new(prefix: IpNet) -> Result<Self, InvalidPodCidr> {
        if prefix != prefix.trunc() {
            return Err(InvalidPodCidr::HostBits(prefix.trunc()));
        }
        if prefix.prefix_len() + 2 > Family::from(prefix).bits() {
            return Err(InvalidPodCidr::TooSmall);
        }
        Ok(Self(prefix))
    }

    /// Returns the pod CIDR as a prefix.
    #[must_use]
    pub const fn prefix(&self) -> IpNet {
        self.0
    }

    /// Returns the pod gateway on `os`: the first address on Linux, and the second one on Windows, because HNS reserves
    /// the first one for its bridge.
    #[must_use]
    pub fn gateway(&self, os: OperatingSystem) -> IpAddr {
        let offset: u8 = match os {
            OperatingSystem::Linux => 1,
            OperatingSystem::Windows => 2,
        };
        offset_by(self.0.network(), offset.into())
    }
}

/// A pod CIDR of a node with its pod gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PodNetwork {
    /// The pod CIDR.
    pub cidr: PodCidr,
    /// `gateway`, which overrides the computed pod gateway. It is part of the pod CIDR.
    pub gateway: Option<IpAddr>,
}

impl PodNetwork {
    /// Returns the address family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.cidr.0.into()
    }
}

impl Prefixed for PodNetwork {
    fn prefix(&self) -> IpNet {
        self.cidr.0
    }
}

/// Returns an address for a pod: network + 10 if it is in range, or else the first one that is not the `gateway`.
#[must_use]
pub fn pod_address(cidr: IpNet, gateway: Option<IpAddr>) -> IpAddr {
    let fits = |address: &IpAddr| {
        let is_broadcast = address.is_ipv4() && *address == cidr.broadcast();
        cidr.contains(address) && Some(*address) != gateway && !is_broadcast
    };
    let mut candidates = [10, 1, 2, 3].into_iter().map(|offset| offset_by(cidr.network(), offset));
    candidates.find(fits).or(gateway).unwrap_or_else(|| cidr.network())
}

/// Returns the address `offset` after `address`.
#[must_use]
pub fn offset_by(address: IpAddr, offset: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_add(offset)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().wrapping_add(offset.into())).into(),
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(cidr: &str, os: OperatingSystem) -> String {
        PodCidr::new(cidr.parse().expect("a prefix")).expect("a pod CIDR").gateway(os).to_string()
    }

    #[test]
    fn gateways_are_offsets_from_the_network() {
        use OperatingSystem::{Linux, Windows};
        assert_eq!(gateway("10.244.1.0/24", Linux), "10.244.1.1");
        assert_eq!(gateway("10.244.1.0/24", Windows), "10.244.1.2");
        assert_eq!(gateway("10.244.0.128/25", Linux), "10.244.0.129");
        assert_eq!(gateway("10.244.0.128/25", Windows), "10.244.0.130");
        assert_eq!(gateway("10.244.8.0/21", Linux), "10.244.8.1");
        assert_eq!(gateway("fd00:244:0:1::/64", Windows), "fd00:244:0:1::2");
        assert_eq!(gateway("fd00:244::1:0/112", Linux), "fd00:244::1:1");
        assert_eq!(gateway("10.244.0.252/30", Windows), "10.244.0.254");
    }

    #[test]
    fn prefixes_without_room_for_a_gateway_are_rejected() {
        for cidr in ["10.244.1.0/31", "10.244.1.1/32", "fd00::/127", "fd00::1/128"] {
            assert_eq!(
                PodCidr::new(cidr.parse().expect("a prefix")),
                Err(InvalidPodCidr::TooSmall),
                "{cidr}"
            );
        }
        assert!(matches!(
            PodCidr::new("10.244.1.7/24".parse().expect("a prefix")),
            Err(InvalidPodCidr::HostBits(network)) if network.to_string() == "10.244.1.0/24"
        ));
    }
}

//! Pod CIDRs and the arithmetic of pod gateways.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{Family, OperatingSystem};

/// The subnet of one node's pods. No host bits are set and both pod gateways fit in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodCidr(IpNet);

/// Why a prefix is no pod CIDR; a fragment that follows "… is not a pod CIDR: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPodCidr {
    /// The prefix has host bits; holds the network it belongs to.
    HostBits(IpNet),
    /// A /31, /32, /127 or /128: there is no second host address for a gateway.
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
    /// Checks that `prefix` can be the subnet of a node's pods.
    ///
    /// # Errors
    /// Host bits, or a prefix with no room for a gateway.
    pub fn new(prefix: IpNet) -> Result<Self, InvalidPodCidr> {
        if prefix != prefix.trunc() {
            return Err(InvalidPodCidr::HostBits(prefix.trunc()));
        }
        if prefix.prefix_len() + 2 > Family::from(prefix).bits() {
            return Err(InvalidPodCidr::TooSmall);
        }
        Ok(Self(prefix))
    }

    /// The prefix itself.
    #[must_use]
    pub const fn prefix(&self) -> IpNet {
        self.0
    }

    /// The pod gateway of a node with operating system `os`: network + 1, on Windows network + 2
    /// (HNS keeps the first address for its bridge).
    #[must_use]
    pub fn gateway(&self, os: OperatingSystem) -> IpAddr {
        let offset: u8 = match os {
            OperatingSystem::Linux => 1,
            OperatingSystem::Windows => 2,
        };
        match self.0.network() {
            IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits() + u32::from(offset)).into(),
            IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits() + u128::from(offset)).into(),
        }
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
    fn gateway_is_arithmetic_on_the_network() {
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
    fn refuses_what_has_no_room_for_a_gateway() {
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

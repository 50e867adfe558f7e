//! Address families, and at most one value per family.

use std::{
    fmt, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Family {
    /// IPv4, which nft calls `ip`.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6, which nft calls `ip6`.
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the number of bits in an address.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Returns the prefix with this length whose address begins with `bytes`, followed by zeros. `None` if the address has
    /// fewer bytes or bits.
    #[must_use]
    pub fn prefix_of(self, bytes: &[u8], length: u8) -> Option<IpNet> {
        let mut octets = [0; 16];
        octets.get_mut(..usize::from(self.bits() / 8))?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let address: IpAddr = match self {
            Self::V4 => Ipv4Addr::from(*octets.first_chunk::<4>()?).into(),
            Self::V6 => Ipv6Addr::from(octets).into(),
        };
        IpNet::new(address, length).ok()
    }

    /// Returns the name in nft: `ip` or `ip6`.
    #[must_use]
    pub const fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// Returns the words of an `ip` command for this family.
    pub fn ip_words<'a>(self, words: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
        let option = (self == Self::V6).then_some("-6");
        iter::once("ip").chain(option).chain(words)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl From<IpNet> for Family {
    fn from(prefix: IpNet) -> Self {
        prefix.addr().into()
    }
}

/// At most one value per address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PerFamily<T> {
    /// The IPv4 value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<T>,
    /// The IPv6 value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<T>,
}

impl<T> Default for PerFamily<T> {
    fn default() -> Self {
        Self { v4: None, v6: None }
    }
}

impl<T> PerFamily<T> {
    /// Returns the value of `family`.
    pub const fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Returns the value of `family` for modification.
    pub const fn get_mut(&mut self, family: Family) -> &mut Option<T> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Iterates over the values, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        Family::ALL.into_iter().filter_map(|family| Some((family, self.get(family)?)))
    }

    /// Returns `true` if neither family has a value.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

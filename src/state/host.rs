//! The surroundings of a node that plans are checked against: interfaces, addresses, foreign routes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Route;

use crate::text::Untrusted;

/// What is there besides hostgw's own objects, as far as a plan depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Every interface of the network namespace.
    pub links: Vec<Link>,
    /// Every address of the network namespace.
    pub addresses: Vec<InterfaceAddress>,
    /// Foreign routes without a gateway that make addresses on an interface reachable, and foreign
    /// routes that cover, or lie inside, a cluster prefix.
    pub foreign: Vec<Route>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its name in this namespace.
    pub name: Untrusted,
    /// Its index in this namespace.
    pub index: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub device: Untrusted,
    /// The local address.
    pub address: IpAddr,
    /// The prefix that the address makes reachable on the interface.
    #[schemars(with = "String")]
    pub prefix: IpNet,
}

impl Host {
    /// The interface called `name`.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface that holds `address`, if this node has it.
    #[must_use]
    pub fn owner_of(&self, address: IpAddr) -> Option<&InterfaceAddress> {
        self.addresses.iter().find(|own| own.address == address)
    }

    /// The prefixes that are on-link on `device` without hostgw, by the routes that say so. An address
    /// alone does not count: `noprefixroute` makes one without its route.
    pub fn on_link<'a>(&'a self, device: &'a str) -> impl Iterator<Item = IpNet> + 'a {
        self.foreign.iter().filter(move |route| route.is_on_link(device)).map(|route| route.destination)
    }
}

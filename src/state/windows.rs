//! What a Windows node holds, in the words of the NetTCPIP cmdlets.
//!
//! Windows keeps a route in two stores: the active one, which packets go by, and the persistent one, from which the
//! active one is made when the machine starts. `New-NetRoute` writes both.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{Column, Word, join_words};
use crate::{model::Family, text::Untrusted};

/// Routes and forwarding of a Windows node, as they shall stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsState {
    /// In both stores.
    pub routes: Vec<WindowsRoute>,
    /// The interfaces that shall forward.
    pub forwarding: Vec<Forwarding>,
}

/// A route, as `New-NetRoute` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowsRoute {
    /// `-DestinationPrefix`.
    #[schemars(with = "String")]
    pub destination_prefix: IpNet,
    /// `-NextHop`; `0.0.0.0` or `::` when the destination is on-link. None: the default gateway of the interface,
    /// which the node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// `-InterfaceAlias`. None: the interface that holds the node's address, which the node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_alias: Option<Untrusted>,
    /// `-RouteMetric`.
    pub route_metric: u32,
    /// In which store it is, where the two are not alike: `ActiveStore`, `PersistentStore`, or `ActiveStore
    /// (PersistentStore: 7)` where only the metrics differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_store: Option<String>,
}

/// That packets are forwarded, as `Set-NetIPInterface -Forwarding` sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forwarding {
    /// By which interface.
    pub interface: Role,
    /// `-AddressFamily`.
    pub family: Family,
}

/// What an interface of a Windows node is there for: its index and its name are known on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one with the node's address: its egress interface.
    Management,
    /// The one with the node's pod gateway, which the CNI made.
    Pod,
}

impl WindowsRoute {
    /// The metric of `New-NetRoute` where none is given (its documentation, `-RouteMetric`).
    pub const DEFAULT_METRIC: u32 = 256;

    /// The largest metric: `-RouteMetric` is a UInt16 (documentation of `New-NetRoute`).
    pub const MAX_METRIC: u32 = u16::MAX as u32;

    /// The metric of the own pod CIDR on the management interface: worse than that of the route Windows makes of
    /// the address on the pod interface (256), which stays in force. `AddRoutes.ps1` of the Windows SDN scripts
    /// sets the same.
    pub const OWN_PODS_METRIC: u32 = 300;

    /// The next hop that stands for on-link.
    #[must_use]
    pub const fn on_link(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// The family of its destination.
    #[must_use]
    pub fn family(&self) -> Family {
        self.destination_prefix.into()
    }

    /// Returns the parameters of `New-NetRoute`, without those that only the node knows.
    #[must_use]
    pub fn words(&self) -> Vec<Word> {
        let mut words = vec![
            Word::new(Column::Destination, "-DestinationPrefix", self.destination_prefix),
            match self.next_hop {
                Some(address) => Word::new(Column::NextHop, "-NextHop", address),
                None => Word::new(Column::NextHop, "-NextHop", "(default gateway)"),
            },
        ];
        if let Some(alias) = &self.interface_alias {
            words.push(Word::new(Column::Interface, "-InterfaceAlias", format!("'{alias}'")));
        }
        words.push(Word::new(Column::Details, "-RouteMetric", self.route_metric));
        if let Some(store) = &self.policy_store {
            words.push(Word::new(Column::Details, "-PolicyStore", store));
        }
        words
    }
}

impl fmt::Display for WindowsRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join_words(&self.words()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Management => "management interface",
            Self::Pod => "pod interface",
        })
    }
}

impl Forwarding {
    /// What it is called: `management interface IPv4 forwarding`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{} {} forwarding", self.interface, self.family)
    }

    /// The setting as `Set-NetIPInterface` takes it.
    #[must_use]
    pub fn text(self, enabled: bool) -> String {
        let value = if enabled { "Enabled" } else { "Disabled" };
        format!("{}: -AddressFamily {} -Forwarding {value}", self.interface, self.family)
    }
}

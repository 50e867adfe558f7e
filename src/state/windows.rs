//! The state of a Windows node, in terms of the NetTCPIP cmdlets.
//!
//! Windows keeps a route in two stores: packets use the active store, which Windows initializes from the persistent
//! store when it starts. `New-NetRoute` writes both.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{Column, Word, join_words};
use crate::{model::Family, text::Untrusted};

/// The desired routes and forwarding of a Windows node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsState {
    /// The routes, in both stores.
    pub routes: Vec<WindowsRoute>,
    /// The interfaces that forward packets.
    pub forwarding: Vec<Forwarding>,
}

/// A route, in terms of `New-NetRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowsRoute {
    /// `-DestinationPrefix`.
    #[schemars(with = "String")]
    pub destination_prefix: IpNet,
    /// `-NextHop`: `0.0.0.0` or `::` if the destination is on-link. If absent, the interface's default gateway, which
    /// only the node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// `-InterfaceAlias`. If absent, the interface with the node's address, which only the node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_alias: Option<Untrusted>,
    /// `-RouteMetric`.
    pub route_metric: u32,
    /// `-PolicyStore`, if the stores differ: `ActiveStore`, `PersistentStore`, or `ActiveStore (metric 7 in PersistentStore)` if
    /// only the metrics differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_store: Option<String>,
}

/// Forwarding on an interface, in terms of `Set-NetIPInterface -Forwarding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forwarding {
    /// The interface.
    pub interface: Role,
    /// `-AddressFamily`.
    pub family: Family,
}

/// The role of an interface on a Windows node. Only the node knows its index and alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The egress interface, which has the node's address.
    Egress,
    /// The interface with the node's pod gateway, which the CNI creates.
    Pod,
}

impl WindowsRoute {
    /// The default of `New-NetRoute -RouteMetric`, according to its documentation.
    pub const DEFAULT_METRIC: u32 = 256;

    /// The maximum metric: according to the documentation of `New-NetRoute`, `-RouteMetric` is a UInt16.
    pub const MAX_METRIC: u32 = u16::MAX as u32;

    /// The metric of the route to the node's own pods through the egress interface. It is higher than that of the
    /// route that Windows derives from the address on the pod interface (256), which therefore takes precedence.
    /// `AddRoutes.ps1` of the Windows SDN scripts uses the same metric.
    pub const OWN_PODS_METRIC: u32 = 300;

    /// Returns the next hop of on-link routes.
    #[must_use]
    pub const fn on_link(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Returns the family of the destination.
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
            Self::Egress => "egress interface",
            Self::Pod => "pod interface",
        })
    }
}

impl Forwarding {
    /// Returns a name such as `egress interface IPv4 forwarding`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{} {} forwarding", self.interface, self.family)
    }

    /// Returns the setting in terms of `Set-NetIPInterface`.
    #[must_use]
    pub fn text(self, enabled: bool) -> String {
        let value = if enabled { "Enabled" } else { "Disabled" };
        format!("{}: -AddressFamily {} -Forwarding {value}", self.interface, self.family)
    }
}

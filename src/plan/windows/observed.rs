//! The live state of a Windows node, as the script from `render --collect` prints it.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    error::{Error, Kind},
    state::WindowsRoute,
    text::JsonError,
};

/// The format version. Files of another version are rejected.
const FORMAT: u32 = 1;

/// What to do if a snapshot lacks something.
pub(super) const COLLECT_AGAIN: &str = "collect the snapshot again with the script that `hostgw render --node NODE --collect` of this version prints";

/// A snapshot of a Windows node. Unknown keys are ignored: a later version of the script may write them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[schemars(title = "hostgw render --collect")]
pub struct WindowsObserved {
    /// The version of this format.
    format: u32,
    /// `windows`.
    system: String,
    /// The node that the script was rendered for.
    pub node: String,
    /// The time of the snapshot, as in RFC 3339.
    pub taken_at: String,
    /// Every interface, once for each address family it supports.
    pub interfaces: Vec<Interface>,
    /// The addresses of all interfaces.
    pub addresses: Vec<WindowsAddress>,
    /// Every route except those that Windows derives from addresses.
    pub routes: Vec<ObservedRoute>,
    /// The routes in the active store that Windows derives from addresses. A snapshot may omit them.
    #[serde(default)]
    pub derived: Vec<ObservedRoute>,
    /// The routes that hostgw manages, according to the record on the node.
    pub managed: Vec<ManagedRoute>,
    /// The forwarding settings from before hostgw, according to the record on the node.
    pub forwarding: Vec<SavedForwarding>,
}

/// One address family of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Interface {
    /// The index of the interface.
    pub index: u32,
    /// The alias of the interface.
    pub alias: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// `Enabled` or `Disabled`.
    pub forwarding: String,
    /// The metric of the interface, which Windows adds to those of its routes. A snapshot may omit it.
    #[serde(default)]
    pub metric: Option<u32>,
    /// `Connected` or `Disconnected`. A snapshot may omit it.
    #[serde(default)]
    pub connection_state: Option<String>,
}

impl Interface {
    /// Returns `true` if no packets pass through the interface.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.connection_state.as_deref() == Some("Disconnected")
    }
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WindowsAddress {
    /// The interface's index.
    pub index: u32,
    /// The address. An IPv6 address has no zone.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The length of the prefix that is on-link. A snapshot may omit it.
    #[serde(default)]
    pub prefix_length: Option<u8>,
}

/// A route in one of the two stores, or in both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ObservedRoute {
    /// The interface's index.
    pub index: u32,
    /// The interface's alias.
    pub alias: String,
    /// `-DestinationPrefix`.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// `-NextHop`.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub next_hop: IpAddr,
    /// The metric in the active store. The file has -1 if the route is not there.
    #[serde(deserialize_with = "metric")]
    #[schemars(with = "i64")]
    pub active_metric: Option<u32>,
    /// The metric in the persistent store. The file has -1 if the route is not there.
    #[serde(deserialize_with = "metric")]
    #[schemars(with = "i64")]
    pub persistent_metric: Option<u32>,
    /// The source of the route, such as `NetMgmt`, `Dhcp` or `Local`. A snapshot may omit it.
    #[serde(default)]
    pub protocol: Option<String>,
}

impl ObservedRoute {
    /// Returns the metric of a route that Windows derives from an address. A snapshot may omit it.
    pub(super) fn derived_metric(&self) -> u32 {
        self.active_metric.unwrap_or(WindowsRoute::DEFAULT_METRIC)
    }
}

/// A route that hostgw manages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedRoute {
    /// The interface's alias.
    pub alias: String,
    /// `-DestinationPrefix`.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// `-NextHop`.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub next_hop: IpAddr,
}

/// A forwarding setting from before hostgw.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct SavedForwarding {
    /// The interface's alias.
    pub alias: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// `Enabled` or `Disabled`.
    pub value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapshotHeader {
    format: u32,
    system: String,
}

impl WindowsObserved {
    /// Returns `true` if `text` is a Windows snapshot of any version.
    #[must_use]
    pub fn is_snapshot(text: &str) -> bool {
        // The keys begin with capital letters, so most other files need not be parsed.
        let first = text.split_once('"').and_then(|(_, key)| key.chars().next());
        first.is_some_and(|first| first.is_ascii_uppercase())
            && serde_json::from_str::<SnapshotHeader>(text).is_ok_and(|head| head.system == "windows")
    }

    /// Returns the managed routes by alias, destination and next hop.
    pub(super) fn owned_keys(&self) -> HashSet<(&str, IpNet, IpAddr)> {
        let managed = self.managed.iter();
        managed.map(|route| (route.alias.as_str(), route.destination, route.next_hop)).collect()
    }

    /// Parses a snapshot; `name` is the file name in errors.
    ///
    /// # Errors
    /// Returns an error if the text is something else, or of another version.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(Kind::Invalid, format!("{name} is not a Windows snapshot: {why}"))
                .with_hint("create one with the script from `hostgw render --node NODE --collect`")
        };
        let head: SnapshotHeader =
            serde_json::from_str(text).map_err(|error| wrong(JsonError(&error).to_string()))?;
        if head.format != FORMAT {
            return Err(wrong(format!(
                "it has format {}, but this version of hostgw reads format {FORMAT}",
                head.format
            )));
        }
        serde_json::from_str(text).map_err(|error| wrong(JsonError(&error).to_string()))
    }
}

/// Parses an address without its zone, which Windows prints for IPv6.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.split('%').next().unwrap_or_default().parse().map_err(D::Error::custom)
}

fn metric<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(u32::try_from(i64::deserialize(deserializer)?).ok())
}

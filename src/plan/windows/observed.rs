//! What stands on a Windows node, as the script of `render --collect` prints it there.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::error::{Error, Kind};

/// The version of the file. One of another version is never guessed at.
const FORMAT: u32 = 1;

/// A Windows node at a moment. Keys that are unknown are taken for those of a later PowerShell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WindowsObserved {
    format: u32,
    /// `windows`.
    system: String,
    /// The node that the script was made for.
    pub node: String,
    /// When, as RFC 3339 has it.
    pub at: String,
    /// Every interface, once for each family it has.
    pub interfaces: Vec<Interface>,
    /// Every address.
    pub addresses: Vec<WindowsAddress>,
    /// Every route that Windows did not make of an address.
    pub routes: Vec<ObservedRoute>,
    /// The routes in the active store that Windows made of addresses. Snapshots of earlier versions have none.
    #[serde(default)]
    pub made: Vec<ObservedRoute>,
    /// The routes that hostgw owns, by the record on the node.
    pub owned: Vec<OwnedRoute>,
    /// What forwarded before hostgw, by the record on the node.
    pub forwarding: Vec<SavedForwarding>,
}

/// One family of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub alias: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// `Enabled` or `Disabled`.
    pub forwarding: String,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WindowsAddress {
    /// The interface's number.
    pub index: u32,
    /// The address, of IPv6 without its zone.
    #[serde(deserialize_with = "address")]
    pub address: IpAddr,
}

/// A route in one of the two stores, or in both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ObservedRoute {
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub alias: String,
    /// `-DestinationPrefix`.
    pub destination: IpNet,
    /// `-NextHop`.
    #[serde(deserialize_with = "address")]
    pub next_hop: IpAddr,
    /// The metric in the active store; -1 where it is not there.
    #[serde(deserialize_with = "metric")]
    pub active: Option<u32>,
    /// The metric in the persistent store; -1 where it is not there.
    #[serde(deserialize_with = "metric")]
    pub persistent: Option<u32>,
}

/// A route that hostgw owns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OwnedRoute {
    /// On which interface, by name.
    pub alias: String,
    /// `-DestinationPrefix`.
    pub destination: IpNet,
    /// `-NextHop`.
    #[serde(deserialize_with = "address")]
    pub next_hop: IpAddr,
}

/// A setting from before hostgw.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedForwarding {
    /// Of which interface, by name.
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
    /// Whether `text` is such a file, of whatever version.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        serde_json::from_str::<SnapshotHeader>(without_mark(text)).is_ok_and(|head| head.system == "windows")
    }

    /// Reads what the script printed, which stands in the file called `name`.
    ///
    /// # Errors
    /// When it is something else, or of another version.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(Kind::Invalid, format!("{name} is not a Windows snapshot: {why}"))
                .with_hint("create one with the script from `hostgw render --node NODE --collect`")
        };
        let text = without_mark(text);
        let head: SnapshotHeader = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if head.format != FORMAT {
            return Err(wrong(format!(
                "its format is {}, this version of hostgw reads {FORMAT}",
                head.format
            )));
        }
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
    }
}

/// Windows PowerShell 5.1 writes UTF-8 with a byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Windows prints an address of IPv6 with the zone it is in.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.split('%').next().unwrap_or_default().parse().map_err(D::Error::custom)
}

fn metric<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(u32::try_from(i64::deserialize(deserializer)?).ok())
}

//! Copies this node's network to another namespace: what the kernel dumps is sent back to it there.
//!
//! Interfaces keep their names and numbers, so everything that contains either can be copied byte by byte.
//!
//! - `links.rs`: interfaces; those without an equivalent in a namespace become one end of a veth pair
//! - `addressing.rs`: addresses and neighbor entries
//! - `routing.rs`: policy rules, nexthop objects, and the routes of every table
//! - `settings.rs`: sysctls
//! - `legacy.rs`: the rules of iptables-legacy, by its own programs
//!
//! The tables of nftables are copied by `nat/ruleset.rs`.

mod addressing;
mod legacy;
mod links;
mod routing;
mod settings;
#[cfg(test)]
mod tests;

use std::io;

use super::{
    Namespace, cannot_create_namespace, inside,
    nat::{CopiedRules, Ruleset},
    netlink::{KernelError, Message, Refused, Socket, open_route_socket},
    omission::Omission,
};
use crate::error::{Error, Kind};
use addressing::Addressing;
use legacy::LegacyRules;
pub use legacy::{legacy_drops, legacy_tables};
use links::LinkImages;
pub use links::{Cable, LinkImage};
use routing::Routing;
use settings::Settings;

/// The network of a node, as the kernel dumps it.
#[derive(Debug)]
pub struct NodeImage {
    links: LinkImages,
    addressing: Addressing,
    routing: Routing,
    settings: Settings,
    ruleset: Ruleset,
    legacy: LegacyRules,
}

/// How much of a node was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CopyTotals {
    /// The number of interfaces.
    pub interfaces: usize,
    /// The number of addresses.
    pub addresses: usize,
    /// The number of policy rules.
    pub policy_rules: usize,
    /// The number of routes, in all tables.
    pub routes: usize,
    /// The number of sysctls that differ from those of a new namespace.
    pub sysctls: usize,
    /// The number of nftables tables.
    pub nft_tables: usize,
    /// The number of rules in them.
    pub nft_rules: usize,
    /// The number of tables of iptables-legacy.
    pub legacy_tables: usize,
}

/// A copy of a node.
#[derive(Debug)]
pub struct NodeCopy {
    /// The namespace that contains it.
    pub namespace: Namespace,
    /// The namespace with the far ends of its interfaces, which answers nothing.
    pub void: Namespace,
    /// How much was copied.
    pub totals: CopyTotals,
    /// What is missing or different.
    pub omissions: Vec<Omission>,
    /// Where the firewall rules of the node are in the copy.
    pub rules: CopiedRules,
}

impl NodeImage {
    /// Reads the network of the namespace of the calling thread. Changes nothing.
    ///
    /// # Errors
    /// Returns [`Kind::Incomplete`] if this process may not read the firewall, or an error if something cannot be read.
    pub fn read() -> Result<Self, Error> {
        let unreadable = |error: KernelError| Error::unexpected(format!("cannot read the node: {error}"));
        let mut socket = open_route_socket()?;
        let ruleset = Ruleset::read().map_err(|error| {
            let hint = error.hint();
            Error::new(Kind::Incomplete, format!("cannot copy the firewall: {error}")).with_hint_if(hint)
        })?;
        let links = LinkImages::read(&mut socket).map_err(unreadable)?;
        Ok(Self {
            addressing: Addressing::read(&mut socket).map_err(unreadable)?,
            routing: Routing::read(&mut socket).map_err(unreadable)?,
            settings: Settings::read(),
            legacy: LegacyRules::read(),
            ruleset,
            links,
        })
    }

    /// The interfaces.
    #[must_use]
    pub fn links(&self) -> &[LinkImage] {
        &self.links.all
    }

    /// Creates the node in a new namespace. The interface at the near end of each of `cables` is connected to its far end,
    /// and all others to a namespace that answers nothing. Machines are also simulated behind the interfaces with the
    /// numbers `simulated`.
    ///
    /// # Errors
    /// Returns an error if the namespace cannot be created, or if something essential is rejected.
    pub fn write(&self, cables: &[Cable<'_>], simulated: &[u32]) -> Result<NodeCopy, Error> {
        let cannot = |error: io::Error| cannot_create_namespace(&error);
        let (namespace, void) = (Namespace::new().map_err(cannot)?, Namespace::new().map_err(cannot)?);
        let mut omissions = Vec::new();
        let (sysctls, rules) =
            inside(&namespace, || self.write_here(cables, simulated, &void, &mut omissions))?;
        omissions.sort();
        omissions.dedup();
        let (nft_tables, _, nft_rules) = self.ruleset.counts();
        let totals = CopyTotals {
            interfaces: self.links.all.len(),
            addresses: self.addressing.count(),
            policy_rules: self.routing.rule_count(),
            routes: self.routing.route_count(),
            sysctls,
            nft_tables,
            nft_rules,
            legacy_tables: self.legacy.count(),
        };
        Ok(NodeCopy { namespace, void, totals, omissions, rules })
    }

    /// Creates the node in the namespace of the calling thread. Returns the number of sysctls that were set.
    fn write_here(
        &self,
        cables: &[Cable<'_>],
        simulated: &[u32],
        void: &Namespace,
        omissions: &mut Vec<Omission>,
    ) -> Result<(usize, CopiedRules), Error> {
        let mut socket = open_route_socket()?;
        settings::prepare();
        self.links.create(&mut socket, cables, void, omissions)?;
        self.settings.write_early();
        self.links.bring_up(&mut socket, omissions)?;
        // IPv6 addresses are not usable on an interface without a carrier.
        self.links.bring_up_far_ends(cables, void)?;
        let mut played = self.links.played(cables);
        played.extend(simulated);
        self.addressing.write(&mut socket, &self.links, &played, omissions);
        let sysctls = self.settings.write(omissions);
        self.routing.write(&mut socket, omissions)?;
        let (rejected, rules) = self
            .ruleset
            .write()
            .map_err(|error| Error::unexpected(format!("cannot copy nftables: {error}")))?;
        omissions.extend(rejected);
        self.legacy.write(omissions);
        Ok((sysctls, rules))
    }
}

/// Sends one request.
fn send(socket: &mut Socket, message_type: u16, flags: u16, payload: Vec<u8>) -> Result<(), KernelError> {
    let message = Message { message_type, flags, payload };
    socket.transact_all(&[message]).map_err(|refused: Refused| {
        let first = refused.rejections.into_iter().next().map(|(_, error)| error);
        first.or(refused.failure).unwrap_or_else(|| rustix::io::Errno::IO.into())
    })
}

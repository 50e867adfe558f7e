//! Checks whether a neighbor answers now: an earlier answer proves nothing after a change.

use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::NeighbourState;

use super::AttemptStatus;
use crate::{
    error::Error,
    kernel::{
        lookup::lookup,
        neighbor::{self, Neighbor},
        netlink::{KernelError, Message, Socket},
    },
};

/// A neighbor resolution in progress.
pub(super) struct Asking {
    address: IpAddr,
    interface: u32,
    /// Whether the whole link was queried, not only the last known MAC address.
    is_broadcast: bool,
}

impl Asking {
    /// Makes the kernel resolve `address`.
    ///
    /// # Errors
    /// Returns an error if the kernel cannot be queried.
    pub(super) fn start(address: IpAddr, socket: &mut Socket) -> Result<(Self, AttemptStatus), Error> {
        let route = lookup(socket, address)?;
        let mut asking = Self::on(address, route.interface.unwrap_or(0));
        let progress = match route.gateway {
            // All nodes share the configuration, so a check may target the node itself.
            _ if route.is_local => AttemptStatus::Passed,
            Some(gateway) => AttemptStatus::Failed(format!("not on-link: reached via {gateway}")),
            None if route.interface.is_none() => AttemptStatus::Failed("no route to it".to_owned()),
            None => asking.begin(socket)?,
        };
        Ok((asking, progress))
    }

    /// A resolution of `address` on interface number `interface`, not begun yet.
    pub(super) const fn on(address: IpAddr, interface: u32) -> Self {
        Self { address, interface, is_broadcast: false }
    }

    /// Makes the kernel resolve the address.
    ///
    /// # Errors
    /// Returns an error if the kernel cannot be queried.
    pub(super) fn begin(&mut self, socket: &mut Socket) -> Result<AttemptStatus, Error> {
        let entry = self.entry(socket)?;
        self.ask(&entry, socket)
    }

    /// Returns whether the kernel resolves the address at all.
    ///
    /// # Errors
    /// Returns an error if the kernel cannot be queried.
    pub(super) fn is_asked(&self, socket: &mut Socket) -> Result<bool, Error> {
        Ok(self.entry(socket)?.is_asked_for())
    }

    /// Checks the entry again.
    ///
    /// # Errors
    /// Returns an error if the kernel cannot be queried.
    pub(super) fn advance(&mut self, socket: &mut Socket) -> Result<AttemptStatus, Error> {
        let entry = self.entry(socket)?;
        match entry.state() {
            _ if !entry.is_asked_for() => Ok(not_asked_for()),
            NeighbourState::Reachable => Ok(AttemptStatus::Passed),
            NeighbourState::Failed if self.is_broadcast => {
                Ok(AttemptStatus::Failed("it does not answer on its link".to_owned()))
            }
            NeighbourState::Incomplete | NeighbourState::Probe => Ok(AttemptStatus::Waiting),
            // The last known MAC address is silent, so another machine may have the address now. Or another
            // program changed the entry.
            _ => self.ask(&entry, socket),
        }
    }

    /// Queries the last known MAC address if there is one, else the whole link.
    fn ask(&mut self, entry: &Neighbor, socket: &mut Socket) -> Result<AttemptStatus, Error> {
        match entry.state() {
            _ if !entry.is_asked_for() => Ok(not_asked_for()),
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe => send(socket, &entry.question()),
            _ => {
                self.is_broadcast = true;
                send(socket, &entry.call())
            }
        }
    }

    fn entry(&self, socket: &mut Socket) -> Result<Neighbor, Error> {
        let found = neighbor::find(socket, self.address, self.interface);
        let entry = found.map_err(|error| cannot_ask(&error))?;
        Ok(entry.unwrap_or_else(|| Neighbor::unknown(self.address, self.interface)))
    }
}

/// Sends a request. A rejection means that the entry or the interface has changed, so the attempt is repeated.
fn send(socket: &mut Socket, message: &Message) -> Result<AttemptStatus, Error> {
    let Err(refused) = socket.transact_all(std::slice::from_ref(message)) else {
        return Ok(AttemptStatus::Waiting);
    };
    match (refused.failure, refused.rejections.first()) {
        (Some(failure), _) => Err(cannot_ask(&failure)),
        (None, Some((_, error))) => Ok(AttemptStatus::Interfered(error.to_string())),
        (None, None) => Ok(AttemptStatus::Waiting),
    }
}

fn not_asked_for() -> AttemptStatus {
    AttemptStatus::Failed("the kernel does not query it: its neighbor entry is permanent".to_owned())
}

fn cannot_ask(error: &KernelError) -> Error {
    Error::unexpected(format!("cannot query neighbors: {error}"))
}

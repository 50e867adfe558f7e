//! A neighbour, asked for afresh: that it answered some time ago is no proof after a change.

use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::NeighbourState;

use super::Progress;
use crate::{
    error::Error,
    kernel::{
        lookup::lookup,
        neighbour::{self, Neighbour},
        netlink::{KernelError, Message, Socket},
    },
};

/// A neighbour that was asked for.
pub(super) struct Asking {
    address: IpAddr,
    interface: u32,
    /// Whether everybody on the link was asked, not only who answered last time.
    everybody: bool,
}

impl Asking {
    /// Has the kernel ask for `address`.
    ///
    /// # Errors
    /// When the kernel cannot be spoken to.
    pub(super) fn begin(address: IpAddr, socket: &mut Socket) -> Result<(Self, Progress), Error> {
        let way = lookup(socket, address)?;
        let mut asking = Self { address, interface: way.interface.unwrap_or(0), everybody: false };
        let progress = match way.gateway {
            // The file is one for all nodes: what one asks for, another is.
            _ if way.is_own => Progress::Passed,
            Some(gateway) => Progress::Failed(format!("not on a link of this node but behind {gateway}")),
            None if way.interface.is_none() => Progress::Failed("no route to it".to_owned()),
            None => {
                let entry = asking.entry(socket)?;
                asking.ask(&entry, socket)?
            }
        };
        Ok((asking, progress))
    }

    /// How far it is now.
    ///
    /// # Errors
    /// When the kernel cannot be spoken to.
    pub(super) fn go_on(&mut self, socket: &mut Socket) -> Result<Progress, Error> {
        let entry = self.entry(socket)?;
        match entry.state() {
            _ if !entry.is_asked_for() => Ok(not_asked_for()),
            NeighbourState::Reachable => Ok(Progress::Passed),
            NeighbourState::Failed if self.everybody => {
                Ok(Progress::Failed("it does not answer on its link".to_owned()))
            }
            NeighbourState::Incomplete | NeighbourState::Probe => Ok(Progress::Waiting),
            // Who answered last time is silent: somebody else may have the address now. Or something else has
            // touched the entry meanwhile.
            _ => self.ask(&entry, socket),
        }
    }

    /// Asks who answered last time, or everybody.
    fn ask(&mut self, entry: &Neighbour, socket: &mut Socket) -> Result<Progress, Error> {
        match entry.state() {
            _ if !entry.is_asked_for() => Ok(not_asked_for()),
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe => send(socket, &entry.question()),
            _ => {
                self.everybody = true;
                send(socket, &entry.call())
            }
        }
    }

    fn entry(&self, socket: &mut Socket) -> Result<Neighbour, Error> {
        let found = neighbour::find(socket, self.address, self.interface);
        let entry = found.map_err(|error| cannot_ask(&error))?;
        Ok(entry.unwrap_or_else(|| Neighbour::unknown(self.address, self.interface)))
    }
}

/// A refusal says that the entry has changed, or the interface: that is looked at again.
fn send(socket: &mut Socket, message: &Message) -> Result<Progress, Error> {
    let Err(refused) = socket.transact(std::slice::from_ref(message)) else { return Ok(Progress::Waiting) };
    match (refused.failure, refused.refusals.first()) {
        (Some(failure), _) => Err(cannot_ask(&failure)),
        (None, Some((_, error))) => Ok(Progress::Disturbed(error.to_string())),
        (None, None) => Ok(Progress::Waiting),
    }
}

fn not_asked_for() -> Progress {
    Progress::Failed("the kernel does not query it: its neighbor entry is permanent".to_owned())
}

fn cannot_ask(error: &KernelError) -> Error {
    Error::unexpected(format!("cannot query neighbors: {error}"))
}

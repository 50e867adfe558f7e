//! Neighbours: the addresses of the links, and which of them answer.
//!
//! The states of an entry are those of `NUD_*` (linux/neighbour.h); `ip neigh` shows them.

use std::net::IpAddr;

use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        AddressFamily,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use rustix::io::Errno;

use super::{
    link::message,
    netlink::{KernelError, Message, Socket},
    route::NLM_F_CREATE,
};

// linux/rtnetlink.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbour(NeighbourMessage);

/// Every entry of the namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn all(socket: &mut Socket) -> Result<Vec<Neighbour>, KernelError> {
    let dump = socket.dump(RTM_GETNEIGH, 0, &message(&NeighbourMessage::default()))?;
    Ok(dump.iter().filter_map(|(_, payload)| NeighbourMessage::parse(payload).ok()).map(Neighbour).collect())
}

/// The entry of `address` on interface number `interface`.
///
/// # Errors
/// The kernel's, other than that there is none.
pub(super) fn find(
    socket: &mut Socket,
    address: IpAddr,
    interface: u32,
) -> Result<Option<Neighbour>, KernelError> {
    match socket.get(RTM_GETNEIGH, &message(&Neighbour::unknown(address, interface).0)) {
        Ok(answer) => {
            Ok(answer.iter().find_map(|(_, payload)| NeighbourMessage::parse(payload).ok()).map(Neighbour))
        }
        // No entry, or no interface any more.
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Neighbour {
    /// One of which nothing is known yet.
    pub(super) fn unknown(address: IpAddr, interface: u32) -> Self {
        let mut message = NeighbourMessage::default();
        let (family, address) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.header.ifindex = interface;
        message.attributes.push(NeighbourAttribute::Destination(address));
        Self(message)
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.0.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        })
    }

    pub(super) const fn state(&self) -> NeighbourState {
        self.0.header.state
    }

    /// Whether the kernel found it by asking, and forgets it by itself.
    pub(super) fn is_passing(&self) -> bool {
        !matches!(self.state(), NeighbourState::Permanent | NeighbourState::Noarp)
    }

    /// Whether the kernel asks for it at all: not for one that was put there by hand or by another program, and
    /// not on a link without addresses of its own.
    pub(super) fn is_asked_for(&self) -> bool {
        self.is_passing() && !self.0.header.flags.contains(NeighbourFlags::ExtLearned)
    }

    /// What makes the kernel forget it.
    pub(super) fn removal(&self) -> Message {
        let mut removal = self.0.clone();
        removal.attributes.retain(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)));
        Message { message_type: RTM_DELNEIGH, flags: 0, payload: message(&removal) }
    }

    /// What makes the kernel ask this neighbour, whose link-layer address is known, whether it is still there;
    /// until it answers the entry is not `REACHABLE`, and serves packets all the same.
    pub(super) fn question(&self) -> Message {
        self.request(NeighbourState::Probe, NeighbourFlags::empty(), 0)
    }

    /// What makes the kernel ask everybody on the link for an address whose link-layer address is not known.
    pub(super) fn call(&self) -> Message {
        self.request(NeighbourState::None, NeighbourFlags::Use, NLM_F_CREATE)
    }

    /// With the flags that the entry has, such as `router` or `managed`: `neigh_add` (net/core/neighbour.c) takes
    /// what is not said for what is not wanted.
    fn request(&self, state: NeighbourState, flags: NeighbourFlags, netlink_flags: u16) -> Message {
        let mut request = self.0.clone();
        request.header.state = state;
        request.header.flags |= flags;
        request.attributes.retain(|attribute| {
            matches!(attribute, NeighbourAttribute::Destination(_) | NeighbourAttribute::ExtFlags(_))
        });
        Message { message_type: RTM_NEWNEIGH, flags: netlink_flags, payload: message(&request) }
    }
}

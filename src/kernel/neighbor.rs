//! The kernel's neighbor table (ARP and NDP).
//!
//! The states of an entry are `NUD_*` (linux/neighbour.h), as `ip neigh` shows them.

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
    link::{Links, hardware_text, message},
    netlink::{KernelError, Message, Socket},
    route::NLM_F_CREATE,
};
use crate::state::NeighborEntry;

// linux/rtnetlink.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

/// An entry of the neighbor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbor(NeighbourMessage);

/// Dumps the entries of the namespace.
///
/// # Errors
/// Returns the kernel's error.
pub(super) fn all(socket: &mut Socket) -> Result<Vec<Neighbor>, KernelError> {
    let dump = socket.dump(RTM_GETNEIGH, 0, &message(&NeighbourMessage::default()))?;
    Ok(dump.iter().filter_map(|(_, payload)| NeighbourMessage::parse(payload).ok()).map(Neighbor).collect())
}

/// Returns the entry of `address` on interface number `interface`, if any.
///
/// # Errors
/// Returns the kernel's error; a missing entry is not an error.
pub(super) fn find(
    socket: &mut Socket,
    address: IpAddr,
    interface: u32,
) -> Result<Option<Neighbor>, KernelError> {
    match socket.get(RTM_GETNEIGH, &message(&Neighbor::unknown(address, interface).0)) {
        Ok(answer) => {
            Ok(answer.iter().find_map(|(_, payload)| NeighbourMessage::parse(payload).ok()).map(Neighbor))
        }
        // The entry does not exist, or the interface was removed.
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Neighbor {
    /// Creates an entry with an unknown MAC address.
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

    /// Returns the entry by the name of its interface.
    pub(super) fn observed(&self, links: &Links) -> Option<NeighborEntry> {
        let device = links.name(self.0.header.ifindex)?.clone();
        let unanswered = matches!(self.state(), NeighbourState::Failed | NeighbourState::Incomplete);
        let mac_address = self.mac_address().map(Into::into);
        let permanent = self.state() == NeighbourState::Permanent;
        let external = self.0.header.flags.contains(NeighbourFlags::ExtLearned);
        let (address, answers) = (self.address()?, Vec::new());
        Some(NeighborEntry { device, address, mac_address, unanswered, permanent, external, answers })
    }

    /// Returns the MAC address, as `ip neigh` prints it.
    fn mac_address(&self) -> Option<String> {
        self.0.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) if !bytes.is_empty() => Some(hardware_text(bytes)),
            _ => None,
        })
    }

    pub(super) const fn state(&self) -> NeighbourState {
        self.0.header.state
    }

    /// Returns `true` if the kernel resolved the entry and may expire it.
    pub(super) fn is_passing(&self) -> bool {
        !matches!(self.state(), NeighbourState::Permanent | NeighbourState::Noarp)
    }

    /// Returns `true` unless the address needs no resolution, such as a multicast address.
    pub(super) fn is_resolved(&self) -> bool {
        self.state() != NeighbourState::Noarp
    }

    /// Returns `true` if the kernel resolves this address itself. It does not for permanent entries, entries
    /// managed by another program (`extern_learn`), or links without ARP.
    pub(super) fn is_asked_for(&self) -> bool {
        self.is_passing() && !self.0.header.flags.contains(NeighbourFlags::ExtLearned)
    }

    /// The request that deletes the entry.
    pub(super) fn removal(&self) -> Message {
        let mut removal = self.0.clone();
        removal.attributes.retain(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)));
        Message { message_type: RTM_DELNEIGH, flags: 0, payload: message(&removal) }
    }

    /// The request that makes the kernel probe the known MAC address by unicast. Until the neighbor answers,
    /// the entry is not `REACHABLE`, but it still carries packets.
    pub(super) fn question(&self) -> Message {
        self.request(NeighbourState::Probe, NeighbourFlags::empty(), 0)
    }

    /// The request that makes the kernel resolve the address by broadcast or multicast.
    pub(super) fn call(&self) -> Message {
        self.request(NeighbourState::None, NeighbourFlags::Use, NLM_F_CREATE)
    }

    /// Keeps the flags of the entry, such as `router` or `managed`: `neigh_add` (net/core/neighbour.c) clears the
    /// flags that a request omits.
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

//! Reads the interfaces and addresses of the network namespace.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::{
    packet_core::{Emitable, Parseable},
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
    },
};

use super::netlink::{KernelError, Socket};
use crate::{
    state::{InterfaceAddress, Link},
    text::Untrusted,
};

// linux/rtnetlink.h
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;

/// The interfaces of a namespace, indexed by name and by number.
#[derive(Debug, Default)]
pub struct Links {
    /// All interfaces, in the kernel's order.
    pub all: Vec<Link>,
    names: HashMap<u32, Untrusted>,
    indexes: HashMap<String, u32>,
}

impl Links {
    /// Dumps the interfaces.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn read(socket: &mut Socket) -> Result<Self, KernelError> {
        let request = message(&LinkMessage::default());
        let mut links = Self::default();
        for (_, payload) in socket.dump(RTM_GETLINK, 0, &request)?.iter() {
            let Ok(message) = LinkMessage::parse(payload) else { continue };
            let name = message.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            let (Some(name), index) = (name, message.header.index) else { continue };
            links.indexes.insert(name.clone(), index);
            let name = Untrusted::from(name);
            links.names.insert(index, name.clone());
            links.all.push(Link { name, index, up: message.header.flags.contains(LinkFlags::Up) });
        }
        Ok(links)
    }

    /// Returns the name of interface number `index`.
    #[must_use]
    pub fn name(&self, index: u32) -> Option<&Untrusted> {
        self.names.get(&index)
    }

    /// Returns the number of the interface called `name`.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        self.indexes.get(name).copied()
    }
}

/// Dumps the addresses of all interfaces.
///
/// # Errors
/// Returns the kernel's error.
pub fn addresses(socket: &mut Socket, links: &Links) -> Result<Vec<InterfaceAddress>, KernelError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    let dump = socket.dump(RTM_GETADDR, 0, &message(&request))?;
    Ok(dump.iter().filter_map(|(_, payload)| address(&AddressMessage::parse(payload).ok()?, links)).collect())
}

fn address(message: &AddressMessage, links: &Links) -> Option<InterfaceAddress> {
    let (mut local, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            _ => {}
        }
    }
    // IPv6 omits IFA_LOCAL if it equals IFA_ADDRESS (rtnetlink(7)).
    let address: IpAddr = local.or(peer)?;
    let prefix = IpNet::new(peer.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    Some(InterfaceAddress { device: links.name(message.header.index)?.clone(), address, prefix })
}

/// Serializes a message, without the netlink header.
pub(super) fn message(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

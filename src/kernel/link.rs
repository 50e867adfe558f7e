//! Interfaces and addresses of the network namespace.

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
use crate::state::{InterfaceAddress, Link};

// linux/rtnetlink.h
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;

/// The interfaces of the namespace, by name and by index.
#[derive(Debug, Default)]
pub struct Links {
    /// All of them, in the kernel's order.
    pub all: Vec<Link>,
    names: HashMap<u32, String>,
    indexes: HashMap<String, u32>,
}

impl Links {
    /// Reads them.
    ///
    /// # Errors
    /// The kernel's.
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
            links.names.insert(index, name.clone());
            links.indexes.insert(name.clone(), index);
            links.all.push(Link {
                name: name.into(),
                index,
                up: message.header.flags.contains(LinkFlags::Up),
            });
        }
        Ok(links)
    }

    /// The name of interface number `index`.
    #[must_use]
    pub fn name(&self, index: u32) -> Option<&str> {
        self.names.get(&index).map(String::as_str)
    }

    /// The number of the interface called `name`.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        self.indexes.get(name).copied()
    }
}

/// The addresses of the namespace.
///
/// # Errors
/// The kernel's.
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
    // IPv6 leaves out the local address where it equals the other (rtnetlink(7), IFA_LOCAL).
    let address: IpAddr = local.or(peer)?;
    let prefix = IpNet::new(peer.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    Some(InterfaceAddress { device: links.name(message.header.index)?.into(), address, prefix })
}

/// The bytes of a message, without the netlink header.
pub(super) fn message(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

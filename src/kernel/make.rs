//! Interfaces, addresses and default routes made, and routes looked up: what `simulate` builds and
//! explains a cluster with.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::Parseable,
    packet_route::{
        link::LinkMessage,
        neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteAttribute, RouteMessage},
    },
    sys::protocols::NETLINK_ROUTE,
};
use rustix::io::Errno;

use super::{
    Namespace,
    link::{Links, message},
    netlink::{KernelError, Message, Socket},
    route::{self, NLM_F_CREATE, NLM_F_EXCL, RTM_GETROUTE, RTM_NEWROUTE},
};
use crate::{error::Error, model::Family, state::Route};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
/// `IFA_F_NODAD` (linux/if_addr.h): the address is usable at once.
const IFA_F_NODAD: u32 = 0x02;

/// The interfaces of the network namespace of the calling thread, to be made and changed.
pub struct Interfaces {
    socket: Socket,
}

impl Interfaces {
    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(NETLINK_ROUTE)
            .map_err(|error| Error::unexpected(format!("cannot open a route netlink socket: {error}")))?;
        Ok(Self { socket })
    }

    fn send(&mut self, what: &str, messages: &[Message]) -> Result<(), Error> {
        self.socket.transact(messages).map_err(|refused| {
            let error = refused.refusals.into_iter().next().map(|(_, error)| error).or(refused.failure);
            let why = error.map_or_else(String::new, |error| error.to_string());
            Error::unexpected(format!("cannot {what}: {why}"))
        })
    }

    /// A pair of interfaces that are a cable: `name` here, `peer` in the namespace `other`. Both are up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cable(&mut self, name: &str, peer: &str, other: &Namespace) -> Result<(), Error> {
        let far = LinkMessageBuilder::<LinkUnspec>::default().name(peer).setns_by_fd(other.descriptor());
        let near = with_peer(LinkVeth::new(name, peer).build(), far.build());
        self.send(&format!("make the interface {name}"), &[new_link(&near)])?;
        // An end can only come up once the other is there (veth_open, drivers/net/veth.c).
        self.up(name)?;
        let far_up = other.enter(|| Ok(Self::open().and_then(|mut far| far.up(peer))));
        far_up.map_err(|error| Error::unexpected(format!("cannot bring up {peer}: {error}")))?
    }

    /// A bridge, up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bridge(&mut self, name: &str) -> Result<(), Error> {
        self.send(&format!("make the bridge {name}"), &[new_link(&LinkBridge::new(name).up().build())])
    }

    /// Makes `port` a port of `bridge`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(&mut self, port: &str, bridge: &str) -> Result<(), Error> {
        let (port_index, bridge_index) = (self.index(port)?, self.index(bridge)?);
        let change = LinkUnspec::new_with_index(port_index).controller(bridge_index).build();
        let change = Message { message_type: RTM_NEWLINK, flags: 0, payload: message(&change) };
        self.send(&format!("attach {port} to {bridge}"), &[change])
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn up(&mut self, name: &str) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(self.index(name)?).up().build();
        let change = Message { message_type: RTM_NEWLINK, flags: 0, payload: message(&change) };
        self.send(&format!("bring up {name}"), &[change])
    }

    /// Gives an interface an address with the prefix that it makes reachable.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&mut self, name: &str, address: IpNet) -> Result<(), Error> {
        let index = self.index(name)?;
        let mut change = match address {
            IpNet::V4(net) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
        };
        if address.addr().is_ipv6() {
            use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
            change.attributes.push(AddressAttribute::Flags(AddressFlags::from_bits_retain(IFA_F_NODAD)));
        }
        let change = Message {
            message_type: RTM_NEWADDR,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            payload: message(&change),
        };
        self.send(&format!("give {name} the address {address}"), &[change])
    }

    /// A route that is not hostgw's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn route(&mut self, destination: IpNet, gateway: IpAddr) -> Result<(), Error> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .and_then(|builder| builder.gateway(gateway))
            .map_err(|error| Error::unexpected(format!("cannot make a route to {destination}: {error}")))?
            .build();
        let change = Message {
            message_type: RTM_NEWROUTE,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            payload: message(&route),
        };
        self.send(&format!("route {destination} by {gateway}"), &[change])
    }

    /// Removes a route.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), Error> {
        let links = self.links()?;
        let change =
            crate::plan::RouteChange { key: route.key(), before: vec![route.clone()], after: Vec::new() };
        let messages = route::messages(&change, &links)
            .map_err(|why| Error::unexpected(format!("cannot remove {route}: {why}")))?;
        self.send(&format!("remove {route}"), &messages)
    }

    fn links(&mut self) -> Result<Links, Error> {
        Links::read(&mut self.socket)
            .map_err(|error| Error::unexpected(format!("cannot read the interfaces: {error}")))
    }

    fn index(&mut self, name: &str) -> Result<u32, Error> {
        let links = self.links()?;
        links.index(name).ok_or_else(|| Error::unexpected(format!("there is no interface {name}")))
    }

    /// Where a packet to `destination` goes from here.
    ///
    /// # Errors
    /// The kernel's, other than that there is no route.
    pub fn lookup(&mut self, destination: IpAddr) -> Result<Lookup, Error> {
        let mut request = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, Family::from(destination).bits())
            .map_err(|error| Error::unexpected(error.to_string()))?
            .table_id(0)
            .build();
        request.header.protocol = 0.into();
        request.header.kind = 0.into();
        request.header.scope = 0.into();
        let answer = match self.socket.get(RTM_GETROUTE, &message(&request)) {
            Ok(answer) => answer,
            Err(error) if is_no_route(&error) => return Ok(Lookup::default()),
            Err(error) => {
                return Err(Error::unexpected(format!("cannot look up a route to {destination}: {error}")));
            }
        };
        let parsed = answer.iter().find_map(|(_, payload)| RouteMessage::parse(payload).ok());
        let Some(parsed) = parsed else { return Ok(Lookup::default()) };
        let mut lookup = Lookup { found: true, ..Lookup::default() };
        for attribute in &parsed.attributes {
            if let RouteAttribute::Gateway(gateway) = attribute {
                lookup.gateway = route::ip(gateway);
            }
        }
        Ok(lookup)
    }

    fn neighbours(&mut self) -> Result<Vec<NeighbourMessage>, Error> {
        let request = message(&NeighbourMessage::default());
        let dump = self
            .socket
            .dump(RTM_GETNEIGH, 0, &request)
            .map_err(|error| Error::unexpected(format!("cannot read the neighbours: {error}")))?;
        Ok(dump.iter().filter_map(|(_, payload)| NeighbourMessage::parse(payload).ok()).collect())
    }

    /// Forgets every neighbour that was found by asking. The neighbour table is one for all namespaces of
    /// the machine, and holds 1,024 by default (`gc_thresh3`).
    ///
    /// # Errors
    /// The kernel's.
    pub fn forget_neighbours(&mut self) -> Result<(), Error> {
        let found = self.neighbours()?;
        let passing = |neighbour: &NeighbourMessage| {
            !matches!(neighbour.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
        };
        let messages: Vec<Message> = found
            .into_iter()
            .filter(passing)
            .map(|mut neighbour| {
                neighbour
                    .attributes
                    .retain(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)));
                Message { message_type: RTM_DELNEIGH, flags: 0, payload: message(&neighbour) }
            })
            .collect();
        // One that went by itself meanwhile is as good as forgotten.
        let _ = self.socket.transact(&messages);
        Ok(())
    }

    /// Whether the neighbour `address` answered when it was last asked for; `None` when it was not asked.
    ///
    /// # Errors
    /// The kernel's.
    pub fn neighbour_answers(&mut self, address: IpAddr) -> Result<Option<bool>, Error> {
        let is_it = |neighbour: &NeighbourMessage| {
            neighbour.attributes.iter().any(|attribute| match attribute {
                NeighbourAttribute::Destination(found) => neighbour_address(found) == Some(address),
                _ => false,
            })
        };
        let neighbours = self.neighbours()?;
        Ok(neighbours.iter().find(|neighbour| is_it(neighbour)).map(|neighbour| {
            !matches!(neighbour.header.state, NeighbourState::Failed | NeighbourState::Incomplete)
        }))
    }
}

fn is_no_route(error: &KernelError) -> bool {
    matches!(error.errno, Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)
}

const fn neighbour_address(address: &rtnetlink::packet_route::neighbour::NeighbourAddress) -> Option<IpAddr> {
    use rtnetlink::packet_route::neighbour::NeighbourAddress;
    match address {
        NeighbourAddress::Inet(address) => Some(IpAddr::V4(*address)),
        NeighbourAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn new_link(link: &LinkMessage) -> Message {
    Message { message_type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, payload: message(link) }
}

/// Puts what is said of the far end of a cable where the kernel looks for it.
fn with_peer(mut near: LinkMessage, far: LinkMessage) -> LinkMessage {
    use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo};
    for attribute in &mut near.attributes {
        if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Data(InfoData::Veth(veth)) = info {
                    *veth = InfoVeth::Peer(far.clone());
                }
            }
        }
    }
    near
}

/// Where a packet goes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Whether there is a route at all.
    pub found: bool,
    /// The next hop; none when the destination is on-link.
    pub gateway: Option<IpAddr>,
}

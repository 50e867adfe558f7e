//! Builds and inspects the networks of `simulate`: creates interfaces, addresses and routes, and looks routes up.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{link::LinkMessage, neighbour::NeighbourState, route::RouteMessage},
};

use super::{
    Namespace,
    link::{Links, message},
    lookup::{self, Lookup},
    neighbor::{self, Neighbor},
    netlink::{Malformed, Message, Refused, Requests, Socket, open_route_socket},
    policy_rule,
    route::{self, NLM_F_CREATE, NLM_F_EXCL, RTM_NEWROUTE},
};
use crate::{
    error::Error,
    state::{Route, RouteList},
};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
/// `IFA_F_NODAD` (linux/if_addr.h): skip duplicate address detection, so the address is usable immediately.
const IFA_F_NODAD: u32 = 0x02;
/// How long to wait until the kernel has made an address usable: it takes milliseconds on an idle machine.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(20);

/// A handle to the network stack of one namespace, through which interfaces, addresses and routes are configured.
pub struct Interfaces {
    socket: Socket,
}

impl Interfaces {
    /// Opens the network stack of the calling thread's namespace.
    ///
    /// # Errors
    /// Returns an error if no netlink socket can be opened.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: open_route_socket()? })
    }

    fn send(&mut self, what: &str, messages: &[Message]) -> Result<(), Error> {
        self.socket.transact_all(messages).map_err(|refused| cannot(what, refused))
    }

    /// Creates a veth pair, `name` here and `peer` in the namespace `other`, and brings both ends up.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn cable(&mut self, name: &str, peer: &str, other: &Namespace) -> Result<(), Error> {
        let far = LinkMessageBuilder::<LinkUnspec>::default().name(peer).setns_by_fd(other.descriptor());
        let near = with_peer(LinkVeth::new(name, peer).build(), far.build());
        self.send(&format!("create the interface {name}"), &[new_link(&near)])?;
        // An end can come up only after its peer exists (veth_open, drivers/net/veth.c).
        self.up(name)?;
        let far_up = other.enter(|| Ok(Self::open().and_then(|mut far| far.up(peer))));
        far_up.map_err(|error| Error::unexpected(format!("cannot bring up {peer}: {error}")))?
    }

    /// Creates a bridge and brings it up.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn bridge(&mut self, name: &str) -> Result<(), Error> {
        self.send(&format!("create the bridge {name}"), &[new_link(&LinkBridge::new(name).up().build())])
    }

    /// Attaches the interface `port` to `bridge`.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn attach(&mut self, port: &str, bridge: &str) -> Result<(), Error> {
        let (port_index, bridge_index) = (self.index(port)?, self.index(bridge)?);
        let change = LinkUnspec::new_with_index(port_index).controller(bridge_index).build();
        let change = Message { message_type: RTM_NEWLINK, flags: 0, payload: message(&change) };
        self.send(&format!("attach {port} to {bridge}"), &[change])
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn up(&mut self, name: &str) -> Result<(), Error> {
        let change = bring_up(self.index(name)?);
        self.send(&format!("bring up {name}"), &[change])
    }

    /// Brings up those of the interfaces `names` that exist.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn up_existing(&mut self, names: &[String]) -> Result<(), Error> {
        let links = self.links()?;
        let indexes = names.iter().filter_map(|name| links.index(name));
        self.send("bring up interfaces", &indexes.map(bring_up).collect::<Vec<_>>())
    }

    /// Assigns an address, with the length of its on-link prefix, to an interface. Waits until the address
    /// is usable: the kernel adds the local route of an IPv6 address in a work queue, even without duplicate address
    /// detection (`addrconf_dad_start`, net/ipv6/addrconf.c).
    ///
    /// # Errors
    /// Returns the kernel's error, or that the address does not become usable.
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
        self.send(&format!("assign {address} to {name}"), &[change])?;
        let deadline = Instant::now() + ADDRESS_TIMEOUT;
        while !self.lookup(address.addr())?.is_local {
            if Instant::now() > deadline {
                let limit = ADDRESS_TIMEOUT.as_secs();
                return Err(Error::unexpected(format!("{address} on {name} is not usable after {limit} s")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Adds a foreign route.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn route(&mut self, destination: IpNet, gateway: IpAddr) -> Result<(), Error> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .and_then(|builder| builder.gateway(gateway))
            .map_err(|error| Error::unexpected(format!("cannot add a route to {destination}: {error}")))?
            .build();
        self.send(&format!("add a route to {destination} via {gateway}"), &[new_route(&route)])
    }

    /// Adds a foreign route to destinations that are on the link of the interface `name`.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn route_on_link(&mut self, destination: IpNet, name: &str) -> Result<(), Error> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .map_err(|error| Error::unexpected(format!("cannot add a route to {destination}: {error}")))?
            .output_interface(self.index(name)?)
            .build();
        self.send(&format!("add a route to {destination} on {name}"), &[new_route(&route)])
    }

    /// Adds a policy rule, by which packets to a prefix use a table.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn rule(&mut self, to: IpNet, table: u32, priority: u32) -> Result<(), Error> {
        let what = format!("add a policy rule for packets to {to}");
        let addition = policy_rule::addition(to, table, priority)
            .map_err(|Malformed| Error::unexpected(format!("cannot {what}")))?;
        self.send(&what, &[addition])
    }

    /// Removes a route.
    ///
    /// # Errors
    /// Returns the kernel's error, or that the route names an unknown interface.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), Error> {
        let links = self.links()?;
        let (before, after) = (vec![route.clone()].into(), RouteList::default());
        let change = crate::plan::RouteChange { key: route.key(), before, after };
        let mut requests = Requests::default();
        route::put_requests(&mut requests, &change, &links)
            .map_err(|why| Error::unexpected(format!("cannot remove {route}: {why}")))?;
        self.socket.transact(&mut requests, 0).map_err(|refused| cannot(&format!("remove {route}"), refused))
    }

    fn links(&mut self) -> Result<Links, Error> {
        Links::read(&mut self.socket)
            .map_err(|error| Error::unexpected(format!("cannot read the interfaces: {error}")))
    }

    fn index(&mut self, name: &str) -> Result<u32, Error> {
        let links = self.links()?;
        links.index(name).ok_or_else(|| Error::unexpected(format!("interface {name} does not exist")))
    }

    /// Looks up the route of a packet to `destination`.
    ///
    /// # Errors
    /// Returns the kernel's error; a missing route is not an error.
    pub fn lookup(&mut self, destination: IpAddr) -> Result<Lookup, Error> {
        lookup::lookup(&mut self.socket, destination)
    }

    /// Removes every dynamic neighbor entry. All namespaces of the machine share one table, limited to 1,024
    /// entries by default (`gc_thresh3`).
    ///
    /// # Errors
    /// Returns the kernel's error if the entries cannot be read.
    pub fn forget_neighbors(&mut self) -> Result<(), Error> {
        let neighbors = self.neighbors()?;
        let messages: Vec<Message> =
            neighbors.iter().filter(|found| found.is_passing()).map(Neighbor::removal).collect();
        // An entry that expired in the meantime is an error that does not matter.
        let _ = self.socket.transact_all(&messages);
        Ok(())
    }

    /// Returns whether `address` answered the last neighbor resolution, or `None` if it has no neighbor entry.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn neighbor_answers(&mut self, address: IpAddr) -> Result<Option<bool>, Error> {
        let neighbors = self.neighbors()?;
        let found = neighbors.iter().find(|neighbor| neighbor.address() == Some(address));
        Ok(found
            .map(|neighbor| !matches!(neighbor.state(), NeighbourState::Failed | NeighbourState::Incomplete)))
    }

    fn neighbors(&mut self) -> Result<Vec<Neighbor>, Error> {
        neighbor::all(&mut self.socket)
            .map_err(|error| Error::unexpected(format!("cannot read the neighbors: {error}")))
    }
}

fn cannot(what: &str, refused: Refused) -> Error {
    let error = refused.rejections.into_iter().next().map(|(_, error)| error).or(refused.failure);
    let why = error.map_or_else(String::new, |error| error.to_string());
    Error::unexpected(format!("cannot {what}: {why}"))
}

fn new_link(link: &LinkMessage) -> Message {
    Message { message_type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, payload: message(link) }
}

fn bring_up(index: u32) -> Message {
    let change = LinkUnspec::new_with_index(index).up().build();
    Message { message_type: RTM_NEWLINK, flags: 0, payload: message(&change) }
}

fn new_route(route: &RouteMessage) -> Message {
    Message { message_type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_EXCL, payload: message(route) }
}

/// Embeds the attributes of the peer in the request for a veth pair.
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

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{in_namespace, sh},
        *,
    };

    /// The kernel adds the local route of an IPv6 address in a work queue.
    #[test]
    fn an_assigned_address_is_usable() {
        in_namespace(|| {
            sh("ip link add near type bridge && ip link set near up");
            let mut interfaces = Interfaces::open().unwrap();
            for number in 1..=200 {
                let address: IpNet = format!("fd00::{number:x}/64").parse().unwrap();
                interfaces.address("near", address).unwrap();
                assert!(interfaces.lookup(address.addr()).unwrap().is_local, "{address}");
            }
        });
    }
}

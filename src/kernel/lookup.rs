//! Where the kernel sends a packet next.

use std::net::IpAddr;

use rtnetlink::{
    RouteMessageBuilder,
    packet_core::Parseable,
    packet_route::route::{RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use rustix::io::Errno;

use super::{
    link::message,
    netlink::{KernelError, Socket},
    route::{RTM_GETROUTE, ip},
};
use crate::{error::Error, model::Family};

/// Where a packet goes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Whether there is a route at all.
    pub found: bool,
    /// Whether the destination is an address of this node.
    pub is_own: bool,
    /// The next hop; none when the destination is on-link.
    pub gateway: Option<IpAddr>,
    /// The number of the interface by which it leaves.
    pub interface: Option<u32>,
}

/// Asks the kernel where a packet to `destination` goes from here.
///
/// # Errors
/// The kernel's, other than that there is no route.
pub(super) fn lookup(socket: &mut Socket, destination: IpAddr) -> Result<Lookup, Error> {
    let mut request = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination, Family::from(destination).bits())
        .map_err(|error| Error::unexpected(error.to_string()))?
        .table_id(0)
        .build();
    request.header.protocol = 0.into();
    request.header.kind = 0.into();
    request.header.scope = 0.into();
    let answer = match socket.get(RTM_GETROUTE, &message(&request)) {
        Ok(answer) => answer,
        Err(error) if is_no_route(&error) => return Ok(Lookup::default()),
        Err(error) => {
            return Err(Error::unexpected(format!("cannot look up a route to {destination}: {error}")));
        }
    };
    let parsed = answer.iter().find_map(|(_, payload)| RouteMessage::parse(payload).ok());
    Ok(parsed.map(|route| read(&route)).unwrap_or_default())
}

fn read(route: &RouteMessage) -> Lookup {
    // IPv6 answers with the route that discards the packet, IPv4 with an error.
    let discards = [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit, RouteType::Throw];
    if discards.contains(&route.header.kind) {
        return Lookup::default();
    }
    let is_own = route.header.kind == RouteType::Local;
    let mut lookup = Lookup { found: true, is_own, ..Lookup::default() };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(gateway) => lookup.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => lookup.gateway = Some((*gateway).into()),
            RouteAttribute::Oif(index) => lookup.interface = Some(*index),
            _ => {}
        }
    }
    lookup
}

fn is_no_route(error: &KernelError) -> bool {
    matches!(error.errno, Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)
}

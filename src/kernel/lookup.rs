//! Asks the kernel how it would route a packet.

use std::net::IpAddr;

use rtnetlink::RouteMessageBuilder;
use rustix::io::Errno;

use super::{
    link::message,
    netlink::{KernelError, Socket},
    route::{RTM_GETROUTE, RouteAnswer},
};
use crate::{error::Error, forwarding::drops, model::Family, state::RouteType};

/// The kernel's answer to a route lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Whether a route was found that does not drop the packet.
    pub has_route: bool,
    /// Whether the destination is an address of this node.
    pub is_local: bool,
    /// The next hop, or `None` if the destination is on-link.
    pub gateway: Option<IpAddr>,
    /// The number of the outgoing interface.
    pub interface: Option<u32>,
}

/// Looks up the route of a packet from this namespace to `destination`.
///
/// # Errors
/// Returns the kernel's error; a missing route is not an error.
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
    let answer = answer.iter().find_map(|(_, payload)| RouteAnswer::read(payload));
    Ok(answer.map(read).unwrap_or_default())
}

fn read(RouteAnswer { kind, gateway, interface, .. }: RouteAnswer) -> Lookup {
    // For a route that drops packets, IPv6 returns the route itself and IPv4 an error.
    if drops(kind).is_some() || kind == RouteType::Throw {
        return Lookup::default();
    }
    Lookup { has_route: true, is_local: kind == RouteType::LOCAL, gateway, interface }
}

fn is_no_route(error: &KernelError) -> bool {
    matches!(error.errno, Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)
}

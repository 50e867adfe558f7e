//! Notifications of the kernel about changes to this network namespace: links, addresses, routes, policy rules, next hops,
//! nftables, and some sysctls.
//!
//! The kernel sends no notification about the routes that it removes together with a link or an address. Notifications
//! therefore only say when to look at the node again, not what its state is.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use ipnet::IpNet;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use super::{
    nat::abi::{GENERIC_HEADER, message::NEWGEN},
    netlink::{Attributes, Notification, Socket, text},
};
use crate::{
    error::Error,
    state::{NatTable, protocol},
    text::{OsError, Untrusted},
};

/// Multicast groups of `NETLINK_ROUTE`: enum rtnetlink_groups, linux/rtnetlink.h.
mod group {
    pub(super) const LINK: u32 = 1;
    pub(super) const IPV4_ADDRESS: u32 = 5;
    pub(super) const IPV4_ROUTE: u32 = 7;
    pub(super) const IPV4_RULE: u32 = 8;
    pub(super) const IPV6_ADDRESS: u32 = 9;
    pub(super) const IPV6_ROUTE: u32 = 11;
    pub(super) const IPV6_RULE: u32 = 19;
    pub(super) const IPV4_NETCONF: u32 = 24;
    pub(super) const IPV6_NETCONF: u32 = 25;
    pub(super) const NEXTHOP: u32 = 32;
    /// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
    pub(super) const NFTABLES: u32 = 7;
}

const ROUTE_GROUPS: [u32; 10] = [
    group::LINK,
    group::IPV4_ADDRESS,
    group::IPV4_ROUTE,
    group::IPV4_RULE,
    group::IPV6_ADDRESS,
    group::IPV6_ROUTE,
    group::IPV6_RULE,
    group::IPV4_NETCONF,
    group::IPV6_NETCONF,
    group::NEXTHOP,
];

/// Message types: linux/rtnetlink.h.
mod message {
    pub(super) const NEWLINK: u16 = 16;
    pub(super) const DELLINK: u16 = 17;
    pub(super) const NEWADDR: u16 = 20;
    pub(super) const DELADDR: u16 = 21;
    pub(super) const NEWROUTE: u16 = 24;
    pub(super) const DELROUTE: u16 = 25;
}

/// `sizeof(struct rtmsg)` (linux/rtnetlink.h).
const ROUTE_HEADER: usize = 12;
/// `sizeof(struct ifinfomsg)` (linux/rtnetlink.h).
const LINK_HEADER: usize = 16;
/// `IFLA_IFNAME` (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
/// `RTA_DST` (linux/rtnetlink.h).
const RTA_DST: u16 = 1;
/// The name of the table in every message about a part of one: `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and so on.
const NFTA_TABLE: u16 = 1;
/// `NFTA_GEN_PROC_NAME` (linux/netfilter/nf_tables.h).
const NFTA_GEN_PROC_NAME: u16 = 3;

/// Unread notifications beyond this are dropped, which the kernel reports.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The part of the network that matters to the agent. Other notifications of a busy node are ignored.
#[derive(Debug, Clone, Default)]
pub struct EventScope {
    /// Routes that overlap with these prefixes matter.
    pub prefixes: Vec<IpNet>,
    /// Routes that lead to these addresses matter; sorted.
    pub addresses: Vec<IpAddr>,
    /// The egress interface, whose changes can make the kernel remove routes; `None` if it is not known.
    pub interface: Option<Untrusted>,
}

impl EventScope {
    /// Returns `true` if a foreign route to `destination` can matter.
    fn covers(&self, destination: IpNet) -> bool {
        let overlaps = |prefix: &IpNet| prefix.contains(&destination) || destination.contains(prefix);
        let leads_to_one = || {
            let from = self.addresses.partition_point(|address| *address < destination.network());
            self.addresses.get(from).is_some_and(|address| destination.contains(address))
        };
        self.prefixes.iter().any(overlaps) || leads_to_one()
    }
}

/// Summary of the notifications since the last call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSummary {
    /// Something changed that matters to the agent.
    pub is_relevant: bool,
    /// The egress interface or an address was added, changed or removed: the kernel itself may have removed routes.
    pub may_have_lost_routes: bool,
    /// The kernel dropped notifications.
    pub has_lost_notifications: bool,
    /// The programs other than hostgw that changed managed routes or hostgw's nftables tables, if the kernel knows.
    pub programs: Vec<Untrusted>,
}

/// The notifications of this network namespace.
#[derive(Debug)]
pub struct NodeEvents {
    route: Socket,
    /// `None` if the kernel has no nftables, or does not allow this user to listen.
    nftables: Option<Socket>,
}

impl NodeEvents {
    /// Subscribes to the notifications of this thread's network namespace.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses.
    pub fn listen() -> Result<Self, Error> {
        let cannot = |error: io::Error| {
            Error::unexpected(format!("cannot subscribe to kernel notifications: {}", OsError(&error)))
        };
        let mut route = Socket::open(NETLINK_ROUTE).map_err(cannot)?;
        route.limit_receive_buffer(RECEIVE_BUFFER);
        for group in ROUTE_GROUPS {
            match route.subscribe(group) {
                // Next hops exist since Linux 5.3.
                Err(_) if group == group::NEXTHOP => {}
                subscribed => subscribed.map_err(cannot)?,
            }
        }
        let nftables = Socket::open(NETLINK_NETFILTER).and_then(|mut socket| {
            socket.limit_receive_buffer(RECEIVE_BUFFER);
            socket.subscribe(group::NFTABLES).map(|()| socket)
        });
        Ok(Self { route, nftables: nftables.ok() })
    }

    /// The descriptors that become readable when a notification arrives.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.route.as_fd()).chain(self.nftables.as_ref().map(AsFd::as_fd))
    }

    /// Reads the notifications that have arrived since the last call.
    pub fn take(&mut self, scope: &EventScope) -> EventSummary {
        let mut seen = EventSummary::default();
        let mut programs: Vec<Untrusted> = Vec::new();
        let mut add = |program: Option<Untrusted>| {
            if let Some(program) =
                program.filter(|program| *program != "hostgw" && !programs.contains(program))
            {
                programs.push(program);
            }
        };
        seen.has_lost_notifications = self.route.drain(|Notification { kind, port, payload }| match kind {
            message::NEWROUTE | message::DELROUTE => match ChangedRoute::read(payload) {
                Some(route) if route.protocol == protocol::HOSTGW => {
                    seen.is_relevant = true;
                    add(program_at(port));
                }
                Some(route) => seen.is_relevant |= scope.covers(route.destination),
                None => seen.is_relevant = true,
            },
            message::NEWLINK | message::DELLINK => {
                seen.is_relevant = true;
                // Links of pods are added and removed all the time.
                seen.may_have_lost_routes |=
                    scope.interface.as_ref().is_none_or(|egress| is_link(payload, egress));
            }
            message::NEWADDR | message::DELADDR => {
                (seen.is_relevant, seen.may_have_lost_routes) = (true, true)
            }
            _ => seen.is_relevant = true,
        });
        if let Some(nftables) = &mut self.nftables {
            let mut is_own = false;
            seen.has_lost_notifications |= nftables.drain(|Notification { kind, payload, .. }| {
                let attribute = |wanted: u16| {
                    let attributes = payload.get(GENERIC_HEADER..).unwrap_or_default();
                    Attributes::find(attributes, wanted)
                };
                if kind == NEWGEN {
                    // Ends the notifications of one transaction.
                    if std::mem::take(&mut is_own) {
                        add(attribute(NFTA_GEN_PROC_NAME).map(|name| text(name).into()));
                    }
                } else if attribute(NFTA_TABLE).is_some_and(|name| text(name) == NatTable::NAME) {
                    (seen.is_relevant, is_own) = (true, true);
                }
            });
        }
        seen.is_relevant |= seen.has_lost_notifications;
        seen.programs = programs;
        seen
    }
}

/// Returns `true` if a notification about a link is about the one called `name`.
fn is_link(payload: &[u8], name: &Untrusted) -> bool {
    let attributes = Attributes::new(payload.get(LINK_HEADER..).unwrap_or_default());
    attributes.flatten().any(|(kind, value)| kind == IFLA_IFNAME && *name == *text(value))
}

/// The part of a notification about a route that decides whether it matters.
struct ChangedRoute {
    protocol: u8,
    destination: IpNet,
}

impl ChangedRoute {
    fn read(payload: &[u8]) -> Option<Self> {
        let (&[family, length, _, _, _, protocol, ..], attributes) =
            payload.split_first_chunk::<ROUTE_HEADER>()?;
        let mut address = match family {
            2 => IpAddr::from([0; 4]),
            10 => IpAddr::from([0; 16]),
            _ => return None,
        };
        for attribute in Attributes::new(attributes) {
            if let (RTA_DST, value) = attribute.ok()? {
                address = match address {
                    IpAddr::V4(_) => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
                    IpAddr::V6(_) => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
                };
            }
        }
        Some(Self { protocol, destination: IpNet::new(address, length).ok()? })
    }
}

/// Returns the name of the program whose socket has this port ID, which is usually the ID of its process. Returns `None` if
/// the program has exited.
fn program_at(port: u32) -> Option<Untrusted> {
    let name = fs::read_to_string(format!("/proc/{port}/comm")).ok().filter(|_| port != 0)?;
    Some(name.trim_end().into())
}

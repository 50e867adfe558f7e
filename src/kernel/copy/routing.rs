//! Policy rules, nexthop objects, and the routes of every table.
//!
//! The kernel of the copy creates some of them on its own, with the interfaces and addresses. What it did not create is
//! added, and what the node does not have is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::send;
use crate::{
    error::Error,
    kernel::{
        netlink::{Attributes, KernelError, Socket, attribute_at, put_attribute, retain},
        omission::Omission,
        policy_rule::{RTM_GETRULE, RTM_NEWRULE},
        route::address,
    },
};

// linux/rtnetlink.h
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
// linux/netlink.h
const CREATE: u16 = 0x400;
const CREATE_NEW: u16 = 0x200 | 0x400;
const APPEND: u16 = 0x400 | 0x800;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `sizeof(struct rtmsg)`, which is also that of `struct fib_rule_hdr`, and `sizeof(struct nhmsg)`.
const ROUTE_HEADER: usize = 12;
const NEXTHOP_HEADER: usize = 8;
/// An entry of the route cache (`RTM_F_CLONED`).
const CLONED: u32 = 0x200;
/// `RTNH_F_ONLINK`, the only flag of a route that can be set.
const ONLINK: u32 = 0x4;
/// `FIB_RULE_INVERT | FIB_RULE_FIND_SADDR` (linux/fib_rules.h), the flags of a rule that can be set.
const RULE_FLAGS: u32 = 0x2 | 0x10000;
/// `RTPROT_KERNEL`.
const BY_KERNEL: u8 = 2;
/// `sizeof(struct rtnexthop)`.
const NEXTHOP_IN_ROUTE: usize = 8;

/// `RTA_*`, `FRA_*`, `NHA_*` (linux/rtnetlink.h, linux/fib_rules.h, linux/nexthop.h).
mod attribute {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const CACHEINFO: u16 = 12;
    pub(super) const VIA: u16 = 18;
    pub(super) const ENCAP_TYPE: u16 = 21;
    pub(super) const ENCAP: u16 = 22;
    pub(super) const EXPIRES: u16 = 23;
    pub(super) const NH_ID: u16 = 30;
    pub(super) const RULE_PRIORITY: u16 = 6;
    pub(super) const RULE_PAD: u16 = 18;
    /// `NHA_ID`, `_GROUP`, `_GROUP_TYPE`, `_BLACKHOLE`, `_OIF`, `_GATEWAY`, `_ENCAP_TYPE`, `_ENCAP`, `_FDB`.
    pub(super) const NEXTHOP: [u16; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 11];
    pub(super) const NEXTHOP_GROUP: u16 = 2;
}

/// The routing of a node: requests that create each object again.
#[derive(Debug, Default)]
pub(super) struct Routing {
    rules: Vec<Vec<u8>>,
    nexthops: Vec<Vec<u8>>,
    routes: Vec<Vec<u8>>,
}

impl Routing {
    pub(super) fn read(socket: &mut Socket) -> Result<Self, KernelError> {
        let mut found = Self::default();
        for family in [AF_INET, AF_INET6] {
            let mut header = [0; ROUTE_HEADER];
            header[0] = family;
            let of_family = |payload: &&[u8]| payload.first() == Some(&family);
            for (message, canonical, list) in [
                (RTM_GETRULE, rule as fn(&[u8]) -> Option<Vec<u8>>, &mut found.rules),
                (RTM_GETROUTE, route as fn(&[u8]) -> Option<Vec<u8>>, &mut found.routes),
            ] {
                match socket.dump(message, 0, &header) {
                    Ok(dump) => {
                        let payloads = dump.iter().map(|(_, payload)| payload);
                        list.extend(payloads.filter(of_family).filter_map(canonical));
                    }
                    // The kernel does not support the family.
                    Err(error)
                        if matches!(error.errno, Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match socket.dump(RTM_GETNEXTHOP, 0, &[0; NEXTHOP_HEADER]) {
            Ok(dump) => found.nexthops = dump.iter().filter_map(|(_, payload)| nexthop(payload)).collect(),
            // Linux before 5.3 has no nexthop objects.
            Err(error) if error.errno == Errno::OPNOTSUPP => {}
            Err(error) => return Err(error),
        }
        // A group can only be created after its members.
        found.nexthops.sort_by_key(|payload| {
            Attributes::new(payload.get(NEXTHOP_HEADER..).unwrap_or_default())
                .flatten()
                .any(|(kind, _)| kind == attribute::NEXTHOP_GROUP)
        });
        Ok(found)
    }

    pub(super) const fn rule_count(&self) -> usize {
        self.rules.len()
    }

    pub(super) const fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// Makes the routing of the namespace of the socket the same.
    pub(super) fn write(&self, socket: &mut Socket, omissions: &mut Vec<Omission>) -> Result<(), Error> {
        let unreadable = |error: KernelError| Error::unexpected(format!("cannot read the copy: {error}"));
        for nexthop in &self.nexthops {
            if let Err(error) = send(socket, RTM_NEWNEXTHOP, CREATE_NEW, nexthop.clone()) {
                omissions.push(Omission::decisive("a nexthop object", format!("not copied: {error}")));
            }
        }
        let now = self.settled(socket).map_err(unreadable)?;
        for extra in difference(&now.routes, &self.routes) {
            let _ = send(socket, RTM_DELROUTE, 0, extra);
        }
        // To accept a gateway, the kernel looks it up by the policy rules: without them, it finds more, and with them,
        // what is only in other tables.
        let missing = add_routes(socket, difference(&self.routes, &now.routes));
        for extra in difference(&now.rules, &self.rules) {
            let _ = send(socket, RTM_DELRULE, 0, extra);
        }
        for missing in difference(&self.rules, &now.rules) {
            if let Err(error) = send(socket, RTM_NEWRULE, CREATE, missing.clone()) {
                let object = format!("policy rule {}", priority(&missing));
                omissions.push(Omission::decisive(object, format!("not copied: {error}")));
            }
        }
        let missing = add_routes(socket, missing.into_iter().map(|(route, _)| route).collect());
        for (route, error) in missing {
            let object = format!("route {}", destination(&route));
            omissions.push(Omission::decisive(object, format!("not copied: {error}")));
        }
        Ok(())
    }

    /// Reads the routing of the copy once its kernel has created what it creates by itself, some of it in a work queue.
    fn settled(&self, socket: &mut Socket) -> Result<Self, KernelError> {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let now = Self::read(socket)?;
            let is_by_kernel = |route: &Vec<u8>| route.get(5) == Some(&BY_KERNEL);
            if !difference(&self.routes, &now.routes).iter().any(is_by_kernel) || Instant::now() > deadline {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Adds routes, and repeats that as long as it helps: the kernel only accepts a gateway that it has a route to. Returns
/// those that it rejects.
fn add_routes(socket: &mut Socket, mut routes: Vec<Vec<u8>>) -> Vec<(Vec<u8>, KernelError)> {
    loop {
        let before = routes.len();
        let mut rejected = Vec::new();
        for route in routes {
            if let Err(error) = send(socket, RTM_NEWROUTE, APPEND, route.clone()) {
                rejected.push((route, error));
            }
        }
        if rejected.is_empty() || rejected.len() == before {
            return rejected;
        }
        routes = rejected.into_iter().map(|(route, _)| route).collect();
    }
}

/// Returns what is in `some` but not in `others`, in its order; equal entries as often as there are more of them.
fn difference(some: &[Vec<u8>], others: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for other in others {
        *counts.entry(other).or_default() += 1;
    }
    let is_in_excess = |one: &&Vec<u8>| match counts.get_mut(one.as_slice()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    some.iter().filter(is_in_excess).cloned().collect()
}

/// Returns the request for a policy rule that was dumped.
fn rule(dumped: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = dumped.split_at_checked(ROUTE_HEADER)?;
    let flags = u32::from_ne_bytes(*header.get(8..)?.first_chunk()?) & RULE_FLAGS;
    let mut rule = [&header[..8], &flags.to_ne_bytes()].concat();
    rule.extend(retain(rest, |kind| kind != attribute::RULE_PAD));
    // The kernel leaves out priority 0, and chooses one for a request without it.
    if !Attributes::new(rest).flatten().any(|(kind, _)| kind == attribute::RULE_PRIORITY) {
        put_attribute(&mut rule, attribute::RULE_PRIORITY, &0_u32.to_ne_bytes()).ok()?;
    }
    Some(rule)
}

/// Returns the request for a route that was dumped; `None` for an entry of the route cache.
fn route(dumped: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = dumped.split_at_checked(ROUTE_HEADER)?;
    let flags = u32::from_ne_bytes(*header.get(8..)?.first_chunk()?);
    if flags & CLONED != 0 {
        return None;
    }
    let kinds: BTreeSet<u16> = Attributes::new(rest).flatten().map(|(kind, _)| kind).collect();
    let by_object = kinds.contains(&attribute::NH_ID);
    let is_setting = |kind: u16| match kind {
        attribute::CACHEINFO | attribute::EXPIRES => false,
        // The kernel dumps the next hops of an object next to its number, but only accepts one of them.
        attribute::OIF
        | attribute::GATEWAY
        | attribute::MULTIPATH
        | attribute::VIA
        | attribute::ENCAP
        | attribute::ENCAP_TYPE => !by_object,
        _ => true,
    };
    let mut route = [&header[..8], &(flags & ONLINK).to_ne_bytes()].concat();
    let start = route.len();
    route.extend(retain(rest, is_setting));
    clear_hop_flags(&mut route, start);
    Some(route)
}

/// Clears the states of the next hops of a route, which are flags next to the settings.
fn clear_hop_flags(route: &mut [u8], start: usize) {
    let mut at = start;
    while let Some(Ok(attribute)) = attribute_at(route, at) {
        if attribute.kind == attribute::MULTIPATH {
            let mut hop = attribute.payload.start;
            while let Some(length) = route.get(hop..).and_then(<[u8]>::first_chunk) {
                let length = usize::from(u16::from_ne_bytes(*length));
                if length < NEXTHOP_IN_ROUTE || hop >= attribute.payload.end {
                    break;
                }
                if let Some(flags) = route.get_mut(hop + 2) {
                    *flags &= ONLINK.to_le_bytes()[0];
                }
                hop += length.next_multiple_of(4);
            }
        }
        at = attribute.next;
    }
}

/// Returns the request for a nexthop object that was dumped.
fn nexthop(dumped: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = dumped.split_first_chunk::<NEXTHOP_HEADER>()?;
    let [family, _, protocol, _, flags @ ..] = *header;
    // The scope is the kernel's result, and not accepted.
    let flags = u32::from_ne_bytes(flags) & ONLINK;
    let mut nexthop = [&[family, 0, protocol, 0][..], &flags.to_ne_bytes()].concat();
    nexthop.extend(retain(rest, |kind| attribute::NEXTHOP.contains(&kind)));
    Some(nexthop)
}

fn priority(rule: &[u8]) -> u32 {
    let found = Attributes::find(rule.get(ROUTE_HEADER..).unwrap_or_default(), attribute::RULE_PRIORITY);
    found.and_then(|value| Some(u32::from_ne_bytes(value.try_into().ok()?))).unwrap_or(0)
}

fn destination(route: &[u8]) -> String {
    let found = Attributes::find(route.get(ROUTE_HEADER..).unwrap_or_default(), attribute::DST);
    let length = route.get(1).copied().unwrap_or(0);
    found.and_then(address).map_or_else(|| "default".to_owned(), |address| format!("{address}/{length}"))
}

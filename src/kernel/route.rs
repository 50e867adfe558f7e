//! Reads routes, and encodes route changes as netlink requests.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use rtnetlink::{
    packet_core::Parseable,
    packet_route::{
        AddressFamily,
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
            RoutePreference, RouteVia,
        },
    },
};
use rustix::io::Errno;

use super::{
    link::{Links, message},
    netlink::{Attributes, KernelError, Requests, Socket, put_attribute},
};
use crate::{
    hex::{hex, unhex},
    model::Family,
    plan::{RouteChange, Scope, Step},
    state::{NextHop, OpaqueRoute, Route, RouteScope, RouteType, protocol},
    text::count,
};

// linux/rtnetlink.h
pub(super) const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
// linux/netlink.h
const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// The routes that were read.
#[derive(Debug, Default)]
pub struct ObservedRoutes {
    /// Managed routes, and every route at a key in scope; sorted by key.
    pub routes: Vec<Route>,
    /// The other foreign routes that a plan depends on.
    pub foreign: Vec<Route>,
    /// The remaining foreign routes, of any table, that can carry the packets of pods; sorted by key.
    pub others: Vec<Route>,
}

/// Reads the routes in `scope`: managed ones from every table, and all relevant ones from the tables of its keys and
/// from the main table, where the kernel looks gateways up.
///
/// # Errors
/// Returns the kernel's error.
pub fn observe(socket: &mut Socket, links: &Links, scope: &Scope) -> Result<ObservedRoutes, KernelError> {
    let mut found = ObservedRoutes::default();
    for family in Family::ALL {
        let new = || Selection {
            scope,
            tables: scope.tables(family),
            of_key: Vec::new(),
            found: ObservedRoutes::default(),
        };
        let mut selection = dump(socket, family, links, new, Selection::take)?;
        selection.end_key();
        let ObservedRoutes { routes, foreign, others } = selection.found;
        extend(&mut found.routes, routes);
        extend(&mut found.foreign, foreign);
        extend(&mut found.others, others);
    }
    found.others.sort_by_key(Route::key);
    // The sort is stable, so routes with the same key stay in the kernel's order.
    found.routes.sort_by_key(Route::key);
    Ok(found)
}

/// Appends routes. The first ones stay where they are: there can be one for each node of the cluster.
fn extend(all: &mut Vec<Route>, mut more: Vec<Route>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
}

/// Selects the routes in scope from a dump, key by key: the kernel dumps the routes of a key in a row.
struct Selection<'a> {
    scope: &'a Scope,
    /// The tables that are read completely.
    tables: BTreeSet<u32>,
    /// The routes of the current key.
    of_key: Vec<Route>,
    found: ObservedRoutes,
}

impl Selection<'_> {
    fn take(&mut self, route: Route) {
        if self.of_key.first().is_some_and(|first| first.key() != route.key()) {
            self.end_key();
        }
        self.of_key.push(route);
    }

    fn end_key(&mut self) {
        let Some(first) = self.of_key.first() else { return };
        let is_read = self.tables.contains(&first.table);
        let is_wanted = is_read && self.scope.wants(&first.key());
        if !is_wanted {
            for route in self.of_key.iter().filter(|route| !route.is_owned()) {
                if is_read && self.scope.depends_on(route) {
                    self.found.foreign.push(route.clone());
                } else if self.scope.bears_on(route) {
                    self.found.others.push(route.clone());
                }
            }
        }
        // A managed route outside the scope will be removed. Restoring it requires its position among the routes of its
        // key.
        if is_wanted || self.of_key.iter().any(Route::is_owned) {
            self.found.routes.append(&mut self.of_key);
        }
        self.of_key.clear();
    }
}

/// Lists every route of the namespace as `ip route` prints it, except IPv6 link-local and multicast routes: the kernel
/// adds those itself some time after an interface comes up.
///
/// # Errors
/// Returns the kernel's error.
pub fn all(socket: &mut Socket, links: &Links) -> Result<Vec<String>, KernelError> {
    let is_lasting = |route: &Route| match route.destination.addr() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_multicast(),
    };
    let mut routes = Vec::new();
    for family in Family::ALL {
        routes.append(&mut dump(socket, family, links, Vec::new, |routes: &mut Vec<String>, route| {
            if is_lasting(&route) {
                routes.push(route.to_string());
            }
        })?);
    }
    Ok(routes)
}

/// Reads every route of every table, in the kernel's order.
///
/// # Errors
/// Returns the kernel's error.
pub fn everything(socket: &mut Socket, links: &Links) -> Result<ObservedRoutes, KernelError> {
    let mut found = ObservedRoutes::default();
    for family in Family::ALL {
        let routes = dump(socket, family, links, Vec::new, Vec::push)?;
        let (owned, foreign) = routes.into_iter().partition(Route::is_owned);
        extend(&mut found.routes, owned);
        extend(&mut found.foreign, foreign);
    }
    Ok(found)
}

/// Reads all routes of `family`, and decodes each directly from the socket's buffer. `new` creates the collection that
/// `take` adds a route to; a dump that has to be repeated starts with a new one.
fn dump<T>(
    socket: &mut Socket,
    family: Family,
    links: &Links,
    new: impl Fn() -> T,
    take: impl Fn(&mut T, Route),
) -> Result<T, KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(family);
    let collected = socket.dump_into(RTM_GETROUTE, &message(&request), &new, |collected, payload| {
        // A kernel without IPv6 returns the routes of other families (rtnetlink falls back to PF_UNSPEC).
        if let Some(route) = decode(payload, links).filter(|route| route.family() == family) {
            take(collected, route);
        }
    });
    match collected {
        // The kernel does not support the family.
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {
            Ok(new())
        }
        other => other,
    }
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn family_number(family: Family) -> u8 {
    u8::from(address_family(family))
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// `sizeof(struct rtmsg)` (linux/rtnetlink.h).
const ROUTE_HEADER: usize = 12;
/// The route is an entry of the cache (linux/rtnetlink.h).
const RTM_F_CLONED: u32 = 0x200;
/// The gateway is treated as on-link (linux/rtnetlink.h).
const RTNH_F_ONLINK: u32 = 4;
/// The MTU, inside `RTA_METRICS` (linux/rtnetlink.h).
const RTAX_MTU: u16 = 2;

/// Attributes of a route: enum rtattr_type_t, linux/rtnetlink.h.
mod attribute {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const PREFSRC: u16 = 7;
    pub(super) const METRICS: u16 = 8;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const CACHEINFO: u16 = 12;
    pub(super) const TABLE: u16 = 15;
    pub(super) const VIA: u16 = 18;
    pub(super) const PREF: u16 = 20;
}

/// Decodes a dumped route. Returns `None` for entries of the route cache.
///
/// A node of a large cluster has a route for every other node, so this reads the attributes in place. Only a route that
/// [`Route`] cannot represent is parsed into a [`RouteMessage`].
fn decode(payload: &[u8], links: &Links) -> Option<Route> {
    let (header, rest) = payload.split_first_chunk::<ROUTE_HEADER>()?;
    let &[family, length, source_length, tos, table, protocol, scope, kind, flags @ ..] = header;
    let flags = u32::from_ne_bytes(flags);
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let zero: IpAddr = match AddressFamily::from(family) {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        destination: IpNet::new(zero, 0).ok()?,
        table: table.into(),
        tos: Some(tos).filter(|tos| *tos != 0),
        metric: 0,
        protocol,
        scope: RouteScope::from_number(scope),
        kind: RouteType::from_number(kind),
        next_hop: NextHop { gateway: None, device: None, onlink: flags & RTNH_F_ONLINK != 0 },
        source: None,
        mtu: None,
        opaque: None,
    };
    let mut unsupported = Vec::new();
    for (at, attribute) in Attributes::new(rest).enumerate() {
        let (kind, value) = attribute.ok()?;
        if read_attribute(&mut route, kind, value, length, links).is_none() {
            unsupported.push(at);
        }
    }
    if !unsupported.is_empty() || source_length != 0 {
        route.opaque = Some(Box::new(opaque(payload, source_length != 0, &unsupported, links)?));
    } else if route.is_owned()
        && let Some(gateway) = route.next_hop.gateway
    {
        if route.family() == Family::V4 {
            route.scope = RouteScope::from_spread(scope);
        }
        // Boot files need the flag to write such a route again. Once the route exists, the flag has no effect.
        route.next_hop.onlink &= !route.destination.contains(&gateway);
    }
    Some(route)
}

/// Stores an attribute in `route`. Returns `None` if [`Route`] cannot represent it.
fn read_attribute(route: &mut Route, kind: u16, value: &[u8], length: u8, links: &Links) -> Option<()> {
    match kind {
        attribute::DST => route.destination = IpNet::new(address(value)?, length).ok()?,
        attribute::GATEWAY => route.next_hop.gateway = Some(address(value)?),
        attribute::VIA => {
            let (family, gateway) = value.split_first_chunk()?;
            let is_v6 =
                AddressFamily::from(u8::try_from(u16::from_ne_bytes(*family)).ok()?) == AddressFamily::Inet6;
            route.next_hop.gateway = Some(address(gateway).filter(|gateway| is_v6 && gateway.is_ipv6())?);
        }
        attribute::OIF => route.next_hop.device = Some(links.name(word(value)?)?.clone()),
        attribute::PRIORITY => route.metric = word(value)?,
        attribute::PREFSRC => route.source = Some(address(value)?),
        attribute::TABLE => route.table = word(value)?,
        attribute::METRICS => {
            let mut is_known = true;
            for metric in Attributes::new(value) {
                match metric.ok()? {
                    (RTAX_MTU, mtu) => route.mtu = Some(word(mtu)?),
                    // A lock comes before the MTU that it is about.
                    _ => is_known = false,
                }
            }
            return is_known.then_some(());
        }
        // Counters of the kernel, not settings.
        attribute::CACHEINFO => {}
        attribute::PREF => return (value == [u8::from(RoutePreference::Medium)]).then_some(()),
        _ => return None,
    }
    Some(())
}

/// Decodes an address by its length.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        16 => value.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// Decodes a number of 32 bits.
fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// Returns what [`Route`] cannot represent: the attributes with these indexes, and the whole route as it would be sent.
fn opaque(payload: &[u8], has_source: bool, unsupported: &[usize], links: &Links) -> Option<OpaqueRoute> {
    let parsed = RouteMessage::parse(payload).ok()?;
    let hops = next_hops(&parsed, links);
    let source = parsed.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Source(address) => ip(address),
        _ => None,
    });
    let from = has_source.then(|| {
        let length = parsed.header.source_prefix_length;
        source.map_or_else(|| "from".to_owned(), |source| format!("from {source}/{length}"))
    });
    let others = unsupported.iter().filter_map(|at| parsed.attributes.get(*at));
    let others = others.filter(|attribute| !matches!(attribute, RouteAttribute::Source(_)));
    let names = others.flat_map(attribute_names);
    let mut parts: Vec<String> = from.into_iter().chain(names).collect();
    // The type of an encapsulation is an attribute of its own.
    parts.dedup();
    let parts = parts.into_iter().map(Into::into).collect();
    Some(OpaqueRoute { attributes: parts, hops, raw: hex(&message(&canonical(parsed))) })
}

/// The names that `ip route` gives the parts of an attribute that [`Route`] cannot represent.
fn attribute_names(attribute: &RouteAttribute) -> Vec<String> {
    vec![match attribute {
        RouteAttribute::MultiPath(hops) => count(hops.len(), "next hop"),
        RouteAttribute::NhId(id) => format!("nhid {id}"),
        RouteAttribute::Metrics(metrics) => {
            return metrics.iter().filter_map(metric_name).collect();
        }
        RouteAttribute::Realm(_) => "realm".to_owned(),
        RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => "encap".to_owned(),
        RouteAttribute::Preference(_) => "pref".to_owned(),
        RouteAttribute::Expires(_) | RouteAttribute::MulticastExpires(_) => "expires".to_owned(),
        RouteAttribute::Oif(index) => format!("interface {index}"),
        _ => "more".to_owned(),
    }]
}

/// What `ip route` prints for a metric that [`Route`] cannot represent. `None` for the MTU, which it can.
fn metric_name(metric: &RouteMetric) -> Option<String> {
    Some(match metric {
        RouteMetric::Mtu(_) => return None,
        RouteMetric::Lock(bits) if *bits == 1 << RTAX_MTU => "mtu lock".to_owned(),
        RouteMetric::Lock(_) => "lock".to_owned(),
        RouteMetric::Window(value) => format!("window {value}"),
        RouteMetric::Rtt(_) => "rtt".to_owned(),
        RouteMetric::RttVar(_) => "rttvar".to_owned(),
        RouteMetric::SsThresh(value) => format!("ssthresh {value}"),
        RouteMetric::Cwnd(value) => format!("cwnd {value}"),
        RouteMetric::Advmss(value) => format!("advmss {value}"),
        RouteMetric::Reordering(value) => format!("reordering {value}"),
        RouteMetric::Hoplimit(value) => format!("hoplimit {value}"),
        RouteMetric::InitCwnd(value) => format!("initcwnd {value}"),
        RouteMetric::Features(_) => "features".to_owned(),
        RouteMetric::RtoMin(_) => "rto_min".to_owned(),
        RouteMetric::InitRwnd(value) => format!("initrwnd {value}"),
        RouteMetric::QuickAck(value) => format!("quickack {value}"),
        RouteMetric::CcAlgo(name) => format!("congctl {name}"),
        RouteMetric::FastopenNoCookie(_) => "fastopen_no_cookie".to_owned(),
        _ => "more".to_owned(),
    })
}

/// What the kernel says about the route of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteAnswer {
    /// The type of the route.
    pub kind: RouteType,
    /// The prefix length of its destination.
    pub length: u8,
    /// The address of the next hop; `None` if the destination is on-link.
    pub gateway: Option<IpAddr>,
    /// The number of the outgoing interface.
    pub interface: Option<u32>,
    /// Whether it has several next hops.
    pub has_several_hops: bool,
}

impl RouteAnswer {
    /// Decodes an answer in place, because there can be two for each node of the cluster. Returns `None` if it is
    /// malformed.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (&[_, length, .., kind, _, _, _, _], attributes) = payload.split_first_chunk::<ROUTE_HEADER>()?;
        let kind = RouteType::from_number(kind);
        let mut answer = Self { kind, length, gateway: None, interface: None, has_several_hops: false };
        for attribute in Attributes::new(attributes) {
            match attribute.ok()? {
                (attribute::GATEWAY, value) => answer.gateway = Some(address(value)?),
                (attribute::VIA, value) => answer.gateway = Some(address(value.get(2..)?)?),
                (attribute::OIF, value) => answer.interface = Some(word(value)?),
                (attribute::MULTIPATH, _) => answer.has_several_hops = true,
                _ => {}
            }
        }
        Some(answer)
    }
}

/// The next hops of a route with several.
pub(super) fn next_hops(route: &RouteMessage, links: &Links) -> Vec<NextHop> {
    let several = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let hops = several.into_iter().flatten().map(|hop| NextHop {
        gateway: gateway(&hop.attributes),
        device: links.name(hop.interface_index).cloned(),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    });
    hops.collect()
}

/// The gateway in the attributes of a route.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The reason that a route cannot be encoded.
type Unsendable = String;

/// Appends `route` as the payload of a netlink message.
fn put_route(bytes: &mut Vec<u8>, route: &Route, links: &Links) -> Result<(), Unsendable> {
    if let Some(opaque) = &route.opaque {
        bytes.append(&mut message(&encode_raw(&opaque.raw)?));
        return Ok(());
    }
    let family = family_number(route.family());
    let flags = if route.next_hop.onlink { RTNH_F_ONLINK } else { 0 };
    // A number above 255 needs an attribute, which replaces this field.
    let table = u8::try_from(route.table).unwrap_or(0);
    bytes.extend_from_slice(&[
        family,
        route.destination.prefix_len(),
        0,
        route.tos.unwrap_or(0),
        table,
        route.protocol,
        route.scope.number(),
        route.kind.number(),
    ]);
    bytes.extend_from_slice(&flags.to_ne_bytes());
    put_address(bytes, attribute::DST, route.destination.addr())?;
    if u32::from(table) != route.table {
        put(bytes, attribute::TABLE, &route.table.to_ne_bytes())?;
    }
    match route.next_hop.gateway {
        Some(IpAddr::V6(gateway)) if route.family() == Family::V4 => {
            let family = u16::from(u8::from(AddressFamily::Inet6)).to_ne_bytes();
            put(bytes, attribute::VIA, &[&family[..], &gateway.octets()].concat())?;
        }
        Some(gateway) => put_address(bytes, attribute::GATEWAY, gateway)?,
        None => {}
    }
    if let Some(device) = &route.next_hop.device {
        let index =
            links.index(device.as_raw()).ok_or_else(|| format!("interface {device} does not exist"))?;
        put(bytes, attribute::OIF, &index.to_ne_bytes())?;
    }
    if let Some(source) = route.source {
        put_address(bytes, attribute::PREFSRC, source)?;
    }
    if route.metric != 0 {
        put(bytes, attribute::PRIORITY, &route.metric.to_ne_bytes())?;
    }
    if let Some(mtu) = route.mtu {
        let mut metrics = Vec::with_capacity(8);
        put(&mut metrics, RTAX_MTU, &mtu.to_ne_bytes())?;
        put(bytes, attribute::METRICS, &metrics)?;
    }
    Ok(())
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<(), Unsendable> {
    put_attribute(bytes, kind, value).map_err(|_| "an attribute is too long".to_owned())
}

fn put_address(bytes: &mut Vec<u8>, kind: u16, address: IpAddr) -> Result<(), Unsendable> {
    match address {
        IpAddr::V4(address) => put(bytes, kind, &address.octets()),
        IpAddr::V6(address) => put(bytes, kind, &address.octets()),
    }
}

/// Removes what only the kernel sets: link states, counters, and the next hops of a nexthop object. The kernel dumps the
/// latter next to the object's ID, but accepts the ID alone.
fn canonical(mut route: RouteMessage) -> RouteMessage {
    route.header.flags &= RouteFlags::Onlink;
    let by_object = route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::NhId(_)));
    route.attributes.retain_mut(|attribute| match attribute {
        RouteAttribute::CacheInfo(_) => false,
        RouteAttribute::MultiPath(hops) => {
            hops.iter_mut().for_each(|hop| hop.flags &= RouteNextHopFlags::Onlink);
            !by_object
        }
        RouteAttribute::Gateway(_)
        | RouteAttribute::Via(_)
        | RouteAttribute::Oif(_)
        | RouteAttribute::Encap(_)
        | RouteAttribute::EncapType(_) => !by_object,
        _ => true,
    });
    route
}

/// Decodes the stored bytes of a route that [`Route`] cannot represent.
fn encode_raw(raw: &str) -> Result<RouteMessage, Unsendable> {
    let unreadable = || "its saved form cannot be decoded".to_owned();
    let bytes = unhex(raw).ok_or_else(unreadable)?;
    RouteMessage::parse(&bytes[..]).map_err(|_| unreadable())
}

/// Appends the requests that make a change, in order.
///
/// # Errors
/// Returns an error if a route names an interface that does not exist.
pub fn put_requests(requests: &mut Requests, change: &RouteChange, links: &Links) -> Result<(), Unsendable> {
    let mut send = |message_type, flags, route: &Route| {
        requests.put(message_type, flags, |bytes| put_route(bytes, route, links))
    };
    for step in change.steps() {
        match step {
            Step::Add(route) => send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route)?,
            Step::Append(route) => send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, route)?,
            Step::Prepend(route) => send(RTM_NEWROUTE, NLM_F_CREATE, route)?,
            Step::Delete(route) => send(RTM_DELROUTE, 0, route)?,
            // NLM_F_REPLACE replaces whatever route is at the key now, even one that another program has added since.
            // Appending the new route and then deleting the old one does not.
            Step::Replace { old, new } if change.before.len() == 1 && new.family() == Family::V4 => {
                send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, new)?;
                send(RTM_DELROUTE, 0, old)?;
            }
            Step::Replace { new, .. } => {
                let helper = temporary_gateway_route(new);
                if let Some(helper) = &helper {
                    send(RTM_NEWROUTE, NLM_F_CREATE, helper)?;
                }
                send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, new)?;
                if let Some(helper) = &helper {
                    send(RTM_DELROUTE, 0, helper)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the temporary host route that is needed while an IPv6 route is replaced. IPv6 looks up the new gateway while
/// the old route is still in place. A gateway inside the route's own prefix, such as a pod gateway, then seems to be
/// behind the old gateway, and the kernel rejects it (`EHOSTUNREACH`).
fn temporary_gateway_route(route: &Route) -> Option<Route> {
    let gateway = route.next_hop.gateway.filter(|gateway| gateway.is_ipv6())?;
    if !route.destination.contains(&gateway) || route.opaque.is_some() {
        return None;
    }
    Some(Route {
        destination: gateway.into(),
        // A metric that no other program is likely to use: the second-lowest preference.
        metric: u32::MAX - 1,
        protocol: protocol::HOSTGW,
        next_hop: NextHop { gateway: None, ..route.next_hop.clone() },
        source: None,
        mtu: None,
        ..route.clone()
    })
}

/// Returns the remedy for a route error whose message does not make it obvious.
#[must_use]
pub fn hint(error: &KernelError) -> Option<&'static str> {
    Some(match error.errno {
        Errno::EXIST => "a route with the same key was added concurrently: run `hostgw plan` again",
        Errno::SRCH => "the route was removed concurrently: run `hostgw plan` again",
        Errno::NETUNREACH => "the next hop is not on-link: check it with `ip route get`",
        Errno::NETDOWN => "bring the egress interface up, then run the command again",
        Errno::NODEV => "bring the egress interface back, then run the command again",
        Errno::PERM => "run as root, or with CAP_NET_ADMIN",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::{
        kernel::{
            netlink::Refused,
            testing::{in_namespace, sh},
        },
        state::RouteList,
    };

    const LINK: &str = "ip link set lo up; ip link add eth0 type veth peer name peer; \
                        ip addr add 172.30.0.11/24 dev eth0; ip link set eth0 up; ip link set peer up;";

    /// Routes that hostgw does not manage, and one that it does.
    const FOREIGN: &[&str] = &[
        "10.1.0.0/16 dev eth0 proto static scope link",
        "10.1.2.0/24 via 172.30.0.9 dev eth0 proto 87",
        "10.2.0.0/16 via 172.30.0.9 dev eth0 proto bird src 172.30.0.11 metric 5",
        "10.3.0.0/16 via 9.9.9.9 dev eth0 proto static metric 7 onlink",
        "10.4.0.0/16 via 172.30.0.9 dev eth0 proto dhcp mtu 1400",
        "10.5.5.5 via 172.30.0.9 dev eth0 proto kernel",
        "blackhole 10.6.0.0/16 proto static",
        "unreachable 10.7.0.0/16 proto bgp metric 4278198272",
        "10.8.0.0/16 tos 0x10 via 172.30.0.9 dev eth0 proto static",
        "10.9.0.0/16 via inet6 fe80::1 dev eth0 proto static",
    ];

    /// Routes with attributes that `Route` cannot represent.
    const MORE: &[&str] = &[
        "10.20.0.0/16 proto static nexthop via 172.30.0.8 dev eth0 weight 3 nexthop via 172.30.0.9 dev eth0 weight 1",
        "10.21.0.0/16 via 172.30.0.9 dev eth0 proto static advmss 1200 mtu lock 1300",
        "10.22.0.0/16 via 172.30.0.9 dev eth0 proto static realm 5",
        "10.23.0.0/16 via 172.30.0.9 dev eth0 proto static initcwnd 20 rto_min 50ms",
    ];

    fn send(socket: &mut Socket, change: &RouteChange, links: &Links) -> Result<(), Refused> {
        let mut requests = Requests::default();
        put_requests(&mut requests, change, links).expect("sendable");
        socket.transact(&mut requests, 0)
    }

    fn read(prefix: &str, keys: &[&str]) -> (Socket, Links, ObservedRoutes) {
        let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
        let links = Links::read(&mut socket).expect("links");
        let all = Scope { prefixes: vec![prefix.parse().expect("a prefix")], ..Scope::default() };
        let mut found = observe(&mut socket, &links, &all).expect("routes");
        let mut wanted = all;
        let names: Vec<IpNet> = keys.iter().map(|key| key.parse().expect("a prefix")).collect();
        wanted.keys =
            found.foreign.iter().map(Route::key).filter(|key| names.contains(&key.destination)).collect();
        wanted.keys.sort_unstable();
        found = observe(&mut socket, &links, &wanted).expect("routes");
        (socket, links, found)
    }

    #[test]
    fn routes_print_as_ip_prints_them() {
        in_namespace(|| {
            sh(LINK);
            for route in FOREIGN {
                sh(&format!("ip route add {route}"));
            }
            sh("ip -6 route add fd00:1::/64 via fe80::9 dev eth0 proto bird metric 20");
            let witness = sh("ip route show; ip -6 route show");
            for prefix in ["10.0.0.0/8", "fd00::/16"] {
                let (_, _, found) = read(prefix, &[]);
                let routes: Vec<_> = found.routes.iter().chain(&found.foreign).collect();
                assert!(!routes.is_empty());
                for route in routes.iter() {
                    let line = route.to_string();
                    let is_listed = witness.lines().any(|other| {
                        let other = other.trim().replace(" pref medium", "");
                        other == line
                    });
                    assert!(is_listed, "{line}\nis not in\n{witness}");
                }
            }
        });
    }

    #[test]
    fn foreign_routes_are_restored_exactly() {
        in_namespace(|| {
            sh(LINK);
            for route in FOREIGN.iter().chain(MORE) {
                sh(&format!("ip route add {route}"));
            }
            sh("ip route append 10.1.0.0/16 via 172.30.0.7 dev eth0 proto static");
            sh("ip -6 route add fd00:1::/64 via fe80::9 dev eth0 proto bird metric 20 pref high");
            let before = sh("ip -d route show; ip -6 -d route show");
            for prefix in ["10.0.0.0/8", "fd00::/16"] {
                let (mut socket, links, found) = read(prefix, &[]);
                let routes: Vec<Route> = found.routes.into_iter().chain(found.foreign).collect();
                let mut by_key: std::collections::BTreeMap<_, Vec<Route>> = std::collections::BTreeMap::new();
                for route in routes.into_iter().filter(|route| route.protocol != 2) {
                    by_key.entry(route.key()).or_default().push(route);
                }
                assert!(!by_key.is_empty());
                for (key, routes) in by_key {
                    let (routes, none) = (RouteList::from(routes), RouteList::default());
                    let remove = RouteChange { key, before: routes.clone(), after: none.clone() };
                    let restore = RouteChange { key, before: none, after: routes };
                    for change in [remove, restore] {
                        let sent = send(&mut socket, &change, &links);
                        sent.unwrap_or_else(|refused| panic!("{key}: {refused:?}"));
                    }
                }
            }
            // The kernel's own routes are unchanged, and it chooses the order of equal prefixes: compare sorted lines.
            let sorted = |text: &str| {
                let mut lines: Vec<_> = text.replace("\n\t", " ").lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&before), sorted(&sh("ip -d route show; ip -6 -d route show")));
        });
    }

    #[test]
    fn the_first_of_several_routes_of_a_key_is_replaced_and_the_rest_removed() {
        in_namespace(|| {
            sh(LINK);
            sh("ip route add 10.1.0.0/16 via 172.30.0.5 dev eth0 proto static; \
                ip route append 10.1.0.0/16 via 172.30.0.6 dev eth0 proto 87; \
                ip route append 10.1.0.0/16 via 172.30.0.7 dev eth0 proto bird");
            let (mut socket, links, found) = read("10.0.0.0/8", &["10.1.0.0/16"]);
            let before: Vec<Route> = found.routes;
            let gateways: Vec<_> =
                before.iter().filter_map(|route| route.next_hop.gateway).map(|g| g.to_string()).collect();
            assert_eq!(gateways, ["172.30.0.5", "172.30.0.6", "172.30.0.7"]);
            let key = before[0].key();
            let mut wanted = before[1].clone();
            wanted.next_hop.gateway = Some("172.30.0.8".parse().expect("an address"));
            let replace =
                RouteChange { key, before: before.clone().into(), after: vec![wanted.clone()].into() };
            send(&mut socket, &replace, &links).expect("replaced");
            assert_eq!(sh("ip route show 10.1.0.0/16"), "10.1.0.0/16 via 172.30.0.8 dev eth0 proto 87 \n");
            let restore = RouteChange { key, before: vec![wanted].into(), after: before.into() };
            send(&mut socket, &restore, &links).expect("restored");
            assert_eq!(
                sh("ip route show 10.1.0.0/16"),
                "10.1.0.0/16 via 172.30.0.5 dev eth0 proto static \n\
                 10.1.0.0/16 via 172.30.0.6 dev eth0 proto 87 \n\
                 10.1.0.0/16 via 172.30.0.7 dev eth0 proto bird \n"
            );
        });
    }

    #[test]
    fn managed_routes_are_found_in_every_table_and_foreign_ones_only_in_scope() {
        in_namespace(|| {
            sh(LINK);
            sh("ip route add 10.1.0.0/16 dev eth0 proto 87 table 100 scope link; \
                ip route add 10.2.0.0/16 dev eth0 proto 87 table 70000 scope link; \
                ip route add 10.3.0.0/16 via 172.30.0.9 dev eth0 proto static; \
                ip route add 192.168.0.0/16 via 172.30.0.9 dev eth0 proto static");
            let (_, _, found) = read("10.0.0.0/8", &[]);
            let own: Vec<_> = found.routes.iter().map(ToString::to_string).collect();
            assert_eq!(
                own,
                [
                    "10.1.0.0/16 dev eth0 table 100 proto 87 scope link",
                    "10.2.0.0/16 dev eth0 table 70000 proto 87 scope link"
                ]
            );
            let foreign: Vec<_> = found.foreign.iter().map(|route| route.destination.to_string()).collect();
            assert_eq!(foreign, ["10.3.0.0/16", "172.30.0.0/24"]);
        });
    }
}

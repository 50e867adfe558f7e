//! Reads routes, and encodes route changes as netlink requests.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
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
    netlink::{KernelError, Message, Socket},
};
use crate::{
    hex::{hex, unhex},
    model::Family,
    plan::{RouteChange, Scope, Step},
    state::{NextHop, OpaqueRoute, Route, RouteKey, RouteScope, RouteType, protocol},
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
}

/// Reads the routes in `scope`: managed ones from every table, and all relevant ones from the tables of its keys and
/// from the main table, where the kernel looks gateways up.
///
/// # Errors
/// Returns the kernel's error.
pub fn observe(socket: &mut Socket, links: &Links, scope: &Scope) -> Result<ObservedRoutes, KernelError> {
    let mut found = ObservedRoutes::default();
    for family in Family::ALL {
        let tables = scope.tables(family);
        dump(
            socket,
            family,
            Which::Owned,
            |route| {
                if !tables.contains(&route.table) {
                    found.routes.push(route);
                }
            },
            links,
        )?;
        for &table in &tables {
            dump(
                socket,
                family,
                Which::Table(table),
                |route| {
                    if route.is_owned() || scope.wants(&route.key()) {
                        found.routes.push(route);
                    } else if scope.depends_on(&route) {
                        found.foreign.push(route);
                    }
                },
                links,
            )?;
        }
    }
    share_keys(socket, links, scope, &mut found.routes)?;
    // The sort is stable, so routes with the same key stay in the kernel's order.
    found.routes.sort_by_cached_key(Route::key);
    Ok(found)
}

/// Adds the foreign routes that share a key with a managed route outside the scope. The managed route will be removed;
/// restoring it requires its position among the routes of its key.
fn share_keys(
    socket: &mut Socket,
    links: &Links,
    scope: &Scope,
    routes: &mut Vec<Route>,
) -> Result<(), KernelError> {
    let keys: HashSet<RouteKey> = routes.iter().map(Route::key).filter(|key| !scope.wants(key)).collect();
    if keys.is_empty() {
        return Ok(());
    }
    routes.retain(|route| scope.wants(&route.key()));
    let tables: BTreeSet<(bool, u32)> =
        keys.iter().map(|key| (key.family() == Family::V6, key.table)).collect();
    for (is_v6, table) in tables {
        let family = if is_v6 { Family::V6 } else { Family::V4 };
        let add = |route: Route| {
            if keys.contains(&route.key()) {
                routes.push(route);
            }
        };
        dump(socket, family, Which::Table(table), add, links)?;
    }
    Ok(())
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
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        let dump = socket.dump(RTM_GETROUTE, 0, &message(&request))?;
        let found = dump.iter().filter_map(|(_, payload)| decode(payload, links)).filter(is_lasting);
        routes.extend(found.map(|route| route.to_string()));
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
        dump(
            socket,
            family,
            Which::All,
            |route| if route.is_owned() { found.routes.push(route) } else { found.foreign.push(route) },
            links,
        )?;
    }
    Ok(found)
}

/// The routes of a family to dump.
#[derive(Debug, Clone, Copy)]
enum Which {
    All,
    /// Managed routes, in all tables.
    Owned,
    /// All routes of one table.
    Table(u32),
}

/// Calls `each` for every route of `family` that matches the filter.
fn dump(
    socket: &mut Socket,
    family: Family,
    which: Which,
    mut each: impl FnMut(Route),
    links: &Links,
) -> Result<(), KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(family);
    match which {
        Which::All => {}
        Which::Owned => request.header.protocol = protocol::HOSTGW.into(),
        Which::Table(table) => set_table(&mut request, table),
    }
    let dump = match socket.dump(RTM_GETROUTE, 0, &message(&request)) {
        Ok(dump) => dump,
        // The table does not exist, or the kernel does not support the family.
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let routes = dump.iter().filter_map(|(_, payload)| decode(payload, links));
    // A kernel without IPv6 returns the routes of other families (rtnetlink falls back to PF_UNSPEC).
    routes.filter(|route| route.family() == family).for_each(&mut each);
    Ok(())
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Sets the table: in the header up to 255, in an attribute (`RTA_TABLE`) above.
fn set_table(message: &mut RouteMessage, table: u32) {
    if let Ok(table) = u8::try_from(table) {
        message.header.table = table;
    } else {
        message.attributes.push(RouteAttribute::Table(table));
    }
}

/// Decodes a dumped route. Returns `None` for entries of the route cache.
fn decode(payload: &[u8], links: &Links) -> Option<Route> {
    let parsed = RouteMessage::parse(payload).ok()?;
    let header = parsed.header.clone();
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let zero: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        destination: IpNet::new(zero, 0).ok()?,
        table: header.table.into(),
        tos: Some(header.tos).filter(|tos| *tos != 0),
        metric: 0,
        protocol: header.protocol.into(),
        scope: RouteScope::from_number(header.scope.into()),
        kind: RouteType::from_number(header.kind.into()),
        next: NextHop { gateway: None, device: None, onlink: header.flags.contains(RouteFlags::Onlink) },
        source: None,
        mtu: None,
        opaque: None,
    };
    let mut unsupported: Vec<String> = Vec::new();
    if header.source_prefix_length != 0 {
        unsupported.push("from".to_owned());
    }
    for attribute in &parsed.attributes {
        if !read_attribute(&mut route, attribute, header.destination_prefix_length, links) {
            unsupported.push(attribute_name(attribute));
        }
    }
    if unsupported.is_empty()
        && route.is_owned()
        && route.family() == Family::V4
        && route.next.gateway.is_some()
    {
        route.scope = RouteScope::from_spread(route.scope.number());
    }
    if !unsupported.is_empty() {
        route.opaque = Some(OpaqueRoute {
            parts: unsupported.into_iter().map(Into::into).collect(),
            raw: hex(&message(&canonical(parsed))),
        });
    }
    Some(route)
}

/// Stores an attribute in `route`. Returns `false` if [`Route`] cannot represent it.
fn read_attribute(route: &mut Route, attribute: &RouteAttribute, length: u8, links: &Links) -> bool {
    match attribute {
        RouteAttribute::Destination(address) => {
            let prefix = ip(address).and_then(|address| IpNet::new(address, length).ok());
            prefix.map(|prefix| route.destination = prefix).is_some()
        }
        RouteAttribute::Gateway(address) => {
            route.next.gateway = ip(address);
            route.next.gateway.is_some()
        }
        RouteAttribute::Via(RouteVia::Inet6(address)) => {
            route.next.gateway = Some((*address).into());
            true
        }
        RouteAttribute::Oif(index) => {
            route.next.device = links.name(*index).map(Into::into);
            route.next.device.is_some()
        }
        RouteAttribute::Priority(metric) => {
            route.metric = *metric;
            true
        }
        RouteAttribute::PrefSource(address) => {
            route.source = ip(address);
            route.source.is_some()
        }
        RouteAttribute::Table(table) => {
            route.table = *table;
            true
        }
        RouteAttribute::Metrics(metrics) => metrics.iter().all(|metric| match metric {
            RouteMetric::Mtu(mtu) => {
                route.mtu = Some(*mtu);
                true
            }
            _ => false,
        }),
        // Counters of the kernel, not settings.
        RouteAttribute::CacheInfo(_) => true,
        RouteAttribute::Preference(preference) => *preference == RoutePreference::Medium,
        _ => false,
    }
}

/// The name that `ip route` gives an attribute that [`Route`] cannot represent.
fn attribute_name(attribute: &RouteAttribute) -> String {
    match attribute {
        RouteAttribute::MultiPath(hops) => format!("{} nexthops", hops.len()),
        RouteAttribute::NhId(id) => format!("nhid {id}"),
        RouteAttribute::Metrics(_) => "metrics".to_owned(),
        RouteAttribute::Realm(_) => "realm".to_owned(),
        RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => "encap".to_owned(),
        RouteAttribute::Preference(_) => "pref".to_owned(),
        RouteAttribute::Source(_) => "a source".to_owned(),
        RouteAttribute::Expires(_) | RouteAttribute::MulticastExpires(_) => "expires".to_owned(),
        RouteAttribute::Oif(index) => format!("interface {index}"),
        _ => "more".to_owned(),
    }
}

pub(super) const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The reason that a route cannot be encoded.
type Unsendable = String;

/// Encodes `route` as a netlink message.
fn encode(route: &Route, links: &Links) -> Result<RouteMessage, Unsendable> {
    if let Some(opaque) = &route.opaque {
        return encode_raw(&opaque.raw);
    }
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.addr(), route.destination.prefix_len())
        .map_err(invalid)?
        .table_id(route.table)
        .protocol(route.protocol.into())
        .scope(route.scope.number().into())
        .kind(route.kind.number().into())
        .tos(route.tos.unwrap_or(0));
    if let Some(gateway) = route.next.gateway {
        builder = builder.gateway(gateway).map_err(invalid)?;
    }
    if let Some(device) = &route.next.device {
        let index = links.index(device.as_raw()).ok_or_else(|| format!("no interface {device}"))?;
        builder = builder.output_interface(index);
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(invalid)?;
    }
    if route.metric != 0 {
        builder = builder.priority(route.metric);
    }
    if route.next.onlink {
        builder = builder.onlink();
    }
    if let Some(mtu) = route.mtu {
        builder.get_mut().attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    Ok(builder.build())
}

fn invalid(error: impl std::fmt::Display) -> Unsendable {
    error.to_string()
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

/// Encodes a change as the requests that make it, in order.
///
/// # Errors
/// Returns an error if a route names an interface that does not exist.
pub fn messages(change: &RouteChange, links: &Links) -> Result<Vec<Message>, Unsendable> {
    let send = |message_type, flags, route: &Route| -> Result<Message, Unsendable> {
        Ok(Message { message_type, flags, payload: message(&encode(route, links)?) })
    };
    let mut messages = Vec::new();
    for step in change.steps() {
        match step {
            Step::Add(route) => messages.push(send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route)?),
            Step::Append(route) => messages.push(send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, route)?),
            Step::Prepend(route) => messages.push(send(RTM_NEWROUTE, NLM_F_CREATE, route)?),
            Step::Delete(route) => messages.push(send(RTM_DELROUTE, 0, route)?),
            // NLM_F_REPLACE replaces whatever route is at the key now, even one that another program has added since.
            // Appending the new route and then deleting the old one does not.
            Step::Replace { old, new } if change.before.len() == 1 && new.family() == Family::V4 => {
                messages.push(send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, new)?);
                messages.push(send(RTM_DELROUTE, 0, old)?);
            }
            Step::Replace { new, .. } => {
                let helper = temporary_gateway_route(new);
                let create = |route| send(RTM_NEWROUTE, NLM_F_CREATE, route);
                messages.extend(helper.as_ref().map(create).transpose()?);
                messages.push(send(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, new)?);
                messages.extend(helper.as_ref().map(|route| send(RTM_DELROUTE, 0, route)).transpose()?);
            }
        }
    }
    Ok(messages)
}

/// Returns the temporary host route that is needed while an IPv6 route is replaced. IPv6 looks up the new gateway while
/// the old route is still in place. A gateway inside the route's own prefix, such as a pod gateway, then seems to be
/// behind the old gateway, and the kernel rejects it (`EHOSTUNREACH`).
fn temporary_gateway_route(route: &Route) -> Option<Route> {
    let gateway = route.next.gateway.filter(|gateway| gateway.is_ipv6())?;
    if !route.destination.contains(&gateway) || route.opaque.is_some() {
        return None;
    }
    Some(Route {
        destination: gateway.into(),
        // A metric that no other program is likely to use: the second-lowest preference.
        metric: u32::MAX - 1,
        protocol: protocol::HOSTGW,
        next: NextHop { gateway: None, ..route.next.clone() },
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
    use crate::kernel::testing::{in_namespace, sh};

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
                    let remove = RouteChange { key, before: routes.clone(), after: Vec::new() };
                    let restore = RouteChange { key, before: Vec::new(), after: routes };
                    for change in [remove, restore] {
                        let messages = messages(&change, &links).expect("sendable");
                        socket.transact(&messages).unwrap_or_else(|refused| panic!("{key}: {refused:?}"));
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
                before.iter().filter_map(|route| route.next.gateway).map(|g| g.to_string()).collect();
            assert_eq!(gateways, ["172.30.0.5", "172.30.0.6", "172.30.0.7"]);
            let key = before[0].key();
            let mut wanted = before[1].clone();
            wanted.next.gateway = Some("172.30.0.8".parse().expect("an address"));
            let replace = RouteChange { key, before: before.clone(), after: vec![wanted.clone()] };
            socket.transact(&messages(&replace, &links).expect("sendable")).expect("replaced");
            assert_eq!(sh("ip route show 10.1.0.0/16"), "10.1.0.0/16 via 172.30.0.8 dev eth0 proto 87 \n");
            let restore = RouteChange { key, before: vec![wanted], after: before };
            socket.transact(&messages(&restore, &links).expect("sendable")).expect("restored");
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

//! Computes the path of a packet from the rules, routes and sysctls of a node, as the kernel does: `ip_route_input_slow` and
//! `fib_validate_source` (net/ipv4), `ip6_route_input_lookup` and `ip6_forward` (net/ipv6), and `fib_rules_lookup`
//! (net/core/fib_rules.c).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};

use super::{CLIENT_PORT, Hop, Packet, Refusal, SAMPLE_PORT, Transport, Verdict};
use crate::{
    model::{Family, SysctlKey, address_number, is_link_local},
    state::{Host, InterfaceAddress, PolicyRule, Route, RouteType, RuleAction, RuleSelector, State},
    text::Untrusted,
};

/// The rules, routes and sysctls of a node, indexed for lookups.
#[derive(Debug)]
pub struct ForwardingModel<'a> {
    sysctls: &'a BTreeMap<SysctlKey, Untrusted>,
    host: &'a Host,
    rules: [Vec<PolicyRule>; 2],
    /// Whether there are IPv4 rules besides the kernel's default ones.
    has_own_rules: bool,
    /// The protocol of the packets.
    transport: Option<Transport>,
    /// The routes, by table and destination, the preferred one first.
    routes: Vec<&'a Route>,
    /// The prefix lengths in each table.
    lengths: HashMap<(u32, Family), BTreeSet<u8>>,
}

/// The path of a packet, and what determined it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace<'a> {
    /// What the node does with the packet.
    pub verdict: Verdict,
    /// The rule that selected the table.
    pub rule: Option<&'a PolicyRule>,
    /// The route.
    pub route: Option<&'a Route>,
    /// The reason that the packet was refused.
    pub stop: Option<Stop<'a>>,
}

/// The reason that a packet is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop<'a> {
    /// No policy rule selects a table with a matching route.
    NoRoute,
    /// This policy rule drops the packet.
    Rule(&'a PolicyRule),
    /// This route drops the packet.
    Route(&'a Route),
    /// This sysctl disables forwarding.
    Forwarding(SysctlKey),
    /// Reverse path filtering drops the packet, because the return route uses another interface, or there is none.
    ReversePath {
        /// The sysctl that enables the filter.
        sysctl: SysctlKey,
        /// Whether the return route must use the same interface (1), rather than any (2).
        is_strict: bool,
        /// The route back to the source.
        back: Option<&'a Route>,
    },
    /// The source is an address of this node, or not an address of a host.
    Source,
    /// The destination is not an address of a host, such as a broadcast address.
    Destination,
}

/// The packet properties that a route lookup depends on.
struct Flow<'a> {
    source: IpAddr,
    destination: IpAddr,
    /// The interface that the packet comes in through, or `lo`.
    input: &'a str,
    /// The protocol. If absent, no policy rule for a protocol or for ports applies, as in a route lookup of the kernel.
    transport: Option<Transport>,
}

/// The result of a lookup.
struct Found<'a> {
    rule: Option<&'a PolicyRule>,
    route: Option<&'a Route>,
    refusal: Option<(Refusal, Stop<'a>)>,
}

impl<'a> Found<'a> {
    /// Returns the trace of a packet that follows the result of the lookup.
    fn trace(self) -> Trace<'a> {
        let verdict = match (&self.refusal, self.route) {
            (Some((refusal, _)), _) => Verdict::Refused(*refusal),
            (None, Some(route)) if route.kind.is_local() => Verdict::Local,
            (None, Some(route)) => {
                let hops = route.hops().map(|(gateway, device)| Hop { gateway, device: device.clone() });
                Verdict::Forwarded { length: route.destination.prefix_len(), hops: hops.collect() }
            }
            (None, None) => Verdict::Refused(Refusal::NoRoute),
        };
        let stop = self.refusal.map(|(_, stop)| stop);
        Trace { verdict, rule: self.rule, route: self.route, stop }
    }

    /// Returns the trace of a packet that is refused regardless of the result of the lookup.
    fn refused(self, refusal: Refusal, stop: Stop<'a>) -> Trace<'a> {
        Self { refusal: Some((refusal, stop)), ..self }.trace()
    }
}

impl<'a> ForwardingModel<'a> {
    /// Creates the model of a node in this state.
    #[must_use]
    pub fn of(state: &'a State, host: &'a Host) -> Self {
        Self::new(&state.routes, &state.sysctls, host)
    }

    /// Creates the model of a node with these routes besides the foreign ones.
    pub fn new(
        routes: impl IntoIterator<Item = &'a Route>,
        sysctls: &'a BTreeMap<SysctlKey, Untrusted>,
        host: &'a Host,
    ) -> Self {
        let all = routes.into_iter().chain(&host.foreign).chain(&host.others);
        let rules = Family::ALL.map(|family| {
            if host.rules.is_empty() {
                return PolicyRule::defaults(family);
            }
            host.rules.iter().filter(|rule| rule.family == family).cloned().collect()
        });
        let has_own_rules = rules[0].len() != PolicyRule::defaults(Family::V4).len();
        let mut routes: Vec<&Route> = all.collect();
        // The sort is stable: routes with the same key are in the kernel's order.
        routes.sort_by_key(|route| (route.table, route.destination, route.metric));
        let mut lengths: HashMap<(u32, Family), BTreeSet<u8>> = HashMap::new();
        for some in routes.chunk_by(|one, next| {
            (one.table, one.destination.prefix_len()) == (next.table, next.destination.prefix_len())
                && one.family() == next.family()
        }) {
            let Some(first) = some.first() else { continue };
            lengths.entry((first.table, first.family())).or_default().insert(first.destination.prefix_len());
        }
        Self { sysctls, host, rules, has_own_rules, transport: None, routes, lengths }
    }

    /// Returns this model for packets of one protocol.
    #[must_use]
    pub fn with(self, transport: Transport) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Returns `true` if a policy rule is for packets of one protocol, or for ports.
    #[must_use]
    pub fn depends_on_protocol(&self) -> bool {
        self.rules.iter().flatten().any(|rule| {
            let RuleSelector { protocol, source_ports, destination_ports, .. } = &rule.selector;
            protocol.is_some() || source_ports.is_some() || destination_ports.is_some()
        })
    }

    /// Returns `true` if a policy rule looks up this table.
    #[must_use]
    pub fn looks_up(&self, table: u32, family: Family) -> bool {
        let looks_up = |rule: &PolicyRule| rule.action == RuleAction::Lookup(table);
        self.rules.iter().flatten().any(|rule| rule.family == family && looks_up(rule))
    }

    /// Returns the surroundings of the node.
    #[must_use]
    pub const fn host(&self) -> &'a Host {
        self.host
    }

    /// Returns `true` if there is a route back to the source of a packet; with `by_input`, one through the interface that the
    /// packet comes in through (`fib_lookup` of `nft_fib4_eval`, net/ipv4/netfilter/nft_fib_ipv4.c).
    #[must_use]
    pub fn has_return_route(&self, packet: &Packet, by_input: bool) -> bool {
        let back = self.trace_own(packet.destination, packet.source);
        let Some(route) = back.route.filter(|_| back.stop.is_none()) else { return false };
        !by_input || packet.input.as_ref().is_some_and(|input| leads_through(route, input))
    }

    /// Returns the path of a packet that the node itself sends. No filter applies to it.
    #[must_use]
    pub fn trace_own(&self, source: IpAddr, destination: IpAddr) -> Trace<'_> {
        self.lookup(&self.flow(source, destination, "lo")).trace()
    }

    /// Returns the source address that the kernel chooses for a packet from the node itself: the preferred one of the route, or one
    /// of its interface, near the gateway (`inet_select_addr`, net/ipv4/devinet.c) or the destination (`ipv6_dev_get_saddr`,
    /// net/ipv6/addrconf.c). `None` if there is no route or no address.
    #[must_use]
    pub fn own_source(&self, destination: IpAddr) -> Option<IpAddr> {
        let family = Family::from(destination);
        let unspecified: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let route = self.trace_own(unspecified, destination).route?;
        if route.source.is_some() {
            return route.source;
        }
        let (gateway, device) = route.hops().next()?;
        let usable = self.host.addresses.iter().filter(|local| {
            Family::from(local.address) == family
                && local.is_used()
                && !local.address.is_loopback()
                && (is_link_local(destination) || !is_link_local(local.address))
        });
        let distance = |local: &&InterfaceAddress| {
            let is_near = match family {
                Family::V4 => u32::from(!gateway.is_some_and(|gateway| local.prefix.contains(&gateway))),
                Family::V6 => (address_number(local.address) ^ address_number(destination))
                    .leading_zeros()
                    .abs_diff(128),
            };
            (local.device != *device, is_near)
        };
        usable.min_by_key(distance).map(|local| local.address)
    }

    /// Returns the path of a packet.
    #[must_use]
    pub fn trace(&self, packet: &Packet) -> Trace<'_> {
        match (&packet.input, Family::from(packet.destination)) {
            (None, _) => self.trace_own(packet.source, packet.destination),
            (Some(input), Family::V4) => self.trace_v4(packet, input),
            (Some(input), Family::V6) => self.trace_v6(packet, input),
        }
    }

    fn trace_v4<'m>(&'m self, packet: &Packet, device: &Untrusted) -> Trace<'m> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (packet.source, packet.destination) else {
            return refused(Refusal::Invalid, Stop::Source);
        };
        if source.is_multicast() || source.is_broadcast() || source.octets()[0] == 0 || source.is_loopback() {
            return refused(Refusal::Invalid, Stop::Source);
        }
        if destination.octets()[0] == 0 || destination.is_loopback() || destination.is_multicast() {
            return refused(Refusal::Invalid, Stop::Destination);
        }
        let input = device.as_raw();
        let forwarding = interface_key(Family::V4, input, "forwarding");
        let forwards = forwarding.as_ref().is_none_or(|key| self.is_set(key));
        let not_forwarding = |found: Found<'m>| match &forwarding {
            Some(key) => found.refused(Refusal::Unreachable, Stop::Forwarding(key.clone())),
            None => refused(Refusal::Unreachable, Stop::NoRoute),
        };
        let found = self.lookup(&self.flow(packet.source, packet.destination, input));
        if found.refusal.is_some() {
            return if forwards { found.trace() } else { not_forwarding(found) };
        }
        let kind = found.route.map_or(RouteType::Unicast, |route| route.kind);
        let is_local = matches!(kind, RouteType::LOCAL | RouteType::BROADCAST);
        if !is_local && !forwards {
            return not_forwarding(found);
        }
        if !is_local && kind != RouteType::Unicast {
            return found.refused(Refusal::Invalid, Stop::Destination);
        }
        let output =
            found.route.and_then(|route| route.next_hop.device.as_ref()).map(|device| device.as_raw());
        // The return route of a broadcast is looked up without a source address.
        let back_from =
            if kind == RouteType::BROADCAST { Ipv4Addr::UNSPECIFIED.into() } else { packet.destination };
        match self.validate_source(packet, device, back_from, if is_local { None } else { output }) {
            Some(stop) => found.refused(Refusal::Invalid, stop),
            None => found.trace(),
        }
    }

    /// `fib_validate_source` (net/ipv4/fib_frontend.c). Returns the reason that the source is refused.
    fn validate_source<'m>(
        &'m self,
        packet: &Packet,
        device: &Untrusted,
        back_from: IpAddr,
        output: Option<&str>,
    ) -> Option<Stop<'m>> {
        let input = device.as_raw();
        let own = interface_key(Family::V4, input, "rp_filter");
        let all = interface_key(Family::V4, "all", "rp_filter");
        let value = |key: &Option<SysctlKey>| key.as_ref().and_then(|key| self.number(key)).unwrap_or(0);
        let mode = value(&own).max(value(&all));
        let accepts_local = ["all", input]
            .into_iter()
            .any(|name| interface_key(Family::V4, name, "accept_local").is_some_and(|key| self.is_set(&key)));
        let redirects = self.redirects(input);
        let is_own = self.host.addresses.iter().any(|local| local.address == packet.source);
        if mode == 0 && (output != Some(input) || !redirects) {
            if accepts_local {
                return None;
            }
            // With rules of its own, a namespace looks up the source, too.
            if !self.has_own_rules {
                return is_own.then_some(Stop::Source);
            }
        }
        let back = self.lookup(&self.flow(back_from, packet.source, output.unwrap_or("lo")));
        let sysctl = if value(&own) >= value(&all) { own } else { all };
        let filtered = |back: Option<&'m Route>| {
            sysctl
                .clone()
                .map(|sysctl| Stop::ReversePath { sysctl, is_strict: mode == 1, back })
                .filter(|_| mode > 0)
        };
        let has_address = self
            .host
            .addresses
            .iter()
            .any(|local| local.device == *device && Family::from(local.address) == Family::V4);
        let Some(route) = back.route.filter(|_| back.refusal.is_none()) else {
            return filtered(None);
        };
        if route.kind != RouteType::Unicast && !(route.kind == RouteType::LOCAL && accepts_local) {
            return Some(Stop::Source);
        }
        if leads_through(route, device) {
            return None;
        }
        if !has_address || mode == 1 {
            return filtered(Some(route));
        }
        None
    }

    /// `IN_DEV_TX_REDIRECTS` (linux/inetdevice.h).
    fn redirects(&self, device: &str) -> bool {
        ["all", device]
            .into_iter()
            .any(|name| interface_key(Family::V4, name, "send_redirects").is_none_or(|key| self.is_set(&key)))
    }

    fn trace_v6(&self, packet: &Packet, device: &Untrusted) -> Trace<'_> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
            return refused(Refusal::Invalid, Stop::Source);
        };
        if source.is_multicast() || source.is_loopback() {
            return refused(Refusal::Invalid, Stop::Source);
        }
        if destination.is_multicast() || destination.is_loopback() {
            return refused(Refusal::Invalid, Stop::Destination);
        }
        let input = device.as_raw();
        let found = self.lookup(&self.flow(packet.source, packet.destination, input));
        if found.refusal.is_some() {
            return found.trace();
        }
        let is_local =
            found.route.is_some_and(|route| matches!(route.kind, RouteType::LOCAL | RouteType::ANYCAST));
        let switch = SysctlKey::ipv6_forwarding();
        // Of the interface, since Linux 6.17.
        let forced =
            interface_key(Family::V6, input, "force_forwarding").is_some_and(|key| self.is_set(&key));
        if !is_local && !forced && !self.is_set(&switch) {
            return found.refused(Refusal::Unreachable, Stop::Forwarding(switch));
        }
        found.trace()
    }

    const fn flow<'p>(&self, source: IpAddr, destination: IpAddr, input: &'p str) -> Flow<'p> {
        Flow { source, destination, input, transport: self.transport }
    }

    /// `fib_rules_lookup` (net/core/fib_rules.c).
    fn lookup(&self, flow: &Flow<'_>) -> Found<'_> {
        let family = Family::from(flow.destination);
        let rules = &self.rules[usize::from(family == Family::V6)];
        let mut at = 0;
        while let Some(rule) = rules.get(at) {
            at += 1;
            if !matches(rule, flow) {
                continue;
            }
            let refuse =
                |refusal| Found { rule: Some(rule), route: None, refusal: Some((refusal, Stop::Rule(rule))) };
            match rule.action {
                RuleAction::Nop => {}
                RuleAction::Goto(priority) => {
                    // A rule can only jump forward. Without its target, it does nothing.
                    if let Some(target) = rules.iter().position(|rule| rule.priority == priority) {
                        at = target.max(at);
                    }
                }
                RuleAction::Blackhole => return refuse(Refusal::Invalid),
                RuleAction::Unreachable => return refuse(Refusal::NoRoute),
                RuleAction::Prohibit => return refuse(Refusal::Prohibited),
                RuleAction::Lookup(table) => {
                    let Some(route) = self.best(table, flow) else { continue };
                    if let Some(refusal) = drops(route.kind) {
                        return Found {
                            rule: Some(rule),
                            route: Some(route),
                            refusal: Some((refusal, Stop::Route(route))),
                        };
                    }
                    if route.kind == RouteType::Throw {
                        continue;
                    }
                    let is_suppressed = rule
                        .suppress_length
                        .is_some_and(|length| u32::from(route.destination.prefix_len()) <= length);
                    let group = |device: &Untrusted| self.host.link(device.as_raw()).map(|link| link.group);
                    let is_suppressed = is_suppressed
                        || rule.suppress_group.is_some()
                            && rule.suppress_group == route.next_hop.device.as_ref().and_then(group);
                    if !is_suppressed {
                        return Found { rule: Some(rule), route: Some(route), refusal: None };
                    }
                }
            }
        }
        Found { rule: None, route: None, refusal: Some((Refusal::NoRoute, Stop::NoRoute)) }
    }

    /// Returns the route of a table: the longest prefix wins, then the smallest metric.
    fn best(&self, table: u32, flow: &Flow<'_>) -> Option<&'a Route> {
        let lengths = self.lengths.get(&(table, flow.destination.into()))?;
        lengths.iter().rev().find_map(|length| {
            let same = self.routes_to(table, flow.destination, *length);
            // Where there is a route for certain sources, the kernel does not fall back to one for all, except to a default
            // route (`fib6_node_lookup`, net/ipv6/ip6_fib.c).
            let has_sources = *length > 0 && same.clone().any(|route| route.source_prefix().is_some());
            let usable = same.filter(|route| {
                route.tos.is_none_or(|tos| tos == 0)
                    && route.source_prefix().map_or(!has_sources, |from| contains(from, flow.source))
            });
            // The longest source wins before the metric.
            usable.min_by_key(|route| Reverse(route.source_prefix().map_or(0, |from| from.prefix_len())))
        })
    }

    /// Returns the routes of a table to the prefix of this length that contains an address, the preferred one first.
    fn routes_to(
        &self,
        table: u32,
        destination: IpAddr,
        length: u8,
    ) -> impl Iterator<Item = &'a Route> + Clone + use<'a, '_> {
        let prefix = IpNet::new_assert(destination, length).trunc();
        let start = self.routes.partition_point(|route| (route.table, route.destination) < (table, prefix));
        let rest = self.routes.get(start..).unwrap_or_default().iter().copied();
        rest.take_while(move |route| (route.table, route.destination) == (table, prefix))
    }

    /// Returns a route that is only for packets from other sources, but keeps this packet from using another route of the
    /// table to the same destination (`fib6_node_lookup`, net/ipv6/ip6_fib.c).
    #[must_use]
    pub fn hiding_route(&self, table: u32, packet: &Packet) -> Option<&'a Route> {
        let lengths = self.lengths.get(&(table, packet.destination.into()))?;
        lengths.iter().rev().filter(|length| **length > 0).find_map(|length| {
            let (limited, usable): (Vec<_>, Vec<_>) = self
                .routes_to(table, packet.destination, *length)
                .partition(|route| route.source_prefix().is_some_and(|from| !contains(from, packet.source)));
            let is_hidden = usable.iter().all(|route| route.source_prefix().is_none()) && !usable.is_empty();
            limited.first().copied().filter(|_| is_hidden)
        })
    }

    fn number(&self, key: &SysctlKey) -> Option<i64> {
        self.sysctls.get(key)?.as_raw().parse().ok()
    }

    fn is_set(&self, key: &SysctlKey) -> bool {
        self.number(key).is_some_and(|value| value != 0)
    }
}

/// Returns the sysctls of an interface that decide about forwarding; `all` is a name, too.
pub fn sysctls(family: Family, device: &str) -> impl Iterator<Item = SysctlKey> {
    let names: &[&str] = match family {
        Family::V4 => &["forwarding", "rp_filter", "accept_local", "send_redirects"],
        Family::V6 => &["forwarding", "force_forwarding"],
    };
    names.iter().filter_map(move |name| interface_key(family, device, name))
}

/// The key of a sysctl of an interface, or of `all`; `None` if no sysctl can have this name.
#[must_use]
pub fn interface_key(family: Family, device: &str, name: &str) -> Option<SysctlKey> {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    SysctlKey::from_parts(["net", family, "conf", device, name]).ok()
}

/// Whether a next hop of a route is behind this interface. An unknown one may be.
fn leads_through(route: &Route, device: &Untrusted) -> bool {
    let mut hops = route.hops().peekable();
    hops.peek().is_none() && route.kind == RouteType::Unicast || hops.any(|(_, hop)| hop == device)
}

fn contains(from: Ipv6Net, address: IpAddr) -> bool {
    IpNet::from(from).contains(&address)
}

/// `fib_rule_match` (net/core/fib_rules.c).
fn matches(rule: &PolicyRule, flow: &Flow<'_>) -> bool {
    let selector = &rule.selector;
    let matches = selector.from.is_none_or(|from| from.contains(&flow.source))
        && selector.to.is_none_or(|to| to.contains(&flow.destination))
        && selector.input.as_ref().is_none_or(|input| input.as_raw() == flow.input)
        // It is for the packets of a socket that is bound to an interface.
        && selector.output.is_none()
        && selector.tos.is_none_or(|tos| tos == 0)
        && selector.mark.is_none_or(|mark| mark.value & mark.mask == 0)
        // Nobody's packets are those of user 0.
        && selector.users.is_none_or(|[first, _]| first == 0)
        && selector.protocol.is_none_or(|protocol| {
            let family = Family::from(flow.destination);
            flow.transport.is_some_and(|transport| transport.number(family) == protocol)
        })
        // Packets of pods have all kinds of ports.
        && [selector.source_ports, selector.destination_ports].into_iter().flatten().all(|[first, last]| {
            let has_ports = matches!(flow.transport, Some(Transport::Tcp | Transport::Udp));
            has_ports && [SAMPLE_PORT, CLIENT_PORT].iter().all(|port| (first..=last).contains(port))
        })
        && selector.others.is_empty();
    matches != selector.not
}

/// The errors of route types: `fib_props` (net/ipv4/fib_semantics.c).
pub const fn drops(kind: RouteType) -> Option<Refusal> {
    match kind {
        RouteType::Blackhole => Some(Refusal::Invalid),
        RouteType::Unreachable => Some(Refusal::Unreachable),
        RouteType::Prohibit => Some(Refusal::Prohibited),
        _ => None,
    }
}

const fn refused<'a>(refusal: Refusal, stop: Stop<'a>) -> Trace<'a> {
    Trace { verdict: Verdict::Refused(refusal), rule: None, route: None, stop: Some(stop) }
}

//! Determines the route that Windows uses for a packet.
//!
//! Windows uses the active route with the longest prefix and, of several, the one with the lowest total metric: its own
//! plus that of its interface. Which of several routes with the same total metric it uses is not documented, so all of
//! them are possible.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::model::prefix_bounds;

/// A route in the active store of a Windows node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveRoute {
    /// The destination of the route.
    pub destination: IpNet,
    /// The next hop of the route.
    pub next_hop: IpAddr,
    /// The index of its interface.
    pub interface: u32,
    /// The metric of the route itself.
    pub route_metric: u32,
    /// The metric of its interface, or `None` if it is unknown.
    pub interface_metric: Option<u32>,
}

impl ActiveRoute {
    /// Returns the total metric, or `None` if it is unknown.
    #[must_use]
    pub fn total_metric(&self) -> Option<u64> {
        Some(u64::from(self.route_metric) + u64::from(self.interface_metric?))
    }
}

/// The routes that Windows can use for an address: none if there is no route, and several if it is unclear which one.
pub type Candidates<'a> = Vec<&'a ActiveRoute>;

/// A part of a prefix, to which Windows uses the same routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficPart<'a> {
    /// The destination of these routes if it is inside the prefix, or else the prefix.
    pub destination: IpNet,
    /// An address in the part.
    pub example: IpAddr,
    /// The routes.
    pub routes: Candidates<'a>,
}

/// The active routes of a Windows node by destination.
#[derive(Debug, Default)]
pub struct ActiveTable {
    by_destination: BTreeMap<IpNet, Vec<ActiveRoute>>,
    /// The prefix lengths in the table, for IPv4 and for IPv6.
    lengths: [BTreeSet<u8>; 2],
}

impl FromIterator<ActiveRoute> for ActiveTable {
    fn from_iter<I: IntoIterator<Item = ActiveRoute>>(routes: I) -> Self {
        let mut table = Self::default();
        for route in routes {
            let destination = route.destination.trunc();
            table.lengths[usize::from(is_v6(destination))].insert(destination.prefix_len());
            table.by_destination.entry(destination).or_default().push(route);
        }
        table
    }
}

impl ActiveTable {
    /// Returns the routes that Windows can use for `address`.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Candidates<'_> {
        self.lookup_prefix(IpNet::from(address))
    }

    /// Returns the routes that Windows can use for those addresses in `prefix` that no more specific route covers.
    fn lookup_prefix(&self, prefix: IpNet) -> Candidates<'_> {
        let lengths = self.lengths[usize::from(is_v6(prefix))].range(..=prefix.prefix_len()).rev();
        let around = lengths.filter_map(|length| IpNet::new(prefix.addr(), *length).ok());
        let routes = around.filter_map(|around| self.by_destination.get(&around.trunc())).next();
        routes.map_or_else(Vec::new, |routes| best(routes))
    }

    /// Divides `prefix` into the parts to which Windows uses the same routes.
    #[must_use]
    pub fn parts(&self, prefix: IpNet) -> Vec<TrafficPart<'_>> {
        let prefix = prefix.trunc();
        let inside = self.by_destination.range(prefix..);
        let inside: Vec<IpNet> = inside
            .map(|(destination, _)| *destination)
            .take_while(|destination| prefix.contains(destination))
            .filter(|destination| *destination != prefix)
            .collect();
        let mut parts = Vec::new();
        let whole = std::iter::once((prefix, &inside[..]));
        let nested = inside.iter().enumerate().map(|(at, destination)| (*destination, &inside[at + 1..]));
        for (destination, following) in whole.chain(nested) {
            if let Some(example) = address_outside(destination, following) {
                parts.push(TrafficPart { destination, example, routes: self.lookup_prefix(destination) });
            }
        }
        parts
    }
}

/// Returns the routes of one destination that Windows can use. Two routes on one interface can be compared even if the
/// metric of the interface is unknown.
fn best(routes: &[ActiveRoute]) -> Candidates<'_> {
    let lowest = routes.iter().filter_map(ActiveRoute::total_metric).min();
    let mut unknown: BTreeMap<u32, u32> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.interface_metric.is_none()) {
        let least = unknown.entry(route.interface).or_insert(route.route_metric);
        *least = route.route_metric.min(*least);
    }
    let is_best = |route: &&ActiveRoute| match route.total_metric() {
        Some(total) => Some(total) == lowest,
        None => unknown.get(&route.interface) == Some(&route.route_metric),
    };
    routes.iter().filter(is_best).collect()
}

/// Returns the lowest address in `prefix` that is in none of `inside`, which are sorted, and continue beyond `prefix`.
fn address_outside(prefix: IpNet, inside: &[IpNet]) -> Option<IpAddr> {
    let (mut next, last) = prefix_bounds(prefix);
    for (first_inside, last_inside) in
        inside.iter().take_while(|inner| prefix.contains(*inner)).copied().map(prefix_bounds)
    {
        if first_inside > next {
            break;
        }
        if last_inside >= last {
            return None;
        }
        next = next.max(last_inside + 1);
    }
    Some(match prefix {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(next).ok()?).into(),
        IpNet::V6(_) => Ipv6Addr::from(next).into(),
    })
}

const fn is_v6(prefix: IpNet) -> bool {
    matches!(prefix, IpNet::V6(_))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(
        destination: &str,
        interface: u32,
        route_metric: u32,
        interface_metric: Option<u32>,
    ) -> ActiveRoute {
        ActiveRoute {
            destination: destination.parse().expect("a prefix"),
            next_hop: Ipv4Addr::new(172, 30, 0, 1).into(),
            interface,
            route_metric,
            interface_metric,
        }
    }

    fn interfaces(candidates: &Candidates<'_>) -> Vec<u32> {
        candidates.iter().map(|route| route.interface).collect()
    }

    #[test]
    fn the_metric_of_the_interface_counts() {
        let lookup = |routes: &[ActiveRoute]| {
            let table: ActiveTable = routes.iter().copied().collect();
            interfaces(&table.lookup("10.0.0.1".parse().expect("an address")))
        };
        let [low, high] = [("10.0.0.0/24", 5), ("10.0.0.0/24", 300)];
        assert_eq!(lookup(&[route(low.0, 1, low.1, Some(500)), route(high.0, 2, high.1, Some(25))]), [2]);
        assert_eq!(lookup(&[route(low.0, 1, low.1, Some(25)), route(high.0, 2, high.1, Some(25))]), [1]);
        // The longest prefix takes precedence over any metric.
        assert_eq!(lookup(&[route("10.0.0.0/25", 1, 9999, Some(9999)), route(low.0, 2, 1, Some(1))]), [1]);
        // The same total metric.
        assert_eq!(lookup(&[route(low.0, 1, 10, Some(20)), route(low.0, 2, 20, Some(10))]), [1, 2]);
        // Unknown metrics of different interfaces cannot be compared; those of one interface can.
        assert_eq!(lookup(&[route(low.0, 1, 10, None), route(low.0, 2, 20, None)]), [1, 2]);
        assert_eq!(lookup(&[route(low.0, 1, 10, None), route(low.0, 1, 20, None)]), [1]);
        assert_eq!(lookup(&[route(low.0, 1, u32::MAX, Some(u32::MAX)), route(low.0, 2, 0, Some(1))]), [2]);
        assert_eq!(lookup(&[route("10.0.1.0/24", 1, 1, Some(1))]), Vec::<u32>::new());
    }

    #[test]
    fn a_prefix_is_divided_at_more_specific_routes() {
        let table: ActiveTable = [
            route("10.0.0.0/24", 1, 1, Some(1)),
            route("10.0.0.64/26", 2, 1, Some(1)),
            // Both halves are covered.
            route("10.0.0.64/27", 3, 1, Some(1)),
            route("10.0.0.96/27", 4, 1, Some(1)),
            route("10.0.1.0/24", 5, 1, Some(1)),
        ]
        .into_iter()
        .collect();
        let parts = |prefix: &str| {
            let parts = table.parts(prefix.parse().expect("a prefix")).into_iter();
            parts
                .map(|part| format!("{} {} {:?}", part.destination, part.example, interfaces(&part.routes)))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            parts("10.0.0.0/24"),
            ["10.0.0.0/24 10.0.0.0 [1]", "10.0.0.64/27 10.0.0.64 [3]", "10.0.0.96/27 10.0.0.96 [4]"]
        );
        assert_eq!(parts("10.0.0.64/27"), ["10.0.0.64/27 10.0.0.64 [3]"]);
        assert_eq!(parts("10.0.2.0/24"), ["10.0.2.0/24 10.0.2.0 []"]);
        let ends: ActiveTable =
            ["0.0.0.0/1", "128.0.0.0/1", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"]
                .map(|destination| route(destination, 1, 1, Some(1)))
                .into_iter()
                .collect();
        assert_eq!(ends.parts("0.0.0.0/0".parse().expect("a prefix")).len(), 2);
        assert_eq!(ends.parts("::/0".parse().expect("a prefix")).len(), 2);
    }

    /// Tables in 10.0.0.0/27, with few interfaces and metrics, so that prefixes nest and metrics collide.
    fn tables() -> impl Strategy<Value = Vec<ActiveRoute>> {
        let route = (0_u32..32, 26_u8..=32, 1_u32..4, 0_u32..3).prop_map(
            |(host, length, interface, route_metric)| ActiveRoute {
                destination: IpNet::new(Ipv4Addr::from(0x0a00_0000 + host).into(), length)
                    .expect("a length")
                    .trunc(),
                next_hop: Ipv4Addr::from(route_metric).into(),
                interface,
                route_metric,
                interface_metric: Some([0, 1, 1, 5][interface as usize]),
            },
        );
        prop::collection::vec(route, 0..14)
    }

    /// Looks at every route.
    fn oracle(routes: &[ActiveRoute], address: IpAddr) -> BTreeSet<(u32, u32, IpNet)> {
        let key = |route: &ActiveRoute| {
            (32 - route.destination.prefix_len(), route.route_metric + route.interface_metric.unwrap_or(0))
        };
        let containing = || routes.iter().filter(|route| route.destination.contains(&address));
        let best = containing().map(key).min();
        containing().filter(|route| Some(key(route)) == best).map(identity).collect()
    }

    fn identity(route: &ActiveRoute) -> (u32, u32, IpNet) {
        (route.interface, route.route_metric, route.destination)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_lookup_matches_the_oracle(routes in tables()) {
            let table: ActiveTable = routes.iter().copied().collect();
            for host in 0..40 {
                let address = Ipv4Addr::from(0x0a00_0000 + host).into();
                let found: BTreeSet<_> = table.lookup(address).into_iter().map(identity).collect();
                prop_assert_eq!(found, oracle(&routes, address), "{}", address);
            }
        }

        /// Every address is in the part of the most specific destination around it, which has its routes.
        #[test]
        fn the_parts_match_the_oracle(routes in tables(), host in 0_u32..32, length in 26_u8..=32) {
            let table: ActiveTable = routes.iter().copied().collect();
            let prefix = IpNet::new(Ipv4Addr::from(0x0a00_0000 + host).into(), length).expect("a length").trunc();
            let parts = table.parts(prefix);
            let part_of = |address: &IpAddr| {
                let around = parts.iter().filter(|part| part.destination.contains(address));
                around.max_by_key(|part| part.destination.prefix_len())
            };
            let mut used = BTreeSet::new();
            for address in prefix.hosts().chain([prefix.network(), prefix.broadcast()]) {
                let part = part_of(&address).expect("every address is in a part");
                let found: BTreeSet<_> = part.routes.iter().copied().map(identity).collect();
                prop_assert_eq!(found, oracle(&routes, address), "{} in {:?}", address, part);
                used.insert(part.destination);
            }
            prop_assert_eq!(used.len(), parts.len(), "a part without addresses: {:?}", parts);
            for part in &parts {
                prop_assert_eq!(part_of(&part.example), Some(part));
            }
        }
    }
}

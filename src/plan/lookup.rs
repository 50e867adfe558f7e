//! Determines the route to an address before and after a plan.

use std::{cmp::Reverse, net::IpAddr};

use super::{Change, Observed, Plan, RouteChange};
use crate::state::{Route, State};

/// The routes to an address before and after a plan; `None` if there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupChange<'a> {
    /// The route before.
    pub before: Option<&'a Route>,
    /// The route after.
    pub after: Option<&'a Route>,
}

/// Returns the routes to `address` before and after `plan` if they differ. As in the kernel, the longest prefix wins,
/// then the smallest metric. Only tables that the plan changes are considered.
#[must_use]
pub fn lookup_change<'a>(
    plan: &'a Plan,
    observed: &'a Observed,
    address: IpAddr,
) -> Option<LookupChange<'a>> {
    let changes: Vec<&RouteChange> = plan
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Route(route) if route.key.destination.contains(&address) => Some(route),
            _ => None,
        })
        .collect();
    let live = || {
        let routes = observed.state.routes.iter().chain(&observed.host.foreign);
        routes.filter(|route| route.destination.contains(&address))
    };
    changes.iter().find_map(|change| {
        let is_in_table = |route: &&Route| route.table == change.key.table;
        let before = best(live().filter(is_in_table));
        let unchanged = live().filter(|route| changes.iter().all(|change| change.key != route.key()));
        let after =
            best(unchanged.chain(changes.iter().flat_map(|change| change.after.first())).filter(is_in_table));
        (before != after).then_some(LookupChange { before, after })
    })
}

/// Iterates over the observed foreign routes that remain when a node is brought to the `desired` state.
pub fn kept_routes<'a>(desired: &'a State, observed: &'a State) -> impl Iterator<Item = &'a Route> {
    let is_desired =
        |route: &Route| desired.routes.binary_search_by(|other| other.key().cmp(&route.key())).is_ok();
    observed.routes.iter().filter(move |route| !route.is_owned() && !is_desired(route))
}

/// Returns the route that the kernel would use. Of equal routes it is the first.
fn best<'a>(routes: impl Iterator<Item = &'a Route>) -> Option<&'a Route> {
    routes.min_by_key(|route| (Reverse(route.destination.prefix_len()), route.metric))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::plan::{ForeignPolicy, plan};

    fn route(destination: &str, gateway: &str, protocol: u8) -> Route {
        serde_json::from_value(serde_json::json!({
            "destination": destination, "table": 254, "metric": 0, "protocol": protocol,
            "scope": "global", "type": "unicast", "nextHop": { "gateway": gateway, "device": "eth0" },
        }))
        .expect("a route")
    }

    fn state(routes: &[Route]) -> State {
        State { routes: routes.to_vec().into(), ..State::default() }
    }

    /// Returns the gateways before and after, or `none` where there is no route.
    fn gateways(
        observed: &[Route],
        foreign: &[Route],
        desired: &[Route],
        address: &str,
    ) -> Option<(String, String)> {
        let mut observed = Observed { state: state(observed), ..Observed::default() };
        observed.host.foreign = foreign.to_vec();
        let plan = plan(&state(desired), &observed.state, ForeignPolicy::Respect);
        let gateway = |route: Option<&Route>| {
            route
                .and_then(|route| route.next_hop.gateway)
                .map_or_else(|| "none".to_owned(), |gateway| gateway.to_string())
        };
        let change = lookup_change(&plan, &observed, address.parse().expect("an address"))?;
        Some((gateway(change.before), gateway(change.after)))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let default = route("0.0.0.0/0", "172.30.0.1", 4);
        let managed = |gateway| route("10.244.1.0/24", gateway, 87);
        let pair = |before: &str, after: &str| Some((before.to_owned(), after.to_owned()));
        // A route is added or removed; the default route applies otherwise.
        let (new, old) = ([managed("10.244.1.1")], [managed("10.244.1.9")]);
        assert_eq!(gateways(&[], from_ref(&default), &new, "10.244.1.5"), pair("172.30.0.1", "10.244.1.1"));
        assert_eq!(gateways(&old, from_ref(&default), &[], "10.244.1.5"), pair("10.244.1.9", "172.30.0.1"));
        assert_eq!(gateways(&old, &[], &[], "10.244.1.5"), pair("10.244.1.9", "none"));
        assert_eq!(gateways(&old, from_ref(&default), &new, "10.244.1.5"), pair("10.244.1.9", "10.244.1.1"));
        // Another address, or an address with a more specific foreign route.
        assert_eq!(gateways(&old, from_ref(&default), &new, "10.244.2.5"), None);
        let specific = route("10.244.1.0/28", "172.30.0.2", 4);
        assert_eq!(gateways(&old, &[default, specific], &new, "10.244.1.5"), None);
    }
}

//! Which route carries packets to an address, before a plan and after it.

use std::{cmp::Reverse, net::IpAddr};

use super::{Change, Observed, Plan, RouteChange};
use crate::state::Route;

/// What carries packets to an address before and after a plan that changes it; none where there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupChange<'a> {
    /// The route before.
    pub before: Option<&'a Route>,
    /// The route after.
    pub after: Option<&'a Route>,
}

/// Whether `plan` changes the route to `address`, on a node where `observed` stands. As in the kernel, the
/// longest prefix carries, then the smallest metric; routes of other tables than those of the plan are not
/// looked at.
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
    let standing = || {
        let routes = observed.state.routes.iter().chain(&observed.host.foreign);
        routes.filter(|route| route.destination.contains(&address))
    };
    changes.iter().find_map(|change| {
        let here = |route: &&Route| route.table == change.key.table;
        let before = best(standing().filter(here));
        let kept = standing().filter(|route| changes.iter().all(|change| change.key != route.key()));
        let after = best(kept.chain(changes.iter().flat_map(|change| change.after.first())).filter(here));
        (before != after).then_some(LookupChange { before, after })
    })
}

/// The route that carries packets; of equal ones the first, which stands first in the kernel too.
fn best<'a>(routes: impl Iterator<Item = &'a Route>) -> Option<&'a Route> {
    routes.min_by_key(|route| (Reverse(route.destination.prefix_len()), route.metric))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::{
        plan::{ForeignPolicy, plan},
        state::State,
    };

    fn route(destination: &str, gateway: &str, protocol: u8) -> Route {
        serde_json::from_value(serde_json::json!({
            "destination": destination, "table": 254, "metric": 0, "protocol": protocol,
            "scope": "global", "type": "unicast", "next": { "gateway": gateway, "device": "eth0" },
        }))
        .expect("a route")
    }

    fn state(routes: &[Route]) -> State {
        State { routes: routes.to_vec(), ..State::default() }
    }

    /// The gateways before and after, as `via X`; `none` where there is no route.
    fn ways(
        observed: &[Route],
        foreign: &[Route],
        desired: &[Route],
        address: &str,
    ) -> Option<(String, String)> {
        let mut observed = Observed { state: state(observed), ..Observed::default() };
        observed.host.foreign = foreign.to_vec();
        let plan = plan(&state(desired), &observed.state, ForeignPolicy::Respect);
        let told = |route: Option<&Route>| {
            route
                .and_then(|route| route.next.gateway)
                .map_or_else(|| "none".to_owned(), |gateway| gateway.to_string())
        };
        let way = lookup_change(&plan, &observed, address.parse().expect("an address"))?;
        Some((told(way.before), told(way.after)))
    }

    #[test]
    fn the_longest_prefix_decides() {
        let default = route("0.0.0.0/0", "172.30.0.1", 4);
        let own = |gateway| route("10.244.1.0/24", gateway, 87);
        let pair = |before: &str, after: &str| Some((before.to_owned(), after.to_owned()));
        // A new route, and one that goes: the default route carries otherwise.
        let (new, old) = ([own("10.244.1.1")], [own("10.244.1.9")]);
        assert_eq!(ways(&[], from_ref(&default), &new, "10.244.1.5"), pair("172.30.0.1", "10.244.1.1"));
        assert_eq!(ways(&old, from_ref(&default), &[], "10.244.1.5"), pair("10.244.1.9", "172.30.0.1"));
        assert_eq!(ways(&old, &[], &[], "10.244.1.5"), pair("10.244.1.9", "none"));
        assert_eq!(ways(&old, from_ref(&default), &new, "10.244.1.5"), pair("10.244.1.9", "10.244.1.1"));
        // Elsewhere, or behind a more specific route of somebody else's.
        assert_eq!(ways(&old, from_ref(&default), &new, "10.244.2.5"), None);
        let specific = route("10.244.1.0/28", "172.30.0.2", 4);
        assert_eq!(ways(&old, &[default, specific], &new, "10.244.1.5"), None);
    }
}

//! Finds other CNIs that manage routes to pods.

use std::collections::BTreeMap;

use super::{Examination, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    state::{PLUGIN_CHAINS, PLUGIN_INTERFACES, PLUGIN_PROTOCOLS, Route, protocol},
    text::count,
};

/// Reports another CNI that adds routes to pods, as hostgw does. hostgw does not report chains alone: the CNI may be
/// configured to leave the routes to hostgw.
pub(super) fn examine(examination: &Examination<'_>) -> Vec<Diagnostic> {
    let host = &examination.observed.host;
    let mut by_cni: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
    for route in examination.observed.state.routes.iter().chain(&host.foreign).chain(&host.others) {
        if let Some(cni) = cni_of(route).filter(|_| leads_to_other_pods(examination, route)) {
            by_cni.entry(cni).or_default().push(route);
        }
    }
    let chains = |cni: &str| {
        let chains = host.firewall.iter().flat_map(|firewall| &firewall.chains);
        let mut names: Vec<&str> = chains.map(|chain| chain.name.as_raw()).collect();
        names.retain(|name| {
            PLUGIN_CHAINS.iter().any(|(start, owner)| *owner == cni && name.starts_with(start))
        });
        names.sort_unstable();
        names.dedup();
        match names.first() {
            Some(name) => format!(", and {}", some(names.len(), "firewall chain", name)),
            None => String::new(),
        }
    };
    let diagnostic = |(cni, routes): (&str, Vec<&Route>)| {
        finding(
            Rule::OtherCni,
            format!(
                "{cni} also manages routes to pods: {}{}",
                some(routes.len(), "route", &format!("`{}`", routes[0])),
                chains(cni)
            ),
            format!(
                "migrate from {cni} as `hostgw help migrating` describes, or configure it not to add routes: two programs must not \
                 manage the same routes"
            ),
        )
    };
    by_cni.into_iter().map(diagnostic).collect()
}

/// Describes `number` objects, with `first` as an example.
fn some(number: usize, noun: &str, first: &str) -> String {
    match number {
        1 => format!("the {noun} {first}"),
        _ => format!("{}, such as {first}", count(number, noun)),
    }
}

/// Returns the CNI that added a route, if the route shows it.
fn cni_of(route: &Route) -> Option<&'static str> {
    if route.is_owned() || route.protocol == protocol::KERNEL {
        return None;
    }
    let by_protocol = PLUGIN_PROTOCOLS.iter().find(|(number, _)| *number == route.protocol);
    let device = route.next_hop.device.as_ref().map_or("", |device| device.as_raw());
    let by_interface =
        || PLUGIN_INTERFACES.iter().find(|(start, _)| device.starts_with(start)).map(|(_, cni)| *cni);
    by_protocol.map(|(_, cni)| *cni).or_else(by_interface)
}

/// Returns `true` if a route leads into a cluster prefix, but not only to this node's own pods.
fn leads_to_other_pods(examination: &Examination<'_>, route: &Route) -> bool {
    let destination = route.destination;
    let is_own = examination.node().pods.around(destination).is_some();
    !is_own && examination.cluster.prefixes.around(destination).is_some()
}

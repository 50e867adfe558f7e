//! Finds other CNIs that manage routes to pods.

use std::collections::BTreeMap;

use super::{Patient, finding};
use crate::{
    diagnose::{Diagnostic, Rule},
    state::{Route, protocol},
    text::count,
};

/// The CNIs that mark their routes with a protocol of their own.
const PROTOCOLS: [(u8, &str); 2] = [(17, "kube-router"), (80, "Calico")];

/// The prefixes of the names of interfaces that CNIs create to reach other nodes.
const INTERFACES: [(&str, &str); 8] = [
    ("antrea-gw", "Antrea"),
    ("cilium_", "Cilium"),
    ("flannel", "flannel"),
    ("ovn-k8s-", "OVN-Kubernetes"),
    ("tunl0", "Calico"),
    ("vxlan.calico", "Calico"),
    ("weave", "Weave Net"),
    ("wireguard.cali", "Calico"),
];

/// The prefixes of the names of chains that CNIs create.
const CHAINS: [(&str, &str); 6] = [
    ("ANTREA-", "Antrea"),
    ("CILIUM_", "Cilium"),
    ("FLANNEL-", "flannel"),
    ("KUBE-ROUTER-", "kube-router"),
    ("WEAVE-", "Weave Net"),
    ("cali-", "Calico"),
];

/// Reports another CNI that adds routes to pods, as hostgw does. hostgw does not report chains alone: the CNI may be
/// configured to leave the routes to hostgw.
pub(super) fn examine(patient: &Patient<'_>) -> Vec<Diagnostic> {
    let host = &patient.observed.host;
    let mut by_cni: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
    for route in patient.observed.state.routes.iter().chain(&host.foreign).chain(&host.others) {
        if let Some(cni) = cni_of(route).filter(|_| leads_to_other_pods(patient, route)) {
            by_cni.entry(cni).or_default().push(route);
        }
    }
    let chains = |cni: &str| {
        let chains = host.firewall.iter().flat_map(|firewall| &firewall.chains);
        let mut names: Vec<&str> = chains.map(|chain| chain.name.as_raw()).collect();
        names.retain(|name| CHAINS.iter().any(|(start, owner)| *owner == cni && name.starts_with(start)));
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
                "remove {cni}, or configure it not to add routes: two programs must not manage the same routes"
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
    let by_protocol = PROTOCOLS.iter().find(|(number, _)| *number == route.protocol);
    let device = route.next.device.as_ref().map_or("", |device| device.as_raw());
    let by_interface = || INTERFACES.iter().find(|(start, _)| device.starts_with(start)).map(|(_, cni)| *cni);
    by_protocol.map(|(_, cni)| *cni).or_else(by_interface)
}

/// Returns `true` if a route leads into a cluster prefix, but not only to this node's own pods.
fn leads_to_other_pods(patient: &Patient<'_>, route: &Route) -> bool {
    let destination = route.destination;
    let is_own = patient.node().pods.around(destination).is_some();
    !is_own && patient.cluster.prefixes.around(destination).is_some()
}

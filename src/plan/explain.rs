//! Why each change of a plan is there.

use crate::{
    model::{Cluster, ConfigPath},
    state::{Route, State, SysctlKey},
};

use super::{Change, Desired, RouteChange, Saved, SavedValue, SysctlChange};

/// Why a change is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// In words, a fragment: "pods of node linux-2".
    pub text: String,
    /// The place in the configuration that asks for it; none for what the configuration no longer has.
    pub origin: Option<ConfigPath>,
    /// The configuration has asked for this since the last apply: it is the kernel that was changed.
    pub drift: bool,
}

/// The purpose of the on-link route.
pub(super) const ON_LINK: &str = "on-link route of the cluster prefix";

/// The purpose of NAT.
pub(super) const MASQUERADE: &str = "masquerade";

/// The purpose of the forwarding switches.
pub(super) const FORWARDS: &str = "a gateway node forwards";

/// The purpose of a sysctl that the file sets.
pub(super) const SYSCTLS: &str = "sysctls";

/// The purpose of a route to a node.
pub(super) fn pods_of(node: &str) -> String {
    format!("pods of node {node}")
}

/// Why a sysctl is written that has its value already.
pub(super) fn rewritten_after(switch: &SysctlKey) -> String {
    format!("written again after {switch}, which rewrites it")
}

/// Says why `change` is part of the plan for `desired`. `last` is what the last apply put in force, as far
/// as it is known.
#[must_use]
pub fn explain(
    cluster: Option<&Cluster>,
    desired: &Desired,
    saved: &Saved,
    last: Option<&State>,
    change: &Change,
) -> Reason {
    match change {
        Change::Route(route) => explain_route(cluster, desired, last, route),
        Change::Nat(nat) => Reason {
            text: match (&nat.after, cluster) {
                (Some(_), _) => MASQUERADE.to_owned(),
                (None, Some(_)) => "nothing is masqueraded in this family".to_owned(),
                (None, None) => "owned by hostgw".to_owned(),
            },
            origin: cluster.filter(|_| nat.after.is_some()).map(|_| ConfigPath::root().key("nat")),
            drift: last.is_some_and(|last| last.nat.get(nat.family) == nat.after.as_ref()),
        },
        Change::Sysctl(sysctl) => explain_sysctl(cluster, saved, last, sysctl),
    }
}

fn explain_route(
    cluster: Option<&Cluster>,
    desired: &Desired,
    last: Option<&State>,
    change: &RouteChange,
) -> Reason {
    let key = &change.key;
    let wanted = |state: &State| {
        let from = state.routes.partition_point(|route| route.key() < *key);
        let standing: Vec<&Route> =
            state.routes[from..].iter().take_while(|route| route.key() == *key).collect();
        standing == change.after.iter().filter(|route| route.is_owned()).collect::<Vec<_>>()
    };
    let drift = last.is_some_and(wanted);
    let origin = cluster.and_then(|cluster| desired.route_origin(cluster, key));
    let adopts = change.before.iter().any(|route| !route.is_owned());
    let purpose = match (cluster, desired.node_of(key), &origin) {
        (Some(cluster), Some(node), _) => pods_of(&cluster.nodes[node].name),
        (Some(_), None, Some(_)) => ON_LINK.to_owned(),
        (Some(_), None, None) => "owned by hostgw, not in the file".to_owned(),
        (None, ..) => "owned by hostgw".to_owned(),
    };
    let text = if adopts { format!("takes over a foreign route: {purpose}") } else { purpose };
    Reason { text, origin, drift }
}

fn explain_sysctl(
    cluster: Option<&Cluster>,
    saved: &Saved,
    last: Option<&State>,
    change: &SysctlChange,
) -> Reason {
    let configured = |cluster: &&Cluster| cluster.sysctls.iter().any(|(key, _)| *key == change.key);
    let drift = last.is_some_and(|last| last.sysctls.get(&change.key) == Some(&change.after));
    let configured = cluster.as_ref().is_some_and(configured);
    let origin = ConfigPath::root().key("sysctls").key(change.key.as_str());
    if let Some(switch) = &change.rewritten_by {
        let text = rewritten_after(switch);
        return Reason { text, origin: configured.then_some(origin), drift: false };
    }
    if configured {
        return Reason { text: SYSCTLS.to_owned(), origin: Some(origin), drift };
    }
    let switches = [SysctlKey::ipv4_forwarding(), SysctlKey::ipv6_forwarding()];
    if cluster.is_some() && switches.contains(&change.key) && change.after != "0" {
        let origin = ConfigPath::root().key("clusterPrefix");
        return Reason { text: FORWARDS.to_owned(), origin: Some(origin), drift };
    }
    let text = match saved.0.get(&change.key) {
        Some(SavedValue { value, .. }) if *value == change.after => "as it was before hostgw".to_owned(),
        Some(SavedValue { with: Some(switch), .. }) => format!("as {switch} makes it"),
        _ => "as it was".to_owned(),
    };
    Reason { text, origin: None, drift: false }
}

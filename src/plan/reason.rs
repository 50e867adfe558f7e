//! The reason for each change of a plan.

use std::borrow::Cow;

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    state::{Route, State},
    text::Untrusted,
};

use super::{
    Action, Change, Desired, NatChange, OriginalSysctls, OriginalValue, PreviousConfig, RouteChange,
    SysctlChange,
    compare::{Explanation, Side},
    desired::Origin,
};

/// What is known about the last apply.
pub struct PreviousApply<'a> {
    /// The NAT tables and sysctls that it applied.
    pub state: &'a State,
    /// The routes that it applied, if they are known.
    pub routes: Option<Cow<'a, [Route]>>,
    /// The configuration that it applied, compared with the current one. `None` if they are the same or it is unknown.
    pub previous: Option<PreviousConfig<'a>>,
}

impl<'a> PreviousApply<'a> {
    /// Creates the value if only the state is known.
    #[must_use]
    pub fn of_state(state: &'a State) -> Self {
        Self { state, routes: Some(Cow::Borrowed(&state.routes)), previous: None }
    }
}

/// The reason for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The reason as a sentence fragment, such as "pods of node linux-2".
    pub text: String,
    /// The locations in the current or the previous configuration, best first: a file may omit the value.
    pub places: Vec<(Side, ConfigPath)>,
    /// Whether the configuration already asked for this at the last apply, so that the live state must have changed.
    pub drift: bool,
}

/// The reason for the on-link route.
pub(crate) const ON_LINK: &str = "on-link route of the cluster prefix";

/// The reason for the unreachable route.
pub(crate) const UNASSIGNED: &str = "addresses in the cluster prefix that no node has";

/// The reason for NAT.
pub(super) const MASQUERADE: &str = "masquerade";

/// The reason for the forwarding switches.
pub(crate) const FORWARDING: &str = "forwarding is required on every node with pods";

/// The reason for a configured sysctl.
pub(super) const CONFIGURED_SYSCTL: &str = "set under sysctls";

/// Returns the reason for a route to a node.
pub(super) fn pods_of(node: &Untrusted) -> String {
    format!("pods of node {node}")
}

/// Returns the reason for writing a sysctl that already has the desired value.
pub(super) fn rewritten_after(switch: &SysctlKey) -> String {
    format!("set again: {switch} overwrites it")
}

/// Returns the reason that `change` is part of the plan for `desired`.
#[must_use]
pub fn reason(
    cluster: Option<&Cluster>,
    desired: &Desired,
    saved: &OriginalSysctls,
    last: Option<&PreviousApply<'_>>,
    change: &Change,
) -> Reason {
    let podless = without_pods(cluster, desired);
    match change {
        Change::Route(route) => route_reason(cluster, desired, last, route),
        Change::Nat(nat) => Reason {
            text: match (&nat.after, cluster) {
                (Some(_), _) => MASQUERADE.to_owned(),
                (None, Some(_)) if podless.is_some() => "no pods on this node".to_owned(),
                (None, Some(_)) => "masquerading disabled".to_owned(),
                (None, None) => "managed by hostgw".to_owned(),
            },
            places: podless.or_else(|| Some(nat_path(cluster?, nat))).into_iter().map(current).collect(),
            drift: last.is_some_and(|last| last.state.nat.get(nat.family) == nat.after.as_ref()),
        },
        Change::Sysctl(sysctl) => sysctl_reason(cluster, saved, last, sysctl),
    }
}

/// Returns the key that says that the node has no pods.
fn without_pods(cluster: Option<&Cluster>, desired: &Desired) -> Option<ConfigPath> {
    let index = desired.node?;
    let has_pods = cluster?.nodes.get(index)?.has_pods();
    (!has_pods).then(|| ConfigPath::root().key("nodes").index(index).key("podCIDR"))
}

/// Returns a location in the current configuration.
const fn current(path: ConfigPath) -> (Side, ConfigPath) {
    (Side::New, path)
}

/// Returns the key of the configuration that asks for a table, or for none.
fn nat_path(cluster: &Cluster, change: &NatChange) -> ConfigPath {
    let root = ConfigPath::root();
    match &change.after {
        Some(_) => root.key("nat"),
        None if !cluster.nat.masquerade => root.key("nat").key("masquerade"),
        None => root.key("clusterPrefix"),
    }
}

fn route_reason(
    cluster: Option<&Cluster>,
    desired: &Desired,
    last: Option<&PreviousApply<'_>>,
    change: &RouteChange,
) -> Reason {
    let key = &change.key;
    let is_desired_in = |last: &[Route]| {
        let from = last.partition_point(|route| route.key() < *key);
        let routes: Vec<&Route> = last[from..].iter().take_while(|route| route.key() == *key).collect();
        routes == change.after.iter().filter(|route| route.is_owned()).collect::<Vec<_>>()
    };
    let drift = last.and_then(|last| last.routes.as_ref()).is_some_and(|routes| is_desired_in(routes));
    let origin = desired.origin(key);
    let adopts = change.before.iter().any(|route| !route.is_owned() && !change.after.contains(route));
    let purpose = || match (cluster, origin) {
        (Some(cluster), Some(Origin::Node(node))) => pods_of(&cluster.nodes[node].name),
        (Some(_), Some(Origin::ClusterPrefix)) => ON_LINK.to_owned(),
        (Some(_), Some(Origin::Unassigned)) => UNASSIGNED.to_owned(),
        (Some(_), None) => "not in the configuration".to_owned(),
        (None, _) => "managed by hostgw".to_owned(),
    };
    let places = || {
        let path = cluster.zip(origin).map(|(cluster, origin)| origin.path(cluster, key.destination));
        path.into_iter().map(current).collect()
    };
    let previous = last.and_then(|last| last.previous.as_ref()).filter(|_| !drift);
    let action = if change.after.is_empty() { Action::Remove } else { Action::Update };
    let explained = previous.and_then(|previous| previous.route(key, action));
    let Explanation { text, places } =
        explained.unwrap_or_else(|| Explanation { text: purpose(), places: places() });
    let text = if adopts { format!("adopt foreign route ({text})") } else { text };
    Reason { text, places, drift }
}

fn sysctl_reason(
    cluster: Option<&Cluster>,
    saved: &OriginalSysctls,
    last: Option<&PreviousApply<'_>>,
    change: &SysctlChange,
) -> Reason {
    let configured = |cluster: &&Cluster| cluster.sysctls.iter().any(|(key, _)| *key == change.key);
    let drift = last.is_some_and(|last| last.state.sysctls.get(&change.key) == Some(&change.after));
    let configured = cluster.as_ref().is_some_and(configured);
    let origin = ConfigPath::root().key("sysctls").key(change.key.as_str());
    if let Some(switch) = &change.rewritten_by {
        let text = rewritten_after(switch);
        return Reason {
            text,
            places: configured.then_some(current(origin)).into_iter().collect(),
            drift: false,
        };
    }
    if configured {
        return Reason { text: CONFIGURED_SYSCTL.to_owned(), places: vec![current(origin)], drift };
    }
    let switches = [SysctlKey::ipv4_forwarding(), SysctlKey::ipv6_forwarding()];
    if cluster.is_some() && switches.contains(&change.key) && change.after != "0" {
        let origin = ConfigPath::root().key("clusterPrefix");
        return Reason { text: FORWARDING.to_owned(), places: vec![current(origin)], drift };
    }
    let text = match saved.0.get(&change.key) {
        Some(OriginalValue { value, .. }) if *value == change.after => "restore original value".to_owned(),
        Some(OriginalValue { with: Some(switch), .. }) => format!("side effect of {switch}"),
        _ => "restore previous value".to_owned(),
    };
    let previous = last.and_then(|last| last.previous.as_ref()).filter(|_| cluster.is_some());
    let places = previous.map(|previous| previous.sysctl(&change.key)).into_iter().collect();
    Reason { text, places, drift: false }
}

//! Why each change of a plan is there.

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    state::{Route, State},
    text::Untrusted,
};

use super::{
    Action, Change, Desired, NatChange, OriginalSysctls, OriginalValue, PreviousConfig, RouteChange,
    SysctlChange,
    compare::{Explanation, Side},
};

/// What the last apply put in force, as far as it is known.
pub struct PreviousApply<'a> {
    /// The desired state it was made of.
    pub state: &'a State,
    /// The configuration it was made from, beside the one that is planned now; none where they are the same, or
    /// where it is not known.
    pub previous: Option<PreviousConfig<'a>>,
}

impl<'a> PreviousApply<'a> {
    /// What is known where the configuration is not.
    #[must_use]
    pub const fn of_state(state: &'a State) -> Self {
        Self { state, previous: None }
    }
}

/// Why a change is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// In words, a fragment: "pods of node linux-2".
    pub text: String,
    /// Where it stands in the configuration, or in the one that was applied last; the best place first: a value
    /// that a file does not mention stands nowhere in it.
    pub places: Vec<(Side, ConfigPath)>,
    /// The configuration has asked for this since the last apply: it is the kernel that was changed.
    pub drift: bool,
}

/// The purpose of the on-link route.
pub(super) const ON_LINK: &str = "on-link route of the cluster prefix";

/// The purpose of NAT.
pub(super) const MASQUERADE: &str = "masquerade";

/// The purpose of the forwarding switches.
pub(crate) const FORWARDS: &str = "forwarding: required on every node";

/// The purpose of a sysctl that the file sets.
pub(super) const SYSCTLS: &str = "sysctls";

/// The purpose of a route to a node.
pub(super) fn pods_of(node: &Untrusted) -> String {
    format!("pods of node {node}")
}

/// Why a sysctl is written that has its value already.
pub(super) fn rewritten_after(switch: &SysctlKey) -> String {
    format!("rewritten because {switch} resets it")
}

/// Says why `change` is part of the plan for `desired`.
#[must_use]
pub fn reason(
    cluster: Option<&Cluster>,
    desired: &Desired,
    saved: &OriginalSysctls,
    last: Option<&PreviousApply<'_>>,
    change: &Change,
) -> Reason {
    match change {
        Change::Route(route) => route_reason(cluster, desired, last, route),
        Change::Nat(nat) => Reason {
            text: match (&nat.after, cluster) {
                (Some(_), _) => MASQUERADE.to_owned(),
                (None, Some(_)) => "masquerading disabled".to_owned(),
                (None, None) => "owned by hostgw".to_owned(),
            },
            places: cluster.map(|cluster| nat_path(cluster, nat)).into_iter().map(now).collect(),
            drift: last.is_some_and(|last| last.state.nat.get(nat.family) == nat.after.as_ref()),
        },
        Change::Sysctl(sysctl) => sysctl_reason(cluster, saved, last, sysctl),
    }
}

/// A place in the configuration that is planned.
const fn now(path: ConfigPath) -> (Side, ConfigPath) {
    (Side::New, path)
}

/// What in the configuration asks for a table, or for none.
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
    let wanted = |state: &State| {
        let from = state.routes.partition_point(|route| route.key() < *key);
        let standing: Vec<&Route> =
            state.routes[from..].iter().take_while(|route| route.key() == *key).collect();
        standing == change.after.iter().filter(|route| route.is_owned()).collect::<Vec<_>>()
    };
    let drift = last.is_some_and(|last| wanted(last.state));
    let origin = cluster.and_then(|cluster| desired.route_origin(cluster, key));
    let adopts = change.before.iter().any(|route| !route.is_owned() && !change.after.contains(route));
    let purpose = match (cluster, desired.node_of(key), &origin) {
        (Some(cluster), Some(node), _) => pods_of(&cluster.nodes[node].name),
        (Some(_), None, Some(_)) => ON_LINK.to_owned(),
        (Some(_), None, None) => "not in the configuration".to_owned(),
        (None, ..) => "owned by hostgw".to_owned(),
    };
    let previous = last.and_then(|last| last.previous.as_ref()).filter(|_| !drift);
    let action = if change.after.is_empty() { Action::Remove } else { Action::Change };
    let explained = previous.and_then(|previous| previous.route(key, action));
    let Explanation { text, places } = explained
        .unwrap_or_else(|| Explanation { text: purpose, places: origin.into_iter().map(now).collect() });
    let text = if adopts { format!("adopt foreign route: {text}") } else { text };
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
            places: configured.then_some(now(origin)).into_iter().collect(),
            drift: false,
        };
    }
    if configured {
        return Reason { text: SYSCTLS.to_owned(), places: vec![now(origin)], drift };
    }
    let switches = [SysctlKey::ipv4_forwarding(), SysctlKey::ipv6_forwarding()];
    if cluster.is_some() && switches.contains(&change.key) && change.after != "0" {
        let origin = ConfigPath::root().key("clusterPrefix");
        return Reason { text: FORWARDS.to_owned(), places: vec![now(origin)], drift };
    }
    let text = match saved.0.get(&change.key) {
        Some(OriginalValue { value, .. }) if *value == change.after => "restore original value".to_owned(),
        Some(OriginalValue { with: Some(switch), .. }) => format!("as {switch} makes it"),
        _ => "as it was".to_owned(),
    };
    let previous = last.and_then(|last| last.previous.as_ref()).filter(|_| cluster.is_some());
    let places = previous.map(|previous| previous.sysctl(&change.key)).into_iter().collect();
    Reason { text, places, drift: false }
}

//! Compares the sysctls of two configurations. They are the same on all Linux nodes with pods, and on all without.

use std::collections::BTreeMap;

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    plan::{Change, ForeignPolicy, desired, plan},
    state::State,
    text::Untrusted,
};

use super::{
    Cause, ConfigKey, Delta, Member, NodeStatus, ObjectChange, Purpose, Side,
    pairing::{NodePairing, PodPresence},
    routes::node_key,
};

/// Computes the sysctl changes of nodes with the same status, grouped by nodes with the same changes.
pub(super) fn deltas(
    pairing: &NodePairing<'_>,
    status: NodeStatus,
    members: &[Member],
) -> Vec<(Vec<Member>, Vec<Delta>)> {
    let deltas = pairing.split_by_presence(members).into_iter().map(|(presence, members)| {
        let found = deltas_of_part(pairing, status, presence, &members);
        (members, found)
    });
    deltas.collect()
}

/// Computes the changes of nodes that all have pods, or all have none, in each configuration.
fn deltas_of_part(
    pairing: &NodePairing<'_>,
    status: NodeStatus,
    presence: PodPresence,
    members: &[Member],
) -> Vec<Delta> {
    let old = pairing.old.filter(|_| status != NodeStatus::New);
    let before = old.map(|old| desired::sysctls(old, presence.before)).unwrap_or_default();
    let after = match status {
        NodeStatus::Removed => BTreeMap::new(),
        _ => desired::sysctls(pairing.new, presence.after),
    };
    let has_changed = status == NodeStatus::Existing && presence.changes();
    let pods_key = || node_key(members, "podCIDR").filter(|_| has_changed);
    let delta = |key: &SysctlKey, before: Option<&Untrusted>, after: Option<&Untrusted>, cause| Delta {
        item: ObjectChange::Sysctl { key: key.clone(), before: before.cloned(), after: after.cloned() },
        except: Vec::new(),
        only: None,
        cause,
    };
    let mut deltas = Vec::new();
    let (desired, previous) = (state(&after), state(&before));
    for change in plan(&desired, &previous, ForeignPolicy::Respect).changes {
        if let Change::Sysctl(change) = change {
            let cause = match change.rewritten_by {
                Some(switch) => Cause::Rewritten { key: change.key.clone(), switch },
                None => Cause::Changed(vec![key_of(&change.key, Some(pairing.new))]),
            };
            deltas.push(delta(&change.key, Some(&change.before), Some(&change.after), cause));
        }
    }
    for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(key)) {
        let cause = match status {
            NodeStatus::New => Cause::Configured(Side::New, purpose(key, pairing.new)),
            _ => {
                let pods = pods_key().filter(|_| !is_configured(key, pairing.new));
                Cause::Changed(vec![pods.unwrap_or_else(|| key_of(key, Some(pairing.new)))])
            }
        };
        deltas.push(delta(key, None, Some(value), cause));
    }
    for (key, value) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        let is_listed = pairing.old.is_some_and(|old| is_configured(key, old));
        let released = pods_key().filter(|_| !is_listed).unwrap_or_else(|| key_of(key, pairing.old));
        deltas.push(delta(key, Some(value), None, Cause::Released(released)));
    }
    deltas
}

fn state(sysctls: &BTreeMap<SysctlKey, Untrusted>) -> State {
    State { sysctls: sysctls.clone(), ..State::default() }
}

fn is_configured(key: &SysctlKey, cluster: &Cluster) -> bool {
    cluster.sysctls.iter().any(|(configured, _)| configured == key)
}

/// Returns the key that asks for a sysctl: its own entry, or the cluster prefix.
fn key_of(key: &SysctlKey, cluster: Option<&Cluster>) -> ConfigKey {
    ConfigKey::Global(path_of(key, cluster))
}

pub(super) fn path_of(key: &SysctlKey, cluster: Option<&Cluster>) -> ConfigPath {
    let root = ConfigPath::root();
    match cluster {
        Some(cluster) if !is_configured(key, cluster) => root.key("clusterPrefix"),
        _ => root.key("sysctls").key(key.as_str()),
    }
}

fn purpose(key: &SysctlKey, cluster: &Cluster) -> Purpose {
    if is_configured(key, cluster) { Purpose::Sysctl(key.clone()) } else { Purpose::Forwarding }
}

//! Sysctls of two files: the same on all Linux nodes.

use std::collections::BTreeMap;

use crate::{
    model::{Cluster, ConfigPath, SysctlKey},
    plan::{Change, Policy, desired, plan},
    state::State,
    text::Untrusted,
};

use super::{Cause, Delta, Item, Key, Purpose, Side, Standing, view::View};

/// The sysctls that change on nodes of this standing.
pub(super) fn deltas(view: &View<'_>, standing: Standing) -> Vec<Delta> {
    let before = view.old.filter(|_| standing != Standing::New).map(desired::sysctls).unwrap_or_default();
    let after = if standing == Standing::Removed { BTreeMap::new() } else { desired::sysctls(view.new) };
    let delta = |key: &SysctlKey, before: Option<&Untrusted>, after: Option<&Untrusted>, cause| Delta {
        item: Item::Sysctl { key: key.clone(), before: before.cloned(), after: after.cloned() },
        except: Vec::new(),
        only: None,
        cause,
    };
    let mut deltas = Vec::new();
    let (wanted, standing_values) = (state(&after), state(&before));
    for change in plan(&wanted, &standing_values, Policy::Respect).changes {
        if let Change::Sysctl(change) = change {
            let cause = match change.rewritten_by {
                Some(switch) => Cause::Rewritten { key: change.key.clone(), switch },
                None => Cause::Changed(vec![key_of(&change.key, Some(view.new))]),
            };
            deltas.push(delta(&change.key, Some(&change.before), Some(&change.after), cause));
        }
    }
    for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(key)) {
        let cause = match standing {
            Standing::New => Cause::Asked(Side::New, purpose(key, view.new)),
            _ => Cause::Changed(vec![key_of(key, Some(view.new))]),
        };
        deltas.push(delta(key, None, Some(value), cause));
    }
    for (key, value) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        let released = key_of(key, view.old);
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

/// What in the configuration asks for a sysctl: an entry of its own, or a family of the cluster prefix.
fn key_of(key: &SysctlKey, cluster: Option<&Cluster>) -> Key {
    Key::Global(path_of(key, cluster))
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

//! NAT tables of two files: the same on all Linux nodes, but for each node's own pod CIDR in them.

use ipnet::IpNet;

use crate::{
    model::{Cluster, ConfigPath, Family, NatSource, Node},
    plan::{NatChange, desired},
    state::{Expression, NatObject, RuleBody},
};

use super::{
    Cause, ConfigKey, Delta, Member, NodeStatus, ObjectChange, PerNodeCidr, Purpose, Side,
    pairing::NodePairing, routes::own_key,
};

/// What the tables of a node depend on, beyond the files: whether it has a pod CIDR of its own that stands
/// in them, and whether that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TableVariant {
    had_own: bool,
    has_own: bool,
    changed: bool,
}

/// What changes in the tables of these nodes, all of one standing, by nodes with the same changes.
pub(super) fn deltas(
    pairing: &NodePairing<'_>,
    status: NodeStatus,
    members: &[Member],
) -> Vec<(Vec<Member>, Vec<Delta>)> {
    let mut deltas = Vec::new();
    for family in Family::ALL {
        for part in by_kind(pairing, family, members) {
            let found = deltas_of_kind(pairing, status, family, &part);
            deltas.push((part, found));
        }
    }
    deltas
}

fn by_kind(pairing: &NodePairing<'_>, family: Family, members: &[Member]) -> Vec<Vec<Member>> {
    parts(members, |member| {
        let PerNodeCidr { before, after } = own(pairing, family, *member);
        TableVariant { had_own: before.is_some(), has_own: after.is_some(), changed: before != after }
    })
}

/// The nodes by what they have in common, in the order of the first of each.
pub(super) fn parts<K: PartialEq>(members: &[Member], key: impl Fn(&Member) -> K) -> Vec<Vec<Member>> {
    let mut parts: Vec<(K, Vec<Member>)> = Vec::new();
    for member in members {
        let key = key(member);
        match parts.iter_mut().find(|(known, _)| *known == key) {
            Some((_, part)) => part.push(*member),
            None => parts.push((key, vec![*member])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// The pod CIDRs of a node that stand in its tables.
fn own(pairing: &NodePairing<'_>, family: Family, member: Member) -> PerNodeCidr {
    let stands = |side: Option<(&Cluster, &Node)>| -> Option<IpNet> {
        let (cluster, node) = side.filter(|(cluster, _)| cluster.nat.source == NatSource::Pods)?;
        let is_masqueraded = cluster.nat.masquerade && cluster.prefixes.get(family).is_some();
        is_masqueraded.then(|| Some(node.pod_cidrs.get(family)?.prefix())).flatten()
    };
    PerNodeCidr { before: stands(pairing.before(member)), after: stands(pairing.after(member)) }
}

/// The changes of nodes whose tables differ in their own pod CIDRs alone: those of the first stand for all.
fn deltas_of_kind(
    pairing: &NodePairing<'_>,
    status: NodeStatus,
    family: Family,
    members: &[Member],
) -> Vec<Delta> {
    let Some(&first) = members.first() else { return Vec::new() };
    let table = |side: Option<(&Cluster, &Node)>| {
        side.and_then(|(cluster, node)| desired::nat_table(cluster, node, family))
    };
    let before = table(pairing.before(first)).filter(|_| status != NodeStatus::New);
    let after = table(pairing.after(first)).filter(|_| status != NodeStatus::Removed);
    if before == after {
        return Vec::new();
    }
    let own = if members.len() > 1 { own(pairing, family, first) } else { PerNodeCidr::default() };
    let cause = match status {
        NodeStatus::New => Cause::Configured(Side::New, Purpose::Masquerade),
        NodeStatus::Removed => Cause::Configured(Side::Old, Purpose::Masquerade),
        NodeStatus::Stays => Cause::Changed(changed_keys(pairing, family, members)),
    };
    let lines = NatChange { family, before, after }.lines();
    lines
        .into_iter()
        .map(|(_, before, after)| {
            let is_exclusion = before.iter().chain(&after).any(is_exclusion);
            let cause = cause_of_line(&cause, is_exclusion);
            Delta { item: ObjectChange::Nat { before, after, own }, except: Vec::new(), only: None, cause }
        })
        .collect()
}

/// Whether it is a rule for a destination that keeps the source address.
fn is_exclusion(object: &NatObject) -> bool {
    matches!(object, NatObject::Rule { rule, .. }
        if matches!(&rule.body, RuleBody::Known(expressions) if expressions.contains(&Expression::Return)))
}

/// Those keys that have to do with the line, where some have: exclusions are rules of their own.
fn cause_of_line(cause: &Cause, is_exclusion: bool) -> Cause {
    let Cause::Changed(keys) = cause else { return cause.clone() };
    let exclude = ConfigKey::Global(exclude_path());
    let (own, others): (Vec<ConfigKey>, Vec<ConfigKey>) =
        keys.iter().cloned().partition(|key| (*key == exclude) == is_exclusion);
    Cause::Changed(if own.is_empty() { others } else { own })
}

fn exclude_path() -> ConfigPath {
    ConfigPath::root().key("nat").key("exclude")
}

/// What in the files gives nodes that stay other tables.
fn changed_keys(pairing: &NodePairing<'_>, family: Family, members: &[Member]) -> Vec<ConfigKey> {
    let Some(old) = pairing.old else { return Vec::new() };
    let new = pairing.new;
    let root = ConfigPath::root();
    let excluded = |cluster: &Cluster| -> Vec<IpNet> {
        cluster.nat.exclude.iter().copied().filter(|prefix| Family::from(*prefix) == family).collect()
    };
    let mut keys: Vec<ConfigKey> = [
        (old.prefixes.get(family) != new.prefixes.get(family), root.key("clusterPrefix")),
        (old.nat.masquerade != new.nat.masquerade, root.key("nat").key("masquerade")),
        (excluded(old) != excluded(new), exclude_path()),
        (old.nat.source != new.nat.source, root.key("nat").key("source")),
        (old.nat.random_fully != new.nat.random_fully, root.key("nat").key("randomFully")),
    ]
    .into_iter()
    .filter(|(differs, _)| *differs)
    .map(|(_, path)| ConfigKey::Global(path))
    .collect();
    let cidr =
        |side: Option<(&Cluster, &Node)>| side.and_then(|(_, node)| node.pod_cidrs.get(family).copied());
    let pods_matter = [old, new].iter().all(|cluster| cluster.nat.source == NatSource::Pods);
    if pods_matter
        && members.iter().any(|member| cidr(pairing.before(*member)) != cidr(pairing.after(*member)))
    {
        keys.extend(own_key(members, "podCIDR"));
    }
    keys
}

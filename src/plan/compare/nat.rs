//! NAT tables of two files: the same on all Linux nodes, but for each node's own pod CIDR in them.

use ipnet::IpNet;

use crate::{
    model::{Cluster, ConfigPath, Family, NatSource, Node},
    plan::{NatChange, desired},
    state::{Expression, NatObject, RuleBody},
};

use super::{Cause, Delta, Item, Key, Member, Own, Purpose, Side, Standing, routes::own_key, view::View};

/// What the tables of a node depend on, beyond the files: whether it has a pod CIDR of its own that stands
/// in them, and whether that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    had_own: bool,
    has_own: bool,
    changed: bool,
}

/// What changes in the tables of these nodes, all of one standing, by nodes with the same changes.
pub(super) fn deltas(
    view: &View<'_>,
    standing: Standing,
    members: &[Member],
) -> Vec<(Vec<Member>, Vec<Delta>)> {
    let mut deltas = Vec::new();
    for family in Family::ALL {
        for part in by_kind(view, family, members) {
            let found = deltas_of_kind(view, standing, family, &part);
            deltas.push((part, found));
        }
    }
    deltas
}

fn by_kind(view: &View<'_>, family: Family, members: &[Member]) -> Vec<Vec<Member>> {
    parts(members, |member| {
        let Own { before, after } = own(view, family, *member);
        Kind { had_own: before.is_some(), has_own: after.is_some(), changed: before != after }
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
fn own(view: &View<'_>, family: Family, member: Member) -> Own {
    let stands = |side: Option<(&Cluster, &Node)>| -> Option<IpNet> {
        let (cluster, node) = side.filter(|(cluster, _)| cluster.nat.source == NatSource::Pods)?;
        let is_masqueraded = cluster.nat.masquerade && cluster.prefixes.get(family).is_some();
        is_masqueraded.then(|| Some(node.pod_cidrs.get(family)?.prefix())).flatten()
    };
    Own { before: stands(view.before(member)), after: stands(view.after(member)) }
}

/// The changes of nodes whose tables differ in their own pod CIDRs alone: those of the first stand for all.
fn deltas_of_kind(view: &View<'_>, standing: Standing, family: Family, members: &[Member]) -> Vec<Delta> {
    let Some(&first) = members.first() else { return Vec::new() };
    let table = |side: Option<(&Cluster, &Node)>| {
        side.and_then(|(cluster, node)| desired::nat_table(cluster, node, family))
    };
    let before = table(view.before(first)).filter(|_| standing != Standing::New);
    let after = table(view.after(first)).filter(|_| standing != Standing::Removed);
    if before == after {
        return Vec::new();
    }
    let own = if members.len() > 1 { own(view, family, first) } else { Own::default() };
    let cause = match standing {
        Standing::New => Cause::Asked(Side::New, Purpose::Masquerade),
        Standing::Removed => Cause::Asked(Side::Old, Purpose::Masquerade),
        Standing::Stays => Cause::Changed(changed_keys(view, family, members)),
    };
    let lines = NatChange { family, before, after }.lines();
    lines
        .into_iter()
        .map(|(_, before, after)| {
            let is_exclusion = before.iter().chain(&after).any(is_exclusion);
            let cause = cause_of_line(&cause, is_exclusion);
            Delta { item: Item::Nat { before, after, own }, except: Vec::new(), only: None, cause }
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
    let exclude = Key::Global(exclude_path());
    let (own, others): (Vec<Key>, Vec<Key>) =
        keys.iter().cloned().partition(|key| (*key == exclude) == is_exclusion);
    Cause::Changed(if own.is_empty() { others } else { own })
}

fn exclude_path() -> ConfigPath {
    ConfigPath::root().key("nat").key("exclude")
}

/// What in the files gives nodes that stay other tables.
fn changed_keys(view: &View<'_>, family: Family, members: &[Member]) -> Vec<Key> {
    let Some(old) = view.old else { return Vec::new() };
    let new = view.new;
    let root = ConfigPath::root();
    let excluded = |cluster: &Cluster| -> Vec<IpNet> {
        cluster.nat.exclude.iter().copied().filter(|prefix| Family::from(*prefix) == family).collect()
    };
    let mut keys: Vec<Key> = [
        (old.prefixes.get(family) != new.prefixes.get(family), root.key("clusterPrefix")),
        (old.nat.masquerade != new.nat.masquerade, root.key("nat").key("masquerade")),
        (excluded(old) != excluded(new), exclude_path()),
        (old.nat.source != new.nat.source, root.key("nat").key("source")),
        (old.nat.random_fully != new.nat.random_fully, root.key("nat").key("randomFully")),
    ]
    .into_iter()
    .filter(|(differs, _)| *differs)
    .map(|(_, path)| Key::Global(path))
    .collect();
    let cidr =
        |side: Option<(&Cluster, &Node)>| side.and_then(|(_, node)| node.pod_cidrs.get(family).copied());
    let pods_matter = [old, new].iter().all(|cluster| cluster.nat.source == NatSource::Pods);
    if pods_matter && members.iter().any(|member| cidr(view.before(*member)) != cidr(view.after(*member))) {
        keys.extend(own_key(members, "podCIDR"));
    }
    keys
}

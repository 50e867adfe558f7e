//! Compares the NAT tables of two configurations. They are the same on all Linux nodes, except for the node's own pod
//! CIDR and address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{Cluster, ConfigPath, Family, NatSource, NatTo, Node, Prefixed},
    plan::{NatChange, desired},
    state::{Expression, NatObject, RuleBody},
};

use super::{
    Cause, ConfigKey, Delta, Member, NodeStatus, ObjectChange, PerNodeAddress, PerNodeCidr, Purpose, Side,
    pairing::{NodePairing, PodPresence, group_by},
    routes::node_key,
};

/// What distinguishes the tables of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TableVariant {
    presence: PodPresence,
    own: OwnCidrs,
    address: ValuePresence,
}

/// The pod CIDRs in the tables of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum OwnCidrs {
    /// At most one under each configuration. Such tables look alike.
    AtMostOne(ValuePresence),
    /// Several under one of the configurations.
    Several([Vec<IpNet>; 2]),
}

/// Whether tables contain a value of the node, and whether it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ValuePresence {
    before: bool,
    after: bool,
    changes: bool,
}

/// Computes the table changes of nodes with the same status, grouped by nodes with the same changes.
pub(super) fn deltas(
    pairing: &NodePairing<'_>,
    status: NodeStatus,
    members: &[Member],
) -> Vec<(Vec<Member>, Vec<Delta>)> {
    let mut deltas = Vec::new();
    for family in Family::ALL {
        for part in group_by_variant(pairing, family, members) {
            let found = deltas_of_variant(pairing, status, family, &part);
            deltas.push((part, found));
        }
    }
    deltas
}

fn group_by_variant(pairing: &NodePairing<'_>, family: Family, members: &[Member]) -> Vec<Vec<Member>> {
    group_by(members, |member| {
        let [before, after] = contained_cidrs(pairing, family, *member);
        let own = if before.len().max(after.len()) > 1 {
            OwnCidrs::Several([before, after])
        } else {
            OwnCidrs::AtMostOne(ValuePresence {
                before: !before.is_empty(),
                after: !after.is_empty(),
                changes: before != after,
            })
        };
        let addresses = contained_addresses(pairing, family, *member);
        let address = ValuePresence {
            before: addresses.before.is_some(),
            after: addresses.after.is_some(),
            changes: addresses.before != addresses.after,
        };
        TableVariant { presence: pairing.presence(*member), own, address }
    })
}

/// Returns the pod CIDRs of a node that its tables contain, under the old configuration and under the new one.
fn contained_cidrs(pairing: &NodePairing<'_>, family: Family, member: Member) -> [Vec<IpNet>; 2] {
    let is_contained = |(cluster, _): &(&Cluster, &Node)| {
        cluster.nat.source == NatSource::Pods && cluster.masquerades(family)
    };
    [pairing.before(member), pairing.after(member)].map(|side| {
        let pods = side.filter(is_contained).into_iter().flat_map(|(_, node)| node.pods.of(family));
        pods.map(Prefixed::prefix).collect()
    })
}

/// Returns the addresses of a node that its tables contain.
fn contained_addresses(pairing: &NodePairing<'_>, family: Family, member: Member) -> PerNodeAddress {
    let contained = |side: Option<(&Cluster, &Node)>| -> Option<IpAddr> {
        let (cluster, node) = side.filter(|(cluster, _)| cluster.nat.to == NatTo::NodeAddress)?;
        (cluster.masquerades(family) && node.has_pods())
            .then(|| node.addresses.get(family).copied())
            .flatten()
    };
    PerNodeAddress { before: contained(pairing.before(member)), after: contained(pairing.after(member)) }
}

/// Computes the changes of nodes whose tables differ only in their own pod CIDRs and addresses. The first node represents
/// all of them.
fn deltas_of_variant(
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
    let (own, addresses) = match contained_cidrs(pairing, family, first).map(Vec::into_iter) {
        // Nodes with several pod CIDRs are alone.
        [mut before, mut after] if members.len() > 1 && before.len().max(after.len()) <= 1 => (
            PerNodeCidr { before: before.next(), after: after.next() },
            contained_addresses(pairing, family, first),
        ),
        _ => Default::default(),
    };
    let cause = match status {
        NodeStatus::New => Cause::Configured(Side::New, Purpose::Masquerade),
        NodeStatus::Removed => Cause::Configured(Side::Old, Purpose::Masquerade),
        NodeStatus::Existing => Cause::Changed(changed_keys(pairing, family, members)),
    };
    let lines = NatChange { family, before, after }.lines();
    lines
        .into_iter()
        .map(|(_, before, after)| {
            let is_exclusion = before.iter().chain(&after).any(is_exclusion);
            let cause = cause_of_line(&cause, is_exclusion);
            // Other lines do not contain an address.
            let is_of = |object: &Option<NatObject>| object.as_ref().is_some_and(has_address);
            let address = PerNodeAddress {
                before: addresses.before.filter(|_| is_of(&before)),
                after: addresses.after.filter(|_| is_of(&after)),
            };
            let item = ObjectChange::Nat { before, after, own, address };
            Delta { item, except: Vec::new(), only: None, cause }
        })
        .collect()
}

/// Returns `true` for a rule that sets the source address of packets.
fn has_address(object: &NatObject) -> bool {
    matches!(object, NatObject::Rule { rule, .. }
        if matches!(&rule.body, RuleBody::Known(expressions)
            if expressions.iter().any(|expression| matches!(expression, Expression::SourceNat { .. }))))
}

/// Returns `true` for a rule that excludes a destination from masquerading.
fn is_exclusion(object: &NatObject) -> bool {
    matches!(object, NatObject::Rule { rule, .. }
        if matches!(&rule.body, RuleBody::Known(expressions) if expressions.contains(&Expression::Return)))
}

/// Keeps the keys that relate to the line, if there are any. Every exclusion is a separate rule.
fn cause_of_line(cause: &Cause, is_exclusion: bool) -> Cause {
    let Cause::Changed(keys) = cause else { return cause.clone() };
    let exclude = ConfigKey::Global(exclude_path());
    let (related, others): (Vec<ConfigKey>, Vec<ConfigKey>) =
        keys.iter().cloned().partition(|key| (*key == exclude) == is_exclusion);
    Cause::Changed(if related.is_empty() { others } else { related })
}

fn exclude_path() -> ConfigPath {
    ConfigPath::root().key("nat").key("exclude")
}

/// Returns the keys whose changes affect the tables of nodes that stay.
fn changed_keys(pairing: &NodePairing<'_>, family: Family, members: &[Member]) -> Vec<ConfigKey> {
    let Some(old) = pairing.old else { return Vec::new() };
    let new = pairing.new;
    let root = ConfigPath::root();
    let excluded = |cluster: &Cluster| -> Vec<IpNet> {
        cluster.nat.exclude.iter().copied().filter(|prefix| Family::from(*prefix) == family).collect()
    };
    let mut keys: Vec<ConfigKey> = [
        (!old.prefixes.of(family).eq(new.prefixes.of(family)), root.key("clusterPrefix")),
        (old.nat.masquerade != new.nat.masquerade, root.key("nat").key("masquerade")),
        (excluded(old) != excluded(new), exclude_path()),
        (old.nat.source != new.nat.source, root.key("nat").key("source")),
        (old.nat.to != new.nat.to, root.key("nat").key("to")),
        (old.nat.random_fully != new.nat.random_fully, root.key("nat").key("randomFully")),
    ]
    .into_iter()
    .filter(|(differs, _)| *differs)
    .map(|(_, path)| ConfigKey::Global(path))
    .collect();
    if members.iter().any(|member| pairing.presence(*member).changes()) {
        keys.extend(node_key(members, "podCIDR"));
        return keys;
    }
    let pods_are_sources = [old, new].iter().all(|cluster| cluster.nat.source == NatSource::Pods);
    let is_renumbered = |member: &Member| {
        let [before, after] = pairing.pod_cidrs(*member, family);
        before != after
    };
    if pods_are_sources && members.iter().any(is_renumbered) {
        keys.extend(node_key(members, "podCIDR"));
    }
    let is_readdressed = |member: &Member| {
        let PerNodeAddress { before, after } = contained_addresses(pairing, family, *member);
        before != after
    };
    if [old, new].iter().all(|cluster| cluster.nat.to == NatTo::NodeAddress)
        && members.iter().any(is_readdressed)
    {
        keys.extend(node_key(members, "address"));
    }
    keys
}

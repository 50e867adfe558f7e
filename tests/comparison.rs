//! `hostgw diff` reports for all nodes what `plan` reports for each node.

use std::collections::{BTreeMap, BTreeSet};

use hostgw::{
    model::{Cluster, Family, Prefixed},
    plan::{
        self, Action, Change, Comparison, ForeignPolicy, OriginalSysctls, compare,
        compare::{Delta, Member, NodeGroup, ObjectChange, PerNodeAddress, PerNodeCidr},
        windows::WindowsOrigin,
    },
    state::{Expression, Field, NatObject, NatRule, Route, RouteType, RuleBody, State, WindowsRoute},
};
use proptest::prelude::*;

use crate::support::clusters::two;
use hostgw::text::Untrusted;

/// One object: its action, and its state before and after.
type Line = (Action, Option<String>, Option<String>);

/// Returns the changes that the comparison lists for one node.
fn listed(comparison: &Comparison, old: &Cluster, new: &Cluster, member: Member) -> Vec<Line> {
    let concerns = |block: &&NodeGroup| block.members.contains(&member);
    let deltas = comparison.groups.iter().filter(concerns).flat_map(|block| &block.deltas);
    sorted(
        deltas
            .filter(|delta| !delta.except.contains(&member) && delta.only.is_none_or(|only| only == member))
            .map(|Delta { item, .. }| {
                let (before, after) = on_node(item, old, new, member);
                (item.action(), before, after)
            })
            .collect(),
    )
}

/// Returns the item as it is on one node.
fn on_node(
    item: &ObjectChange,
    old: &Cluster,
    new: &Cluster,
    member: Member,
) -> (Option<String>, Option<String>) {
    let before = member.old.map(|index| (old, &old.nodes[index]));
    let after = member.new.map(|index| (new, &new.nodes[index]));
    match item {
        ObjectChange::Route {
            before: gone,
            after: come,
            own: PerNodeAddress { before: old_own, after: new_own },
        } => {
            let by_device =
                |route: &Option<Route>, own: Option<_>, side: Option<(&Cluster, &hostgw::model::Node)>| {
                    let mut route = route.clone()?;
                    if route.kind != RouteType::Unicast {
                        return Some(route.to_string());
                    }
                    let (cluster, node) = side.expect("the node is in that file");
                    let device = cluster.egress_interface_of(node).map(|name| name.as_str().into());
                    assert!(route.next_hop.device.is_none() || route.next_hop.device == device, "{route}");
                    route.next_hop.device = device;
                    if own.is_some() {
                        assert_eq!(route.source, own);
                        route.source = node.addresses.get(route.family()).copied();
                    }
                    Some(route.to_string())
                };
            (by_device(gone, *old_own, before), by_device(come, *new_own, after))
        }
        ObjectChange::WindowsRoute {
            before: gone,
            after: come,
            own: PerNodeCidr { before: old_own, after: new_own },
        } => {
            let as_on_node = |route: &Option<WindowsRoute>,
                              own: Option<_>,
                              side: Option<(&Cluster, &hostgw::model::Node)>| {
                let mut route = route.clone()?;
                let (cluster, node) = side.expect("the node is in that file");
                let alias = cluster.egress_interface_of(node).map(|name| name.as_str().into());
                assert!(route.interface_alias.is_none() || route.interface_alias == alias, "{route}");
                route.interface_alias = alias;
                if let Some(own) = own {
                    assert_eq!(route.destination_prefix, own);
                    route.destination_prefix = only_cidr(node, route.family());
                }
                Some(route.to_string())
            };
            (as_on_node(gone, *old_own, before), as_on_node(come, *new_own, after))
        }
        ObjectChange::Forwarding { forwarding, before, after } => {
            let text = |asks: bool| asks.then(|| forwarding.text(true));
            (text(*before), text(*after))
        }
        ObjectChange::Nat {
            before: gone,
            after: come,
            own: PerNodeCidr { before: old_own, after: new_own },
            address: PerNodeAddress { before: old_address, after: new_address },
        } => {
            let with_own = |object: &Option<NatObject>,
                            own: Option<_>,
                            address: Option<_>,
                            side: Option<(&Cluster, &hostgw::model::Node)>| {
                let object = object.as_ref()?;
                if own.is_none() && address.is_none() {
                    return Some(object.to_string());
                }
                let (_, node) = side.expect("the node is in that file");
                Some(replace_own(object, own, address, node).to_string())
            };
            (with_own(gone, *old_own, *old_address, before), with_own(come, *new_own, *new_address, after))
        }
        ObjectChange::Sysctl { key, before, after } => {
            let text = |value: &Option<Untrusted>| value.as_ref().map(|value| format!("{key} = {value}"));
            (text(before), text(after))
        }
    }
}

/// Only nodes with one pod CIDR of a family are alike.
fn only_cidr(node: &hostgw::model::Node, family: Family) -> ipnet::IpNet {
    let mut pods = node.pods.of(family);
    let cidr = pods.next().expect("a pod CIDR of the family").prefix();
    assert!(pods.next().is_none(), "{} has several", node.name);
    cidr
}

fn replace_own(
    object: &NatObject,
    own: Option<ipnet::IpNet>,
    address: Option<std::net::IpAddr>,
    node: &hostgw::model::Node,
) -> NatObject {
    let NatObject::Rule { family, chain, rule: NatRule { body: RuleBody::Known(expressions), comment } } =
        object
    else {
        return object.clone();
    };
    let replaced = expressions.iter().map(|expression| match expression {
        Expression::Address { field: Field::Saddr, negated, prefix } if own.is_some() => {
            assert_eq!(Some(*prefix), own);
            let of_node = only_cidr(node, *family);
            Expression::Address { field: Field::Saddr, negated: *negated, prefix: of_node }
        }
        Expression::SourceNat { address: shown, flags } if address.is_some() => {
            assert_eq!(Some(*shown), address);
            let address = *node.addresses.get(*family).expect("an address of the family");
            Expression::SourceNat { address, flags: *flags }
        }
        other => *other,
    });
    let rule = NatRule { body: RuleBody::Known(replaced.collect()), comment: comment.clone() };
    NatObject::Rule { family: *family, chain: chain.clone(), rule }
}

/// The desired state of a node under one of the files; `None` if that file has no such Linux node.
fn held(side: Option<(&Cluster, usize)>) -> Option<State> {
    side.and_then(|(cluster, index)| plan::desired(cluster, index, &OriginalSysctls::default()).ok())
        .map(|desired| desired.state)
}

/// The changes that `plan` computes for that node alone. A sysctl that only one file asks for is not part of `plan`,
/// which knows the live state.
fn planned(old: &Cluster, new: &Cluster, member: Member) -> Vec<Line> {
    let (before, after) = (member.old.map(|index| (old, index)), member.new.map(|index| (new, index)));
    let os = |side: Option<(&Cluster, usize)>| side.map(|(cluster, index)| cluster.nodes[index].os);
    // A node with another operating system has lost its previous state.
    let before = before.filter(|_| os(after).is_none() || os(before) == os(after));
    let mut lines = windows_lines(before, after);
    let (before, after) = (held(before).unwrap_or_default(), held(after).unwrap_or_default());
    for change in plan::plan(&after, &before, ForeignPolicy::Respect).changes {
        let text = |object: &dyn std::fmt::Display| object.to_string();
        match &change {
            Change::Route(change) => {
                lines.extend(change.lines().into_iter().map(|(action, before, after)| {
                    (action, before.map(|route| text(route)), after.map(|route| text(route)))
                }))
            }
            Change::Nat(change) => lines.extend(change.lines().into_iter().map(|(action, before, after)| {
                (action, before.map(|object| text(&object)), after.map(|object| text(&object)))
            })),
            Change::Sysctl(change) => lines.push((
                Action::Update,
                Some(format!("{} = {}", change.key, change.before)),
                Some(format!("{} = {}", change.key, change.after)),
            )),
        }
    }
    let only = |one: &State, other: &State| -> Vec<String> {
        let only = one.sysctls.iter().filter(|(key, _)| !other.sysctls.contains_key(key));
        only.map(|(key, value)| format!("{key} = {value}")).collect()
    };
    lines.extend(only(&after, &before).into_iter().map(|text| (Action::Add, None, Some(text))));
    lines.extend(only(&before, &after).into_iter().map(|text| (Action::Remove, Some(text), None)));
    sorted(lines)
}

/// The desired state of a Windows node under one of the files: routes by destination, forwarding settings by name.
fn windows_held(side: Option<(&Cluster, usize)>) -> BTreeMap<(bool, String), String> {
    let Some(desired) = side.and_then(|(cluster, index)| plan::windows_desired(cluster, index)) else {
        return BTreeMap::new();
    };
    let routes = desired.state.routes.iter().zip(&desired.origins).map(|(route, origin)| {
        let is_own = matches!(origin, WindowsOrigin::OwnPods(_));
        ((is_own, route.destination_prefix.to_string()), route.to_string())
    });
    let forwarding = desired.state.forwarding.iter().map(|one| ((false, one.name()), one.text(true)));
    routes.chain(forwarding).collect()
}

fn windows_lines(before: Option<(&Cluster, usize)>, after: Option<(&Cluster, usize)>) -> Vec<Line> {
    let (before, after) = (windows_held(before), windows_held(after));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let line = |key| match (before.get(key), after.get(key)) {
        (before, after) if before == after => None,
        (None, after) => Some((Action::Add, None, after.cloned())),
        (before, None) => Some((Action::Remove, before.cloned(), None)),
        (before, after) => Some((Action::Update, before.cloned(), after.cloned())),
    };
    keys.into_iter().filter_map(line).collect()
}

fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_key(|line| format!("{line:?}"));
    lines
}

/// Every node of either file.
fn members(comparison: &Comparison, old: &Cluster, new: &Cluster) -> Vec<Member> {
    let paired = |pick: fn(&Member) -> Option<usize>, index: usize| {
        comparison.pairs.iter().any(|pair| pick(pair) == Some(index))
    };
    let new_only = (0..new.nodes.len()).filter(|index| !paired(|pair| pair.new, *index));
    let old_only = (0..old.nodes.len()).filter(|index| !paired(|pair| pair.old, *index));
    let mut all = comparison.pairs.clone();
    all.extend(new_only.map(|index| Member { old: None, new: Some(index) }));
    all.extend(old_only.map(|index| Member { old: Some(index), new: None }));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_comparison_is_the_plan_of_every_node((old, new) in two()) {
        let comparison = compare(Some(&old), &new);
        let mut totals = [0_usize; 4];
        for member in members(&comparison, &old, &new) {
            let listed = listed(&comparison, &old, &new, member);
            prop_assert_eq!(&listed, &planned(&old, &new, member), "{:?}", member);
            for (action, ..) in &listed {
                totals[*action as usize] += 1;
            }
            totals[3] += usize::from(!listed.is_empty());
        }
        let counted = comparison.totals();
        prop_assert_eq!(totals, [counted.add, counted.update, counted.remove, counted.nodes]);
    }

    #[test]
    fn a_file_compared_with_nothing_is_the_plan_of_every_fresh_node((_, new) in two()) {
        let nothing = Cluster { nodes: Vec::new(), ..new.clone() };
        let comparison = compare(None, &new);
        for index in 0..new.nodes.len() {
            let member = Member { old: None, new: Some(index) };
            prop_assert_eq!(listed(&comparison, &nothing, &new, member), planned(&nothing, &new, member));
        }
    }

    #[test]
    fn the_same_file_changes_nothing((old, _) in two()) {
        prop_assert!(compare(Some(&old), &old).is_empty());
    }

    /// Packets between two nodes must fit both ends, whichever of them sends.
    #[test]
    fn routes_between_two_nodes_have_the_smaller_mtu_of_both((cluster, _) in two()) {
        let mtu = |index: usize| cluster.nodes[index].mtu().or(cluster.routes.mtu);
        for index in 0..cluster.nodes.len() {
            let Ok(desired) = plan::desired(&cluster, index, &OriginalSysctls::default()) else { continue };
            for route in &desired.state.routes {
                let expected = match desired.node_of(&route.key()) {
                    Some(other) => [mtu(index), mtu(other)].into_iter().flatten().min(),
                    None => mtu(index).filter(|_| route.kind == RouteType::Unicast),
                };
                prop_assert_eq!(route.mtu, expected, "{}", route);
            }
        }
    }

    #[test]
    fn no_block_and_no_change_is_empty((old, new) in two()) {
        let comparison = compare(Some(&old), &new);
        for block in &comparison.groups {
            prop_assert!(!block.deltas.is_empty());
            for delta in &block.deltas {
                let mut named = delta.except.iter().chain(&delta.only);
                prop_assert!(block.reach(delta) > 0 && named.all(|node| block.members.contains(node)));
            }
        }
    }
}

//! Resolves a comparison into text and locations.

use std::borrow::Cow;

use crate::{
    model::{Cluster, ConfigPath, Node},
    plan::{
        Comparison,
        compare::{
            Cause, Delta, Member, NodeGroup, NodeStatus, ObjectChange, PerNodeAddress, PerNodeCidr, Purpose,
            Side,
        },
    },
    render::{
        ChangeEntry, SourceLocation,
        report::{AffectedNodes, NatPlace, Object, ReasonEntry},
    },
    state::{Column, NatObject, NatPlaceholders, ObjectKind, Route, RouteType, WindowsRoute, join_words},
    text::Untrusted,
};

use super::{
    BeforeAfter, BlockReport, ComparedFiles, NodeEntry, Renamed,
    collapse::{self, Classes},
};

/// How many changes of a block are resolved before their memory is freed.
const DELTAS_PER_STEP: usize = 4096;

/// The placeholder for the pod CIDR of each node, if it is the same in both configurations.
const POD_CIDR: &str = "POD-CIDR";

/// The placeholder for the old pod CIDR.
const OLD_POD_CIDR: &str = "OLD-POD-CIDR";

/// The placeholder for the new pod CIDR.
const NEW_POD_CIDR: &str = "NEW-POD-CIDR";

/// The placeholder for the address of each node, if it is the same in both configurations.
const NODE_ADDRESS: &str = "NODE-ADDRESS";

/// The placeholder for the old address.
const OLD_NODE_ADDRESS: &str = "OLD-NODE-ADDRESS";

/// The placeholder for the new address.
const NEW_NODE_ADDRESS: &str = "NEW-NODE-ADDRESS";

/// Resolves the parts of a comparison into text and locations.
pub(super) struct Resolver<'a> {
    pub files: ComparedFiles<'a>,
    pub locate: &'a dyn Fn(Side, &ConfigPath) -> Option<SourceLocation>,
}

impl Resolver<'_> {
    fn before(&self, member: Member) -> Option<(&Cluster, &Node)> {
        let (_, cluster) = self.files.old?;
        Some((cluster, cluster.nodes.get(member.old?)?))
    }

    fn after(&self, member: Member) -> Option<(&Cluster, &Node)> {
        let (_, cluster) = self.files.new;
        Some((cluster, cluster.nodes.get(member.new?)?))
    }

    fn name(&self, member: Member) -> Untrusted {
        let node = self.after(member).or_else(|| self.before(member));
        node.map_or_else(Untrusted::default, |(_, node)| node.name.clone())
    }

    pub fn renamed(&self, comparison: &Comparison) -> Vec<Renamed> {
        let renamed = comparison.pairs.iter().filter_map(|member| {
            let (before, after) = (&self.before(*member)?.1.name, &self.after(*member)?.1.name);
            let place = || ConfigPath::root().key("nodes").index(member.new.unwrap_or(0)).key("name");
            (before != after).then(|| Renamed {
                before: before.clone(),
                after: after.clone(),
                location: (self.locate)(Side::New, &place()),
            })
        });
        renamed.collect()
    }

    /// The nodes in both configurations, by their old names.
    pub fn kept(&self, comparison: &Comparison) -> Vec<Untrusted> {
        let name = |member: &Member| Some(self.before(*member)?.1.name.clone());
        comparison.pairs.iter().filter_map(name).collect()
    }

    pub fn block(&self, mut block: NodeGroup) -> BlockReport {
        let has_no_device = |item: &ObjectChange| match item {
            ObjectChange::Route { before, after, .. } => {
                let has_none =
                    |route: &Route| route.kind == RouteType::Unicast && route.next_hop.device.is_none();
                before.iter().chain(after).any(has_none)
            }
            ObjectChange::WindowsRoute { before, after, .. } => {
                before.iter().chain(after).any(|route| route.interface_alias.is_none())
            }
            _ => false,
        };
        let has_placeholder = |item: &ObjectChange| matches!(item, ObjectChange::Nat { own, .. } | ObjectChange::WindowsRoute { own, .. } if *own != PerNodeCidr::default());
        let has_address = |item: &ObjectChange| {
            let (ObjectChange::Route { own: address, .. } | ObjectChange::Nat { address, .. }) = item else {
                return false;
            };
            *address != PerNodeAddress::default()
        };
        let no_device = block.deltas.iter().any(|delta| has_no_device(&delta.item));
        let own = block.deltas.iter().any(|delta| has_placeholder(&delta.item));
        let own_address = block.deltas.iter().any(|delta| has_address(&delta.item));
        let node = |member: &Member| NodeEntry {
            address: own_address.then(|| self.addresses(*member).into()),
            egress_interface: no_device.then(|| self.egress_interface(*member).into()),
            pod_cidr: own.then(|| self.pod_cidr(*member).into()),
            ..self.node_of(block.status, *member)
        };
        let nodes = block.members.iter().map(node).collect();
        let mut deltas = std::mem::take(&mut block.deltas);
        let mut changes = Vec::with_capacity(deltas.len());
        let mut to_removed_nodes = Vec::with_capacity(deltas.len());
        let mut classes = Classes::default();
        // From the last on, so that each gives its memory to its entry: a large cluster has one for each node.
        while let Some(delta) = deltas.pop() {
            if deltas.len().is_multiple_of(DELTAS_PER_STEP) {
                deltas.shrink_to_fit();
            }
            changes.push(self.entry(&block, &delta));
            to_removed_nodes.push(is_route_to_removed_node(&delta));
            classes.push(delta.cause.class());
        }
        changes.reverse();
        to_removed_nodes.reverse();
        classes.reverse();
        BlockReport {
            status: block.status,
            os: block.members.first().and_then(|member| {
                self.after(*member).or_else(|| self.before(*member)).map(|(_, node)| node.os)
            }),
            nodes,
            collapsed: collapse::collapse(&classes, &changes),
            to_removed_nodes,
            changes,
        }
    }

    pub fn node(&self, member: Member) -> NodeEntry {
        let place = match member {
            Member { old: None, new: Some(index) } => Some((Side::New, index)),
            Member { old: Some(index), new: None } => Some((Side::Old, index)),
            _ => None,
        };
        let nodes = ConfigPath::root().key("nodes");
        let locate = |(side, index)| (self.locate)(side, &nodes.index(index));
        NodeEntry {
            name: self.name(member),
            egress_interface: None,
            pod_cidr: None,
            address: None,
            location: place.and_then(locate).map(Into::into),
        }
    }

    /// Same as [`Self::node`], for a node of a block. A node that became a Linux node is located at its `os`.
    fn node_of(&self, status: NodeStatus, member: Member) -> NodeEntry {
        let os = || ConfigPath::root().key("nodes").index(member.new.unwrap_or(0)).key("os");
        let node = self.node(member);
        match (status, member.old) {
            (NodeStatus::New, Some(_)) => {
                NodeEntry { location: (self.locate)(Side::New, &os()).map(Into::into), ..node }
            }
            _ => node,
        }
    }

    fn egress_interface(&self, member: Member) -> BeforeAfter {
        let device = |side: Option<(&Cluster, &Node)>| {
            let name = side.and_then(|(cluster, node)| cluster.egress_interface_of(node));
            name.map(ToString::to_string).into_iter().collect()
        };
        BeforeAfter { before: device(self.before(member)), after: device(self.after(member)) }
    }

    fn addresses(&self, member: Member) -> BeforeAfter {
        let addresses = |side: Option<(&Cluster, &Node)>| {
            let node = side.map(|(_, node)| node);
            node.into_iter()
                .flat_map(|node| node.addresses.iter())
                .map(|(_, address)| address.to_string())
                .collect()
        };
        BeforeAfter { before: addresses(self.before(member)), after: addresses(self.after(member)) }
    }

    fn pod_cidr(&self, member: Member) -> BeforeAfter {
        let cidrs = |side: Option<(&Cluster, &Node)>| {
            let node = side.map(|(_, node)| node);
            node.into_iter()
                .flat_map(|node| node.pods.iter())
                .map(|network| network.cidr.to_string())
                .collect()
        };
        BeforeAfter { before: cidrs(self.before(member)), after: cidrs(self.after(member)) }
    }

    fn entry(&self, block: &NodeGroup, delta: &Delta) -> ChangeEntry {
        let (kind, before, after) = match &delta.item {
            ObjectChange::Route { before, after, own } => {
                let (old, new) = address_placeholders(own);
                let object = |route: &Option<Route>, own: Option<_>, placeholder| {
                    route.as_ref().map(|route| match own {
                        Some(_) => Object::SharedRoute {
                            route: route.clone().into(),
                            source: Cow::Borrowed(placeholder),
                        },
                        None => Object::route(route),
                    })
                };
                (ObjectKind::Route, object(before, own.before, old), object(after, own.after, new))
            }
            ObjectChange::WindowsRoute { before, after, own } => {
                let (old, new) = placeholders(own);
                let object = |route: &Option<_>, own: Option<_>, placeholder| {
                    route.as_ref().map(|route| windows_route(route, own.map(|_| placeholder)))
                };
                (ObjectKind::Route, object(before, own.before, old), object(after, own.after, new))
            }
            ObjectChange::Forwarding { forwarding, before, after } => {
                let object = |asks: bool| asks.then(|| Object::forwarding(*forwarding, true));
                (ObjectKind::Forwarding, object(*before), object(*after))
            }
            ObjectChange::Nat { before, after, own, address } => {
                let (old_cidr, new_cidr) = placeholders(own);
                let (old_address, new_address) = address_placeholders(address);
                let old = NatPlaceholders {
                    source: own.before.map(|own| (own, old_cidr)),
                    address: address.before.map(|own| (own, old_address)),
                };
                let new = NatPlaceholders {
                    source: own.after.map(|own| (own, new_cidr)),
                    address: address.after.map(|own| (own, new_address)),
                };
                let object = |object: &Option<NatObject>, placeholders| {
                    object.as_ref().map(|object| nat_object(object, placeholders))
                };
                (ObjectKind::Nat, object(before, old), object(after, new))
            }
            ObjectChange::Sysctl { key, before, after } => {
                let object = |value: &Option<Untrusted>| {
                    value.as_ref().map(|value| Object::sysctl(key.as_str(), value))
                };
                (ObjectKind::Sysctl, object(before), object(after))
            }
        };
        let except = delta.except.iter().map(|member| self.name(*member)).collect();
        ChangeEntry {
            action: delta.item.action(),
            kind,
            before,
            after,
            reason: self.reason(delta),
            on: Some(AffectedNodes {
                nodes: block.reach(delta),
                except,
                only: delta.only.map(|member| self.name(member)),
            }),
        }
    }

    fn reason(&self, delta: &Delta) -> ReasonEntry {
        let destination = match &delta.item {
            ObjectChange::Route { before, after, .. } => {
                after.as_ref().or(before.as_ref()).map(|route| route.destination)
            }
            ObjectChange::WindowsRoute { before, after, .. } => {
                after.as_ref().or(before.as_ref()).map(|route| route.destination_prefix)
            }
            ObjectChange::Nat { .. } | ObjectChange::Sysctl { .. } | ObjectChange::Forwarding { .. } => None,
        };
        let old = self.files.old.map(|(_, cluster)| cluster);
        let reason = delta.cause.explain(old, self.files.new.1, delta.item.action(), destination);
        let source = reason.places.iter().find_map(|(side, path)| (self.locate)(*side, path));
        let is_nat = matches!(delta.cause, Cause::Configured(_, Purpose::Masquerade));
        ReasonEntry::new(reason.text, source, is_nat)
    }
}

fn is_route_to_removed_node(delta: &Delta) -> bool {
    matches!(delta.item, ObjectChange::Route { .. } | ObjectChange::WindowsRoute { .. })
        && matches!(delta.cause, Cause::NodeRemoved(_))
}

/// The placeholders for the old and the new pod CIDR.
fn placeholders(own: &PerNodeCidr) -> (&'static str, &'static str) {
    let same = own.before == own.after || own.before.is_none() || own.after.is_none();
    if same { (POD_CIDR, POD_CIDR) } else { (OLD_POD_CIDR, NEW_POD_CIDR) }
}

/// The placeholders for the old and the new address.
fn address_placeholders(own: &PerNodeAddress) -> (&'static str, &'static str) {
    let same = own.before == own.after || own.before.is_none() || own.after.is_none();
    if same { (NODE_ADDRESS, NODE_ADDRESS) } else { (OLD_NODE_ADDRESS, NEW_NODE_ADDRESS) }
}

/// A route with its destination replaced by `placeholder`, if there is one.
fn windows_route(route: &WindowsRoute, placeholder: Option<&str>) -> Object {
    let Some(placeholder) = placeholder else { return Object::windows_route(route) };
    let mut words = route.words();
    for word in words.iter_mut().filter(|word| word.column == Column::Destination) {
        placeholder.clone_into(&mut word.value);
    }
    Object::of_text(placeholder.to_owned(), join_words(&words))
}

/// A NAT object with placeholders for what is the node's own. Managed tables only match source addresses.
fn nat_object(object: &NatObject, placeholders: NatPlaceholders<'_>) -> Object {
    if placeholders.source.is_none() && placeholders.address.is_none() {
        return Object::nat(object);
    }
    let text = object.text_with(placeholders);
    let name = if matches!(object, NatObject::Rule { .. }) { text.clone() } else { object.name() };
    Object::Text { name, text, nat: Some(NatPlace::of(object)) }
}

//! From what was compared to words and places.

use crate::{
    model::{Cluster, ConfigPath, Family, Node},
    plan::{
        Comparison,
        compare::{Cause, Delta, Member, NodeGroup, NodeStatus, ObjectChange, PerNodeCidr, Purpose, Side},
    },
    render::{
        Entry, Group, Source,
        report::{Object, Reach, ReasonEntry},
    },
    state::{NatObject, WindowsRoute},
    text::Untrusted,
};

use super::{BlockReport, Files, NodeEntry, Renamed, Values, short};

/// What stands in a rule for the pod CIDR of each node, where it is the same in both files.
const POD_CIDR: &str = "POD-CIDR";

/// The same for the pod CIDR by the old file, where the new one has another.
const OLD_POD_CIDR: &str = "OLD-POD-CIDR";

/// The same for the pod CIDR by the new file.
const NEW_POD_CIDR: &str = "NEW-POD-CIDR";

/// Makes words and places of what was compared.
pub(super) struct Resolver<'a> {
    pub files: Files<'a>,
    pub locate: &'a dyn Fn(Side, &ConfigPath) -> Option<Source>,
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
                source: (self.locate)(Side::New, &place()),
            })
        });
        renamed.collect()
    }

    /// The nodes that are in both files, by their old names.
    pub fn kept(&self, comparison: &Comparison) -> Vec<Untrusted> {
        let name = |member: &Member| Some(self.before(*member)?.1.name.clone());
        comparison.pairs.iter().filter_map(name).collect()
    }

    pub fn block(&self, block: &NodeGroup) -> BlockReport {
        let has_no_device = |item: &ObjectChange| match item {
            ObjectChange::Route { before, after } => {
                before.iter().chain(after).any(|route| route.next.device.is_none())
            }
            ObjectChange::WindowsRoute { before, after, .. } => {
                before.iter().chain(after).any(|route| route.interface_alias.is_none())
            }
            _ => false,
        };
        let has_own = |item: &ObjectChange| matches!(item, ObjectChange::Nat { own, .. } | ObjectChange::WindowsRoute { own, .. } if *own != PerNodeCidr::default());
        let no_device = block.deltas.iter().any(|delta| has_no_device(&delta.item));
        let own = block.deltas.iter().any(|delta| has_own(&delta.item));
        let node = |member: &Member| NodeEntry {
            egress_interface: no_device.then(|| self.egress_interface(*member)),
            pod_cidr: own.then(|| self.pod_cidr(*member)),
            ..self.node_of(block.status, *member)
        };
        let changes: Vec<Entry> = block.deltas.iter().map(|delta| self.entry(block, delta)).collect();
        BlockReport {
            standing: block.status,
            nodes: block.members.iter().map(node).collect(),
            short: short::short(block, &changes),
            to_removed_nodes: block.deltas.iter().map(leads_to_removed).collect(),
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
            source: place.and_then(locate),
        }
    }

    /// The same for a node of a block: one that is new as a Linux node stands where it became one.
    fn node_of(&self, standing: NodeStatus, member: Member) -> NodeEntry {
        let os = || ConfigPath::root().key("nodes").index(member.new.unwrap_or(0)).key("os");
        let node = self.node(member);
        match (standing, member.old) {
            (NodeStatus::New, Some(_)) => NodeEntry { source: (self.locate)(Side::New, &os()), ..node },
            _ => node,
        }
    }

    fn egress_interface(&self, member: Member) -> Values {
        let device = |side: Option<(&Cluster, &Node)>| {
            let name = side.and_then(|(cluster, node)| cluster.egress_interface_of(node));
            name.map(ToString::to_string).into_iter().collect()
        };
        Values { before: device(self.before(member)), after: device(self.after(member)) }
    }

    fn pod_cidr(&self, member: Member) -> Values {
        let cidrs = |side: Option<(&Cluster, &Node)>| {
            let node = side.map(|(_, node)| node);
            node.into_iter()
                .flat_map(|node| node.pod_cidrs.iter())
                .map(|(_, cidr)| cidr.to_string())
                .collect()
        };
        Values { before: cidrs(self.before(member)), after: cidrs(self.after(member)) }
    }

    fn entry(&self, block: &NodeGroup, delta: &Delta) -> Entry {
        let (kind, before, after) = match &delta.item {
            ObjectChange::Route { before, after } => {
                let object = |route: &Option<_>| route.as_ref().map(Object::route);
                (Group::Route, object(before), object(after))
            }
            ObjectChange::WindowsRoute { before, after, own } => {
                let (old, new) = own_words(own);
                let object = |route: &Option<_>, own: Option<_>, word| {
                    route.as_ref().map(|route| windows_route(route, own.map(|_| word)))
                };
                (Group::Route, object(before, own.before, old), object(after, own.after, new))
            }
            ObjectChange::Forwarding { forwarding, before, after } => {
                let object = |asks: bool| asks.then(|| Object::forwarding(*forwarding, true));
                (Group::Forwarding, object(*before), object(*after))
            }
            ObjectChange::Nat { before, after, own } => {
                let (old, new) = own_words(own);
                let object = |object: &Option<NatObject>, own, word| {
                    object.as_ref().map(|object| nat_object(object, own, word))
                };
                (Group::Nat, object(before, own.before, old), object(after, own.after, new))
            }
            ObjectChange::Sysctl { key, before, after } => {
                let object = |value: &Option<Untrusted>| {
                    value.as_ref().map(|value| Object::sysctl(key.as_str(), value))
                };
                (Group::Sysctl, object(before), object(after))
            }
        };
        let except = delta.except.iter().map(|member| self.name(*member)).collect();
        Entry {
            action: delta.item.action(),
            kind,
            before,
            after,
            reason: self.reason(delta),
            on: Some(Reach {
                nodes: block.reach(delta),
                except,
                only: delta.only.map(|member| self.name(member)),
            }),
        }
    }

    fn reason(&self, delta: &Delta) -> ReasonEntry {
        let family = match &delta.item {
            ObjectChange::Route { before, after } => {
                after.as_ref().or(before.as_ref()).map(|route| route.family())
            }
            ObjectChange::WindowsRoute { before, after, .. } => {
                after.as_ref().or(before.as_ref()).map(|route| route.family())
            }
            ObjectChange::Nat { .. } | ObjectChange::Sysctl { .. } | ObjectChange::Forwarding { .. } => None,
        };
        let old = self.files.old.map(|(_, cluster)| cluster);
        let told = delta.cause.explain(old, self.files.new.1, delta.item.action(), family);
        let source = told.places.iter().find_map(|(side, path)| (self.locate)(*side, path));
        let is_nat = matches!(delta.cause, Cause::Configured(_, Purpose::Masquerade));
        ReasonEntry::new(told.text, source, is_nat)
    }
}

fn leads_to_removed(delta: &Delta) -> bool {
    matches!(delta.item, ObjectChange::Route { .. } | ObjectChange::WindowsRoute { .. })
        && matches!(delta.cause, Cause::NodeRemoved(_))
}

/// What stands for the pod CIDR of each node, by the old file and by the new one.
fn own_words(own: &PerNodeCidr) -> (&'static str, &'static str) {
    let same = own.before == own.after || own.before.is_none() || own.after.is_none();
    if same { (POD_CIDR, POD_CIDR) } else { (OLD_POD_CIDR, NEW_POD_CIDR) }
}

/// A route with `word`, if there is one, in the place of its destination.
fn windows_route(route: &WindowsRoute, word: Option<&str>) -> Object {
    let Some(word) = word else { return Object::windows_route(route) };
    let destination = route.destination_prefix.to_string();
    Object::text(word.to_owned(), route.to_string().replacen(&destination, word, 1))
}

/// A line of the table with `word` in the place of the pod CIDR that stands for each node's own. A table of
/// hostgw's compares source addresses with nothing else.
fn nat_object(object: &NatObject, own: Option<ipnet::IpNet>, word: &str) -> Object {
    let Some(own) = own else { return Object::nat(object) };
    let source = |prefix: &str| format!("{} saddr {prefix} ", Family::from(own).nft());
    let replaced = |text: String| text.replacen(&source(&own.to_string()), &source(word), 1);
    Object::text(replaced(object.name()), replaced(object.to_string()))
}

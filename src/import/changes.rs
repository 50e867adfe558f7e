//! Compares the nodes of a configuration with those of a list.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{
    UpdateOptions,
    natural::natural_order,
    node::ImportedNode,
    survey::{Relevance, Survey, folded},
    syntax::{NO_PODS, NodeKey, keys_of},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, OperatingSystem},
    text::{Untrusted, list},
};

/// A difference between a configuration and a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeChange {
    /// The node.
    pub node: Untrusted,
    /// The change to the node.
    pub action: NodeChangeKind,
    /// The keys that change; all keys of an added node, and none of a removed one.
    pub keys: Vec<KeyChange>,
}

/// The kind of change to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeChangeKind {
    /// The node is only in the list, and is added.
    Add,
    /// Some values of the node differ.
    Update,
    /// The node is only in the configuration, and is removed.
    Remove,
}

/// A key of a node that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyChange {
    /// The key, such as `podCIDR`.
    pub key: &'static str,
    /// The values in the configuration; empty if it lacks the key.
    pub before: Vec<String>,
    /// The values in the list.
    pub after: Vec<String>,
}

/// A new node.
#[derive(Debug)]
pub(super) struct AddedNode {
    pub keys: Vec<NodeKey>,
    /// The node of the configuration that it follows; none at the start of the list.
    pub after: Option<usize>,
}

/// Everything that an update changes. Nodes are identified by their index in the configuration.
#[derive(Debug)]
pub(super) struct ChangeSet {
    nodes: Vec<FileNode>,
    pub removed: BTreeSet<usize>,
    pub updated: BTreeMap<usize, Vec<KeyChange>>,
    /// The new nodes, in the order in which they are written.
    pub added: Vec<AddedNode>,
    by_name: HashMap<String, usize>,
    changes: Vec<NodeChange>,
}

/// A node of the configuration.
#[derive(Debug)]
struct FileNode {
    name: String,
    os: String,
    pod_cidrs: Vec<String>,
    addresses: Vec<String>,
}

/// One text or a list of them.
pub(super) fn texts(value: &Json) -> Vec<String> {
    let text = |value: &Json| value.as_str().map(ToOwned::to_owned);
    match value {
        Json::Array(items) => items.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

impl ChangeSet {
    /// Compares a configuration with a list.
    pub fn new(configuration: &Json, survey: &Survey, options: &UpdateOptions) -> Self {
        let items = configuration["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let nodes: Vec<FileNode> = items.iter().map(FileNode::new).collect();
        let by_name = nodes.iter().enumerate().map(|(index, node)| (folded(&node.name), index)).collect();
        let mut set = Self {
            nodes,
            removed: BTreeSet::new(),
            updated: BTreeMap::new(),
            added: Vec::new(),
            by_name,
            changes: Vec::new(),
        };
        let renamed = set.find_renamed(survey);
        let known: BTreeSet<usize> =
            survey.listed.iter().filter_map(|node| set.index_of(&node.name)).collect();
        for (index, node) in set.nodes.iter().enumerate() {
            if !options.keep_missing && !known.contains(&index) && node.has_pods() {
                set.removed.insert(index);
                let node = node.name.as_str().into();
                set.changes.push(NodeChange { node, action: NodeChangeKind::Remove, keys: Vec::new() });
            }
        }
        for node in survey.nodes.iter().chain(&survey.without_pods) {
            let Some((index, file)) =
                set.index_of(&node.name).and_then(|index| Some((index, set.nodes.get(index)?)))
            else {
                continue;
            };
            let mut keys = file.changes(node);
            if renamed.contains(&index) {
                let (before, after) = (vec![file.name.clone()], vec![node.name.as_raw().to_owned()]);
                keys.insert(0, KeyChange { key: "name", before, after });
            }
            if !keys.is_empty() {
                let name = file.name.as_str().into();
                set.changes.push(NodeChange {
                    node: name,
                    action: NodeChangeKind::Update,
                    keys: keys.clone(),
                });
                set.updated.insert(index, keys);
            }
        }
        let cluster_egress = configuration["egressInterface"].as_str();
        let own_egress = options.egress_interface.as_deref().filter(|name| Some(*name) != cluster_egress);
        let without_pods = survey.without_pods.iter().filter(|_| options.all);
        let mut new: Vec<&ImportedNode> = survey.nodes.iter().chain(without_pods).collect();
        new.sort_by(|one, other| natural_order(one.name.as_raw(), other.name.as_raw()));
        set.add(new.into_iter(), own_egress);
        set.changes.sort_by(|one, other| {
            natural_order(one.node.as_raw(), other.node.as_raw()).then(one.action.cmp(&other.action))
        });
        set
    }

    /// Finds the nodes of the configuration that the list has with another name: the same machine has the same operating system,
    /// the same pod CIDRs, and an address in common. Kubernetes gives the pod CIDR of a deleted node to a new machine, and clouds give the address
    /// of one to another, but not both to the same one.
    fn find_renamed(&mut self, survey: &Survey) -> BTreeSet<usize> {
        let listed: BTreeSet<usize> =
            survey.listed.iter().filter_map(|node| self.index_of(&node.name)).collect();
        let mut by_cidrs: HashMap<Vec<IpNet>, Vec<usize>> = HashMap::new();
        for (index, file) in self.nodes.iter().enumerate().filter(|(index, _)| !listed.contains(index)) {
            by_cidrs.entry(file.sorted_pod_cidrs()).or_default().push(index);
        }
        let mut renamed = BTreeMap::new();
        for node in survey.nodes.iter().filter(|node| self.index_of(&node.name).is_none()) {
            let mut cidrs = node.pod_cidrs.clone();
            cidrs.sort_unstable();
            let Some([index]) = by_cidrs.get(&cidrs).map(Vec::as_slice) else { continue };
            let is_same = |file: &FileNode| file.os == node.os.to_string() && file.has_address_of(node);
            if !cidrs.is_empty() && self.nodes.get(*index).is_some_and(is_same) {
                renamed.insert(*index, folded(node.name.as_raw()));
            }
        }
        self.find_renamed_by_address(survey, &listed, &mut renamed);
        self.by_name.extend(renamed.iter().map(|(index, name)| (name.clone(), *index)));
        renamed.into_keys().collect()
    }

    /// Finds the machines without pods that the list has with another name. Only their addresses identify them.
    fn find_renamed_by_address(
        &self,
        survey: &Survey,
        listed: &BTreeSet<usize>,
        renamed: &mut BTreeMap<usize, String>,
    ) {
        let mut matches: Vec<(usize, &ImportedNode)> = Vec::new();
        let podless: Vec<(usize, &FileNode)> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(index, file)| !file.has_pods() && !listed.contains(index))
            .collect();
        let is_known = |node: &ImportedNode, renamed: &BTreeMap<usize, String>| {
            self.index_of(&node.name).is_some()
                || renamed.values().any(|name| *name == folded(node.name.as_raw()))
        };
        for node in survey.nodes.iter().chain(&survey.without_pods) {
            if podless.is_empty() || is_known(node, renamed) {
                continue;
            }
            let is_same = |file: &FileNode| file.os == node.os.to_string() && file.has_address_of(node);
            matches.extend(podless.iter().filter(|(_, file)| is_same(file)).map(|(index, _)| (*index, node)));
        }
        for (index, node) in &matches {
            let is_only = |one: &&(usize, &ImportedNode)| one.0 == *index || one.1.name == node.name;
            if matches.iter().filter(is_only).count() == 1 {
                renamed.insert(*index, folded(node.name.as_raw()));
            }
        }
    }

    /// Adds the nodes that the configuration lacks: in natural order if its nodes are in that order, otherwise at the end.
    fn add<'a>(&mut self, nodes: impl Iterator<Item = &'a ImportedNode>, egress: Option<&str>) {
        let kept: Vec<usize> = (0..self.nodes.len()).filter(|index| !self.removed.contains(index)).collect();
        let name = |index: &usize| self.nodes.get(*index).map_or("", |node| node.name.as_str());
        let is_sorted = kept.is_sorted_by(|one, other| natural_order(name(one), name(other)).is_le());
        let mut added = Vec::new();
        for node in nodes.filter(|node| self.index_of(&node.name).is_none()) {
            let after = if is_sorted {
                let following =
                    kept.partition_point(|index| natural_order(name(index), node.name.as_raw()).is_lt());
                following.checked_sub(1).and_then(|at| kept.get(at)).copied()
            } else {
                kept.last().copied()
            };
            let mut keys = keys_of(node);
            if let (Some(egress), OperatingSystem::Linux) = (egress, node.os) {
                keys.push(("egressInterface", vec![egress.to_owned()]));
            }
            added.push((node.name.clone(), AddedNode { keys, after }));
        }
        for (node, added) in added {
            let key = |(key, values): &NodeKey| KeyChange { key, before: Vec::new(), after: values.clone() };
            let keys = added.keys.iter().skip(1).map(key).collect();
            self.changes.push(NodeChange { node, action: NodeChangeKind::Add, keys });
            self.added.push(added);
        }
    }

    fn index_of(&self, name: &Untrusted) -> Option<usize> {
        self.by_name.get(&folded(name.as_raw())).copied()
    }

    /// The name of a node of the configuration.
    pub fn name(&self, index: usize) -> Untrusted {
        self.nodes.get(index).map(|node| node.name.as_str().into()).unwrap_or_default()
    }

    /// Returns `true` if the configuration has the node.
    pub fn keeps(&self, name: &Untrusted) -> bool {
        self.index_of(name).is_some()
    }

    /// Returns whether a warning about a node is of interest.
    pub fn relevance(&self, name: &Untrusted) -> Relevance {
        match self.index_of(name) {
            None => Relevance::New,
            Some(index) if self.updated.contains_key(&index) => Relevance::Changed,
            Some(_) => Relevance::Known,
        }
    }

    /// Returns `true` if nothing is different.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The number of nodes in the configuration.
    pub const fn nodes_before(&self) -> usize {
        self.nodes.len()
    }

    /// The number of nodes in the configuration that an update could remove.
    pub fn removable(&self) -> usize {
        self.nodes.iter().filter(|node| node.has_pods()).count()
    }

    /// The number of nodes after the update.
    pub fn nodes_after(&self) -> usize {
        self.nodes.len() - self.removed.len() + self.added.len()
    }

    /// The differences, in natural order.
    pub fn into_changes(self) -> Vec<NodeChange> {
        self.changes
    }

    /// Warns of nodes that have a pod CIDR only in the configuration.
    pub fn contradictions(&self, without_pods: &[ImportedNode]) -> Option<Diagnostic> {
        let kept: Vec<String> = without_pods
            .iter()
            .filter_map(|node| {
                let file = self.index_of(&node.name).and_then(|index| self.nodes.get(index))?;
                file.has_pods()
                    .then(|| format!("{} ({})", node.name, Untrusted::from(file.pod_cidrs.join(", "))))
            })
            .collect();
        (!kept.is_empty()).then(|| {
            let message = format!("keeping pod CIDRs that the list does not have: {}", list(&kept, 5));
            Diagnostic::new(Rule::NodeWithoutPodCidr, message)
                .with_remedy("if the node is being set up again, import again once it has a pod CIDR")
        })
    }

    /// Returns the configuration after the update as JSON.
    pub fn expected(&self, configuration: &Json) -> Json {
        let mut expected = configuration.clone();
        let Some(items) = expected.get_mut("nodes").and_then(Json::as_array_mut) else { return expected };
        let before = std::mem::take(items);
        let mut added: HashMap<Option<usize>, Vec<Json>> = HashMap::new();
        for node in &self.added {
            let keys = node.keys.iter().map(|(key, values)| ((*key).to_owned(), value(values, false)));
            added.entry(node.after).or_default().push(Json::Object(keys.collect::<Map<_, _>>()));
        }
        items.extend(added.remove(&None).unwrap_or_default());
        for (index, mut node) in before.into_iter().enumerate() {
            if self.removed.contains(&index) {
                continue;
            }
            for change in self.updated.get(&index).into_iter().flatten() {
                let is_list = node[change.key].is_array() && change.before.len() == change.after.len();
                node[change.key] = value(&change.after, is_list);
            }
            items.push(node);
            items.extend(added.remove(&Some(index)).unwrap_or_default());
        }
        expected
    }
}

fn value(values: &[String], is_list: bool) -> Json {
    match values {
        [one] if !is_list => one.as_str().into(),
        several => several.into(),
    }
}

impl FileNode {
    fn new(node: &Json) -> Self {
        Self {
            name: node["name"].as_str().unwrap_or_default().to_owned(),
            os: node["os"].as_str().unwrap_or_default().to_owned(),
            pod_cidrs: texts(&node["podCIDR"]),
            addresses: texts(&node["address"]),
        }
    }

    /// Returns `false` for a machine without pods, which Kubernetes may not know.
    fn has_pods(&self) -> bool {
        self.pod_cidrs != [NO_PODS]
    }

    /// The pod CIDRs, sorted. Empty for a machine without pods.
    fn sorted_pod_cidrs(&self) -> Vec<IpNet> {
        let mut cidrs: Vec<IpNet> = self.pod_cidrs.iter().filter_map(|text| text.parse().ok()).collect();
        cidrs.sort_unstable();
        cidrs
    }

    /// Whether the node has an address that a listed one has, too.
    fn has_address_of(&self, node: &ImportedNode) -> bool {
        let mut addresses = self.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
        addresses.any(|address| node.candidates.contains(&address) || node.addresses.contains(&address))
    }

    /// The keys that differ from those of a listed node.
    fn changes(&self, node: &ImportedNode) -> Vec<KeyChange> {
        let mut changes = Vec::new();
        let mut compare = |key: &'static str, before: &[String], after: Vec<String>| {
            let differs = before != after;
            if differs {
                changes.push(KeyChange { key, before: before.to_vec(), after });
            }
            differs
        };
        let mut is_new = false;
        if !node.is_os_assumed {
            is_new = compare("os", std::slice::from_ref(&self.os), vec![node.os.to_string()]);
        }
        if !node.pod_cidrs.is_empty() {
            is_new |= compare("podCIDR", &self.pod_cidrs, self.new_pod_cidrs(&node.pod_cidrs));
        }
        compare("address", &self.addresses, self.new_addresses(node, is_new));
        changes
    }

    /// The pod CIDRs of a listed node, in the order and the spelling of the configuration where that is possible.
    fn new_pod_cidrs(&self, listed: &[IpNet]) -> Vec<String> {
        let parsed: Option<Vec<IpNet>> = self.pod_cidrs.iter().map(|text| text.parse().ok()).collect();
        let parsed = parsed.unwrap_or_default();
        let mut sorted = parsed.clone();
        sorted.sort();
        let families = |cidrs: &[IpNet]| -> Vec<Family> { cidrs.iter().map(|cidr| (*cidr).into()).collect() };
        // The API lists one of each family. The others come from elsewhere, such as address pools of a CNI plugin.
        let is_listed = |family: &Family| families(listed).contains(family);
        let are_all_known = listed.iter().all(|cidr| parsed.contains(cidr));
        if are_all_known && families(&parsed).iter().all(is_listed) {
            return self.pod_cidrs.clone();
        }
        if families(&sorted) != families(listed) {
            return listed.iter().map(ToString::to_string).collect();
        }
        // The same families, in another order.
        let mut left = listed.to_vec();
        let mut next = |family: Family| {
            let at = left.iter().position(|cidr| Family::from(*cidr) == family)?;
            Some(left.remove(at).to_string())
        };
        families(&parsed).into_iter().filter_map(&mut next).collect()
    }

    /// The addresses of the configuration, without those that the node lost. A node whose other keys change also gets
    /// addresses that it lacks.
    fn new_addresses(&self, node: &ImportedNode, is_new: bool) -> Vec<String> {
        let listed = |family: Family| node.addresses.iter().find(|address| Family::from(**address) == family);
        let mut families = Vec::new();
        let mut addresses: Vec<String> = self
            .addresses
            .iter()
            .map(|text| {
                let Ok(address) = text.parse::<IpAddr>() else { return text.clone() };
                families.push(Family::from(address));
                match listed(address.into()) {
                    Some(other) if !node.candidates.contains(&address) => other.to_string(),
                    _ => text.clone(),
                }
            })
            .collect();
        if is_new {
            let missing = Family::ALL.into_iter().filter(|family| !families.contains(family));
            addresses.extend(missing.filter_map(listed).map(ToString::to_string));
        }
        addresses
    }
}

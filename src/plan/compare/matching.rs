//! Matches the nodes of two configurations that are the same machine.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use ipnet::IpNet;

use crate::{
    align,
    model::{Cluster, Family, Node, OperatingSystem, Prefixed},
};

/// Everything that other nodes depend on, except the name.
type NodeIdentity<'a> = (OperatingSystem, Vec<IpNet>, [Option<&'a IpAddr>; 2]);

/// Returns, for every node of `new`, the index of the same node in `old`.
///
/// A machine is identified by its address, as in `hostgw plan`, or else by its name. In this order, two nodes are the
/// same if they have the same:
///
/// 1. operating system, pod CIDRs and addresses, and at least one address
/// 2. name
/// 3. operating system and pod CIDRs, and no address
/// 4. operating system and one address
pub(super) fn pairs(old: &Cluster, new: &Cluster) -> Vec<Option<usize>> {
    let mut matcher = NodeMatcher {
        old: &old.nodes,
        new: &new.nodes,
        to_old: vec![None; new.nodes.len()],
        is_taken: vec![false; old.nodes.len()],
    };
    // Equal nodes have the same of everything.
    let equal =
        align::in_order(new.nodes.len(), old.nodes.len(), |index, pair| new.nodes[index] == old.nodes[pair]);
    for (index, pair) in equal.into_iter().enumerate() {
        if let Some(pair) = pair {
            matcher.pair(index, pair);
        }
    }
    matcher.match_by(|node| (!node.addresses.is_empty()).then(|| identity(node)));
    matcher.match_by(|node| Some(&node.name));
    matcher.match_by(|node| node.addresses.is_empty().then(|| identity(node)));
    for family in Family::ALL {
        matcher.match_by(|node| Some((node.os, *node.addresses.get(family)?)));
    }
    matcher.to_old
}

fn identity(node: &Node) -> NodeIdentity<'_> {
    let cidrs = node.pods.iter().map(Prefixed::prefix).collect();
    (node.os, cidrs, Family::ALL.map(|family| node.addresses.get(family)))
}

struct NodeMatcher<'a> {
    old: &'a [Node],
    new: &'a [Node],
    to_old: Vec<Option<usize>>,
    is_taken: Vec<bool>,
}

impl<'a> NodeMatcher<'a> {
    /// Matches the remaining nodes that have the same key, which must be unique in each file.
    fn match_by<K: Hash + Eq>(&mut self, key_of: impl Fn(&'a Node) -> Option<K>) {
        let free = self.old.iter().enumerate().filter(|(index, _)| !self.is_taken[*index]);
        let by_key: HashMap<K, usize> =
            free.filter_map(|(index, node)| Some((key_of(node)?, index))).collect();
        for (index, node) in self.new.iter().enumerate() {
            if self.to_old[index].is_some() {
                continue;
            }
            if let Some(&pair) = key_of(node).and_then(|key| by_key.get(&key)) {
                self.pair(index, pair);
            }
        }
    }

    fn pair(&mut self, index: usize, pair: usize) {
        self.to_old[index] = Some(pair);
        self.is_taken[pair] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Document, Format};

    fn cluster(nodes: &[&str]) -> Cluster {
        let mut text = "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n".to_owned();
        for node in nodes {
            let fields: Vec<&str> = node.split(' ').collect();
            let address =
                fields.get(2).map_or_else(String::new, |last| format!(", address: 172.30.0.{last}"));
            text += &format!(
                "  - {{name: {}, os: linux, podCIDR: 10.244.{}.0/24{address}}}\n",
                fields[0], fields[1]
            );
        }
        config::load(&Document::new("test", text, Format::Yaml)).expect("a valid file")
    }

    /// Returns the matches as `old=new`, in the order of the new file. Each node is given as a name, a pod CIDR and an
    /// address.
    fn matches(old: &[&str], new: &[&str]) -> String {
        let (old, new) = (cluster(old), cluster(new));
        let pairs = pairs(&old, &new).into_iter().zip(&new.nodes);
        let matches =
            pairs.filter_map(|(pair, node)| Some(format!("{}={}", old.nodes[pair?].name, node.name)));
        matches.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn machines_are_matched_by_address_then_by_name() {
        assert_eq!(matches(&["a 1 1", "b 2 2"], &["b 2 2", "a 1 1", "c 3 3"]), "b=b a=a");
        // Renamed, or with swapped names.
        assert_eq!(matches(&["a 1 1", "b 2 2"], &["a 1 1", "x 2 2"]), "a=a b=x");
        assert_eq!(matches(&["a 1 1", "b 2 2"], &["b 1 1", "a 2 2"]), "a=b b=a");
        // The name is reused for another machine.
        assert_eq!(matches(&["a 1 1"], &["a 3 3", "c 1 1"]), "a=c");
        // The pod CIDR or the address changed.
        assert_eq!(matches(&["a 1 1"], &["a 2 1"]), "a=a");
        assert_eq!(matches(&["a 1 1"], &["a 1 2"]), "a=a");
        // Without addresses, the name takes precedence.
        assert_eq!(matches(&["a 1", "b 2"], &["b 1", "a 2"]), "b=b a=a");
        assert_eq!(matches(&["a 1", "b 2"], &["x 1", "b 3"]), "a=x b=b");
        // The name and the pod CIDR changed, but not the address.
        assert_eq!(matches(&["a 1 1"], &["x 2 1"]), "a=x");
        assert_eq!(matches(&["a 1 1"], &["x 2 2"]), "");
    }
}

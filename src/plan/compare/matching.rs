//! Which nodes of two files are the same machine.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use crate::model::{Cluster, Family, Node, OperatingSystem, PodCidr};

/// All of a node that others see of it, but for its name.
type NodeIdentity = (OperatingSystem, [Option<PodCidr>; 2], [Option<IpAddr>; 2]);

/// For every node of `new`, the index of the same node in `old`.
///
/// A machine is known by its address, as `hostgw plan` knows it, else by its name. So a node is the same
/// that has the operating system, pod CIDRs and addresses of a node in the other file, whatever its name;
/// of the rest, one of the same name; of the rest, one with the same operating system and pod CIDRs where
/// neither has an address, and one with the same operating system and address.
pub(super) fn pairs(old: &Cluster, new: &Cluster) -> Vec<Option<usize>> {
    let mut pairing = NodeMatcher {
        old: &old.nodes,
        new: &new.nodes,
        to_old: vec![None; new.nodes.len()],
        is_taken: vec![false; old.nodes.len()],
    };
    pairing.by(|node| (!node.addresses.is_empty()).then(|| identity(node)));
    pairing.by(|node| Some(&node.name));
    pairing.by(|node| node.addresses.is_empty().then(|| identity(node)));
    for family in Family::ALL {
        pairing.by(|node| Some((node.os, *node.addresses.get(family)?)));
    }
    pairing.to_old
}

fn identity(node: &Node) -> NodeIdentity {
    let cidrs = Family::ALL.map(|family| node.pod_cidrs.get(family).copied());
    (node.os, cidrs, Family::ALL.map(|family| node.addresses.get(family).copied()))
}

struct NodeMatcher<'a> {
    old: &'a [Node],
    new: &'a [Node],
    to_old: Vec<Option<usize>>,
    is_taken: Vec<bool>,
}

impl<'a> NodeMatcher<'a> {
    /// Pairs the nodes that have none yet and are equal in `mark`, which no two nodes of a file share.
    fn by<K: Hash + Eq>(&mut self, mark: impl Fn(&'a Node) -> Option<K>) {
        let free = self.old.iter().enumerate().filter(|(index, _)| !self.is_taken[*index]);
        let marks: HashMap<K, usize> = free.filter_map(|(index, node)| Some((mark(node)?, index))).collect();
        for (index, node) in self.new.iter().enumerate() {
            if self.to_old[index].is_some() {
                continue;
            }
            if let Some(&pair) = mark(node).and_then(|mark| marks.get(&mark)) {
                self.to_old[index] = Some(pair);
                self.is_taken[pair] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Document, Format};

    fn cluster(nodes: &[&str]) -> Cluster {
        let mut text = "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnodes:\n".to_owned();
        for node in nodes {
            let words: Vec<&str> = node.split(' ').collect();
            let address = words.get(2).map_or_else(String::new, |last| format!(", address: 172.30.0.{last}"));
            text += &format!(
                "  - {{name: {}, os: linux, podCIDR: 10.244.{}.0/24{address}}}\n",
                words[0], words[1]
            );
        }
        config::load(&Document::new("test", text, Format::Yaml)).expect("a valid file")
    }

    /// The pairs as `old=new`, in the order of the new file; each node a name, a pod CIDR, an address.
    fn told(old: &[&str], new: &[&str]) -> String {
        let (old, new) = (cluster(old), cluster(new));
        let pairs = pairs(&old, &new).into_iter().zip(&new.nodes);
        let told = pairs.filter_map(|(pair, node)| Some(format!("{}={}", old.nodes[pair?].name, node.name)));
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_machine_is_known_by_its_address_then_by_its_name() {
        assert_eq!(told(&["a 1 1", "b 2 2"], &["b 2 2", "a 1 1", "c 3 3"]), "b=b a=a");
        // Renamed, and two that took each other's name.
        assert_eq!(told(&["a 1 1", "b 2 2"], &["a 1 1", "x 2 2"]), "a=a b=x");
        assert_eq!(told(&["a 1 1", "b 2 2"], &["b 1 1", "a 2 2"]), "a=b b=a");
        // A name goes on to another machine.
        assert_eq!(told(&["a 1 1"], &["a 3 3", "c 1 1"]), "a=c");
        // Another pod CIDR or another address, the same name.
        assert_eq!(told(&["a 1 1"], &["a 2 1"]), "a=a");
        assert_eq!(told(&["a 1 1"], &["a 1 2"]), "a=a");
        // Without addresses the name comes first.
        assert_eq!(told(&["a 1", "b 2"], &["b 1", "a 2"]), "b=b a=a");
        assert_eq!(told(&["a 1", "b 2"], &["x 1", "b 3"]), "a=x b=b");
        // The same address under another name, with another pod CIDR.
        assert_eq!(told(&["a 1 1"], &["x 2 1"]), "a=x");
        assert_eq!(told(&["a 1 1"], &["x 2 2"]), "");
    }
}

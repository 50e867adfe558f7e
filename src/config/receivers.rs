//! Receivers of the nodes of a configuration, which a parser passes on one by one.

use std::collections::HashMap;

use serde::Deserialize;

use super::{
    places::Places,
    problem::{ErrorSpot, ErrorSpots, Problem},
    raw::{Nodes, RawConfig, RawNode},
    structure::{StructureCheck, StructureReport},
    tree::{NODES, NodeReceiver, TreeNode, Value},
};
use crate::model::{ConfigPath, Segment};

/// Drafts the nodes, and remembers where everything is.
#[derive(Default)]
pub(super) struct Drafts<'s> {
    nodes: Vec<Option<RawNode>>,
    /// The number of nodes so far.
    received: usize,
    pub places: Places,
    /// Reports every structural error, and removes what is invalid.
    check: Option<StructureCheck<'s>>,
    /// Whether the form of a node is invalid.
    pub rejected: bool,
}

impl<'s> Drafts<'s> {
    /// Creates drafts with room for the nodes of a text of `length` bytes. Lists that grow leave holes in the memory.
    pub fn with_room(length: usize) -> Self {
        const BYTES_PER_NODE: usize = 64;
        let nodes = length / BYTES_PER_NODE;
        Self { nodes: Vec::with_capacity(nodes), places: Places::with_room(nodes), ..Self::default() }
    }

    /// Drafts what is intact of the nodes that pass through `check`.
    pub fn checked(check: StructureCheck<'s>) -> Self {
        Self { check: Some(check), ..Self::default() }
    }

    /// Checks the rest of the configuration.
    pub fn finish_check(&mut self, root: &mut TreeNode<'_>) -> StructureReport {
        self.check.take().map(|check| check.finish(root)).unwrap_or_default()
    }

    /// Adds the next node.
    pub fn add(&mut self, node: TreeNode<'_>) {
        let draft = Option::<RawNode>::deserialize(node);
        self.rejected |= draft.is_err();
        self.nodes.push(draft.unwrap_or_default());
    }

    /// Deserializes the rest of the configuration, and adds the nodes.
    ///
    /// # Errors
    /// Fails if the form of the rest is invalid.
    pub fn complete(self, root: TreeNode<'_>) -> Result<RawConfig, serde::de::value::Error> {
        let are_here = root.nodes().is_some_and(|nodes| matches!(nodes.value, Value::Nodes));
        let mut raw = RawConfig::deserialize(root)?;
        if are_here {
            raw.nodes = Some(Nodes(self.nodes));
        }
        Ok(raw)
    }
}

impl<'a> NodeReceiver<'a> for Drafts<'_> {
    fn node(&mut self, mut node: TreeNode<'a>) {
        self.received += 1;
        if let Some(check) = &mut self.check {
            check.node(&mut node, self.received - 1);
            if check.is_truncated() {
                self.nodes = Vec::new();
            } else {
                self.add(node);
            }
        } else if !self.rejected {
            self.places.add(&node);
            self.add(node);
            if self.rejected {
                // The text will be read again.
                (self.nodes, self.places) = (Vec::new(), Places::default());
            }
        }
    }

    fn restart(&mut self) {
        self.received = 0;
        self.nodes.clear();
        self.places.clear();
        self.rejected = false;
        if let Some(check) = &mut self.check {
            check.restart();
        }
    }
}

/// Remembers where everything is.
impl<'a> NodeReceiver<'a> for Places {
    fn node(&mut self, node: TreeNode<'a>) {
        self.add(&node);
    }

    fn restart(&mut self) {
        self.clear();
    }
}

/// Finds the places of errors whose paths are known.
pub(super) struct SpotFinder {
    index: usize,
    /// The wanted paths by the index of their node.
    wanted: HashMap<usize, Vec<ConfigPath>>,
    /// The wanted paths outside of the nodes.
    others: Vec<ConfigPath>,
    spots: ErrorSpots,
}

impl SpotFinder {
    pub fn new(problems: &[Problem]) -> Self {
        let mut finder = Self { index: 0, wanted: HashMap::new(), others: Vec::new(), spots: HashMap::new() };
        for path in problems.iter().flat_map(Problem::unlocated) {
            match path.segments() {
                [Segment::Key(key), Segment::Index(index), ..] if **key == *NODES => {
                    finder.wanted.entry(*index).or_default().push(path.clone());
                }
                _ => finder.others.push(path.clone()),
            }
        }
        finder
    }

    /// Returns `true` if no place is unknown.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.others.is_empty()
    }

    /// Returns the spots, given the tree of the rest of the text.
    pub fn finish(mut self, root: &TreeNode<'_>) -> ErrorSpots {
        let others = self.others.into_iter().chain(self.wanted.into_values().flatten());
        for path in others {
            self.spots.entry(path.clone()).or_insert_with(|| ErrorSpot::new(&root.find(path.segments())));
        }
        self.spots
    }
}

impl<'a> NodeReceiver<'a> for SpotFinder {
    fn node(&mut self, node: TreeNode<'a>) {
        for path in self.wanted.get(&self.index).into_iter().flatten() {
            let below = path.segments().get(2..).unwrap_or_default();
            self.spots.insert(path.clone(), ErrorSpot::new(&node.find(below)));
        }
        self.index += 1;
    }

    fn restart(&mut self) {
        self.index = 0;
        self.spots.clear();
    }
}

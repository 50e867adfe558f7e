//! The positions of the values of a configuration, in a few bytes per value.

use std::{collections::HashMap, ops::Range};

use super::tree::{NODES, TreeNode, Value};
use crate::model::Segment;

/// The number of keys that are found without a hash.
const FEW: usize = 8;

/// The start of every value in a text.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// Trees of values, each value before those in it: one for each node, and one for the rest of the text.
    places: Vec<ValuePlace>,
    /// The first place of each tree.
    trees: Vec<u32>,
    names: Vec<String>,
    /// The index of each name.
    ids: HashMap<String, u32>,
}

#[derive(Debug, Clone, Copy)]
struct ValuePlace {
    offset: u32,
    step: PathStep,
}

/// The depth of a value in its tree, in 8 bits, and the last segment of its path: an index, or an interned key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PathStep(u32);

impl PathStep {
    const ROOT: Self = Self(0);
    const INDEX: u32 = 1 << 23;

    /// Returns `None` if the number has too many digits.
    fn new(depth: usize, is_index: bool, number: usize) -> Option<Self> {
        let (depth, number) = (u32::try_from(depth).ok()?, u32::try_from(number).ok()?);
        let fits = depth <= u8::MAX.into() && number < Self::INDEX;
        fits.then_some(Self(depth << 24 | if is_index { Self::INDEX } else { 0 } | number))
    }

    const fn depth(self) -> usize {
        (self.0 >> 24) as usize
    }
}

impl Places {
    /// Creates places with room for a number of nodes with a few values each.
    pub fn with_room(nodes: usize) -> Self {
        Self { places: Vec::with_capacity(4 * nodes), trees: Vec::with_capacity(nodes), ..Self::default() }
    }

    /// Creates places for more nodes of the same form.
    pub fn like(other: &Self) -> Self {
        Self { names: other.names.clone(), ids: other.ids.clone(), ..Self::default() }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds the next node, or the rest of the text after all nodes.
    pub fn add(&mut self, tree: &TreeNode<'_>) {
        self.trees.push(short(self.places.len()));
        self.push(tree, tree.span().start, PathStep::ROOT);
    }

    /// Adds the node at an index of another text, where it starts at another offset.
    pub fn add_from(&mut self, other: &Self, index: usize, start: usize) {
        self.trees.push(short(self.places.len()));
        let Some(known) = other.tree(index).and_then(|range| other.places.get(range)) else { return };
        let Some(first) = known.first() else { return };
        let moved =
            |place: &ValuePlace| ValuePlace { offset: place.offset - first.offset + short(start), ..*place };
        self.places.extend(known.iter().map(moved));
    }

    /// Adds the list of nodes at an offset to the last tree, whose text lacks the lines in `omitted`.
    pub fn insert_list(&mut self, omitted: &Range<usize>, list: usize) {
        let key = self.id(NODES).and_then(|id| PathStep::new(1, false, id));
        let Some(first) = self.trees.last() else { return };
        for place in self.places.iter_mut().skip(*first as usize) {
            if Some(place.step) == key {
                place.offset = short(list);
            } else if place.offset as usize >= omitted.start {
                place.offset += short(omitted.len());
            }
        }
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.trees.len().saturating_sub(1)
    }

    /// The start of a node.
    pub fn start(&self, index: usize) -> Option<usize> {
        Some(self.places.get(self.tree(index)?)?.first()?.offset as usize)
    }

    /// The start of the value at a path, or of its nearest ancestor that is below the root.
    pub fn find(&self, path: &[Segment]) -> Option<usize> {
        if let [Segment::Key(key), Segment::Index(index), below @ ..] = path
            && **key == *NODES
            && *index < self.len()
            && let Some((offset, _)) = self.find_in(*index, below)
        {
            return Some(offset);
        }
        let (offset, depth) = self.find_in(self.len(), path)?;
        (depth > 0 || path.is_empty()).then_some(offset)
    }

    /// The start of the value at a path in a tree, or of its nearest ancestor, and its depth.
    fn find_in(&self, tree: usize, path: &[Segment]) -> Option<(usize, usize)> {
        let (first, mut places) = self.places.get(self.tree(tree)?)?.split_first()?;
        let mut offset = first.offset;
        for (depth, segment) in path.iter().enumerate() {
            let step = match segment {
                Segment::Key(key) => self.id(key).and_then(|id| PathStep::new(depth + 1, false, id)),
                Segment::Index(index) => PathStep::new(depth + 1, true, *index),
            };
            let mut siblings = places.iter().take_while(|place| place.step.depth() > depth);
            let Some(found) = siblings.position(|place| Some(place.step) == step) else {
                return Some((offset as usize, depth));
            };
            offset = places[found].offset;
            places = &places[found + 1..];
        }
        Some((offset as usize, path.len()))
    }

    fn tree(&self, index: usize) -> Option<Range<usize>> {
        let end = self.trees.get(index + 1).map_or(self.places.len(), |next| *next as usize);
        Some(*self.trees.get(index)? as usize..end)
    }

    fn push(&mut self, node: &TreeNode<'_>, start: usize, step: PathStep) {
        self.places.push(ValuePlace { offset: short(start), step });
        let depth = step.depth() + 1;
        match &node.value {
            Value::Map(mapping) => {
                for entry in &mapping.entries {
                    let id = self.id(&entry.key).unwrap_or_else(|| self.intern(&entry.key));
                    if let Some(step) = PathStep::new(depth, false, id) {
                        self.push(&entry.node, entry.place().start, step);
                    }
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(step) = PathStep::new(depth, true, index) {
                        self.push(item, item.span().start, step);
                    }
                }
            }
            _ => {}
        }
    }

    fn id(&self, key: &str) -> Option<usize> {
        let is_key = |name: &String| **name == *key;
        self.names.iter().take(FEW).position(is_key).or_else(|| Some(*self.ids.get(key)? as usize))
    }

    fn intern(&mut self, key: &str) -> usize {
        let id = self.names.len();
        self.names.push(key.to_owned());
        if id >= FEW {
            self.ids.insert(key.to_owned(), short(id));
        }
        id
    }
}

/// A configuration is far smaller than 4 GiB.
fn short(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

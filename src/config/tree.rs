//! A configuration as a tree of values with positions, built from YAML or TOML.
//!
//! No tree contains all nodes: parsers hand over each node as soon as it is complete.

use std::{borrow::Cow, collections::HashMap, hash::BuildHasher, ops::Range};

use super::capped::Capped;
use crate::diagnose::Rule;
use crate::model::Segment;

/// Mappings with more keys than this get an index, so that a mapping with very many keys still takes linear time.
const INDEXED_FROM: usize = 16;

/// A range of bytes in the text.
pub(super) type Span = Range<usize>;

/// A [`Span`] in half the space, to keep the tree small. A configuration is far smaller than 4 GiB.
#[derive(Debug, Clone, Copy)]
struct Extent {
    start: u32,
    end: u32,
}

impl From<Span> for Extent {
    fn from(span: Span) -> Self {
        let short = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: short(span.start), end: short(span.end) }
    }
}

impl From<Extent> for Span {
    fn from(extent: Extent) -> Self {
        extent.start as usize..extent.end as usize
    }
}

/// A value and its position. The extent of a mapping or a list covers only its start.
#[derive(Debug, Clone)]
pub(super) struct TreeNode<'a> {
    extent: Extent,
    pub value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    /// A value that was reported as an error.
    Invalid,
    /// The value of an unknown key.
    Ignored,
    Flag(bool),
    Integer(i64),
    Text(Cow<'a, str>),
    /// A type that no key accepts: its name, with an article.
    Other(&'static str),
    List(Vec<TreeNode<'a>>),
    Map(Box<Mapping<'a>>),
    /// The list of nodes, whose items were handed over.
    Nodes,
}

/// Takes the items of the list of nodes.
pub(super) trait NodeReceiver<'a> {
    /// The key of the list.
    fn list_key(&self) -> &'static str {
        NODES
    }

    /// Takes the next node.
    fn node(&mut self, node: TreeNode<'a>);

    /// Forgets all nodes: they follow again.
    fn restart(&mut self);
}

/// The key of the list of nodes.
pub(super) const NODES: &str = "nodes";

#[derive(Debug, Clone, Default)]
pub(super) struct Mapping<'a> {
    /// The entries in the order of the file. Of several equal keys, only the first is here.
    pub entries: Vec<MapEntry<'a>>,
    /// How a TOML table was defined, which determines how it can be extended.
    pub origin: TableOrigin,
    extras: Option<Box<MappingExtras<'a>>>,
}

/// Data that few mappings have.
#[derive(Debug, Clone, Default)]
struct MappingExtras<'a> {
    duplicates: Capped<DuplicateKey<'a>>,
    /// Entry indices by half of the hash of the key, for mappings with many keys. Of two keys with one hash, only the
    /// first is here.
    index: HashMap<u32, u32>,
}

/// The definition of a TOML table, which determines how it can be extended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TableOrigin {
    /// An inline table, which cannot be extended.
    #[default]
    Inline,
    /// By its own header.
    Header,
    /// By the header of a table below it.
    HeaderBelow,
    /// By a dotted key.
    DottedKey,
}

#[derive(Debug, Clone)]
pub(super) struct MapEntry<'a> {
    pub key: Cow<'a, str>,
    key_extent: Extent,
    pub node: TreeNode<'a>,
}

/// A key that its mapping already contains.
#[derive(Debug, Clone)]
pub(super) struct DuplicateKey<'a> {
    pub key: Cow<'a, str>,
    pub span: Span,
    pub first: Option<Span>,
}

impl<'a> Mapping<'a> {
    /// Creates an empty TOML table.
    pub fn with_origin(origin: TableOrigin) -> Self {
        Self { origin, ..Self::default() }
    }

    /// Creates an empty mapping with room for some entries.
    pub fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), ..Self::default() }
    }

    pub fn get(&self, key: &str) -> Option<&MapEntry<'a>> {
        self.entries.get(self.position(key)?)
    }

    /// The index of the entry with this key.
    pub fn position(&self, key: &str) -> Option<usize> {
        let is_meant = |entry: &MapEntry<'_>| *entry.key == *key;
        if self.entries.len() <= INDEXED_FROM {
            return self.entries.iter().position(is_meant);
        }
        let index = &self.extras.as_ref()?.index;
        let first = *index.get(&half_hash(index, key))? as usize;
        if self.entries.get(first).is_some_and(is_meant) {
            Some(first)
        } else {
            self.entries.iter().position(is_meant)
        }
    }

    /// Adds an entry, or records that its key is a duplicate.
    pub fn insert(&mut self, key: Cow<'a, str>, key_span: Span, node: TreeNode<'a>) {
        if let Some(first) = self.position(&key) {
            self.add_duplicate(key, key_span, first);
            return;
        }
        push(&mut self.entries, MapEntry { key, key_extent: key_span.into(), node });
        self.index_entries();
    }

    /// Adds the last entry to the index, or creates an index of all entries.
    fn index_entries(&mut self) {
        if self.entries.len() <= INDEXED_FROM {
            return;
        }
        let index = &mut self.extras.get_or_insert_default().index;
        let unindexed = if index.is_empty() { 0 } else { self.entries.len() - 1 };
        for (at, entry) in self.entries.iter().enumerate().skip(unindexed) {
            let hash = half_hash(index, &entry.key);
            index.entry(hash).or_insert(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    /// Renames a key. If the mapping already contains the new key, the later one of the two is a duplicate.
    fn rename(&mut self, key: &str, new: &'static str) {
        let Some(at) = self.position(key) else { return };
        let mut first = at;
        if let Some(other) = self.position(new) {
            first = at.min(other);
            let later = self.entries.remove(at.max(other));
            self.add_duplicate(later.key.clone(), later.key_span(), first);
        }
        self.entries[first].key = new.into();
        if let Some(extras) = &mut self.extras {
            extras.index.clear();
        }
        self.index_entries();
    }

    /// Records a duplicate of the key of the entry at `first`.
    pub fn add_duplicate(&mut self, key: Cow<'a, str>, span: Span, first: usize) {
        let first = self.entries.get(first).map(MapEntry::key_span);
        self.extras.get_or_insert_default().duplicates.push_with(|| DuplicateKey { key, span, first });
    }

    pub fn has_duplicates(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| !extras.duplicates.is_empty())
    }

    /// Returns the first duplicate key.
    pub fn first_duplicate(&self) -> Option<&DuplicateKey<'a>> {
        self.extras.as_ref()?.duplicates.items().first()
    }

    /// Removes the duplicate keys.
    pub fn take_duplicates(&mut self) -> Capped<DuplicateKey<'a>> {
        self.extras.as_mut().map(|extras| std::mem::take(&mut extras.duplicates)).unwrap_or_default()
    }
}

/// Half of the hash of a key: an index of all keys takes less memory, and equal halves are rare.
fn half_hash(index: &HashMap<u32, u32>, key: &str) -> u32 {
    let hash = index.hasher().hash_one(key);
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// Adds to a list whose capacity starts at one, because a file may have very many lists and mappings of one item.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().max(1));
    }
    list.push(item);
}

/// The reason why a text cannot be parsed into a tree.
#[derive(Debug, Clone)]
pub(super) struct SyntaxError {
    pub rule: Rule,
    pub message: String,
    pub span: Span,
    pub hint: Option<String>,
}

/// A tree, and the errors in values that the tree cannot represent.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub root: TreeNode<'a>,
    pub errors: Capped<SyntaxError>,
    /// Whether the text is plain YAML.
    pub is_plain: bool,
}

impl<'a> Parsed<'a> {
    /// Creates the result of a parser, whose tree has one spelling of every key.
    pub fn new(mut root: TreeNode<'a>, errors: Capped<SyntaxError>, is_plain: bool) -> Self {
        root.unify_spellings();
        Self { root, errors, is_plain }
    }
}

impl<'a> TreeNode<'a> {
    pub fn new(span: Span, value: Value<'a>) -> Self {
        Self { extent: span.into(), value }
    }

    pub fn span(&self) -> Span {
        self.extent.into()
    }

    pub fn set_span(&mut self, span: Span) {
        self.extent = span.into();
    }

    /// The number of keys, if it is a mapping.
    pub fn keys(&self) -> usize {
        match &self.value {
            Value::Map(mapping) => mapping.entries.len(),
            _ => 0,
        }
    }

    /// The value of the key [`NODES`].
    pub fn nodes(&self) -> Option<&Self> {
        match &self.value {
            Value::Map(mapping) => Some(&mapping.get(NODES)?.node),
            _ => None,
        }
    }

    /// Renames the key `neighbour` of a check to `neighbor`: both spellings are accepted.
    fn unify_spellings(&mut self) {
        let Value::Map(root) = &mut self.value else { return };
        let Some(at) = root.position("checks") else { return };
        let Value::List(checks) = &mut root.entries[at].node.value else { return };
        for check in checks {
            if let Value::Map(check) = &mut check.value {
                check.rename("neighbour", "neighbor");
            }
        }
    }

    /// Gives the key [`NODES`] the list of nodes as its value, if it has none.
    pub fn insert_nodes(&mut self) -> Option<()> {
        let Value::Map(mapping) = &mut self.value else { return None };
        let at = mapping.position(NODES)?;
        let value = &mut mapping.entries.get_mut(at)?.node.value;
        matches!(value, Value::Null).then(|| *value = Value::Nodes)
    }

    /// Finds the value at a path below this one, or its nearest ancestor that exists.
    pub fn find(&self, path: &[Segment]) -> FoundNode<'_, 'a> {
        let mut node = self;
        let mut span = self.span();
        let mut key_span = span.clone();
        for segment in path {
            match (segment, &node.value) {
                (Segment::Key(key), Value::Map(mapping)) => {
                    let Some(entry) = mapping.get(key) else { break };
                    node = &entry.node;
                    span = entry.place();
                    key_span = entry.key_span();
                }
                (Segment::Index(index), Value::List(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    node = item;
                    span = item.span();
                    key_span = span.clone();
                }
                _ => break,
            }
        }
        FoundNode { node, span, key_span }
    }
}

/// The result of looking up a path.
pub(super) struct FoundNode<'t, 'a> {
    pub node: &'t TreeNode<'a>,
    pub span: Span,
    /// The span of the key, or of the value itself if it has no key.
    pub key_span: Span,
}

impl MapEntry<'_> {
    pub fn key_span(&self) -> Span {
        self.key_extent.into()
    }

    pub fn set_key_span(&mut self, span: Span) {
        self.key_extent = span.into();
    }

    /// The span to underline: the value, or the key if the value is left empty.
    pub fn place(&self) -> Span {
        let span = self.node.span();
        if matches!(self.node.value, Value::Null) && span.is_empty() { self.key_span() } else { span }
    }
}

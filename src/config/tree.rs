//! A configuration as a tree of values with positions, built from YAML or TOML.
//!
//! Only a file with errors, or a caller that needs line numbers, pays for it.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    ops::Range,
    sync::Arc,
};

use super::capped::Capped;
use crate::diagnose::Rule;
use crate::model::{ConfigPath, Segment};

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
pub(super) struct TreeNode {
    extent: Extent,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// A value that was reported as an error.
    Invalid,
    /// The value of an unknown key.
    Ignored,
    Flag(bool),
    Integer(i64),
    Text(Box<str>),
    /// A type that no key accepts: its name, with an article.
    Other(&'static str),
    List(Vec<TreeNode>),
    Map(Box<Mapping>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Mapping {
    /// The entries in the order of the file. Of several equal keys, only the first is here.
    pub entries: Vec<MapEntry>,
    /// How a TOML table was defined, which determines how it can be extended.
    pub origin: TableOrigin,
    extras: Option<Box<MappingExtras>>,
}

/// Data that few mappings have.
#[derive(Debug, Clone, Default)]
struct MappingExtras {
    duplicates: Capped<DuplicateKey>,
    /// Entry indices by the hash of the key, for mappings with many keys. Of two keys with one hash, only the first
    /// is here.
    index: HashMap<u64, u32>,
}

/// How a TOML table was defined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TableOrigin {
    /// As an inline table, which cannot be extended.
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
pub(super) struct MapEntry {
    pub key: Arc<str>,
    key_extent: Extent,
    pub node: TreeNode,
}

/// A key that its mapping already contains.
#[derive(Debug, Clone)]
pub(super) struct DuplicateKey {
    pub key: Arc<str>,
    pub span: Span,
    pub first: Option<Span>,
}

impl Mapping {
    /// Creates an empty TOML table.
    pub fn with_origin(origin: TableOrigin) -> Self {
        Self { origin, ..Self::default() }
    }

    pub fn get(&self, key: &str) -> Option<&MapEntry> {
        self.entries.get(self.position(key)?)
    }

    /// The index of the entry with this key.
    pub fn position(&self, key: &str) -> Option<usize> {
        let is_meant = |entry: &MapEntry| *entry.key == *key;
        if self.entries.len() <= INDEXED_FROM {
            return self.entries.iter().position(is_meant);
        }
        let index = &self.extras.as_ref()?.index;
        let first = *index.get(&index.hasher().hash_one(key))? as usize;
        if self.entries.get(first).is_some_and(is_meant) {
            Some(first)
        } else {
            self.entries.iter().position(is_meant)
        }
    }

    /// Adds an entry, or records that its key is a duplicate.
    pub fn insert(&mut self, key: Arc<str>, key_span: Span, node: TreeNode) {
        if let Some(first) = self.position(&key) {
            self.add_duplicate(key, key_span, first);
            return;
        }
        push(&mut self.entries, MapEntry { key, key_extent: key_span.into(), node });
        if self.entries.len() <= INDEXED_FROM {
            return;
        }
        let index = &mut self.extras.get_or_insert_default().index;
        // A new index starts with all previous entries.
        let unindexed = if index.is_empty() { 0 } else { self.entries.len() - 1 };
        for (at, entry) in self.entries.iter().enumerate().skip(unindexed) {
            let hash = index.hasher().hash_one(&*entry.key);
            index.entry(hash).or_insert(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    /// Records a duplicate of the key of the entry at `first`.
    pub fn add_duplicate(&mut self, key: Arc<str>, span: Span, first: usize) {
        let first = self.entries.get(first).map(MapEntry::key_span);
        self.extras.get_or_insert_default().duplicates.push_with(|| DuplicateKey { key, span, first });
    }

    pub fn duplicates(&self) -> Option<&Capped<DuplicateKey>> {
        self.extras.as_ref().map(|extras| &extras.duplicates)
    }
}

/// Interns keys, because every node has the same few keys.
#[derive(Default)]
pub(super) struct KeyInterner(HashSet<Arc<str>>);

impl KeyInterner {
    const CAPACITY: usize = 64;

    pub fn get(&mut self, key: &str) -> Arc<str> {
        if let Some(known) = self.0.get(key) {
            return Arc::clone(known);
        }
        let new = Arc::from(key);
        if self.0.len() < Self::CAPACITY {
            self.0.insert(Arc::clone(&new));
        }
        new
    }
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
pub(super) struct Parsed {
    pub root: TreeNode,
    pub errors: Capped<SyntaxError>,
}

impl TreeNode {
    pub fn new(span: Span, value: Value) -> Self {
        Self { extent: span.into(), value }
    }

    pub fn span(&self) -> Span {
        self.extent.into()
    }

    pub fn set_span(&mut self, span: Span) {
        self.extent = span.into();
    }

    /// Finds the value at `path`, or its nearest ancestor that exists.
    pub fn find(&self, path: &ConfigPath) -> FoundNode<'_> {
        let mut node = self;
        let mut span = self.span();
        let mut key_span = span.clone();
        let mut depth = 0;
        for segment in path.segments() {
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
            depth += 1;
        }
        FoundNode { node, span, key_span, depth }
    }
}

/// The result of looking up a path.
pub(super) struct FoundNode<'a> {
    pub node: &'a TreeNode,
    pub span: Span,
    /// The span of the key, or of the value itself if it has no key.
    pub key_span: Span,
    /// The number of path segments that were found.
    pub depth: usize,
}

impl MapEntry {
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

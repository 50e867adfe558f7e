//! A configuration as a tree of values that know where they stand, made from YAML or TOML.
//!
//! Only a file with mistakes, or a caller that wants line numbers, pays for it.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    ops::Range,
    sync::Arc,
};

use super::{
    capped::Capped,
    source::{Position, Source},
};
use crate::model::{ConfigPath, Segment};

/// Mappings with more keys than this are looked up through an index, so that a file with very many
/// keys in one mapping still costs linear time.
const INDEXED_FROM: usize = 16;

/// Bytes of the text.
pub(super) type Span = Range<usize>;

/// A [`Span`] in half the room. What is kept of a tree bounds how large a wrong file may be; a configuration has less
/// than 4 GiB by far.
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

/// A value and its place. The extent of a mapping or a list is its beginning only.
#[derive(Debug, Clone)]
pub(super) struct Node {
    extent: Extent,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// What was there was reported as a mistake.
    Wrong,
    /// The value of a key that was reported as one without a meaning here.
    Ignored,
    Flag(bool),
    Integer(i64),
    Text(Box<str>),
    /// What no key of the configuration takes; holds its name with an article.
    Other(&'static str),
    List(Vec<Node>),
    Map(Box<Mapping>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Mapping {
    /// In the order of the file. The first of several equal keys is the one that counts.
    pub entries: Vec<Entry>,
    /// What wrote a table of TOML: it decides what may still add to it.
    pub written: Written,
    /// What few mappings have.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Clone, Default)]
struct Rare {
    repeated: Capped<Repeated>,
    /// The entry by the hash of its key, where there are many. Of two keys with one hash it has the first.
    index: HashMap<u64, u32>,
}

/// How a table of TOML came to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Written {
    /// As one value: nothing can be added to it.
    #[default]
    AsValue,
    /// By a header of its own.
    ByHeader,
    /// By the header of a table below it.
    ByHeaderBelow,
    /// By a dotted key.
    ByDottedKey,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: Arc<str>,
    key_extent: Extent,
    pub node: Node,
}

/// A key that stands in its mapping a second time.
#[derive(Debug, Clone)]
pub(super) struct Repeated {
    pub key: Arc<str>,
    pub span: Span,
    pub first: Option<Span>,
}

impl Mapping {
    /// An empty table of TOML.
    pub fn written(written: Written) -> Self {
        Self { written, ..Self::default() }
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(self.position(key)?)
    }

    /// Which of the entries has this key.
    pub fn position(&self, key: &str) -> Option<usize> {
        let is_meant = |entry: &Entry| *entry.key == *key;
        if self.entries.len() <= INDEXED_FROM {
            return self.entries.iter().position(is_meant);
        }
        let index = &self.rare.as_ref()?.index;
        let first = *index.get(&index.hasher().hash_one(key))? as usize;
        if self.entries.get(first).is_some_and(is_meant) {
            Some(first)
        } else {
            self.entries.iter().position(is_meant)
        }
    }

    /// Adds an entry, or notes that its key is there already.
    pub fn insert(&mut self, key: Arc<str>, key_span: Span, node: Node) {
        if let Some(first) = self.position(&key) {
            self.repeat(key, key_span, first);
            return;
        }
        push(&mut self.entries, Entry { key, key_extent: key_span.into(), node });
        if self.entries.len() <= INDEXED_FROM {
            return;
        }
        let index = &mut self.rare.get_or_insert_default().index;
        // The first time the index is needed it takes in everything before.
        let unindexed = if index.is_empty() { 0 } else { self.entries.len() - 1 };
        for (at, entry) in self.entries.iter().enumerate().skip(unindexed) {
            let hash = index.hasher().hash_one(&*entry.key);
            index.entry(hash).or_insert(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    /// Notes that the key of the entry at `first` stands a second time.
    pub fn repeat(&mut self, key: Arc<str>, span: Span, first: usize) {
        let first = self.entries.get(first).map(Entry::key_span);
        self.rare.get_or_insert_default().repeated.push_with(|| Repeated { key, span, first });
    }

    /// The keys that stand a second time.
    pub fn repeated(&self) -> Option<&Capped<Repeated>> {
        self.rare.as_ref().map(|rare| &rare.repeated)
    }
}

/// Keys that a text repeats, each kept once: those of every node, of which there are few.
#[derive(Default)]
pub(super) struct Keys(HashSet<Arc<str>>);

impl Keys {
    const MOST: usize = 64;

    pub fn get(&mut self, key: &str) -> Arc<str> {
        if let Some(known) = self.0.get(key) {
            return Arc::clone(known);
        }
        let new = Arc::from(key);
        if self.0.len() < Self::MOST {
            self.0.insert(Arc::clone(&new));
        }
        new
    }
}

/// Adds to a list that grows from room for one on: a file can have very many lists and mappings of one item each.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().max(1));
    }
    list.push(item);
}

/// What hinders a text from being a tree.
#[derive(Debug, Clone)]
pub(super) struct SyntaxError {
    pub message: String,
    pub span: Span,
    pub hint: Option<String>,
}

/// A tree, and what was wrong with it that a tree cannot hold.
#[derive(Debug)]
pub(super) struct Parsed {
    pub root: Node,
    pub mistakes: Capped<SyntaxError>,
}

impl Node {
    pub fn new(span: Span, value: Value) -> Self {
        Self { extent: span.into(), value }
    }

    pub fn span(&self) -> Span {
        self.extent.into()
    }

    pub fn set_span(&mut self, span: Span) {
        self.extent = span.into();
    }

    /// The place of the value at `path`, or of the nearest ancestor that exists.
    pub fn find(&self, path: &ConfigPath) -> Found<'_> {
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
        Found { node, span, key_span, depth }
    }
}

/// Where something stands.
pub(super) struct Found<'a> {
    pub node: &'a Node,
    pub span: Span,
    /// The key in front of it; for what has none, the value itself.
    pub key_span: Span,
    /// How many steps of the path led to it.
    pub depth: usize,
}

impl Entry {
    pub fn key_span(&self) -> Span {
        self.key_extent.into()
    }

    pub fn set_key_span(&mut self, span: Span) {
        self.key_extent = span.into();
    }

    /// Where to point at: the value, or the key of a value that is not written at all.
    pub fn place(&self) -> Span {
        let span = self.node.span();
        if matches!(self.node.value, Value::Null) && span.is_empty() { self.key_span() } else { span }
    }
}

/// Lines and columns of everything in a configuration.
#[derive(Debug, Clone)]
pub struct Positions {
    source: Source,
    root: Option<Node>,
}

impl Positions {
    pub(super) const fn new(source: Source, root: Option<Node>) -> Self {
        Self { source, root }
    }

    /// Where the value at `path` begins, or the nearest ancestor of it that the file has.
    ///
    /// `None` when the file has nothing of it, and when the text could not be read with positions.
    #[must_use]
    pub fn of(&self, path: &ConfigPath) -> Option<Position> {
        let found = self.root.as_ref()?.find(path);
        let is_root = found.depth == 0 && !path.segments().is_empty();
        (!is_root).then(|| self.source.position(found.span.start))
    }
}

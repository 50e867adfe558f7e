//! A configuration as a tree of values that know where they stand, made from YAML or TOML.
//!
//! Only a file with mistakes, or a caller that wants line numbers, pays for it.

use std::{collections::HashMap, hash::BuildHasher, ops::Range};

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

/// A value and its place. The extent of a mapping or a list is its beginning only.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// What was there was reported as a mistake.
    Wrong,
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
    pub repeated: Capped<Repeated>,
    /// The entry by the hash of its key, where there are many. Of two keys with one hash it has the first.
    index: HashMap<u64, usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: Box<str>,
    pub key_span: Span,
    pub node: Node,
    /// Whether it was reported as a key that has no meaning here.
    pub ignored: bool,
}

/// A key that stands in its mapping a second time.
#[derive(Debug, Clone)]
pub(super) struct Repeated {
    pub key: Box<str>,
    pub span: Span,
    pub first: Option<Span>,
}

impl Mapping {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let is_meant = |entry: &&Entry| *entry.key == *key;
        if self.entries.len() <= INDEXED_FROM {
            return self.entries.iter().find(is_meant);
        }
        let first = self.entries.get(*self.index.get(&self.index.hasher().hash_one(key))?)?;
        if is_meant(&first) { Some(first) } else { self.entries.iter().find(is_meant) }
    }

    /// Adds an entry, or notes that its key is there already.
    pub fn insert(&mut self, key: Box<str>, key_span: Span, node: Node) {
        if let Some(first) = self.get(&key).map(|entry| entry.key_span.clone()) {
            self.repeated.push(Repeated { key, span: key_span, first: Some(first) });
            return;
        }
        self.entries.push(Entry { key, key_span, node, ignored: false });
        // The first time the index is needed it takes in everything before.
        let unindexed = match self.entries.len() {
            0..=INDEXED_FROM => return,
            len if self.index.is_empty() => 0..len,
            len => len - 1..len,
        };
        for at in unindexed {
            let hash = self.index.hasher().hash_one(&*self.entries[at].key);
            self.index.entry(hash).or_insert(at);
        }
    }
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
    /// The place of the value at `path`, or of the nearest ancestor that exists.
    pub fn find(&self, path: &ConfigPath) -> Found<'_> {
        let mut node = self;
        let mut span = self.span.clone();
        let mut key_span = span.clone();
        let mut depth = 0;
        for segment in path.segments() {
            match (segment, &node.value) {
                (Segment::Key(key), Value::Map(mapping)) => {
                    let Some(entry) = mapping.get(key) else { break };
                    node = &entry.node;
                    span = entry.place();
                    key_span = entry.key_span.clone();
                }
                (Segment::Index(index), Value::List(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    node = item;
                    span = item.span.clone();
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
    /// Where to point at: the value, or the key of a value that is not written at all.
    pub fn place(&self) -> Span {
        if matches!(self.node.value, Value::Null) && self.node.span.is_empty() {
            self.key_span.clone()
        } else {
            self.node.span.clone()
        }
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

//! Splits a YAML configuration into its nodes without parsing it, to find those that it shares with another one.

use std::{collections::HashMap, ops::Range};

use super::{
    document::{Document, Format},
    places::Places,
    plain,
    source::LineEnds,
    tree::TreeNode,
};
use crate::align;

/// The list of nodes in a text, whose offsets refer to that text. It is a block list, with each dash on a line of its
/// own; the nodes are probably written plainly.
#[derive(Debug)]
pub(super) struct SplitList<'a> {
    text: &'a str,
    /// The lines of the list, without the line of its key.
    region: Range<usize>,
    /// The start of the list.
    position: usize,
    /// The number of spaces before each dash.
    indent: usize,
    /// Each node, after its dash.
    nodes: Vec<u32>,
}

impl<'a> SplitList<'a> {
    /// Splits a document. Returns `None` if it is not written in this form.
    pub fn new(document: &'a Document) -> Option<Self> {
        (document.format() == Format::Yaml).then_some(())?;
        let text = document.text();
        // Other line ends than \n end a comment or a line for the parser.
        if text.contains('\r') || !plain::has_plain_characters(text) {
            return None;
        }
        let mut lines = Lines::of(text);
        let mut depth = 0;
        loop {
            let (_, line) = lines.next()?;
            if depth == 0 && without_comment(line) == "nodes:" {
                break;
            }
            depth = depth_after(line, depth)?;
        }
        let mut list = Self { text, region: lines.at..text.len(), position: 0, indent: 0, nodes: Vec::new() };
        for (at, line) in lines {
            let content = line.trim_start_matches(' ');
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let indent = line.len() - content.len();
            let is_node = content.starts_with("- ");
            if list.nodes.is_empty() {
                list.indent = indent;
            }
            if is_node && indent == list.indent {
                let spaces = content.get(1..)?.bytes().take_while(|byte| *byte == b' ').count();
                let start = at + indent + 1 + spaces;
                if list.nodes.is_empty() {
                    // The parser locates a list that is not indented at its first item.
                    list.position = if indent == 0 { start } else { at + indent };
                }
                list.nodes.push(u32::try_from(start).ok()?);
            } else if indent == 0 && !list.nodes.is_empty() {
                // Another key of the file, not the end of the document.
                line.starts_with(|first: char| first.is_ascii_alphabetic()).then_some(())?;
                list.region.end = at;
                break;
            } else if indent <= list.indent || list.nodes.is_empty() {
                return None;
            }
        }
        (!list.nodes.is_empty()).then_some(list)
    }

    /// Splits a document whose nodes are at known places.
    pub fn of_nodes(document: &'a Document, places: &Places) -> Option<Self> {
        let list = Self::new(document)?;
        let is_found = |index| list.start(index) == places.start(index);
        (list.len() == places.len() && (0..list.len()).all(is_found)).then_some(list)
    }

    /// For each node, its index in another list if it is written there in the same way.
    pub fn shared_with(&self, other: &Self) -> Vec<Option<usize>> {
        let prefix = common_prefix(self.text, other.text);
        let is_in_prefix = |index, at| {
            let (next, same) = (self.start(index + 1), other.start(at + 1));
            self.start(index) == other.start(at) && next == same && next.is_some_and(|next| next < prefix)
        };
        let is_same = |index, at| is_in_prefix(index, at) || self.node_text(index) == other.node_text(at);
        let mut shared = align::in_order(self.len(), other.len(), is_same);
        // The others, in any order.
        let mut by_text = None;
        for (index, found) in shared.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
            let by_text: &HashMap<_, _> = by_text.get_or_insert_with(|| other.by_text());
            *found = self.node_text(index).and_then(|text| by_text.get(text).copied());
        }
        shared
    }

    /// The number of nodes.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The start of a node.
    pub fn start(&self, index: usize) -> Option<usize> {
        self.nodes.get(index).map(|start| *start as usize)
    }

    /// The start of the list.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// The text without the list: its key has no value.
    pub fn rest(&self) -> String {
        [self.text.get(..self.region.start), self.text.get(self.region.end..)]
            .map(Option::unwrap_or_default)
            .concat()
    }

    /// The lines that [`Self::rest`] lacks.
    pub const fn region(&self) -> &Range<usize> {
        &self.region
    }

    /// Reads a node. Returns `None` if it is not written plainly.
    pub fn node(&self, index: usize) -> Option<TreeNode<'a>> {
        plain::read_item(self.text, self.node_range(index)?)
    }

    /// The text of a node, after its dash, without what follows its last line.
    fn node_text(&self, index: usize) -> Option<&'a str> {
        self.text.get(self.node_range(index)?).map(str::trim_ascii_end)
    }

    /// The index of each node by its text.
    fn by_text(&self) -> HashMap<&'a str, usize> {
        (0..self.len()).filter_map(|index| Some((self.node_text(index)?, index))).collect()
    }

    fn node_range(&self, index: usize) -> Option<Range<usize>> {
        let start = self.start(index)?;
        let Some(next) = self.start(index + 1) else { return Some(start..self.region.end) };
        let end = self.text.get(..next)?.rfind('\n').map_or(0, |newline| newline + 1);
        Some(start..end)
    }
}

/// Iterates over lines with their offsets, without their ends.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    ends: LineEnds<'a>,
}

impl<'a> Lines<'a> {
    const fn of(text: &'a str) -> Self {
        Self { text, at: 0, ends: LineEnds::of(text) }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.ends.next().unwrap_or(self.text.len());
        let line = self.text.get(self.at..end).filter(|_| self.at < self.text.len())?;
        Some((std::mem::replace(&mut self.at, (end + 1).min(self.text.len())), line))
    }
}

/// The number of bytes that two texts have in common at the beginning, or a few less.
fn common_prefix(one: &str, other: &str) -> usize {
    // Few texts of the tests are long.
    const STEP: usize = if cfg!(test) { 16 } else { 4096 };
    let chunks = one.as_bytes().chunks_exact(STEP).zip(other.as_bytes().chunks_exact(STEP));
    chunks.take_while(|(one, other)| one == other).count() * STEP
}

/// A line without spaces and a comment at its end.
fn without_comment(line: &str) -> &str {
    line.split_once(" #").map_or(line, |(line, _)| line).trim_end_matches(' ')
}

/// The number of open brackets after a line. Returns `None` if the line ends inside quotes.
fn depth_after(line: &str, mut depth: usize) -> Option<usize> {
    let mut quote = None;
    let mut before = ' ';
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some('"'), '\\') => {
                characters.next();
            }
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') if matches!(before, ' ' | '[' | '{' | ',') => quote = Some(character),
            // It may or may not begin a quoted text.
            (None, '"' | '\'') => return None,
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.checked_sub(1)?,
            (None, '#') if before == ' ' => break,
            _ => {}
        }
        before = character;
    }
    quote.is_none().then_some(depth)
}

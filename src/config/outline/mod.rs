//! The positions of the nodes of a configuration in its text, for edits that keep everything else as it is.
//!
//! | file | language |
//! |---|---|
//! | `yaml` | YAML, including JSON |
//! | `toml` | TOML |

mod toml;
mod yaml;

use std::ops::Range;

use super::document::{Document, Format};

/// The form of a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListLayout {
    /// YAML: one dash per node.
    Block,
    /// YAML and TOML: `[`, nodes and commas, `]`.
    Flow,
    /// TOML: one `[[nodes]]` per node.
    Tables,
}

/// The position of the list of nodes.
#[derive(Debug)]
pub struct Outline {
    /// The form of the list.
    pub layout: ListLayout,
    /// The nodes, in the order of the file.
    pub nodes: Vec<NodePlace>,
}

/// The position of a node.
#[derive(Debug)]
pub struct NodePlace {
    /// The value: in a block, from the first key to the end of the last value.
    pub range: Range<usize>,
    /// All of its lines, from its dash or header to the line break after its last value. In a flow list, the same as
    /// `range`.
    pub lines: Range<usize>,
    /// The keys of the node.
    pub entries: Vec<EntryPlace>,
    /// Whether the node is written in braces.
    pub is_inline: bool,
    /// Whether an anchor, an alias or a tag is involved, so that an edit could change something else.
    pub is_shared: bool,
}

/// The position of a key of a node.
#[derive(Debug)]
pub struct EntryPlace {
    /// The key, unquoted.
    pub key: String,
    /// The key as it is written.
    pub key_range: Range<usize>,
    /// The value.
    pub range: Range<usize>,
    /// The value if it is a scalar, or the items of a list of scalars.
    pub scalars: Vec<Range<usize>>,
    /// Whether the value is a list.
    pub is_list: bool,
}

impl NodePlace {
    /// Returns the place of a key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&EntryPlace> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Finds the nodes of a valid configuration.
///
/// Returns `None` if the list is written in a way that cannot be edited by position: as an alias, for instance.
#[must_use]
pub fn outline(document: &Document) -> Option<Outline> {
    let text = document.text();
    let mut outline = match document.format() {
        Format::Yaml => yaml::outline(text)?,
        Format::Toml => toml::outline(text)?,
    };
    let mut previous = 0;
    for node in &mut outline.nodes {
        node.lines = match outline.layout {
            ListLayout::Flow => node.range.clone(),
            ListLayout::Tables => line_start(text, node.range.start)..line_end(text, node.range.end),
            ListLayout::Block => dash_line(text, previous, node.range.start)?..line_end(text, node.range.end),
        };
        previous = node.lines.end;
    }
    Some(outline)
}

/// The start of the line of a position.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

/// The end of the line of a position, after its line break.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |newline| at + newline + 1)
}

/// The start of the line with the dash of an item, which starts at `at` and after `previous`.
fn dash_line(text: &str, previous: usize, at: usize) -> Option<usize> {
    let mut start = line_start(text, at);
    loop {
        if start < previous {
            return None;
        }
        let line = text.get(start..line_end(text, start))?.trim();
        if line == "-" || line.starts_with("- ") || line.starts_with("-\t") {
            return Some(start);
        }
        start = line_start(text, start.checked_sub(1)?);
    }
}

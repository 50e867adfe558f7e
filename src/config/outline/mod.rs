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
    /// All of its lines, from its dash or header to the line break after its last value, or after the comments below it
    /// that belong to the node. In a flow list, the same as `range`.
    pub lines: Range<usize>,
    /// The keys of the node.
    pub entries: Vec<EntryPlace>,
    /// Whether the node is written in braces.
    pub is_inline: bool,
    /// Whether the node as a whole is an alias, has an anchor or a tag, or has a table of its own in TOML, so that an edit
    /// could change something else.
    pub is_shared: bool,
    /// Whether it contains an anchor, which another node may use.
    pub has_anchor: bool,
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
    /// Whether an anchor, an alias or a tag is involved, so that an edit could change something else.
    pub is_shared: bool,
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
            ListLayout::Tables => {
                let end = line_end(text, node.range.end);
                line_start(text, node.range.start)..end_of_comments_in_table(text, end)
            }
            ListLayout::Block => {
                let start = dash_line(text, previous, node.range.start)?;
                start..end_of_comments_in_item(text, start, line_end(text, node.range.end))
            }
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

/// The lines of a text from a position on, with their ends.
fn lines_from(text: &str, start: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut end = start;
    text.get(start..).unwrap_or_default().split_inclusive('\n').map(move |line| {
        end += line.len();
        (end, line)
    })
}

/// The end of the comments below an item of a block list that are indented more than its dash, or `end` without any.
fn end_of_comments_in_item(text: &str, start: usize, end: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let dash = text.get(start..).map_or(0, indent);
    let mut owned = end;
    for (line_end, line) in lines_from(text, end) {
        if line.trim_start().starts_with('#') && indent(line) > dash {
            owned = line_end;
        } else if !line.trim().is_empty() {
            break;
        }
    }
    owned
}

/// The end of the comments below a table that belong to it, or `end` without any: those right below its keys, unless they are
/// right above the next header, and every commented-out key.
fn end_of_comments_in_table(text: &str, end: usize) -> usize {
    let is_key = |comment: &str| {
        let key = comment.split_once('=').map_or("", |(key, _)| key.trim());
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.\"'".contains(&byte))
    };
    let (mut owned, mut adjacent) = (end, Some(end));
    for (line_end, line) in lines_from(text, end) {
        let line = line.trim();
        let comment = line.trim_start_matches('#').trim_start();
        if line.is_empty() {
            owned = owned.max(adjacent.take().unwrap_or(end));
        } else if !line.starts_with('#') || comment.starts_with('[') {
            return owned;
        } else {
            adjacent = adjacent.map(|_| line_end);
            owned = if is_key(comment) { line_end } else { owned };
        }
    }
    owned.max(adjacent.unwrap_or(end))
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

//! Reads the list of nodes of a YAML configuration that is written plainly, without building a tree.
//!
//! Almost all of a large configuration is its list of nodes, and almost every list is written in one of two forms:
//!
//! ```yaml
//! nodes:
//!   - name: linux-1
//!     os: linux
//!     podCIDR: [10.244.1.0/24, "fd00:244:0:1::/64"]
//!   - {name: linux-2, os: linux, podCIDR: 10.244.2.0/24}
//! ```
//!
//! This reads exactly these: one key per line or a mapping on one line, known keys, and values on the same line that are
//! strings. It keeps nothing but the offset of each node, and reads a node again when it is needed. The rest of the file
//! goes to the YAML parser without the list. Everything else, and every file with an error, is left to the YAML parser as
//! a whole. `plain_tests` compares the two.

use std::{collections::HashMap, ops::Range};

use super::{
    raw::{Address, Keyword, OneOrMany, Prefix, RawNode, Text},
    tree::Value,
    yaml,
};
use crate::{
    align,
    model::{OperatingSystem, Segment},
};

/// The list of nodes in a text, whose offsets refer to that text.
#[derive(Debug, Clone)]
pub(super) struct PlainList {
    /// The lines of the list, without the line of its key.
    region: Range<usize>,
    /// Where the list starts.
    start: usize,
    /// The number of spaces before each dash.
    indent: usize,
    /// Each node, after its dash.
    nodes: Vec<u32>,
}

/// A key of a node and its value.
struct KeyValue<'a> {
    key: &'a str,
    value: PlainValue<'a>,
}

enum PlainValue<'a> {
    One(PlainScalar<'a>),
    /// A list, and the offset of its bracket.
    Many(usize, Vec<PlainScalar<'a>>),
}

/// A string in the text.
struct PlainScalar<'a> {
    /// The offset, including a quote.
    at: usize,
    text: &'a str,
}

impl PlainList {
    /// Finds the list in a text. Returns `None` if it, or what comes before it, is not written plainly.
    pub fn find(text: &str) -> Option<Self> {
        let list = Self::split(text)?;
        (0..list.len()).all(|at| list.fields(text, at).is_some()).then_some(list)
    }

    /// Finds the list in a text. Returns it, and for each node its index in the list `known` of `known_text` if it is
    /// written there in the same way. Only the other nodes are read, which is much faster.
    pub fn find_sharing(text: &str, known: &Self, known_text: &str) -> Option<(Self, Vec<Option<usize>>)> {
        let list = Self::split(text)?;
        let mut shared = align::in_order(list.len(), known.len(), |index, other| {
            list.node_text(text, index) == known.node_text(known_text, other)
        });
        // The others, in any order.
        let mut by_text = None;
        for (index, found) in shared.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
            let by_text = by_text.get_or_insert_with(|| known.by_text(known_text));
            *found = by_text.get(list.node_text(text, index)?).copied();
            if found.is_none() {
                list.fields(text, index)?;
            }
        }
        Some((list, shared))
    }

    /// Splits a text into nodes, which may not be written plainly.
    fn split(text: &str) -> Option<Self> {
        // Other line ends than \n end a comment or a line for the parser.
        let is_break = |c: char| {
            (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
        };
        if text.contains(is_break) {
            return None;
        }
        let mut lines = Lines { text, at: 0 };
        let mut depth = 0;
        loop {
            let (_, line) = lines.next()?;
            if depth == 0 && without_comment(line) == "nodes:" {
                break;
            }
            depth = depth_after(line, depth)?;
        }
        let mut list = Self { region: lines.at..text.len(), start: 0, indent: 0, nodes: Vec::new() };
        for (at, line) in lines {
            let content = line.trim_start_matches(' ');
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let indent = line.len() - content.len();
            let is_node = content.starts_with("- ");
            if list.nodes.is_empty() {
                // The parser locates a list that is not indented at its first item.
                (list.start, list.indent) = (if indent == 0 { at + 2 } else { at + indent }, indent);
            }
            if is_node && indent == list.indent {
                list.nodes.push(u32::try_from(at + indent + 2).ok()?);
            } else if indent == 0 && !list.nodes.is_empty() {
                // Another key of the file, not the end of the document.
                line.starts_with(|first: char| first.is_ascii_alphabetic()).then_some(())?;
                list.region.end = at;
                break;
            } else if is_node || indent != list.indent + 2 || list.nodes.is_empty() {
                return None;
            }
        }
        (!list.nodes.is_empty()).then_some(list)
    }

    /// The text of a node, after its dash, without what follows its last line.
    fn node_text<'a>(&self, text: &'a str, index: usize) -> Option<&'a str> {
        text.get(self.node_range(index)?).map(str::trim_ascii_end)
    }

    /// The index of each node by its text.
    fn by_text<'a>(&self, text: &'a str) -> HashMap<&'a str, usize> {
        (0..self.len()).filter_map(|index| Some((self.node_text(text, index)?, index))).collect()
    }

    fn node_range(&self, index: usize) -> Option<Range<usize>> {
        let start = *self.nodes.get(index)? as usize;
        let end = match self.nodes.get(index + 1) {
            Some(next) => *next as usize - 2 - self.indent,
            None => self.region.end,
        };
        Some(start..end)
    }

    /// The number of nodes.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The text without the list: its key has no value.
    pub fn rest(&self, text: &str) -> String {
        [text.get(..self.region.start), text.get(self.region.end..)].map(Option::unwrap_or_default).concat()
    }

    /// Translates an offset in [`Self::rest`].
    pub const fn offset_of_rest(&self, offset: usize) -> usize {
        if offset < self.region.start { offset } else { offset + self.region.end - self.region.start }
    }

    /// Reads the nodes at these indexes.
    pub fn nodes(
        &self,
        text: &str,
        indexes: impl ExactSizeIterator<Item = usize>,
    ) -> impl ExactSizeIterator<Item = RawNode> {
        indexes.map(|at| raw_node(self.fields(text, at).unwrap_or_default()))
    }

    /// The offset of the value at a path below the list, or of its nearest ancestor.
    pub fn find_path(&self, text: &str, path: &[Segment]) -> usize {
        let Some((Segment::Index(index), path)) = path.split_first() else { return self.start };
        let Some(node) = self.nodes.get(*index) else { return self.start };
        let mut place = *node as usize;
        let Some((Segment::Key(key), path)) = path.split_first() else { return place };
        let fields = self.fields(text, *index).unwrap_or_default();
        let Some(field) = fields.iter().find(|field| *field.key == **key) else { return place };
        match &field.value {
            PlainValue::One(scalar) => place = scalar.at,
            PlainValue::Many(at, items) => {
                place = *at;
                if let Some(Segment::Index(item)) = path.first()
                    && let Some(item) = items.get(*item)
                {
                    place = item.at;
                }
            }
        }
        place
    }

    /// Reads the node at an index. Returns `None` if it is not written plainly.
    fn fields<'a>(&self, text: &'a str, index: usize) -> Option<Vec<KeyValue<'a>>> {
        let Range { start, end } = self.node_range(index)?;
        let mut fields = Vec::with_capacity(4);
        let mut lines = Lines { text: text.get(..end)?, at: start };
        let (at, first) = lines.next()?;
        let mut reader = LineReader { line: first, at, position: 0 };
        if reader.takes(b'{') {
            loop {
                reader.skip_spaces();
                fields.push(reader.field(true)?);
                reader.skip_spaces();
                if reader.takes(b'}') {
                    break;
                }
                reader.takes(b',').then_some(())?;
            }
            reader.is_at_end().then_some(())?;
        } else {
            fields.push(reader.line_field()?);
        }
        let is_block = !first.starts_with('{');
        for (at, line) in lines {
            let content = line.trim_start_matches(' ');
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            is_block.then_some(())?;
            let indent = line.len() - content.len();
            fields.push(LineReader { line: content, at: at + indent, position: 0 }.line_field()?);
        }
        let is_valid = |(at, field): (usize, &KeyValue<'_>)| {
            is_value(field) && !fields[..at].iter().any(|before| before.key == field.key)
        };
        fields.iter().enumerate().all(is_valid).then_some(fields)
    }
}

/// Iterates over lines with their offsets, without their ends.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (line, length) = match rest.find('\n') {
            Some(end) => (rest.get(..end)?, end + 1),
            None => (rest, rest.len()),
        };
        let at = self.at;
        self.at += length;
        Some((at, line))
    }
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

/// Reads a line from left to right.
struct LineReader<'a> {
    line: &'a str,
    /// The offset of the line.
    at: usize,
    position: usize,
}

impl<'a> LineReader<'a> {
    fn rest(&self) -> &'a str {
        self.line.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.position).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.position += usize::from(is_next);
        is_next
    }

    fn skip_spaces(&mut self) {
        while self.takes(b' ') {}
    }

    /// Returns whether only spaces and a comment are left.
    fn is_at_end(&self) -> bool {
        let rest = self.rest();
        let content = rest.trim_start_matches(' ');
        content.is_empty() || (content.starts_with('#') && content.len() < rest.len())
    }

    /// Reads the only key and value of the line.
    fn line_field(&mut self) -> Option<KeyValue<'a>> {
        let field = self.field(false)?;
        self.is_at_end().then_some(field)
    }

    fn field(&mut self, in_flow: bool) -> Option<KeyValue<'a>> {
        let key = self.rest();
        let length = key.bytes().take_while(u8::is_ascii_alphabetic).count();
        let key = key.get(..length).filter(|key| !key.is_empty())?;
        self.position += length;
        (self.takes(b':') && self.takes(b' ')).then_some(())?;
        self.skip_spaces();
        let at = self.at + self.position;
        if !self.takes(b'[') {
            return Some(KeyValue { key, value: PlainValue::One(self.scalar(in_flow)?) });
        }
        let mut items = Vec::with_capacity(2);
        loop {
            self.skip_spaces();
            items.push(self.scalar(true)?);
            self.skip_spaces();
            if self.takes(b']') {
                return Some(KeyValue { key, value: PlainValue::Many(at, items) });
            }
            self.takes(b',').then_some(())?;
        }
    }

    fn scalar(&mut self, in_flow: bool) -> Option<PlainScalar<'a>> {
        let at = self.at + self.position;
        let rest = self.rest();
        if let Some(quote) = self.peek().filter(|first| matches!(first, b'"' | b'\'')) {
            let inner = rest.get(1..)?;
            let text = inner.get(..inner.find(char::from(quote))?)?;
            let is_literal = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\';
            text.bytes().all(is_literal).then_some(())?;
            self.position += text.len() + 2;
            // Two single quotes stand for one.
            return (self.peek() != Some(quote)).then_some(PlainScalar { at, text });
        }
        let is_plain = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'.' | b':' | b'/' | b'-' | b'_' | b'(' | b')' | b' ')
        };
        let length = rest.bytes().take_while(is_plain).count();
        let text = rest.get(..length)?.trim_end_matches(' ');
        self.position += text.len();
        let ends = match rest.as_bytes().get(length) {
            None => true,
            Some(b'#') => text.len() < length,
            Some(b',' | b'}' | b']') => in_flow,
            Some(_) => false,
        };
        let is_string = ends
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && !text.ends_with(':')
            && !text.contains(": ")
            && is_string(text);
        is_string.then_some(PlainScalar { at, text })
    }
}

/// Returns whether a plain scalar is a string, and not a number, a flag or nothing.
fn is_string(text: &str) -> bool {
    // Addresses and prefixes, which no number looks like.
    let is_address = || text.contains(['/', ':']) || text.bytes().filter(|byte| *byte == b'.').count() > 1;
    // A word, and not one of those that mean something else.
    let is_word =
        || text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.len() > "false".len();
    is_address() || is_word() || matches!(yaml::resolve(text), Value::Text(_))
}

/// Returns whether the key is known, and accepts the value.
fn is_value(field: &KeyValue<'_>) -> bool {
    match (field.key, &field.value) {
        ("podCIDR" | "address" | "gateway", _)
        | ("name" | "egressInterface" | "defaultGateway", PlainValue::One(_)) => true,
        ("os", PlainValue::One(scalar)) => system(scalar.text).is_some(),
        _ => false,
    }
}

fn system(word: &str) -> Option<OperatingSystem> {
    match word {
        "linux" => Some(OperatingSystem::Linux),
        "windows" => Some(OperatingSystem::Windows),
        _ => None,
    }
}

fn raw_node(fields: Vec<KeyValue<'_>>) -> RawNode {
    fn list<T>(value: PlainValue<'_>, new: impl Fn(String) -> T) -> OneOrMany<T> {
        match value {
            PlainValue::One(scalar) => OneOrMany::One(new(scalar.text.to_owned())),
            PlainValue::Many(_, items) => {
                OneOrMany::Many(items.iter().map(|item| Some(new(item.text.to_owned()))).collect())
            }
        }
    }
    let mut node = RawNode::default();
    for KeyValue { key, value } in fields {
        match (key, value) {
            ("podCIDR", value) => node.pod_cidr = Some(list(value, Prefix)),
            ("address", value) => node.address = Some(list(value, Address)),
            ("gateway", value) => node.gateway = Some(list(value, Address)),
            ("name", PlainValue::One(scalar)) => node.name = Some(Text(scalar.text.to_owned())),
            ("os", PlainValue::One(scalar)) => node.os = system(scalar.text).map(Keyword),
            ("egressInterface", PlainValue::One(scalar)) => {
                node.egress_interface = Some(Text(scalar.text.to_owned()));
            }
            ("defaultGateway", PlainValue::One(scalar)) => {
                node.default_gateway = Some(Address(scalar.text.to_owned()));
            }
            _ => {}
        }
    }
    node
}

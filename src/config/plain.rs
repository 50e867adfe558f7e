//! Reads YAML that is written plainly, which takes a fraction of the time that the YAML parser needs.
//!
//! Almost every configuration, and every JSON text without escapes, is written in this subset of YAML:
//!
//! ```yaml
//! nodes:
//!   - name: linux-1
//!     os: linux
//!     podCIDR: [10.244.1.0/24, "fd00:244:0:1::/64"]
//!   - {name: linux-2, os: linux, podCIDR: 10.244.2.0/24} # a comment
//! ```
//!
//! Block mappings and lists whose keys and items are on lines of their own, flow mappings and lists, and scalars that are
//! on one line and contain no escapes. This accepts nothing else, and leaves every text with an error to the YAML parser.
//! Both pass the same events to the builder of the tree; `plain_tests` compares them.

use std::{borrow::Cow, ops::Range};

use super::{
    builder::{Collection, TreeBuilder},
    scalar::ScalarForm,
    tree::{NodeReceiver, Parsed, Span, SyntaxError, TreeNode},
};
use crate::text::all_bytes;

/// The text is not written plainly, or contains an error.
#[derive(Debug)]
pub(super) struct NotPlain;

/// The builder reached a limit. The YAML parser will report it.
impl From<SyntaxError> for NotPlain {
    fn from(_: SyntaxError) -> Self {
        Self
    }
}

type Read<T = ()> = Result<T, NotPlain>;

/// The parser limits the length of a key in front of its value.
const MAX_KEY: usize = 1000;

/// Parses a text. The nodes go to the receiver; without one, the tree contains them.
///
/// # Errors
/// Fails if the text is not written plainly. The receiver may have received some nodes.
pub(super) fn parse<'a>(text: &'a str, receiver: Option<&mut dyn NodeReceiver<'a>>) -> Read<Parsed<'a>> {
    has_plain_characters(text).then_some(()).ok_or(NotPlain)?;
    let mut builder = TreeBuilder::new(text.len(), receiver);
    let mut reader = PlainReader { text, at: 0, line_start: 0, is_block: false, builder: &mut builder };
    reader.skip_marker()?;
    reader.document()?;
    Ok(builder.finish(true))
}

/// Reads one item of a block list, which is written in `range` after its dash. The characters of the text were checked.
pub(super) fn read_item(text: &str, range: Range<usize>) -> Option<TreeNode<'_>> {
    let text = text.get(..range.end)?;
    let line_start = text.get(..range.start)?.rfind('\n').map_or(0, |at| at + 1);
    let mut builder = TreeBuilder::new(text.len(), None);
    let mut reader = PlainReader { text, at: range.start, line_start, is_block: true, builder: &mut builder };
    let mut open = Vec::new();
    let pending = reader.item(&mut open).ok()?;
    if open.is_empty() {
        // The item ended on its first line.
        reader.next_line().is_none().then_some(())?;
    } else {
        reader.lines(open, pending).ok()?;
    }
    Some(builder.finish(true).root)
}

/// Returns `true` if a text contains only characters that mean the same in every version of YAML.
pub(super) fn has_plain_characters(text: &str) -> bool {
    if all_bytes(text, |byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return true;
    }
    // Versions of YAML disagree on what ends a line.
    let is_other = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    !text.contains(is_other) && text.split('\r').skip(1).all(|after| after.starts_with('\n'))
}

/// A block mapping or list that is still being read.
struct OpenBlock {
    kind: Collection,
    /// The column of its keys or dashes.
    indent: usize,
}

/// The colon of a key whose value may follow on the next lines.
type PendingValue = Option<usize>;

struct PlainToken<'a> {
    span: Span,
    text: &'a str,
    form: ScalarForm<'static>,
}

struct PlainReader<'a, 'b, 'r> {
    text: &'a str,
    at: usize,
    line_start: usize,
    /// Whether the document is a block collection, whose lines are indented with spaces only.
    is_block: bool,
    builder: &'b mut TreeBuilder<'a, 'r>,
}

impl<'a> PlainReader<'a, '_, '_> {
    fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Returns `true` at a space, a line break, or the end.
    fn is_blank_at(&self, ahead: usize) -> bool {
        matches!(self.peek_at(ahead), None | Some(b' ' | b'\n' | b'\r'))
    }

    /// Returns `true` at what may follow the colon of a key.
    fn is_separated(&self) -> bool {
        self.is_blank_at(0) || self.peek() == Some(b'\t')
    }

    fn spaces_at(&self, ahead: usize) -> usize {
        let rest = self.text.as_bytes().get(self.at + ahead..).unwrap_or_default();
        rest.iter().take_while(|byte| **byte == b' ').count()
    }

    fn skip_spaces(&mut self) {
        self.at += self.spaces_at(0);
    }

    fn skip_comment(&mut self) {
        self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len());
    }

    /// Skips spaces and a comment. Returns `true` if nothing else is left on the line.
    fn is_at_line_end(&mut self) -> bool {
        let before = self.at;
        self.skip_spaces();
        if self.peek() == Some(b'#') && self.at > before {
            self.skip_comment();
        }
        matches!(self.peek(), None | Some(b'\n' | b'\r'))
    }

    fn end_line(&mut self) -> Read {
        self.is_at_line_end().then_some(()).ok_or(NotPlain)?;
        self.skip_break();
        Ok(())
    }

    fn skip_break(&mut self) {
        self.takes(b'\r');
        self.takes(b'\n');
        self.line_start = self.at;
    }

    fn is_in_indentation(&self) -> bool {
        self.text.as_bytes()[self.line_start..self.at].iter().all(|byte| *byte == b' ')
    }

    /// Skips empty lines and comments. Returns the indentation of the next line, if there is one.
    fn next_line(&mut self) -> Option<usize> {
        loop {
            self.skip_spaces();
            match self.peek()? {
                b'\n' | b'\r' => self.skip_break(),
                b'#' => self.skip_comment(),
                _ => return Some(self.at - self.line_start),
            }
        }
    }

    /// Skips the marker at the start of a document.
    fn skip_marker(&mut self) -> Read {
        if self.next_line() == Some(0) && self.rest().starts_with("---") {
            self.at += "---".len();
            self.end_line()?;
        }
        Ok(())
    }

    fn document(&mut self) -> Read {
        self.next_line().ok_or(NotPlain)?;
        if let Some(b'[' | b'{') = self.peek() {
            self.flow()?;
            self.end_line()?;
            return if self.next_line().is_none() { Ok(()) } else { Err(NotPlain) };
        }
        self.is_block = true;
        self.lines(Vec::new(), None)
    }

    /// Reads lines to the end.
    fn lines(&mut self, mut open: Vec<OpenBlock>, mut pending: PendingValue) -> Read {
        while let Some(indent) = self.next_line() {
            let is_item = self.peek() == Some(b'-') && self.is_blank_at(1);
            let kind = if is_item { Collection::List } else { Collection::Map };
            let is_below = |block: &OpenBlock| indent > block.indent || (is_item && indent == block.indent);
            let is_new = open.last().is_none_or(|block| pending.is_some() && is_below(block));
            if is_new {
                self.open(&mut open, kind, indent)?;
            } else {
                self.end_pending(pending)?;
                self.close(&mut open, kind, indent)?;
            }
            if is_item {
                self.at += 1;
                self.skip_spaces();
                pending = self.item(&mut open)?;
            } else {
                let key = self.token(false)?;
                pending = self.entry(key)?;
            }
        }
        self.end_pending(pending)?;
        for _ in open {
            self.builder.end()?;
        }
        Ok(())
    }

    fn open(&mut self, open: &mut Vec<OpenBlock>, kind: Collection, indent: usize) -> Read {
        // The parser locates a list that is not indented at its first item.
        let is_indented = open.last().is_none_or(|block| block.indent < indent);
        let start = if is_indented { self.at } else { self.at + 1 + self.spaces_at(1) };
        self.builder.begin(kind, start..start, 0)?;
        open.push(OpenBlock { kind, indent });
        Ok(())
    }

    /// Ends the blocks that a line with this indentation is not a part of.
    fn close(&mut self, open: &mut Vec<OpenBlock>, kind: Collection, indent: usize) -> Read {
        loop {
            let block = open.last().ok_or(NotPlain)?;
            if block.indent == indent && block.kind == kind {
                return Ok(());
            }
            if block.indent < indent || (block.indent == indent && block.kind == Collection::Map) {
                return Err(NotPlain);
            }
            self.builder.end()?;
            open.pop();
        }
    }

    /// A key without a value has the value null.
    fn end_pending(&mut self, pending: PendingValue) -> Read {
        if let Some(colon) = pending {
            self.builder.scalar(Cow::Borrowed(""), ScalarForm::Plain, colon..colon, 0)?;
        }
        Ok(())
    }

    /// Reads an item of a block list after its dash.
    fn item(&mut self, open: &mut Vec<OpenBlock>) -> Read<PendingValue> {
        if let Some(b'[' | b'{') = self.peek() {
            self.flow()?;
            self.end_line()?;
            return Ok(None);
        }
        let indent = self.at - self.line_start;
        let token = self.token(false)?;
        if self.peek() == Some(b':') {
            self.builder.begin(Collection::Map, token.span.start..token.span.start, 0)?;
            open.push(OpenBlock { kind: Collection::Map, indent });
            return self.entry(token);
        }
        self.scalar(token)?;
        self.end_line()?;
        Ok(None)
    }

    /// Reads the value of a key in a block mapping, if it is on the same line.
    fn entry(&mut self, key: PlainToken<'a>) -> Read<PendingValue> {
        let colon = self.at;
        let is_key = self.takes(b':') && self.is_separated();
        (is_key && key.span.len() <= MAX_KEY).then_some(()).ok_or(NotPlain)?;
        self.scalar(key)?;
        if self.is_at_line_end() {
            self.skip_break();
            return Ok(Some(colon));
        }
        // Not every parser accepts tabs here, but YAML does.
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
        match self.peek() {
            Some(b'[' | b'{') => self.flow()?,
            _ => {
                let value = self.token(false)?;
                self.scalar(value)?;
            }
        }
        self.end_line()?;
        Ok(None)
    }

    fn scalar(&mut self, token: PlainToken<'a>) -> Read {
        Ok(self.builder.scalar(Cow::Borrowed(token.text), token.form, token.span, 0)?)
    }

    /// Reads a flow mapping or list.
    fn flow(&mut self) -> Read {
        let mut open = Vec::new();
        self.flow_start(&mut open)?;
        loop {
            self.skip_flow_space()?;
            if let Some(b']' | b'}') = self.peek() {
                // The collection is empty, or ends with a comma.
                self.flow_end(&mut open)?;
            } else {
                if open.last() == Some(&Collection::Map) {
                    self.flow_key()?;
                }
                if let Some(b'[' | b'{') = self.peek() {
                    self.flow_start(&mut open)?;
                    continue;
                }
                let value = self.token(true)?;
                self.scalar(value)?;
            }
            // The rest of the line after a value.
            loop {
                if open.is_empty() {
                    return Ok(());
                }
                self.skip_flow_space()?;
                if self.takes(b',') {
                    break;
                }
                self.flow_end(&mut open)?;
            }
        }
    }

    fn flow_start(&mut self, open: &mut Vec<Collection>) -> Read {
        let start = self.at;
        let kind = if self.peek() == Some(b'{') { Collection::Map } else { Collection::List };
        self.at += 1;
        self.builder.begin(kind, start..self.at, 0)?;
        open.push(kind);
        Ok(())
    }

    fn flow_end(&mut self, open: &mut Vec<Collection>) -> Read {
        let bracket = if open.pop().ok_or(NotPlain)? == Collection::Map { b'}' } else { b']' };
        self.takes(bracket).then_some(()).ok_or(NotPlain)?;
        Ok(self.builder.end()?)
    }

    /// Reads a key in a flow mapping, and skips to its value.
    fn flow_key(&mut self) -> Read {
        let key = self.token(true)?;
        let is_quoted = matches!(key.form, ScalarForm::Quoted);
        let is_adjacent = is_quoted && self.peek() == Some(b':');
        self.skip_spaces();
        let is_key = self.takes(b':') && (is_adjacent || self.is_separated()) && key.span.len() <= MAX_KEY;
        is_key.then_some(()).ok_or(NotPlain)?;
        self.scalar(key)?;
        self.skip_flow_space()
    }

    /// Skips spaces, tabs, line breaks and comments.
    fn skip_flow_space(&mut self) -> Read {
        let mut is_separated = false;
        loop {
            match self.peek() {
                Some(b'\t') if self.is_block && self.is_in_indentation() => return Err(NotPlain),
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\n' | b'\r') => self.skip_break(),
                Some(b'#') if is_separated => self.skip_comment(),
                Some(b'#') => return Err(NotPlain),
                _ => return Ok(()),
            }
            is_separated = true;
        }
    }

    /// Reads a scalar.
    fn token(&mut self, in_flow: bool) -> Read<PlainToken<'a>> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.quoted(quote),
            _ => self.plain(in_flow),
        }
    }

    fn quoted(&mut self, quote: u8) -> Read<PlainToken<'a>> {
        let start = self.at;
        let inner = self.text.get(start + 1..).unwrap_or_default();
        let is_end = |byte: &u8| *byte == quote || matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
        let length = inner.as_bytes().iter().position(is_end).ok_or(NotPlain)?;
        let text = inner.get(..length).unwrap_or_default();
        self.at += length + 1;
        // Two single quotes stand for one.
        (self.takes(quote) && self.peek() != Some(quote)).then_some(()).ok_or(NotPlain)?;
        Ok(PlainToken { span: start..self.at, text, form: ScalarForm::Quoted })
    }

    fn plain(&mut self, in_flow: bool) -> Read<PlainToken<'a>> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let is_start = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'+' | b'(' | b'~' | 0x80..)
        };
        let is_plain = match bytes {
            [b'-', second, ..] => second.is_ascii_alphanumeric(),
            [first, ..] => is_start(*first),
            [] => false,
        };
        let mut length = 0;
        while let Some(byte) = bytes.get(length) {
            match byte {
                b'\n' | b'\r' => break,
                b',' | b']' | b'}' if in_flow => break,
                b':' => match bytes.get(length + 1) {
                    None | Some(b' ' | b'\t' | b'\n' | b'\r') => break,
                    Some(b',' | b'[' | b']' | b'{' | b'}') => return Err(NotPlain),
                    Some(_) => {}
                },
                b'#' if bytes.get(length.wrapping_sub(1)) == Some(&b' ') => break,
                b' '
                | b'.'
                | b'/'
                | b'-'
                | b'_'
                | b'('
                | b')'
                | b'+'
                | b'='
                | b'@'
                | b'%'
                | b'~'
                | 0x80.. => {}
                other if other.is_ascii_alphanumeric() => {}
                _ => return Err(NotPlain),
            }
            length += 1;
        }
        let text = rest.get(..length).unwrap_or_default().trim_end_matches(' ');
        (is_plain && !text.is_empty()).then_some(()).ok_or(NotPlain)?;
        let start = self.at;
        self.at += text.len();
        Ok(PlainToken { span: start..start + text.trim_end().len(), text, form: ScalarForm::Plain })
    }
}

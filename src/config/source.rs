//! Maps offsets in the text of a configuration to lines and columns.

use std::{ops::Range, sync::Arc};

/// The number of bytes per entry of [`Source::characters`]. Counting through one block is cheap, so a file with one
/// very long line costs no more than any other.
const BLOCK: usize = 256;

/// A position in a text. Lines and columns are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line number.
    pub line: usize,
    /// The column in characters.
    pub column: usize,
}

/// A text with an index of its lines and character offsets.
#[derive(Debug, Clone)]
pub(super) struct Source {
    text: Arc<str>,
    /// The offset of the first byte of each line.
    lines: Vec<usize>,
    /// The number of characters that begin before each multiple of [`BLOCK`] bytes.
    characters: Vec<usize>,
}

impl Source {
    pub fn new(text: Arc<str>) -> Self {
        let bytes = text.as_bytes();
        let lines = line_starts(&text);
        let mut characters = Vec::with_capacity(bytes.len() / BLOCK + 1);
        let mut before = 0;
        for block in bytes.chunks(BLOCK) {
            characters.push(before);
            before += count(block);
        }
        characters.push(before);
        Self { text, lines, characters }
    }

    /// The text at `span`, or an empty string if the span is out of bounds.
    pub fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    pub fn position(&self, offset: usize) -> Position {
        let line = self.line_of(offset);
        let start = self.lines[line];
        let before = match self.text.as_bytes().get(start..offset) {
            Some(near) if near.len() <= BLOCK => count(near),
            _ => self.characters_before(offset) - self.characters_before(start),
        };
        Position { line: line + 1, column: before + 1 }
    }

    /// A line by its number (from 1), without its line ending.
    pub fn line(&self, number: usize) -> &str {
        let Some(start) = number.checked_sub(1).and_then(|index| self.lines.get(index)) else { return "" };
        let end = self.lines.get(number).map_or(self.text.len(), |next| next - 1);
        self.text.get(*start..end).unwrap_or_default().trim_end_matches('\r')
    }

    /// The span from `offset` to the end of its line, without trailing whitespace.
    pub fn rest_of_line(&self, offset: usize) -> Range<usize> {
        let end = self.lines.get(self.line_of(offset) + 1).map_or(self.text.len(), |next| next - 1);
        offset..offset + self.slice(&(offset..end)).trim_end().len()
    }

    /// The number of bytes between the start of the line and `offset`.
    pub fn offset_in_line(&self, offset: usize) -> usize {
        offset - self.lines[self.line_of(offset)]
    }

    fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let block = offset / BLOCK;
        self.characters[block] + count(&self.text.as_bytes()[block * BLOCK..offset])
    }
}

/// Returns the offset of the first byte of each line.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(LineEnds::of(text).map(|end| end + 1)).collect()
}

/// Iterates over the offsets of line ends. Most lines are short, so that comparing eight bytes at once is faster than searching
/// for one line end after the other.
pub(super) struct LineEnds<'a> {
    bytes: &'a [u8],
    /// The offset after the block that is being read.
    next: usize,
    /// The highest bit of each byte of the block that is a line end, except those that were returned.
    found: u64,
}

impl<'a> LineEnds<'a> {
    const SIZE: usize = size_of::<u64>();

    pub const fn of(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), next: 0, found: 0 }
    }
}

impl Iterator for LineEnds<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        const LOW_BITS: u64 = u64::from_ne_bytes([0x7f; LineEnds::SIZE]);
        const LINE_ENDS: u64 = u64::from_ne_bytes([b'\n'; LineEnds::SIZE]);
        while self.found == 0 {
            let rest = self.bytes.get(self.next..).filter(|rest| !rest.is_empty())?;
            let block = rest.first_chunk().copied().unwrap_or_else(|| {
                let mut last = [0; Self::SIZE];
                last[..rest.len()].copy_from_slice(rest);
                last
            });
            let differences = u64::from_le_bytes(block) ^ LINE_ENDS;
            self.found = !(((differences & LOW_BITS) + LOW_BITS) | differences | LOW_BITS);
            self.next += Self::SIZE;
        }
        let end = self.next - Self::SIZE + self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        Some(end)
    }
}

/// Counts characters: every UTF-8 byte that is not a continuation byte starts one.
fn count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| !is_continuation(**byte)).count()
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_end_with_or_without_cr() {
        let source = Source::new("a: é1\r\nßx: 2\n".into());
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position("a: é".len()), Position { line: 1, column: 5 });
        assert_eq!(source.position("a: é1\r\nß".len()), Position { line: 2, column: 2 });
        assert_eq!(source.position(1000), Position { line: 3, column: 1 });
        assert_eq!(source.line(1), "a: é1");
        assert_eq!(source.line(2), "ßx: 2");
        assert_eq!((source.line(3), source.line(4), source.line(0)), ("", "", ""));
    }

    #[test]
    fn lines_start_after_line_ends_wherever_they_are() {
        // Bytes that differ from a line end in one bit, and those next to it.
        let others = ['\u{8}', '\t', '\u{b}', '\u{e}', '\u{2}', '\u{1a}', '*', 'J', '\u{8a}', '\0', '\u{7f}'];
        for length in 0..40 {
            for first in 0..=length {
                for (index, other) in others.iter().enumerate() {
                    let mut text = vec![*other; length];
                    for at in [first, first + index, length].map(|at| at.min(length)) {
                        text.insert(at, '\n');
                    }
                    let text = String::from_iter(text);
                    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
                    assert_eq!(line_starts(&text), [0].into_iter().chain(ends).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn columns_are_counted_across_blocks() {
        let ascii = "a".repeat(3 * BLOCK);
        let text = format!("{ascii}{}{ascii}é{ascii}", "aé€𝄞".repeat(500));
        let source = Source::new(text.as_str().into());
        for (index, (offset, _)) in text.char_indices().enumerate() {
            assert_eq!(source.position(offset), Position { line: 1, column: index + 1 });
        }
    }
}

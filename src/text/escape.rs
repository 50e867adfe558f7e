//! Escaping of untrusted text, so that it can neither control a terminal nor disguise its contents.

use std::{borrow::Cow, fmt, sync::LazyLock};

/// Returns `true` if a character must not be printed as it is: control characters (Unicode category Cc), line and
/// paragraph separators (Zl, Zp), format characters (Cf, such as bidirectional controls, zero-width characters and
/// tags), and everything else that is invisible according to `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt
/// of Unicode 17).
#[must_use]
pub const fn is_hidden(character: char) -> bool {
    // Almost every character.
    if matches!(character, ' '..='~') {
        return false;
    }
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Returns the hidden characters as sorted ranges of code points, inclusive on both ends; see [`is_hidden`].
#[must_use]
pub fn hidden_ranges() -> &'static [(u32, u32)] {
    static RANGES: LazyLock<Vec<(u32, u32)>> = LazyLock::new(|| {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in ('\0'..=char::MAX).filter(|character| is_hidden(*character)).map(u32::from) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        ranges
    });
    &RANGES
}

/// Escapes every hidden character; see [`is_hidden`]. The function is idempotent.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    Printable(text).push_to(&mut printable);
    printable
}

/// Formats a text as [`printable`] does.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl Printable<'_> {
    /// Appends it to `text`.
    pub fn push_to(self, text: &mut String) {
        if is_plain(self.0) {
            text.push_str(self.0);
        } else {
            self.0.chars().for_each(|character| push_printable(text, character));
        }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) { f.write_str(self.0) } else { f.write_str(&printable(self.0)) }
    }
}

/// Returns `true` if the text consists of printable ASCII characters, which are never hidden.
fn is_plain(text: &str) -> bool {
    all_bytes(text, |byte| matches!(byte, b' '..=b'~'))
}

/// Returns `true` if every byte of the text is as `is_good` requires. Much faster than testing one after the other.
pub fn all_bytes(text: &str, is_good: impl Fn(u8) -> bool) -> bool {
    // Without a way out, the compiler can test all bytes of a block at once.
    let is_good_block = |block: &[u8]| block.iter().fold(true, |all, byte| all & is_good(*byte));
    text.as_bytes().chunks(64).all(is_good_block)
}

/// Appends a character to `text`, escaped if it is hidden; see [`is_hidden`].
pub fn push_printable(text: &mut String, character: char) {
    match character {
        '\t' | '\r' | '\n' => text.extend(character.escape_default()),
        _ if is_hidden(character) => text.extend(character.escape_unicode()),
        _ => text.push(character),
    }
}

/// Escapes finished output for a terminal, a pipe or a file. The only hidden characters it passes are line ends
/// (including those of Windows, for scripts that run there) and, if `styled`, color sequences (SGR, ECMA-48 8.3.117).
#[must_use]
pub fn for_terminal(text: &str, styled: bool) -> Cow<'_, str> {
    let passes = |character| character == '\n' || !is_hidden(character);
    // Most text needs no tables of Unicode.
    if all_bytes(text, |byte| matches!(byte, b' '..=b'~' | b'\n')) || text.chars().all(passes) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let style = if styled { style_length(rest) } else { 0 };
        if style > 0 {
            let (sequence, after) = rest.split_at(style);
            safe.push_str(sequence);
            rest = after;
            continue;
        }
        if passes(character) || rest.starts_with("\r\n") {
            safe.push(character);
        } else {
            push_printable(&mut safe, character);
        }
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    Cow::Owned(safe)
}

/// Returns the length in bytes of the color sequence (`ESC [ digits and semicolons m`) that `text` starts with, or 0.
fn style_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';');
    match end {
        Some(end) if parameters[end..].starts_with('m') => "\x1b[".len() + end + "m".len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}c"), "a\\u{1b}[31mb\\u{202e}c");
        assert_eq!(
            printable("\u{9b}31m\r\u{8}\u{7f}\u{200b}\u{e0001}"),
            "\\u{9b}31m\\r\\u{8}\\u{7f}\\u{200b}\\u{e0001}"
        );
        assert_eq!(printable("Überknoten 日本 é"), "Überknoten 日本 é");
        assert_eq!(printable(&printable("\u{1b}")), "\\u{1b}");
    }

    #[test]
    fn characters_that_rust_considers_printable_are_not_hidden() {
        // The standard library is an independent reference: `escape_debug` escapes everything that Unicode defines as
        // not printable.
        let escaped = |c: char| c.escape_debug().count() > 1;
        let marks = |c: char| ('\u{300}'..='\u{36f}').contains(&c) || ('\u{fe00}'..='\u{fe0f}').contains(&c);
        let hidden_but_shown: Vec<char> =
            ('\0'..=char::MAX).filter(|c| is_hidden(*c) && !escaped(*c) && !marks(*c)).collect();
        // Unicode regards these as printable although they are invisible: fillers, jamo without a glyph, and variation
        // selectors.
        assert!(hidden_but_shown.len() < 20, "{hidden_but_shown:?}");
    }

    #[test]
    fn only_newlines_and_colors_reach_a_terminal() {
        let text = "\x1b[31mred\x1b[0m\n\x1b]0;title\x07\x1b[2J\x1b[";
        assert_eq!(for_terminal(text, true), "\x1b[31mred\x1b[0m\n\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{1b}[");
        assert_eq!(for_terminal("\x1b[31mred", false), "\\u{1b}[31mred");
        assert_eq!(for_terminal("exit 0\r\nover\rwritten\r\r\n", false), "exit 0\r\nover\\rwritten\\r\r\n");
        assert!(matches!(for_terminal("plain\ntext\n", true), Cow::Borrowed(_)));
    }
}

//! Quotes untrusted text in a PowerShell script.
//!
//! Windows PowerShell 5.1 reads a script without a byte order mark in the machine's code page, and treats typographic
//! quotes as quotes (about_Quoting_Rules). Therefore a script is pure ASCII, and other characters are written as
//! numbers.

use std::fmt::Write as _;

/// Returns an expression whose value is `text`: `'eth0'`, `('R' + [char] 0xE9 + 'seau')`.
pub(super) fn literal(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut plain = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit).ok().filter(|byte| (b' '..=b'~').contains(byte)) {
            Some(b'\'') => plain.push_str("''"),
            Some(byte) => plain.push(char::from(byte)),
            None => {
                // An expression that begins with a number would be a numeric sum.
                if parts.is_empty() || !plain.is_empty() {
                    parts.push(format!("'{}'", std::mem::take(&mut plain)));
                }
                parts.push(format!("[char] {unit:#06X}"));
            }
        }
    }
    if parts.is_empty() {
        return format!("'{plain}'");
    }
    if !plain.is_empty() {
        parts.push(format!("'{plain}'"));
    }
    format!("({})", parts.join(" + "))
}

/// Escapes `text` for a comment: one line of ASCII.
pub(super) fn comment(text: &str) -> String {
    let mut comment = String::with_capacity(text.len());
    for character in text.chars() {
        if (' '..='~').contains(&character) {
            comment.push(character);
        } else {
            let _ = write!(comment, "{}", character.escape_unicode());
        }
    }
    comment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_ascii_is_a_plain_literal() {
        assert_eq!(literal("eth0"), "'eth0'");
        assert_eq!(literal(""), "''");
        assert_eq!(literal("vEthernet (Ethernet) `$x\"#"), "'vEthernet (Ethernet) `$x\"#'");
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn other_characters_are_written_as_numbers() {
        assert_eq!(literal("R\u{e9}seau"), "('R' + [char] 0x00E9 + 'seau')");
        assert_eq!(literal("\u{2019}; exit #"), "('' + [char] 0x2019 + '; exit #')");
        assert_eq!(literal("a\nb"), "('a' + [char] 0x000A + 'b')");
        assert_eq!(literal("\u{1f600}"), "('' + [char] 0xD83D + [char] 0xDE00)");
        assert_eq!(comment("a\nb\u{202e}"), "a\\u{a}b\\u{202e}");
    }
}

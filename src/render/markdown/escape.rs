//! Escapes untrusted names in Markdown.

use crate::text::{Untrusted, push_printable};

/// Returns `true` for characters that could end a code span or a fence, open a tag or an entity, close a comment, or
/// mention a user. They are escaped in the same way as hidden characters.
const fn is_active(character: char) -> bool {
    matches!(character, '`' | '<' | '>' | '&' | '@')
}

/// Escapes text for any context: a code span, HTML, or a comment.
pub(in crate::render) fn name(text: &str) -> String {
    escaped(text, is_active)
}

/// Escapes text for a fenced block, in which hostgw itself prints `->`.
pub(super) fn fenced(text: &str) -> String {
    escaped(text, |character| is_active(character) && character != '>')
}

/// Puts the commands in a message or remedy, which are in backticks, in apostrophes. A code span cannot contain backticks,
/// and escaped ones are hard to read.
pub(in crate::render) fn quote_commands(text: &Untrusted) -> String {
    text.to_string().replace('`', "'")
}

fn escaped(text: &str, is_active: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) {
            escaped.extend(character.escape_unicode());
        } else {
            push_printable(&mut escaped, character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_characters_are_escaped() {
        assert_eq!(name("a`b<c>d&e@f"), "a\\u{60}b\\u{3c}c\\u{3e}d\\u{26}e\\u{40}f");
        assert_eq!(name("-->\n```"), "--\\u{3e}\\n\\u{60}\\u{60}\\u{60}");
        assert_eq!(fenced("via 1 -> 2\u{202e}"), "via 1 -> 2\\u{202e}");
        assert_eq!(name("linux-1"), "linux-1");
    }

    #[test]
    fn commands_stay_readable() {
        assert_eq!(
            name(&quote_commands(&"remove it with `ip route del`".into())),
            "remove it with 'ip route del'"
        );
    }
}

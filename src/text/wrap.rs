//! Wraps text to the width of a terminal.

use std::borrow::Cow;

use console::measure_text_width;

/// The additional indent of continuation lines.
const INDENT: usize = 4;

/// Breaks every line longer than `width` columns at spaces, and indents its continuation. Longer words are not broken,
/// as the terminal does that anyway. Color sequences have no width.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Cow<'_, str> {
    if width == usize::MAX || text.lines().all(|line| measure_text_width(line) <= width) {
        return Cow::Borrowed(text);
    }
    let mut wrapped = String::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        wrap_line(&mut wrapped, line, width);
        wrapped.push_str(end);
    }
    Cow::Owned(wrapped)
}

fn wrap_line(wrapped: &mut String, line: &str, width: usize) {
    let words = line.trim_start_matches(' ');
    let indent = line.len() - words.len();
    let hanging = " ".repeat((indent + INDENT).min(width / 2));
    wrapped.push_str(&line[..indent]);
    let (mut column, mut gap, mut is_first) = (indent, 0, true);
    for word in words.split(' ') {
        let length = measure_text_width(word);
        // There is nothing between two consecutive spaces.
        if word.is_empty() {
            gap += 1;
            continue;
        }
        if is_first || column + gap + length <= width {
            wrapped.push_str(&" ".repeat(gap));
            column += gap + length;
        } else {
            wrapped.push('\n');
            wrapped.push_str(&hanging);
            column = hanging.len() + length;
        }
        wrapped.push_str(word);
        (gap, is_first) = (1, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_indented() {
        assert_eq!(wrap("+ one two three\n  four five\n", 11), "+ one two\n    three\n  four five\n");
        assert_eq!(wrap("  # one two", 9), "  # one\n    two");
        assert_eq!(wrap("\x1b[32m+ one two\x1b[0m", 6), "\x1b[32m+ one\n   two\x1b[0m");
        assert_eq!(wrap("a  aligned   b", 11), "a  aligned\n    b");
        assert_eq!(wrap("unbreakable", 4), "unbreakable");
        assert!(matches!(wrap("short\n", 5), Cow::Borrowed("short\n")));
    }

    proptest! {
        #[test]
        fn no_word_is_broken_or_lost(text in "( {0,3}[a-z]{1,12}){0,12}", width in 1_usize..60) {
            let wrapped = wrap(&text, width);
            prop_assert!(wrapped.split_whitespace().eq(text.split_whitespace()));
            for line in wrapped.lines() {
                let fits = line.len() <= width;
                prop_assert!(fits || line.split_whitespace().count() == 1, "{line:?} in {width}");
            }
        }
    }
}

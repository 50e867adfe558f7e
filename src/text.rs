//! Helpers for text that people read and write.

mod escape;
mod json;
mod sh;
mod untrusted;
mod wrap;

pub use escape::{for_terminal, hidden_ranges, is_hidden, printable, push_printable};
pub use json::to_json;
pub use sh::{ShellCommand, ShellWord};
pub use untrusted::{Untrusted, path};
pub use wrap::wrap;

use std::{borrow::Cow, time::Duration};

/// Returns the candidate most similar to `word`, unless more than a third of its characters differ.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(3);
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let word = letters(word);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &letters(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns the optimal string alignment distance, which counts insertions, deletions, replacements, and swaps of
/// adjacent characters.
#[must_use]
pub fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Formats a count with its noun: `1 route`, `2 routes`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Formats at most `limit` items as a list in a sentence.
#[must_use]
pub fn list<T: std::fmt::Display>(items: &[T], limit: usize) -> String {
    let shown: Vec<String> = items.iter().take(limit).map(ToString::to_string).collect();
    match items.len().saturating_sub(limit) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Pads `text` with spaces to `width` columns of a terminal. Escape sequences have no width.
///
/// All padding to a dynamic width goes through this function: a `width$` in a format string panics above 65,535.
#[must_use]
pub fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(console::measure_text_width(text));
    let mut padded = String::with_capacity(text.len() + missing);
    padded.push_str(text);
    padded.extend(std::iter::repeat_n(' ', missing));
    padded
}

/// Shortens a value from a file for use in a sentence.
#[must_use]
pub fn shortened(text: &str) -> Cow<'_, str> {
    const MAX_LEN: usize = 60;
    match text.char_indices().nth(MAX_LEN) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Parses a duration, written as a whole number with a unit: `500ms`, `30s`, `2m`, `1h`.
///
/// # Errors
/// Returns what is wrong or expected, as a sentence fragment.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "expected a whole number and a unit, such as 30s".to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(format!("{number} has no unit; did you mean {number}s?")),
        _ => return Err("the units are ms, s, m and h".to_owned()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_tolerates_typing_errors_only() {
        let links = ["lo", "eth0", "docker0"];
        assert_eq!(nearest("etho", links), Some("eth0"));
        assert_eq!(nearest("eht0", links), Some("eth0"));
        assert_eq!(nearest("wlan0", links), None);
        assert_eq!(nearest("DOCKER0", links), Some("docker0"));
    }

    #[test]
    fn padding_has_no_maximum_width() {
        assert_eq!(padded("a", 3), "a  ");
        assert_eq!(padded("abc", 2), "abc");
        assert_eq!(padded("日本", 5), "日本 ");
        assert_eq!(padded("\u{1b}[31ma\u{1b}[0m", 2), "\u{1b}[31ma\u{1b}[0m ");
        assert_eq!(padded("", 70_000).len(), 70_000);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["90", "", "s", "1d", "-1s", "99999999999999999999s", "99999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

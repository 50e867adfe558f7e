//! Helpers for text that people read and write.

mod address;
mod escape;
mod json;
mod json_error;
mod os_error;
mod sh;
mod untrusted;
mod wrap;

pub use address::{FastAddress, FastPrefix};
pub use escape::{Printable, all_bytes, for_terminal, hidden_ranges, is_hidden, printable, push_printable};
pub use json::{to_json, write_json, write_json_rows};
pub use json_error::JsonError;
pub use os_error::{OsError, errno_name};
pub use sh::{ShellCommand, ShellWord};
pub use untrusted::{Untrusted, path};
pub use wrap::wrap;

use std::{borrow::Cow, time::Duration};

/// The length above which a word is not a misspelling of anything: no name, key or interface is longer.
const MAX_SIMILAR: usize = 253;

/// Returns the candidate that `word` is most likely a misspelling of, if at most a third of the characters differ. Ignores
/// case and separators: `pod_cidr`, `pod-cidr` and `PodCidr` all mean podCIDR.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let simplified = |text: &str| -> String {
        text.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
    };
    // The distance takes quadratic time.
    if word.len() > MAX_SIMILAR {
        return None;
    }
    let word = simplified(word);
    let length = word.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = simplified(candidate);
            let other_length = other.chars().count();
            let allowed = length.max(other_length) / 3;
            // The distance is at least the difference of the lengths.
            (length.abs_diff(other_length) <= allowed)
                .then(|| (strsim::osa_distance(&word, &other), candidate))
                .filter(|(distance, _)| *distance <= allowed)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
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

/// Formats items as a list in a sentence: `a`, `a and b`, `a, b, and c`.
#[must_use]
pub fn all_of<T: std::fmt::Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [item] => item.to_string(),
        [one, other] => format!("{one} and {other}"),
        [first @ .., last] => format!("{}, and {last}", list(first, first.len())),
    }
}

/// Returns the number of columns that a text takes on a terminal; its colors take none.
#[must_use]
pub fn text_width(text: &str) -> usize {
    // Most text needs no tables of Unicode.
    if all_bytes(text, |byte| matches!(byte, b' '..=b'~')) {
        text.len()
    } else {
        console::measure_text_width(text)
    }
}

/// Pads `text` with spaces to `width` columns of a terminal. Escape sequences have no width.
///
/// All padding to a dynamic width goes through this function: a `width$` in a format string panics above 65,535.
#[must_use]
pub fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text_width(text));
    let mut padded = String::with_capacity(text.len() + missing);
    padded.push_str(text);
    push_spaces(&mut padded, missing);
    padded
}

/// Appends `number` spaces to `text`, many at once.
pub fn push_spaces(text: &mut String, number: usize) {
    const SPACES: &str = "                                ";
    for _ in 0..number / SPACES.len() {
        text.push_str(SPACES);
    }
    text.push_str(&SPACES[..number % SPACES.len()]);
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

/// The units of a duration, with their lengths in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Formats a duration as [`duration`] parses it: `90s`, `2m`. Drops what is less than a millisecond.
#[must_use]
pub fn in_units(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match UNITS.iter().find(|(_, length)| milliseconds > 0 && milliseconds.is_multiple_of(*length)) {
        Some((unit, length)) => format!("{}{unit}", milliseconds / length),
        None => "0s".to_owned(),
    }
}

/// Parses a duration, written as a whole number with a unit: `500ms`, `30s`, `2m`, `1h`.
///
/// # Errors
/// Returns what is wrong or expected, as a sentence fragment.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "use a whole number and a unit, such as 30s".to_owned())?;
    let milliseconds = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, length)) => *length,
        None if unit.is_empty() => return Err(format!("{number} has no unit; did you mean {number}s?")),
        None => return Err("use a whole number and a unit (ms, s, m or h), such as 30s".to_owned()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A printed duration can be pasted into a command line.
    #[test]
    fn durations_are_printed_as_they_are_parsed() {
        for (seconds, text) in [(0, "0s"), (1, "1s"), (90, "90s"), (120, "2m"), (3600, "1h"), (5400, "90m")] {
            assert_eq!(in_units(Duration::from_secs(seconds)), text);
        }
        for milliseconds in (0..5000).chain((0..200).map(|minutes| minutes * 60_000)) {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(duration(&in_units(time)), Ok(time));
        }
        assert_eq!(in_units(Duration::MAX), format!("{}ms", u64::MAX));
    }

    #[test]
    fn nearest_tolerates_typing_errors_only() {
        let links = ["lo", "eth0", "docker0"];
        assert_eq!(nearest("etho", links), Some("eth0"));
        assert_eq!(nearest("eht0", links), Some("eth0"));
        assert_eq!(nearest("wlan0", links), None);
        assert_eq!(nearest("DOCKER0", links), Some("docker0"));
        let keys = ["name", "os", "podCIDR", "address", "gateway", "egressInterface", "defaultGateway"];
        assert_eq!(nearest("podCidr", keys), Some("podCIDR"));
        assert_eq!(nearest("pod_cidrs", keys), Some("podCIDR"));
        assert_eq!(nearest("egresInterfac", keys), Some("egressInterface"));
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("labels", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), keys), None);
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

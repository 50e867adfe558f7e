//! Orders names so that `node-2` comes before `node-10`.

use std::cmp::Ordering;

/// Compares two names: numbers in them by their value, everything else by its characters. Only equal names are equal.
#[must_use]
pub fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut one, mut other) = (left, right);
    while !one.is_empty() && !other.is_empty() {
        let (first, second) = (chunk(one), chunk(other));
        let order = match (number(first), number(second)) {
            (Some(first), Some(second)) => first.len().cmp(&second.len()).then_with(|| first.cmp(second)),
            _ => first.cmp(second),
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (&one[first.len()..], &other[second.len()..]);
    }
    one.len().cmp(&other.len()).then_with(|| left.cmp(right))
}

/// Returns the digits, or everything before the first digit, at the start of a name.
fn chunk(text: &str) -> &str {
    let is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(text.len());
    &text[..end]
}

/// Returns the digits of a number without leading zeros.
fn number(chunk: &str) -> Option<&str> {
    chunk.starts_with(|c: char| c.is_ascii_digit()).then(|| chunk.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let sorted = [
            "",
            "10.0.0.9",
            "10.0.0.10",
            "a",
            "a-1",
            "a-02",
            "a-2",
            "a-2-b",
            "a-10",
            "a-18446744073709551616",
            "a-18446744073709551617",
            "b",
            "é1",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(natural_order(one, other), at.cmp(&other_at), "{one} {other}");
            }
        }
    }
}

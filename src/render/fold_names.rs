//! Lists many names in few characters, without omitting any: `10.244.{0..7,9}.0/24`.

use std::cmp::Ordering;

use crate::text::{Untrusted, list};

/// The maximum number of names in one word, which limits the length of a line.
const MAX_NAMES: usize = 32;

/// A part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Number { text: &'a str, value: u64 },
    Text(&'a str),
}

/// Folds names into words with the brace expansion of a shell, `{a,b}` and `{1..9}`: names that differ only in part
/// share a word. Does not preserve the order. A name that contains special characters is not folded.
#[must_use]
pub(super) fn fold_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (plain, special): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| is_plain(name));
    let mut plain: Vec<Vec<Token>> = plain.into_iter().map(tokens).collect();
    plain.sort_by(|one, other| compare(one, other));
    plain.dedup();
    let words = plain.chunks(MAX_NAMES).map(|chunk| {
        let parts: Vec<&[Token]> = chunk.iter().map(Vec::as_slice).collect();
        fold_tokens(&parts)
    });
    words.chain(special.into_iter().map(ToOwned::to_owned)).collect()
}

/// Summarizes names as at most `max` ranges, each with the number of names in it: `10.3.0.0/26 to 10.3.255.192/26
/// (1024)`. Names with the same beginning, such as a network, share a range.
#[must_use]
pub(super) fn name_ranges<'a>(names: impl IntoIterator<Item = &'a str>, max: usize) -> Vec<String> {
    let mut names: Vec<Vec<Token>> = names.into_iter().map(tokens).collect();
    names.sort_by(|one, other| compare(one, other));
    let text = |name: &[Token]| name.iter().map(|token| token.text()).collect::<String>();
    let range = |names: &[Vec<Token>]| match names {
        [] => String::new(),
        [only] => text(only),
        [first, .., last] => format!("{} to {} ({})", text(first), text(last), names.len()),
    };
    let groups = |length: usize| {
        names.chunk_by(move |one, other| one.iter().take(length).eq(other.iter().take(length)))
    };
    // Longer beginnings never make fewer groups.
    let longest = names.iter().map(Vec::len).max().unwrap_or(0);
    let fitting = (1..=longest).take_while(|length| groups(*length).nth(max).is_none()).last();
    match fitting {
        Some(length) => groups(length).map(range).collect(),
        None => names.chunks(names.len().div_ceil(max).max(1)).map(range).collect(),
    }
}

/// Lists names in at most `max` words: all of them, or else folded, or else as ranges.
#[must_use]
pub fn short_names(names: &[Untrusted], max: usize) -> String {
    if names.len() <= max {
        return list(names, max);
    }
    let raw = || names.iter().map(Untrusted::as_raw);
    let folded = fold_names(raw());
    let words = if folded.len() <= max { folded } else { name_ranges(raw(), max) };
    words.into_iter().map(|word| Untrusted::from(word).to_string()).collect::<Vec<_>>().join(", ")
}

/// Returns `true` if the name contains no characters that have a meaning in a word.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_' | ' ');
    !name.is_empty() && name.chars().all(is_plain) && !name.contains("..")
}

/// Splits a name into tokens: numbers without leading zeros, words of letters, and single characters. In a word that
/// mixes letters and digits, such as `x7k2`, each letter is a token.
fn tokens(name: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let run = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let (word, after) = rest.split_at(run.max(first));
        let is_mixed = word.contains(|c: char| c.is_ascii_digit());
        if is_mixed {
            push_mixed(word, &mut tokens)
        } else {
            tokens.push(Token::Text(word))
        }
        rest = after;
    }
    tokens
}

fn push_mixed<'a>(word: &'a str, tokens: &mut Vec<Token<'a>>) {
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let is_number = digits > 0 && (digits == 1 || !rest.starts_with('0'));
        let number = rest[..digits].parse().ok().filter(|_| is_number);
        let (token, after) = rest.split_at(if number.is_some() { digits } else { 1 });
        tokens.push(number.map_or(Token::Text(token), |value| Token::Number { text: token, value }));
        rest = after;
    }
}

impl<'a> Token<'a> {
    const fn text(self) -> &'a str {
        match self {
            Self::Number { text, .. } | Self::Text(text) => text,
        }
    }
}

/// Orders numbers by value, before text.
fn compare(one: &[Token], other: &[Token]) -> Ordering {
    fn rank<'a>(token: &Token<'a>) -> (u8, u64, &'a str) {
        match *token {
            Token::Number { value, .. } => (0, value, ""),
            Token::Text(text) => (1, 0, text),
        }
    }
    one.iter().map(rank).cmp(other.iter().map(rank))
}

/// Folds distinct, sorted names into one word.
fn fold_tokens(names: &[&[Token]]) -> String {
    let Some((first, others)) = names.split_first() else { return String::new() };
    let all = |holds: &dyn Fn(&[Token]) -> bool| others.iter().all(|name| holds(name));
    let prefix_length =
        (0..first.len()).take_while(|index| all(&|name| name.get(*index) == first.get(*index))).count();
    let rest = names.iter().map(|name| name.len() - prefix_length).min().unwrap_or(0);
    let from_end = |name: &[Token], index: usize| name[name.len() - 1 - index].text().to_owned();
    let tail =
        (0..rest).take_while(|index| all(&|name| from_end(name, *index) == from_end(first, *index))).count();
    let text = |tokens: &[Token]| tokens.iter().map(|token| token.text()).collect::<String>();
    let prefix = text(&first[..prefix_length]);
    if others.is_empty() {
        return prefix;
    }
    let middles: Vec<&[Token]> = names.iter().map(|name| &name[prefix_length..name.len() - tail]).collect();
    format!("{prefix}{{{}}}{}", alternatives(&middles).join(","), text(&first[first.len() - tail..]))
}

/// The differing parts: ranges for consecutive numbers, and one word for all others that start with the same token.
fn alternatives(middles: &[&[Token]]) -> Vec<String> {
    let number = |middle: &[Token]| match middle {
        [Token::Number { value, .. }] => Some(*value),
        _ => None,
    };
    let mut words = Vec::new();
    let mut left = middles;
    while let Some(first) = left.first() {
        let run = match number(first) {
            Some(start) => {
                (0..).zip(left).take_while(|(index, next)| number(next) == start.checked_add(*index)).count()
            }
            None => 0,
        };
        if run > 2 {
            words.push(format!("{}..{}", first[0].text(), left[run - 1][0].text()));
            left = &left[run..];
            continue;
        }
        let same_start = left.iter().take_while(|middle| middle.first() == first.first()).count();
        words.push(fold_tokens(&left[..same_start]));
        left = &left[same_start..];
    }
    words
}

/// Expands a word as a shell would.
#[cfg(test)]
pub(super) fn expand_braces(word: &str) -> std::collections::BTreeSet<String> {
    let Some(open) = word.find('{') else { return std::collections::BTreeSet::from([word.to_owned()]) };
    let (mut depth, mut parts, mut start, mut close) = (0, Vec::new(), open + 1, word.len());
    for (index, c) in word.char_indices().skip(open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            parts.push(&word[start..index]);
            start = index + 1;
        }
        if depth == 0 {
            close = index;
            break;
        }
    }
    let numbers = |part: &str| {
        let (from, to) = part.split_once("..")?;
        Some((from.parse::<u64>().ok()?..=to.parse().ok()?).map(|number| number.to_string()).collect())
    };
    let ranges = |part: &&str| -> Vec<String> { numbers(part).unwrap_or_else(|| vec![(*part).to_owned()]) };
    let rests = expand_braces(&word[close + 1..]);
    let middles: std::collections::BTreeSet<String> =
        parts.iter().flat_map(ranges).flat_map(|part| expand_braces(&part)).collect();
    let both = |middle: &String| {
        rests.iter().map(|rest| format!("{}{middle}{rest}", &word[..open])).collect::<Vec<_>>()
    };
    middles.iter().flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_differ_in_part_are_folded() {
        let folded = |names: &[&str]| fold_names(names.iter().copied()).join(" ");
        assert_eq!(folded(&["10.244.1.0/24"]), "10.244.1.0/24");
        assert_eq!(folded(&["10.244.1.0/24", "10.244.3.0/24"]), "10.244.{1,3}.0/24");
        let names: Vec<String> = (0..10).map(|index| format!("10.244.{index}.0/24")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(folded(&names), "10.244.{0..9}.0/24");
        assert_eq!(folded(&["10.1.0.0/26", "10.1.0.64/26", "10.1.1.0/26"]), "10.1.{0.{0,64},1.0}/26");
        assert_eq!(folded(&["pool-a-x7", "pool-a-k2", "pool-b"]), "pool-{a-{k2,x7},b}");
        assert_eq!(folded(&["n01", "n02", "n03"]), "n0{1..3}");
        assert_eq!(folded(&["alpha-1", "alpine-1"]), "{alpha,alpine}-1");
        assert_eq!(folded(&["10.0.1.0/24 metric 7", "10.0.2.0/24 metric 7"]), "10.0.{1,2}.0/24 metric 7");
        assert_eq!(folded(&["a", "{b}", "c,d", "e..f"]), "a {b} c,d e..f");
        assert_eq!(folded(&["a", "a1"]), "a{,1}");
        assert_eq!(folded(&[]), "");
    }

    #[test]
    fn names_with_the_same_beginning_share_a_range() {
        let names: Vec<String> =
            (0..1024).map(|index| format!("10.{}.{}.0/24", index / 256, index % 256)).collect();
        let ranges = |max| name_ranges(names.iter().rev().map(String::as_str), max);
        assert_eq!(ranges(3), ["10.0.0.0/24 to 10.3.255.0/24 (1024)"]);
        assert_eq!(ranges(4)[1], "10.1.0.0/24 to 10.1.255.0/24 (256)");
        assert_eq!(ranges(2000).len(), 1024);
        assert_eq!(name_ranges(["b", "a", "c1", "c2"], 2), ["a to b (2)", "c1 to c2 (2)"]);
        assert_eq!(name_ranges([], 2), [""; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn ranges_count_every_name(names in prop::collection::vec("[a-c0-3.: /\u{e9}\u{65e5}-]{1,6}", 0..100), max in 1..20_usize) {
            let ranges = name_ranges(names.iter().map(String::as_str), max);
            prop_assert!(ranges.len() <= max);
            let count = |range: &String| {
                let count = range.rsplit_once('(').and_then(|(_, count)| count.strip_suffix(')'));
                count.map_or(1, |count| count.parse::<usize>().expect("a number"))
            };
            prop_assert_eq!(ranges.iter().map(count).sum::<usize>(), names.len());
        }

        #[test]
        fn folding_loses_no_name(names in prop::collection::btree_set("[a-c0-3.: /-]{1,6}", 0..100)) {
            let plain: BTreeSet<String> = names.into_iter().filter(|name| is_plain(name)).collect();
            let words = fold_names(plain.iter().map(String::as_str));
            let expanded: BTreeSet<String> = words.iter().flat_map(|word| expand_braces(word)).collect();
            prop_assert_eq!(expanded, plain);
        }
    }
}

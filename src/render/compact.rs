//! Many names in few characters, without losing one: `10.244.{0..7,9}.0/24`.

use std::cmp::Ordering;

/// So many names at most stand for one word, so that lines do not become endless.
const TOGETHER: usize = 32;

/// A part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Number { text: &'a str, value: u64 },
    Text(&'a str),
}

/// The names in words as a shell would expand them, `{a,b}` for each of several and `{1..9}` for a range: names
/// that differ in a part share a word. The order of the names is lost; a name that could be taken for such a
/// word is a word of its own.
#[must_use]
pub(super) fn compact<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (plain, odd): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| is_plain(name));
    let mut plain: Vec<Vec<Token>> = plain.into_iter().map(tokens).collect();
    plain.sort_by(|one, other| compare(one, other));
    plain.dedup();
    let words = plain.chunks(TOGETHER).map(|chunk| {
        let parts: Vec<&[Token]> = chunk.iter().map(Vec::as_slice).collect();
        fold(&parts)
    });
    words.chain(odd.into_iter().map(ToOwned::to_owned)).collect()
}

/// Whether nothing in a name means something in a word.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_' | ' ');
    !name.is_empty() && name.chars().all(is_plain) && !name.contains("..")
}

/// A word is one token and so is a number, but for leading zeros; of what is both, as in `x7k2`, each letter is.
fn tokens(name: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let run = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run.max(1));
        let is_mixed = word.contains(|c: char| c.is_ascii_digit());
        if is_mixed {
            mixed(word, &mut tokens)
        } else {
            tokens.push(Token::Text(word))
        }
        rest = after;
    }
    tokens
}

fn mixed<'a>(word: &'a str, tokens: &mut Vec<Token<'a>>) {
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

/// Numbers by value, before text.
fn compare(one: &[Token], other: &[Token]) -> Ordering {
    fn rank<'a>(token: &Token<'a>) -> (u8, u64, &'a str) {
        match *token {
            Token::Number { value, .. } => (0, value, ""),
            Token::Text(text) => (1, 0, text),
        }
    }
    one.iter().map(rank).cmp(other.iter().map(rank))
}

/// One word for names that are sorted and differ.
fn fold(names: &[&[Token]]) -> String {
    let Some((first, more)) = names.split_first() else { return String::new() };
    let all = |at: &dyn Fn(&[Token]) -> bool| more.iter().all(|name| at(name));
    let head = (0..first.len()).take_while(|at| all(&|name| name.get(*at) == first.get(*at))).count();
    let rest = names.iter().map(|name| name.len() - head).min().unwrap_or(0);
    let from_end = |name: &[Token], at: usize| name[name.len() - 1 - at].text().to_owned();
    let tail = (0..rest).take_while(|at| all(&|name| from_end(name, *at) == from_end(first, *at))).count();
    let text = |tokens: &[Token]| tokens.iter().map(|token| token.text()).collect::<String>();
    let prefix = text(&first[..head]);
    if more.is_empty() {
        return prefix;
    }
    let middles: Vec<&[Token]> = names.iter().map(|name| &name[head..name.len() - tail]).collect();
    format!("{prefix}{{{}}}{}", alternatives(&middles).join(","), text(&first[first.len() - tail..]))
}

/// What differs: ranges of numbers, and for the rest one word for all that begin alike.
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
                (0..).zip(left).take_while(|(at, next)| number(next) == start.checked_add(*at)).count()
            }
            None => 0,
        };
        if run > 2 {
            words.push(format!("{}..{}", first[0].text(), left[run - 1][0].text()));
            left = &left[run..];
            continue;
        }
        let alike = left.iter().take_while(|middle| middle.first() == first.first()).count();
        words.push(fold(&left[..alike]));
        left = &left[alike..];
    }
    words
}

/// What a shell makes of a word.
#[cfg(test)]
pub(super) fn expand(word: &str) -> std::collections::BTreeSet<String> {
    let Some(open) = word.find('{') else { return std::collections::BTreeSet::from([word.to_owned()]) };
    let (mut depth, mut parts, mut start, mut close) = (0, Vec::new(), open + 1, word.len());
    for (at, c) in word.char_indices().skip(open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            parts.push(&word[start..at]);
            start = at + 1;
        }
        if depth == 0 {
            close = at;
            break;
        }
    }
    let numbers = |part: &str| {
        let (from, to) = part.split_once("..")?;
        Some((from.parse::<u64>().ok()?..=to.parse().ok()?).map(|number| number.to_string()).collect())
    };
    let ranges = |part: &&str| -> Vec<String> { numbers(part).unwrap_or_else(|| vec![(*part).to_owned()]) };
    let rests = expand(&word[close + 1..]);
    let middles: std::collections::BTreeSet<String> =
        parts.iter().flat_map(ranges).flat_map(|part| expand(&part)).collect();
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
    fn names_that_differ_in_a_part_share_a_word() {
        let told = |names: &[&str]| compact(names.iter().copied()).join(" ");
        assert_eq!(told(&["10.244.1.0/24"]), "10.244.1.0/24");
        assert_eq!(told(&["10.244.1.0/24", "10.244.3.0/24"]), "10.244.{1,3}.0/24");
        let names: Vec<String> = (0..10).map(|at| format!("10.244.{at}.0/24")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(told(&names), "10.244.{0..9}.0/24");
        assert_eq!(told(&["10.1.0.0/26", "10.1.0.64/26", "10.1.1.0/26"]), "10.1.{0.{0,64},1.0}/26");
        assert_eq!(told(&["pool-a-x7", "pool-a-k2", "pool-b"]), "pool-{a-{k2,x7},b}");
        assert_eq!(told(&["n01", "n02", "n03"]), "n0{1..3}");
        assert_eq!(told(&["alpha-1", "alpine-1"]), "{alpha,alpine}-1");
        assert_eq!(told(&["10.0.1.0/24 metric 7", "10.0.2.0/24 metric 7"]), "10.0.{1,2}.0/24 metric 7");
        assert_eq!(told(&["a", "{b}", "c,d", "e..f"]), "a {b} c,d e..f");
        assert_eq!(told(&["a", "a1"]), "a{,1}");
        assert_eq!(told(&[]), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_name_is_lost(names in prop::collection::btree_set("[a-c0-3.: /-]{1,6}", 0..100)) {
            let plain: BTreeSet<String> = names.into_iter().filter(|name| is_plain(name)).collect();
            let words = compact(plain.iter().map(String::as_str));
            let expanded: BTreeSet<String> = words.iter().flat_map(|word| expand(word)).collect();
            prop_assert_eq!(expanded, plain);
        }
    }
}

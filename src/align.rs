//! Aligns two lists that are mostly the same, such as two versions of a file.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// The maximum distance between equal items.
const NEAR: usize = 16;

/// Returns, for each item of a list of `left` items, the equal item of a list of `right` items, if it is among the next ones
/// after the last that was found. No item is found twice. The time is linear, but items in another order are not found.
pub fn in_order(left: usize, right: usize, is_equal: impl Fn(usize, usize) -> bool) -> Vec<Option<usize>> {
    let mut next = 0;
    let find = |item| {
        let found = (next..right.min(next + NEAR)).find(|candidate| is_equal(item, *candidate))?;
        next = found + 1;
        Some(found)
    };
    (0..left).map(find).collect()
}

/// Joins two versions of a list by the keys of its items, which are unique in each version. Returns the wanted pairs: in
/// the order of `after`, then the items that are only in `before`. Items in the same order cost no memory unless they are
/// wanted.
pub fn join<T, K: Hash + Eq>(
    mut before: impl Iterator<Item = T>,
    after: impl Iterator<Item = T>,
    key: impl Fn(&T) -> K,
    is_wanted: impl Fn(Option<&T>, Option<&T>) -> bool,
) -> Vec<(Option<T>, Option<T>)> {
    let mut pairs: Vec<(Option<T>, Option<T>)> = Vec::new();
    let (mut near, mut skipped): (VecDeque<T>, Vec<T>) = (VecDeque::with_capacity(NEAR), Vec::new());
    for after in after {
        near.extend(before.by_ref().take(NEAR - near.len()));
        let wanted_key = key(&after);
        let Some(found) = near.iter().position(|before| key(before) == wanted_key) else {
            pairs.push((None, Some(after)));
            continue;
        };
        skipped.extend(near.drain(..found));
        let before = near.pop_front();
        if is_wanted(before.as_ref(), Some(&after)) {
            pairs.push((before, Some(after)));
        }
    }
    skipped.extend(near.into_iter().chain(before));

    // The others are in another order, or only in one version.
    let mut skipped: Vec<Option<T>> = skipped.into_iter().map(Some).collect();
    let places = skipped.iter().enumerate().filter_map(|(at, item)| Some((key(item.as_ref()?), at)));
    let places: HashMap<K, usize> = places.collect();
    for (before, after) in &mut pairs {
        if let (None, Some(after)) = (&before, after) {
            *before = places.get(&key(after)).and_then(|at| skipped[*at].take());
        }
    }
    pairs.extend(skipped.into_iter().flatten().map(|before| (Some(before), None)));
    pairs.retain(|(before, after)| is_wanted(before.as_ref(), after.as_ref()));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(left: &str, right: &str) -> Vec<Option<usize>> {
        let (left, right) = (left.as_bytes(), right.as_bytes());
        in_order(left.len(), right.len(), |one, other| left[one] == right[other])
    }

    #[test]
    fn items_are_found_in_their_order() {
        assert_eq!(aligned("abc", "abc"), [Some(0), Some(1), Some(2)]);
        assert_eq!(aligned("abc", "xabyc"), [Some(1), Some(2), Some(4)]);
        assert_eq!(aligned("axbc", "abc"), [Some(0), None, Some(1), Some(2)]);
        assert_eq!(aligned("ba", "ab"), [Some(1), None]);
        assert_eq!(aligned("aa", "a"), [Some(0), None]);
        assert_eq!(aligned("a", "................a"), [None]);
        assert_eq!(aligned("", "a"), []);
    }

    /// Returns the pairs of letters that differ in case, or all, as `aA`; `-` stands for none.
    fn joined(before: &str, after: &str, all: bool) -> String {
        let is_wanted = |before: Option<&char>, after: Option<&char>| all || before != after;
        let pairs = join(before.chars(), after.chars(), char::to_ascii_lowercase, is_wanted);
        let text = |(before, after): (Option<char>, Option<char>)| {
            format!("{}{}", before.unwrap_or('-'), after.unwrap_or('-'))
        };
        pairs.into_iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn items_are_joined_by_their_keys_in_any_order() {
        assert_eq!(joined("abc", "abc", false), "");
        assert_eq!(joined("abc", "aBc", false), "bB");
        assert_eq!(joined("abc", "aBc", true), "aa bB cc");
        assert_eq!(joined("ac", "abcd", false), "-b -d");
        assert_eq!(joined("abcd", "ac", false), "b- d-");
        assert_eq!(joined("abcd", "Dcba", false), "dD");
        assert_eq!(joined("abcd", "Dcba", true), "dD cc bb aa");
        assert_eq!(joined("", "a", false), "-a");
        assert_eq!(joined("abcdefghijklmnopqrstuvw", "Wabcdefghijklmnopqrstuv", false), "wW");
        assert_eq!(joined("abcdefghijklmnopqrstuvw", "bcdefghijklmnopqrstuvwA", false), "aA");
        assert_eq!(joined("abcdefghijklmnopqrstuvwx", "wxvutsrqponmlkjihgfedcBA", false), "bB aA");
    }
}

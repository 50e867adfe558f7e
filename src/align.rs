//! Aligns two lists that are mostly the same, such as two versions of a file.

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
}

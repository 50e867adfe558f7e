//! Finds overlapping prefixes in O(n log n).

use ipnet::IpNet;

use crate::model::{Family, address_number};

/// A prefix that overlaps another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlap {
    /// The index of the contained prefix; of two equal ones, the later.
    pub inner: usize,
    /// The index of the smallest prefix that contains it; of several equal ones, the first.
    pub outer: usize,
}

/// Finds every prefix of `family` that is contained in another one. The indexes are those of all `prefixes`.
pub(super) fn overlaps_of(prefixes: &[IpNet], family: Family) -> Vec<Overlap> {
    let (indexes, of_family): (Vec<usize>, Vec<IpNet>) =
        prefixes.iter().copied().enumerate().filter(|(_, prefix)| Family::from(*prefix) == family).unzip();
    let found = overlaps(&of_family).into_iter();
    found.map(|Overlap { inner, outer }| Overlap { inner: indexes[inner], outer: indexes[outer] }).collect()
}

/// Finds every prefix that is contained in another one. All prefixes must be of one address family.
///
/// Two prefixes overlap only if one contains the other. So it is enough to visit them by their first address, larger
/// ones first, with a stack of those that are still open.
fn overlaps(prefixes: &[IpNet]) -> Vec<Overlap> {
    let mut order: Vec<usize> = (0..prefixes.len()).collect();
    let key = |index: usize| (address_number(prefixes[index].network()), prefixes[index].prefix_len(), index);
    order.sort_unstable_by_key(|index| key(*index));
    let mut found = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for inner in order {
        let first = address_number(prefixes[inner].network());
        while open.last().is_some_and(|outer| address_number(prefixes[*outer].broadcast()) < first) {
            open.pop();
        }
        if let Some(outer) = open.last() {
            found.push(Overlap { inner, outer: *outer });
        }
        // Of equal prefixes, only the first is pushed, so that all later ones refer to it.
        if open.last().is_none_or(|outer| prefixes[*outer] != prefixes[inner]) {
            open.push(inner);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(prefixes: &[&str]) -> Vec<(usize, usize)> {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|text| text.parse().expect("a prefix")).collect();
        overlaps(&prefixes).iter().map(|Overlap { inner, outer }| (*inner, *outer)).collect()
    }

    #[test]
    fn nested_and_equal_prefixes_are_found_and_adjacent_ones_are_not() {
        assert_eq!(pairs(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/23"]), []);
        assert_eq!(pairs(&["10.0.1.0/24", "10.0.0.0/16", "10.0.1.0/24"]), [(0, 1), (2, 0)]);
        assert_eq!(pairs(&["10.0.0.0/24", "10.0.0.0/24", "10.0.0.0/24"]), [(1, 0), (2, 0)]);
        assert_eq!(
            pairs(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16"]),
            [(1, 0), (2, 1), (3, 0)]
        );
        assert_eq!(pairs(&["::/0", "ffff::/16"]), [(1, 0)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_comparing_all_pairs(raw in prop::collection::vec((any::<u16>(), 16u8..=32), 0..40)) {
            let prefixes: Vec<IpNet> = raw
                .iter()
                .map(|(bits, len)| {
                    let address = std::net::Ipv4Addr::from_bits(u32::from(*bits) << 8);
                    IpNet::new(address.into(), *len).expect("a length").trunc()
                })
                .collect();
            let mut inner: Vec<_> = overlaps(&prefixes).iter().map(|overlap| overlap.inner).collect();
            inner.sort_unstable();
            let expected: Vec<_> = (0..prefixes.len())
                .filter(|one| (0..prefixes.len()).any(|other| {
                    one != &other && prefixes[other].contains(&prefixes[*one])
                        && (prefixes[other] != prefixes[*one] || other < *one)
                }))
                .collect();
            prop_assert_eq!(inner, expected);
        }
    }
}

//! A set of prefixes that tells whether another one overlaps it.

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;

use crate::model::{Family, PerFamily};

/// A set of prefixes.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixSet {
    all: HashSet<IpNet>,
    /// The lengths of the prefixes of each family.
    lengths: PerFamily<BTreeSet<u8>>,
    /// The prefixes that contain one of them.
    around: HashSet<IpNet>,
}

impl PrefixSet {
    /// Adds a prefix.
    pub fn insert(&mut self, prefix: IpNet) {
        if self.all.insert(prefix) {
            self.lengths.get_mut(Family::from(prefix)).get_or_insert_default().insert(prefix.prefix_len());
            // What contains a known one is known, too.
            ancestors(prefix).take_while(|around| self.around.insert(*around)).for_each(drop);
        }
    }

    /// Returns `true` if `prefix` is one of them, is inside one of them, or contains one.
    pub fn overlaps(&self, prefix: IpNet) -> bool {
        let lengths = self.lengths.get(Family::from(prefix));
        let mut outer = lengths.into_iter().flat_map(|lengths| lengths.range(..=prefix.prefix_len()));
        let is_known = |length: &u8| {
            let outer = IpNet::new(prefix.addr(), *length).map(|outer| outer.trunc());
            outer.is_ok_and(|outer| self.all.contains(&outer))
        };
        self.around.contains(&prefix) || outer.any(is_known)
    }
}

/// Iterates over the prefixes that contain this one, the longest first.
pub(super) fn ancestors(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(prefix.supernet(), IpNet::supernet)
}

//! Prefixes of both address families, any number of each.

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::Family;

/// A value with a prefix.
pub trait Prefixed {
    /// Returns the prefix.
    fn prefix(&self) -> IpNet;
}

impl Prefixed for IpNet {
    fn prefix(&self) -> IpNet {
        *self
    }
}

/// Values with different prefixes. They are in the order of the prefixes, IPv4 first, so that their order in the
/// configuration has no effect. Most lists have one value, which needs no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrefixList<T>(SmallVec<[T; 1]>);

impl<T> Default for PrefixList<T> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T: Prefixed> FromIterator<T> for PrefixList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values: SmallVec<[T; 1]> = values.into_iter().collect();
        values.sort_by_key(Prefixed::prefix);
        Self(values)
    }
}

impl<T: Prefixed> PrefixList<T> {
    /// The maximum number of values in a configuration. Each cluster prefix is a condition that all new connections of pods
    /// have to pass.
    pub const MAX: usize = 100;

    /// Iterates over the values.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Iterates over the values of `family`.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &T> + Clone {
        self.iter().filter(move |value| Family::from(value.prefix()) == family)
    }

    /// Returns whether there is a value of `family`.
    pub fn has(&self, family: Family) -> bool {
        self.of(family).next().is_some()
    }

    /// Iterates over the families of the values, each once.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<T> {
        Family::ALL.map(|family| self.has(family).then_some(family)).into_iter().flatten()
    }

    /// Returns the value with this prefix.
    pub fn at(&self, prefix: IpNet) -> Option<&T> {
        self.iter().find(|value| value.prefix() == prefix)
    }

    /// Returns the value whose prefix contains `prefix` or equals it.
    pub fn around(&self, prefix: IpNet) -> Option<&T> {
        self.iter().find(|value| value.prefix().contains(&prefix))
    }

    /// Returns the value whose prefix contains `address`.
    pub fn containing(&self, address: IpAddr) -> Option<&T> {
        self.iter().find(|value| value.prefix().contains(&address))
    }

    /// Returns `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a, T> IntoIterator for &'a PrefixList<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

//! A list that keeps its first items and counts the rest. It bounds the report on a file with any number of errors.

/// The maximum number of errors reported for one file.
pub(super) const MAX_REPORTED: usize = 100;

/// The first [`MAX_REPORTED`] items, and the number of omitted ones.
#[derive(Debug, Clone)]
pub(super) struct Capped<T> {
    items: Vec<T>,
    omitted: usize,
}

impl<T> Capped<T> {
    pub const fn new() -> Self {
        Self { items: Vec::new(), omitted: 0 }
    }

    pub fn push(&mut self, item: T) {
        self.push_with(|| item);
    }

    /// Adds an item, but only creates it if there is room.
    pub fn push_with(&mut self, item: impl FnOnce() -> T) {
        if self.is_full() { self.omitted += 1 } else { self.items.push(item()) }
    }

    /// Returns `true` if the next item will be omitted.
    pub const fn is_full(&self) -> bool {
        self.items.len() >= MAX_REPORTED
    }

    /// Adds to the number of omitted items.
    pub const fn omit(&mut self, number: usize) {
        self.omitted = self.omitted.saturating_add(number);
    }

    pub const fn is_empty(&self) -> bool {
        self.items.is_empty() && self.omitted == 0
    }

    /// Returns `true` if any item was omitted.
    pub const fn is_truncated(&self) -> bool {
        self.omitted > 0
    }

    pub const fn omitted(&self) -> usize {
        self.omitted
    }

    pub const fn items(&self) -> &[T] {
        self.items.as_slice()
    }

    pub fn extend(&mut self, other: Self) {
        other.items.into_iter().for_each(|item| self.push(item));
        self.omit(other.omitted);
    }

    /// Converts every item, and keeps the number of omitted ones.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Capped<U> {
        Capped { items: self.items.into_iter().map(f).collect(), omitted: self.omitted }
    }

    pub fn sort_by_key<K: Ord>(&mut self, key: impl FnMut(&T) -> K) {
        self.items.sort_by_key(key);
    }
}

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for Capped<T> {
    fn from(item: T) -> Self {
        Self { items: vec![item], omitted: 0 }
    }
}

//! A list that keeps its first items and counts the rest: what is wrong in a file has no bound, what is told of it has.

/// So many mistakes are shown of one file.
pub(super) const MOST: usize = 100;

/// The first [`MOST`] items, and how many more there were.
#[derive(Debug, Clone)]
pub(super) struct Capped<T> {
    items: Vec<T>,
    more: usize,
}

impl<T> Capped<T> {
    pub const fn new() -> Self {
        Self { items: Vec::new(), more: 0 }
    }

    pub fn push(&mut self, item: T) {
        self.push_with(|| item);
    }

    /// Makes an item only where it is kept.
    pub fn push_with(&mut self, item: impl FnOnce() -> T) {
        if self.is_full() { self.more += 1 } else { self.items.push(item()) }
    }

    /// Whether the next item will be left out.
    pub const fn is_full(&self) -> bool {
        self.items.len() >= MOST
    }

    /// Counts items that were left out elsewhere.
    pub const fn leave_out(&mut self, number: usize) {
        self.more = self.more.saturating_add(number);
    }

    pub const fn is_empty(&self) -> bool {
        self.items.is_empty() && self.more == 0
    }

    /// Whether something was left out.
    pub const fn is_cut(&self) -> bool {
        self.more > 0
    }

    pub const fn more(&self) -> usize {
        self.more
    }

    pub const fn items(&self) -> &[T] {
        self.items.as_slice()
    }

    pub fn extend(&mut self, other: Self) {
        other.items.into_iter().for_each(|item| self.push(item));
        self.leave_out(other.more);
    }

    /// The same number of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Capped<U> {
        Capped { items: self.items.into_iter().map(f).collect(), more: self.more }
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
        Self { items: vec![item], more: 0 }
    }
}

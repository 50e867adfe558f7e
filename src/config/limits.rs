//! Limits on the depth and size of a configuration tree, in either language.

use super::tree::{Span, SyntaxError};
use crate::diagnose::Rule;

/// The maximum nesting depth. No configuration needs more, and the tree is dropped recursively.
pub(super) const MAX_DEPTH: usize = 64;

/// The number of keys and values that a text may contain, with aliases expanded: this many, plus one per
/// [`BYTES_PER_VALUE`] bytes. A denser text is not a configuration, and would take many times its size in memory.
const MAX_VALUES: usize = 1 << 16;
const BYTES_PER_VALUE: usize = 6;

const HINT: &str = "check that this is the right file: no cluster needs a configuration like this";

/// Counts the keys and values of a text before they are allocated.
pub(super) struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    /// Creates the budget for a text of `length` bytes.
    pub const fn new(length: usize) -> Self {
        Self { used: 0, limit: MAX_VALUES.saturating_add(length / BYTES_PER_VALUE) }
    }

    pub const fn used(&self) -> usize {
        self.used
    }

    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Reserves room for `values` more values. Only anchors and aliases reserve more than one at once.
    pub fn take(&mut self, values: usize, span: &Span) -> Result<(), SyntaxError> {
        self.used = self.used.saturating_add(values);
        if self.used <= self.limit {
            return Ok(());
        }
        if values == 1 {
            return Err(too_many(span.clone()));
        }
        let message = "anchors and aliases expand to too many values for a file of this size".to_owned();
        Err(SyntaxError { rule: Rule::Limit, message, span: span.clone(), hint: Some(HINT.to_owned()) })
    }
}

/// The error for a text with more keys and values than its budget.
pub(super) fn too_many(span: Span) -> SyntaxError {
    let message = "too many keys and values for a file of this size".to_owned();
    SyntaxError { rule: Rule::Limit, message, span, hint: Some(HINT.to_owned()) }
}

/// The error for nesting beyond [`MAX_DEPTH`].
pub(super) fn too_deep(span: Span) -> SyntaxError {
    let message = format!("nested more than {MAX_DEPTH} levels deep");
    SyntaxError { rule: Rule::Limit, message, span, hint: Some(HINT.to_owned()) }
}

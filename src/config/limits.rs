//! What bounds the tree of a configuration while it is read, whatever its language.

use super::tree::{Span, SyntaxError};

/// Deeper nesting is refused: no configuration needs it, and the tree is dropped recursively.
pub(super) const MAX_DEPTH: usize = 64;

/// So many keys and values a text may hold, aliases written out: these, and one more for each [`BYTES_PER_VALUE`]
/// bytes. With fewer bytes each it is no configuration, and takes many times its size in memory.
const MAX_VALUES: usize = 1 << 16;
const BYTES_PER_VALUE: usize = 6;

/// Counts the keys and values of a text before they are made.
pub(super) struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    /// The budget of a text of `length` bytes.
    pub const fn new(length: usize) -> Self {
        Self { used: 0, limit: MAX_VALUES.saturating_add(length / BYTES_PER_VALUE) }
    }

    pub const fn used(&self) -> usize {
        self.used
    }

    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Takes room for `values` more. More than one at once are those of an alias.
    pub fn take(&mut self, values: usize, span: &Span) -> Result<(), SyntaxError> {
        self.used = self.used.saturating_add(values);
        if self.used <= self.limit {
            return Ok(());
        }
        if values == 1 {
            return Err(too_many(span.clone()));
        }
        let message = "the aliases up to here expand to far more values than the file holds".to_owned();
        Err(SyntaxError { message, span: span.clone(), hint: None })
    }
}

/// The mistake of a text with more keys and values than its budget.
pub(super) fn too_many(span: Span) -> SyntaxError {
    let message = "too many keys and values up to here for a configuration of this size".to_owned();
    SyntaxError { message, span, hint: None }
}

/// The mistake of what is nested too deeply.
pub(super) fn too_deep(span: Span) -> SyntaxError {
    let message = format!("nested more than {MAX_DEPTH} levels deep");
    SyntaxError { message, span, hint: None }
}

//! Finds the configuration line of a part of a report.

use std::cell::OnceCell;

use super::SourceLocation;
use crate::{
    config::{Document, Positions},
    model::ConfigPath,
};

/// Finds lines and columns in a configuration. Parses it only when the first one is requested.
#[derive(Debug)]
pub struct Locator<'a> {
    document: &'a Document,
    positions: OnceCell<Positions>,
}

impl<'a> Locator<'a> {
    /// Creates a locator for `document`.
    #[must_use]
    pub const fn new(document: &'a Document) -> Self {
        Self { document, positions: OnceCell::new() }
    }

    /// Returns the position of `path`, if it is in the document.
    #[must_use]
    pub fn source(&self, path: &ConfigPath) -> Option<SourceLocation> {
        let position = self.positions.get_or_init(|| self.document.positions()).of(path)?;
        Some(SourceLocation::new(path, self.document.name(), position.line, position.column))
    }
}

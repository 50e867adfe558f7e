//! The positions of the values of a configuration in its text.

use std::sync::Arc;

use super::{
    places::Places,
    source::{Position, Source},
};
use crate::model::ConfigPath;

/// The line and column of every value in a configuration.
#[derive(Debug, Clone)]
pub struct Positions {
    source: Source,
    places: Option<Arc<Places>>,
}

impl Positions {
    pub(super) const fn new(source: Source, places: Option<Arc<Places>>) -> Self {
        Self { source, places }
    }

    /// The start of the value at `path`, or of its nearest ancestor in the file.
    ///
    /// Returns `None` if the file contains neither, or if its positions are not known.
    #[must_use]
    pub fn of(&self, path: &ConfigPath) -> Option<Position> {
        let offset = self.places.as_ref()?.find(path.segments())?;
        Some(self.source.position(offset))
    }
}

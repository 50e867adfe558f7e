//! Where the values of a configuration are in its text.

use std::sync::Arc;

use super::{
    plain::PlainList,
    source::{Position, Source},
    tree::TreeNode,
};
use crate::model::{ConfigPath, Segment};

/// The line and column of every value in a configuration.
#[derive(Debug, Clone)]
pub struct Positions {
    source: Source,
    /// The values, without the list of nodes if there is a `list`.
    root: Option<TreeNode>,
    list: Option<Arc<PlainList>>,
}

impl Positions {
    pub(super) const fn new(source: Source, root: Option<TreeNode>, list: Option<Arc<PlainList>>) -> Self {
        Self { source, root, list }
    }

    /// The start of the value at `path`, or of its nearest ancestor in the file.
    ///
    /// Returns `None` if the file contains neither, or if its positions are not known.
    #[must_use]
    pub fn of(&self, path: &ConfigPath) -> Option<Position> {
        let offset = match (&self.list, path.segments()) {
            (Some(list), [Segment::Key(key), below @ ..]) if **key == *"nodes" => {
                list.find_path(self.source.text(), below)
            }
            (list, segments) => {
                let found = self.root.as_ref()?.find(path);
                let is_root = found.depth == 0 && !segments.is_empty();
                let offset = (!is_root).then_some(found.span.start)?;
                list.as_ref().map_or(offset, |list| list.offset_of_rest(offset))
            }
        };
        Some(self.source.position(offset))
    }
}

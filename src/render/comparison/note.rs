//! Notes on comparisons of git revisions that do not compare the same file in both.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{text::Untrusted, text::count};

/// Why a comparison is not between two revisions of the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum RevisionNote {
    /// The old revision does not contain the file: everything is new.
    Added {
        /// The file.
        file: Untrusted,
        /// The revision.
        revision: Untrusted,
    },
    /// The new revision does not contain the file: nodes lose everything that it describes.
    Deleted {
        /// The file.
        file: Untrusted,
        /// The revision.
        revision: Untrusted,
    },
    /// The file was renamed, according to git.
    Renamed {
        /// The old name.
        before: Untrusted,
        /// The new name.
        after: Untrusted,
    },
    /// The old configuration is invalid, so the new one is compared with an empty one.
    InvalidBase {
        /// The old configuration.
        old: Untrusted,
        /// The number of errors.
        error_count: usize,
    },
}

impl RevisionNote {
    /// The note as a sentence without a period. `name` formats names.
    #[must_use]
    pub fn sentence(&self, name: impl Fn(&Untrusted) -> String) -> String {
        match self {
            Self::Added { file, revision } => {
                format!("{} is not in {}; comparing with an empty configuration", name(file), name(revision))
            }
            Self::Deleted { file, revision } => {
                format!(
                    "{} is not in {}: to remove everything that hostgw manages, run `hostgw destroy` on each node",
                    name(file),
                    name(revision)
                )
            }
            Self::Renamed { before, after } => format!("{} was renamed to {}", name(before), name(after)),
            Self::InvalidBase { old, error_count } => {
                format!(
                    "{} is invalid ({}); comparing with an empty configuration",
                    name(old),
                    count(*error_count, "error")
                )
            }
        }
    }
}

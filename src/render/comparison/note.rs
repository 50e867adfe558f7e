//! What a comparison of git revisions was made with, where that is not the same file in both.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{text::Untrusted, text::count};

/// Why a comparison is not one of the same file in two revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Note {
    /// The old revision does not have the file: everything is new.
    Added {
        /// The file.
        file: Untrusted,
        /// The revision.
        revision: Untrusted,
    },
    /// The new revision does not have the file: every node loses what it describes.
    Deleted {
        /// The file.
        file: Untrusted,
        /// The revision.
        revision: Untrusted,
    },
    /// git finds that the file was renamed.
    Renamed {
        /// Its old name.
        before: Untrusted,
        /// Its new name.
        after: Untrusted,
    },
    /// The old configuration is invalid, so the new one is compared with nothing.
    InvalidBase {
        /// The old configuration.
        old: Untrusted,
        /// How many mistakes it has.
        mistakes: usize,
    },
}

impl Note {
    /// The note as a sentence without its full stop. `name` writes names of others.
    #[must_use]
    pub fn sentence(&self, name: impl Fn(&Untrusted) -> String) -> String {
        match self {
            Self::Added { file, revision } => {
                format!("{} is not in {}: compared with an empty configuration", name(file), name(revision))
            }
            Self::Deleted { file, revision } => {
                format!(
                    "{} is not in {}: run `hostgw destroy` on each node to remove what it describes",
                    name(file),
                    name(revision)
                )
            }
            Self::Renamed { before, after } => format!("{} was renamed to {}", name(before), name(after)),
            Self::InvalidBase { old, mistakes } => {
                format!(
                    "{} is invalid ({}): compared with an empty configuration",
                    name(old),
                    count(*mistakes, "mistake")
                )
            }
        }
    }
}

//! Describes the files of `render --persist` on a node, in plans and in the status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    diagnose::{Diagnostic, Rule},
    text::Untrusted,
};

/// A file on this node that restores part of the managed state at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootFile {
    /// The path of the file.
    pub path: Untrusted,
    /// The program that reads it, as in `render --persist`. Null, like `node` and `configHash`, if the file's header
    /// is damaged.
    pub program: Option<String>,
    /// The node it was rendered for.
    pub node: Option<Untrusted>,
    /// The SHA-256 of the configuration it was rendered from, as `sha256sum` prints it.
    pub config_hash: Option<Untrusted>,
    /// Whether it restores the state that it should.
    pub state: BootFileState,
    /// The problem: a predicate whose subject is the file.
    pub problem: Option<Untrusted>,
    /// The command that fixes it.
    pub remedy: Option<Untrusted>,
}

/// Whether a file restores the state that it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootFileState {
    /// The file restores its part of the state.
    Current,
    /// The file restores something else.
    Outdated,
    /// The file would restore its part of the state, but no program reads it.
    Unused,
    /// The file could not be compared.
    Unknown,
}

impl BootFile {
    /// Returns a warning about a file that needs attention. `None` if it is current, or if there is nothing to compare it
    /// with.
    #[must_use]
    pub fn warning(&self) -> Option<Diagnostic> {
        let problem = self.problem.as_ref()?;
        if self.remedy.is_none() && self.state != BootFileState::Unused {
            return None;
        }
        let rule = match self.state {
            BootFileState::Outdated => Rule::BootFileOutdated,
            BootFileState::Unused => Rule::BootFileUnused,
            BootFileState::Current | BootFileState::Unknown => Rule::BootFileUnknown,
        };
        Some(Diagnostic::new(rule, format!("{} {problem}", self.path)).with_remedy_if(self.advice()))
    }

    /// Returns what to do about the problem.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let command = self.remedy.as_ref()?;
        Some(match self.state {
            BootFileState::Unknown => format!("render it again, or remove it with `{command}`"),
            BootFileState::Current | BootFileState::Outdated | BootFileState::Unused => {
                format!("run `{command}`")
            }
        })
    }
}

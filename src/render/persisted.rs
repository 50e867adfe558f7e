//! What plans and the status say of the files of `render --persist` on a node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::Untrusted;

/// A file on this node that restores part of hostgw's state at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistedFile {
    /// Where it is.
    pub path: Untrusted,
    /// The program it is for, as `render --persist` names it. This and the next two are null if its header is damaged.
    pub program: Option<String>,
    /// The node it was rendered for.
    pub node: Option<Untrusted>,
    /// SHA-256 of the configuration it was rendered from, as `sha256sum` prints it.
    pub config_hash: Option<Untrusted>,
    /// Whether it restores what it should.
    pub state: PersistedState,
    /// Why not: a sentence without its subject, which is the file.
    pub problem: Option<Untrusted>,
    /// The command that cures it.
    pub remedy: Option<Untrusted>,
}

/// Whether a file restores what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersistedState {
    /// It restores its part of the state.
    Current,
    /// It restores something else.
    Outdated,
    /// It would restore its part of the state, and no program uses it.
    Unused,
    /// It could not be compared.
    Unknown,
}

impl PersistedFile {
    /// A sentence about a file that needs attention. `None` if it is current, or if there is nothing to compare it with.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        match (&self.remedy, self.state) {
            (Some(remedy), _) => Some(format!("{} {problem}: {remedy}", self.path)),
            (None, PersistedState::Unused) => Some(format!("{} {problem}", self.path)),
            (None, _) => None,
        }
    }
}

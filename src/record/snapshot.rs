//! All that plans of a node can rest on, as one file: to plan where the node is not.

use serde::{Deserialize, Serialize};

use super::LastApplied;
use crate::{
    error::{Error, Kind},
    plan::{Observe, Observed, OriginalSysctls, Scope},
    state::Unknown,
};

/// The version of the file. One of another version is never guessed at.
const FORMAT: u32 = 2;

/// A node at a moment: whatever the configuration, a plan from this is the one that the node itself would
/// have made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    format: u32,
    /// When it was taken, as RFC 3339 has it.
    pub taken_at: String,
    /// The name of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Every route, every table of hostgw's, every sysctl below `net`; interfaces and addresses.
    pub observed: Observed,
    /// The values that sysctls had before hostgw first wrote them.
    pub saved: OriginalSysctls,
    /// What the last apply put in force, to tell drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<LastApplied>,
    /// Which of hostgw's records could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

#[derive(Deserialize)]
struct SnapshotHead {
    format: u32,
}

impl Snapshot {
    /// A snapshot of what was seen of a node.
    #[must_use]
    pub const fn new(
        taken_at: String,
        host_name: Option<String>,
        observed: Observed,
        saved: OriginalSysctls,
        last_applied: Option<LastApplied>,
        unknown: Vec<Unknown>,
    ) -> Self {
        Self { format: FORMAT, taken_at, host_name, observed, saved, last_applied, unknown }
    }

    /// Reads what `hostgw snapshot` printed, which stands in the file called `name`.
    ///
    /// # Errors
    /// When it is something else, or of another version.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(Kind::Invalid, format!("{name} is not a snapshot: {why}"))
                .with_hint("create one with `hostgw snapshot` on the node")
        };
        let head: SnapshotHead = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if head.format != FORMAT {
            return Err(wrong(format!(
                "its format is {}, this version of hostgw reads {FORMAT}",
                head.format
            )));
        }
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
    }
}

impl Observe for Snapshot {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        Ok(self.observed.within(scope))
    }
}

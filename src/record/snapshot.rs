//! A node's live state as JSON, to plan against on another machine.

use serde::{Deserialize, Serialize};

use super::LastApplied;
use crate::{
    error::{Error, Kind},
    plan::{Observe, Observed, OriginalSysctls, Scope},
    state::Unknown,
    text::JsonError,
};

/// The format version. Files of another version are rejected.
pub(super) const FORMAT: u32 = 2;

/// The live state of a node at one moment. For any configuration, a plan against the snapshot equals the plan that the
/// node itself would have computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    pub(super) format: u32,
    /// The time of the snapshot, as in RFC 3339.
    pub taken_at: String,
    /// The hostname of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Every route, the tables of hostgw, every sysctl under `net.`, and all interfaces and addresses.
    pub observed: Observed,
    /// The values of sysctls from before hostgw first wrote them.
    pub original_sysctls: OriginalSysctls,
    /// The state of the last apply, to detect drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<LastApplied>,
    /// The records that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

#[derive(Deserialize)]
struct SnapshotHead {
    format: u32,
}

impl Snapshot {
    /// Creates a snapshot.
    #[must_use]
    pub const fn new(
        taken_at: String,
        hostname: Option<String>,
        observed: Observed,
        original_sysctls: OriginalSysctls,
        last_applied: Option<LastApplied>,
        unknown: Vec<Unknown>,
    ) -> Self {
        Self { format: FORMAT, taken_at, hostname, observed, original_sysctls, last_applied, unknown }
    }

    /// Parses the output of `hostgw snapshot`; `name` is the file name in errors.
    ///
    /// # Errors
    /// Returns an error if the text is something else, or of another version.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(Kind::Invalid, format!("{name} is not a snapshot: {why}"))
                .with_hint("create one with `hostgw snapshot` on the node")
        };
        let parsed: serde_json::Result<Self> = serde_json::from_str(text);
        let error = match parsed {
            Ok(snapshot) if snapshot.format == FORMAT => return Ok(snapshot),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        // Another version may have other fields.
        match serde_json::from_str(text) {
            Ok(SnapshotHead { format }) if format != FORMAT => Err(wrong(format!(
                "it has format {format}, but this version of hostgw reads format {FORMAT}"
            ))),
            Ok(_) => Err(wrong(error.map_or_else(String::new, |error| JsonError(&error).to_string()))),
            Err(error) => Err(wrong(JsonError(&error).to_string())),
        }
    }
}

impl Observe for Snapshot {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        Ok(self.observed.within(scope))
    }
}

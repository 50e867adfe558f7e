//! The confirmation that an apply waits for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TransactionMeta;
use crate::error::Error;

/// Until when an apply can be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pending {
    /// The number of its transaction.
    pub id: u64,
    /// Until when, to tell people: seconds since 1970-01-01 00:00 UTC.
    pub until: u64,
    /// The same by the clock that nobody sets: milliseconds since the boot (`CLOCK_BOOTTIME`).
    pub deadline: u64,
}

/// What becomes of an apply that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It stays: `hostgw confirm`.
    Confirmed,
    /// It is rolled back: `hostgw cancel`, or a signal.
    Cancelled,
    /// It is rolled back, since nobody confirmed it in time.
    Expired,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Cancelled, Self::Expired];

    /// In one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// How the wait of an apply ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// Which wait.
    pub pending: Pending,
    /// What it was applied for.
    #[serde(rename = "occasion")]
    pub meta: TransactionMeta,
    /// What was decided.
    pub decision: Decision,
    /// Why the decision could not be carried out to its end, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Error>,
}

//! The confirmation of a pending apply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TransactionMeta;
use crate::error::Error;

/// An apply that is pending until its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pending {
    /// The ID of its transaction.
    pub id: u64,
    /// The deadline as shown to the user, in seconds since 1970-01-01 00:00 UTC.
    pub until: u64,
    /// The deadline by a clock that cannot be set, in milliseconds since boot (`CLOCK_BOOTTIME`).
    pub deadline: u64,
}

/// The decision about a pending apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// `hostgw confirm`: the changes are kept.
    Confirmed,
    /// `hostgw cancel`, or a signal: the changes are rolled back.
    Canceled,
    /// Not confirmed in time: the changes are rolled back.
    Expired,
}

impl Decision {
    /// All decisions.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Canceled, Self::Expired];

    /// Returns the decision as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }
}

/// The outcome of a pending apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// The pending apply.
    pub pending: Pending,
    /// The metadata of its transaction.
    pub metadata: TransactionMeta,
    /// The decision.
    pub decision: Decision,
    /// The reason that the decision could not take effect completely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Error>,
}

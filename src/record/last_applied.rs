//! What the last apply put in force.

use serde::{Deserialize, Serialize};

use super::TransactionMeta;
use crate::{config::StoredConfig, state::State};

/// What the last apply put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LastApplied {
    /// The number of its transaction.
    pub id: u64,
    /// What it was made for.
    #[serde(rename = "occasion")]
    pub meta: TransactionMeta,
    /// The desired state.
    pub state: State,
    /// The configuration it was made from: what has left it since has its line in here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<StoredConfig>,
}

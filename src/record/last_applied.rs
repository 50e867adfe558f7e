//! The state that the last apply established.

use serde::{Deserialize, Serialize};

use super::TransactionMeta;
use crate::{config::StoredConfig, state::State};

/// The state that the last apply established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LastApplied {
    /// The ID of its transaction.
    pub id: u64,
    /// The metadata of its transaction.
    #[serde(rename = "occasion")]
    pub meta: TransactionMeta,
    /// The desired state.
    pub state: State,
    /// The configuration. It locates objects that have been removed from the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<StoredConfig>,
}

//! What a copy of a node lacks.

use schemars::JsonSchema;
use serde::Serialize;

use crate::text::Untrusted;

/// An object of the node that its copy lacks, or has in another form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Omission {
    /// The object.
    pub object: Untrusted,
    /// What is different in the copy, and why.
    pub reason: Untrusted,
    /// Whether it can drop or divert packets on the node, so the result on the node may differ.
    pub affects_result: bool,
}

impl Omission {
    pub(crate) fn new(object: impl Into<Untrusted>, why: impl Into<Untrusted>) -> Self {
        Self { object: object.into(), reason: why.into(), affects_result: false }
    }

    /// One that can drop or divert packets.
    pub(crate) fn decisive(object: impl Into<Untrusted>, why: impl Into<Untrusted>) -> Self {
        Self { affects_result: true, ..Self::new(object, why) }
    }
}

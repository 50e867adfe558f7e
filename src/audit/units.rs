//! Numbers of nodes.

/// A cluster has far fewer nodes than this type has values.
pub(super) fn short(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

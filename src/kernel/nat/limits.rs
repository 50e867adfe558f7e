//! Tells limits that protect a node from floods from those that ordinary packets exceed.

use crate::state::Term;

/// Returns `true` if only a flood exceeds a limit of packets per second. Of a short burst of packets, which is usual for pods, a
/// limit with a lower rate and a small burst drops some.
pub(super) const fn protects_from_floods(per_second: u64, burst: u64) -> bool {
    per_second >= 10_000 || (per_second >= 1000 && burst >= 100)
}

/// A condition on the number of connections: more than `count`, or at most that many.
pub(super) fn connections(name: &str, count: u32, exceeds: bool) -> Term {
    /// The number of connections from which a limit counts as protection.
    const PROTECTIVE: u32 = 1000;
    match (exceeds, count) {
        // There is always the packet's own connection.
        (true, 0) => Term::Neutral(name.into()),
        (false, 0) | (true, PROTECTIVE..) => Term::Rare(name.into()),
        _ => Term::Varies(name.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_ordinary_packets_exceed_are_no_protection() {
        assert!(protects_from_floods(10_000, 5));
        assert!(protects_from_floods(1000, 100));
        assert!(!protects_from_floods(1000, 5));
        let term = |count, exceeds| connections("ct count", count, exceeds);
        assert_eq!(term(0, true), Term::Neutral("ct count".into()), "every packet has a connection");
        assert_eq!(term(20, true), Term::Varies("ct count".into()));
        assert_eq!(term(20, false), Term::Varies("ct count".into()));
        assert_eq!(term(1000, true), Term::Rare("ct count".into()));
        assert_eq!(term(0, false), Term::Rare("ct count".into()));
    }
}

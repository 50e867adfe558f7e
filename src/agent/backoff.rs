//! Pauses after failures.

use std::time::{Duration, Instant};

/// The first and the longest pause after a failed repair. The first one is short: a repair can fail because a program is
/// changing the same objects, and pods may be cut off until the next one.
pub(super) const REPAIR_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// The first and the longest pause after a failed change to a new configuration.
pub(super) const APPLY_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));

/// Pauses that double with each failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pub failures: u32,
    pub until: Option<Instant>,
}

impl Backoff {
    pub fn fail(&mut self, (first, longest): (Duration, Duration), now: Instant) {
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(now));
        let pauses: Vec<u128> = (0..20)
            .map(|_| {
                backoff.fail(REPAIR_PAUSES, now);
                backoff.until.map_or(0, |until| until.duration_since(now).as_millis())
            })
            .collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[19], 30_000);
        assert!(!backoff.is_over(now));
    }
}

//! When to look at the node.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// A look takes place when no notification has arrived for this time, so that one look sees a whole burst.
const QUIET: Duration = Duration::from_millis(20);
/// How long a burst can delay a look.
const PATIENCE: Duration = Duration::from_millis(150);
/// The pause that a look earns, as a multiple of its own duration. If something changes all the time, the agent spends about one
/// fiftieth of the time on that, as far as [`LONGEST_PAUSE`] permits.
const RATIO: u32 = 50;
/// The time that can be owed before there is a pause, so that a few changes in a row are repaired immediately.
const CREDIT: Duration = Duration::from_secs(2);
/// The longest pause, so that a repair starts within a second of its cause. Looks that take more than 10 ms therefore take
/// more than a fiftieth of the time.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The time between looks when nothing happens, to which up to [`JITTER`] is added. The guide names both.
const REGULAR: Duration = Duration::from_secs(60);
const JITTER: Duration = Duration::from_secs(6);
/// The longest time between looks.
pub const LONGEST_INTERVAL: Duration = REGULAR.saturating_add(JITTER);

/// When to look at the node: soon after a change, at regular intervals, and never so often that it costs much.
#[derive(Debug)]
pub(super) struct Pace {
    /// The first and the last notification since the last look.
    burst: Option<(Instant, Instant)>,
    /// When all looks will have been paid for.
    paid: Instant,
    /// The end of the pause after the last look.
    pause: Instant,
    regular: Instant,
    /// When a look is due for another reason, such as the repair of a contested object.
    deadline: Option<Instant>,
}

impl Pace {
    /// The first look is due immediately.
    pub fn new(now: Instant) -> Self {
        Self { burst: None, paid: now, pause: now, regular: now, deadline: None }
    }

    /// A notification arrived at `now`.
    pub fn notify(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// A look is due at `at`, if none is due earlier.
    pub fn schedule(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |other| other.min(at)));
    }

    /// A look that began at `begun` has ended.
    pub fn looked(&mut self, begun: Instant, now: Instant) {
        self.burst = None;
        self.deadline = None;
        self.paid = self.paid.max(now) + now.saturating_duration_since(begun) * RATIO;
        let owed = self.paid.saturating_duration_since(now);
        // A debt beyond the longest pause is dropped.
        self.paid = now + owed.min(CREDIT + LONGEST_PAUSE);
        self.pause = now + owed.saturating_sub(CREDIT).min(LONGEST_PAUSE);
        self.regular = now + REGULAR + jitter(JITTER);
    }

    /// When the next look is due.
    pub fn due(&self) -> Instant {
        let after_burst = self.burst.map(|(first, last)| (last + QUIET).min(first + PATIENCE));
        let soonest = after_burst.into_iter().chain(self.deadline).min();
        soonest.map_or(self.regular, |soonest| soonest.max(self.pause)).min(self.regular.max(self.pause))
    }
}

/// A random duration below `limit`, so that the nodes of a cluster do not all look at the same moment.
fn jitter(limit: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 1000;
    limit * u32::try_from(random).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn one_look_sees_a_whole_burst_but_does_not_wait_for_its_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.looked(start, start);
        assert!(pace.due() >= start + REGULAR && pace.due() <= start + LONGEST_INTERVAL);
        for at in 0..10 {
            pace.notify(start + at * 10 * MILLISECOND);
        }
        assert_eq!(pace.due(), start + 90 * MILLISECOND + QUIET);
        for at in 0..100 {
            pace.notify(start + at * 10 * MILLISECOND);
        }
        assert_eq!(pace.due(), start + PATIENCE);
    }

    /// Returns the time between two looks if notifications arrive all the time and each look takes `cost`.
    fn steady_interval(cost: Duration) -> Duration {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut before = now;
        for _ in 0..1000 {
            pace.notify(now);
            let due = pace.due().max(now);
            pace.looked(due, due + cost);
            (before, now) = (now, due + cost);
        }
        now - before
    }

    #[test]
    fn quick_looks_take_a_fiftieth_of_the_time_and_no_pause_exceeds_half_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..10 {
            pace.looked(now, now + 2 * MILLISECOND);
            now += 2 * MILLISECOND;
            pace.notify(now);
            assert_eq!(pace.due(), now + QUIET, "a few changes in a row are repaired immediately");
            now = pace.due();
        }
        let interval = steady_interval(2 * MILLISECOND);
        assert!(interval >= 98 * MILLISECOND && interval <= 110 * MILLISECOND, "{interval:?}");
        let interval = steady_interval(Duration::from_secs(3));
        assert_eq!(interval, Duration::from_secs(3) + LONGEST_PAUSE);
    }

    #[test]
    fn a_deadline_is_met_and_cleared_after_the_look() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.looked(start, start);
        pace.schedule(start + 5 * MILLISECOND);
        pace.schedule(start + 9 * MILLISECOND);
        assert_eq!(pace.due(), start + 5 * MILLISECOND);
        pace.looked(start, start);
        assert!(pace.due() >= start + REGULAR);
    }
}

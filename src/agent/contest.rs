//! Objects that other programs keep changing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{plan::ObjectKey, text::Untrusted};

/// A repair within this time after the last one of the same object continues a streak.
const WINDOW: Duration = Duration::from_secs(10);
/// An object is contested after this number of repairs in a row.
const CONTESTED_AFTER: u32 = 5;
/// The pause before the next repair of an object that has just become contested. It doubles with each repair.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Repairs of one object in a row.
#[derive(Debug, Clone)]
struct RepairStreak {
    /// The number of repairs in a row.
    count: u32,
    last: Instant,
    /// The program that changed the object, if known.
    by: Option<Untrusted>,
}

impl RepairStreak {
    fn is_contested(&self) -> bool {
        self.count >= CONTESTED_AFTER
    }

    fn pause(&self) -> Duration {
        let doublings = self.count.saturating_sub(CONTESTED_AFTER).min(16);
        (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
    }

    /// When the object may be repaired again.
    fn next(&self) -> Instant {
        self.last + self.pause()
    }

    /// Returns `true` if the object has been unchanged for so long that the next repair starts a new streak.
    fn is_over(&self, now: Instant) -> bool {
        let quiet = if self.is_contested() { (self.pause() * 2).max(WINDOW) } else { WINDOW };
        now.saturating_duration_since(self.last) > quiet
    }
}

/// A contested object, as reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContestedObject {
    pub key: ObjectKey,
    pub by: Option<Untrusted>,
    pub repairs: u32,
    pub pause: Duration,
}

/// The objects that were repaired recently.
#[derive(Debug, Default)]
pub(super) struct Contest(BTreeMap<ObjectKey, RepairStreak>);

impl Contest {
    /// The maximum number of objects that are tracked. If more are repaired, the cause is not a contest over single objects.
    const MAX: usize = 10_000;

    /// Returns the contested objects whose pause is not over at `now`.
    pub fn paused(&self, now: Instant) -> BTreeSet<ObjectKey> {
        let is_paused = |streak: &RepairStreak| streak.is_contested() && streak.next() > now;
        self.0.iter().filter(|(_, streak)| is_paused(streak)).map(|(key, _)| key.clone()).collect()
    }

    /// Returns when the first pause after `now` ends.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let contested = self.0.values().filter(|streak| streak.is_contested());
        contested.map(RepairStreak::next).filter(|next| *next > now).min()
    }

    /// Counts a repair of `key` at `now`. `by` is the program that had changed the object, if known. Returns the object if
    /// it is now contested.
    pub fn repaired(
        &mut self,
        key: ObjectKey,
        by: Option<&Untrusted>,
        now: Instant,
    ) -> Option<ContestedObject> {
        self.0.retain(|_, streak| !streak.is_over(now));
        if self.0.len() >= Self::MAX && !self.0.contains_key(&key) {
            return None;
        }
        let streak = self.0.entry(key.clone()).or_insert(RepairStreak { count: 0, last: now, by: None });
        streak.count = streak.count.saturating_add(1);
        streak.last = now;
        streak.by = by.cloned().or(streak.by.take());
        streak.is_contested().then(|| reported(key, streak))
    }

    /// Removes the objects that have been unchanged for long enough, and returns those that were contested.
    pub fn expire(&mut self, now: Instant) -> Vec<ObjectKey> {
        let over = self.0.iter().filter(|(_, streak)| streak.is_over(now));
        let expired = over.filter(|(_, streak)| streak.is_contested()).map(|(key, _)| key.clone()).collect();
        self.0.retain(|_, streak| !streak.is_over(now));
        expired
    }

    /// Removes everything: the repairs so far were due to an earlier configuration.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the contested objects.
    pub fn contested(&self) -> impl Iterator<Item = ContestedObject> {
        self.0.iter().filter(|(_, streak)| streak.is_contested()).map(|(key, it)| reported(key.clone(), it))
    }
}

fn reported(key: ObjectKey, streak: &RepairStreak) -> ContestedObject {
    ContestedObject { key, by: streak.by.clone(), repairs: streak.count, pause: streak.pause() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;

    const KEY: ObjectKey = ObjectKey::Nat(Family::V4);

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn pauses_grow_while_an_object_keeps_changing() {
        let start = Instant::now();
        let mut contest = Contest::default();
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..13 {
            assert!(contest.paused(now).is_empty());
            let contested = contest.repaired(KEY, Some(&"nft".into()), now);
            pauses.push(contested.map(|it| it.pause.as_secs()));
            now = contest.next(now).unwrap_or(now + Duration::from_millis(100));
        }
        let secs = [1, 2, 4, 8, 16, 30, 30, 30, 30].map(Some);
        assert_eq!(pauses, [&[None; 4][..], &secs[..]].concat());
        assert_eq!(contest.contested().count(), 1);
    }

    #[test]
    fn an_object_that_changes_now_and_then_is_not_contested() {
        let start = Instant::now();
        let mut contest = Contest::default();
        for at in 0..100 {
            assert_eq!(contest.repaired(KEY, None, after(start, at * 10_001)), None);
        }
        assert!(contest.paused(after(start, 1_000_000)).is_empty());
    }

    #[test]
    fn a_contest_ends_when_the_object_stays_unchanged() {
        let start = Instant::now();
        let mut contest = Contest::default();
        for at in 0..9 {
            contest.repaired(KEY, None, after(start, at * 1000));
        }
        // The pause is now 16 s.
        assert_eq!(contest.paused(after(start, 8001)).len(), 1);
        assert!(contest.expire(after(start, 39_000)).is_empty(), "it is watched for two pauses");
        assert_eq!(contest.expire(after(start, 41_000)), [KEY]);
        assert_eq!(contest.contested().count(), 0);
        assert_eq!(contest.repaired(KEY, None, after(start, 41_001)), None, "a new streak");
    }
}

//! Objects that other programs change again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{plan::ObjectKey, text::Untrusted};

/// A repair within this time after the last one of the same object is another round of a contest.
const WINDOW: Duration = Duration::from_secs(10);
/// The number of repairs in a row from which on an object is contested.
const ROUNDS: u32 = 5;
/// The pause before the next repair of an object that has just become contested. It doubles with each repair.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The repairs of one object.
#[derive(Debug, Clone)]
struct Rounds {
    /// The number of repairs in a row.
    count: u32,
    last: Instant,
    /// The program that changed it, if the kernel told.
    by: Option<Untrusted>,
}

impl Rounds {
    fn is_contested(&self) -> bool {
        self.count >= ROUNDS
    }

    fn pause(&self) -> Duration {
        let doublings = self.count.saturating_sub(ROUNDS).min(16);
        (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
    }

    /// When it may be repaired again.
    fn next(&self) -> Instant {
        self.last + self.pause()
    }

    /// Returns `true` if nobody has changed it for so long that the next change counts as a new one.
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

/// The objects that were repaired lately.
#[derive(Debug, Default)]
pub(super) struct Contest(BTreeMap<ObjectKey, Rounds>);

impl Contest {
    /// More objects than somebody fights over one by one. Beyond this, something else is wrong with the node.
    const MAX: usize = 10_000;

    /// Returns the contested objects whose pause is not over at `now`.
    pub fn paused(&self, now: Instant) -> BTreeSet<ObjectKey> {
        let is_paused = |rounds: &Rounds| rounds.is_contested() && rounds.next() > now;
        self.0.iter().filter(|(_, rounds)| is_paused(rounds)).map(|(key, _)| key.clone()).collect()
    }

    /// Returns when the first pause after `now` ends.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let contested = self.0.values().filter(|rounds| rounds.is_contested());
        contested.map(Rounds::next).filter(|next| *next > now).min()
    }

    /// Counts a repair of `key` at `now`, because a program, `by` if it is known, had changed it. Returns the object if
    /// this makes it contested, or its pause longer.
    pub fn repaired(
        &mut self,
        key: ObjectKey,
        by: Option<&Untrusted>,
        now: Instant,
    ) -> Option<ContestedObject> {
        self.0.retain(|_, rounds| !rounds.is_over(now));
        if self.0.len() >= Self::MAX && !self.0.contains_key(&key) {
            return None;
        }
        let rounds = self.0.entry(key.clone()).or_insert(Rounds { count: 0, last: now, by: None });
        rounds.count = rounds.count.saturating_add(1);
        rounds.last = now;
        rounds.by = by.cloned().or(rounds.by.take());
        rounds.is_contested().then(|| reported(key, rounds))
    }

    /// Forgets the objects that nobody has changed for long, and returns the contested ones among them.
    pub fn settle(&mut self, now: Instant) -> Vec<ObjectKey> {
        let over = self.0.iter().filter(|(_, rounds)| rounds.is_over(now));
        let settled = over.filter(|(_, rounds)| rounds.is_contested()).map(|(key, _)| key.clone()).collect();
        self.0.retain(|_, rounds| !rounds.is_over(now));
        settled
    }

    /// Forgets everything: what happened before was due to another configuration.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the contested objects.
    pub fn contested(&self) -> impl Iterator<Item = ContestedObject> {
        self.0.iter().filter(|(_, rounds)| rounds.is_contested()).map(|(key, it)| reported(key.clone(), it))
    }
}

fn reported(key: ObjectKey, rounds: &Rounds) -> ContestedObject {
    ContestedObject { key, by: rounds.by.clone(), repairs: rounds.count, pause: rounds.pause() }
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
    fn pauses_grow_while_somebody_keeps_changing_an_object() {
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
        for round in 0..100 {
            assert_eq!(contest.repaired(KEY, None, after(start, round * 10_001)), None);
        }
        assert!(contest.paused(after(start, 1_000_000)).is_empty());
    }

    #[test]
    fn a_contest_ends_when_nobody_changes_the_object_any_more() {
        let start = Instant::now();
        let mut contest = Contest::default();
        for round in 0..9 {
            contest.repaired(KEY, None, after(start, round * 1000));
        }
        // The pause is 16 s by now.
        assert_eq!(contest.paused(after(start, 8001)).len(), 1);
        assert!(contest.settle(after(start, 39_000)).is_empty(), "it is watched for two pauses");
        assert_eq!(contest.settle(after(start, 41_000)), [KEY]);
        assert_eq!(contest.contested().count(), 0);
        assert_eq!(contest.repaired(KEY, None, after(start, 41_001)), None, "it starts anew");
    }
}

//! Detects whether another command was running while this one read the node.
//!
//! A read without the lock may see another command's transaction midway, or overlap its beginning or end. A decision
//! that rests on such a read (a conflict, a refusal, no changes) may be wrong, and is repeated under the lock.

use super::{StateDir, state_dir::Generation};
use crate::error::{Error, Kind};

/// Detects commands that run while the node is read without the lock.
#[derive(Debug)]
pub struct ActivityWatch<'a> {
    dir: &'a StateDir,
    /// `None` if this user may not read the records; then this user cannot change the node either.
    before: Option<ActivitySample>,
}

/// The activity of other commands at one moment.
#[derive(Debug, PartialEq, Eq)]
struct ActivitySample {
    generation: Generation,
    activity: Activity,
}

#[derive(Debug, PartialEq, Eq)]
enum Activity {
    /// The lock is free.
    None,
    /// The lock is held for an apply that is in effect and pending: nothing changes until it is decided.
    Pending,
    /// The lock is held by a command that may be changing the node.
    Working,
}

impl<'a> ActivityWatch<'a> {
    /// Starts watching the node of `dir`.
    ///
    /// # Errors
    /// Returns an error if the records exist but cannot be read.
    pub fn begin(dir: &'a StateDir) -> Result<Self, Error> {
        Ok(Self { dir, before: ActivitySample::of(dir)? })
    }

    /// Returns `true` if no other command has held the lock since the watch began: what was read is neither a partial
    /// nor a pending transaction.
    ///
    /// # Errors
    /// Returns an error if the records exist but cannot be read.
    pub fn was_exclusive(&self) -> Result<bool, Error> {
        self.activity_was(|activity| *activity == Activity::None)
    }

    /// Returns `true` if no other command has changed the node since the watch began. An apply that stays pending does
    /// not count as a change.
    ///
    /// # Errors
    /// Returns an error if the records exist but cannot be read.
    pub fn was_stable(&self) -> Result<bool, Error> {
        self.activity_was(|activity| *activity != Activity::Working)
    }

    fn activity_was(&self, is_acceptable: impl Fn(&Activity) -> bool) -> Result<bool, Error> {
        let Some(before) = &self.before else { return Ok(true) };
        // A command that began and ended in the meantime has changed the records.
        Ok(is_acceptable(&before.activity) && ActivitySample::of(self.dir)?.as_ref() == Some(before))
    }

    /// Returns `true` if another command may be changing the node right now.
    ///
    /// # Errors
    /// Returns an error if the records exist but cannot be read.
    pub fn is_busy(dir: &StateDir) -> Result<bool, Error> {
        Ok(ActivitySample::of(dir)?.is_some_and(|now| now.activity == Activity::Working))
    }
}

impl ActivitySample {
    fn of(dir: &StateDir) -> Result<Option<Self>, Error> {
        let is_held = dir.holder().is_some();
        let generation = match dir.generation() {
            Err(error) if error.kind == Kind::Incomplete => return Ok(None),
            generation => generation?,
        };
        let undecided = match generation.pending {
            Some(pending) => dir.decision(&pending)?.is_none(),
            None => false,
        };
        let activity = match (is_held, undecided) {
            (false, _) => Activity::None,
            (true, true) => Activity::Pending,
            (true, false) => Activity::Working,
        };
        Ok(Some(Self { generation, activity }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        apply::state_dir::tests::{TestFolder, record},
        record::{Decision, Pending},
    };

    #[test]
    fn only_a_read_without_concurrent_commands_is_exclusive() {
        let folder = TestFolder::new("watch");
        let dir = folder.dir("boot");
        assert_eq!(
            ActivityWatch::begin(&dir).and_then(|watch| watch.was_exclusive()),
            Ok(true),
            "the directory does not exist yet"
        );
        let lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        let during = ActivityWatch::begin(&dir).expect("readable");
        assert_eq!(during.was_stable(), Ok(false), "the lock is held");
        drop(lock);
        assert_eq!(during.was_stable(), Ok(false), "the lock was held when the watch began");
        let ends: [fn(&StateDir); 3] = [
            |dir| dir.commit(&record(1)).expect("committed"),
            |dir| dir.reopen(&record(1)).and_then(|()| dir.end_rolled_back()).expect("undone"),
            |dir| dir.begin(&record(2)).and_then(|()| dir.end_rolled_back()).expect("begun and undone"),
        ];
        dir.begin(&record(1)).expect("begun");
        for end in ends {
            let watch = ActivityWatch::begin(&dir).expect("readable");
            assert_eq!(watch.was_exclusive(), Ok(true));
            end(&dir);
            assert_eq!(watch.was_stable(), Ok(false), "another command began and ended");
        }
    }

    #[test]
    fn a_pending_apply_is_stable_until_it_is_decided() {
        let folder = TestFolder::new("watch-pending");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        let pending = Pending::from_now(1, Duration::from_secs(60));
        dir.begin(&record(1)).and_then(|()| dir.mark_pending(&pending)).expect("pending");
        let watch = ActivityWatch::begin(&dir).expect("readable");
        assert_eq!((watch.was_stable(), watch.was_exclusive()), (Ok(true), Ok(false)));
        dir.decide(&pending, Decision::Canceled).expect("decided");
        assert_eq!(watch.was_stable(), Ok(false));
    }
}

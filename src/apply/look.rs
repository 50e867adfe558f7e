//! Whether another command was at work while this one looked at the node.
//!
//! A look without the lock can meet the middle of another command's transaction, or straddle its beginning or end. What
//! is decided from such a look (a conflict, a refusal, that there is nothing to do) can be wrong, and is decided again
//! under the lock.

use super::{StateDir, state_dir::Mark};
use crate::error::{Error, Kind};

/// A look at the node that is taken without the lock.
#[derive(Debug)]
pub struct Look<'a> {
    dir: &'a StateDir,
    /// None where the records may not be read: then nobody who reads this can change the node either.
    before: Option<Moment>,
}

/// What other commands do at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Moment {
    mark: Mark,
    activity: Activity,
}

#[derive(Debug, PartialEq, Eq)]
enum Activity {
    /// Nobody holds the lock.
    None,
    /// The lock is held for an apply that is in force and undecided: nothing changes until it is decided.
    Pending,
    /// Somebody holds the lock, and may be changing the node.
    Working,
}

impl<'a> Look<'a> {
    /// Begins a look at the node that `dir` is about.
    ///
    /// # Errors
    /// When the records are there and cannot be read.
    pub fn begin(dir: &'a StateDir) -> Result<Self, Error> {
        Ok(Self { dir, before: Moment::of(dir)? })
    }

    /// Whether nobody else held the lock since the look began: what was seen is no half of a transaction, and is
    /// neither pending.
    ///
    /// # Errors
    /// When the records are there and cannot be read.
    pub fn was_alone(&self) -> Result<bool, Error> {
        self.was(|activity| *activity == Activity::None)
    }

    /// Whether nobody was changing the node since the look began: an apply that is pending counts as in force.
    ///
    /// # Errors
    /// When the records are there and cannot be read.
    pub fn was_quiet(&self) -> Result<bool, Error> {
        self.was(|activity| *activity != Activity::Working)
    }

    fn was(&self, is_fine: impl Fn(&Activity) -> bool) -> Result<bool, Error> {
        let Some(before) = &self.before else { return Ok(true) };
        // Whoever came and went in between has left a trace in the records.
        Ok(is_fine(&before.activity) && Moment::of(self.dir)?.as_ref() == Some(before))
    }

    /// Whether another command is changing the node right now.
    ///
    /// # Errors
    /// When the records are there and cannot be read.
    pub fn is_busy(dir: &StateDir) -> Result<bool, Error> {
        Ok(Moment::of(dir)?.is_some_and(|now| now.activity == Activity::Working))
    }
}

impl Moment {
    fn of(dir: &StateDir) -> Result<Option<Self>, Error> {
        let is_held = dir.holder().is_some();
        let mark = match dir.mark() {
            Err(error) if error.kind == Kind::Incomplete => return Ok(None),
            mark => mark?,
        };
        let undecided = match mark.pending {
            Some(pending) => dir.decision(&pending)?.is_none(),
            None => false,
        };
        let activity = match (is_held, undecided) {
            (false, _) => Activity::None,
            (true, true) => Activity::Pending,
            (true, false) => Activity::Working,
        };
        Ok(Some(Self { mark, activity }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        apply::state_dir::tests::{Folder, record},
        record::{Decision, Pending},
    };

    #[test]
    fn a_look_is_alone_unless_another_command_comes_or_has_come_and_gone() {
        let folder = Folder::new("look");
        let dir = folder.dir("boot");
        assert_eq!(
            Look::begin(&dir).and_then(|look| look.was_alone()),
            Ok(true),
            "there is no directory yet"
        );
        let lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        let during = Look::begin(&dir).expect("readable");
        assert_eq!(during.was_quiet(), Ok(false), "the lock is held");
        drop(lock);
        assert_eq!(during.was_quiet(), Ok(false), "the lock was held");
        let ends: [fn(&StateDir); 3] = [
            |dir| dir.commit(&record(1)).expect("committed"),
            |dir| dir.reopen(&record(1)).and_then(|()| dir.forget()).expect("undone"),
            |dir| dir.begin(&record(2)).and_then(|()| dir.forget()).expect("begun and undone"),
        ];
        dir.begin(&record(1)).expect("begun");
        for end in ends {
            let look = Look::begin(&dir).expect("readable");
            assert_eq!(look.was_alone(), Ok(true));
            end(&dir);
            assert_eq!(look.was_quiet(), Ok(false), "another command has come and gone");
        }
    }

    #[test]
    fn an_apply_that_is_pending_is_quiet_until_it_is_decided() {
        let folder = Folder::new("look-pending");
        let dir = folder.dir("boot");
        let _lock = dir.lock(Duration::ZERO, "test").expect("the lock");
        let pending = Pending::from_now(1, Duration::from_secs(60));
        dir.begin(&record(1)).and_then(|()| dir.hold(&pending)).expect("pending");
        let look = Look::begin(&dir).expect("readable");
        assert_eq!((look.was_quiet(), look.was_alone()), (Ok(true), Ok(false)));
        dir.decide(&pending, Decision::Cancelled).expect("decided");
        assert_eq!(look.was_quiet(), Ok(false));
    }
}

//! The checks of a configuration, tried against the live kernel: all at once, on one thread, so that a signal
//! is answered at once and nothing is left to wait for.
//!
//! Not to be confused with what `simulate` sends: there it has both ends of every connection.

mod ask;
mod connect;

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::netlink::Socket;
use crate::{
    apply::{Answer, Effort, Interrupt},
    error::{Error, Kind},
    model::{Check, CheckTarget},
};
use ask::Asking;
use connect::Connecting;

/// How often a signal is looked for, and neighbours are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long after a failure the next try begins.
const AGAIN: Duration = Duration::from_millis(100);

/// How far a try is.
enum Progress {
    /// The answer is still to come.
    Waiting,
    /// It answered.
    Passed,
    /// It does not; why, a fragment.
    Failed(String),
    /// Something came in between that says nothing about the target: even a single try begins once more.
    Disturbed(String),
}

/// A try under way.
enum Try {
    Tcp(Connecting),
    Neighbour(Asking),
}

impl Try {
    fn begin(target: CheckTarget, socket: &mut Socket) -> Result<(Self, Progress), Error> {
        Ok(match target {
            CheckTarget::Tcp(address) => {
                let (connecting, progress) = Connecting::begin(address)?;
                (Self::Tcp(connecting), progress)
            }
            CheckTarget::Neighbor(address) => {
                let (asking, progress) = Asking::begin(address, socket)?;
                (Self::Neighbour(asking), progress)
            }
        })
    }

    fn go_on(&mut self, socket: &mut Socket) -> Result<Progress, Error> {
        match self {
            Self::Tcp(connecting) => connecting.go_on(),
            Self::Neighbour(asking) => asking.go_on(socket),
        }
    }
}

/// A check until its answer is there.
struct Trial<'a> {
    check: &'a Check,
    under_way: Option<Try>,
    /// When the next try begins, counted from the beginning.
    next: Duration,
    last: Option<String>,
    answer: Option<Answer>,
}

impl<'a> Trial<'a> {
    const fn new(check: &'a Check) -> Self {
        Self { check, under_way: None, next: Duration::ZERO, last: None, answer: None }
    }

    /// Goes as far as it can without waiting; `elapsed` is the time since the beginning.
    fn step(&mut self, socket: &mut Socket, effort: Effort, elapsed: Duration) -> Result<(), Error> {
        let progress = match &mut self.under_way {
            Some(under_way) => under_way.go_on(socket)?,
            None if elapsed < self.next => Progress::Waiting,
            None => {
                let (begun, progress) = Try::begin(self.check.target, socket)?;
                self.under_way = Some(begun);
                progress
            }
        };
        match progress {
            Progress::Passed => self.answer = Some(Ok(())),
            Progress::Failed(why) if effort == Effort::Once => self.answer = Some(Err(why)),
            Progress::Failed(why) | Progress::Disturbed(why) => {
                self.under_way = None;
                self.next = elapsed + AGAIN;
                self.last = Some(why);
            }
            Progress::Waiting => {}
        }
        if self.answer.is_none() && elapsed >= self.check.timeout {
            let timeout = humantime::format_duration(self.check.timeout);
            self.answer =
                Some(Err(self.last.take().unwrap_or_else(|| format!("no answer within {timeout}"))));
        }
        if self.answer.is_some() {
            self.under_way = None;
        }
        Ok(())
    }

    /// What becomes ready when there is something to see.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.under_way {
            Some(Try::Tcp(connecting)) => Some(connecting.descriptor()),
            _ => None,
        }
    }
}

/// Tries all `checks` at once, in the network namespace of the calling thread.
///
/// # Errors
/// [`Kind::Interrupted`], or that a check could not even be tried.
pub(super) fn probe(checks: &[Check], effort: Effort, interrupt: &Interrupt) -> Result<Vec<Answer>, Error> {
    let mut socket = Socket::open(NETLINK_ROUTE).map_err(|error| untried(&error))?;
    let begun = Instant::now();
    let mut trials: Vec<Trial> = checks.iter().map(Trial::new).collect();
    loop {
        for trial in trials.iter_mut().filter(|trial| trial.answer.is_none()) {
            trial.step(&mut socket, effort, begun.elapsed())?;
        }
        if trials.iter().all(|trial| trial.answer.is_some()) {
            return Ok(trials.into_iter().filter_map(|trial| trial.answer).collect());
        }
        if interrupt.is_raised() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        wait(&trials).map_err(|errno| untried(&errno.into()))?;
    }
}

/// Waits until there is something to see, one tick at most.
fn wait(trials: &[Trial]) -> Result<(), Errno> {
    let descriptors = trials.iter().filter_map(Trial::descriptor);
    let mut watched: Vec<_> = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)).collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    match poll(&mut watched, Some(&tick)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn untried(error: &std::io::Error) -> Error {
    Error::unexpected(format!("cannot run the checks: {error}"))
}

#[cfg(test)]
mod tests;

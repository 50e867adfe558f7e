//! Runs the checks of a configuration against the live kernel. All run concurrently on one thread, so a signal stops them
//! immediately and there is no thread to join.
//!
//! `simulate` has probes of its own, since it controls both ends of every connection.

mod answers;
mod ask;
mod connect;

use std::{
    net::IpAddr,
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
    apply::{CheckResult, Interrupt, ProbeMode},
    error::{Error, Kind},
    model::{Check, CheckTarget},
    progress::Task,
    text::OsError,
};
pub(super) use answers::{Answers, Asker, answers};
use ask::Asking;
use connect::Connecting;

/// How often to check for signals and poll neighbor entries.
const TICK: Duration = Duration::from_millis(20);
/// The delay between a failed attempt and the next one.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The maximum time to wait for next hops, however often the kernel repeats its requests.
const HOPS_TIMEOUT: Duration = Duration::from_secs(15);

/// The status of an attempt.
enum AttemptStatus {
    /// No answer yet.
    Waiting,
    /// The target answered.
    Passed,
    /// The target did not answer, for this reason (a sentence fragment).
    Failed(String),
    /// Something unrelated to the target interfered, so the attempt is repeated even with [`ProbeMode::Once`].
    Interfered(String),
}

/// An attempt in progress.
enum Attempt {
    Tcp(Connecting),
    Neighbor(Asking),
}

impl Attempt {
    fn start(target: CheckTarget, socket: &mut Socket) -> Result<(Self, AttemptStatus), Error> {
        Ok(match target {
            CheckTarget::Tcp(address) => {
                let (connecting, progress) = Connecting::start(address)?;
                (Self::Tcp(connecting), progress)
            }
            CheckTarget::Neighbor(address) => {
                let (asking, progress) = Asking::start(address, socket)?;
                (Self::Neighbor(asking), progress)
            }
        })
    }

    fn advance(&mut self, socket: &mut Socket) -> Result<AttemptStatus, Error> {
        match self {
            Self::Tcp(connecting) => connecting.advance(),
            Self::Neighbor(asking) => asking.advance(socket),
        }
    }
}

/// A check and the state of its attempts.
struct CheckRun<'a> {
    check: &'a Check,
    attempt: Option<Attempt>,
    /// When to start the next attempt, as the time since the checks started.
    next_attempt: Duration,
    last_failure: Option<String>,
    answer: Option<CheckResult>,
}

impl<'a> CheckRun<'a> {
    const fn new(check: &'a Check) -> Self {
        Self { check, attempt: None, next_attempt: Duration::ZERO, last_failure: None, answer: None }
    }

    /// Advances as far as possible without waiting; `elapsed` is the time since the checks started.
    fn step(&mut self, socket: &mut Socket, mode: ProbeMode, elapsed: Duration) -> Result<(), Error> {
        let progress = match &mut self.attempt {
            Some(attempt) => attempt.advance(socket)?,
            None if elapsed < self.next_attempt => AttemptStatus::Waiting,
            None => {
                let (attempt, progress) = Attempt::start(self.check.target, socket)?;
                self.attempt = Some(attempt);
                progress
            }
        };
        match progress {
            AttemptStatus::Passed => self.answer = Some(Ok(())),
            AttemptStatus::Failed(why) if mode == ProbeMode::Once => self.answer = Some(Err(why)),
            AttemptStatus::Failed(why) | AttemptStatus::Interfered(why) => {
                self.attempt = None;
                self.next_attempt = elapsed + RETRY_DELAY;
                self.last_failure = Some(why);
            }
            AttemptStatus::Waiting => {}
        }
        if self.answer.is_none() && elapsed >= self.check.timeout {
            let timeout = crate::text::in_units(self.check.timeout);
            self.answer =
                Some(Err(self.last_failure.take().unwrap_or_else(|| format!("no answer within {timeout}"))));
        }
        if self.answer.is_some() {
            self.attempt = None;
        }
        Ok(())
    }

    /// The descriptor that becomes writable when the attempt can advance.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.attempt {
            Some(Attempt::Tcp(connecting)) => Some(connecting.descriptor()),
            _ => None,
        }
    }
}

/// Runs all `checks` concurrently, in the network namespace of the calling thread.
///
/// # Errors
/// Returns [`Kind::Interrupted`] after a signal, or an error if a check could not be run.
pub(super) fn probe(
    checks: &[Check],
    mode: ProbeMode,
    interrupt: &Interrupt,
) -> Result<Vec<CheckResult>, Error> {
    let _task = Task::begin("running checks");
    let mut socket = Socket::open(NETLINK_ROUTE).map_err(|error| cannot_run(&error))?;
    let start = Instant::now();
    let mut runs: Vec<CheckRun> = checks.iter().map(CheckRun::new).collect();
    loop {
        for run in runs.iter_mut().filter(|run| run.answer.is_none()) {
            run.step(&mut socket, mode, start.elapsed())?;
        }
        if runs.iter().all(|run| run.answer.is_some()) {
            return Ok(runs.into_iter().filter_map(|run| run.answer).collect());
        }
        if interrupt.is_raised() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        wait(&runs).map_err(|errno| cannot_run(&errno.into()))?;
    }
}

/// How many next hops to ask at once: each needs an entry in the neighbor table, which holds 1,024 by default
/// (`gc_thresh3`).
pub(super) const HOPS_AT_ONCE: usize = 256;

/// An address on the interface with this number.
pub(super) type HopAddress = (IpAddr, u32);

/// Asks each of `hops` for its MAC address, all at once, and returns those that the kernel asks, with whether they
/// answered. The kernel gives up by itself: after seconds, by its defaults (`mcast_solicit`, `ucast_solicit`).
///
/// # Errors
/// Returns an error if the kernel cannot be queried.
pub(super) fn hops(hops: &[HopAddress], socket: &mut Socket) -> Result<Vec<(HopAddress, bool)>, Error> {
    let start = Instant::now();
    let mut asked = Vec::with_capacity(hops.len());
    for &(address, interface) in hops {
        let mut asking = Asking::on(address, interface);
        let status = asking.begin(socket)?;
        asked.push(((address, interface), asking, status));
    }
    loop {
        let is_open =
            |status: &AttemptStatus| matches!(status, AttemptStatus::Waiting | AttemptStatus::Interfered(_));
        let mut is_over = true;
        for (_, asking, status) in asked.iter_mut().filter(|(_, _, status)| is_open(status)) {
            *status = asking.advance(socket)?;
            is_over &= !is_open(status);
        }
        if is_over || start.elapsed() > HOPS_TIMEOUT {
            break;
        }
        std::thread::sleep(TICK);
    }
    let mut results = Vec::with_capacity(asked.len());
    for (hop, asking, status) in asked {
        if asking.is_asked(socket)? {
            results.push((hop, matches!(status, AttemptStatus::Passed)));
        }
    }
    Ok(results)
}

/// Waits until an attempt can advance, at most one tick.
fn wait(runs: &[CheckRun]) -> Result<(), Errno> {
    let descriptors = runs.iter().filter_map(CheckRun::descriptor);
    let mut watched: Vec<_> = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)).collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    match poll(&mut watched, Some(&tick)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn cannot_run(error: &std::io::Error) -> Error {
    Error::unexpected(format!("cannot run the checks: {}", OsError(error)))
}

#[cfg(test)]
mod tests;

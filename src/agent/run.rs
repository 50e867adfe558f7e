//! Waits for notifications, signals and deadlines, and starts a round when one is due.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
};

use super::{
    host::{AgentEvent, AgentHost, AgentSettings, AgentSignals},
    keeper::{Keeper, News},
    pace::Pace,
};
use crate::{
    clock::{now as wall_clock, time},
    error::Error,
    kernel::NodeEvents,
    reconcile,
};

/// How long the file must be quiet before it is read: most programs write a file in one go.
const FILE_QUIET: Duration = Duration::from_millis(50);

/// Keeps this node until a signal ends it.
///
/// # Errors
/// Returns an error if another agent runs, or if the kernel or the state directory cannot be used at all.
pub fn run(settings: &AgentSettings, host: &dyn AgentHost, signals: &AgentSignals) -> Result<(), Error> {
    let dir = reconcile::state_dir()?;
    let _lock = dir.lock_agent(&format!("agent, since {}", time(wall_clock())))?;
    let mut events = NodeEvents::listen()?;
    let mut keeper = Keeper::new(settings, dir, host, signals)?;
    let mut pace = Pace::new(Instant::now());
    let mut news = News::default();
    loop {
        wait(&events, &keeper, &pace, host, signals)?;
        host.beat();
        if signals.stop.is_raised() {
            break;
        }
        let now = Instant::now();
        let seen = events.take(&keeper.scope);
        news.is_by_kernel |= seen.is_egress;
        for program in seen.programs {
            if !news.programs.contains(&program) {
                news.programs.push(program);
            }
        }
        if seen.is_relevant || keeper.polled.differ(now) {
            news.since.get_or_insert(now);
            pace.stir(now);
        }
        if keeper.file.take() {
            pace.stir(now + FILE_QUIET);
        }
        if signals.take_reload() {
            keeper.reload();
            pace.stir(now);
        }
        if pace.due() > now {
            continue;
        }
        if keeper.round(&news) {
            news = News::default();
        }
        pace.looked(now, Instant::now());
        if let Some(appointment) = keeper.appointment() {
            pace.appoint(appointment);
        }
    }
    host.event(AgentEvent::Stopping);
    Ok(())
}

/// Waits until something happens, or until the next round or heartbeat is due.
fn wait(
    events: &NodeEvents,
    keeper: &Keeper<'_>,
    pace: &Pace,
    host: &dyn AgentHost,
    signals: &AgentSignals,
) -> Result<(), Error> {
    let now = Instant::now();
    let mut until = pace.due();
    if let Some(due) = keeper.polled.due() {
        until = until.min(due);
    }
    if let Some(interval) = host.heartbeat() {
        until = until.min(now + interval);
    }
    let file = keeper.file.descriptor();
    let wake = signals.wake.as_fd();
    let mut descriptors: Vec<PollFd<'_>> = events
        .descriptors()
        .chain(file)
        .chain([wake])
        .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
        .collect();
    let left = until.saturating_duration_since(now);
    let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut descriptors, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => {
            return Err(Error::unexpected(format!("cannot wait for kernel notifications: {error}")));
        }
    }
    // One byte for each signal.
    let mut bytes = [0; 64];
    if descriptors.last().is_some_and(|wake| !wake.revents().is_empty()) {
        let _ = read(&signals.wake, &mut bytes);
    }
    Ok(())
}

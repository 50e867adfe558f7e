//! Waits for notifications, signals and deadlines, and starts a pass when one is due.

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
    keeper::{Keeper, Notifications},
    pace::Pace,
};
use crate::{
    clock::{now as wall_clock, time},
    error::Error,
    kernel::NodeEvents,
    reconcile,
    text::OsError,
};

/// How long the file must be unchanged before it is read: most programs write a file without a pause.
const FILE_QUIET: Duration = Duration::from_millis(50);

/// Keeps this node in sync with its configuration until a signal stops the agent.
///
/// # Errors
/// Returns an error if another agent is running, or if the kernel or the state directory cannot be used at all.
pub fn run(settings: &AgentSettings, host: &dyn AgentHost, signals: &AgentSignals) -> Result<(), Error> {
    let dir = reconcile::state_dir()?;
    let _lock = dir.lock_agent(&format!("agent, since {}", time(wall_clock())))?;
    let mut events = NodeEvents::listen()?;
    let mut keeper = Keeper::new(settings, dir, host, signals)?;
    let mut pace = Pace::new(Instant::now());
    let mut notifications = Notifications::default();
    loop {
        wait(&events, &keeper, &pace, host, signals)?;
        host.beat();
        if signals.stop.is_raised() {
            break;
        }
        let now = Instant::now();
        let seen = events.take(&keeper.scope);
        notifications.may_have_lost_routes |= seen.may_have_lost_routes;
        for program in seen.programs {
            if !notifications.programs.contains(&program) {
                notifications.programs.push(program);
            }
        }
        if seen.is_relevant || keeper.polled.differ(now) {
            notifications.since.get_or_insert(now);
            pace.notify(now);
        }
        if keeper.file.take() {
            pace.notify(now + FILE_QUIET);
        }
        if signals.take_reload() {
            keeper.reload();
            pace.notify(now);
        }
        if pace.due() > now {
            continue;
        }
        if keeper.pass(&notifications) {
            notifications = Notifications::default();
        }
        pace.looked(now, Instant::now());
        if let Some(deadline) = keeper.deadline() {
            pace.schedule(deadline);
        }
    }
    host.event(AgentEvent::Stopping);
    Ok(())
}

/// Waits for a notification or a signal, or until the next pass or heartbeat is due.
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
            return Err(Error::unexpected(format!(
                "cannot wait for kernel notifications: {}",
                OsError(&error.into())
            )));
        }
    }
    // One byte for each signal.
    let mut bytes = [0; 64];
    if descriptors.last().is_some_and(|wake| !wake.revents().is_empty()) {
        let _ = read(&signals.wake, &mut bytes);
    }
    Ok(())
}

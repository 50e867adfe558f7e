//! Handles signals. Each signal whose default action ends a process causes a rollback, is ignored, or is left to
//! crash recovery. A test compares the table here with the one in the internals guide.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, LazyLock, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::process::Signal;
use signal_hook::{
    SigId, flag,
    low_level::{emulate_default_handler, pipe, unregister},
};

use crate::{agent::AgentSignals, apply::Interrupt, error::Error, kernel, text::OsError};

/// The response of a command that changes the node to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// The current commit stops at the next change and is rolled back. An undo continues.
    RollBack,
    /// None. A write beyond the file size limit (SIGXFSZ) or to a closed pipe (SIGPIPE) fails instead.
    Ignore,
}

use Response::{Ignore, RollBack};

/// The signals of signal(7) whose default action ends a process. SIGKILL cannot be caught. SIGILL, SIGABRT, SIGBUS,
/// SIGFPE, SIGSEGV and SIGSYS are omitted, because after such a fault the program cannot be trusted to continue:
/// crash recovery restores the state from the journal.
const RESPONSES: [(Signal, Response); 16] = [
    (Signal::HUP, RollBack),
    (Signal::INT, RollBack),
    (Signal::QUIT, RollBack),
    (Signal::TRAP, RollBack),
    (Signal::USR1, Ignore),
    (Signal::USR2, Ignore),
    (Signal::PIPE, Ignore),
    (Signal::ALARM, Ignore),
    (Signal::TERM, RollBack),
    (Signal::STKFLT, RollBack),
    (Signal::XCPU, RollBack),
    (Signal::XFSZ, Ignore),
    (Signal::VTALARM, Ignore),
    (Signal::PROF, Ignore),
    (Signal::IO, Ignore),
    (Signal::POWER, RollBack),
];

/// The faults that Rust handles to report a stack overflow. Its handler swallows the first such signal from another
/// process, so the default action is restored.
const HANDLED_BY_RUST: [Signal; 2] = [Signal::BUS, Signal::SEGV];

/// The real-time signals, which are ignored. The C library reserves the first ones but does not use them here.
const REAL_TIME: RangeInclusive<i32> = 32..=64;

/// The last signal that requested a stop, or 0.
static LAST: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The actions that are registered for SIGHUP.
static HANGUP: Mutex<Vec<SigId>> = Mutex::new(Vec::new());

/// Returns the signals that were ignored when the program started, as under nohup(1), one bit each. They stay
/// ignored.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Returns the number of every signal, and the response to it.
fn responses() -> impl Iterator<Item = (i32, Response)> {
    let named = RESPONSES.iter().map(|(signal, response)| (signal.as_raw(), *response));
    named.chain(REAL_TIME.map(|signal| (signal, Ignore)))
}

/// Returns the interrupt. From the first call on, no signal in [`RESPONSES`] ends this process: it raises the interrupt
/// or is ignored. A commit then stops at the next change and is rolled back.
///
/// # Errors
/// Returns an error if the handlers cannot be installed.
pub(super) fn interrupt() -> Result<Arc<Interrupt>, Error> {
    static INTERRUPT: OnceLock<Arc<Interrupt>> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(Arc::clone(interrupt));
    }
    let interrupt = Arc::new(Interrupt::new());
    let ignored = ignored();
    let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
    let cannot =
        |signal: i32, error| Error::unexpected(format!("cannot handle signal {signal}: {}", OsError(&error)));
    for (signal, response) in responses().filter(|(signal, _)| !is_ignored(*signal)) {
        respond(signal, response, &interrupt).map_err(|error| cannot(signal, error))?;
    }
    for signal in HANDLED_BY_RUST.map(Signal::as_raw).into_iter().filter(|signal| !is_ignored(*signal)) {
        kernel::default_signal(signal).map_err(|error| cannot(signal, error))?;
    }
    Ok(Arc::clone(INTERRUPT.get_or_init(|| interrupt)))
}

fn respond(signal: i32, response: Response, interrupt: &Interrupt) -> std::io::Result<()> {
    match response {
        RollBack => {
            let number = usize::try_from(signal).unwrap_or(0);
            // Set before the interrupt, so that a thread that sees the interrupt also sees the signal.
            let ids = [
                flag::register_usize(signal, Arc::clone(&LAST), number)?,
                flag::register(signal, interrupt.flag())?,
            ];
            if signal == Signal::HUP.as_raw()
                && let Ok(mut hangup) = HANGUP.lock()
            {
                hangup.extend(ids);
            }
            Ok(())
        }
        Ignore => kernel::ignore_signal(signal),
    }
}

/// Handles signals for an agent: SIGHUP reads the file again, and every other signal that rolls back a command's commit also
/// ends the agent.
///
/// # Errors
/// As [`interrupt`].
pub(super) fn for_agent() -> Result<AgentSignals, Error> {
    let cannot =
        |error: std::io::Error| Error::unexpected(format!("cannot handle signals: {}", OsError(&error)));
    let stop = interrupt()?;
    let (wake, woken) = std::os::unix::net::UnixStream::pair().map_err(cannot)?;
    let reload = Arc::new(AtomicBool::new(false));
    wake.set_nonblocking(true).map_err(cannot)?;
    for (signal, _) in RESPONSES.into_iter().filter(|(_, response)| *response == RollBack) {
        let woken = woken.try_clone().map_err(cannot)?;
        if signal == Signal::HUP {
            respond_by_reload(&reload).map_err(cannot)?;
        }
        pipe::register(signal.as_raw(), woken).map_err(cannot)?;
    }
    Ok(AgentSignals { stop, reload, wake: wake.into() })
}

/// Replaces the response to SIGHUP.
fn respond_by_reload(reload: &Arc<AtomicBool>) -> std::io::Result<()> {
    for id in HANGUP.lock().map(|mut ids| std::mem::take(&mut *ids)).unwrap_or_default() {
        unregister(id);
    }
    flag::register(Signal::HUP.as_raw(), Arc::clone(reload)).map(|_| ())
}

/// Returns `true` if the last signal was SIGHUP: the terminal is gone.
pub(super) fn hung_up() -> bool {
    Signal::from_named_raw(i32::try_from(LAST.load(Ordering::SeqCst)).unwrap_or(0)) == Some(Signal::HUP)
}

/// Ends this process as an unhandled SIGHUP would.
pub(super) fn end_by_hang_up() {
    let _ = emulate_default_handler(Signal::HUP.as_raw());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the signals in one row of the table in the internals guide.
    fn row(what: &str) -> Vec<&'static str> {
        const GUIDE: &str = include_str!("../guide/internals.md");
        let line = GUIDE.lines().find(|line| line.starts_with("| SIG") && line.contains(what));
        let cell = line.and_then(|line| line.split('|').nth(1)).expect("a row of the table");
        cell.split(',').map(str::trim).collect()
    }

    #[test]
    fn the_table_in_the_internals_guide_is_this_one() {
        let name = |signal: &Signal| {
            signal_hook::low_level::signal_name(signal.as_raw()).map_or_else(
                || match *signal {
                    Signal::STKFLT => "SIGSTKFLT",
                    Signal::POWER => "SIGPWR",
                    other => panic!("{other:?} has no name"),
                },
                |name| if name == "SIGPOLL" { "SIGIO" } else { name },
            )
        };
        let named = |response: Response| -> Vec<&str> {
            RESPONSES.iter().filter(|(_, its)| *its == response).map(|(signal, _)| name(signal)).collect()
        };
        assert_eq!(row("rolled back and verified"), named(RollBack));
        let mut ignored = named(Ignore);
        ignored.push("real-time signals");
        assert_eq!(row("| ignored |"), ignored);
    }

    /// Every signal of signal(7) whose default action ends a process is in the table or left to crash recovery.
    #[test]
    fn every_signal_that_ends_a_process_is_accounted_for() {
        use Signal as S;
        let faults = [S::KILL, S::ILL, S::ABORT, S::BUS, S::FPE, S::SEGV, S::SYS];
        let harmless = [S::CHILD, S::CONT, S::STOP, S::TSTP, S::TTIN, S::TTOU, S::URG, S::WINCH];
        for number in 1..=64 {
            let lists = [
                responses().filter(|(signal, _)| *signal == number).count(),
                faults.iter().filter(|signal| signal.as_raw() == number).count(),
                harmless.iter().filter(|signal| signal.as_raw() == number).count(),
            ];
            assert_eq!(lists.iter().sum::<usize>(), 1, "signal {number}: {lists:?}");
        }
        assert_eq!(row("the process ends").len(), faults.len());
    }
}

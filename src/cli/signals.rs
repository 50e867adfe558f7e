//! Signals: each one whose default action ends a process is answered with a rollback, ignored, or left to crash
//! recovery. The table here is the one in the guide on internals; a test holds them to each other.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::process::Signal;
use signal_hook::{flag, low_level::emulate_default_handler};

use crate::{apply::Interrupt, error::Error, kernel};

/// What a command that changes the node does about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// The commit under way stops at the next change and is rolled back; an undo goes on to its end.
    RollBack,
    /// Nothing. A write beyond the file size limit (SIGXFSZ) or to a closed pipe (SIGPIPE) fails instead.
    Ignore,
}

use Response::{Ignore, RollBack};

/// The signals of signal(7) whose default action ends a process. SIGKILL cannot be caught. SIGILL, SIGABRT, SIGBUS,
/// SIGFPE, SIGSEGV and SIGSYS are missing too: they are faults of the program itself, which cannot be trusted to
/// go on. After those the journal is the way back.
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

/// The faults for which Rust has a handler, to name a stack overflow. It lets the first one pass that another process
/// sent; by default, that ends this process as any other fault does.
const HANDLED_BY_RUST: [Signal; 2] = [Signal::BUS, Signal::SEGV];

/// The real-time signals, which are ignored; the C library keeps the first ones for itself and uses none of them
/// here.
const REAL_TIME: RangeInclusive<i32> = 32..=64;

/// The last signal that asked for a stop; 0 for none.
static LAST: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The signals that were ignored when the program started, as nohup(1) has it, one bit each; they stay so.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Every signal with its number and what is done about it.
fn responses() -> impl Iterator<Item = (i32, Response)> {
    let named = RESPONSES.iter().map(|(signal, response)| (signal.as_raw(), *response));
    named.chain(REAL_TIME.map(|signal| (signal, Ignore)))
}

/// From the first call on, no signal that can be caught ends this process: it raises the interrupt that this
/// gives, or is ignored. A commit under way stops at the next change and is rolled back.
///
/// # Errors
/// When the handlers cannot be installed.
pub(super) fn interrupt() -> Result<Arc<Interrupt>, Error> {
    static INTERRUPT: OnceLock<Arc<Interrupt>> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(Arc::clone(interrupt));
    }
    let interrupt = Arc::new(Interrupt::new());
    let ignored = ignored();
    let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
    let cannot = |signal: i32, error| Error::unexpected(format!("cannot handle signal {signal}: {error}"));
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
            // Whoever sees the interrupt finds the signal there.
            flag::register_usize(signal, Arc::clone(&LAST), number)?;
            flag::register(signal, interrupt.flag()).map(|_| ())
        }
        Ignore => kernel::ignore_signal(signal),
    }
}

/// Whether the last signal said that the terminal is gone.
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

    /// The signals of one row of the table in the guide on internals.
    fn row(what: &str) -> Vec<&'static str> {
        const GUIDE: &str = include_str!("../guide/internals.md");
        let line = GUIDE.lines().find(|line| line.starts_with("| SIG") && line.contains(what));
        let cell = line.and_then(|line| line.split('|').nth(1)).expect("a row of the table");
        cell.split(',').map(str::trim).collect()
    }

    #[test]
    fn the_table_in_the_readme_is_this_one() {
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

    /// signal(7): every one whose default action ends a process is in the table, or one of those that are left to
    /// crash recovery.
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

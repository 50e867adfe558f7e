//! Signals that ask the command to stop.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

use crate::{apply::Interrupt, error::Error};

/// The last signal that was heard; 0 for none.
static LAST: AtomicI32 = AtomicI32::new(0);

/// The signals that were ignored when the program started, as nohup(1) has it, one bit each; they stay so.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// From the first call on, SIGINT, SIGTERM and SIGHUP raise the interrupt that this gives, and do nothing
/// else: a commit under way stops at the next change and is rolled back, an undo goes on to its end.
///
/// # Errors
/// When the handlers cannot be installed.
pub(super) fn interrupt() -> Result<Arc<Interrupt>, Error> {
    static INTERRUPT: OnceLock<Arc<Interrupt>> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(Arc::clone(interrupt));
    }
    let cannot = |error: std::io::Error| Error::unexpected(format!("cannot listen for signals: {error}"));
    let ignored = ignored();
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(heard).map_err(cannot)?;
    let interrupt = Arc::new(Interrupt::new());
    let raised = Arc::clone(&interrupt);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            signals.forever().for_each(|signal| {
                LAST.store(signal, Ordering::SeqCst);
                raised.raise();
            });
        })
        .map_err(cannot)?;
    Ok(Arc::clone(INTERRUPT.get_or_init(|| interrupt)))
}

/// Whether the last signal said that the terminal is gone.
pub(super) fn hung_up() -> bool {
    LAST.load(Ordering::SeqCst) == SIGHUP
}

/// Ends this process as SIGHUP does when nobody listens for it.
pub(super) fn end_by_hang_up() {
    let _ = emulate_default_handler(SIGHUP);
}

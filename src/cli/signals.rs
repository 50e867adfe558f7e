//! Signals that ask the command to stop.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{apply::Interrupt, error::Error};

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
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(cannot)?;
    let interrupt = Arc::new(Interrupt::new());
    let raised = Arc::clone(&interrupt);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| raised.raise()))
        .map_err(cannot)?;
    Ok(Arc::clone(INTERRUPT.get_or_init(|| interrupt)))
}

//! Faults on demand, to prove what is said of failures: with the build feature `fault-injection` alone.
//!
//! Every exchange with the kernel passes a point, counted from 1. `HOSTGW_FAULT=fail:3` makes the third fail
//! with `EIO` before anything is sent, `fail-from:3` the third and all after it, and `kill:3` ends the process
//! there as `kill -9` does. The file that `HOSTGW_FAULT_MARK` names is written when that happens. Without the
//! feature the variables mean nothing.

use rustix::io::Errno;

/// Passes the next point.
///
/// # Errors
/// The fault that was asked for.
#[cfg(feature = "fault-injection")]
pub(super) fn point() -> Result<(), Errno> {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    let Ok(asked) = std::env::var("HOSTGW_FAULT") else { return Ok(()) };
    let Some((kind, at)) = asked.split_once(':') else { return Ok(()) };
    let Ok(at) = at.parse::<usize>() else { return Ok(()) };
    if number == at {
        // Tells a command that came through a fault from one that met none.
        if let Some(mark) = std::env::var_os("HOSTGW_FAULT_MARK") {
            std::fs::write(mark, &asked).map_err(|_| Errno::IO)?;
        }
    }
    match kind {
        "fail" if number == at => Err(Errno::IO),
        "fail-from" if number >= at => Err(Errno::IO),
        "kill" if number == at => {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Prepares a supervisor that is about to be started: the fault that was asked for is this process's alone,
/// `HOSTGW_FAULT_SUPERVISOR` is the supervisor's.
#[cfg(feature = "fault-injection")]
pub fn hand_on(command: &mut std::process::Command) {
    match std::env::var_os("HOSTGW_FAULT_SUPERVISOR") {
        Some(fault) => command.env("HOSTGW_FAULT", fault),
        None => command.env_remove("HOSTGW_FAULT"),
    };
}

/// Without the feature no fault is handed on.
#[cfg(not(feature = "fault-injection"))]
pub const fn hand_on(_command: &mut std::process::Command) {}

/// Without the feature no point fails.
#[cfg(not(feature = "fault-injection"))]
pub(super) const fn point() -> Result<(), Errno> {
    Ok(())
}

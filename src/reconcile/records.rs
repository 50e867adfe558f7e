//! Finds and reads the records of this node.

use std::sync::OnceLock;

use crate::{
    apply::{Identity, StateDir},
    error::{Error, Kind},
    kernel,
    record::LastApplied,
    state::{StatePart, Unknown},
    text::OsError,
};

/// Returns the state directory of this network namespace, which a process opens only once.
///
/// # Errors
/// Returns an error if the namespace cannot be identified.
pub fn state_dir() -> Result<StateDir, Error> {
    static DIR: OnceLock<StateDir> = OnceLock::new();
    match DIR.get() {
        Some(dir) => Ok(dir.clone()),
        None => identity().map(|identity| DIR.get_or_init(|| StateDir::new(identity)).clone()),
    }
}

/// Identifies the current boot and network namespace.
pub(super) fn identity() -> Result<Identity, Error> {
    kernel::identity().map_err(|error| {
        Error::unexpected(format!("cannot identify the network namespace: {}", OsError(&error)))
    })
}

/// Returns the contents of a record, or `None` if this user may not read it, which is not fatal and is added to
/// `unknown`.
///
/// # Errors
/// Returns any other error.
pub fn readable<T>(result: Result<T, Error>, unknown: &mut Vec<Unknown>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == Kind::Incomplete => {
            unknown.push(Unknown { part: StatePart::Records, reason: error.message, remedy: error.hint });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the last apply, which tells drift from changes of the configuration. Returns `None` while an open transaction
/// is not in effect, or if the record cannot be read: only the word "drift" depends on it.
///
/// # Errors
/// Returns an error if the state of the transaction cannot be read.
pub fn last_applied(dir: &StateDir) -> Result<Option<LastApplied>, Error> {
    let is_open = readable(dir.open_journal(), &mut Vec::new())?.flatten().is_some();
    if is_open && readable(dir.pending(), &mut Vec::new())?.flatten().is_none() {
        return Ok(None);
    }
    Ok(dir.last_applied().ok().flatten())
}

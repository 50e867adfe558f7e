//! The records of this node, as the commands read them.

use std::sync::OnceLock;

use crate::{
    apply::{Identity, StateDir},
    error::{Error, Kind},
    kernel,
    record::LastApplied,
    state::{StatePart, Unknown},
};

/// The state directory of this namespace. It is the same one for the whole command, which opens it once.
pub(super) fn state_dir() -> Result<StateDir, Error> {
    static DIR: OnceLock<StateDir> = OnceLock::new();
    match DIR.get() {
        Some(dir) => Ok(dir.clone()),
        None => identity().map(|identity| DIR.get_or_init(|| StateDir::of(identity)).clone()),
    }
}

/// This boot and this namespace.
pub(super) fn identity() -> Result<Identity, Error> {
    kernel::identity()
        .map_err(|error| Error::unexpected(format!("cannot tell which network namespace this is: {error}")))
}

/// A file of the state directory; when it may not be read, that is noted and not fatal.
pub(super) fn readable<T>(result: Result<T, Error>, unknown: &mut Vec<Unknown>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == Kind::Incomplete => {
            unknown.push(Unknown { what: StatePart::Records, why: error.message, hint: error.hint });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What was last applied, to tell drift from new wishes. Nothing is drift while a transaction is open that is
/// not in force, or where it cannot be read: nothing else rests on it.
pub(super) fn last_applied(dir: &StateDir) -> Result<Option<LastApplied>, Error> {
    let is_open = readable(dir.open_journal(), &mut Vec::new())?.flatten().is_some();
    if is_open && readable(dir.pending(), &mut Vec::new())?.flatten().is_none() {
        return Ok(None);
    }
    Ok(dir.last_applied().ok().flatten())
}

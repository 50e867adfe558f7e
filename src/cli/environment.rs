//! Environment variables that stand in for options.

use std::{env, ffi::OsString, path::PathBuf};

/// The configuration.
pub(super) const FILE: &str = "HOSTGW_FILE";
/// The node.
pub(super) const NODE: &str = "HOSTGW_NODE";

/// Returns the configuration that [`FILE`] names.
pub(super) fn file() -> Option<PathBuf> {
    value(FILE).map(PathBuf::from)
}

/// Returns `named`, or else the node that [`NODE`] names.
pub(super) fn node(named: Option<&str>) -> Option<String> {
    let from_environment = || value(NODE).map(|name| name.to_string_lossy().into_owned());
    named.map(ToOwned::to_owned).or_else(from_environment)
}

/// Returns the value of a variable. An empty one counts as unset.
fn value(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

//! What the environment says where the command line does not.

use std::{env, ffi::OsString, path::PathBuf};

/// The configuration.
pub(super) const FILE: &str = "HOSTGW_FILE";
/// The node.
pub(super) const NODE: &str = "HOSTGW_NODE";

/// The configuration that [`FILE`] names.
pub(super) fn file() -> Option<PathBuf> {
    value(FILE).map(PathBuf::from)
}

/// `named`, else the node that [`NODE`] names.
pub(super) fn node(named: Option<&str>) -> Option<String> {
    let from_environment = || value(NODE).map(|name| name.to_string_lossy().into_owned());
    named.map(ToOwned::to_owned).or_else(from_environment)
}

/// The value of a variable; an empty one counts as unset.
fn value(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

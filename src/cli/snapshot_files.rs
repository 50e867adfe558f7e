//! The snapshots of many nodes that a command line names.

use std::{fs, path::PathBuf};

use super::configuration::text_of;
use crate::{
    error::{Error, Kind},
    text::{self, OsError},
};

/// The file names that are snapshots if a directory is given.
const ENDINGS: [&str; 2] = [".json", ".json.gz"];

/// Returns the files that the command line names, and those in the directories that it names.
pub(super) fn snapshot_files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            if path.as_os_str() != "-" && !path.exists() {
                text_of(path)?;
            }
            files.push(path.clone());
            continue;
        }
        let name = text::path(path);
        let cannot = |error| {
            Error::new(Kind::Invalid, format!("cannot read the directory {name}: {}", OsError(&error)))
        };
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let file = entry.file_name();
            let file = file.to_string_lossy();
            if !file.starts_with('.') && ENDINGS.iter().any(|ending| file.ends_with(ending)) {
                inside.push(entry.path());
            }
        }
        if inside.is_empty() {
            return Err(Error::new(
                Kind::Invalid,
                format!("no snapshots in {name} (expected files that end in .json or .json.gz)"),
            )
            .with_hint("save the output of `hostgw snapshot` of each node there"));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

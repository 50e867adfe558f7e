//! The file with the agent's metrics, for the textfile collector of the node exporter.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{agent_metrics::AgentMetrics, cannot_write, write::publish_unsynced};
use crate::{
    error::{Error, Kind},
    text::{self, OsError},
};

/// The age from which on a look at the node rewrites the file, even if nothing else has changed.
const MAX_AGE: Duration = Duration::from_secs(15);

/// The file with the metrics.
pub(super) struct MetricsFile {
    path: PathBuf,
    written: Cell<Option<Instant>>,
    /// Whether the last attempt to write it failed, which is reported once.
    has_failed: Cell<bool>,
}

impl MetricsFile {
    /// # Errors
    /// Returns an error if the node exporter would not read the file, or if its directory does not exist.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let name = text::path(path);
        if path.extension().is_none_or(|extension| extension != "prom") {
            let message = format!("the node exporter would ignore {name}: the file name must end in .prom");
            return Err(Error::new(Kind::Usage, message));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let message =
                format!("cannot write metrics to {name}: {} is not a directory", text::path(folder));
            return Err(Error::unexpected(message));
        }
        Ok(Self { path: path.to_owned(), written: Cell::new(None), has_failed: Cell::new(false) })
    }

    /// Writes the metrics if the file is too old.
    pub(super) fn refresh(&self, metrics: &AgentMetrics) -> Result<(), Error> {
        let is_recent = |written: Instant| written.elapsed() < MAX_AGE;
        if self.written.get().is_some_and(is_recent) { Ok(()) } else { self.write(metrics) }
    }

    /// Writes the metrics.
    ///
    /// # Errors
    /// Returns an error if that fails and the previous attempt did not.
    pub(super) fn write(&self, metrics: &AgentMetrics) -> Result<(), Error> {
        self.written.set(Some(Instant::now()));
        let result = metrics.text().and_then(|text| {
            let written = publish_unsynced(&self.path, text.as_bytes());
            written.map_err(|error| cannot_write(&self.path, &OsError(&error)))
        });
        if self.has_failed.replace(result.is_err()) { Ok(()) } else { result }
    }
}

//! `hostgw audit`

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    VerbResult,
    arguments::AuditOptions,
    configuration::{load, text_of},
    output::Output,
};
use crate::{
    audit::{Auditor, Sighting, audit_html, audit_markdown, audit_text, conclude},
    error::{Error, Kind},
    progress::{Task, advance},
    text,
};

/// The exit code if there are findings.
const FINDINGS: u8 = 11;

/// The file names that are snapshots if a directory is given.
const ENDINGS: [&str; 2] = [".json", ".json.gz"];

/// Judges the whole cluster from the snapshots of its nodes.
pub(super) fn run(options: &AuditOptions, output: &Output) -> VerbResult {
    let files = files(&options.snapshots)?;
    let loaded = load(options.file.as_deref())?;
    let auditor = Auditor::new(&loaded);
    let report = conclude(&auditor, examine(&auditor, &files));
    if options.json {
        output.json(&report)?;
    } else if options.markdown {
        output.result(&audit_markdown(&report))?;
    } else if options.html {
        output.verbatim(&audit_html(&report)?)?;
    } else {
        output.result(&audit_text(&report, &output.palette))?;
    }
    Ok(if report.findings.is_empty() { 0 } else { FINDINGS })
}

/// Returns the files that the command line names, and those in the directories that it names.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
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
        let cannot = |error| Error::new(Kind::Invalid, format!("cannot read the directory {name}: {error}"));
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
            return Err(Error::new(Kind::Invalid, format!("there are no snapshots in {name}")).with_hint(
                "save the output of `hostgw snapshot` of each node there, in files whose names end in .json or .json.gz",
            ));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// Examines the snapshots on all processors. The results are in the order of the files.
fn examine(auditor: &Auditor<'_>, files: &[PathBuf]) -> Vec<Sighting> {
    let _task = Task::counted("examining snapshots", files.len());
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(files.len())));
    let work = || {
        let mut worker = auditor.worker();
        while let Some((at, file)) = take(&next, files) {
            let sighting = match text_of(file) {
                Ok((name, text)) => worker.examine(&name, &text),
                Err(error) => Sighting::Unusable { snapshot: text::path(file), error },
            };
            found.lock().unwrap_or_else(PoisonError::into_inner).push((at, sighting));
            advance(1);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(files.len());
    thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, sighting)| sighting).collect()
}

/// Takes the next file.
fn take<'a>(next: &AtomicUsize, files: &'a [PathBuf]) -> Option<(usize, &'a Path)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, files.get(at)?.as_path()))
}

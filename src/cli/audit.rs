//! `hostgw audit`

use std::{
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
    snapshot_files::snapshot_files,
};
use crate::{
    audit::{Auditor, Sighting, audit_html, audit_markdown, audit_text, conclude},
    progress::{Task, advance},
    text,
};

/// The exit code if there are findings.
const FINDINGS: u8 = 11;

/// Judges the whole cluster from the snapshots of its nodes.
pub(super) fn run(options: &AuditOptions, output: &Output) -> VerbResult {
    let files = snapshot_files(&options.snapshots)?;
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

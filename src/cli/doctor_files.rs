//! The CNI configuration of this node, which `hostgw doctor` examines.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{check_cni, configuration::text_of};
use crate::{
    cni,
    diagnose::{Diagnostic, Rule, Severity},
    error::Error,
    model::Cluster,
    text::{ShellCommand, printable},
};

/// The folder in which container runtimes look for the CNI configuration. They use the first file by name.
const CNI_FOLDER: &str = "/etc/cni/net.d";

/// The number of entries of a directory to look at.
const MAX_ENTRIES: usize = 4096;

/// Returns the files of a directory in the order of their names.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Examines a CNI configuration: `named`, or else the one of this node if it is `live`.
///
/// # Errors
/// Returns an error if the named file cannot be read or is no CNI configuration.
pub(super) fn cni(
    named: Option<&Path>,
    is_live: bool,
    cluster: &Cluster,
    index: usize,
) -> Result<Vec<Diagnostic>, Error> {
    let is_configuration = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
    };
    let found = || files(Path::new(CNI_FOLDER)).into_iter().find(is_configuration);
    let path = match named {
        Some(path) => path.to_owned(),
        None => match found().filter(|_| is_live) {
            Some(path) => path,
            None => return Ok(Vec::new()),
        },
    };
    let (name, text) = text_of(&path)?;
    let configuration = check_cni::parse(&name, &text)?;
    let report = cni::check(&configuration, cluster, Some(index));
    let diagnostic = |finding: &cni::Finding| {
        let is = finding.actual.as_ref().map_or_else(String::new, |actual| format!(" = {actual}"));
        let message = format!("{name}: {}{is}: {}", finding.path, finding.message);
        let remedy = finding
            .remedy()
            .unwrap_or_else(|| format!("see `{}`", ShellCommand::new(["hostgw", "check-cni", &name])));
        Diagnostic::new(finding.kind.rule(), printable(&message))
            .with_severity(finding.severity)
            .with_remedy(remedy)
    };
    let of_severity = |severity| report.findings.iter().filter(move |finding| finding.severity == severity);
    let masquerade = report.masquerade.as_ref().filter(|masquerade| !masquerade.fits());
    let masquerade = masquerade.map(|report| {
        let message = check_cni::wrong(&name, report).message;
        Diagnostic::new(Rule::CniMasquerade, message.to_string()).with_remedy(format!(
            "review the policies with `{}`",
            ShellCommand::new(["hostgw", "check-cni", &name])
        ))
    });
    let errors = masquerade.into_iter().chain(of_severity(Severity::Error).map(diagnostic));
    Ok(errors.chain(of_severity(Severity::Warning).map(diagnostic)).collect())
}

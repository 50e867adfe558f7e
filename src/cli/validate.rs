//! `hostgw validate`

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbFailure, VerbResult,
    arguments::{FindingsFormat, ValidateOptions},
    configuration,
    error_json::ErrorJson,
    output::Output,
};
use crate::{
    config,
    diagnose::Diagnostic,
    error::{Error, Kind},
    render::{self, FileFinding, FindingEntry},
    text::{self, Untrusted, count},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `hostgw validate --json`: one document for all files.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw validate")]
pub(super) struct ValidateJson {
    /// The version of this format.
    format: u32,
    /// Whether every file is valid.
    valid: bool,
    /// Every file, in the order of the command line.
    files: Vec<FileJson>,
    /// Why the command failed; absent if every file is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

/// The result for one file.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct FileJson {
    /// The file, as named on the command line.
    file: Untrusted,
    /// Whether the file is valid.
    valid: bool,
    /// The number of nodes; null for an invalid file.
    nodes: Option<usize>,
    /// The warnings.
    findings: Vec<FindingEntry>,
    /// The errors; absent for a valid file.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

/// Checks every file, and reports how many nodes it has, or every error in it.
pub(super) fn run(options: &ValidateOptions, output: &Output) -> VerbResult {
    let named = options.files.iter().chain(&options.more);
    let mut files: Vec<Option<&Path>> = named.map(|file| Some(file.as_path())).collect();
    if files.is_empty() {
        files.push(None);
    }
    let format = options.format();
    let checked: Vec<Checked> = files
        .iter()
        .map(|file| {
            let checked = Checked::new(*file);
            // In text, each error is printed at once.
            if let (FindingsFormat::Text, Err(failure)) = (format, &checked.result) {
                output.failure(failure);
            }
            checked
        })
        .collect();
    let invalid = checked.iter().filter(|file| file.result.is_err()).count();
    let findings = || checked.iter().flat_map(Checked::findings).collect::<Vec<FileFinding>>();
    match format {
        FindingsFormat::Text => {
            for Checked { name, result } in &checked {
                if let Ok(ValidFile { nodes, warnings }) = result {
                    warnings.iter().for_each(|warning| output.diagnostic(warning));
                    output.result(&format!("{name} is valid: {}\n", count(*nodes, "node")))?;
                }
            }
        }
        FindingsFormat::Json => {
            let message = match (invalid, &checked[..]) {
                (1, [only]) => format!("{} is invalid", only.name),
                (1, several) => format!("1 of {} files is invalid", several.len()),
                (several, all) => format!("{several} of {} files are invalid", all.len()),
            };
            let error = (invalid > 0).then(|| Error::new(Kind::Invalid, message));
            output.json(&ValidateJson {
                format: FORMAT,
                valid: invalid == 0,
                files: checked.iter().map(Checked::json).collect(),
                error: error.as_ref().map(ErrorJson::from),
            })?;
        }
        FindingsFormat::Markdown => {
            let valid: Vec<(Untrusted, usize)> = checked
                .iter()
                .filter_map(|file| Some((file.name.clone(), file.result.as_ref().ok()?.nodes)))
                .collect();
            output.verbatim(&render::findings_markdown(&findings(), &valid))?;
        }
        FindingsFormat::Sarif => output.json(&render::sarif(&findings(), env!("CARGO_PKG_VERSION")))?,
        FindingsFormat::Github => output.verbatim(&render::github_annotations(&findings()))?,
    }
    if invalid > 0 { Err(VerbFailure::AlreadyReported(Kind::Invalid)) } else { Ok(0) }
}

/// A file that was checked.
struct Checked {
    name: Untrusted,
    /// What is known about it, or what is wrong with it.
    result: Result<ValidFile, VerbFailure>,
}

/// A valid configuration.
struct ValidFile {
    /// The number of its nodes.
    nodes: usize,
    /// What deserves a warning although it is valid.
    warnings: Vec<Diagnostic>,
}

impl Checked {
    fn new(file: Option<&Path>) -> Self {
        let named = file.map(text::path).unwrap_or_default();
        match configuration::load(file) {
            Ok(loaded) => {
                let warnings = config::warnings(&loaded.cluster);
                let result = Ok(ValidFile { nodes: loaded.cluster.nodes.len(), warnings });
                Self { name: loaded.document.name().to_owned(), result }
            }
            Err(failure) => {
                let name = match &failure {
                    VerbFailure::Invalid(invalid) => invalid.first().map(|invalid| invalid.name().to_owned()),
                    VerbFailure::Error(_) | VerbFailure::AlreadyReported(_) => None,
                };
                Self { name: name.unwrap_or(named), result: Err(failure) }
            }
        }
    }

    fn findings(&self) -> Vec<FileFinding> {
        match &self.result {
            Err(VerbFailure::Invalid(invalid)) => invalid.iter().flat_map(FileFinding::of_config).collect(),
            Err(VerbFailure::Error(error)) => vec![FileFinding::of_error(&self.name, error)],
            Ok(ValidFile { warnings, .. }) => {
                warnings.iter().map(|warning| FileFinding::of_warning(&self.name, warning)).collect()
            }
            Err(VerbFailure::AlreadyReported(_)) => Vec::new(),
        }
    }

    fn json(&self) -> FileJson {
        let error = match &self.result {
            Err(VerbFailure::Invalid(invalid)) => Some(ErrorJson::invalid(invalid)),
            Err(VerbFailure::Error(error)) => Some(ErrorJson::from(error)),
            Err(VerbFailure::AlreadyReported(_)) | Ok(_) => None,
        };
        let valid = self.result.as_ref().ok();
        let warnings = valid.into_iter().flat_map(|valid| &valid.warnings);
        FileJson {
            file: self.name.clone(),
            valid: valid.is_some(),
            nodes: valid.map(|valid| valid.nodes),
            findings: warnings.map(|warning| FindingEntry::new(warning.clone(), None)).collect(),
            error,
        }
    }
}

//! `hostgw validate`

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Failure, Verdict, arguments::ValidateOptions, configuration, error_json::ErrorJson, output::Output,
};
use crate::{
    error::{Error, Kind},
    text::{self, Untrusted, count},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `hostgw validate --json`: one document, however many files there are.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw validate")]
pub(super) struct ValidateJson {
    /// Version of this form.
    format: u32,
    /// Whether every file is valid.
    valid: bool,
    /// Every file, in the order of the command line.
    files: Vec<FileJson>,
    /// Why the command failed; none when every file is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

/// One file.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct FileJson {
    /// The file, as named on the command line.
    file: Untrusted,
    /// Whether it is valid.
    valid: bool,
    /// The number of its nodes; none for a file that is not valid.
    nodes: Option<usize>,
    /// What is wrong with it; none for a valid file.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

/// Checks every file and says what each one holds, or all that is wrong with it.
pub(super) fn run(options: &ValidateOptions, output: &Output) -> Verdict {
    let named = options.files.iter().chain(&options.more);
    let mut files: Vec<Option<&Path>> = named.map(|file| Some(file.as_path())).collect();
    if files.is_empty() {
        files.push(None);
    }
    let checked: Vec<FileJson> = files.iter().map(|file| check(*file, options.json, output)).collect();
    let invalid = checked.iter().filter(|file| !file.valid).count();
    let error = (invalid > 0).then(|| {
        let of = count(checked.len(), "file");
        Error::new(Kind::Invalid, format!("{invalid} of {of} invalid"))
    });
    if options.json {
        let error = error.as_ref().map(ErrorJson::from);
        output.json(&ValidateJson { format: FORMAT, valid: invalid == 0, files: checked, error })?;
    } else {
        for FileJson { file, nodes, .. } in &checked {
            if let Some(nodes) = nodes {
                output.result(&format!("{file} is valid: {}\n", count(*nodes, "node")))?;
            }
        }
    }
    if invalid > 0 { Err(Failure::AlreadyReported(Kind::Invalid)) } else { Ok(0) }
}

/// Checks one file; what is wrong with it is printed at once, unless it goes into the document.
fn check(file: Option<&Path>, json: bool, output: &Output) -> FileJson {
    let failure = match configuration::load(file) {
        Ok(loaded) => {
            let nodes = Some(loaded.cluster.nodes.len());
            return FileJson { file: loaded.document.name().to_owned(), valid: true, nodes, error: None };
        }
        Err(failure) => failure,
    };
    let named = file.map(text::path).unwrap_or_default();
    let (name, error) = match &failure {
        Failure::Invalid(invalid) => {
            let name = invalid.first().map(|invalid| invalid.name().to_owned());
            (name.unwrap_or(named), Some(ErrorJson::invalid(invalid)))
        }
        Failure::Error(error) => (named, Some(ErrorJson::from(error))),
        Failure::AlreadyReported(_) => (named, None),
    };
    if !json {
        output.failure(&failure);
    }
    FileJson { file: name, valid: false, nodes: None, error }
}

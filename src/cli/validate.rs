//! `hostgw validate`

use std::path::Path;

use serde::Serialize;

use super::{Failure, Verdict, arguments::ValidateOptions, output::Output, session};
use crate::{config, error::Kind, text::count};

/// A mistake, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MistakeJson<'a> {
    file: &'a str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Every mistake of a configuration, for programs.
pub(super) fn mistakes(invalid: &config::Invalid) -> Vec<MistakeJson<'_>> {
    invalid
        .mistakes()
        .iter()
        .map(|mistake| MistakeJson {
            file: invalid.name(),
            path: mistake.path.to_string(),
            line: mistake.position.map(|position| position.line),
            column: mistake.position.map(|position| position.column),
            message: &mistake.message,
            hint: mistake.hint.as_deref(),
        })
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileJson {
    file: String,
    nodes: usize,
}

/// Checks every file and says what each one holds, or all that is wrong with it.
pub(super) fn run(options: &ValidateOptions, output: &Output) -> Verdict {
    let named = options.files.iter().chain(&options.more);
    let mut files: Vec<Option<&Path>> = named.map(|file| Some(file.as_path())).collect();
    if files.is_empty() {
        files.push(None);
    }
    let mut valid = Vec::new();
    let mut failed = None;
    for file in files {
        match session::load(file) {
            Ok(loaded) => {
                let file = loaded.document.name().to_owned();
                valid.push(FileJson { file, nodes: loaded.cluster.nodes.len() });
            }
            Err(failure) => failed = Some(output.failure(&failure)),
        }
    }
    if options.json {
        if failed.is_none() {
            output.json(&serde_json::json!({ "format": 1, "valid": valid }))?;
        }
    } else {
        for FileJson { file, nodes } in &valid {
            output.result(&format!("{file} is valid: {}\n", count(*nodes, "node")))?;
        }
    }
    match failed {
        Some(_) => Err(Failure::Said(Kind::Invalid)),
        None => Ok(0),
    }
}

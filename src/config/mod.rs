//! From a file to a cluster that keeps every rule, or to everything that is wrong with the file.
//!
//! A valid file is read once, by serde into the raw types, and checked. Only when that fails is it read
//! again, into a tree of values with positions; the tree is walked along the schema, which finds all
//! structural mistakes, and what is good in it is checked once more against the rules. So one run tells
//! all mistakes, each with its place, and a file without mistakes does not pay for that.
//!
//! Nothing here prints or exits: errors are values.

mod checks;
mod document;
mod mistake;
mod node;
mod overlap;
mod parse;
mod raw;
mod schema;
mod source;
mod structure;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod validate;
mod yaml;

use std::collections::HashSet;

pub use document::{Document, FILE_NAMES, Format, Kept, ReadError, find_in};
pub use mistake::{Invalid, Mistake, Related};
pub use schema::{schema, schema_text};
pub use source::Position;
pub use tree::Positions;

use crate::model::{Cluster, ConfigPath};
use mistake::{Finding, Place};
use raw::RawConfig;
use source::Source;
use tree::Node;
use validate::validate;
use yaml::Refused;

/// Reads and checks a configuration.
///
/// # Errors
/// All mistakes in it.
pub fn load(document: &Document) -> Result<Cluster, Invalid> {
    let first = match deserialize(document) {
        Ok(raw) => match validate(raw, &HashSet::new()) {
            Ok(cluster) => return Ok(cluster),
            Err(findings) => FirstPass::Findings(findings),
        },
        Err(refused) => FirstPass::Refused(refused),
    };
    Err(diagnose(document, first))
}

/// How the fast reading failed.
enum FirstPass {
    /// serde could not make the raw types of it.
    Refused(Refused),
    /// It breaks these rules; none when something is missing.
    Findings(Vec<Finding>),
}

fn deserialize(document: &Document) -> Result<RawConfig, Refused> {
    match document.format() {
        Format::Yaml => {
            yaml::deserialize(document.text()).map_err(|error| yaml::refused(&error, &document.source()))
        }
        Format::Toml => toml::deserialize(document.text()).map_err(|error| toml::refused(&error)),
    }
}

fn diagnose(document: &Document, first: FirstPass) -> Invalid {
    let source = document.source();
    let (root, findings) = match document.parse(&source) {
        Ok(parsed) => {
            let mut findings: Vec<Finding> = parsed.mistakes.into_iter().map(Finding::from).collect();
            findings.extend(mistakes_of(&parsed.root, &source, document.format()));
            if findings.is_empty() {
                findings = first.findings();
            }
            (Some(parsed.root), findings)
        }
        Err(error) => match first {
            // serde could read it: its syntax is not what is wrong.
            FirstPass::Findings(findings) if !findings.is_empty() => (None, findings),
            _ => (None, vec![Finding::from(error)]),
        },
    };
    Invalid::new(document.name(), source, root.as_ref(), findings)
}

/// Every mistake in a tree; none in the tree of a valid configuration.
fn mistakes_of(root: &Node, source: &Source, format: Format) -> Vec<Finding> {
    let checked = structure::check(root, source, format);
    let mut findings = checked.findings;
    // What is left after pruning is what the raw types take; a root that is no mapping leaves nothing.
    if let Ok(raw) = serde_json::from_value::<RawConfig>(checked.pruned)
        && let Err(more) = validate(raw, &checked.wrong)
    {
        findings.extend(more);
    }
    findings
}

impl FirstPass {
    /// What to say when the thorough pass found nothing: there is always something to say.
    fn findings(self) -> Vec<Finding> {
        let refused = match self {
            Self::Findings(findings) if !findings.is_empty() => return findings,
            Self::Findings(_) => {
                Refused { message: "this configuration is incomplete".to_owned(), offset: None }
            }
            Self::Refused(refused) => refused,
        };
        let place = match refused.offset {
            Some(offset) => Place::span(ConfigPath::root(), offset..offset),
            None => Place::value(ConfigPath::root()),
        };
        vec![Finding::new(refused.message, place)]
    }
}

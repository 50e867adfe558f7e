//! From a file to a cluster that keeps every rule, or to everything that is wrong with the file.
//!
//! A valid file is read once, by serde into the raw types, and checked. Only when that fails is it read
//! again, into a tree of values with positions; the tree is walked along the schema, which finds all
//! structural mistakes, and what is good in it is checked once more against the rules. So one run tells
//! all mistakes, each with its place, and a file without mistakes does not pay for that. YAML that serde might take
//! very long for, or very much memory, is read into a tree at once: there depth and size are bounded while reading.
//!
//! Nothing here prints or exits: errors are values.

mod capped;
mod checks;
mod deserialize;
mod document;
mod limits;
mod mistake;
mod node;
mod overlap;
mod parse;
mod raw;
mod schema;
mod source;
mod special;
mod structure;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod validate;
mod validator;
mod yaml;

use std::collections::HashSet;

use serde::Deserialize;

pub use document::{Document, FILE_NAMES, Format, Kept, ReadError, find_in};
pub use mistake::{Invalid, Mistake, Related};
pub use schema::{schema, schema_text};
pub use source::Position;
pub use tree::Positions;

use crate::model::{Cluster, ConfigPath};
use capped::Capped;
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
        Some(Ok(raw)) => match validate(raw, &HashSet::new()) {
            Ok(cluster) => return Ok(cluster),
            Err(findings) => FirstPass::Findings(findings),
        },
        Some(Err(refused)) => FirstPass::Refused(refused),
        None => FirstPass::LeftOut,
    };
    diagnose(document, first)
}

/// How the fast reading failed.
enum FirstPass {
    /// It was not tried.
    LeftOut,
    /// serde could not make the raw types of it.
    Refused(Refused),
    /// It breaks these rules; none when something is missing.
    Findings(Capped<Finding>),
}

/// Reads a text the fast way, where that is bounded.
fn deserialize(document: &Document) -> Option<Result<RawConfig, Refused>> {
    match document.format() {
        Format::Yaml if yaml::is_plain(document.text()) => Some(
            yaml::deserialize(document.text()).map_err(|error| yaml::refused(&error, &document.source())),
        ),
        // A tree of TOML is made faster than serde reads one.
        Format::Yaml | Format::Toml => None,
    }
}

fn diagnose(document: &Document, first: FirstPass) -> Result<Cluster, Invalid> {
    let source = document.source();
    let findings = match document.parse(&source) {
        Ok(parsed) => {
            let mut findings = parsed.mistakes.map(Finding::from);
            match check(parsed.root, &source, document.format()) {
                Ok(cluster) if findings.is_empty() && matches!(first, FirstPass::LeftOut) => {
                    return Ok(cluster);
                }
                Ok(_) => {}
                Err(more) => findings.extend(more),
            }
            if findings.is_empty() { first.findings() } else { findings }
        }
        Err(error) => match first {
            // serde could read it: its syntax is not what is wrong.
            FirstPass::Findings(findings) if !findings.is_empty() => findings,
            _ => Finding::from(error).into(),
        },
    };
    // The tree went into the rules; most mistakes of a file's form know their places without it.
    let root = if findings.items().iter().all(Finding::is_placed) {
        None
    } else {
        document.parse(&source).ok().map(|parsed| parsed.root)
    };
    Err(Invalid::new(document.name(), source, root.as_ref(), findings))
}

/// The cluster of a tree, or every mistake in it.
fn check(mut root: Node, source: &Source, format: Format) -> Result<Cluster, Capped<Finding>> {
    let structure::Checked { mut findings, wrong } = structure::check(&mut root, source, format);
    // With more than can be shown the rules can wait; and not every wrong place is known then.
    if findings.is_cut() {
        return Err(findings);
    }
    // What is left after the walk is what the raw types take; a root that is no mapping leaves nothing.
    let Ok(raw) = RawConfig::deserialize(root) else { return Err(findings) };
    match validate(raw, &wrong) {
        Ok(cluster) if findings.is_empty() => Ok(cluster),
        Ok(_) => Err(findings),
        Err(more) => {
            findings.extend(more);
            Err(findings)
        }
    }
}

impl FirstPass {
    /// What to say when the thorough pass found nothing: there is always something to say.
    fn findings(self) -> Capped<Finding> {
        let refused = match self {
            Self::Findings(findings) if !findings.is_empty() => return findings,
            Self::Findings(_) | Self::LeftOut => {
                Refused { message: "this configuration is incomplete".to_owned(), offset: None }
            }
            Self::Refused(refused) => refused,
        };
        let place = match refused.offset {
            Some(offset) => Place::span(ConfigPath::root(), offset..offset),
            None => Place::value(ConfigPath::root()),
        };
        Finding::new(refused.message, place).into()
    }
}

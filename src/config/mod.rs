//! Parses and validates a configuration file, and reports every error in it.
//!
//! A list of nodes that is written plainly is read directly, and serde deserializes the rest of the file, or else all of
//! it, into the raw types, which are then validated. Only if that fails is the file parsed again, into a tree of values
//! with positions. Walking the tree along the schema finds all structural errors, and whatever is intact is validated once
//! more. So a single run reports every error with its position, and a valid file does not pay for it. YAML on which serde
//! might spend excessive time or memory is parsed into a tree right away: the tree parser limits depth and size.
//!
//! Nothing here prints or exits: errors are values.

mod capped;
mod checks;
mod deserialize;
mod document;
mod limits;
mod node;
mod overlap;
mod parse;
mod plain;
#[cfg(test)]
mod plain_tests;
mod positions;
mod problem;
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

pub use document::{Document, FILE_NAMES, Format, ReadError, StoredConfig, find_in};
pub use positions::Positions;
pub use problem::{ConfigError, InvalidConfig, Related};
pub use schema::{schema, schema_text};
pub use source::Position;

use crate::diagnose::Rule;
use crate::model::{Cluster, ConfigPath};
use crate::progress::Task;
use capped::Capped;
use plain::PlainList;
use problem::{Location, Problem};
use raw::RawConfig;
use source::Source;
use tree::TreeNode;
use validate::validate;
use yaml::SerdeRejection;

/// A configuration that was read and found valid.
#[derive(Debug)]
pub struct Loaded {
    /// The file.
    pub document: Document,
    /// The cluster that it describes.
    pub cluster: Cluster,
}

impl Loaded {
    /// Parses and validates `document`.
    ///
    /// # Errors
    /// Returns every error in the configuration.
    pub fn new(document: Document) -> Result<Self, InvalidConfig> {
        load(&document).map(|cluster| Self { document, cluster })
    }

    /// Loads an earlier version of `later`, which was valid. What they have in common is not read again.
    ///
    /// # Errors
    /// Returns every error in the configuration.
    pub fn earlier(document: Document, later: &Self) -> Result<Self, InvalidConfig> {
        let shared = load_sharing(&document, later);
        shared.map_or_else(|| load(&document), Ok).map(|cluster| Self { document, cluster })
    }
}

/// Parses and validates a configuration.
///
/// # Errors
/// Returns every error in the configuration.
pub fn load(document: &Document) -> Result<Cluster, InvalidConfig> {
    let _task = Task::begin(format!("reading {}", document.name()));
    load_plain(document).map_or_else(|| load_parsed(document), Ok)
}

/// Reads any configuration.
fn load_parsed(document: &Document) -> Result<Cluster, InvalidConfig> {
    let first = match deserialize(document) {
        Some(Ok(raw)) => match validate(raw, None, &HashSet::new()) {
            Ok(cluster) => return Ok(cluster),
            Err(problems) => FirstPass::Problems(problems),
        },
        Some(Err(rejection)) => FirstPass::Rejected(rejection),
        None => FirstPass::Skipped,
    };
    diagnose(document, first)
}

/// Reads a YAML configuration whose list of nodes is written plainly. Returns `None` if it is not, or for any error.
fn load_plain(document: &Document) -> Option<Cluster> {
    let list = document.plain_list()?;
    load_nodes(document.text(), &list, 0..list.len())
}

/// Reads a configuration with only some of its nodes.
fn load_nodes(
    text: &str,
    list: &PlainList,
    indexes: impl ExactSizeIterator<Item = usize>,
) -> Option<Cluster> {
    let rest = list.rest(text);
    let raw = yaml::is_plain(&rest).then(|| yaml::deserialize(&rest).ok()).flatten()?;
    // The list is not a second value of this key.
    let nodes = &mut list.nodes(text, indexes);
    raw.nodes.is_none().then(|| validate(raw, Some(nodes), &HashSet::new()).ok()).flatten()
}

/// Reads a configuration that was valid, and takes the nodes that are written as in `similar` from there.
fn load_sharing(document: &Document, similar: &Loaded) -> Option<Cluster> {
    let (list, shared) = document.plain_list_shared_with(&similar.document)?;
    // A cluster has at least one node.
    let is_own = |index: &usize| *index == 0 || shared[*index].is_none();
    let own: Vec<usize> = (0..list.len()).filter(is_own).collect();
    let mut cluster = load_nodes(document.text(), &list, own.into_iter())?;
    let mut own = std::mem::take(&mut cluster.nodes).into_iter();
    let node = |index: usize| match shared[index].filter(|_| index > 0) {
        Some(same) => similar.cluster.nodes.get(same).cloned(),
        None => own.next(),
    };
    cluster.nodes = (0..list.len()).map(node).collect::<Option<_>>()?;
    Some(cluster)
}

/// Why the fast path did not produce a cluster.
enum FirstPass {
    /// The fast path was not tried.
    Skipped,
    /// serde rejected the text.
    Rejected(SerdeRejection),
    /// Validation failed. Empty if a required value is missing, which only the tree walk reports.
    Problems(Capped<Problem>),
}

/// Deserializes a document on the fast path, if its cost is bounded.
fn deserialize(document: &Document) -> Option<Result<RawConfig, SerdeRejection>> {
    match document.format() {
        Format::Yaml if yaml::is_plain(document.text()) => Some(
            yaml::deserialize(document.text()).map_err(|error| yaml::rejection(&error, &document.source())),
        ),
        // Building a tree from TOML is faster than deserializing it.
        Format::Yaml | Format::Toml => None,
    }
}

fn diagnose(document: &Document, first: FirstPass) -> Result<Cluster, InvalidConfig> {
    let source = document.source();
    let problems = match document.parse(&source) {
        Ok(parsed) => {
            let mut problems = parsed.errors.map(Problem::from);
            match check(parsed.root, &source, document.format()) {
                Ok(cluster) if problems.is_empty() && matches!(first, FirstPass::Skipped) => {
                    return Ok(cluster);
                }
                Ok(_) => {}
                Err(more) => problems.extend(more),
            }
            if problems.is_empty() { first.problems() } else { problems }
        }
        Err(error) => match first {
            // serde accepted the syntax, so the syntax is not the problem.
            FirstPass::Problems(problems) if !problems.is_empty() => problems,
            _ => Problem::from(error).into(),
        },
    };
    // Validation consumed the tree. Most structural errors already carry their position.
    let root = if problems.items().iter().all(Problem::is_located) {
        None
    } else {
        document.parse(&source).ok().map(|parsed| parsed.root)
    };
    Err(InvalidConfig::new(document.name(), source, root.as_ref(), problems))
}

/// Checks the structure of a tree, then validates what is left of it.
fn check(mut root: TreeNode, source: &Source, format: Format) -> Result<Cluster, Capped<Problem>> {
    let structure::StructureReport { mut problems, reported } = structure::check(&mut root, source, format);
    // The report is full, and not every invalid path is known: validation could report them twice.
    if problems.is_truncated() {
        return Err(problems);
    }
    // Whatever the walk leaves fits the raw types, unless the root is not a mapping.
    let Ok(raw) = RawConfig::deserialize(root) else { return Err(problems) };
    match validate(raw, None, &reported) {
        Ok(cluster) if problems.is_empty() => Ok(cluster),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

impl FirstPass {
    /// The errors to report if the tree walk found none. Never empty.
    fn problems(self) -> Capped<Problem> {
        let rejection = match self {
            Self::Problems(problems) if !problems.is_empty() => return problems,
            Self::Problems(_) | Self::Skipped => {
                SerdeRejection { message: "the configuration is incomplete".to_owned(), offset: None }
            }
            Self::Rejected(rejection) => rejection,
        };
        let place = match rejection.offset {
            Some(offset) => Location::span(ConfigPath::root(), offset..offset),
            None => Location::value(ConfigPath::root()),
        };
        Problem::new(Rule::Syntax, rejection.message, place).into()
    }
}

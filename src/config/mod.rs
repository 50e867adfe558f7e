//! Parses and validates a configuration file, and reports every error in it.
//!
//! There is one way from a text to the raw types: a parser (for YAML, for YAML that is written plainly, which includes
//! JSON, or for TOML) builds a small tree of each node, with positions, and hands it over as soon as it is complete.
//! serde deserializes it into the raw types, and only its positions are kept. The rest of the file is a tree of its own.
//! If the form of anything is invalid, the file is parsed once more, and a walk of each tree along the schema finds all
//! structural errors. Whatever is intact is validated. So a single run reports every error with its position, and a valid
//! file does not pay for it.
//!
//! [`outline()`] finds the nodes in a text for edits in place, and `untyped` reads YAML that is not a configuration.
//!
//! `warnings` finds what deserves a warning although the file is valid.
//!
//! Nothing here prints or exits: errors are values.

mod builder;
mod capped;
mod checks;
mod deserialize;
mod document;
mod limits;
mod node;
mod node_routers;
mod outline;
mod overlap;
mod parse;
mod places;
mod plain;
#[cfg(test)]
mod plain_tests;
mod positions;
mod problem;
mod raw;
mod receivers;
mod scalar;
mod schema;
mod source;
mod special;
mod split;
mod structure;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod untyped;
mod validate;
mod validator;
mod warnings;
mod yaml;

use std::collections::HashSet;

pub use document::{Document, FILE_NAMES, Format, ReadError, StoredConfig, find_in};
pub use node_routers::nodes_as_routers;
pub use outline::{EntryPlace, ListLayout, NodePlace, Outline, outline};
pub use positions::Positions;
pub use problem::{ConfigError, InvalidConfig, Related};
pub use schema::{schema, schema_text};
pub use source::Position;
pub use untyped::{NotYaml, YamlDocument, machine_address, prefix, yaml_documents};
pub use warnings::{ipv6_pod_gateways, is_ipv6_pod_gateway, warnings};

use crate::diagnose::Rule;
use crate::model::{Cluster, ConfigPath};
use crate::progress::Task;
use capped::Capped;
use places::Places;
use problem::{ErrorSpots, Location, Problem};
use receivers::{Drafts, SpotFinder};
use split::SplitList;
use structure::{StructureCheck, StructureReport};
use tree::{Parsed, TreeNode};
use validate::validate;

/// A configuration that was read and found valid.
#[derive(Debug, Clone)]
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
        let shared = load_split(&document, Some(later));
        shared.map_or_else(|| load(&document), Ok).map(|cluster| Self { document, cluster })
    }
}

/// Parses and validates a configuration.
///
/// # Errors
/// Returns every error in the configuration.
pub fn load(document: &Document) -> Result<Cluster, InvalidConfig> {
    let _task = Task::begin(format!("reading {}", document.name()));
    load_valid(document).map_or_else(|| diagnose(document), Ok)
}

/// More keys than a valid configuration has at the top.
const MOST_KEYS: usize = 100;

/// Reads a configuration. Returns `None` if there is any error.
fn load_valid(document: &Document) -> Option<Cluster> {
    let mut drafts = Drafts::with_room(document.text().len());
    let parsed = match document.parse_plain(&mut drafts) {
        Some(parsed) => parsed,
        None => {
            drop(drafts);
            if let Some(cluster) = load_split(document, None) {
                return Some(cluster);
            }
            drafts = Drafts::with_room(document.text().len());
            document.parse_any(&mut drafts).ok()?
        }
    };
    // A configuration that is certainly invalid needs no places, which take memory in addition to the tree.
    if drafts.rejected || !parsed.errors.is_empty() || parsed.root.keys() > MOST_KEYS {
        return None;
    }
    let mut places = std::mem::take(&mut drafts.places);
    places.add(&parsed.root);
    let is_plain = parsed.is_plain;
    let cluster = finish(parsed, drafts)?;
    document.set_places(places, is_plain);
    Some(cluster)
}

/// Validates a configuration whose nodes are drafted. Returns `None` if there is any error.
fn finish(parsed: Parsed<'_>, drafts: Drafts<'_>) -> Option<Cluster> {
    (parsed.errors.is_empty() && !drafts.rejected).then_some(())?;
    let raw = drafts.complete(parsed.root).ok()?;
    validate(raw, &HashSet::new()).ok()
}

/// Reads a YAML configuration whose list of nodes is written plainly, and takes the nodes that are written as in `similar`
/// from there. Returns `None` if it is written in another way, or for any error.
fn load_split(document: &Document, similar: Option<&Loaded>) -> Option<Cluster> {
    let list = SplitList::new(document)?;
    let similar = similar.and_then(|similar| Some((similar, similar.document.plain_places()?)));
    let shared = match similar {
        Some((similar, places)) => list.shared_with(&SplitList::of_nodes(&similar.document, places)?),
        None => vec![None; list.len()],
    };
    // A cluster has at least one node.
    let same = |index: usize| similar.zip(shared[index].filter(|_| index > 0));
    let mut own = Drafts::default();
    let mut places = similar.map_or_else(Places::default, |(_, places)| Places::like(places));
    for index in 0..list.len() {
        if let Some(((_, known), same)) = same(index) {
            places.add_from(known, same, list.start(index)?);
        } else {
            let node = list.node(index)?;
            places.add(&node);
            own.add(node);
            if own.rejected {
                return None;
            }
        }
    }
    let rest = list.rest();
    let mut parsed = plain::parse(&rest, None).ok().map_or_else(|| yaml::parse(&rest, None).ok(), Some)?;
    parsed.root.insert_nodes()?;
    places.add(&parsed.root);
    places.insert_list(list.region(), list.position());
    let mut cluster = finish(parsed, own)?;
    document.set_places(places, true);
    if similar.is_none() {
        return Some(cluster);
    }
    let mut own = std::mem::take(&mut cluster.nodes).into_iter();
    let mut node = |index: usize| match same(index) {
        Some(((similar, _), same)) => similar.cluster.nodes.get(same).cloned(),
        None => own.next(),
    };
    // Allocated once: a list that grows would need memory for itself twice.
    let mut nodes = Vec::with_capacity(list.len());
    for index in 0..list.len() {
        nodes.push(node(index)?);
    }
    cluster.nodes = nodes;
    Some(cluster)
}

/// Reads a configuration that has an error, and finds all of them.
fn diagnose(document: &Document) -> Result<Cluster, InvalidConfig> {
    let source = document.source();
    let mut drafts = Drafts::checked(StructureCheck::new(&source, document.format()));
    let mut problems = match document.parse(&mut drafts) {
        Ok(parsed) => {
            let mut problems = parsed.errors.map(Problem::from);
            match check(parsed.root, drafts) {
                Ok(cluster) if problems.is_empty() => return Ok(cluster),
                Ok(_) => {}
                Err(more) => problems.extend(more),
            }
            problems
        }
        Err(error) => Problem::from(error).into(),
    };
    if problems.is_empty() {
        let message = "the configuration is incomplete".to_owned();
        problems.push(Problem::new(Rule::Syntax, message, Location::value(ConfigPath::root())));
    }
    let mut finder = SpotFinder::new(problems.items());
    let is_located = finder.is_empty();
    let spots = match (!is_located).then(|| document.parse(&mut finder)) {
        Some(Ok(parsed)) => finder.finish(&parsed.root),
        Some(Err(_)) | None => ErrorSpots::new(),
    };
    Err(InvalidConfig::new(document.name(), source, &spots, problems))
}

/// Checks the structure of a tree, then validates what is left of it.
fn check(mut root: TreeNode<'_>, mut drafts: Drafts<'_>) -> Result<Cluster, Capped<Problem>> {
    let StructureReport { mut problems, reported } = drafts.finish_check(&mut root);
    // The report is full, and not every invalid path is known: validation could report them twice.
    if problems.is_truncated() {
        return Err(problems);
    }
    // Whatever the walk leaves fits the raw types, unless the root is not a mapping.
    let Ok(raw) = drafts.complete(root) else { return Err(problems) };
    match validate(raw, &reported) {
        Ok(cluster) if problems.is_empty() => Ok(cluster),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

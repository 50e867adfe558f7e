//! Reads YAML and TOML as JSON, without a schema: the output of other programs, and configurations key by key.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Map, Value as Json};

use super::{
    document::Document,
    parse,
    source::{Position, Source},
    tree::{NODES, NodeReceiver, SyntaxError, TreeNode, Value},
    yaml,
};
use crate::text::{Untrusted, shortened};

/// A document of a YAML text.
#[derive(Debug)]
pub struct YamlDocument<T> {
    /// The configuration without the list of nodes.
    pub head: Json,
    /// The items of the list.
    pub items: Vec<T>,
}

/// The reason that a text is not YAML. Prints as a sentence without a period.
#[derive(Debug)]
pub struct NotYaml {
    message: String,
    position: Position,
}

impl fmt::Display for NotYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        write!(f, "{} (line {line}, column {column})", self.message)
    }
}

/// Reads every document of a YAML text. The items of the list with the key `list` at the top of a document are converted
/// one by one, so that the whole text is never in memory as a tree.
///
/// # Errors
/// Returns the first syntax error, duplicate key, or exceeded limit.
pub fn yaml_documents<T>(
    text: &str,
    list: &'static str,
    convert: impl Fn(Json) -> T,
) -> Result<Vec<YamlDocument<T>>, NotYaml> {
    let located = |error: SyntaxError| NotYaml {
        position: Source::new(text.into()).position(error.span.start),
        message: error.message,
    };
    let documents = yaml::parse_documents(text, || ItemReader::new(list, &convert)).map_err(located)?;
    let read = |(reader, root): (ItemReader<'_, T>, TreeNode<'_>)| {
        let head = json(root);
        let head = reader.duplicate.map_or(head, Err);
        head.map(|head| YamlDocument { head, items: reader.items }).map_err(|Duplicate { key, at }| NotYaml {
            message: format!("invalid YAML: duplicate key {key:?}"),
            position: Source::new(text.into()).position(at),
        })
    };
    documents.into_iter().map(read).collect()
}

/// Converts the items of a list.
struct ItemReader<'c, T> {
    list: &'static str,
    convert: &'c dyn Fn(Json) -> T,
    items: Vec<T>,
    /// The first duplicate key in an item.
    duplicate: Option<Duplicate>,
}

/// A key that its mapping already has, with its position.
struct Duplicate {
    key: Untrusted,
    at: usize,
}

impl<'c, T> ItemReader<'c, T> {
    fn new(list: &'static str, convert: &'c dyn Fn(Json) -> T) -> Self {
        Self { list, convert, items: Vec::new(), duplicate: None }
    }
}

impl<'a, T> NodeReceiver<'a> for ItemReader<'_, T> {
    fn list_key(&self) -> &'static str {
        self.list
    }

    fn node(&mut self, node: TreeNode<'a>) {
        match json(node) {
            Ok(item) => self.items.push((self.convert)(item)),
            Err(duplicate) => {
                self.duplicate.get_or_insert(duplicate);
            }
        }
    }

    fn restart(&mut self) {
        self.items.clear();
        self.duplicate = None;
    }
}

impl Document {
    /// Returns the configuration as JSON, whatever it is written in. Returns `None` if it is not valid.
    #[must_use]
    pub fn json(&self) -> Option<Json> {
        let convert = |node| node;
        let mut nodes = ItemReader::new(NODES, &convert);
        let parsed = self.parse(&mut nodes).ok()?;
        let are_here = matches!(parsed.root.nodes().map(|nodes| &nodes.value), Some(Value::Nodes));
        let is_valid = parsed.errors.is_empty() && nodes.duplicate.is_none();
        let mut root = json(parsed.root).ok().filter(|_| is_valid)?;
        if are_here {
            root.as_object_mut()?.insert(NODES.to_owned(), nodes.items.into());
        }
        Some(root)
    }
}

/// Converts a tree. A value of another type than those of a configuration, such as a number with a fraction, becomes an empty
/// object: it is there, but it is nothing that could be meant.
fn json(node: TreeNode<'_>) -> Result<Json, Duplicate> {
    Ok(match node.value {
        Value::Null | Value::Invalid | Value::Ignored | Value::Nodes => Json::Null,
        Value::Other(_) => Json::Object(Map::new()),
        Value::Flag(flag) => flag.into(),
        Value::Integer(number) => number.into(),
        Value::Text(text) => text.into_owned().into(),
        Value::List(items) => Json::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Value::Map(mapping) => {
            if let Some(duplicate) = mapping.first_duplicate() {
                let key = shortened(&duplicate.key).into();
                return Err(Duplicate { key, at: duplicate.span.start });
            }
            let entries = mapping.entries.into_iter();
            Json::Object(
                entries
                    .map(|entry| Ok((entry.key.into_owned(), json(entry.node)?)))
                    .collect::<Result<_, _>>()?,
            )
        }
    })
}

/// Parses the address of a machine by the rules of a configuration.
///
/// # Errors
/// Returns what is wrong, as a sentence without a period.
pub fn machine_address(text: &str) -> Result<IpAddr, String> {
    parse::address(text).map_err(|error| error.message)
}

/// Parses a prefix by the rules of a configuration.
///
/// # Errors
/// Returns what is wrong, as a sentence without a period.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    parse::prefix(text).map_err(|error| error.message)
}

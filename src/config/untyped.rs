//! Reads YAML and TOML as JSON, without a schema: the output of other programs, and configurations key by key.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value as Json;

use super::{
    document::Document,
    parse,
    source::{Position, Source},
    tree::{NODES, NodeReceiver, SyntaxError, TreeNode, Value},
    yaml,
};

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
        head.map(|head| YamlDocument { head, items: reader.items })
            .filter(|_| !reader.has_duplicates)
            .ok_or_else(|| NotYaml {
                message: "invalid YAML: duplicate key".to_owned(),
                position: Position { line: 1, column: 1 },
            })
    };
    documents.into_iter().map(read).collect()
}

/// Converts the items of a list.
struct ItemReader<'c, T> {
    list: &'static str,
    convert: &'c dyn Fn(Json) -> T,
    items: Vec<T>,
    has_duplicates: bool,
}

impl<'c, T> ItemReader<'c, T> {
    fn new(list: &'static str, convert: &'c dyn Fn(Json) -> T) -> Self {
        Self { list, convert, items: Vec::new(), has_duplicates: false }
    }
}

impl<'a, T> NodeReceiver<'a> for ItemReader<'_, T> {
    fn list_key(&self) -> &'static str {
        self.list
    }

    fn node(&mut self, node: TreeNode<'a>) {
        match json(node) {
            Some(item) => self.items.push((self.convert)(item)),
            None => self.has_duplicates = true,
        }
    }

    fn restart(&mut self) {
        self.items.clear();
        self.has_duplicates = false;
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
        let mut root = json(parsed.root).filter(|_| parsed.errors.is_empty() && !nodes.has_duplicates)?;
        if are_here {
            root.as_object_mut()?.insert(NODES.to_owned(), nodes.items.into());
        }
        Some(root)
    }
}

/// Converts a tree. A value that JSON does not have becomes null. Returns `None` for a duplicate key.
fn json(node: TreeNode<'_>) -> Option<Json> {
    Some(match node.value {
        Value::Null | Value::Invalid | Value::Ignored | Value::Nodes | Value::Other(_) => Json::Null,
        Value::Flag(flag) => flag.into(),
        Value::Integer(number) => number.into(),
        Value::Text(text) => text.into_owned().into(),
        Value::List(items) => Json::Array(items.into_iter().map(json).collect::<Option<_>>()?),
        Value::Map(mapping) if mapping.has_duplicates() => return None,
        Value::Map(mapping) => {
            let entries = mapping.entries.into_iter();
            Json::Object(
                entries
                    .map(|entry| Some((entry.key.into_owned(), json(entry.node)?)))
                    .collect::<Option<_>>()?,
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

//! Reads the nodes of a cluster from the output of kubectl.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json};

use super::node::ListedNode;
use crate::{
    config,
    diagnose::{Diagnostic, Rule},
    text::{Untrusted, list, shortened},
};

/// The command that lists the nodes.
const HOW: &str = "run `kubectl get nodes -o json | hostgw import`";

/// The nodes of a list.
#[derive(Debug, Default)]
pub struct NodeList {
    pub(super) nodes: Vec<ListedNode>,
    /// The kinds of the other objects in the list.
    pub(super) other_kinds: Vec<String>,
}

/// An object of a list.
#[derive(Debug)]
enum ListedObject {
    Node(Box<ListedNode>),
    /// An object of another kind.
    Other(String),
}

impl ListedObject {
    /// Reads an item of a list of nodes, which may lack `kind`.
    fn new(item: &Json) -> Self {
        if !item.is_object() {
            return Self::Other(kind_of_value(item).to_owned());
        }
        match kind(item) {
            None => Self::Node(ListedNode::new(item).into()),
            Some(kind) if is_core(item) && kind == "Node" => Self::Node(ListedNode::new(item).into()),
            Some(kind) => Self::Other(qualified(item, kind)),
        }
    }
}

/// Returns the kind of an object, if it has one.
fn kind(object: &Json) -> Option<&str> {
    object["kind"].as_str()
}

/// Returns `true` unless the object belongs to another API than the one with the nodes.
fn is_core(object: &Json) -> bool {
    object["apiVersion"].as_str().is_none_or(|version| version == "v1")
}

/// The kind of an object, with its API if that is not the one of nodes.
fn qualified(object: &Json, kind: &str) -> String {
    match object["apiVersion"].as_str() {
        Some(version) if !is_core(object) => format!("{kind} ({version})"),
        _ => kind.to_owned(),
    }
}

const fn kind_of_value(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// A document of the input.
struct KubeDocument {
    /// The document, with null in place of `items`.
    head: Json,
    items: Vec<ListedObject>,
}

impl NodeList {
    /// Reads every document of the output of kubectl, as JSON or YAML: lists, single nodes, or both.
    ///
    /// # Errors
    /// Returns why there is no node in it.
    pub fn read(text: &str) -> Result<Self, Diagnostic> {
        let mut found = Self::default();
        for document in documents(text.strip_prefix('\u{feff}').unwrap_or(text))? {
            found.add(document)?;
        }
        if !found.nodes.is_empty() {
            return Ok(found);
        }
        found.other_kinds.sort();
        found.other_kinds.dedup();
        let message = if found.other_kinds.is_empty() {
            "the list contains no nodes".to_owned()
        } else {
            let kinds: Vec<Untrusted> = found.other_kinds.iter().map(|kind| shortened(kind).into()).collect();
            format!("expected nodes, found: {}", list(&kinds, 5))
        };
        Err(not_nodes(message))
    }

    /// The number of nodes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns `true` if there are no nodes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn add(&mut self, KubeDocument { head, items }: KubeDocument) -> Result<(), Diagnostic> {
        match &head {
            Json::Null if items.is_empty() => {}
            // A list without its head.
            Json::Null | Json::Array(_) => self.add_items(items),
            Json::Object(keys) => match kind(&head) {
                Some("Status") => {
                    let message = head["message"].as_str().unwrap_or("no message");
                    let message: Untrusted = message.into();
                    return Err(not_nodes(format!("the API server returned an error: {message}"))
                        .with_remedy("check the access with `kubectl auth can-i list nodes`"));
                }
                Some("List" | "NodeList") | None if keys.contains_key("items") && is_core(&head) => {
                    if !head["items"].is_null() {
                        return Err(not_nodes("items is not a list".to_owned()));
                    }
                    self.add_items(items);
                }
                Some("Node") if is_core(&head) => self.nodes.push(ListedNode::new(&head)),
                Some(kind) => self.other_kinds.push(qualified(&head, kind)),
                None if keys.contains_key("metadata")
                    && (keys.contains_key("spec") || keys.contains_key("status")) =>
                {
                    self.nodes.push(ListedNode::new(&head));
                }
                None if keys.contains_key("clusterPrefix") => {
                    return Err(not_nodes("this is a hostgw configuration, not a list of nodes".to_owned()));
                }
                None => self.other_kinds.push("an object without kind".to_owned()),
            },
            Json::String(text) if text.trim_start().starts_with("NAME ") => {
                return Err(not_nodes(
                    "expected JSON or YAML, found the table that kubectl prints by default".to_owned(),
                ));
            }
            other => self.other_kinds.push(kind_of_value(other).to_owned()),
        }
        Ok(())
    }

    fn add_items(&mut self, items: Vec<ListedObject>) {
        for item in items {
            match item {
                ListedObject::Node(node) => self.nodes.push(*node),
                ListedObject::Other(kind) => self.other_kinds.push(kind),
            }
        }
    }
}

fn not_nodes(message: String) -> Diagnostic {
    Diagnostic::new(Rule::NotNodes, message).with_remedy(HOW)
}

/// Reads JSON if the text starts with a brace or a bracket, and YAML otherwise.
fn documents(text: &str) -> Result<Vec<KubeDocument>, Diagnostic> {
    if text.trim().is_empty() {
        return Err(not_nodes("the list of nodes is empty".to_owned())
            .with_remedy("check that kubectl succeeded: its messages go to standard error"));
    }
    let json_error = if text.trim_start().starts_with(['{', '[']) {
        let documents = serde_json::Deserializer::from_str(text).into_iter().collect();
        match documents {
            Ok(documents) => return Ok(documents),
            Err(error) => Some(format!("invalid JSON: {error}")),
        }
    } else {
        None
    };
    let convert = |item: Json| ListedObject::new(&item);
    match config::yaml_documents(text, "items", convert) {
        Ok(documents) => Ok(documents.into_iter().map(KubeDocument::from).collect()),
        Err(error) => Err(not_nodes(json_error.unwrap_or_else(|| error.to_string()))),
    }
}

impl From<config::YamlDocument<ListedObject>> for KubeDocument {
    fn from(document: config::YamlDocument<ListedObject>) -> Self {
        let config::YamlDocument { mut head, mut items } = document;
        // A list without its head, or with an anchor.
        let rest = match &mut head {
            Json::Array(rest) => Some(rest),
            Json::Object(keys) => keys.get_mut("items").and_then(Json::as_array_mut),
            _ => None,
        };
        if let Some(rest) = rest {
            items.extend(std::mem::take(rest).iter().map(ListedObject::new));
        }
        if head["items"].is_array() {
            head["items"] = Json::Null;
        }
        Self { head, items }
    }
}

/// Reads a document with one item in memory at a time: the status of a node is long, and little of it matters.
impl<'de> Deserialize<'de> for KubeDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = KubeDocument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KubeDocument, A::Error> {
        let (mut head, mut items) = (Map::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            if key != "items" {
                head.insert(key, map.next_value()?);
                continue;
            }
            let found = map.next_value()?;
            head.insert(key, if let ItemList::Other = found { Json::Bool(false) } else { Json::Null });
            if let ItemList::Items(found) = found {
                items.extend(found);
            }
        }
        Ok(KubeDocument { head: head.into(), items })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<KubeDocument, A::Error> {
        Ok(KubeDocument { head: Json::Array(Vec::new()), items: read_items(list)? })
    }
}

/// The value of `items`.
enum ItemList {
    Items(Vec<ListedObject>),
    Other,
}

impl<'de> Deserialize<'de> for ItemList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = ItemList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ItemList, A::Error> {
        read_items(list).map(ItemList::Items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ItemList, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(ItemList::Other)
    }

    fn visit_unit<E>(self) -> Result<ItemList, E> {
        Ok(ItemList::Items(Vec::new()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<ItemList, E> {
        Ok(ItemList::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<ItemList, E> {
        Ok(ItemList::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<ItemList, E> {
        Ok(ItemList::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<ItemList, E> {
        Ok(ItemList::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<ItemList, E> {
        Ok(ItemList::Other)
    }
}

fn read_items<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<ListedObject>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = list.next_element::<Json>()? {
        items.push(ListedObject::new(&item));
    }
    Ok(items)
}

//! Reads the nodes of a cluster from the output of kubectl.

use std::{
    cell::Cell,
    fmt,
    io::{self, BufReader, Read},
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json};

use super::node::ListedNode;
use crate::{
    config,
    diagnose::{Diagnostic, Rule},
    text::{JsonError, OsError, Untrusted, list, shortened},
};

/// The command that lists the nodes.
const HOW: &str = "run `kubectl get nodes -o json | hostgw import`";

/// What to do about a list that is incomplete.
const WHOLE: &str = "list all nodes: `kubectl get nodes -o json` requests every page";

/// The nodes of a list.
#[derive(Debug, Default)]
pub struct NodeList {
    pub(super) nodes: Vec<ListedNode>,
    /// The kinds of the other objects in the list.
    pub(super) other_kinds: Vec<String>,
    /// The rest of the list, if the API server returned it in pages, and the last page is not there.
    rest: Option<MissingPages>,
}

/// The nodes on the pages that follow a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MissingPages {
    /// The number of nodes, if the API server estimated it.
    nodes: Option<u64>,
}

/// An object of a list.
#[derive(Debug)]
enum ListedObject {
    Node(Box<ListedNode>),
    /// A list inside the list.
    List(KubeDocument),
    /// An object of another kind.
    Other(String),
}

impl ListedObject {
    /// Reads an item of a list of nodes, which may lack `kind`.
    fn new(item: Json) -> Self {
        let Json::Object(keys) = &item else { return Self::Other(kind_of_value(&item).to_owned()) };
        match kind(&item) {
            Some("List" | "NodeList") | None if keys.contains_key("items") => {
                Self::List(KubeDocument::of(item, Vec::new()))
            }
            None => Self::Node(ListedNode::new(&item).into()),
            Some("Node") if is_core(&item) => Self::Node(ListedNode::new(&item).into()),
            Some(kind) => Self::Other(qualified(&item, kind)),
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

/// Returns `true` if a document is a node, which may lack `kind`.
fn is_node(document: &Json) -> bool {
    let Json::Object(keys) = document else { return false };
    let has = |key: &str| keys.contains_key(key);
    match kind(document) {
        Some(kind) => kind == "Node" && is_core(document),
        None => has("metadata") && (has("spec") || has("status")) && !(has("items") && is_core(document)),
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
#[derive(Debug)]
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
        // In JSON, a list without its end is invalid.
        Self::of(documents(text)?, !is_json(text.as_bytes()))
    }

    /// Reads the output of kubectl as JSON, of any size: only one object at a time is in memory as a whole.
    ///
    /// # Errors
    /// Returns why there is no node in it.
    pub fn read_json(reader: impl Read) -> Result<Self, Diagnostic> {
        let meter = Meter::default();
        let mut reader = BufReader::with_capacity(1 << 16, Metered { reader, meter: &meter });
        skip_mark(&mut reader)
            .map_err(|error| not_nodes(format!("the list cannot be read: {}", OsError(&error))))?;
        let read = json_documents_of(reader, &meter);
        let documents = read.map_err(|error| {
            not_nodes(match error.is_io() {
                true => format!("the list cannot be read: {}", OsError(&error.into())),
                false => invalid_json(&error),
            })
        })?;
        Self::of(documents, false)
    }

    /// Collects the nodes of documents. `is_block` says whether they are in the block style of YAML.
    fn of(documents: Vec<KubeDocument>, is_block: bool) -> Result<Self, Diagnostic> {
        let mut found = Self::default();
        for document in documents {
            if is_block && document.is_cut_off() {
                return Err(not_nodes(
                    "the list is cut off: it lacks `kind` and `metadata`, which kubectl prints after the nodes"
                        .to_owned(),
                )
                .with_remedy("save the whole output of kubectl, or pipe it: `kubectl get nodes -o json | hostgw import`"));
            }
            found.add(document)?;
        }
        if let Some(MissingPages { nodes }) = found.rest {
            let more = nodes.map_or_else(|| "more nodes".to_owned(), |nodes| format!("{nodes} more nodes"));
            return Err(not_nodes(format!(
                "the list is incomplete: it is one page of a paginated API response, and {more} are on the next one"
            ))
            .with_remedy(WHOLE));
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
            Json::Null | Json::Array(_) => self.add_items(items)?,
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
                    self.turn_page(&head["metadata"], items.len());
                    self.add_items(items)?;
                }
                _ if is_node(&head) => self.nodes.push(ListedNode::new(&head)),
                Some(kind) => self.other_kinds.push(qualified(&head, kind)),
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

    fn add_items(&mut self, items: Vec<ListedObject>) -> Result<(), Diagnostic> {
        for item in items {
            match item {
                ListedObject::Node(node) => self.nodes.push(*node),
                ListedObject::List(list) => self.add(list)?,
                ListedObject::Other(kind) => self.other_kinds.push(kind),
            }
        }
        Ok(())
    }

    /// Takes note of whether pages are missing after the one with this metadata and this number of items.
    fn turn_page(&mut self, metadata: &Json, items: usize) {
        let remaining = metadata["remainingItemCount"].as_u64().filter(|number| *number > 0);
        let is_continued = metadata["continue"].as_str().is_some_and(|token| !token.is_empty());
        self.rest = match self.rest {
            _ if is_continued || remaining.is_some() => Some(MissingPages { nodes: remaining }),
            // This page may be one of those that are missing.
            Some(MissingPages { nodes: Some(nodes) }) => {
                let nodes = nodes.saturating_sub(items as u64);
                (nodes > 0).then_some(MissingPages { nodes: Some(nodes) })
            }
            Some(MissingPages { nodes: None }) | None => None,
        };
    }

    /// Returns a warning about the objects that are not nodes.
    pub(super) fn others(&self) -> Option<Diagnostic> {
        let mut kinds: Vec<Untrusted> = self.other_kinds.iter().map(|kind| shortened(kind).into()).collect();
        kinds.sort();
        kinds.dedup();
        let kinds_text = list(&kinds, 5);
        let (message, whose) = match self.other_kinds.len() {
            1 => (
                format!(
                    "the list also contains an object that is not a node, which is ignored: {kinds_text}"
                ),
                "it",
            ),
            some => (
                format!(
                    "the list also contains {some} objects that are not nodes, which are ignored: {kinds_text}"
                ),
                "one of them",
            ),
        };
        let remedy = format!("if {whose} is a node, its `kind` must be Node and its `apiVersion` v1");
        (!kinds.is_empty()).then(|| Diagnostic::new(Rule::OtherObjects, message).with_remedy(remedy))
    }
}

impl KubeDocument {
    /// Returns a document of which some `items` were read already.
    fn of(mut head: Json, mut items: Vec<ListedObject>) -> Self {
        // A list without its head, or with an anchor.
        let rest = match &mut head {
            Json::Array(rest) => Some(rest),
            Json::Object(keys) => keys.get_mut("items").and_then(Json::as_array_mut),
            _ => None,
        };
        if let Some(rest) = rest {
            items.extend(std::mem::take(rest).into_iter().map(ListedObject::new));
        }
        if head["items"].is_array() {
            head["items"] = Json::Null;
        }
        Self { head, items }
    }

    /// Returns the document with little more in memory than hostgw needs: a node is long.
    fn reduced(self) -> Self {
        match is_node(&self.head) {
            true => Self {
                head: Json::Array(Vec::new()),
                items: vec![ListedObject::Node(ListedNode::new(&self.head).into())],
            },
            false => self,
        }
    }

    /// Returns `true` if the document begins like the output of kubectl, but lacks the end. Other programs leave out
    /// `apiVersion` as well.
    fn is_cut_off(&self) -> bool {
        let Json::Object(keys) = &self.head else { return false };
        let has = |key: &str| keys.contains_key(key);
        has("apiVersion") && has("items") && !has("kind") && !has("metadata")
    }
}

fn not_nodes(message: String) -> Diagnostic {
    Diagnostic::new(Rule::NotNodes, message).with_remedy(HOW)
}

fn invalid_json(error: &serde_json::Error) -> String {
    let error = JsonError(error);
    let what = if error.is_too_deep() { "the list is" } else { "invalid JSON:" };
    format!("{what} {error}")
}

/// Reads JSON if the text starts with a brace or a bracket, and YAML otherwise.
fn documents(text: &str) -> Result<Vec<KubeDocument>, Diagnostic> {
    if text.trim().is_empty() {
        return Err(not_nodes("the list of nodes is empty".to_owned())
            .with_remedy("check that kubectl succeeded: its messages go to standard error"));
    }
    let json_error = if is_json(text.as_bytes()) {
        match json_documents(text) {
            Ok(documents) => return Ok(documents),
            Err(error) => Some(invalid_json(&error)),
        }
    } else {
        None
    };
    match config::yaml_documents(text, "items", |item| ListedObject::new(merged(item))) {
        Ok(documents) => Ok(documents.into_iter().map(KubeDocument::from).collect()),
        Err(error) => Err(not_nodes(json_error.unwrap_or_else(|| error.to_string()))),
    }
}

impl From<config::YamlDocument<ListedObject>> for KubeDocument {
    fn from(document: config::YamlDocument<ListedObject>) -> Self {
        let config::YamlDocument { head, items } = document;
        Self::of(merged(head), items)
    }
}

/// Resolves the merge keys of YAML 1.1 (`<<`), as the libraries of Kubernetes do: the keys of the mapping itself come first, and
/// then those of each merged mapping that are still missing.
fn merged(value: Json) -> Json {
    const MERGE: &str = "<<";
    match value {
        Json::Array(items) => items.into_iter().map(merged).collect(),
        Json::Object(entries) => {
            let mut entries: Map<String, Json> =
                entries.into_iter().map(|(key, value)| (key, merged(value))).collect();
            let mappings = match entries.remove(MERGE) {
                None => return Json::Object(entries),
                Some(Json::Array(mappings)) => mappings,
                Some(mapping) => vec![mapping],
            };
            for mapping in mappings {
                let Json::Object(mapping) = mapping else { continue };
                for (key, value) in mapping {
                    entries.entry(key).or_insert(value);
                }
            }
            Json::Object(entries)
        }
        scalar => scalar,
    }
}

/// Whether a text begins like JSON.
pub fn is_json(text: &[u8]) -> bool {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// The byte order mark, in UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

fn skip_mark(reader: &mut impl io::BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    Ok(())
}

/// Limits what a list can take in memory.
#[derive(Debug, Default)]
struct Meter {
    /// The number of bytes since the last object began.
    bytes: Cell<usize>,
    objects: Cell<usize>,
}

impl Meter {
    /// The maximum size of an object. Kubernetes stores at most 1.5 MiB of it.
    const MAX_BYTES: usize = 16 << 20;
    const MAX_OBJECTS: usize = 1_000_000;

    fn begin_object<E: serde::de::Error>(&self) -> Result<(), E> {
        self.bytes.set(0);
        self.count(1)
    }

    /// Takes note of the end of a document, which is an object, too, with `more` objects that were not counted yet.
    fn end_document<E: serde::de::Error>(&self, more: usize) -> Result<(), E> {
        self.bytes.set(0);
        self.count(1 + more)
    }

    fn count<E: serde::de::Error>(&self, more: usize) -> Result<(), E> {
        self.objects.set(self.objects.get() + more);
        match self.objects.get() > Self::MAX_OBJECTS {
            true => Err(E::custom("the list has more than 1,000,000 objects")),
            false => Ok(()),
        }
    }
}

/// A reader that counts bytes.
struct Metered<'m, R> {
    reader: R,
    meter: &'m Meter,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let bytes = self.meter.bytes.get() + count;
        self.meter.bytes.set(bytes);
        if bytes > Meter::MAX_BYTES {
            return Err(io::Error::other("an object in it is larger than 16 MiB"));
        }
        Ok(count)
    }
}

/// Reads every document of a JSON text.
fn json_documents(text: &str) -> serde_json::Result<Vec<KubeDocument>> {
    let meter = Meter::default();
    let mut documents = Vec::new();
    // `Deserializer::end` would count the lines before each document.
    for document in serde_json::Deserializer::from_str(text).into_iter::<TextDocument>() {
        let TextDocument { document, objects } = document?;
        meter.end_document(objects)?;
        documents.push(document.reduced());
    }
    Ok(documents)
}

/// Reads every document of JSON, with one object at a time in memory as a whole.
fn json_documents_of(reader: impl Read, meter: &Meter) -> serde_json::Result<Vec<KubeDocument>> {
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let mut documents = Vec::new();
    while deserializer.end().is_err() {
        let document = DocumentVisitor(meter).deserialize(&mut deserializer)?;
        meter.end_document(0)?;
        documents.push(document.reduced());
    }
    Ok(documents)
}

/// A document of a text that is in memory, with the number of objects in it.
struct TextDocument {
    document: KubeDocument,
    objects: usize,
}

impl<'de> Deserialize<'de> for TextDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let meter = Meter::default();
        let document = DocumentVisitor(&meter).deserialize(deserializer)?;
        Ok(Self { document, objects: meter.objects.get() })
    }
}

/// Reads a document with one item in memory at a time: the status of a node is long, and little of it matters.
struct DocumentVisitor<'m>(&'m Meter);

impl<'de> DeserializeSeed<'de> for DocumentVisitor<'_> {
    type Value = KubeDocument;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<KubeDocument, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DocumentVisitor<'_> {
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
            let found = map.next_value_seed(ItemsVisitor(self.0))?;
            head.insert(key, if let ItemList::Other = found { Json::Bool(false) } else { Json::Null });
            if let ItemList::Items(found) = found {
                items.extend(found);
            }
        }
        Ok(KubeDocument { head: head.into(), items })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<KubeDocument, A::Error> {
        Ok(KubeDocument { head: Json::Array(Vec::new()), items: read_items(list, self.0)? })
    }
}

/// The value of `items`.
enum ItemList {
    Items(Vec<ListedObject>),
    Other,
}

struct ItemsVisitor<'m>(&'m Meter);

impl<'de> DeserializeSeed<'de> for ItemsVisitor<'_> {
    type Value = ItemList;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ItemList, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemsVisitor<'_> {
    type Value = ItemList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ItemList, A::Error> {
        read_items(list, self.0).map(ItemList::Items)
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

fn read_items<'de, A: SeqAccess<'de>>(mut list: A, meter: &Meter) -> Result<Vec<ListedObject>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = list.next_element::<Json>()? {
        meter.begin_object()?;
        items.push(ListedObject::new(item));
    }
    Ok(items)
}

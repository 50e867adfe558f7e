//! Finds every structural error in a tree by walking it along the JSON Schema, and leaves only what the raw types
//! accept.
//!
//! serde stops at the first error and does not know positions; this pass continues. The schema is generated from the
//! same types, so both accept the same files.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use serde_json::Value as Json;

use super::{
    Format,
    capped::Capped,
    problem::{Location, Problem},
    raw::{ADDRESS_PATTERN, PREFIX_PATTERN, PodCidrs},
    source::Source,
    tree::{DuplicateKey, MapEntry, Mapping, NODES, Span, TreeNode, Value},
};
use crate::{
    diagnose::Rule,
    model::{ConfigPath, Segment},
    text::{nearest, shortened},
};

/// The walk skips lists and mappings that are longer than this, if the schema limits their length: every excess item
/// would be reported on its own.
const MAX_WALKED: usize = 1000;

/// The result of a walk.
#[derive(Debug, Default)]
pub(super) struct StructureReport {
    pub problems: Capped<Problem>,
    /// The paths of invalid values, and of keys that are probably present under a misspelled name. Complete unless
    /// some problems were omitted.
    pub reported: HashSet<ConfigPath>,
}

/// Checks a tree, whose nodes are checked one by one before the rest, and replaces every invalid value with
/// [`Value::Invalid`].
pub(super) struct StructureCheck<'s> {
    source: &'s Source,
    format: Format,
    shape: &'static Shape,
    nodes: StructureReport,
}

impl<'s> StructureCheck<'s> {
    pub fn new(source: &'s Source, format: Format) -> Self {
        static SHAPE: LazyLock<Shape> = LazyLock::new(|| compile(&super::schema()));
        Self { source, format, shape: &SHAPE, nodes: StructureReport::default() }
    }

    /// Checks the node at `index`.
    pub fn node(&mut self, node: &mut TreeNode<'_>, index: usize) {
        let Some(shape) = self.shape.iter().find_map(Alternative::nodes) else { return };
        let mut walk =
            Walk { source: self.source, format: self.format, report: &mut self.nodes, nodes: None };
        let span = node.span();
        walk.node(node, shape, &PathChain::Index(&PathChain::Key(&PathChain::Root, NODES), index), &span);
    }

    /// Returns `true` if errors in nodes were omitted, so that nothing will be made of the nodes.
    pub fn is_truncated(&self) -> bool {
        self.nodes.problems.is_truncated()
    }

    /// Forgets all nodes.
    pub fn restart(&mut self) {
        self.nodes = StructureReport::default();
    }

    /// Checks everything but the nodes.
    pub fn finish(self, root: &mut TreeNode<'_>) -> StructureReport {
        let mut report = StructureReport::default();
        let mut walk =
            Walk { source: self.source, format: self.format, report: &mut report, nodes: Some(self.nodes) };
        let span = root.span();
        walk.node(root, self.shape, &PathChain::Root, &span);
        report
    }
}

/// The alternatives that the schema allows for a value.
type Shape = Vec<Alternative>;

enum Alternative {
    Null,
    Flag,
    Text {
        /// Whether any text is allowed, rather than only an address or a prefix.
        free: bool,
        /// The kind of text, in the singular and the plural.
        noun: [&'static str; 2],
        example: Option<String>,
    },
    Keyword(String),
    Integer {
        min: i128,
        max: i128,
    },
    List {
        items: Shape,
        /// Whether the schema limits the number of items.
        bounded: bool,
    },
    Map(MapShape),
}

impl Alternative {
    /// The shape of a node, if this is the shape of a configuration.
    fn nodes(&self) -> Option<&Shape> {
        let Self::Map(map) = self else { return None };
        map.keys.get(NODES)?.shape.iter().find_map(|alternative| match alternative {
            Self::List { items, .. } => Some(items),
            _ => None,
        })
    }
}

struct MapShape {
    keys: BTreeMap<String, Property>,
    required: Vec<String>,
    /// The values of all other keys, if other keys are allowed.
    others: Option<Shape>,
    /// Whether the schema limits the number of keys.
    bounded: bool,
}

struct Property {
    shape: Shape,
    example: Option<Json>,
}

/// Extracts what the walk needs from a JSON Schema. Supports only the schemas that [`super::schema()`] generates.
fn compile(schema: &Json) -> Shape {
    // Branches next to properties only narrow them, and the validator checks those rules.
    if schema["properties"].is_null()
        && let Some(alternatives) = schema["anyOf"].as_array().or(schema["oneOf"].as_array())
    {
        return alternatives.iter().flat_map(compile).collect();
    }
    if let Some(word) = schema["const"].as_str() {
        return vec![Alternative::Keyword(word.to_owned())];
    }
    let types = match &schema["type"] {
        Json::Array(types) => types.iter().collect(),
        one => vec![one],
    };
    types.into_iter().filter_map(|kind| compile_type(kind.as_str()?, schema)).collect()
}

fn compile_type(kind: &str, schema: &Json) -> Option<Alternative> {
    Some(match kind {
        "null" => Alternative::Null,
        "boolean" => Alternative::Flag,
        "string" => Alternative::Text {
            free: schema["pattern"].is_null(),
            noun: noun(schema["pattern"].as_str()),
            example: schema["examples"][0].as_str().map(ToOwned::to_owned),
        },
        "integer" => Alternative::Integer {
            min: schema["minimum"].as_i64().unwrap_or(i64::MIN).into(),
            max: schema["maximum"].as_i64().unwrap_or(i64::MAX).into(),
        },
        "array" => {
            Alternative::List { items: compile(&schema["items"]), bounded: !schema["maxItems"].is_null() }
        }
        "object" => Alternative::Map(compile_map(schema)),
        _ => return None,
    })
}

/// Names the kind of text that a pattern of the schema describes, in the singular and the plural.
fn noun(pattern: Option<&str>) -> [&'static str; 2] {
    match pattern {
        Some(pattern) if pattern == PREFIX_PATTERN => ["a prefix", "prefixes"],
        Some(pattern) if pattern == ADDRESS_PATTERN => ["an address", "addresses"],
        _ => ["a string", "strings"],
    }
}

fn compile_map(schema: &Json) -> MapShape {
    let property = |(key, schema): (&String, &Json)| {
        let property = Property { shape: compile(schema), example: schema["examples"].get(0).cloned() };
        (key.clone(), property)
    };
    let keys = schema["properties"].as_object();
    let required = schema["required"].as_array();
    MapShape {
        keys: keys.into_iter().flatten().map(property).collect(),
        required: required.into_iter().flatten().filter_map(|key| Some(key.as_str()?.to_owned())).collect(),
        others: schema["additionalProperties"].is_object().then(|| compile(&schema["additionalProperties"])),
        bounded: !schema["maxProperties"].is_null(),
    }
}

/// A path as a chain of borrowed segments. Only an error allocates the [`ConfigPath`].
enum PathChain<'a> {
    Root,
    Key(&'a PathChain<'a>, &'a str),
    Index(&'a PathChain<'a>, usize),
}

impl PathChain<'_> {
    fn path(&self) -> ConfigPath {
        match self {
            Self::Root => ConfigPath::root(),
            Self::Key(parent, key) => parent.path().key(*key),
            Self::Index(parent, index) => parent.path().index(*index),
        }
    }
}

struct Walk<'a> {
    source: &'a Source,
    format: Format,
    report: &'a mut StructureReport,
    /// The report on the nodes.
    nodes: Option<StructureReport>,
}

impl Walk<'_> {
    /// Checks a value; an error underlines `place`.
    fn node(&mut self, node: &mut TreeNode<'_>, shape: &Shape, trail: &PathChain<'_>, place: &Span) {
        for alternative in shape {
            match (&mut node.value, alternative) {
                (Value::Null, Alternative::Null)
                | (Value::Flag(_), Alternative::Flag)
                | (Value::Text(_), Alternative::Text { .. }) => return,
                (Value::Text(text), Alternative::Keyword(word)) if **text == *word => return,
                (Value::Integer(number), Alternative::Integer { min, max })
                    if (*min..=*max).contains(&i128::from(*number)) =>
                {
                    return;
                }
                (Value::Nodes, Alternative::List { .. }) => return self.take_nodes(),
                (Value::List(items), Alternative::List { items: shape, bounded }) => {
                    if *bounded && items.len() > MAX_WALKED {
                        return self.too_long(node, trail, place);
                    }
                    for (at, item) in items.iter_mut().enumerate() {
                        let span = item.span();
                        self.node(item, shape, &PathChain::Index(trail, at), &span);
                    }
                    return;
                }
                (Value::Map(mapping), Alternative::Map(shape)) => {
                    if shape.bounded && mapping.entries.len() > MAX_WALKED {
                        return self.too_long(node, trail, place);
                    }
                    return self.mapping(mapping, shape, trail, place);
                }
                _ => {}
            }
        }
        if self.report.problems.is_full() {
            node.value = Value::Invalid;
            return self.report.problems.omit(1);
        }
        let problem = self.wrong_value(node, shape, trail, place);
        self.reject(node, problem);
    }

    /// Reports what was found in the nodes.
    fn take_nodes(&mut self) {
        let nodes = self.nodes.take().unwrap_or_default();
        if !self.report.problems.is_truncated() {
            self.report.reported.extend(nodes.reported);
        }
        self.report.problems.extend(nodes.problems);
    }

    /// Reports a value, and removes it from the tree.
    fn reject(&mut self, node: &mut TreeNode<'_>, problem: Problem) {
        node.value = Value::Invalid;
        self.remember(&problem.location.path);
        self.report.problems.push(problem);
    }

    /// Records that an error at `path` was reported. Once errors are omitted, nothing reads these paths.
    fn remember(&mut self, path: &ConfigPath) {
        if !self.report.problems.is_truncated() {
            self.report.reported.insert(path.clone());
        }
    }

    fn too_long(&mut self, node: &mut TreeNode<'_>, trail: &PathChain<'_>, place: &Span) {
        let (count, what) = match &node.value {
            Value::List(items) => (items.len(), "items"),
            Value::Map(mapping) => (mapping.entries.len(), "keys"),
            _ => return,
        };
        let path = trail.path();
        let message = format!("{path} has too many {what}: {count} (maximum {MAX_WALKED})");
        let problem = Problem::new(Rule::TooMany, message, Location::span(path, self.marked(place)));
        self.reject(node, problem.hint(format!("remove some of the {what}")));
    }

    fn mapping(&mut self, mapping: &mut Mapping<'_>, shape: &MapShape, trail: &PathChain<'_>, place: &Span) {
        let mut misspelled: Vec<&str> = Vec::new();
        let mut unread = 0;
        let count = mapping.entries.len();
        for at in 0..count {
            let entry = &mut mapping.entries[at];
            let known = shape.keys.get(&*entry.key).map(|property| &property.shape);
            if let Some(shape) = known.or(shape.others.as_ref()) {
                let place = entry.place();
                self.node(&mut entry.node, shape, &PathChain::Key(trail, &entry.key), &place);
                continue;
            }
            if self.report.problems.is_full() && count > MAX_WALKED {
                entry.node.value = Value::Ignored;
                self.report.problems.omit(1);
                unread += 1;
                continue;
            }
            let meant = self.unknown_key(entry, shape, trail);
            entry.node.value = Value::Ignored;
            // Reporting a misspelled key as missing too would be redundant.
            misspelled.extend(meant.filter(|meant| mapping.get(meant).is_none()));
        }
        let duplicates = mapping.take_duplicates();
        duplicates.items().iter().for_each(|duplicate| self.duplicate_key(duplicate, trail));
        self.report.problems.omit(duplicates.omitted());
        for key in misspelled.iter().copied() {
            self.remember(&trail.path().key(key));
        }
        let mut missing = Vec::new();
        for key in &shape.required {
            if mapping.get(key).is_none() && !misspelled.contains(&key.as_str()) {
                missing.push(key);
            }
        }
        // Any of the unchecked keys may be one of these under a misspelled name.
        for key in missing.iter().skip(unread) {
            if self.report.problems.is_full() {
                self.report.problems.omit(1);
            } else {
                self.missing_key(key, shape, trail, place);
            }
        }
    }

    /// Reports a key, and returns the key that was most likely meant.
    fn unknown_key<'s>(
        &mut self,
        entry: &MapEntry<'_>,
        shape: &'s MapShape,
        trail: &PathChain<'_>,
    ) -> Option<&'s str> {
        let path = trail.path();
        let key = shortened(&entry.key);
        let mut problem = Problem::new(
            Rule::UnknownKey,
            format!("unknown key {key:?}{}", within(&path)),
            Location::span(path.key(&*key), entry.key_span()),
        );
        let known = || shape.keys.keys().map(String::as_str);
        let meant = nearest(&entry.key, known());
        if &*entry.key == "<<" {
            problem = problem.hint("write the keys out; YAML merge keys are not supported");
        } else if let Some(meant) = meant {
            problem = problem.hint(format!("did you mean {meant}?"));
        } else {
            problem =
                problem.hint(format!("use one of these keys: {}", known().collect::<Vec<_>>().join(", ")));
        }
        self.report.problems.push(problem);
        meant
    }

    fn duplicate_key(&mut self, duplicate: &DuplicateKey<'_>, trail: &PathChain<'_>) {
        // In TOML, the duplicate may be in a table further down, so its path is unknown.
        let key = shortened(&duplicate.key);
        let path = match (self.format, trail) {
            (Format::Toml, _) => ConfigPath::root(),
            (Format::Yaml, trail) => trail.path().key(&*key),
        };
        let message = format!("duplicate key {key:?}");
        let mut problem =
            Problem::new(Rule::DuplicateKey, message, Location::span(path.clone(), duplicate.span.clone()));
        if let Some(first) = &duplicate.first {
            problem = problem.related("first used here", Location::span(path, first.clone()));
        }
        self.report.problems.push(problem.hint("remove one of them"));
    }

    fn missing_key(&mut self, key: &str, shape: &MapShape, trail: &PathChain<'_>, place: &Span) {
        let parent = trail.path();
        let path = parent.key(key);
        self.remember(&path);
        let place = Location::span(path, self.marked(place));
        let mut problem =
            Problem::new(Rule::MissingKey, format!("missing key {key:?}{}", within(&parent)), place);
        let property = shape.keys.get(key);
        let example = property.and_then(|property| property.example.as_ref()).and_then(Json::as_str);
        match (example, property.map(|property| &property.shape)) {
            (Some(example), _) if self.format == Format::Toml => {
                problem = problem.hint(format!("add it, for example `{key} = {example:?}`"));
            }
            (Some(example), _) => problem = problem.hint(format!("add it, for example `{key}: {example}`")),
            (None, Some(shape)) if matches!(shape.first(), Some(Alternative::Keyword(_))) => {
                problem = problem.hint(format!("set it to {}", self.expected(shape)));
            }
            _ => problem = problem.hint("add it; `hostgw help configuration` describes it"),
        }
        self.report.problems.push(problem);
    }

    fn wrong_value(
        &self,
        node: &TreeNode<'_>,
        shape: &Shape,
        trail: &PathChain<'_>,
        place: &Span,
    ) -> Problem {
        let path = trail.path();
        let label =
            if path.segments().is_empty() { "the configuration".to_owned() } else { path.to_string() };
        let mut message = format!("{label}: expected {}, found {}", self.expected(shape), self.found(node));
        let written = shortened(self.source.slice(&node.span()));
        let hint = match &node.value {
            Value::Integer(_) | Value::Other("a number") => match range_of(shape) {
                Some((min, max)) => {
                    message = format!("{label}: expected an integer from {min} to {max}, found {written}");
                    None
                }
                None => quotes(shape, &written).or_else(|| example(shape)),
            },
            Value::Flag(_) | Value::Other("a date or time") => quotes(shape, &written),
            Value::Text(text) => hint_for_text(text, shape),
            Value::Map(mapping) if matches!(path.segments(), [Segment::Key(key), _] if key == "sysctls") => {
                self.hint_for_nested(&path, mapping)
            }
            _ if path.segments().is_empty() => {
                Some("`hostgw help configuration` shows a complete file".to_owned())
            }
            _ => None,
        };
        Problem {
            rule: Rule::WrongValue,
            message,
            location: Location::span(path, self.marked(place)),
            hint,
            related: None,
        }
    }

    /// The span to underline for a value at `place`: the rest of the line if the span is empty.
    fn marked(&self, place: &Span) -> Span {
        if place.is_empty() { self.source.rest_of_line(place.start) } else { place.clone() }
    }

    /// The hint for a sysctl that is written as nested mappings. In TOML, an unquoted key has the same effect.
    fn hint_for_nested(&self, path: &ConfigPath, mut mapping: &Mapping<'_>) -> Option<String> {
        let Some(Segment::Key(first)) = path.segments().last() else { return None };
        let mut key = first.to_string();
        while let Some(entry) = mapping.entries.first() {
            key = format!("{key}.{}", entry.key);
            match &entry.node.value {
                Value::Map(inner) => mapping = inner,
                _ => break,
            }
        }
        let key = shortened(&key);
        Some(match self.format {
            Format::Yaml => format!("write it as a single key: {key}"),
            Format::Toml => format!("quote the key: {key:?}"),
        })
    }

    fn found(&self, node: &TreeNode<'_>) -> String {
        match &node.value {
            Value::Null => "no value".to_owned(),
            Value::Flag(flag) => flag.to_string(),
            Value::Invalid | Value::Ignored => "invalid".to_owned(),
            Value::Text(text) => format!("the string {:?}", shortened(text)),
            Value::Integer(_) | Value::Other("a number") => {
                format!("the number {}", shortened(self.source.slice(&node.span())))
            }
            Value::Other(what) => (*what).to_owned(),
            Value::List(_) | Value::Nodes => "a list".to_owned(),
            Value::Map(_) => self.map_word().to_owned(),
        }
    }

    fn expected(&self, shape: &Shape) -> String {
        let mut words: Vec<String> = shape
            .iter()
            .filter_map(|alternative| {
                Some(match alternative {
                    Alternative::Null => return None,
                    Alternative::Flag => "true or false".to_owned(),
                    Alternative::Text { noun: [one, _], .. } => (*one).to_owned(),
                    // It would read as "nothing".
                    Alternative::Keyword(word) if word == PodCidrs::NONE => format!("the word {word}"),
                    Alternative::Keyword(word) => word.clone(),
                    Alternative::Integer { .. } => "an integer".to_owned(),
                    Alternative::List { items, .. } => match items.first() {
                        Some(Alternative::Map(_)) => format!("a list of {}s", &self.map_word()[2..]),
                        Some(Alternative::Text { noun: [_, many], .. }) => format!("a list of {many}"),
                        _ => "a list".to_owned(),
                    },
                    Alternative::Map(_) => self.map_word().to_owned(),
                })
            })
            .collect();
        match words.pop() {
            Some(last) if words.is_empty() => last,
            Some(last) => format!("{} or {last}", words.join(", ")),
            None => "nothing".to_owned(),
        }
    }

    const fn map_word(&self) -> &'static str {
        match self.format {
            Format::Yaml => "a mapping",
            Format::Toml => "a table",
        }
    }
}

fn within(path: &ConfigPath) -> String {
    if path.segments().is_empty() { String::new() } else { format!(" in {path}") }
}

/// The range of allowed numbers, if a shape allows numbers but not any text.
fn range_of(shape: &Shape) -> Option<(i128, i128)> {
    if takes_any_text(shape) {
        return None;
    }
    shape.iter().find_map(|alternative| match alternative {
        Alternative::Integer { min, max } => Some((*min, *max)),
        _ => None,
    })
}

fn takes_any_text(shape: &Shape) -> bool {
    shape.iter().any(|alternative| matches!(alternative, Alternative::Text { free: true, .. }))
}

fn quotes(shape: &Shape, text: &str) -> Option<String> {
    takes_any_text(shape).then(|| format!("quote it: \"{text}\""))
}

/// The hint for a number where text of a certain form belongs.
fn example(shape: &Shape) -> Option<String> {
    shape.iter().find_map(|alternative| match alternative {
        Alternative::Text { free: false, example: Some(example), .. } => {
            Some(format!("write it as a string, such as {example}"))
        }
        _ => None,
    })
}

fn hint_for_text(text: &str, shape: &Shape) -> Option<String> {
    let words = shape.iter().filter_map(|alternative| match alternative {
        Alternative::Keyword(word) => Some(word.as_str()),
        _ => None,
    });
    if let Some(word) = nearest(text, words) {
        return Some(format!("did you mean {word}?"));
    }
    if shape.iter().any(|alternative| matches!(alternative, Alternative::Flag)) {
        return match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => Some("use true".to_owned()),
            "no" | "off" | "false" => Some("use false".to_owned()),
            _ => None,
        };
    }
    let is_number = text.parse::<i64>().is_ok();
    (is_number && range_of(shape).is_some()).then(|| "remove the quotes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_schema_compiles() {
        fn empty_shapes(shape: &Shape) -> bool {
            shape.is_empty()
                || shape.iter().any(|alternative| match alternative {
                    Alternative::List { items, .. } => empty_shapes(items),
                    Alternative::Map(map) => {
                        map.keys.values().any(|property| empty_shapes(&property.shape))
                            || map.others.as_ref().is_some_and(empty_shapes)
                    }
                    _ => false,
                })
        }
        let schema = crate::config::schema();
        assert!(!empty_shapes(&compile(&schema)));
    }

    #[test]
    fn addresses_and_prefixes_are_named() {
        let schema = crate::config::schema();
        let properties = &schema["properties"];
        assert_eq!(
            noun(properties["nat"]["properties"]["exclude"]["items"]["pattern"].as_str())[0],
            "a prefix"
        );
        assert_eq!(noun(properties["masterAddress"]["pattern"].as_str())[0], "an address");
    }

    #[test]
    fn a_path_chain_prints_from_the_root() {
        let nodes = PathChain::Key(&PathChain::Root, "nodes");
        let node = PathChain::Index(&nodes, 3);
        let path = PathChain::Key(&node, "os").path();
        assert_eq!(path.segments()[1], Segment::Index(3));
        assert_eq!(path.to_string(), "nodes[3].os");
    }
}

//! Finds every structural mistake of a tree by walking it along the JSON Schema, and makes of the rest a
//! value that the raw types take.
//!
//! serde stops at the first mistake and does not know where a value stands; this pass goes on. The
//! schema comes from the same types, so both accept the same files.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value as Json;

use super::{
    Format,
    mistake::{Finding, Place},
    source::Source,
    tree::{Entry, Mapping, Node, Repeated, Span, Value},
};
use crate::{
    model::{ConfigPath, Segment},
    text::{distance, shortened},
};

/// What the walk found out.
pub(super) struct Checked {
    pub findings: Vec<Finding>,
    /// The tree with `null` for every value that is wrong.
    pub pruned: Json,
    /// The places of those values, and of keys that seem to be there under a wrong name.
    pub wrong: HashSet<ConfigPath>,
}

pub(super) fn check(root: &Node, source: &Source, format: Format) -> Checked {
    let schema = super::schema();
    let shape = compile(&schema, &schema);
    let mut walk = Walk { source, format, findings: Vec::new(), wrong: HashSet::new() };
    let pruned = walk.node(root, &shape, &Trail::Root, &root.span);
    Checked { findings: walk.findings, pruned, wrong: walk.wrong }
}

/// What may stand at a place: any of these.
type Shape = Vec<Alternative>;

enum Alternative {
    Null,
    Flag,
    Text {
        /// Any text will do, not only an address or a prefix.
        free: bool,
        example: Option<String>,
    },
    Word(String),
    Integer {
        min: i128,
        max: i128,
    },
    List(Shape),
    Map(MapShape),
}

struct MapShape {
    keys: BTreeMap<String, Property>,
    required: Vec<String>,
    /// What all other keys hold, where they are allowed.
    others: Option<Shape>,
}

struct Property {
    shape: Shape,
    example: Option<Json>,
}

/// Takes out of a JSON Schema what the walk needs, with references resolved. It understands what
/// schemars makes of the raw types, no more; those types are not recursive.
fn compile(schema: &Json, root: &Json) -> Shape {
    if let Some(name) = schema["$ref"].as_str() {
        let target = name.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map(|target| compile(target, root)).unwrap_or_default();
    }
    // Beside a type, they only narrow it: those rules are the validator's.
    if schema["type"].is_null()
        && let Some(alternatives) = schema["anyOf"].as_array().or(schema["oneOf"].as_array())
    {
        return alternatives.iter().flat_map(|alternative| compile(alternative, root)).collect();
    }
    if let Some(word) = schema["const"].as_str() {
        return vec![Alternative::Word(word.to_owned())];
    }
    let types = match &schema["type"] {
        Json::Array(types) => types.iter().collect(),
        one => vec![one],
    };
    types.into_iter().filter_map(|kind| compile_type(kind.as_str()?, schema, root)).collect()
}

fn compile_type(kind: &str, schema: &Json, root: &Json) -> Option<Alternative> {
    Some(match kind {
        "null" => Alternative::Null,
        "boolean" => Alternative::Flag,
        "string" => Alternative::Text {
            free: schema["pattern"].is_null(),
            example: schema["examples"][0].as_str().map(ToOwned::to_owned),
        },
        "integer" => Alternative::Integer {
            min: schema["minimum"].as_i64().unwrap_or(i64::MIN).into(),
            max: schema["maximum"].as_i64().unwrap_or(i64::MAX).into(),
        },
        "array" => Alternative::List(compile(&schema["items"], root)),
        "object" => Alternative::Map(compile_map(schema, root)),
        _ => return None,
    })
}

fn compile_map(schema: &Json, root: &Json) -> MapShape {
    let property = |(key, schema): (&String, &Json)| {
        let property = Property { shape: compile(schema, root), example: schema["examples"].get(0).cloned() };
        (key.clone(), property)
    };
    let keys = schema["properties"].as_object();
    let required = schema["required"].as_array();
    MapShape {
        keys: keys.into_iter().flatten().map(property).collect(),
        required: required.into_iter().flatten().filter_map(|key| Some(key.as_str()?.to_owned())).collect(),
        others: schema["additionalProperties"]
            .is_object()
            .then(|| compile(&schema["additionalProperties"], root)),
    }
}

/// A path that is only spelled out when something is wrong at its end.
enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
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
    findings: Vec<Finding>,
    wrong: HashSet<ConfigPath>,
}

impl Walk<'_> {
    /// Checks a value, which `place` is to be marked for; returns what is good in it.
    fn node(&mut self, node: &Node, shape: &Shape, trail: &Trail<'_>, place: &Span) -> Json {
        for alternative in shape {
            match (&node.value, alternative) {
                (Value::Null, Alternative::Null) => return Json::Null,
                (Value::Flag(flag), Alternative::Flag) => return Json::Bool(*flag),
                (Value::Text(text), Alternative::Text { .. }) => return Json::from(&**text),
                (Value::Text(text), Alternative::Word(word)) if **text == *word => {
                    return Json::from(&**text);
                }
                (Value::Integer(number), Alternative::Integer { min, max })
                    if (min..=max).contains(&number) =>
                {
                    return i64::try_from(*number).map(Json::from).unwrap_or_default();
                }
                (Value::List(items), Alternative::List(shape)) => {
                    let item = |(at, item): (usize, &Node)| {
                        self.node(item, shape, &Trail::Index(trail, at), &item.span)
                    };
                    return items.iter().enumerate().map(item).collect();
                }
                (Value::Map(mapping), Alternative::Map(shape)) => {
                    return self.mapping(mapping, shape, trail, place);
                }
                _ => {}
            }
        }
        let finding = self.wrong_value(node, shape, trail, place);
        self.wrong.insert(finding.place.path.clone());
        self.findings.push(finding);
        Json::Null
    }

    fn mapping(&mut self, mapping: &Mapping, shape: &MapShape, trail: &Trail<'_>, place: &Span) -> Json {
        let mut good = serde_json::Map::new();
        for entry in &mapping.entries {
            let known = shape.keys.get(&*entry.key).map(|property| &property.shape);
            match known.or(shape.others.as_ref()) {
                Some(shape) => {
                    let value = self.node(&entry.node, shape, &Trail::Key(trail, &entry.key), &entry.place());
                    good.insert(entry.key.to_string(), value);
                }
                None => self.unknown_key(entry, mapping, shape, trail),
            }
        }
        for repeated in &mapping.repeated {
            self.repeated_key(repeated, trail);
        }
        for key in &shape.required {
            if mapping.get(key).is_none() && !self.wrong.contains(&trail.path().key(key)) {
                self.missing_key(key, shape, trail, place);
            }
        }
        Json::Object(good)
    }

    fn unknown_key(&mut self, entry: &Entry, mapping: &Mapping, shape: &MapShape, trail: &Trail<'_>) {
        let path = trail.path();
        let mut finding = Finding::new(
            format!("unknown key {:?}{}", entry.key, within(&path)),
            Place::span(path.key(&*entry.key), entry.key_span.clone()),
        );
        let known = || shape.keys.keys().map(String::as_str);
        if &*entry.key == "<<" {
            finding = finding.hint("YAML merge keys are not supported: write the keys out");
        } else if let Some(meant) = closest(&entry.key, known()) {
            finding = finding.hint(format!("did you mean {meant}?"));
            // It would be an echo to say that a misspelt key is missing.
            if mapping.get(meant).is_none() {
                self.wrong.insert(path.key(meant));
            }
        } else {
            finding = finding.hint(format!("the keys here are {}", known().collect::<Vec<_>>().join(", ")));
        }
        self.findings.push(finding);
    }

    fn repeated_key(&mut self, repeated: &Repeated, trail: &Trail<'_>) {
        // Where TOML repeats a key in a table further down, the path is not known.
        let path = match (self.format, trail) {
            (Format::Toml, _) => ConfigPath::root(),
            (Format::Yaml, trail) => trail.path().key(&*repeated.key),
        };
        let message = format!("the key {:?} stands here a second time", repeated.key);
        let mut finding = Finding::new(message, Place::span(path.clone(), repeated.span.clone()));
        if let Some(first) = &repeated.first {
            finding = finding.related("first used here", Place::span(path, first.clone()));
        }
        self.findings.push(finding.hint("remove one of the two"));
    }

    fn missing_key(&mut self, key: &str, shape: &MapShape, trail: &Trail<'_>, place: &Span) {
        let parent = trail.path();
        let path = parent.key(key);
        self.wrong.insert(path.clone());
        let whose =
            if parent.segments().is_empty() { "the configuration".to_owned() } else { parent.to_string() };
        let span = if place.is_empty() { self.source.rest_of_line(place.start) } else { place.clone() };
        let mut finding = Finding::new(format!("{whose} has no {key}"), Place::span(path, span));
        let property = shape.keys.get(key);
        let example = property.and_then(|property| property.example.as_ref()).and_then(Json::as_str);
        match (example, property.map(|property| &property.shape)) {
            (Some(example), _) if self.format == Format::Toml => {
                finding = finding.hint(format!("add it, as in `{key} = {example:?}`"));
            }
            (Some(example), _) => finding = finding.hint(format!("add it, as in `{key}: {example}`")),
            (None, Some(shape)) if matches!(shape.first(), Some(Alternative::Word(_))) => {
                finding = finding.hint(format!("add it: {}", self.expected(shape)));
            }
            _ => {}
        }
        self.findings.push(finding);
    }

    fn wrong_value(&self, node: &Node, shape: &Shape, trail: &Trail<'_>, place: &Span) -> Finding {
        let path = trail.path();
        let label =
            if path.segments().is_empty() { "the configuration".to_owned() } else { path.to_string() };
        let mut message = format!("{label} is {}, expected {}", self.found(node), self.expected(shape));
        let written = shortened(self.source.slice(&node.span));
        let hint = match &node.value {
            Value::Integer(_) | Value::Other("a number") => match range_of(shape) {
                Some((min, max)) => {
                    message = format!("{label} is {written}, expected a whole number from {min} to {max}");
                    None
                }
                None => quotes(shape, &written).or_else(|| example(shape)),
            },
            Value::Flag(_) | Value::Other("a date or time") => quotes(shape, &written),
            Value::Text(text) => hint_for_text(text, shape),
            Value::Map(mapping) if matches!(path.segments(), [Segment::Key(key), _] if key == "sysctls") => {
                self.hint_for_nested(&path, mapping)
            }
            _ => None,
        };
        let span = if place.is_empty() { self.source.rest_of_line(place.start) } else { place.clone() };
        Finding { message, place: Place::span(path, span), hint, related: None }
    }

    /// A sysctl written as nested mappings, which is also what TOML makes of a key without quotes.
    fn hint_for_nested(&self, path: &ConfigPath, mut mapping: &Mapping) -> Option<String> {
        let Some(Segment::Key(first)) = path.segments().last() else { return None };
        let mut key = first.clone();
        while let Some(entry) = mapping.entries.first() {
            key = format!("{key}.{}", entry.key);
            match &entry.node.value {
                Value::Map(inner) => mapping = inner,
                _ => break,
            }
        }
        Some(match self.format {
            Format::Yaml => format!("write the key in one piece: {key}"),
            Format::Toml => format!("write the key in quotes: {key:?}"),
        })
    }

    fn found(&self, node: &Node) -> String {
        match &node.value {
            Value::Null => "empty".to_owned(),
            Value::Flag(flag) => flag.to_string(),
            Value::Integer(_) => format!("the number {}", self.source.slice(&node.span)),
            Value::Text(text) => format!("the string {:?}", shortened(text)),
            Value::Other("a number") => format!("the number {}", shortened(self.source.slice(&node.span))),
            Value::Other(what) => (*what).to_owned(),
            Value::List(_) => "a list".to_owned(),
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
                    Alternative::Text { .. } => "a string".to_owned(),
                    Alternative::Word(word) => word.clone(),
                    Alternative::Integer { .. } => "a whole number".to_owned(),
                    Alternative::List(items) => match items.first() {
                        Some(Alternative::Map(_)) => format!("a list of {}s", &self.map_word()[2..]),
                        _ => "a list of strings".to_owned(),
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

/// The numbers that may stand there, where nothing but numbers may.
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
    takes_any_text(shape).then(|| format!("put it in quotes: \"{text}\""))
}

/// How text of a certain form looks, where a number stands in its place.
fn example(shape: &Shape) -> Option<String> {
    shape.iter().find_map(|alternative| match alternative {
        Alternative::Text { free: false, example: Some(example) } => {
            Some(format!("write it as in {example}"))
        }
        _ => None,
    })
}

fn hint_for_text(text: &str, shape: &Shape) -> Option<String> {
    let words = shape.iter().filter_map(|alternative| match alternative {
        Alternative::Word(word) => Some(word.as_str()),
        _ => None,
    });
    if let Some(word) = closest(text, words) {
        return Some(format!("did you mean {word}?"));
    }
    if shape.iter().any(|alternative| matches!(alternative, Alternative::Flag)) {
        return match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => Some("write true".to_owned()),
            "no" | "off" | "false" => Some("write false".to_owned()),
            _ => None,
        };
    }
    let is_number = text.parse::<i64>().is_ok();
    (is_number && range_of(shape).is_some()).then(|| "write it without quotes".to_owned())
}

/// The candidate that `word` is most likely a misspelling of.
fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are no misspellings of anything here, and the distance costs time.
    if word.len() > 40 {
        return None;
    }
    let word = simplified(word);
    let distances = candidates.map(|candidate| (distance(&word, &simplified(candidate)), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.len().max(candidate.len()) / 3).then_some(candidate)
}

/// `pod_cidr`, `pod-cidr` and `PodCidr` are all meant as podCIDR.
fn simplified(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_probably_meant() {
        let keys = ["name", "os", "podCIDR", "address", "gateway", "egressInterface", "defaultGateway"];
        let meant = |word| closest(word, keys.into_iter());
        assert_eq!(meant("podCidr"), Some("podCIDR"));
        assert_eq!(meant("pod_cidrs"), Some("podCIDR"));
        assert_eq!(meant("egresInterfac"), Some("egressInterface"));
        assert_eq!(meant("adress"), Some("address"));
        assert_eq!(meant("labels"), None);
        assert_eq!(meant(""), None);
        assert_eq!(meant(&"x".repeat(1_000_000)), None);
    }

    #[test]
    fn every_part_of_the_schema_is_understood() {
        fn empty_shapes(shape: &Shape) -> bool {
            shape.is_empty()
                || shape.iter().any(|alternative| match alternative {
                    Alternative::List(items) => empty_shapes(items),
                    Alternative::Map(map) => {
                        map.keys.values().any(|property| empty_shapes(&property.shape))
                            || map.others.as_ref().is_some_and(empty_shapes)
                    }
                    _ => false,
                })
        }
        let schema = crate::config::schema();
        assert!(!empty_shapes(&compile(&schema, &schema)));
    }

    #[test]
    fn a_path_is_spelled_out_from_its_root() {
        let nodes = Trail::Key(&Trail::Root, "nodes");
        let node = Trail::Index(&nodes, 3);
        let path = Trail::Key(&node, "os").path();
        assert_eq!(path.segments()[1], Segment::Index(3));
        assert_eq!(path.to_string(), "nodes[3].os");
    }
}

//! Finds every structural mistake of a tree by walking it along the JSON Schema, and leaves in it what the raw types
//! take.
//!
//! serde stops at the first mistake and does not know where a value stands; this pass goes on. The
//! schema comes from the same types, so both accept the same files.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value as Json;

use super::{
    Format,
    capped::Capped,
    mistake::{Finding, Place},
    source::Source,
    tree::{Entry, Mapping, Node, Repeated, Span, Value},
};
use crate::{
    model::{ConfigPath, Segment},
    text::{distance, shortened},
};

/// Lists and mappings that the schema bounds are not looked into when they are longer than this: each of their items
/// would be a mistake of its own.
const LONGEST: usize = 1000;

/// What the walk found out.
pub(super) struct Checked {
    pub findings: Capped<Finding>,
    /// The places of wrong values, and of keys that seem to be there under a wrong name; all of them, unless some
    /// findings were left out.
    pub wrong: HashSet<ConfigPath>,
}

/// Checks a tree, and puts [`Value::Wrong`] in the place of every value that is wrong.
pub(super) fn check(root: &mut Node, source: &Source, format: Format) -> Checked {
    let schema = super::schema();
    let shape = compile(&schema);
    let mut walk = Walk { source, format, findings: Capped::new(), wrong: HashSet::new() };
    let span = root.span();
    walk.node(root, &shape, &Trail::Root, &span);
    Checked { findings: walk.findings, wrong: walk.wrong }
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
    List {
        items: Shape,
        /// Whether the schema says how many there may be.
        bounded: bool,
    },
    Map(MapShape),
}

struct MapShape {
    keys: BTreeMap<String, Property>,
    required: Vec<String>,
    /// What all other keys hold, where they are allowed.
    others: Option<Shape>,
    /// Whether the schema says how many keys there may be.
    bounded: bool,
}

struct Property {
    shape: Shape,
    example: Option<Json>,
}

/// Takes out of a JSON Schema what the walk needs. It understands what [`super::schema`] makes of the raw types, no
/// more.
fn compile(schema: &Json) -> Shape {
    // Beside properties, branches only narrow them: those rules are the validator's.
    if schema["properties"].is_null()
        && let Some(alternatives) = schema["anyOf"].as_array().or(schema["oneOf"].as_array())
    {
        return alternatives.iter().flat_map(compile).collect();
    }
    if let Some(word) = schema["const"].as_str() {
        return vec![Alternative::Word(word.to_owned())];
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
    findings: Capped<Finding>,
    wrong: HashSet<ConfigPath>,
}

impl Walk<'_> {
    /// Checks a value, which `place` is to be marked for.
    fn node(&mut self, node: &mut Node, shape: &Shape, trail: &Trail<'_>, place: &Span) {
        for alternative in shape {
            match (&mut node.value, alternative) {
                (Value::Null, Alternative::Null)
                | (Value::Flag(_), Alternative::Flag)
                | (Value::Text(_), Alternative::Text { .. }) => return,
                (Value::Text(text), Alternative::Word(word)) if **text == *word => return,
                (Value::Integer(number), Alternative::Integer { min, max })
                    if (*min..=*max).contains(&i128::from(*number)) =>
                {
                    return;
                }
                (Value::List(items), Alternative::List { items: shape, bounded }) => {
                    if *bounded && items.len() > LONGEST {
                        return self.too_long(node, trail, place);
                    }
                    for (at, item) in items.iter_mut().enumerate() {
                        let span = item.span();
                        self.node(item, shape, &Trail::Index(trail, at), &span);
                    }
                    return;
                }
                (Value::Map(mapping), Alternative::Map(shape)) => {
                    if shape.bounded && mapping.entries.len() > LONGEST {
                        return self.too_long(node, trail, place);
                    }
                    return self.mapping(mapping, shape, trail, place);
                }
                _ => {}
            }
        }
        if self.findings.is_full() {
            node.value = Value::Wrong;
            return self.findings.leave_out(1);
        }
        let finding = self.wrong_value(node, shape, trail, place);
        self.refuse(node, finding);
    }

    /// Reports a value, and takes it out of the tree.
    fn refuse(&mut self, node: &mut Node, finding: Finding) {
        node.value = Value::Wrong;
        self.remember(&finding.place.path);
        self.findings.push(finding);
    }

    /// Notes that something is said of a place. Where not all is said, nobody asks.
    fn remember(&mut self, path: &ConfigPath) {
        if !self.findings.is_cut() {
            self.wrong.insert(path.clone());
        }
    }

    fn too_long(&mut self, node: &mut Node, trail: &Trail<'_>, place: &Span) {
        let (count, what) = match &node.value {
            Value::List(items) => (items.len(), "items"),
            Value::Map(mapping) => (mapping.entries.len(), "keys"),
            _ => return,
        };
        let path = trail.path();
        let message = format!("{path} has {count} {what}, more than {LONGEST}");
        self.refuse(node, Finding::new(message, Place::span(path, self.marked(place))));
    }

    fn mapping(&mut self, mapping: &mut Mapping, shape: &MapShape, trail: &Trail<'_>, place: &Span) {
        let mut misspelt: Vec<&str> = Vec::new();
        let mut unread = 0;
        let count = mapping.entries.len();
        for at in 0..count {
            let entry = &mut mapping.entries[at];
            let known = shape.keys.get(&*entry.key).map(|property| &property.shape);
            if let Some(shape) = known.or(shape.others.as_ref()) {
                let place = entry.place();
                self.node(&mut entry.node, shape, &Trail::Key(trail, &entry.key), &place);
                continue;
            }
            if self.findings.is_full() && count > LONGEST {
                entry.node.value = Value::Ignored;
                self.findings.leave_out(1);
                unread += 1;
                continue;
            }
            let meant = self.unknown_key(entry, shape, trail);
            entry.node.value = Value::Ignored;
            // It would be an echo to say that a misspelt key is missing.
            misspelt.extend(meant.filter(|meant| mapping.get(meant).is_none()));
        }
        if let Some(repeated) = mapping.repeated() {
            repeated.items().iter().for_each(|repeated| self.repeated_key(repeated, trail));
            self.findings.leave_out(repeated.more());
        }
        for key in misspelt.iter().copied() {
            self.remember(&trail.path().key(key));
        }
        let mut missing = Vec::new();
        for key in &shape.required {
            if mapping.get(key).is_none() && !misspelt.contains(&key.as_str()) {
                missing.push(key);
            }
        }
        // Any of the keys that nobody looked at may be one of these under a wrong name.
        for key in missing.iter().skip(unread) {
            if self.findings.is_full() {
                self.findings.leave_out(1);
            } else {
                self.missing_key(key, shape, trail, place);
            }
        }
    }

    /// Reports a key, and says which one it is most likely meant for.
    fn unknown_key<'s>(&mut self, entry: &Entry, shape: &'s MapShape, trail: &Trail<'_>) -> Option<&'s str> {
        let path = trail.path();
        let key = shortened(&entry.key);
        let mut finding = Finding::new(
            format!("unknown key {key:?}{}", within(&path)),
            Place::span(path.key(&*key), entry.key_span()),
        );
        let known = || shape.keys.keys().map(String::as_str);
        let meant = closest(&entry.key, known());
        if &*entry.key == "<<" {
            finding = finding.hint("YAML merge keys are not supported: write the keys out");
        } else if let Some(meant) = meant {
            finding = finding.hint(format!("did you mean {meant}?"));
        } else {
            finding = finding.hint(format!("valid keys: {}", known().collect::<Vec<_>>().join(", ")));
        }
        self.findings.push(finding);
        meant
    }

    fn repeated_key(&mut self, repeated: &Repeated, trail: &Trail<'_>) {
        // Where TOML repeats a key in a table further down, the path is not known.
        let key = shortened(&repeated.key);
        let path = match (self.format, trail) {
            (Format::Toml, _) => ConfigPath::root(),
            (Format::Yaml, trail) => trail.path().key(&*key),
        };
        let message = format!("duplicate key {key:?}");
        let mut finding = Finding::new(message, Place::span(path.clone(), repeated.span.clone()));
        if let Some(first) = &repeated.first {
            finding = finding.related("first used here", Place::span(path, first.clone()));
        }
        self.findings.push(finding.hint("remove one of the two"));
    }

    fn missing_key(&mut self, key: &str, shape: &MapShape, trail: &Trail<'_>, place: &Span) {
        let parent = trail.path();
        let path = parent.key(key);
        self.remember(&path);
        let whose =
            if parent.segments().is_empty() { "the configuration".to_owned() } else { parent.to_string() };
        let place = Place::span(path, self.marked(place));
        let mut finding = Finding::new(format!("{whose} has no {key}"), place);
        let property = shape.keys.get(key);
        let example = property.and_then(|property| property.example.as_ref()).and_then(Json::as_str);
        match (example, property.map(|property| &property.shape)) {
            (Some(example), _) if self.format == Format::Toml => {
                finding = finding.hint(format!("add it, for example `{key} = {example:?}`"));
            }
            (Some(example), _) => finding = finding.hint(format!("add it, for example `{key}: {example}`")),
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
        let written = shortened(self.source.slice(&node.span()));
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
        Finding { message, place: Place::span(path, self.marked(place)), hint, related: None }
    }

    /// What to mark for a value that begins at a place and has no extent of its own.
    fn marked(&self, place: &Span) -> Span {
        if place.is_empty() { self.source.rest_of_line(place.start) } else { place.clone() }
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
        let key = shortened(&key);
        Some(match self.format {
            Format::Yaml => format!("write the key as one string: {key}"),
            Format::Toml => format!("write the key in quotes: {key:?}"),
        })
    }

    fn found(&self, node: &Node) -> String {
        match &node.value {
            Value::Null => "empty".to_owned(),
            Value::Flag(flag) => flag.to_string(),
            Value::Wrong | Value::Ignored => "wrong".to_owned(),
            Value::Text(text) => format!("the string {:?}", shortened(text)),
            Value::Integer(_) | Value::Other("a number") => {
                format!("the number {}", shortened(self.source.slice(&node.span())))
            }
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
                    Alternative::List { items, .. } => match items.first() {
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
    fn a_path_is_spelled_out_from_its_root() {
        let nodes = Trail::Key(&Trail::Root, "nodes");
        let node = Trail::Index(&nodes, 3);
        let path = Trail::Key(&node, "os").path();
        assert_eq!(path.segments()[1], Segment::Index(3));
        assert_eq!(path.to_string(), "nodes[3].os");
    }
}

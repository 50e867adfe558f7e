//! YAML, for serde and as a tree with positions.

use std::{collections::HashMap, sync::Arc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{
    capped::Capped,
    limits::{self, Budget, MAX_DEPTH},
    raw::RawConfig,
    source::Source,
    tree::{Keys, Mapping, Node, Parsed, Span, SyntaxError, Value, push},
};

/// So many brackets may be open for [`deserialize`], which looks at all of them again for every token.
const MAX_BRACKETS: usize = 512;

/// Whether [`deserialize`] reads the text in linear time, and in memory that grows with it within bounds, as far as a
/// look at its bytes can tell. It does of all configurations in block style without aliases.
pub(super) fn is_plain(text: &str) -> bool {
    let (mut brackets, mut scalars) = (0, 0);
    for pair in text.as_bytes().windows(2) {
        match pair {
            [b'&' | b'*', _] => return false,
            [b'[' | b'{', _] => (brackets, scalars) = (brackets + 1, scalars + 2),
            [b',', _] => scalars += 2,
            [b'\n', _] | [b':' | b'-' | b'?', b' ' | b'\t' | b'\n' | b'\r'] => scalars += 1,
            _ => {}
        }
    }
    brackets <= MAX_BRACKETS && scalars <= MAX_BRACKETS + text.len() / 8
}

/// An error of the fast path: its words, and its offset where it has one.
pub(super) struct Refused {
    pub message: String,
    pub offset: Option<usize>,
}

pub(super) fn deserialize(source: &str) -> Result<RawConfig, serde_yaml::Error> {
    serde_yaml::from_str(source)
}

pub(super) fn refused(error: &serde_yaml::Error, source: &Source) -> Refused {
    let message = error.to_string();
    let Some(location) = error.location() else { return Refused { message, offset: None } };
    // The place is shown beside the message, not in it.
    let tail = format!(" at line {} column {}", location.line(), location.column());
    Refused {
        message: message.replacen(&tail, "", 1),
        offset: Some(source.offset_of(location.line(), location.column())),
    }
}

/// Reads a YAML text into a tree.
///
/// # Errors
/// The first place where the text is not YAML, or is YAML that a configuration cannot be.
pub(super) fn parse(source: &Source) -> Result<Parsed, SyntaxError> {
    let mut builder = Builder::new(source);
    for event in Parser::new_from_str(source.text()) {
        let (event, span) = event.map_err(|error| SyntaxError {
            message: format!("this is not YAML: {}", error.info()),
            span: builder.span(*error.marker(), *error.marker()),
            hint: hint_for(error.info()),
        })?;
        let span = builder.span(span.start, span.end);
        builder.take(event, span)?;
    }
    let root = builder.root.unwrap_or(Node::new(0..0, Value::Null));
    Ok(Parsed { root, mistakes: builder.mistakes })
}

fn hint_for(info: &str) -> Option<String> {
    if info.contains("tabs disallowed") {
        return Some("indent with spaces: YAML does not allow tabs there".to_owned());
    }
    if info.contains("mapping values are not allowed") {
        return Some("a value that holds `: ` or ends with `:` needs quotes".to_owned());
    }
    None
}

/// A mapping or a list whose end has not come yet.
struct Open {
    span: Span,
    anchor: usize,
    content: Content,
    size_before: usize,
}

enum Content {
    List(Vec<Node>),
    Map(Box<Mapping>, Option<Key>),
}

/// A key whose value has not come yet; without text when it is no scalar.
struct Key {
    text: Option<Arc<str>>,
    span: Span,
}

struct Builder<'a> {
    source: &'a Source,
    open: Vec<Open>,
    root: Option<Node>,
    /// Anchored values, each with the number of nodes in it.
    anchors: HashMap<usize, (Node, usize)>,
    names: Keys,
    /// Counts those that aliases add too.
    budget: Budget,
    documents: usize,
    mistakes: Capped<SyntaxError>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source) -> Self {
        Self {
            source,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            names: Keys::default(),
            budget: Budget::new(source.text().len()),
            documents: 0,
            mistakes: Capped::new(),
        }
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let start = self.source.offset_of_character(start.index());
        start..self.source.offset_of_character(end.index()).max(start)
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(_) => self.document(span),
            Event::Scalar(text, style, anchor, tag) => {
                // The extent of a block scalar runs into the next line.
                let span = span.start..span.start + self.source.slice(&span).trim_end().len();
                let value = scalar(&text, style, tag.as_deref());
                self.budget.take(1, &span)?;
                self.complete(Node::new(span, value), Some(&*text), anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.begin(span, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(span, anchor, Content::Map(Box::default(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, span: Span) -> Result<(), SyntaxError> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        Err(SyntaxError {
            message: "unexpected second YAML document: a configuration is a single document".to_owned(),
            span,
            hint: Some("keep one cluster per file".to_owned()),
        })
    }

    fn begin(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), SyntaxError> {
        if self.open.len() == MAX_DEPTH {
            return Err(limits::too_deep(span));
        }
        self.budget.take(1, &span)?;
        self.open.push(Open { span, anchor, content, size_before: self.budget.used() - 1 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(mapping, _) => Value::Map(mapping),
        };
        let size = self.budget.used() - open.size_before;
        self.complete(Node::new(open.span, value), None, open.anchor, size)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), SyntaxError> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            let message = "this alias is inside the value it refers to".to_owned();
            return Err(SyntaxError { message, span, hint: None });
        };
        self.budget.take(size, &span)?;
        let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
        let node = Node::new(span, node.value.clone());
        let text = match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.complete(node, text.as_deref(), 0, size)
    }

    /// Puts a whole value where it belongs: a key, a value, an item, or the root.
    fn complete(
        &mut self,
        node: Node,
        text: Option<&str>,
        anchor: usize,
        size: usize,
    ) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // Kept twice from here on.
            self.budget.take(size, &node.span())?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => push(items, node),
            Content::Map(mapping, key @ None) => {
                // The mapping itself begins where its first key does.
                if mapping.entries.is_empty() && open.span.is_empty() {
                    open.span.start = node.span().start;
                    open.span.end = open.span.start;
                }
                if text.is_none() {
                    self.mistakes.push(SyntaxError {
                        message: "this key is a list or a mapping; keys must be strings".to_owned(),
                        span: node.span(),
                        hint: None,
                    });
                }
                *key = Some(Key { text: text.map(|text| self.names.get(text)), span: node.span() });
            }
            Content::Map(mapping, key) => {
                if let Some(Key { text: Some(text), span }) = key.take() {
                    mapping.insert(text, span, node);
                }
            }
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Value::Text(text.into()),
        Some(tag) if tag.is_yaml_core_schema() => match (tag.suffix.as_str(), resolve(text)) {
            ("null", value @ Value::Null)
            | ("bool", value @ Value::Flag(_))
            | ("int", value @ Value::Integer(_)) => value,
            _ => Value::Other("a value with a tag"),
        },
        Some(_) => Value::Other("a value with a tag"),
        None if style == ScalarStyle::Plain => resolve(text),
        None => Value::Text(text.into()),
    }
}

/// What a scalar without quotes is, by the rules of serde_yaml (the core schema of YAML 1.2, and
/// binary numbers).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Flag(true),
        "false" | "False" | "FALSE" => return Value::Flag(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
        | ".NaN" | ".NAN" => return Value::Other("a number"),
        _ => {}
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", digits)) => ("-", digits),
        Some(("+", digits)) => ("", digits),
        _ => ("", text),
    };
    if digits.starts_with(['+', '-']) {
        return Value::Text(text.into());
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let Some(digits) = digits.strip_prefix(prefix).filter(|rest| !rest.starts_with(['+', '-'])) else {
            continue;
        };
        if let Ok(number) = i128::from_str_radix(&format!("{sign}{digits}"), radix) {
            return integer(number);
        }
    }
    // 007 is a string in YAML 1.2.
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Value::Text(text.into());
    }
    if let Ok(number) = format!("{sign}{digits}").parse() {
        return integer(number);
    }
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::Other("a number"),
        _ => Value::Text(text.into()),
    }
}

/// One that no key takes is only a number.
fn integer(number: i128) -> Value {
    i64::try_from(number).map_or(Value::Other("a number"), Value::Integer)
}

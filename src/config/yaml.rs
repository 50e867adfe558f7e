//! Parses YAML, either with serde or into a tree with positions.

use std::{collections::HashMap, sync::Arc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{
    capped::Capped,
    limits::{self, Budget, MAX_DEPTH},
    raw::RawConfig,
    source::Source,
    tree::{KeyInterner, Mapping, Parsed, Span, SyntaxError, TreeNode, Value, push},
};
use crate::diagnose::Rule;

/// The maximum number of brackets for [`deserialize`], which scans all open brackets for every token.
const MAX_BRACKETS: usize = 512;

/// Returns `true` if [`deserialize`] takes linear time and bounded memory for this text, judging by its bytes. This
/// holds for every configuration in block style without aliases.
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

/// An error of serde, with its offset if known.
pub(super) struct SerdeRejection {
    pub message: String,
    pub offset: Option<usize>,
}

pub(super) fn deserialize(source: &str) -> Result<RawConfig, serde_yaml::Error> {
    serde_yaml::from_str(source)
}

pub(super) fn rejection(error: &serde_yaml::Error, source: &Source) -> SerdeRejection {
    let message = error.to_string();
    let Some(location) = error.location() else { return SerdeRejection { message, offset: None } };
    // The position is displayed separately from the message.
    let tail = format!(" at line {} column {}", location.line(), location.column());
    SerdeRejection {
        message: message.replacen(&tail, "", 1),
        offset: Some(source.offset_of(location.line(), location.column())),
    }
}

/// Parses a YAML text into a tree.
///
/// # Errors
/// Returns the first syntax error, exceeded limit, or unsupported feature.
pub(super) fn parse(source: &Source) -> Result<Parsed, SyntaxError> {
    let mut builder = YamlBuilder::new(source);
    for event in Parser::new_from_str(source.text()) {
        let (event, span) = event.map_err(|error| SyntaxError {
            rule: Rule::Syntax,
            message: format!("invalid YAML: {}", error.info()),
            span: builder.span(*error.marker(), *error.marker()),
            hint: hint_for(error.info()),
        })?;
        let span = builder.span(span.start, span.end);
        builder.take(event, span)?;
    }
    let root = builder.root.unwrap_or(TreeNode::new(0..0, Value::Null));
    Ok(Parsed { root, errors: builder.errors })
}

fn hint_for(info: &str) -> Option<String> {
    if info.contains("tabs disallowed") {
        return Some("indent with spaces; YAML does not allow tabs for indentation".to_owned());
    }
    if info.contains("mapping values are not allowed") {
        return Some("quote values that contain `: ` or end with `:`".to_owned());
    }
    None
}

/// A mapping or a list that is still being parsed.
struct OpenCollection {
    span: Span,
    anchor: usize,
    content: Content,
    size_before: usize,
}

enum Content {
    List(Vec<TreeNode>),
    Map(Box<Mapping>, Option<PendingKey>),
}

/// A key whose value is still to come. Has no text if it is not a scalar.
struct PendingKey {
    text: Option<Arc<str>>,
    span: Span,
}

struct YamlBuilder<'a> {
    source: &'a Source,
    open: Vec<OpenCollection>,
    root: Option<TreeNode>,
    /// Anchored values, each with the number of nodes it contains.
    anchors: HashMap<usize, (TreeNode, usize)>,
    names: KeyInterner,
    /// Includes values that aliases add.
    budget: Budget,
    documents: usize,
    errors: Capped<SyntaxError>,
}

impl<'a> YamlBuilder<'a> {
    fn new(source: &'a Source) -> Self {
        Self {
            source,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            names: KeyInterner::default(),
            budget: Budget::new(source.text().len()),
            documents: 0,
            errors: Capped::new(),
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
                // The span of a block scalar extends into the next line.
                let span = span.start..span.start + self.source.slice(&span).trim_end().len();
                let value = scalar(&text, style, tag.as_deref());
                self.budget.take(1, &span)?;
                self.complete(TreeNode::new(span, value), Some(&*text), anchor, 1)
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
            rule: Rule::Syntax,
            message: "unexpected second YAML document: a configuration is a single document".to_owned(),
            span,
            hint: Some("use one file per cluster".to_owned()),
        })
    }

    fn begin(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), SyntaxError> {
        if self.open.len() == MAX_DEPTH {
            return Err(limits::too_deep(span));
        }
        self.budget.take(1, &span)?;
        self.open.push(OpenCollection { span, anchor, content, size_before: self.budget.used() - 1 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(mapping, _) => Value::Map(mapping),
        };
        let size = self.budget.used() - open.size_before;
        self.complete(TreeNode::new(open.span, value), None, open.anchor, size)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), SyntaxError> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            let message = "this alias refers to a value that contains it".to_owned();
            return Err(SyntaxError { rule: Rule::Syntax, message, span, hint: None });
        };
        self.budget.take(size, &span)?;
        let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
        let node = TreeNode::new(span, node.value.clone());
        let text = match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.complete(node, text.as_deref(), 0, size)
    }

    /// Adds a complete value to the tree: as a key, a value, an item, or the root.
    fn complete(
        &mut self,
        node: TreeNode,
        text: Option<&str>,
        anchor: usize,
        size: usize,
    ) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // The value is stored twice from here on.
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
                // A mapping starts at its first key.
                if mapping.entries.is_empty() && open.span.is_empty() {
                    open.span.start = node.span().start;
                    open.span.end = open.span.start;
                }
                if text.is_none() {
                    self.errors.push(SyntaxError {
                        rule: Rule::Syntax,
                        message: "invalid key: expected a string, found a list or a mapping".to_owned(),
                        span: node.span(),
                        hint: None,
                    });
                }
                *key = Some(PendingKey { text: text.map(|text| self.names.get(text)), span: node.span() });
            }
            Content::Map(mapping, key) => {
                if let Some(PendingKey { text: Some(text), span }) = key.take() {
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
            _ => Value::Other("a tagged value"),
        },
        Some(_) => Value::Other("a tagged value"),
        None if style == ScalarStyle::Plain => resolve(text),
        None => Value::Text(text.into()),
    }
}

/// Resolves a plain scalar as serde_yaml does: by the core schema of YAML 1.2, plus binary numbers.
pub(super) fn resolve(text: &str) -> Value {
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

/// A number outside the range of `i64` is just "a number", which no key accepts.
fn integer(number: i128) -> Value {
    i64::try_from(number).map_or(Value::Other("a number"), Value::Integer)
}

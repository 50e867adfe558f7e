//! Builds a tree with positions from TOML parser events.
//!
//! The parser gets the text in chunks of whole expressions, so that the tokens never take more memory than the tree.
//! This module enforces TOML's rules on redefining tables. As in YAML, a duplicate key is recorded in its mapping, and
//! parsing continues.

use std::borrow::Cow;

use toml_datetime::Datetime;
use toml_parser::{
    ErrorSink, Expected, ParseError, Source as Text, Span as TomlSpan,
    decoder::{Encoding, ScalarKind},
    lexer::{Token, TokenKind},
    parser::{Event, EventKind, EventReceiver, ValidateWhitespace, parse_document},
};

use super::{
    capped::Capped,
    limits::{self, Budget, MAX_DEPTH},
    tree::{
        MapEntry, Mapping, NODES, NodeReceiver, Parsed, Span, SyntaxError, TableOrigin, TreeNode, Value, push,
    },
};
use crate::diagnose::Rule;

/// The minimum number of tokens in a chunk. A chunk ends at the end of a line where no bracket is open.
const CHUNK: usize = 4096;

/// Parses a TOML text. The nodes go to the receiver; without one, the tree contains them.
///
/// # Errors
/// Returns the first syntax error or exceeded limit. Duplicate keys are not errors here: they are recorded in their
/// mapping.
pub(super) fn parse<'a>(
    input: &'a str,
    receiver: Option<&mut dyn NodeReceiver<'a>>,
) -> Result<Parsed<'a>, SyntaxError> {
    let text = Text::new(input);
    let mut builder = TomlBuilder::new(text, receiver);
    let mut tokens = Vec::new();
    let mut brackets = 0_usize;
    for token in text.lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => brackets += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                brackets = brackets.saturating_sub(1);
            }
            _ => {}
        }
        let is_whole = token.kind() == TokenKind::Newline && brackets == 0 && tokens.len() >= CHUNK;
        // Whitespace inside brackets is insignificant unless it is part of a scalar, such as a date.
        let is_last_a_word = tokens.last().is_some_and(|last: &Token| is_word(last.kind()));
        if brackets > 0 && token.kind() == TokenKind::Whitespace && !is_last_a_word {
            continue;
        }
        tokens.push(token);
        if is_whole {
            builder.feed(&tokens)?;
            tokens.clear();
        } else if tokens.len() / 2 > builder.budget.limit() {
            // A single expression has more tokens than the budget of the whole file allows.
            return match builder.feed(&tokens) {
                Err(error) if error.span.start < token.span().start() => Err(error),
                _ => Err(limits::too_many(span_of(token.span()))),
            };
        }
    }
    builder.feed(&tokens)?;
    builder.end_nodes();
    let mut root = builder.root;
    root.origin = TableOrigin::Inline;
    // Comments may come before the first key.
    let first = root.entries.iter().map(|entry| entry.key_span().start).min().unwrap_or_default();
    let start = input.get(..first).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let root = TreeNode::new(start..start, Value::Map(root.into()));
    Ok(Parsed::new(root, Capped::new(), false))
}

/// Returns `true` if a token can be part of a key or scalar that consists of several tokens.
const fn is_word(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Atom | TokenKind::Dot)
}

fn span_of(span: TomlSpan) -> Span {
    span.start()..span.end()
}

/// Converts an error of the parser.
fn syntax_error(error: &ParseError) -> SyntaxError {
    let description = error.description();
    let expected: Vec<Cow<'_, str>> = error
        .expected()
        .into_iter()
        .flatten()
        .map(|expected| match expected {
            Expected::Literal("\n") => "newline".into(),
            Expected::Literal(text) => format!("`{text}`").into(),
            Expected::Description(text) => (*text).into(),
            _ => "something else".into(),
        })
        .collect();
    let is_bare = ["invalid float", "invalid integer", "invalid date", "must be quoted"];
    SyntaxError {
        rule: Rule::Syntax,
        message: match expected.as_slice() {
            [] => format!("invalid TOML: {description}"),
            expected => format!("invalid TOML: {description}, expected {}", expected.join(", ")),
        },
        span: error.unexpected().map(span_of).unwrap_or_default(),
        hint: is_bare
            .iter()
            .any(|part| description.contains(part))
            .then(|| "quote the value; TOML strings must be quoted".to_owned()),
    }
}

/// Collects the first error only.
#[derive(Default)]
struct FirstError(Option<SyntaxError>);

impl ErrorSink for FirstError {
    fn report_error(&mut self, error: ParseError) {
        self.0.get_or_insert_with(|| syntax_error(&error));
    }
}

/// One part of a dotted key.
struct KeyPart<'a> {
    text: Cow<'a, str>,
    span: Span,
}

/// A list or an inline table that is still being parsed.
enum OpenValue<'a> {
    List {
        start: usize,
        items: Vec<TreeNode<'a>>,
    },
    /// The list of nodes, whose items are handed over.
    Nodes {
        start: usize,
    },
    /// An inline table, with the key it belongs to.
    Table {
        start: usize,
        mapping: Mapping<'a>,
        keys: Vec<KeyPart<'a>>,
    },
}

struct TomlBuilder<'a, 'r> {
    receiver: Option<&'r mut dyn NodeReceiver<'a>>,
    /// Whether the list of nodes is a list of tables, whose last table can still be extended.
    has_node_tables: bool,
    text: Text<'a>,
    root: Mapping<'a>,
    /// The entries that lead from the root to the table of the last header; `None` if the header was rejected.
    table: Option<Vec<usize>>,
    header_start: usize,
    /// The parts of the current key.
    keys: Vec<KeyPart<'a>>,
    open: Vec<OpenValue<'a>>,
    budget: Budget,
    /// The first error that the parser does not detect by itself.
    error: Option<SyntaxError>,
}

impl<'a, 'r> TomlBuilder<'a, 'r> {
    fn new(text: Text<'a>, receiver: Option<&'r mut dyn NodeReceiver<'a>>) -> Self {
        Self {
            receiver,
            has_node_tables: false,
            text,
            root: Mapping::with_origin(TableOrigin::Header),
            table: Some(Vec::new()),
            header_start: 0,
            keys: Vec::new(),
            open: Vec::new(),
            budget: Budget::new(text.input().len()),
            error: None,
        }
    }

    /// Parses a chunk of whole expressions.
    fn feed(&mut self, tokens: &[Token]) -> Result<(), SyntaxError> {
        let mut first = FirstError::default();
        let text = self.text;
        parse_document(tokens, &mut ValidateWhitespace::new(self, text), &mut first);
        match (first.0, self.error.take()) {
            (Some(one), Some(other)) => Err(if other.span.start < one.span.start { other } else { one }),
            (Some(error), None) | (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    fn reject(&mut self, error: SyntaxError) {
        self.error.get_or_insert(error);
    }

    /// Counts one more key or value. Returns `false` after an error: the rest is ignored.
    fn count_value(&mut self, span: &Span) -> bool {
        if self.error.is_none()
            && let Err(error) = self.budget.take(1, span)
        {
            self.error = Some(error);
        }
        self.error.is_none()
    }

    /// The nesting depth of the next value.
    fn depth(&self) -> usize {
        let open = self.open.iter().map(|open| match open {
            OpenValue::List { .. } | OpenValue::Nodes { .. } => 1,
            OpenValue::Table { keys, .. } => keys.len().max(1),
        });
        self.table.as_ref().map_or(0, Vec::len) + open.sum::<usize>() + self.keys.len()
    }

    /// Returns `true` if another list or table may be opened.
    fn may_open(&mut self, span: TomlSpan) -> bool {
        let span = span_of(span);
        if self.depth() >= MAX_DEPTH {
            self.reject(limits::too_deep(span));
            return false;
        }
        self.count_value(&span)
    }

    fn begin_header(&mut self, span: TomlSpan) {
        self.keys.clear();
        self.table = None;
        self.header_start = span.start();
    }

    /// Makes the table named by a header the current one.
    fn end_header(&mut self, span: TomlSpan, is_list: bool) {
        let mut keys = std::mem::take(&mut self.keys);
        let span = self.header_start..span.end();
        let Some(last) = keys.pop() else { return };
        if !self.count_value(&span) {
            return;
        }
        let is_node = is_list && keys.is_empty() && last.text == NODES && self.receiver.is_some();
        match table_below(&mut self.root, keys, TableOrigin::HeaderBelow) {
            Ok((mut trail, parent)) => {
                if let Some(at) = header(parent, last, span, is_list) {
                    trail.push(at);
                    self.table = Some(trail);
                    if is_node {
                        self.has_node_tables = true;
                        self.hand_over(1);
                    }
                }
            }
            Err(error) => self.report(error),
        }
    }

    /// Hands over the nodes in the list of tables but the last `kept` ones.
    fn hand_over(&mut self, kept: usize) {
        let Some(at) = self.root.position(NODES) else { return };
        if let (Value::List(items), Some(receiver)) =
            (&mut self.root.entries[at].node.value, &mut self.receiver)
        {
            items.drain(..items.len().saturating_sub(kept)).for_each(|node| receiver.node(node));
        }
    }

    /// Hands over the last node in the list of tables.
    fn end_nodes(&mut self) {
        if !self.has_node_tables {
            return;
        }
        self.hand_over(0);
        if let Some(at) = self.root.position(NODES) {
            self.root.entries[at].node.value = Value::Nodes;
        }
    }

    /// Returns `true` if the next value is the list of nodes, and there is a receiver.
    fn is_at_nodes(&self) -> bool {
        self.receiver.is_some()
            && self.open.is_empty()
            && self.table.as_ref().is_some_and(Vec::is_empty)
            && matches!(&self.keys[..], [key] if key.text == NODES)
            && self.root.get(NODES).is_none()
    }

    fn report(&mut self, error: Option<SyntaxError>) {
        if let Some(error) = error {
            self.reject(error);
        }
    }

    /// Adds a complete value to the table or list that it belongs to.
    fn complete(&mut self, node: TreeNode<'a>) {
        let (mapping, keys) = match self.open.last_mut() {
            Some(OpenValue::Nodes { .. }) => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.node(node);
                }
                return;
            }
            Some(OpenValue::List { items, .. }) => return push(items, node),
            Some(OpenValue::Table { mapping, .. }) => (mapping, std::mem::take(&mut self.keys)),
            None => {
                let keys = std::mem::take(&mut self.keys);
                let Some(table) = self.table.as_deref().and_then(|trail| follow(&mut self.root, trail))
                else {
                    return;
                };
                (table, keys)
            }
        };
        let mut keys = keys;
        let Some(last) = keys.pop() else { return };
        match table_below(mapping, keys, TableOrigin::DottedKey) {
            Ok((_, table)) => table.insert(last.text, last.span, node),
            Err(error) => self.report(error),
        }
    }
}

/// Follows `trail` to its table.
fn follow<'t, 'a>(mut table: &'t mut Mapping<'a>, trail: &[usize]) -> Option<&'t mut Mapping<'a>> {
    for at in trail {
        table = table_of(&mut table.entries.get_mut(*at)?.node)?;
    }
    Some(table)
}

/// The value as a table: the value itself, or the last item of a list of tables.
fn table_of<'t, 'a>(node: &'t mut TreeNode<'a>) -> Option<&'t mut Mapping<'a>> {
    match &mut node.value {
        Value::Map(mapping) => Some(mapping),
        Value::List(items) => match &mut items.last_mut()?.value {
            Value::Map(mapping) if mapping.origin != TableOrigin::Inline => Some(mapping),
            _ => None,
        },
        _ => None,
    }
}

/// The origin of a table; `None` if the value cannot be extended.
fn origin(node: &TreeNode<'_>) -> Option<TableOrigin> {
    let mapping = match &node.value {
        Value::Map(mapping) => mapping,
        Value::List(items) => match &items.last()?.value {
            Value::Map(mapping) => mapping,
            _ => return None,
        },
        _ => return None,
    };
    (mapping.origin != TableOrigin::Inline).then_some(mapping.origin)
}

/// Finds the table that `keys` name below `table`, and the trail to it. Creates missing tables.
///
/// # Errors
/// Fails if a key already has another kind of value. The error is `None` if that was recorded as a duplicate key.
fn table_below<'t, 'a>(
    mut table: &'t mut Mapping<'a>,
    keys: Vec<KeyPart<'a>>,
    by: TableOrigin,
) -> Result<(Vec<usize>, &'t mut Mapping<'a>), Option<SyntaxError>> {
    let mut trail = Vec::with_capacity(keys.len() + 1);
    for key in keys {
        let at = match table.position(&key.text) {
            Some(at) => {
                let entry = &mut table.entries[at];
                match origin(&entry.node) {
                    None => return Err(Some(cannot_be_extended(entry, key.span))),
                    Some(TableOrigin::Header) if by == TableOrigin::DottedKey => {
                        table.add_duplicate(key.text, key.span, at);
                        return Err(None);
                    }
                    Some(_) => {}
                }
                if by == TableOrigin::DottedKey
                    && let Some(below) = table_of(&mut entry.node)
                {
                    below.origin = by;
                }
                at
            }
            None => {
                let below = Mapping::with_origin(by);
                let node = TreeNode::new(key.span.clone(), Value::Map(below.into()));
                table.insert(key.text, key.span, node);
                table.entries.len() - 1
            }
        };
        trail.push(at);
        table = table.entries.get_mut(at).and_then(|entry| table_of(&mut entry.node)).ok_or(None)?;
    }
    Ok((trail, table))
}

fn cannot_be_extended(entry: &MapEntry<'_>, span: Span) -> SyntaxError {
    let kind = match &entry.node.value {
        Value::Map(_) => "an inline table",
        Value::List(_) | Value::Nodes => "a list",
        _ => "a value",
    };
    SyntaxError {
        rule: Rule::Syntax,
        message: format!("invalid TOML: this key already has {kind} as its value, which cannot be extended"),
        span,
        hint: None,
    }
}

/// Creates the table of a header, or records that its key is a duplicate. Returns the index of the entry whose table
/// gets the keys below the header.
fn header<'a>(parent: &mut Mapping<'a>, key: KeyPart<'a>, span: Span, is_list: bool) -> Option<usize> {
    let table = Mapping::with_origin(TableOrigin::Header);
    let node = TreeNode::new(span.clone(), Value::Map(table.into()));
    let Some(at) = parent.position(&key.text) else {
        let node = if is_list { TreeNode::new(span, Value::List(vec![node])) } else { node };
        parent.insert(key.text, key.span, node);
        return Some(parent.entries.len() - 1);
    };
    let entry = &mut parent.entries[at];
    let by = origin(&entry.node);
    match &mut entry.node.value {
        Value::List(items) if is_list && by.is_some() => {
            push(items, node);
            return Some(at);
        }
        Value::Map(mapping) if !is_list && by == Some(TableOrigin::HeaderBelow) => {
            mapping.origin = TableOrigin::Header;
            entry.node.set_span(span);
            entry.set_key_span(key.span);
            return Some(at);
        }
        _ => {}
    }
    let is_table = matches!(entry.node.value, Value::Map(_));
    parent.add_duplicate(key.text, key.span, at);
    // The keys of the second table are checked too.
    (is_table && !is_list).then_some(at)
}

impl EventReceiver for TomlBuilder<'_, '_> {
    fn std_table_open(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.begin_header(span);
    }

    fn std_table_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.end_header(span, false);
    }

    fn array_table_open(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.begin_header(span);
    }

    fn array_table_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.end_header(span, true);
    }

    fn inline_table_open(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) -> bool {
        let may_open = self.may_open(span);
        let keys = std::mem::take(&mut self.keys);
        self.open.push(OpenValue::Table { start: span.start(), mapping: Mapping::default(), keys });
        may_open
    }

    fn inline_table_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        if let Some(OpenValue::Table { start, mapping, keys }) = self.open.pop() {
            self.keys = keys;
            self.complete(TreeNode::new(start..span.end(), Value::Map(mapping.into())));
        }
    }

    fn array_open(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) -> bool {
        let may_open = self.may_open(span);
        let start = span.start();
        self.open.push(if self.is_at_nodes() {
            OpenValue::Nodes { start }
        } else {
            OpenValue::List { start, items: Vec::new() }
        });
        may_open
    }

    fn array_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        let (start, value) = match self.open.pop() {
            Some(OpenValue::List { start, items }) => (start, Value::List(items)),
            Some(OpenValue::Nodes { start }) => (start, Value::Nodes),
            Some(OpenValue::Table { .. }) | None => return,
        };
        self.complete(TreeNode::new(start..span.end(), value));
    }

    fn simple_key(&mut self, span: TomlSpan, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let place = span_of(span);
        if self.depth() >= MAX_DEPTH {
            return self.reject(limits::too_deep(place));
        }
        if !self.count_value(&place) {
            return;
        }
        let mut text = Cow::Borrowed("");
        if let Some(raw) = self.text.get(Event::new_unchecked(EventKind::SimpleKey, encoding, span)) {
            raw.decode_key(&mut text, error);
        }
        self.keys.push(KeyPart { text, span: place });
    }

    /// A dotted key creates a table for each part but the last.
    fn key_sep(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.count_value(&span_of(span));
    }

    fn scalar(&mut self, span: TomlSpan, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let place = span_of(span);
        if !self.count_value(&place) {
            return;
        }
        let mut text = Cow::Borrowed("");
        let Some(raw) = self.text.get(Event::new_unchecked(EventKind::Scalar, encoding, span)) else {
            return;
        };
        let value = match raw.decode_scalar(&mut text, error) {
            ScalarKind::String => Value::Text(text),
            ScalarKind::Boolean(flag) => Value::Flag(flag),
            ScalarKind::Integer(radix) => match i64::from_str_radix(&text, radix.value()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number"),
            },
            ScalarKind::Float => Value::Other("a number"),
            ScalarKind::DateTime => {
                if let Err(error) = text.parse::<Datetime>() {
                    let message = format!("invalid TOML: {error}");
                    self.reject(SyntaxError { rule: Rule::Syntax, message, span: place.clone(), hint: None });
                }
                Value::Other("a date or time")
            }
        };
        self.complete(TreeNode::new(place, value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use serde_json::{Value as Json, json};

    use super::*;

    /// Converts a tree to JSON; `None` if it contains a duplicate key.
    fn json(node: &TreeNode<'_>) -> Option<Json> {
        Some(match &node.value {
            Value::Null | Value::Invalid | Value::Ignored | Value::Nodes => Json::Null,
            Value::Flag(flag) => json!(flag),
            Value::Integer(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::Other(kind) => json!({ "other": kind }),
            Value::List(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
            Value::Map(mapping) if mapping.has_duplicates() => return None,
            Value::Map(mapping) => {
                let entries = mapping.entries.iter();
                Json::Object(
                    entries
                        .map(|entry| Some((entry.key.to_string(), json(&entry.node)?)))
                        .collect::<Option<_>>()?,
                )
            }
        })
    }

    fn ours(text: &str) -> Option<Json> {
        json(&parse(text, None).ok()?.root)
    }

    fn theirs(text: &str) -> Option<Json> {
        fn convert(value: ::toml::Value) -> Json {
            use ::toml::Value;
            match value {
                Value::String(text) => json!(text),
                Value::Integer(number) => json!(number),
                Value::Boolean(flag) => json!(flag),
                Value::Float(_) => json!({ "other": "a number" }),
                Value::Datetime(_) => json!({ "other": "a date or time" }),
                Value::Array(items) => items.into_iter().map(convert).collect(),
                Value::Table(table) => table.into_iter().map(|(key, value)| (key, convert(value))).collect(),
            }
        }
        ::toml::from_str(text).ok().map(convert)
    }

    fn key(longest: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(select(vec!["a", "b", "\"c\"", "'d e'"]), 1..=longest)
            .prop_map(|parts| parts.join("."))
    }

    fn value() -> impl Strategy<Value = String> {
        let scalars = vec![
            "1",
            "-0x1F",
            "0o17",
            "1_000",
            "\"a\\u00e9\"",
            "'b'",
            "true",
            "1.5",
            "inf",
            "1979-05-27",
            "07:32:00",
            "9223372036854775808",
            "\"\"\"x\ny\"\"\"",
            "[]",
            "{}",
            "bare",
            "1979-13-45",
            "\"\\q\"",
        ];
        select(scalars).prop_map(str::to_owned).prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec((key(3), inner), 0..4).prop_map(|entries| {
                    let entries: Vec<_> =
                        entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                    format!("{{ {} }}", entries.join(", "))
                }),
            ]
        })
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => key(3).prop_map(|key| format!("[{key}]")),
            3 => key(3).prop_map(|key| format!("[[{key}]]")),
            // The toml crate lets a longer key add to a table of a list, which TOML forbids (TOML 1.1, "Array of
            // Tables").
        6 => (key(2), value()).prop_map(|(key, value)| format!("{key} = {value}")),
            1 => select(vec!["# c", "", " \t", "a = 1 2", "= 1", "[a", "[]", "a", "a = ", "]", "x = [1", "y = {"])
                .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_the_toml_crate(
            lines in prop::collection::vec(line(), 0..8),
            newline in select(vec!["\n", "\r\n"]),
        ) {
            let text = lines.join(newline);
            // Only the toml crate limits the size of numbers while parsing.
            prop_assume!(!text.contains("9223372036854775808"));
            prop_assert_eq!(ours(&text), theirs(&text), "{}", text);
        }
    }

    #[test]
    fn a_text_of_several_chunks_is_parsed_like_the_whole() {
        let text: String = (0..5000)
            .map(|at| format!("[[nodes]] # {at}\nname = 'n{at}'\nlist = [\n 1,\n 2\n]\n\"t.{at}\" = \"\"\"\n[x\n\"\"\"\n"))
            .collect();
        assert!(ours(&text).is_some());
        assert_eq!(ours(&text), theirs(&text));
    }

    #[test]
    fn an_error_in_a_later_chunk_has_the_right_position() {
        let good = "a = [ 1, 2 ]\n[[t]]\n".replace('a', "[[u]]\na");
        let text = format!("{}x = nonsense\n{}", good.repeat(3000), good.repeat(3000));
        let error = parse(&text, None).map(|_| ()).expect_err("an error");
        assert_eq!(error.span.start, text.find("nonsense").unwrap_or_default(), "{error:?}");
    }
}

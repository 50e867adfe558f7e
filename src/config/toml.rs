//! TOML as a tree with positions, made from the events of its parser.
//!
//! The text goes to the parser in pieces of whole expressions, so that its tokens never take more memory than the
//! tree. Which tables a text may define twice, and how, is the rule of the format and is kept here; a key that
//! stands twice is noted in its mapping, like one of YAML, and reading goes on.

use std::{borrow::Cow, sync::Arc};

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
    source::Source,
    tree::{Entry, Keys, Mapping, Node, Parsed, Span, SyntaxError, Value, Written, push},
};

/// A piece ends at the end of the first line on which it has so many tokens, and no bracket is open.
const PIECE: usize = 4096;

/// Reads a TOML text into a tree.
///
/// # Errors
/// The first place where the text is not TOML, or is TOML that a configuration cannot be. A key that stands twice is
/// no such place: it is noted in its mapping.
pub(super) fn parse(source: &Source) -> Result<Parsed, SyntaxError> {
    let text = Text::new(source.text());
    let mut builder = Builder::new(text);
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
        let is_whole = token.kind() == TokenKind::Newline && brackets == 0 && tokens.len() >= PIECE;
        // Space between two tokens of a value means nothing unless both are parts of one scalar, such as a date.
        let is_last_a_word = tokens.last().is_some_and(|last: &Token| is_word(last.kind()));
        if brackets > 0 && token.kind() == TokenKind::Whitespace && !is_last_a_word {
            continue;
        }
        tokens.push(token);
        if is_whole {
            builder.take(&tokens)?;
            tokens.clear();
        } else if tokens.len() / 2 > builder.budget.limit() {
            // One expression alone, of more tokens than its keys and values could need.
            return match builder.take(&tokens) {
                Err(error) if error.span.start < token.span().start() => Err(error),
                _ => Err(limits::too_many(span_of(token.span()))),
            };
        }
    }
    builder.take(&tokens)?;
    let mut root = builder.root;
    root.written = Written::AsValue;
    // Comments may come before the first key.
    let first = root.entries.iter().map(|entry| entry.key_span().start).min().unwrap_or_default();
    let start = first - source.offset_in_line(first);
    Ok(Parsed { root: Node::new(start..start, Value::Map(root.into())), mistakes: Capped::new() })
}

/// Whether a token can be a part of a key or a scalar that has several.
const fn is_word(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Atom | TokenKind::Dot)
}

fn span_of(span: TomlSpan) -> Span {
    span.start()..span.end()
}

/// What the parser reports, in words for the one who wrote the text.
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
        message: match expected.as_slice() {
            [] => format!("this is not TOML: {description}"),
            expected => format!("this is not TOML: {description}, expected {}", expected.join(", ")),
        },
        span: error.unexpected().map(span_of).unwrap_or_default(),
        hint: is_bare
            .iter()
            .any(|part| description.contains(part))
            .then(|| "put strings in quotes".to_owned()),
    }
}

/// The first of the errors.
#[derive(Default)]
struct FirstError(Option<SyntaxError>);

impl ErrorSink for FirstError {
    fn report_error(&mut self, error: ParseError) {
        self.0.get_or_insert_with(|| syntax_error(&error));
    }
}

/// One part of a dotted key.
struct Key {
    text: Arc<str>,
    span: Span,
}

/// A list or an inline table whose end has not come yet.
enum Open {
    List {
        start: usize,
        items: Vec<Node>,
    },
    /// With the key whose value it will be.
    Table {
        start: usize,
        mapping: Mapping,
        keys: Vec<Key>,
    },
}

struct Builder<'a> {
    text: Text<'a>,
    root: Mapping,
    /// The entries that lead from the root to the table of the last header; none when the header was refused.
    table: Option<Vec<usize>>,
    header_start: usize,
    /// The key that is being read, or whose value is.
    keys: Vec<Key>,
    open: Vec<Open>,
    names: Keys,
    budget: Budget,
    /// What the parser does not find.
    error: Option<SyntaxError>,
}

impl<'a> Builder<'a> {
    fn new(text: Text<'a>) -> Self {
        Self {
            text,
            root: Mapping::written(Written::ByHeader),
            table: Some(Vec::new()),
            header_start: 0,
            keys: Vec::new(),
            open: Vec::new(),
            names: Keys::default(),
            budget: Budget::new(text.input().len()),
            error: None,
        }
    }

    /// Takes some whole expressions.
    fn take(&mut self, tokens: &[Token]) -> Result<(), SyntaxError> {
        let mut first = FirstError::default();
        let text = self.text;
        parse_document(tokens, &mut ValidateWhitespace::new(self, text), &mut first);
        match (first.0, self.error.take()) {
            (Some(one), Some(other)) => Err(if other.span.start < one.span.start { other } else { one }),
            (Some(error), None) | (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    fn refuse(&mut self, error: SyntaxError) {
        self.error.get_or_insert(error);
    }

    /// Counts one more key or value; after a mistake nothing more is taken.
    fn counts(&mut self, span: &Span) -> bool {
        if self.error.is_none()
            && let Err(error) = self.budget.take(1, span)
        {
            self.error = Some(error);
        }
        self.error.is_none()
    }

    /// How deep what comes next is nested.
    fn depth(&self) -> usize {
        let open = self.open.iter().map(|open| match open {
            Open::List { .. } => 1,
            Open::Table { keys, .. } => keys.len().max(1),
        });
        self.table.as_ref().map_or(0, Vec::len) + open.sum::<usize>() + self.keys.len()
    }

    /// Whether one more list or table may be open.
    fn may_open(&mut self, span: TomlSpan) -> bool {
        let span = span_of(span);
        if self.depth() >= MAX_DEPTH {
            self.refuse(limits::too_deep(span));
            return false;
        }
        self.counts(&span)
    }

    fn begin_header(&mut self, span: TomlSpan) {
        self.keys.clear();
        self.table = None;
        self.header_start = span.start();
    }

    /// Makes the table that a header names the one that takes the keys below it.
    fn end_header(&mut self, span: TomlSpan, is_list: bool) {
        let mut keys = std::mem::take(&mut self.keys);
        let span = self.header_start..span.end();
        let Some(last) = keys.pop() else { return };
        if !self.counts(&span) {
            return;
        }
        match table_below(&mut self.root, keys, Written::ByHeaderBelow) {
            Ok((mut trail, parent)) => {
                if let Some(at) = header(parent, last, span, is_list) {
                    trail.push(at);
                    self.table = Some(trail);
                }
            }
            Err(error) => self.report(error),
        }
    }

    fn report(&mut self, error: Option<SyntaxError>) {
        if let Some(error) = error {
            self.refuse(error);
        }
    }

    /// Puts a whole value where it belongs.
    fn complete(&mut self, node: Node) {
        let (mapping, keys) = match self.open.last_mut() {
            Some(Open::List { items, .. }) => return push(items, node),
            Some(Open::Table { mapping, .. }) => (mapping, std::mem::take(&mut self.keys)),
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
        match table_below(mapping, keys, Written::ByDottedKey) {
            Ok((_, table)) => table.insert(last.text, last.span, node),
            Err(error) => self.report(error),
        }
    }
}

/// The table to which `trail` leads.
fn follow<'a>(mut table: &'a mut Mapping, trail: &[usize]) -> Option<&'a mut Mapping> {
    for at in trail {
        table = table_of(&mut table.entries.get_mut(*at)?.node)?;
    }
    Some(table)
}

/// The table that a value is, or the last one of a list of tables.
fn table_of(node: &mut Node) -> Option<&mut Mapping> {
    match &mut node.value {
        Value::Map(mapping) => Some(mapping),
        Value::List(items) => match &mut items.last_mut()?.value {
            Value::Map(mapping) if mapping.written != Written::AsValue => Some(mapping),
            _ => None,
        },
        _ => None,
    }
}

/// How the table that a value is came to be; none when nothing can be added to the value.
fn written(node: &Node) -> Option<Written> {
    let mapping = match &node.value {
        Value::Map(mapping) => mapping,
        Value::List(items) => match &items.last()?.value {
            Value::Map(mapping) => mapping,
            _ => return None,
        },
        _ => return None,
    };
    (mapping.written != Written::AsValue).then_some(mapping.written)
}

/// The table that `keys` name below `table`, and the way to it. What is missing on the way is made.
///
/// # Errors
/// Something else is there; without an error where it is noted as a key that stands twice.
fn table_below(
    mut table: &mut Mapping,
    keys: Vec<Key>,
    by: Written,
) -> Result<(Vec<usize>, &mut Mapping), Option<SyntaxError>> {
    let mut trail = Vec::with_capacity(keys.len() + 1);
    for key in keys {
        let at = match table.position(&key.text) {
            Some(at) => {
                let entry = &mut table.entries[at];
                match written(&entry.node) {
                    None => return Err(Some(cannot_be_extended(entry, key.span))),
                    Some(Written::ByHeader) if by == Written::ByDottedKey => {
                        table.repeat(key.text, key.span, at);
                        return Err(None);
                    }
                    Some(_) => {}
                }
                if by == Written::ByDottedKey
                    && let Some(below) = table_of(&mut entry.node)
                {
                    below.written = by;
                }
                at
            }
            None => {
                let below = Mapping::written(by);
                let node = Node::new(key.span.clone(), Value::Map(below.into()));
                table.insert(key.text, key.span, node);
                table.entries.len() - 1
            }
        };
        trail.push(at);
        table = table.entries.get_mut(at).and_then(|entry| table_of(&mut entry.node)).ok_or(None)?;
    }
    Ok((trail, table))
}

fn cannot_be_extended(entry: &Entry, span: Span) -> SyntaxError {
    let kind = match &entry.node.value {
        Value::Map(_) => "an inline table",
        Value::List(_) => "a list",
        _ => "a value",
    };
    SyntaxError {
        message: format!("this is not TOML: {kind} cannot be extended; this key already holds one"),
        span,
        hint: None,
    }
}

/// Makes the table of a header, or notes that its key is there already. Gives the entry of the table to which the
/// keys below the header belong.
fn header(parent: &mut Mapping, key: Key, span: Span, is_list: bool) -> Option<usize> {
    let table = Mapping::written(Written::ByHeader);
    let node = Node::new(span.clone(), Value::Map(table.into()));
    let Some(at) = parent.position(&key.text) else {
        let node = if is_list { Node::new(span, Value::List(vec![node])) } else { node };
        parent.insert(key.text, key.span, node);
        return Some(parent.entries.len() - 1);
    };
    let entry = &mut parent.entries[at];
    let by = written(&entry.node);
    match &mut entry.node.value {
        Value::List(items) if is_list && by.is_some() => {
            push(items, node);
            return Some(at);
        }
        Value::Map(mapping) if !is_list && by == Some(Written::ByHeaderBelow) => {
            mapping.written = Written::ByHeader;
            entry.node.set_span(span);
            entry.set_key_span(key.span);
            return Some(at);
        }
        _ => {}
    }
    let is_table = matches!(entry.node.value, Value::Map(_));
    parent.repeat(key.text, key.span, at);
    // What is wrong in the second of two tables is told too.
    (is_table && !is_list).then_some(at)
}

impl EventReceiver for Builder<'_> {
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
        self.open.push(Open::Table { start: span.start(), mapping: Mapping::default(), keys });
        may_open
    }

    fn inline_table_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        if let Some(Open::Table { start, mapping, keys }) = self.open.pop() {
            self.keys = keys;
            self.complete(Node::new(start..span.end(), Value::Map(mapping.into())));
        }
    }

    fn array_open(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) -> bool {
        let may_open = self.may_open(span);
        self.open.push(Open::List { start: span.start(), items: Vec::new() });
        may_open
    }

    fn array_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        if let Some(Open::List { start, items }) = self.open.pop() {
            self.complete(Node::new(start..span.end(), Value::List(items)));
        }
    }

    fn simple_key(&mut self, span: TomlSpan, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let place = span_of(span);
        if self.depth() >= MAX_DEPTH {
            return self.refuse(limits::too_deep(place));
        }
        if !self.counts(&place) {
            return;
        }
        let mut text = Cow::Borrowed("");
        if let Some(raw) = self.text.get(Event::new_unchecked(EventKind::SimpleKey, encoding, span)) {
            raw.decode_key(&mut text, error);
        }
        self.keys.push(Key { text: self.names.get(&text), span: place });
    }

    /// A key of several parts makes a table for each but the last.
    fn key_sep(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.counts(&span_of(span));
    }

    fn scalar(&mut self, span: TomlSpan, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let place = span_of(span);
        if !self.counts(&place) {
            return;
        }
        let mut text = Cow::Borrowed("");
        let Some(raw) = self.text.get(Event::new_unchecked(EventKind::Scalar, encoding, span)) else {
            return;
        };
        let value = match raw.decode_scalar(&mut text, error) {
            ScalarKind::String => Value::Text(text.into()),
            ScalarKind::Boolean(flag) => Value::Flag(flag),
            ScalarKind::Integer(radix) => match i64::from_str_radix(&text, radix.value()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number"),
            },
            ScalarKind::Float => Value::Other("a number"),
            ScalarKind::DateTime => {
                if let Err(wrong) = text.parse::<Datetime>() {
                    let message = format!("this is not TOML: {wrong}");
                    self.refuse(SyntaxError { message, span: place.clone(), hint: None });
                }
                Value::Other("a date or time")
            }
        };
        self.complete(Node::new(place, value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use serde_json::{Value as Json, json};

    use super::*;

    /// What a tree holds, as JSON; `None` when a key stands twice somewhere.
    fn json(node: &Node) -> Option<Json> {
        Some(match &node.value {
            Value::Null | Value::Wrong | Value::Ignored => Json::Null,
            Value::Flag(flag) => json!(flag),
            Value::Integer(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::Other(kind) => json!({ "other": kind }),
            Value::List(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
            Value::Map(mapping) if mapping.repeated().is_some_and(|keys| !keys.is_empty()) => return None,
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
        json(&parse(&Source::new(text.into())).ok()?.root)
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
            // The toml crate lets a longer key add to a table of a list, which no text may (TOML 1.1, "Array of Tables").
        6 => (key(2), value()).prop_map(|(key, value)| format!("{key} = {value}")),
            1 => select(vec!["# c", "", " \t", "a = 1 2", "= 1", "[a", "[]", "a", "a = ", "]", "x = [1", "y = {"])
                .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_is_read_as_the_toml_crate_reads_it(
            lines in prop::collection::vec(line(), 0..8),
            newline in select(vec!["\n", "\r\n"]),
        ) {
            let text = lines.join(newline);
            // Only the toml crate bounds a number while it reads.
            prop_assume!(!text.contains("9223372036854775808"));
            prop_assert_eq!(ours(&text), theirs(&text), "{}", text);
        }
    }

    #[test]
    fn pieces_of_a_text_are_read_like_the_whole() {
        let text: String = (0..5000)
            .map(|at| format!("[[nodes]] # {at}\nname = 'n{at}'\nlist = [\n 1,\n 2\n]\n\"t.{at}\" = \"\"\"\n[x\n\"\"\"\n"))
            .collect();
        assert!(ours(&text).is_some());
        assert_eq!(ours(&text), theirs(&text));
    }

    #[test]
    fn a_mistake_is_found_where_it_stands_in_whatever_piece() {
        let good = "a = [ 1, 2 ]\n[[t]]\n".replace('a', "[[u]]\na");
        let text = format!("{}x = nonsense\n{}", good.repeat(3000), good.repeat(3000));
        let error = parse(&Source::new(text.as_str().into())).map(|_| ()).expect_err("a mistake");
        assert_eq!(error.span.start, text.find("nonsense").unwrap_or_default(), "{error:?}");
    }
}

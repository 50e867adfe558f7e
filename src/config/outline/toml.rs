//! Finds the nodes in TOML.

use std::{borrow::Cow, ops::Range};

use toml_parser::{
    ErrorSink, ParseError, Source as Text, Span as TomlSpan,
    decoder::Encoding,
    parser::{Event, EventKind, EventReceiver, parse_document},
};

use super::{EntryPlace, ListLayout, NodePlace, Outline};
use crate::config::tree::NODES;

/// Finds the nodes of a valid configuration.
pub(super) fn outline(text: &str) -> Option<Outline> {
    let source = Text::new(text);
    let tokens = source.lex().into_vec();
    let mut walk = TomlWalk {
        text: source,
        table: CurrentTable::Root,
        header_start: 0,
        keys: Vec::new(),
        open: Vec::new(),
        outline: Outline { layout: ListLayout::Tables, nodes: Vec::new() },
    };
    let mut errors = HasErrors(false);
    parse_document(&tokens, &mut walk, &mut errors);
    (!errors.0 && !walk.outline.nodes.is_empty()).then_some(walk.outline)
}

struct HasErrors(bool);

impl ErrorSink for HasErrors {
    fn report_error(&mut self, _: ParseError) {
        self.0 = true;
    }
}

/// The object that the keys below the last header belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CurrentTable {
    Root,
    Node,
    Other,
}

/// The extent of a value.
struct TomlValue {
    range: Range<usize>,
    is_list: bool,
    scalars: Vec<Range<usize>>,
    /// The tables in a list, each with its keys.
    tables: Vec<(Range<usize>, Vec<EntryPlace>)>,
    /// The keys of an inline table.
    entries: Option<Vec<EntryPlace>>,
}

/// A list or an inline table that is still being read.
struct TomlOpen {
    value: TomlValue,
    /// The keys that it belongs to.
    keys: Vec<KeyPlace>,
}

struct KeyPlace {
    text: String,
    range: Range<usize>,
}

struct TomlWalk<'a> {
    text: Text<'a>,
    table: CurrentTable,
    header_start: usize,
    keys: Vec<KeyPlace>,
    open: Vec<TomlOpen>,
    outline: Outline,
}

impl TomlWalk<'_> {
    fn begin_header(&mut self, span: TomlSpan) {
        self.keys.clear();
        self.header_start = span.start();
    }

    fn end_header(&mut self, span: TomlSpan, is_list: bool) {
        let keys = std::mem::take(&mut self.keys);
        let is_below = keys.first().is_some_and(|key| key.text == NODES);
        if !is_below {
            self.table = CurrentTable::Other;
        } else if is_list && keys.len() == 1 {
            self.table = CurrentTable::Node;
            self.outline.nodes.push(node(self.header_start..span.end(), Vec::new(), false));
        } else if let Some(node) = self.outline.nodes.last_mut() {
            // A table of a node.
            node.is_shared = true;
            self.table = CurrentTable::Other;
        }
    }

    fn begin(&mut self, span: TomlSpan, entries: Option<Vec<EntryPlace>>) {
        let range = span.start()..span.end();
        let is_list = entries.is_none();
        let value = TomlValue { range, is_list, scalars: Vec::new(), tables: Vec::new(), entries };
        self.open.push(TomlOpen { value, keys: std::mem::take(&mut self.keys) });
    }

    fn end(&mut self, span: TomlSpan) {
        if let Some(TomlOpen { mut value, keys }) = self.open.pop() {
            value.range.end = span.end();
            self.keys = keys;
            self.complete(value);
        }
    }

    /// Adds a value to what it belongs to.
    fn complete(&mut self, value: TomlValue) {
        if let Some(TomlOpen { value: list, .. }) = self.open.last_mut()
            && list.is_list
        {
            match value.entries {
                Some(entries) => list.tables.push((value.range, entries)),
                None => list.scalars.extend(value.scalars),
            }
            return;
        }
        let mut keys = std::mem::take(&mut self.keys).into_iter();
        let (Some(key), None) = (keys.next(), keys.next()) else { return };
        if self.open.is_empty() && self.table == CurrentTable::Root && key.text == NODES {
            self.outline.layout = ListLayout::Flow;
            let tables = value.tables.into_iter();
            self.outline.nodes = tables.map(|(range, entries)| node(range, entries, true)).collect();
            return;
        }
        let entry = EntryPlace {
            key: key.text,
            key_range: key.range,
            range: value.range,
            scalars: value.scalars,
            is_list: value.is_list,
            is_shared: false,
        };
        if let Some(TomlOpen { value: TomlValue { entries: Some(entries), .. }, .. }) = self.open.last_mut() {
            entries.push(entry);
        } else if let (CurrentTable::Node, Some(node)) = (self.table, self.outline.nodes.last_mut()) {
            node.range.end = entry.range.end;
            node.entries.push(entry);
        }
    }
}

const fn node(range: Range<usize>, entries: Vec<EntryPlace>, is_inline: bool) -> NodePlace {
    NodePlace { range, lines: 0..0, entries, is_inline, is_shared: false, has_anchor: false }
}

impl EventReceiver for TomlWalk<'_> {
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
        self.begin(span, Some(Vec::new()));
        true
    }

    fn inline_table_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.end(span);
    }

    fn array_open(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) -> bool {
        self.begin(span, None);
        true
    }

    fn array_close(&mut self, span: TomlSpan, _: &mut dyn ErrorSink) {
        self.end(span);
    }

    fn simple_key(&mut self, span: TomlSpan, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut text = Cow::Borrowed("");
        if let Some(raw) = self.text.get(Event::new_unchecked(EventKind::SimpleKey, encoding, span)) {
            raw.decode_key(&mut text, error);
        }
        self.keys.push(KeyPlace { text: text.into_owned(), range: span.start()..span.end() });
    }

    fn scalar(&mut self, span: TomlSpan, _: Option<Encoding>, _: &mut dyn ErrorSink) {
        let range = span.start()..span.end();
        self.complete(TomlValue {
            scalars: vec![range.clone()],
            range,
            is_list: false,
            tables: Vec::new(),
            entries: None,
        });
    }
}

//! TOML, for serde and as a tree with positions.

use std::{collections::HashMap, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{
    capped::Capped,
    raw::RawConfig,
    source::Source,
    tree::{Entry, Mapping, Node, Parsed, Repeated, Span, SyntaxError, Value},
    yaml::Refused,
};

pub(super) fn deserialize(source: &str) -> Result<RawConfig, toml::de::Error> {
    toml::from_str(source)
}

pub(super) fn refused(error: &toml::de::Error) -> Refused {
    Refused { message: error.message().to_owned(), offset: error.span().map(|span| span.start) }
}

/// Reads a TOML text into a tree.
///
/// # Errors
/// The first place where the text is not TOML. A key that stands twice is no such place: it is noted in
/// its mapping.
pub(super) fn parse(source: &Source) -> Result<Parsed, SyntaxError> {
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let (repeated, broken): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|error| error.message() == "duplicate key");
    if let Some(error) = broken.first() {
        let message = error.message().trim_end_matches(", expected nothing");
        let is_bare = ["invalid float", "invalid integer", "invalid date", "must be quoted"];
        return Err(SyntaxError {
            message: format!("this is not TOML: {message}"),
            span: error.span().unwrap_or_default(),
            hint: is_bare
                .iter()
                .any(|part| message.contains(part))
                .then(|| "in TOML every string stands in quotes".to_owned()),
        });
    }
    let mut root = mapping(table.into_inner());
    let spans: Vec<Span> = repeated.iter().filter_map(toml::de::Error::span).collect();
    root.repeated = find_first(&root, &spans, source);
    // Comments may come before the first key.
    let first = root.entries.iter().map(|entry| entry.key_span.start).min().unwrap_or_default();
    let start = first - source.offset_in_line(first);
    Ok(Parsed { root: Node { span: start..start, value: Value::Map(root.into()) }, mistakes: Capped::new() })
}

fn mapping(table: DeTable<'_>) -> Mapping {
    let mut mapping = Mapping::default();
    for (key, value) in table {
        let key_span = key.span();
        let span = value.span();
        mapping.insert(
            key.into_inner().into(),
            key_span,
            Node { span: span.clone(), value: self::value(value.into_inner(), &span) },
        );
    }
    mapping
}

fn value(value: DeValue<'_>, span: &Range<usize>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number"),
        },
        DeValue::Float(_) => Value::Other("a number"),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| {
                    let item_span = item.span();
                    let span = if item_span.is_empty() { span.clone() } else { item_span };
                    Node { span: span.clone(), value: self::value(item.into_inner(), &span) }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Map(mapping(table).into()),
    }
}

/// The parser tells where a key stands for the second time, not where for the first: that is the
/// nearest place before it where the same key stands.
fn find_first(root: &Mapping, repeated: &[Span], source: &Source) -> Capped<Repeated> {
    let mut found = Capped::new();
    if repeated.is_empty() {
        return found;
    }
    let mut places: HashMap<&str, Vec<Span>> = HashMap::new();
    collect_keys(root, &mut places);
    // Of two tables of one name the tree has the second; the header of the first is found by its text.
    let mut start = 0;
    for line in source.text().split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            let header = line.trim();
            let indent = line.len() - line.trim_start().len();
            places.entry(header).or_default().push(start + indent..start + indent + header.len());
        }
        start += line.len();
    }
    for spans in places.values_mut() {
        spans.sort_by_key(|span| span.start);
    }
    for span in repeated {
        let key = source.slice(span).trim_matches(['"', '\'']);
        let line = span.start - source.offset_in_line(span.start);
        let header = source.slice(&source.rest_of_line(line)).trim_start();
        let nearest = |text: &str, before: usize| {
            let spans = places.get(text)?;
            spans.get(spans.partition_point(|other| other.start < before).checked_sub(1)?).cloned()
        };
        let first = if header.starts_with('[') { nearest(header, line) } else { None };
        let first = first.or_else(|| nearest(key, span.start));
        found.push(Repeated { key: key.into(), span: span.clone(), first });
    }
    found
}

fn collect_keys<'a>(mapping: &'a Mapping, places: &mut HashMap<&'a str, Vec<Span>>) {
    for Entry { key, key_span, node, .. } in &mapping.entries {
        places.entry(key).or_default().push(key_span.clone());
        collect_keys_of(node, places);
    }
}

fn collect_keys_of<'a>(node: &'a Node, places: &mut HashMap<&'a str, Vec<Span>>) {
    match &node.value {
        Value::Map(mapping) => collect_keys(mapping, places),
        Value::List(items) => items.iter().for_each(|item| collect_keys_of(item, places)),
        _ => {}
    }
}

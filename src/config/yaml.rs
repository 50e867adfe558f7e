//! Parses YAML into a tree with positions.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span as MarkerSpan, Tag};

use super::{
    builder::{Collection, TreeBuilder},
    scalar::ScalarForm,
    tree::{NodeReceiver, Parsed, Span, SyntaxError, TreeNode},
};
use crate::diagnose::Rule;

/// Parses any YAML text. The nodes go to the receiver; without one, the tree contains them.
///
/// # Errors
/// Returns the first syntax error, exceeded limit, or unsupported feature.
pub(super) fn parse<'a>(
    text: &'a str,
    receiver: Option<&mut dyn NodeReceiver<'a>>,
) -> Result<Parsed<'a>, SyntaxError> {
    let mut builder = TreeBuilder::new(text.len(), receiver);
    let mut offsets = Offsets::new(text);
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| offsets.error(&error))?;
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                return Err(second_document(offsets.span(span.start, span.end)));
            }
        }
        feed(&mut builder, &mut offsets, event, span)?;
    }
    let mut parsed = builder.finish(false);
    // The parser accepts them in comments and scalars.
    if let Some((at, character)) = text.char_indices().find(|(_, character)| is_unprintable(*character)) {
        parsed.errors.push(SyntaxError {
            rule: Rule::Syntax,
            message: "invalid YAML: control characters are not allowed".to_owned(),
            span: at..at + character.len_utf8(),
            hint: Some("remove it, or write it as an escape such as \"\\x1b\" in double quotes".to_owned()),
        });
    }
    Ok(parsed)
}

/// Parses every document of a YAML text, each with its own receiver. Returns them with their trees.
///
/// # Errors
/// Returns the first syntax error, exceeded limit, or unsupported feature.
pub(super) fn parse_documents<'a, R: NodeReceiver<'a>>(
    text: &'a str,
    mut receiver: impl FnMut() -> R,
) -> Result<Vec<(R, TreeNode<'a>)>, SyntaxError> {
    let mut offsets = Offsets::new(text);
    let mut documents = Vec::new();
    let mut events = Parser::new_from_str(text);
    loop {
        let mut receiver = receiver();
        let mut builder = TreeBuilder::new(text.len(), Some(&mut receiver));
        let mut is_whole = false;
        for event in events.by_ref() {
            let (event, span) = event.map_err(|error| offsets.error(&error))?;
            is_whole = matches!(event, Event::DocumentEnd);
            if is_whole {
                break;
            }
            feed(&mut builder, &mut offsets, event, span)?;
        }
        let parsed = builder.finish(false);
        if let Some(error) = parsed.errors.items().first() {
            return Err(error.clone());
        }
        if !is_whole {
            return Ok(documents);
        }
        documents.push((receiver, parsed.root));
    }
}

/// Passes an event inside a document to the builder.
fn feed<'a>(
    builder: &mut TreeBuilder<'a, '_>,
    offsets: &mut Offsets<'a>,
    event: Event<'a>,
    span: MarkerSpan,
) -> Result<(), SyntaxError> {
    let text = offsets.text;
    let mut place = || content_span(text, offsets.span(span.start, span.end));
    match event {
        Event::Scalar(content, style, anchor, tag) => {
            let span = place();
            let content = borrowed(text, &span, content);
            builder.scalar(content, form(style, tag.as_deref()), span, anchor)
        }
        Event::SequenceStart(anchor, _) => builder.begin(Collection::List, place(), anchor),
        Event::MappingStart(anchor, _) => builder.begin(Collection::Map, place(), anchor),
        Event::SequenceEnd | Event::MappingEnd => builder.end(),
        Event::Alias(anchor) => builder.alias(anchor, offsets.span(span.start, span.end)),
        Event::Nothing
        | Event::StreamStart
        | Event::StreamEnd
        | Event::DocumentStart(_)
        | Event::DocumentEnd => Ok(()),
    }
}

/// Returns `true` for characters that YAML forbids (YAML 1.2.2, section 5.1).
const fn is_unprintable(character: char) -> bool {
    matches!(character, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
}

fn form(style: ScalarStyle, tag: Option<&Tag>) -> ScalarForm<'_> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() => ScalarForm::CoreTag(&tag.suffix),
        Some(_) => ScalarForm::OtherTag,
        None if style == ScalarStyle::Plain => ScalarForm::Plain,
        None => ScalarForm::Quoted,
    }
}

/// Reduces the span of a scalar, or of the start of a collection, to what belongs to it: the parser includes line breaks
/// after a block scalar, and a comment after a quote or a bracket.
pub(super) fn content_span(text: &str, span: Span) -> Span {
    let written = slice(text, &span);
    let length = match written.as_bytes().first() {
        Some(b'[' | b'{') => 1,
        Some(quote @ (b'"' | b'\'')) => quoted_length(written, *quote),
        _ => written.trim_end().len(),
    };
    span.start..span.start + length
}

/// The length of the quoted scalar at the start of a text.
fn quoted_length(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'\\', _) if quote == b'"' => at += 1,
            (byte, Some(next)) if *byte == quote && *next == quote && quote == b'\'' => at += 1,
            (byte, _) if *byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.trim_end().len()
}

fn slice<'a>(text: &'a str, span: &Span) -> &'a str {
    text.get(span.clone()).unwrap_or_default()
}

/// Returns the content of a scalar as a part of the text, if it is written there as it is.
fn borrowed<'a>(text: &'a str, span: &Span, content: Cow<'a, str>) -> Cow<'a, str> {
    let written = slice(text, span);
    let inner = written.get(1..written.len().max(2) - 1).unwrap_or_default();
    match [written, inner].into_iter().find(|written| *written == content) {
        Some(written) => Cow::Borrowed(written),
        None => content,
    }
}

fn second_document(span: Span) -> SyntaxError {
    SyntaxError {
        rule: Rule::Syntax,
        message: "unexpected second YAML document: a configuration is a single document".to_owned(),
        span,
        hint: Some("use one file per cluster".to_owned()),
    }
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

/// Converts the offsets of the parser, which counts characters, to bytes. The events are in the order of the text, so it
/// is enough to continue from the last offset.
pub(super) struct Offsets<'a> {
    text: &'a str,
    is_ascii: bool,
    character: usize,
    byte: usize,
}

/// Returns a message of the parser that does not call a value a node, which is a machine in a configuration.
fn without_nodes(message: &str) -> String {
    message
        .replace("while parsing a node, did not find expected node content", "expected a value")
        .replace("while parsing node", "while parsing a value")
}

impl<'a> Offsets<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, is_ascii: text.is_ascii(), character: 0, byte: 0 }
    }

    /// Converts an error of the parser.
    fn error(&mut self, error: &ScanError) -> SyntaxError {
        SyntaxError {
            rule: Rule::Syntax,
            message: format!("invalid YAML: {}", without_nodes(error.info())),
            span: self.span(*error.marker(), *error.marker()),
            hint: hint_for(error.info()),
        }
    }

    pub fn span(&mut self, start: Marker, end: Marker) -> Span {
        let start = self.byte(start.index());
        start..self.byte(end.index()).max(start)
    }

    fn byte(&mut self, character: usize) -> usize {
        if self.is_ascii {
            return character.min(self.text.len());
        }
        let (before, after) = self.text.split_at_checked(self.byte).unwrap_or_default();
        if character < self.character {
            for passed in before.chars().rev().take(self.character - character) {
                self.byte -= passed.len_utf8();
                self.character -= 1;
            }
        } else {
            for passed in after.chars().take(character - self.character) {
                self.byte += passed.len_utf8();
                self.character += 1;
            }
        }
        self.byte
    }
}

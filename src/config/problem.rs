//! The errors in a configuration, as values and as text in the style of a compiler.

use std::{collections::HashMap, fmt};

use console::Style;

use super::{
    capped::Capped,
    source::{Position, Source},
    tree::{FoundNode, Span, SyntaxError, Value},
};
use crate::{
    diagnose::Rule,
    model::ConfigPath,
    text::{self, Untrusted, padded},
};

/// An error whose position in the text may still be unknown.
#[derive(Debug)]
pub(super) struct Problem {
    pub rule: Rule,
    pub message: String,
    pub location: Location,
    pub hint: Option<String>,
    pub related: Option<(String, Location)>,
}

/// The location of an error: a path, and a span if it is more precise.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub path: ConfigPath,
    pub span: Option<Span>,
    /// Whether to underline the key instead of its value.
    pub at_key: bool,
}

impl Location {
    pub const fn value(path: ConfigPath) -> Self {
        Self { path, span: None, at_key: false }
    }

    pub const fn key(path: ConfigPath) -> Self {
        Self { path, span: None, at_key: true }
    }

    pub const fn span(path: ConfigPath, span: Span) -> Self {
        Self { path, span: Some(span), at_key: false }
    }

    fn locate(&self, source: &Source, spots: &ErrorSpots) -> Option<Span> {
        if self.span.is_some() {
            return self.span.clone();
        }
        let spot = spots.get(&self.path)?;
        if self.at_key {
            return Some(spot.key_span.clone());
        }
        if spot.is_container && spot.span.is_empty() {
            return Some(source.rest_of_line(spot.span.start));
        }
        Some(spot.span.clone())
    }
}

/// The position of the value at a path.
#[derive(Debug, Clone)]
pub(super) struct ErrorSpot {
    span: Span,
    key_span: Span,
    is_container: bool,
}

/// The spots of the paths that errors refer to.
pub(super) type ErrorSpots = HashMap<ConfigPath, ErrorSpot>;

impl ErrorSpot {
    pub fn new(found: &FoundNode<'_, '_>) -> Self {
        let is_container = matches!(found.node.value, Value::Map(_) | Value::List(_) | Value::Nodes);
        Self { span: found.span.clone(), key_span: found.key_span.clone(), is_container }
    }
}

impl Problem {
    pub const fn new(rule: Rule, message: String, location: Location) -> Self {
        Self { rule, message, location, hint: None, related: None }
    }

    /// The paths whose spans are not known yet.
    pub fn unlocated(&self) -> impl Iterator<Item = &ConfigPath> {
        let related = self.related.as_ref().map(|(_, location)| location);
        let locations = std::iter::once(&self.location).chain(related);
        locations.filter(|location| location.span.is_none()).map(|location| &location.path)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn related(mut self, message: &str, location: Location) -> Self {
        self.related = Some((message.to_owned(), location));
        self
    }
}

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Self {
        Self {
            rule: error.rule,
            message: error.message,
            location: Location::span(ConfigPath::root(), error.span),
            hint: error.hint,
            related: None,
        }
    }
}

/// An error in a configuration.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// The rule that the configuration violates.
    pub rule: Rule,
    /// The error as one sentence without a period.
    pub message: String,
    /// The path of the invalid or missing value.
    pub path: ConfigPath,
    /// The position of the value, if known.
    pub position: Option<Position>,
    /// A suggested fix.
    pub hint: Option<String>,
    /// The second location of an error that involves two.
    pub related: Option<Related>,
    span: Option<Span>,
}

/// A location that is related to an error.
#[derive(Debug, Clone)]
pub struct Related {
    /// A label for the location, such as "first used here".
    pub message: String,
    /// The path of the value.
    pub path: ConfigPath,
    /// The position of the value, if known.
    pub position: Option<Position>,
    span: Option<Span>,
}

/// Every error in an invalid configuration.
///
/// `Display` prints the same as [`InvalidConfig::render`] without color.
#[derive(Debug, Clone)]
pub struct InvalidConfig {
    name: Untrusted,
    source: Source,
    errors: Capped<ConfigError>,
}

impl InvalidConfig {
    pub(super) fn new(
        name: &Untrusted,
        source: Source,
        spots: &ErrorSpots,
        problems: Capped<Problem>,
    ) -> Self {
        let mut errors = problems.map(|problem| locate(problem, &source, spots));
        errors.sort_by_key(|error| error.span.as_ref().map(|span| span.start));
        Self { name: name.clone(), source, errors }
    }

    /// The file name shown to the user.
    #[must_use]
    pub fn name(&self) -> &Untrusted {
        &self.name
    }

    /// The errors in the order of the file: at least 1, at most 100.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        self.errors.items()
    }

    /// The total number of errors.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.errors.items().len() + self.errors.omitted()
    }

    /// The number of errors that [`Self::errors`] omits.
    #[must_use]
    pub const fn omitted(&self) -> usize {
        self.errors.omitted()
    }

    /// Renders the errors as text: each with the source line underlined, and a total at the end.
    ///
    /// The text ends with a newline. It contains color escape sequences only if `color` is set. Control characters
    /// from the file are escaped.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, &ErrorPalette::new(color));
        text
    }

    fn write(&self, out: &mut impl fmt::Write, palette: &ErrorPalette) -> fmt::Result {
        for error in self.errors() {
            self.write_error(out, error, palette)?;
            out.write_char('\n')?;
        }
        if self.omitted() > 0 {
            writeln!(out, "… and {} more\n", self.omitted())?;
        }
        let count = self.count();
        let noun = if count == 1 { "error" } else { "errors" };
        let total = format!("{} is invalid: {count} {noun}", self.name);
        writeln!(out, "{}: {}", palette.error.apply_to("error"), palette.bold.apply_to(total))
    }

    fn write_error(
        &self,
        out: &mut impl fmt::Write,
        error: &ConfigError,
        palette: &ErrorPalette,
    ) -> fmt::Result {
        let message = printable(&error.message);
        let head = format!("error[{}]", error.rule);
        writeln!(out, "{}: {}", palette.error.apply_to(head), palette.bold.apply_to(message))?;
        let related = error.related.as_ref();
        let last = error.position.max(related.and_then(|related| related.position));
        let gutter = Gutter { width: last.map_or(1, |position| position.line.to_string().len()), palette };
        let name = &self.name;
        match error.position.zip(error.span.as_ref()) {
            Some((Position { line, column }, span)) => {
                writeln!(out, "{} {name}:{line}:{column}", gutter.sign("-->"))?;
                gutter.bare(out)?;
                let excerpt = Excerpt::new(&self.source, line, span);
                gutter.line(out, line, &excerpt.text)?;
                gutter.mark(out, &excerpt)?;
            }
            None if error.path.segments().is_empty() => writeln!(out, "{} {name}", gutter.sign("-->"))?,
            None => {
                let path = error.path.to_string();
                writeln!(out, "{} {name}: {}", gutter.sign("-->"), printable(&path))?;
            }
        }
        if let Some((related, Position { line, column })) = related.zip(related.and_then(|r| r.position)) {
            gutter.bare(out)?;
            writeln!(out, "{} {}: {name}:{line}:{column}", gutter.sign(":::"), related.message)?;
            let excerpt = Excerpt::new(&self.source, line, related.span.as_ref().unwrap_or(&(0..0)));
            gutter.line(out, line, &excerpt.text)?;
        } else if error.hint.is_some() {
            gutter.bare(out)?;
        }
        error.hint.as_ref().map_or(Ok(()), |hint| gutter.help(out, hint))
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &ErrorPalette::new(false))
    }
}

impl std::error::Error for InvalidConfig {}

fn locate(problem: Problem, source: &Source, spots: &ErrorSpots) -> ConfigError {
    let span = problem.location.locate(source, spots);
    let position_of = |span: &Option<Span>| span.as_ref().map(|span| source.position(span.start));
    let related = problem.related.map(|(message, location)| {
        let span = location.locate(source, spots);
        Related { message, path: location.path, position: position_of(&span), span }
    });
    ConfigError {
        rule: problem.rule,
        message: problem.message,
        path: problem.location.path,
        position: position_of(&span),
        hint: problem.hint,
        related,
        span,
    }
}

struct ErrorPalette {
    error: Style,
    gutter: Style,
    bold: Style,
}

impl ErrorPalette {
    fn new(color: bool) -> Self {
        let style = || Style::new().force_styling(color).bold();
        Self { error: style().red(), gutter: style().blue(), bold: style() }
    }
}

/// The column with the line numbers.
struct Gutter<'a> {
    width: usize,
    palette: &'a ErrorPalette,
}

impl Gutter<'_> {
    fn sign(&self, sign: &str) -> String {
        format!("{}{}", padded("", self.width), self.palette.gutter.apply_to(sign))
    }

    fn bare(&self, out: &mut impl fmt::Write) -> fmt::Result {
        writeln!(out, "{}", self.sign(" |"))
    }

    fn line(&self, out: &mut impl fmt::Write, number: usize, text: &str) -> fmt::Result {
        let number = number.to_string();
        let number = format!("{}{number} |", padded("", self.width.saturating_sub(number.len())));
        let space = if text.is_empty() { "" } else { " " };
        writeln!(out, "{}{space}{text}", self.palette.gutter.apply_to(number))
    }

    fn mark(&self, out: &mut impl fmt::Write, excerpt: &Excerpt) -> fmt::Result {
        let carets = "^".repeat(excerpt.width);
        let indent = " ".repeat(excerpt.indent);
        writeln!(out, "{} {indent}{}", self.sign(" |"), self.palette.error.apply_to(carets))
    }

    fn help(&self, out: &mut impl fmt::Write, hint: &str) -> fmt::Result {
        writeln!(out, "{} {}: {}", self.sign(" ="), self.palette.bold.apply_to("help"), printable(hint))
    }
}

/// A source line as displayed, and the part to underline, in terminal columns.
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    /// The maximum number of columns shown before and after the start of the underlined part.
    const BEFORE: usize = 100;
    const AFTER: usize = 80;
    const ELLIPSIS: &str = "…";

    fn new(source: &Source, line: usize, span: &Span) -> Self {
        let text = source.line(line);
        let at = source.offset_in_line(span.start).min(text.len());
        let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
        let shown = fit(before.chars().rev(), Self::BEFORE);
        let mut text = if shown < before.len() { Self::ELLIPSIS.to_owned() } else { String::new() };
        text.push_str(&printable(&before[before.len() - shown..]));
        let indent = console::measure_text_width(&text);
        let shown = fit(after.chars(), Self::AFTER);
        let marked = printable(after.get(..span.len().min(shown)).unwrap_or_default());
        text.push_str(&printable(&after[..shown]));
        if shown < after.len() {
            text.push_str(Self::ELLIPSIS);
        }
        Self { text: text.trim_end().to_owned(), indent, width: console::measure_text_width(&marked).max(1) }
    }
}

/// The number of bytes of `characters` that fit in `columns` when displayed.
fn fit(characters: impl Iterator<Item = char>, columns: usize) -> usize {
    let (mut used, mut bytes) = (0, 0);
    for character in characters {
        used += match character {
            ' '..='~' => 1,
            _ => console::measure_text_width(&printable(character.encode_utf8(&mut [0; 4]))),
        };
        if used > columns {
            break;
        }
        bytes += character.len_utf8();
    }
    bytes
}

fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    text.chars().for_each(|character| push_printable(&mut printable, character));
    printable
}

/// Expands tabs so that underlines align, and escapes everything else as usual.
fn push_printable(text: &mut String, character: char) {
    match character {
        '\t' => text.push_str("    "),
        other => text::push_printable(text, other),
    }
}

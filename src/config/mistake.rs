//! What is wrong with a configuration, as a value and as text in the manner of compilers.

use std::fmt;

use console::Style;

use super::{
    capped::Capped,
    source::{Position, Source},
    tree::{Node, Span, SyntaxError, Value},
};
use crate::{
    model::ConfigPath,
    text::{self, Untrusted, padded},
};

/// A mistake before it is known where in the text it stands.
#[derive(Debug)]
pub(super) struct Finding {
    pub message: String,
    pub place: Place,
    pub hint: Option<String>,
    pub related: Option<(String, Place)>,
}

/// A place by its path, and by its extent in the text where that is known better.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub path: ConfigPath,
    pub span: Option<Span>,
    /// Point at the key, not at its value.
    pub at_key: bool,
}

impl Place {
    pub const fn value(path: ConfigPath) -> Self {
        Self { path, span: None, at_key: false }
    }

    pub const fn key(path: ConfigPath) -> Self {
        Self { path, span: None, at_key: true }
    }

    pub const fn span(path: ConfigPath, span: Span) -> Self {
        Self { path, span: Some(span), at_key: false }
    }

    fn locate(&self, source: &Source, root: Option<&Node>) -> Option<Span> {
        if self.span.is_some() {
            return self.span.clone();
        }
        let found = root?.find(&self.path);
        if self.at_key {
            return Some(found.key_span);
        }
        let is_container = matches!(found.node.value, Value::Map(_) | Value::List(_));
        if is_container && found.span.is_empty() {
            return Some(source.rest_of_line(found.span.start));
        }
        Some(found.span)
    }
}

impl Finding {
    pub const fn new(message: String, place: Place) -> Self {
        Self { message, place, hint: None, related: None }
    }

    /// Whether its places are known without looking for them.
    pub fn is_placed(&self) -> bool {
        let related = self.related.as_ref().map(|(_, place)| place);
        std::iter::once(&self.place).chain(related).all(|place| place.span.is_some())
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn related(mut self, message: &str, place: Place) -> Self {
        self.related = Some((message.to_owned(), place));
        self
    }
}

impl From<SyntaxError> for Finding {
    fn from(error: SyntaxError) -> Self {
        Self {
            message: error.message,
            place: Place::span(ConfigPath::root(), error.span),
            hint: error.hint,
            related: None,
        }
    }
}

/// One mistake in a configuration.
#[derive(Debug, Clone)]
pub struct Mistake {
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// Which value is wrong, or where one is missing.
    pub path: ConfigPath,
    /// Where it stands, as far as that is known.
    pub position: Option<Position>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The other place of a mistake that needs two.
    pub related: Option<Related>,
    span: Option<Span>,
}

/// A place that a mistake has to do with.
#[derive(Debug, Clone)]
pub struct Related {
    /// What is there, as in "first used here".
    pub message: String,
    /// Which value.
    pub path: ConfigPath,
    /// Where it stands.
    pub position: Option<Position>,
    span: Option<Span>,
}

/// A configuration that cannot be used, with everything that is wrong with it.
///
/// `Display` is [`Invalid::render`] without colour.
#[derive(Debug, Clone)]
pub struct Invalid {
    name: Untrusted,
    source: Source,
    mistakes: Capped<Mistake>,
}

impl Invalid {
    pub(super) fn new(
        name: &Untrusted,
        source: Source,
        root: Option<&Node>,
        findings: Capped<Finding>,
    ) -> Self {
        let mut mistakes = findings.map(|finding| locate(finding, &source, root));
        mistakes.sort_by_key(|mistake| mistake.span.as_ref().map(|span| span.start));
        Self { name: name.clone(), source, mistakes }
    }

    /// The name of the file, as shown to the user.
    #[must_use]
    pub fn name(&self) -> &Untrusted {
        &self.name
    }

    /// The mistakes in the order of the file, 100 at most; never none.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        self.mistakes.items()
    }

    /// How many mistakes there are in all.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.mistakes.items().len() + self.mistakes.more()
    }

    /// How many more mistakes there are than [`Self::mistakes`] has.
    #[must_use]
    pub const fn more(&self) -> usize {
        self.mistakes.more()
    }

    /// The mistakes as text: each with its line and a mark under what is wrong, their number at the end.
    /// Ends with a newline. Escape sequences for colour are in it only when `colour` says so; what could
    /// drive a terminal in the file itself is escaped.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text, &Paint::new(colour));
        text
    }

    fn write(&self, out: &mut impl fmt::Write, paint: &Paint) -> fmt::Result {
        for mistake in self.mistakes() {
            self.write_mistake(out, mistake, paint)?;
            out.write_char('\n')?;
        }
        if self.more() > 0 {
            writeln!(out, "and {} more\n", self.more())?;
        }
        let count = self.count();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        let total = format!("{} is invalid: {count} {noun}", self.name);
        writeln!(out, "{}: {}", paint.error.apply_to("error"), paint.bold.apply_to(total))
    }

    fn write_mistake(&self, out: &mut impl fmt::Write, mistake: &Mistake, paint: &Paint) -> fmt::Result {
        let message = printable(&mistake.message);
        writeln!(out, "{}: {}", paint.error.apply_to("error"), paint.bold.apply_to(message))?;
        let related = mistake.related.as_ref();
        let last = mistake.position.max(related.and_then(|related| related.position));
        let gutter = Gutter { width: last.map_or(1, |position| position.line.to_string().len()), paint };
        let name = &self.name;
        match mistake.position.zip(mistake.span.as_ref()) {
            Some((Position { line, column }, span)) => {
                writeln!(out, "{} {name}:{line}:{column}", gutter.sign("-->"))?;
                gutter.bare(out)?;
                let excerpt = Excerpt::new(&self.source, line, span);
                gutter.line(out, line, &excerpt.text)?;
                gutter.mark(out, &excerpt)?;
            }
            None if mistake.path.segments().is_empty() => writeln!(out, "{} {name}", gutter.sign("-->"))?,
            None => {
                let path = mistake.path.to_string();
                writeln!(out, "{} {name}: {}", gutter.sign("-->"), printable(&path))?;
            }
        }
        if let Some((related, Position { line, column })) = related.zip(related.and_then(|r| r.position)) {
            gutter.bare(out)?;
            writeln!(out, "{} {}: {name}:{line}:{column}", gutter.sign(":::"), related.message)?;
            let excerpt = Excerpt::new(&self.source, line, related.span.as_ref().unwrap_or(&(0..0)));
            gutter.line(out, line, &excerpt.text)?;
        } else if mistake.hint.is_some() {
            gutter.bare(out)?;
        }
        mistake.hint.as_ref().map_or(Ok(()), |hint| gutter.help(out, hint))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Paint::new(false))
    }
}

impl std::error::Error for Invalid {}

fn locate(finding: Finding, source: &Source, root: Option<&Node>) -> Mistake {
    let span = finding.place.locate(source, root);
    let position_of = |span: &Option<Span>| span.as_ref().map(|span| source.position(span.start));
    let related = finding.related.map(|(message, place)| {
        let span = place.locate(source, root);
        Related { message, path: place.path, position: position_of(&span), span }
    });
    Mistake {
        message: finding.message,
        path: finding.place.path,
        position: position_of(&span),
        hint: finding.hint,
        related,
        span,
    }
}

struct Paint {
    error: Style,
    gutter: Style,
    bold: Style,
}

impl Paint {
    fn new(colour: bool) -> Self {
        let style = || Style::new().force_styling(colour).bold();
        Self { error: style().red(), gutter: style().blue(), bold: style() }
    }
}

/// The column of line numbers.
struct Gutter<'a> {
    width: usize,
    paint: &'a Paint,
}

impl Gutter<'_> {
    fn sign(&self, sign: &str) -> String {
        format!("{}{}", padded("", self.width), self.paint.gutter.apply_to(sign))
    }

    fn bare(&self, out: &mut impl fmt::Write) -> fmt::Result {
        writeln!(out, "{}", self.sign(" |"))
    }

    fn line(&self, out: &mut impl fmt::Write, number: usize, text: &str) -> fmt::Result {
        let number = number.to_string();
        let number = format!("{}{number} |", padded("", self.width.saturating_sub(number.len())));
        let space = if text.is_empty() { "" } else { " " };
        writeln!(out, "{}{space}{text}", self.paint.gutter.apply_to(number))
    }

    fn mark(&self, out: &mut impl fmt::Write, excerpt: &Excerpt) -> fmt::Result {
        let carets = "^".repeat(excerpt.width);
        let indent = " ".repeat(excerpt.indent);
        writeln!(out, "{} {indent}{}", self.sign(" |"), self.paint.error.apply_to(carets))
    }

    fn help(&self, out: &mut impl fmt::Write, hint: &str) -> fmt::Result {
        writeln!(out, "{} {}: {}", self.sign(" ="), self.paint.bold.apply_to("help"), printable(hint))
    }
}

/// A line as it is shown, and the part of it to mark, in columns of a terminal.
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    /// What is shown of a line before and after the beginning of the mark.
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

/// How many bytes of these characters fit in `columns` when they are shown.
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

/// Tabs become spaces, so that marks align; the rest as everywhere.
fn push_printable(text: &mut String, character: char) {
    match character {
        '\t' => text.push_str("    "),
        other => text::push_printable(text, other),
    }
}

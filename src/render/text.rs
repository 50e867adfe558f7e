//! Renders a plan for a terminal: a diff with its symbols in column 0, followed by the totals and the removed names.

use std::{borrow::Borrow, collections::VecDeque, fmt::Write as _};

use console::Style;
use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::{
    ChangeEntry, Report, SourceLocation,
    report::{ConflictEntry, FindingEntry, NatKind, NatPlace, Object, ReasonEntry},
};
use crate::{
    diagnose::Severity,
    model::Family,
    plan::Action,
    progress::Task,
    state::{ObjectKind, Unknown, Word, join_words},
    text::{self, Printable, printable, push_spaces, text_width},
};

/// The maximum width of an object whose reason is aligned with the others.
const MAX_ALIGNED_WIDTH: usize = 76;

/// The characters in column 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbols {
    pub change: char,
    pub unknown: char,
}

impl Symbols {
    pub const ADD: char = '+';
    pub const REMOVE: char = '-';
    pub const CONFLICT: char = '!';
    /// For a terminal.
    const TERMINAL: Self = Self { change: '~', unknown: '?' };
    /// For a fenced block of the language `diff`, which colors only some symbols.
    pub const DIFF: Self = Self { change: '!', unknown: '!' };

    pub(super) const fn of(self, action: Action) -> char {
        match action {
            Action::Add => Self::ADD,
            Action::Update => self.change,
            Action::Remove => Self::REMOVE,
        }
    }
}

/// The colors, the symbols, and the available width.
#[derive(Debug, Clone)]
pub struct Palette {
    pub(super) symbols: Symbols,
    /// Whether the styles have colors.
    is_colored: bool,
    /// The columns of the terminal. Lines are unlimited if the output is not a terminal.
    pub width: usize,
    /// Unchanged text.
    pub plain: Style,
    /// Section headings.
    pub head: Style,
    /// Added objects.
    pub add: Style,
    /// Changed objects.
    pub change: Style,
    /// Removed objects.
    pub remove: Style,
    /// Conflicts.
    pub conflict: Style,
    /// Secondary text.
    pub dim: Style,
}

impl Palette {
    /// Creates the palette of hostgw, without colors unless `colored` is set.
    #[must_use]
    pub fn new(colored: bool) -> Self {
        let style = || Style::new().force_styling(colored);
        Self {
            symbols: Symbols::TERMINAL,
            is_colored: colored,
            width: usize::MAX,
            plain: style(),
            head: style().bold(),
            add: style().green(),
            change: style().yellow(),
            remove: style().red(),
            conflict: style().red().bold(),
            dim: style().dim(),
        }
    }

    /// Returns the palette for a fenced block of the language `diff`.
    #[must_use]
    pub(super) fn for_diff() -> Self {
        Self { symbols: Symbols::DIFF, ..Self::new(false) }
    }

    /// Returns the style of an action.
    pub(super) const fn style(&self, action: Action) -> &Style {
        match action {
            Action::Add => &self.add,
            Action::Update => &self.change,
            Action::Remove => &self.remove,
        }
    }

    /// Returns the style, unless the output has no colors: then, text is much faster to append without one.
    fn paint<'a>(&self, style: &'a Style) -> Option<&'a Style> {
        self.is_colored.then_some(style)
    }

    /// Sets the number of columns of the terminal.
    #[must_use]
    pub fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }
}

/// Renders the plan as text that ends with a newline.
#[must_use]
pub fn text(report: &Report, palette: &Palette) -> String {
    text_of(report.changes.iter(), report, palette)
}

/// Renders a plan whose changes are not kept; `rest` contains everything else. A large plan takes much less memory this
/// way.
#[must_use]
pub fn text_of(
    changes: impl Iterator<Item: Borrow<ChangeEntry>>,
    rest: &Report,
    palette: &Palette,
) -> String {
    let _task = Task::begin("formatting");
    let mut sections: Vec<(Option<ObjectKind>, LineBuffer)> =
        kinds().map(|kind| (kind, LineBuffer::default())).collect();
    let mut removed = RemovedNames::default();
    for entry in changes {
        let entry = entry.borrow();
        removed.add(entry);
        if let Some((_, section)) = sections.iter_mut().find(|(kind, _)| *kind == Some(entry.kind)) {
            section.push_change(entry, palette);
        }
    }
    let mut text = String::new();
    for (kind, section) in &mut sections {
        let conflicts = rest.conflicts.iter().filter(|conflict| Some(conflict.kind) == *kind);
        let conflicts = conflicts.flat_map(|conflict| conflict_lines(conflict, palette));
        let unknown = rest.unknown.iter().filter(|unknown| ObjectKind::of(&unknown.part) == *kind);
        let unknown = unknown.map(|unknown| unknown_line(unknown, palette));
        conflicts.chain(unknown).for_each(|line| section.push(&line));
        let section = std::mem::take(section);
        if !section.is_empty() {
            let _ = writeln!(text, "{}", palette.head.apply_to(title(*kind)));
            section.put(&mut text, palette);
            text.push('\n');
        }
    }
    put_summary(&mut text, rest, &removed.finish(), palette);
    text
}

/// The sections of a plan in their order. The last one is not about objects, but about the records.
fn kinds() -> impl Iterator<Item = Option<ObjectKind>> {
    ObjectKind::ALL.into_iter().map(Some).chain([None])
}

fn title(kind: Option<ObjectKind>) -> &'static str {
    kind.map_or("Records", ObjectKind::title)
}

/// Renders the plan as names and counts. The text ends with a newline.
#[must_use]
pub fn plan_summary(report: &Report, palette: &Palette) -> String {
    let mut text = String::new();
    for kind in kinds() {
        let entries = || report.changes.iter().filter(|entry| Some(entry.kind) == kind);
        let mut lines: Vec<String> = [Action::Add, Action::Update, Action::Remove]
            .into_iter()
            .filter_map(|action| {
                let names = names(entries().filter(|entry| entry.action == action));
                let symbol = palette.symbols.of(action);
                let line = format!("{symbol} {}: {}", names.len(), names.join(", "));
                (!names.is_empty()).then(|| palette.style(action).apply_to(line).to_string())
            })
            .collect();
        let conflicts = report.conflicts.iter().filter(|conflict| Some(conflict.kind) == kind);
        let foreign: Vec<String> = conflicts
            .flat_map(|conflict| &conflict.foreign)
            .map(|object| printable(&object.name()))
            .collect();
        if !foreign.is_empty() {
            let line = format!("! {}: {}", foreign.len(), foreign.join(", "));
            lines.push(palette.conflict.apply_to(line).to_string());
        }
        let unknown = report.unknown.iter().filter(|unknown| ObjectKind::of(&unknown.part) == kind);
        lines.extend(unknown.map(|unknown| {
            let line = format!("{} {}", palette.symbols.unknown, printable(&unknown.part.to_string()));
            palette.conflict.apply_to(line).to_string()
        }));
        if !lines.is_empty() {
            let _ = writeln!(text, "{}\n{}\n", palette.head.apply_to(title(kind)), lines.join("\n"));
        }
    }
    let _ = writeln!(text, "{}", palette.head.apply_to(totals(report)));
    text
}

/// The names of the changed objects.
fn names<'a>(entries: impl Iterator<Item = &'a ChangeEntry>) -> Vec<String> {
    let objects = entries.filter_map(|entry| entry.after.as_ref().or(entry.before.as_ref()));
    objects.map(|object| printable(&object.name())).collect()
}

/// A part of the live state that could not be read, and the reason.
pub(super) fn unknown_line(unknown: &Unknown, palette: &Palette) -> Line {
    Line {
        text: palette.conflict.apply_to(format!("{} {}", palette.symbols.unknown, unknown.part)).to_string(),
        annotation: format!("unknown: {}", unknown.reason),
    }
}

/// The lines under a heading.
#[derive(Default)]
pub(super) struct Section {
    pub lines: Vec<Line>,
}

/// An object and its annotation. Tabs, which printable text never contains, separate the columns.
#[derive(Clone)]
pub(super) struct Line {
    pub text: String,
    pub annotation: String,
}

impl Section {
    pub(super) fn print(&self, title: &str, palette: &Palette) -> String {
        let mut text = format!("{}\n", palette.head.apply_to(title));
        let layout = Layout::of(self.lines(), palette);
        for (object, annotation) in self.lines() {
            layout.put(&mut text, object, annotation);
            text.push('\n');
        }
        text
    }

    /// Returns the lines with aligned columns and annotations.
    pub(super) fn aligned(&self, palette: &Palette) -> Vec<String> {
        let layout = Layout::of(self.lines(), palette);
        let aligned = |(object, annotation)| {
            let mut text = String::new();
            layout.put(&mut text, object, annotation);
            text
        };
        self.lines().map(aligned).collect()
    }

    fn lines(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.lines.iter().map(|line| (line.text.as_str(), line.annotation.as_str()))
    }
}

/// Lines in a few texts: a large plan has far too many of them for a text each.
#[derive(Default)]
struct LineBuffer {
    blocks: VecDeque<LineBlock>,
    /// Reused for the columns of each route.
    columns: [String; 4],
}

/// Some lines in one text.
#[derive(Default)]
struct LineBlock {
    text: String,
    /// The ends of the object and of the annotation of each line.
    ends: Vec<(usize, usize)>,
}

impl LineBuffer {
    /// The length of a block in bytes, from which on lines go to the next one.
    const BLOCK: usize = 1 << 18;

    fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the block for the next line, and the reused columns.
    fn last(&mut self) -> (&mut LineBlock, &mut [String; 4]) {
        if self.blocks.back().is_none_or(|block| block.text.len() >= Self::BLOCK) {
            self.blocks.push_back(LineBlock::default());
        }
        let last = self.blocks.len() - 1;
        (&mut self.blocks[last], &mut self.columns)
    }

    fn push(&mut self, line: &Line) {
        let (LineBlock { text, ends }, _) = self.last();
        text.push_str(&line.text);
        let end = text.len();
        text.push_str(&line.annotation);
        ends.push((end, text.len()));
    }

    fn push_change(&mut self, entry: &ChangeEntry, palette: &Palette) {
        let (LineBlock { text, ends }, columns) = self.last();
        put_change(text, columns, entry, palette);
        let end = text.len();
        put_reason(text, &entry.reason);
        ends.push((end, text.len()));
    }

    /// Appends the lines with aligned columns and annotations. Each block is freed as soon as its lines are in the text, so
    /// that a large plan is never in memory twice.
    fn put(mut self, text: &mut String, palette: &Palette) {
        let layout = Layout::of(self.blocks.iter().flat_map(LineBlock::lines), palette);
        while let Some(block) = self.blocks.pop_front() {
            for (object, annotation) in block.lines() {
                layout.put(text, object, annotation);
                text.push('\n');
            }
        }
    }
}

impl LineBlock {
    /// Iterates over the objects and annotations.
    fn lines(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let part = |from: usize, to: usize| self.text.get(from..to).unwrap_or_default();
        starts.zip(&self.ends).map(move |(start, (object, end))| (part(start, *object), part(*object, *end)))
    }
}

/// The positions of columns and annotations in some lines.
struct Layout<'p> {
    columns: Columns,
    /// The width of the widest object whose annotation is aligned with the others.
    widest: usize,
    palette: &'p Palette,
}

impl<'p> Layout<'p> {
    /// Returns the layout of lines, given as objects and annotations.
    fn of<'a>(lines: impl Iterator<Item = (&'a str, &'a str)> + Clone, palette: &'p Palette) -> Self {
        let columns = Columns::of(lines.clone().map(|(object, _)| object));
        let widths = lines.map(|(object, _)| columns.width_of(object));
        let widest = widths.filter(|width| *width <= MAX_ALIGNED_WIDTH).max().unwrap_or(0);
        Self { columns, widest, palette }
    }

    /// Appends a line. An annotation that does not fit moves to a line of its own.
    fn put(&self, text: &mut String, object: &str, annotation: &str) {
        let width = self.columns.put(text, object);
        if annotation.is_empty() {
            return;
        }
        let column = self.widest.max(width) + 2;
        let fits = column + "# ".len() + text_width(annotation) <= self.palette.width;
        if fits {
            push_spaces(text, column - width);
        } else {
            text.push_str("\n    ");
        }
        match self.palette.paint(&self.palette.dim) {
            Some(style) => {
                let _ = write!(text, "{}", style.apply_to(format_args!("# {annotation}")));
            }
            None => text.extend(["# ", annotation]),
        }
    }
}

/// Aligns tab-separated cells and drops columns that are empty in every line.
pub(super) fn align_columns<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let columns = Columns::of(lines.clone());
    let aligned = |line| {
        let mut text = String::new();
        columns.put(&mut text, line);
        text
    };
    lines.map(aligned).collect()
}

/// The widths of the columns of some lines of tab-separated cells. Columns that are empty in every line have the width 0,
/// and are dropped. A line without tabs has no columns.
struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// A very wide cell does not widen its column for all other lines.
    fn of<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut widths: Vec<usize> = Vec::new();
        for line in lines.filter(|line| line.contains('\t')) {
            for (at, cell) in line.split('\t').enumerate() {
                let width = text_width(cell).min(MAX_ALIGNED_WIDTH);
                match widths.get_mut(at) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        Self { widths }
    }

    /// Iterates over the cells of a line that are not dropped. Each has the number of spaces before it.
    fn cells<'a>(&self, line: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let is_row = line.contains('\t');
        let (mut gap, mut is_first) = (0, true);
        line.split('\t').zip(self.widths.iter().copied().chain(std::iter::repeat(0))).filter_map(
            move |(cell, width)| {
                if is_row && width == 0 {
                    return None;
                }
                gap += usize::from(!std::mem::take(&mut is_first));
                let missing = width.saturating_sub(text_width(cell));
                // Spaces at the end of a line are not printed.
                if cell.is_empty() {
                    gap += missing;
                    return None;
                }
                Some((std::mem::replace(&mut gap, missing), cell))
            },
        )
    }

    fn width_of(&self, line: &str) -> usize {
        self.cells(line).map(|(gap, cell)| gap + text_width(cell)).sum()
    }

    /// Appends a line, and returns its width.
    fn put(&self, text: &mut String, line: &str) -> usize {
        let mut width = 0;
        for (gap, cell) in self.cells(line) {
            push_spaces(text, gap);
            text.push_str(cell);
            width += gap + text_width(cell);
        }
        width
    }
}

/// The words of an object in columns, if it has columns.
fn cells(object: &Object) -> Option<[Vec<Word>; 4]> {
    let words = match object {
        Object::Route(_) | Object::SharedRoute { .. } => object.route_words()?,
        Object::WindowsRoute(route) => route.words(),
        Object::Sysctl { .. } | Object::Text { .. } => return None,
    };
    let mut cells = [const { Vec::new() }; 4];
    for word in words {
        cells[word.column as usize].push(word);
    }
    Some(cells)
}

/// A change with its symbol and reason.
pub(super) fn change_line(entry: &ChangeEntry, palette: &Palette) -> Line {
    let (mut text, mut annotation) = (String::new(), String::new());
    put_change(&mut text, &mut Default::default(), entry, palette);
    put_reason(&mut annotation, &entry.reason);
    Line { text, annotation }
}

/// Appends a change with its symbol. Overwrites `columns`.
fn put_change(text: &mut String, columns: &mut [String; 4], entry: &ChangeEntry, palette: &Palette) {
    match (entry.action, &entry.before, &entry.after) {
        (Action::Update, Some(before), Some(after)) => {
            let inline_diff = match (cells(before), cells(after), before, after) {
                (Some(before), Some(after), ..) => {
                    let columns = before.into_iter().zip(after).enumerate();
                    let cells = columns.map(|(at, (before, after))| {
                        // The destination identifies the route.
                        let same = if at == 0 { &palette.plain } else { &palette.dim };
                        inline_diff(&before, &after, same, palette)
                    });
                    cells.collect::<Vec<_>>().join("\t")
                }
                (.., Object::Sysctl { value: old, .. }, Object::Sysctl { key, value: new }) => {
                    format!("{key}\t= {}", arrow(old.as_raw(), new.as_raw(), palette))
                }
                _ => {
                    let words = |text: &str| text.split(' ').map(Word::plain).collect::<Vec<_>>();
                    inline_diff(&words(&before.text()), &words(&after.text()), &palette.dim, palette)
                }
            };
            let _ = write!(text, "{} {inline_diff}", palette.change.apply_to(palette.symbols.change));
        }
        (Action::Remove, Some(object), _) => {
            put_colored(text, columns, Symbols::REMOVE, object, palette.paint(&palette.remove));
        }
        (_, _, Some(object)) | (_, Some(object), None) => {
            put_colored(text, columns, Symbols::ADD, object, palette.paint(&palette.add));
        }
        (_, None, None) => {}
    }
}

/// Appends an object with its symbol, in one color or none. Overwrites `columns`.
fn put_colored(
    text: &mut String,
    columns: &mut [String; 4],
    symbol: char,
    object: &Object,
    style: Option<&Style>,
) {
    match object {
        Object::Route(route) => route.put_columns(columns),
        Object::SharedRoute { .. }
        | Object::WindowsRoute(_)
        | Object::Sysctl { .. }
        | Object::Text { .. } => match cells(object) {
            Some(cells) => *columns = cells.map(|words| join_words(&words)),
            None => {
                let object = printable(&object.text());
                let _ = match style {
                    Some(style) => write!(text, "{}", style.apply_to(format_args!("{symbol} {object}"))),
                    None => write!(text, "{symbol} {object}"),
                };
                return;
            }
        },
    }
    let Some(style) = style else {
        text.extend([symbol, ' ']);
        for (at, cell) in columns.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "\t" });
            Printable(cell).push_to(text);
        }
        return;
    };
    for (at, cell) in columns.iter().enumerate() {
        let _ = match (at, cell.is_empty()) {
            (0, _) => write!(text, "{}", style.apply_to(format_args!("{symbol} {}", Printable(cell)))),
            (_, true) => text.write_char('\t'),
            (_, false) => write!(text, "\t{}", style.apply_to(Printable(cell))),
        };
    }
}

fn arrow(old: &str, new: &str, palette: &Palette) -> String {
    let (old, new) = (printable(old), printable(new));
    format!("{} -> {}", palette.remove.apply_to(old), palette.add.apply_to(new))
}

/// The words of a changed object. Marks only the differing words: as `old -> new` if a word replaces one with the same
/// keyword, or else as in `git diff --word-diff`. The other words have the style `same`.
fn inline_diff(before: &[Word], after: &[Word], same: &Style, palette: &Palette) -> String {
    let mut words: Vec<String> = Vec::new();
    for operation in capture_diff_slices(Algorithm::Myers, before, after) {
        let (tag, old_range, new_range) = operation.as_tag_tuple();
        let (mut removed, added) = (before[old_range].to_vec(), &after[new_range]);
        if tag == DiffTag::Equal {
            words.extend(added.iter().map(|word| same.apply_to(printable(&word.to_string())).to_string()));
            continue;
        }
        let (mut inserted, mut replaced) = (Vec::new(), Vec::new());
        for new in added {
            let is_same = |old: &Word| !new.keyword.is_empty() && old.keyword == new.keyword;
            match removed.iter().position(is_same).map(|index| removed.remove(index)) {
                Some(old) => {
                    replaced.push(format!("{} {}", new.keyword, arrow(&old.value, &new.value, palette)));
                }
                None => inserted.push(printable(&new.to_string())),
            }
        }
        if !removed.is_empty() {
            let removed = printable(&join_words(&removed));
            // A parameter of PowerShell begins with a hyphen.
            let space = if removed.starts_with('-') { " " } else { "" };
            words.push(palette.remove.apply_to(format!("[-{space}{removed}{space}-]")).to_string());
        }
        if !inserted.is_empty() {
            words.push(palette.add.apply_to(format!("{{+{}+}}", inserted.join(" "))).to_string());
        }
        words.extend(replaced);
    }
    words.join(" ")
}

/// The foreign objects of a conflict, each annotated with the object that it conflicts with.
pub(super) fn conflict_lines(conflict: &ConflictEntry, palette: &Palette) -> Vec<Line> {
    let annotation = match &conflict.desired {
        Some(Object::Sysctl { value: original, .. }) => {
            format!("set by another program; the original value is {original}")
        }
        Some(desired) if conflict.replaced => {
            format!("foreign; it replaced the managed route {}", desired.text())
        }
        Some(desired) => format!("foreign; conflicts with {}", desired.text()),
        None if conflict.restorable => "hostgw did not add it; its table stays".to_owned(),
        None => "foreign object in the managed table; a rollback could not restore it".to_owned(),
    };
    let line = |object| {
        let mut text = String::new();
        let style = palette.paint(&palette.conflict);
        put_colored(&mut text, &mut Default::default(), Symbols::CONFLICT, object, style);
        Line { text, annotation: annotation.clone() }
    };
    conflict.foreign.iter().map(line).collect()
}

/// Appends a reason with the file and line of its source.
pub(super) fn put_reason(text: &mut String, reason: &ReasonEntry) {
    text.push_str(if reason.drift { "drift: " } else { "" });
    Printable(&reason.text).push_to(text);
    if let Some(SourceLocation { file, line, transaction_id, .. }) = &reason.location {
        let _ = write!(text, ", {file}:{line}");
        if let Some(id) = transaction_id {
            let _ = write!(text, " as of apply {id}");
        }
    }
}

/// Renders a finding with its code, its place in the configuration and its remedy, in the same form in every command. The
/// text ends with a newline.
#[must_use]
pub fn finding_text(finding: &FindingEntry, palette: &Palette) -> String {
    let FindingEntry { code, severity, message, location, remedy } = finding;
    let style = match severity {
        Severity::Error => &palette.conflict,
        Severity::Warning => &palette.change,
    };
    let head = style.apply_to(format!("{}[{code}]:", severity.name()));
    let place = location.as_ref().map_or_else(String::new, |at| format!(" ({}:{})", at.file, at.line));
    let mut text = format!("{head} {message}{place}\n");
    if let Some(remedy) = remedy {
        let _ = writeln!(text, "  {} {remedy}", palette.head.apply_to("help:"));
    }
    text
}

/// Appends the totals and the names of removed objects.
fn put_summary(text: &mut String, report: &Report, removed: &[String], palette: &Palette) {
    report.findings.iter().for_each(|finding| text.push_str(&finding_text(finding, palette)));
    let _ = writeln!(text, "{}", palette.head.apply_to(totals(report)));
    if !removed.is_empty() {
        let _ = writeln!(text, "{}", palette.remove.apply_to(format!("To remove: {}", removed.join(", "))));
    }
}

/// The totals as a sentence.
pub(super) fn totals(report: &Report) -> String {
    let totals = report.totals;
    let mut line = totals.to_string();
    if totals.conflicts > 0 {
        let _ = write!(line, ", {}", text::count(totals.conflicts, "conflict"));
    }
    if totals.unknown > 0 {
        let _ = write!(line, ", {} unknown", totals.unknown);
    }
    let nothing = totals == crate::plan::Totals::default();
    match (nothing, &report.node) {
        (true, Some(_)) if report.has_lost_paths => {
            "No changes. This node matches the configuration, but some pod traffic is lost or diverted; see the warnings above.".to_owned()
        }
        (true, Some(_)) => "No changes. This node matches the configuration.".to_owned(),
        (true, None) if report.is_rollback => {
            "Nothing to do: this node is already in its previous state.".to_owned()
        }
        (true, None) => "Nothing to do: hostgw manages nothing on this node.".to_owned(),
        (false, _) => format!("Plan: {line}."),
    }
}

/// The names of the removed objects, without those in a table that is removed as a whole.
pub(super) fn removed<'a>(changes: impl Iterator<Item = &'a ChangeEntry>) -> Vec<String> {
    let mut removed = RemovedNames::default();
    changes.for_each(|entry| removed.add(entry));
    removed.finish()
}

/// Collects the names of removed objects.
#[derive(Default)]
struct RemovedNames {
    names: Vec<(String, Option<NatPlace>)>,
}

impl RemovedNames {
    fn add(&mut self, entry: &ChangeEntry) {
        if let Some(object) = entry.before.as_ref().filter(|_| entry.action == Action::Remove) {
            self.names.push((printable(&object.name()), object.nat_place()));
        }
    }

    /// Returns the names, without those of objects in a table that is removed as a whole.
    fn finish(self) -> Vec<String> {
        let places = || self.names.iter().filter_map(|(_, place)| *place);
        let tables: Vec<Family> =
            places().filter(|nat| nat.kind == NatKind::Table).map(|nat| nat.family).collect();
        let is_in_table = |place: &NatPlace| place.kind != NatKind::Table && tables.contains(&place.family);
        let names = self.names.into_iter().filter(|(_, place)| !place.as_ref().is_some_and(is_in_table));
        names.map(|(name, _)| name).collect()
    }
}

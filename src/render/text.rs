//! Renders a plan for a terminal: a diff with its symbols in column 0, followed by the totals and the removed names.

use std::fmt::Write as _;

use console::Style;
use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::{
    ChangeEntry, Report, SourceLocation,
    report::{ConflictEntry, DiagnosticEntry, NatKind, Object, ReasonEntry},
};
use crate::{
    model::Family,
    plan::Action,
    progress::Task,
    state::{ObjectKind, Unknown, Word, join_words},
    text::{self, padded, printable, text_width},
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
            Action::Change => self.change,
            Action::Remove => Self::REMOVE,
        }
    }
}

/// The colors, the symbols, and the available width.
#[derive(Debug, Clone)]
pub struct Palette {
    pub(super) symbols: Symbols,
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
            Action::Change => &self.change,
            Action::Remove => &self.remove,
        }
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
    let _task = Task::begin("formatting");
    let mut lines = Vec::new();
    for kind in ObjectKind::ALL {
        let mut section = Section::default();
        let entries = report.changes.iter().filter(|entry| entry.kind == kind);
        section.lines.extend(entries.map(|entry| change_line(entry, palette)));
        let conflicts = report.conflicts.iter().filter(|conflict| conflict.kind == kind);
        section.lines.extend(conflicts.flat_map(|conflict| conflict_lines(conflict, palette)));
        let unknown = report.unknown.iter().filter(|unknown| ObjectKind::from(&unknown.what) == kind);
        section.lines.extend(unknown.map(|unknown| unknown_line(unknown, palette)));
        if !section.lines.is_empty() {
            lines.push(section.print(kind.title(), palette));
        }
    }
    lines.push(summary(report, palette));
    lines.join("\n")
}

/// Renders the plan as names and counts. The text ends with a newline.
#[must_use]
pub fn plan_summary(report: &Report, palette: &Palette) -> String {
    let mut text = String::new();
    for kind in ObjectKind::ALL {
        let entries = || report.changes.iter().filter(|entry| entry.kind == kind);
        let mut lines: Vec<String> = [Action::Add, Action::Change, Action::Remove]
            .into_iter()
            .filter_map(|action| {
                let names = names(entries().filter(|entry| entry.action == action));
                let symbol = palette.symbols.of(action);
                let line = format!("{symbol} {}: {}", names.len(), names.join(", "));
                (!names.is_empty()).then(|| palette.style(action).apply_to(line).to_string())
            })
            .collect();
        let conflicts = report.conflicts.iter().filter(|conflict| conflict.kind == kind);
        let foreign: Vec<String> = conflicts
            .flat_map(|conflict| &conflict.foreign)
            .map(|object| printable(&object.name()))
            .collect();
        if !foreign.is_empty() {
            let line = format!("! {}: {}", foreign.len(), foreign.join(", "));
            lines.push(palette.conflict.apply_to(line).to_string());
        }
        let unknown = report.unknown.iter().filter(|unknown| ObjectKind::from(&unknown.what) == kind);
        lines.extend(unknown.map(|unknown| {
            let line = format!("{} {}", palette.symbols.unknown, printable(&unknown.what.to_string()));
            palette.conflict.apply_to(line).to_string()
        }));
        if !lines.is_empty() {
            let _ = writeln!(text, "{}\n{}\n", palette.head.apply_to(kind.title()), lines.join("\n"));
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
        text: palette.conflict.apply_to(format!("{} {}", palette.symbols.unknown, unknown.what)).to_string(),
        annotation: format!("unknown: {}", unknown.why),
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
        self.aligned(palette).iter().for_each(|line| text.extend([line.as_str(), "\n"]));
        text
    }

    /// Returns the lines with aligned columns and annotations. An annotation that does not fit moves to a line of its
    /// own.
    pub(super) fn aligned(&self, palette: &Palette) -> Vec<String> {
        let texts = align_columns(self.lines.iter().map(|line| line.text.as_str()));
        let widths = texts.iter().map(|text| text_width(text));
        let column = widths.filter(|width| *width <= MAX_ALIGNED_WIDTH).max().unwrap_or(0);
        let aligned = |(text, line): (String, &Line)| {
            if line.annotation.is_empty() {
                return text;
            }
            let width = text_width(&text);
            let column = column.max(width) + 2;
            let annotation = format!("# {}", line.annotation);
            let fits = column + text_width(&annotation) <= palette.width;
            let annotation = palette.dim.apply_to(annotation);
            if fits {
                format!("{}{annotation}", padded(&text, column))
            } else {
                format!("{text}\n    {annotation}")
            }
        };
        texts.into_iter().zip(&self.lines).map(aligned).collect()
    }
}

/// Aligns tab-separated cells and drops columns that are empty in every line. A very wide cell does not widen its
/// column for all other lines.
pub(super) fn align_columns<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in rows.iter().filter(|row| row.len() > 1) {
        widths.resize(widths.len().max(row.len()), 0);
        row.iter()
            .zip(&mut widths)
            .for_each(|(cell, width)| *width = text_width(cell).min(MAX_ALIGNED_WIDTH).max(*width));
    }
    let line = |row: Vec<&str>| {
        if let [only] = row[..] {
            return only.to_owned();
        }
        let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
        cells.map(|(cell, width)| padded(cell, *width)).collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    rows.into_iter().map(line).collect()
}

/// The words of an object in columns, if it has columns.
fn cells(object: &Object) -> Option<[Vec<Word>; 4]> {
    let words = match object {
        Object::Route(route) => route.words(),
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
    let annotation = reason(&entry.reason);
    let text = match (entry.action, &entry.before, &entry.after) {
        (Action::Change, Some(before), Some(after)) => {
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
            format!("{} {inline_diff}", palette.change.apply_to(palette.symbols.change))
        }
        (Action::Remove, Some(object), _) => colored(Symbols::REMOVE, object, &palette.remove),
        (_, _, Some(object)) | (_, Some(object), None) => colored(Symbols::ADD, object, &palette.add),
        (_, None, None) => String::new(),
    };
    Line { text, annotation }
}

/// An object with its symbol, in one color.
fn colored(symbol: char, object: &Object, style: &Style) -> String {
    let cells = match object {
        Object::Route(route) => route.columns().map(|cell| printable(&cell)).to_vec(),
        Object::WindowsRoute(_) | Object::Sysctl { .. } | Object::Text { .. } => match cells(object) {
            Some(columns) => columns.map(|words| printable(&join_words(&words))).to_vec(),
            None => vec![printable(&object.text())],
        },
    };
    let cells = cells.iter().enumerate().map(|(at, cell)| match (at, cell.is_empty()) {
        (0, _) => style.apply_to(format!("{symbol} {cell}")).to_string(),
        (_, true) => String::new(),
        (_, false) => style.apply_to(cell).to_string(),
    });
    cells.collect::<Vec<_>>().join("\t")
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
    let annotation = match &conflict.wanted {
        Some(Object::Sysctl { value: original, .. }) => {
            format!("set by another program; the original value is {original}")
        }
        Some(wanted) if conflict.replaced => format!("foreign; replaced {}", wanted.text()),
        Some(wanted) => format!("foreign; conflicts with {}", wanted.text()),
        None if conflict.restorable => "hostgw did not add it; its table stays".to_owned(),
        None => "foreign object in the managed table; a rollback could not restore it".to_owned(),
    };
    let line = |object| Line {
        text: colored(Symbols::CONFLICT, object, &palette.conflict),
        annotation: annotation.clone(),
    };
    conflict.foreign.iter().map(line).collect()
}

/// A reason with the file and line of its source.
pub(super) fn reason(reason: &ReasonEntry) -> String {
    let text = if reason.drift { format!("drift: {}", reason.text) } else { reason.text.clone() };
    match &reason.source {
        Some(SourceLocation { file, line, apply: None, .. }) => printable(&format!("{text}, {file}:{line}")),
        Some(SourceLocation { file, line, apply: Some(id), .. }) => {
            printable(&format!("{text}, {file}:{line} as of apply {id}"))
        }
        None => printable(&text),
    }
}

/// The totals and the names of removed objects.
fn summary(report: &Report, palette: &Palette) -> String {
    let mut text = String::new();
    for DiagnosticEntry { code, severity, message, .. } in &report.diagnostics {
        let head = format!("{}[{code}]:", severity.name());
        let _ = writeln!(text, "{} {message}", palette.change.apply_to(head));
    }
    let _ = writeln!(text, "{}", palette.head.apply_to(totals(report)));
    let removed = removed(report.changes.iter());
    if !removed.is_empty() {
        let _ = writeln!(text, "{}", palette.remove.apply_to(format!("To remove: {}", removed.join(", "))));
    }
    text
}

/// The totals as a sentence.
pub(super) fn totals(report: &Report) -> String {
    let totals = report.totals;
    let mut line = format!("{} to add, {} to update, {} to remove", totals.add, totals.change, totals.remove);
    if totals.conflicts > 0 {
        let _ = write!(line, ", {}", text::count(totals.conflicts, "conflict"));
    }
    if totals.unknown > 0 {
        let _ = write!(line, ", {} unknown", totals.unknown);
    }
    let nothing = totals == crate::plan::Totals::default();
    match (nothing, &report.node) {
        (true, Some(_)) => "No changes. This node matches the configuration.".to_owned(),
        (true, None) => "Nothing to do: hostgw manages nothing on this node.".to_owned(),
        (false, _) => format!("Plan: {line}."),
    }
}

/// The names of the removed objects, without those in a table that is removed as a whole.
pub(super) fn removed<'a>(changes: impl Iterator<Item = &'a ChangeEntry> + Clone) -> Vec<String> {
    let removed_objects = || {
        let removals = changes.clone().filter(|entry| entry.action == Action::Remove);
        removals.filter_map(|entry| entry.before.as_ref())
    };
    let tables: Vec<Family> = removed_objects()
        .filter_map(|object| {
            object.nat_place().filter(|nat| nat.kind == NatKind::Table).map(|nat| nat.family)
        })
        .collect();
    let is_in_table = |object: &Object| {
        object.nat_place().is_some_and(|nat| nat.kind != NatKind::Table && tables.contains(&nat.family))
    };
    removed_objects().filter(|object| !is_in_table(object)).map(|object| printable(&object.name())).collect()
}

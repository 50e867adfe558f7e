//! Renders a plan for a terminal: a diff with its symbols in column 0, followed by the totals and the removed names.

use std::fmt::Write as _;

use console::{Style, measure_text_width};
use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::{
    ChangeEntry, ObjectKind, Report, SourceLocation,
    report::{ConflictEntry, DiagnosticEntry, Object, ReasonEntry},
};
use crate::{
    plan::Action,
    state::{Route, Unknown, WindowsRoute},
    text::{self, padded, printable},
};

/// The maximum width of an object whose reason is aligned with the others.
const MAX_ALIGNED_WIDTH: usize = 76;

/// The colors, and the available width.
#[derive(Debug, Clone)]
pub struct Palette {
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

    /// Sets the number of columns of the terminal.
    #[must_use]
    pub fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }
}

/// The kinds of objects in the order of a plan, with their headings.
pub(super) const OBJECT_KINDS: [(ObjectKind, &str); 4] = [
    (ObjectKind::Route, "Routes"),
    (ObjectKind::Nat, "NAT"),
    (ObjectKind::Sysctl, "Sysctls"),
    (ObjectKind::Forwarding, "Forwarding"),
];

/// Renders the plan as text that ends with a newline.
#[must_use]
pub fn text(report: &Report, palette: &Palette) -> String {
    let mut lines = Vec::new();
    for (kind, title) in OBJECT_KINDS {
        let mut section = Section::default();
        let entries = report.changes.iter().filter(|entry| entry.kind == kind);
        section.lines.extend(entries.map(|entry| change_line(entry, palette)));
        let conflicts = report.conflicts.iter().filter(|conflict| conflict.kind == kind);
        section.lines.extend(conflicts.flat_map(|conflict| conflict_lines(conflict, palette)));
        let unknown = report.unknown.iter().filter(|unknown| kind_of(&unknown.what) == kind);
        section.lines.extend(unknown.map(|unknown| unknown_line(unknown, palette)));
        if !section.lines.is_empty() {
            lines.push(section.print(title, palette));
        }
    }
    lines.push(summary(report, palette));
    lines.join("\n")
}

/// Renders the plan as names and counts. The text ends with a newline.
#[must_use]
pub fn plan_summary(report: &Report, palette: &Palette) -> String {
    let mut text = String::new();
    for (kind, title) in OBJECT_KINDS {
        let entries = || report.changes.iter().filter(|entry| entry.kind == kind);
        let lines = [
            (Action::Add, "+", &palette.add),
            (Action::Change, "~", &palette.change),
            (Action::Remove, "-", &palette.remove),
        ];
        let mut lines: Vec<String> = lines
            .into_iter()
            .filter_map(|(action, symbol, style)| {
                let names = names(entries().filter(|entry| entry.action == action));
                let line = format!("{symbol} {}: {}", names.len(), names.join(", "));
                (!names.is_empty()).then(|| style.apply_to(line).to_string())
            })
            .collect();
        let conflicts = report.conflicts.iter().filter(|conflict| conflict.kind == kind);
        let foreign: Vec<String> =
            conflicts.flat_map(|conflict| &conflict.foreign).map(|object| printable(&object.name)).collect();
        if !foreign.is_empty() {
            let line = format!("! {}: {}", foreign.len(), foreign.join(", "));
            lines.push(palette.conflict.apply_to(line).to_string());
        }
        let unknown = report.unknown.iter().filter(|unknown| kind_of(&unknown.what) == kind);
        lines.extend(unknown.map(|unknown| {
            palette.conflict.apply_to(format!("? {}", printable(&unknown.what.to_string()))).to_string()
        }));
        if !lines.is_empty() {
            let _ = writeln!(text, "{}\n{}\n", palette.head.apply_to(title), lines.join("\n"));
        }
    }
    let _ = writeln!(text, "{}", palette.head.apply_to(totals(report)));
    text
}

/// The names of the changed objects.
fn names<'a>(entries: impl Iterator<Item = &'a ChangeEntry>) -> Vec<String> {
    let objects = entries.filter_map(|entry| entry.after.as_ref().or(entry.before.as_ref()));
    objects.map(|object| printable(&object.name)).collect()
}

/// A part of the live state that could not be read, and the reason.
pub(super) fn unknown_line(unknown: &Unknown, palette: &Palette) -> Line {
    Line {
        text: palette.conflict.apply_to(format!("? {}", unknown.what)).to_string(),
        annotation: format!("unknown: {}", unknown.why),
    }
}

const fn kind_of(subject: &crate::state::StatePart) -> ObjectKind {
    match subject {
        crate::state::StatePart::Nat { .. } => ObjectKind::Nat,
        crate::state::StatePart::Sysctl { .. } | crate::state::StatePart::Records => ObjectKind::Sysctl,
    }
}

/// The lines under a heading.
#[derive(Default)]
pub(super) struct Section {
    pub lines: Vec<Line>,
}

/// An object and its annotation. Tabs, which printable text never contains, separate the columns.
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
        let widths = texts.iter().map(|text| measure_text_width(text));
        let column = widths.filter(|width| *width <= MAX_ALIGNED_WIDTH).max().unwrap_or(0);
        let aligned = |(text, line): (String, &Line)| {
            if line.annotation.is_empty() {
                return text;
            }
            let width = measure_text_width(&text);
            let column = column.max(width) + 2;
            let annotation = format!("# {}", line.annotation);
            let fits = column + measure_text_width(&annotation) <= palette.width;
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
            .for_each(|(cell, width)| *width = measure_text_width(cell).min(MAX_ALIGNED_WIDTH).max(*width));
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

/// The words of a route in four columns: destination, next hop, interface, and the rest.
fn columns(route: &Route) -> [Vec<String>; 4] {
    let mut columns = [const { Vec::new() }; 4];
    let mut at = 0;
    for word in route.words() {
        at = match keyword(&word) {
            "via" => 1,
            "dev" => 2,
            // The type and the type of service belong to the route's identity.
            "proto" | "table" => 3,
            _ => {
                if at == 0 {
                    0
                } else {
                    3
                }
            }
        };
        columns[at].push(word);
    }
    columns
}

/// The words of an object in columns, if it has columns.
fn cells(object: &Object) -> Option<[Vec<String>; 4]> {
    match (&object.route, &object.windows_route) {
        (Some(route), _) => Some(columns(route)),
        (None, Some(route)) => Some(windows_columns(route)),
        (None, None) => None,
    }
}

/// The parameters of a Windows route in four columns: destination, next hop, interface, and metric.
fn windows_columns(route: &WindowsRoute) -> [Vec<String>; 4] {
    let mut columns = [const { Vec::new() }; 4];
    for word in route.words() {
        let at = match keyword(&word) {
            "-DestinationPrefix" => 0,
            "-NextHop" => 1,
            "-InterfaceAlias" => 2,
            _ => 3,
        };
        columns[at].push(word);
    }
    columns
}

/// A change with its symbol and reason.
pub(super) fn change_line(entry: &ChangeEntry, palette: &Palette) -> Line {
    let annotation = reason(&entry.reason);
    let text = match (entry.action, &entry.before, &entry.after) {
        (Action::Change, Some(before), Some(after)) => {
            let inline_diff = match (cells(before), cells(after), &before.value, &after.value) {
                (Some(before), Some(after), ..) => {
                    let columns = before.into_iter().zip(after).enumerate();
                    let cells = columns.map(|(at, (before, after))| {
                        // The destination identifies the route.
                        let same = if at == 0 { &palette.plain } else { &palette.dim };
                        inline_diff(&before, &after, same, palette)
                    });
                    cells.collect::<Vec<_>>().join("\t")
                }
                (.., Some(old), Some(new)) => {
                    let key = after.key.as_deref().unwrap_or_default();
                    format!("{key}\t= {}", arrow(old.as_raw(), new.as_raw(), palette))
                }
                _ => {
                    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
                    inline_diff(&words(&before.text), &words(&after.text), &palette.dim, palette)
                }
            };
            format!("{} {inline_diff}", palette.change.apply_to("~"))
        }
        (Action::Remove, Some(object), _) => colored("-", object, &palette.remove),
        (_, _, Some(object)) | (_, Some(object), None) => colored("+", object, &palette.add),
        (_, None, None) => String::new(),
    };
    Line { text, annotation }
}

/// An object with its symbol, in one color.
fn colored(symbol: &str, object: &Object, style: &Style) -> String {
    let cells = match cells(object) {
        Some(columns) => columns.map(|words| printable(&words.join(" "))).to_vec(),
        None => vec![printable(&object.text)],
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
fn inline_diff(before: &[String], after: &[String], same: &Style, palette: &Palette) -> String {
    let mut words: Vec<String> = Vec::new();
    for operation in capture_diff_slices(Algorithm::Myers, before, after) {
        let (tag, old_range, new_range) = operation.as_tag_tuple();
        let (mut removed, added) = (before[old_range].to_vec(), &after[new_range]);
        if tag == DiffTag::Equal {
            words.extend(added.iter().map(|word| same.apply_to(printable(word)).to_string()));
            continue;
        }
        let (mut inserted, mut replaced) = (Vec::new(), Vec::new());
        for new in added {
            match removed
                .iter()
                .position(|old| keyword(old) == keyword(new))
                .map(|index| removed.remove(index))
            {
                Some(old) => replaced.push(arrow_word(&old, new, palette)),
                None => inserted.push(printable(new)),
            }
        }
        if !removed.is_empty() {
            let removed = printable(&removed.join(" "));
            words.push(palette.remove.apply_to(format!("[-{removed}-]")).to_string());
        }
        if !inserted.is_empty() {
            words.push(palette.add.apply_to(format!("{{+{}+}}", inserted.join(" "))).to_string());
        }
        words.extend(replaced);
    }
    words.join(" ")
}

/// The keyword of a route's word: `via`, `dev`, `proto`.
fn keyword(word: &str) -> &str {
    word.split(' ').next().unwrap_or(word)
}

/// Renders `via A -> B` if both words have the same keyword, or else `A -> B`.
fn arrow_word(old: &str, new: &str, palette: &Palette) -> String {
    match (old.split_once(' '), new.split_once(' ')) {
        (Some((name, old)), Some((same, new))) if name == same => {
            format!("{name} {}", arrow(old, new, palette))
        }
        _ => arrow(old, new, palette),
    }
}

/// The foreign objects of a conflict, each annotated with the object that it conflicts with.
pub(super) fn conflict_lines(conflict: &ConflictEntry, palette: &Palette) -> Vec<Line> {
    let annotation = match &conflict.wanted {
        Some(Object { value: Some(original), .. }) => format!("foreign value; the original is {original}"),
        Some(wanted) if conflict.replaced => format!("replaced hostgw's route {}", wanted.text),
        Some(wanted) => format!("foreign; conflicts with {}", wanted.text),
        None if conflict.restorable => "hostgw did not add it; its table stays".to_owned(),
        None => "foreign, and cannot be restored".to_owned(),
    };
    let line =
        |object| Line { text: colored("!", object, &palette.conflict), annotation: annotation.clone() };
    conflict.foreign.iter().map(line).collect()
}

/// A reason with the file and line of its source.
pub(super) fn reason(reason: &ReasonEntry) -> String {
    let text = if reason.drift { format!("drift: {}", reason.text) } else { reason.text.clone() };
    match &reason.source {
        Some(SourceLocation { file, line, apply: None, .. }) => printable(&format!("{text}, {file}:{line}")),
        Some(SourceLocation { file, line, apply: Some(id), .. }) => {
            printable(&format!("{text}, {file}:{line} of apply {id}"))
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
        let _ = writeln!(text, "{}", palette.remove.apply_to(format!("Removed: {}", removed.join(", "))));
    }
    text
}

/// The totals as a sentence.
pub(super) fn totals(report: &Report) -> String {
    let totals = report.totals;
    let mut line = format!("{} to add, {} to change, {} to remove", totals.add, totals.change, totals.remove);
    if totals.conflicts > 0 {
        let _ = write!(line, ", {}", text::count(totals.conflicts, "conflict"));
    }
    if totals.unknown > 0 {
        let _ = write!(line, ", {} unknown", totals.unknown);
    }
    let nothing = totals == crate::plan::Totals::default();
    match (nothing, &report.node) {
        (true, Some(_)) => "No changes. This node matches the configuration.".to_owned(),
        (true, None) => "Nothing to do.".to_owned(),
        (false, _) => format!("Plan: {line}."),
    }
}

/// The names of the removed objects, without those in a table that is removed as a whole.
pub(super) fn removed<'a>(changes: impl Iterator<Item = &'a ChangeEntry> + Clone) -> Vec<String> {
    let removed_objects = || {
        let removals = changes.clone().filter(|entry| entry.action == Action::Remove);
        removals.filter_map(|entry| Some((entry.kind, entry.before.as_ref()?.name.as_str())))
    };
    let is_table = |(kind, name): &(ObjectKind, &str)| *kind == ObjectKind::Nat && name.starts_with("table ");
    let tables: Vec<&str> =
        removed_objects().filter(is_table).map(|(_, name)| &name["table ".len()..]).collect();
    let in_table = |name: &str| {
        name.split_once(' ').is_some_and(|(keyword, rest)| {
            keyword != "table" && tables.iter().any(|table| rest.starts_with(&format!("{table} ")))
        })
    };
    removed_objects()
        .filter(|(kind, name)| *kind != ObjectKind::Nat || !in_table(name))
        .map(|(_, name)| printable(name))
        .collect()
}

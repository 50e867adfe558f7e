//! A plan for people: a diff with its symbols in column 0, totals and names last.

use std::fmt::Write as _;

use console::{Style, measure_text_width};
use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::{
    Entry, Group, Report, Source,
    report::{ConflictEntry, Object, ReasonEntry},
};
use crate::{
    plan::Action,
    state::{Route, Unknown, WindowsRoute},
    text::{self, padded, printable},
};

/// Reasons start in one column where the objects are no wider than this.
const WIDEST_ALIGNED: usize = 76;

/// The colours, or none, and the width there is.
#[derive(Debug, Clone)]
pub struct Palette {
    /// Columns of the terminal; lines are as long as they are where it is no terminal.
    pub width: usize,
    /// What is as it was.
    pub plain: Style,
    /// Section heads.
    pub head: Style,
    /// What comes.
    pub add: Style,
    /// What changes.
    pub change: Style,
    /// What goes.
    pub remove: Style,
    /// What stands in the way.
    pub conflict: Style,
    /// What is said on the side.
    pub dim: Style,
}

impl Palette {
    /// The colours of hostgw, or none when not `coloured`.
    #[must_use]
    pub fn new(coloured: bool) -> Self {
        let style = || Style::new().force_styling(coloured);
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

    /// The same on a terminal of so many columns.
    #[must_use]
    pub fn of_width(self, width: usize) -> Self {
        Self { width, ..self }
    }
}

/// The parts of a plan, and what they are called.
pub(super) const GROUPS: [(Group, &str); 4] = [
    (Group::Route, "Routes"),
    (Group::Nat, "NAT"),
    (Group::Sysctl, "Sysctls"),
    (Group::Forwarding, "Forwarding"),
];

/// The plan as text, ending with a newline.
#[must_use]
pub fn text(report: &Report, palette: &Palette) -> String {
    let mut lines = Vec::new();
    for (group, title) in GROUPS {
        let mut section = Section::default();
        let entries = report.changes.iter().filter(|entry| entry.kind == group);
        section.lines.extend(entries.map(|entry| change_line(entry, palette)));
        let conflicts = report.conflicts.iter().filter(|conflict| conflict.kind == group);
        section.lines.extend(conflicts.flat_map(|conflict| conflict_lines(conflict, palette)));
        let unknown = report.unknown.iter().filter(|unknown| group_of(&unknown.what) == group);
        section.lines.extend(unknown.map(|unknown| unknown_line(unknown, palette)));
        if !section.lines.is_empty() {
            lines.push(section.print(title, palette));
        }
    }
    lines.push(summary(report, palette));
    lines.join("\n")
}

/// The plan as names and counts, ending with a newline.
#[must_use]
pub fn plan_summary(report: &Report, palette: &Palette) -> String {
    let mut text = String::new();
    for (group, title) in GROUPS {
        let entries = || report.changes.iter().filter(|entry| entry.kind == group);
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
        let conflicts = report.conflicts.iter().filter(|conflict| conflict.kind == group);
        let foreign: Vec<String> =
            conflicts.flat_map(|conflict| &conflict.foreign).map(|object| printable(&object.name)).collect();
        if !foreign.is_empty() {
            let line = format!("! {}: {}", foreign.len(), foreign.join(", "));
            lines.push(palette.conflict.apply_to(line).to_string());
        }
        let unknown = report.unknown.iter().filter(|unknown| group_of(&unknown.what) == group);
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

/// What the objects of changes are called.
fn names<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<String> {
    let objects = entries.filter_map(|entry| entry.after.as_ref().or(entry.before.as_ref()));
    objects.map(|object| printable(&object.name)).collect()
}

/// What could not be read, after its symbol, and why.
pub(super) fn unknown_line(unknown: &Unknown, palette: &Palette) -> Line {
    Line {
        text: palette.conflict.apply_to(format!("? {}", unknown.what)).to_string(),
        side: format!("unknown: {}", unknown.why),
    }
}

const fn group_of(subject: &crate::state::StatePart) -> Group {
    match subject {
        crate::state::StatePart::Nat { .. } => Group::Nat,
        crate::state::StatePart::Sysctl { .. } | crate::state::StatePart::Records => Group::Sysctl,
    }
}

/// Lines below a title.
#[derive(Default)]
pub(super) struct Section {
    pub lines: Vec<Line>,
}

/// An object, and what is said on the side. Columns are parted by tabs, which no printable text holds.
pub(super) struct Line {
    pub text: String,
    pub side: String,
}

impl Section {
    pub(super) fn print(&self, title: &str, palette: &Palette) -> String {
        let mut text = format!("{}\n", palette.head.apply_to(title));
        self.aligned(palette).iter().for_each(|line| text.extend([line.as_str(), "\n"]));
        text
    }

    /// The lines in columns, with what is said on the side in one of them; below the object, where the
    /// terminal is too narrow.
    pub(super) fn aligned(&self, palette: &Palette) -> Vec<String> {
        let texts = in_columns(self.lines.iter().map(|line| line.text.as_str()));
        let widths = texts.iter().map(|text| measure_text_width(text));
        let column = widths.filter(|width| *width <= WIDEST_ALIGNED).max().unwrap_or(0);
        let aligned = |(text, line): (String, &Line)| {
            if line.side.is_empty() {
                return text;
            }
            let width = measure_text_width(&text);
            let column = column.max(width) + 2;
            let side = format!("# {}", line.side);
            let fits = column + measure_text_width(&side) <= palette.width;
            let side = palette.dim.apply_to(side);
            if fits { format!("{}{side}", padded(&text, column)) } else { format!("{text}\n    {side}") }
        };
        texts.into_iter().zip(&self.lines).map(aligned).collect()
    }
}

/// Lines whose cells are parted by tabs, one below the other; a column that is empty everywhere is none. One very
/// wide cell does not widen its column for all the others.
pub(super) fn in_columns<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in rows.iter().filter(|row| row.len() > 1) {
        widths.resize(widths.len().max(row.len()), 0);
        row.iter()
            .zip(&mut widths)
            .for_each(|(cell, width)| *width = measure_text_width(cell).min(WIDEST_ALIGNED).max(*width));
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

/// The words of a route by columns: the destination, the next hop, the interface, the rest.
fn columns(route: &Route) -> [Vec<String>; 4] {
    let mut columns = [const { Vec::new() }; 4];
    let mut at = 0;
    for word in route.words() {
        at = match kind(&word) {
            "via" => 1,
            "dev" => 2,
            // Type and type of service are part of which route it is.
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

/// The words of an object by columns, if it has columns.
fn cells(object: &Object) -> Option<[Vec<String>; 4]> {
    match (&object.route, &object.windows_route) {
        (Some(route), _) => Some(columns(route)),
        (None, Some(route)) => Some(windows_columns(route)),
        (None, None) => None,
    }
}

/// The parameters of a route of Windows: the destination, the next hop, the interface, the metric.
fn windows_columns(route: &WindowsRoute) -> [Vec<String>; 4] {
    let mut columns = [const { Vec::new() }; 4];
    for word in route.words() {
        let at = match kind(&word) {
            "-DestinationPrefix" => 0,
            "-NextHop" => 1,
            "-InterfaceAlias" => 2,
            _ => 3,
        };
        columns[at].push(word);
    }
    columns
}

/// A change after its symbol, and its reason.
pub(super) fn change_line(entry: &Entry, palette: &Palette) -> Line {
    let side = reason(&entry.reason);
    let text = match (entry.action, &entry.before, &entry.after) {
        (Action::Change, Some(before), Some(after)) => {
            let marked = match (cells(before), cells(after), &before.value, &after.value) {
                (Some(before), Some(after), ..) => {
                    let columns = before.into_iter().zip(after).enumerate();
                    let cells = columns.map(|(at, (before, after))| {
                        // The destination tells which route it is.
                        let same = if at == 0 { &palette.plain } else { &palette.dim };
                        marked(&before, &after, same, palette)
                    });
                    cells.collect::<Vec<_>>().join("\t")
                }
                (.., Some(old), Some(new)) => {
                    let key = after.key.as_deref().unwrap_or_default();
                    format!("{key}\t= {}", replaced(old.as_raw(), new.as_raw(), palette))
                }
                _ => {
                    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
                    marked(&words(&before.text), &words(&after.text), &palette.dim, palette)
                }
            };
            format!("{} {marked}", palette.change.apply_to("~"))
        }
        (Action::Remove, Some(object), _) => coloured("-", object, &palette.remove),
        (_, _, Some(object)) | (_, Some(object), None) => coloured("+", object, &palette.add),
        (_, None, None) => String::new(),
    };
    Line { text, side }
}

/// An object after its symbol, cell by cell in one colour.
fn coloured(symbol: &str, object: &Object, style: &Style) -> String {
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

fn replaced(old: &str, new: &str, palette: &Palette) -> String {
    let (old, new) = (printable(old), printable(new));
    format!("{} -> {}", palette.remove.apply_to(old), palette.add.apply_to(new))
}

/// The words of an object that changes; only those that differ are marked, as `old -> new` where a word
/// takes the place of one of its kind, else as git does. The others look like `same`.
fn marked(before: &[String], after: &[String], same: &Style, palette: &Palette) -> String {
    let mut words: Vec<String> = Vec::new();
    for operation in capture_diff_slices(Algorithm::Myers, before, after) {
        let (tag, gone, come) = operation.as_tag_tuple();
        let (mut gone, come) = (before[gone].to_vec(), &after[come]);
        if tag == DiffTag::Equal {
            words.extend(come.iter().map(|word| same.apply_to(printable(word)).to_string()));
            continue;
        }
        let (mut added, mut new_words) = (Vec::new(), Vec::new());
        for new in come {
            match gone.iter().position(|old| kind(old) == kind(new)).map(|at| gone.remove(at)) {
                Some(old) => new_words.push(replaced_word(&old, new, palette)),
                None => added.push(printable(new)),
            }
        }
        if !gone.is_empty() {
            let gone = printable(&gone.join(" "));
            words.push(palette.remove.apply_to(format!("[-{gone}-]")).to_string());
        }
        if !added.is_empty() {
            words.push(palette.add.apply_to(format!("{{+{}+}}", added.join(" "))).to_string());
        }
        words.extend(new_words);
    }
    words.join(" ")
}

/// What a word of a route is about: `via`, `dev`, `proto`.
fn kind(word: &str) -> &str {
    word.split(' ').next().unwrap_or(word)
}

/// `via A -> B` where both words start alike, else `A -> B`.
fn replaced_word(old: &str, new: &str, palette: &Palette) -> String {
    match (old.split_once(' '), new.split_once(' ')) {
        (Some((name, old)), Some((same, new))) if name == same => {
            format!("{name} {}", replaced(old, new, palette))
        }
        _ => replaced(old, new, palette),
    }
}

/// What stands in the way, after its symbol, and of what.
pub(super) fn conflict_lines(conflict: &ConflictEntry, palette: &Palette) -> Vec<Line> {
    let side = match &conflict.wanted {
        Some(Object { value: Some(original), .. }) => format!("foreign value; the original is {original}"),
        Some(wanted) if conflict.replaced => format!("replaced hostgw's route {}", wanted.text),
        Some(wanted) => format!("foreign; conflicts with {}", wanted.text),
        None if conflict.restorable => "hostgw did not add it; its table stays".to_owned(),
        None => "foreign, and cannot be restored".to_owned(),
    };
    let line = |object| Line { text: coloured("!", object, &palette.conflict), side: side.clone() };
    conflict.foreign.iter().map(line).collect()
}

/// A reason, with the file and the line where it stands.
pub(super) fn reason(reason: &ReasonEntry) -> String {
    let text = if reason.drift { format!("drift: {}", reason.text) } else { reason.text.clone() };
    match &reason.source {
        Some(Source { file, line, apply: None, .. }) => printable(&format!("{text}, {file}:{line}")),
        Some(Source { file, line, apply: Some(id), .. }) => {
            printable(&format!("{text}, {file}:{line} of apply {id}"))
        }
        None => printable(&text),
    }
}

/// The totals, and the names of what is removed.
fn summary(report: &Report, palette: &Palette) -> String {
    let mut text = String::new();
    for warning in &report.warnings {
        let _ = writeln!(text, "{} {}", palette.change.apply_to("Warning:"), printable(warning));
    }
    let _ = writeln!(text, "{}", palette.head.apply_to(totals(report)));
    let removed = removed(report.changes.iter());
    if !removed.is_empty() {
        let _ = writeln!(text, "{}", palette.remove.apply_to(format!("Removed: {}", removed.join(", "))));
    }
    text
}

/// The totals in a sentence.
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

/// The names of what is removed. What goes with its table is not named again.
pub(super) fn removed<'a>(changes: impl Iterator<Item = &'a Entry> + Clone) -> Vec<String> {
    let gone = || {
        let removals = changes.clone().filter(|entry| entry.action == Action::Remove);
        removals.filter_map(|entry| Some((entry.kind, entry.before.as_ref()?.name.as_str())))
    };
    let is_table = |(kind, name): &(Group, &str)| *kind == Group::Nat && name.starts_with("table ");
    let tables: Vec<&str> = gone().filter(is_table).map(|(_, name)| &name["table ".len()..]).collect();
    let in_table = |name: &str| {
        name.split_once(' ').is_some_and(|(kind, rest)| {
            kind != "table" && tables.iter().any(|table| rest.starts_with(&format!("{table} ")))
        })
    };
    gone()
        .filter(|(kind, name)| *kind != Group::Nat || !in_table(name))
        .map(|(_, name)| printable(name))
        .collect()
}

//! A comment that fits: what is least dangerous is cut first, removals never.

use std::{cmp::Reverse, fmt::Write as _};

use crate::{
    render::{
        Palette,
        compact::compact,
        text::{Line, Section as Lines, in_columns},
    },
    text::{Untrusted, count},
};

use super::escape::fenced;

/// The most bytes of a comment. GitHub takes 65,536 characters, and a character is a byte at least; the rest is
/// for what a bot may add.
pub const LIMIT: usize = 60_000;

/// For the line that says how much was cut.
const FOOT: usize = 200;

/// So much at most is kept for what happens beside removals, before these are told at length.
const SUMMARY: usize = 15_000;

/// Lines of names are about as long.
const WIDTH: usize = 100;

/// More removals than this can be folded away.
const OPEN: usize = 40;

/// What a comment tells.
pub(super) struct Comment {
    /// What the hidden marker names.
    pub marker: String,
    /// The heading, in Markdown.
    pub title: String,
    /// What a reader has to know first: sentences in Markdown, without their full stops.
    pub notes: Vec<String>,
    /// The counts.
    pub counts: String,
    pub removals: Vec<Removals>,
    pub sections: Vec<Section>,
    /// The command that tells everything.
    pub everything: &'static str,
}

/// What is removed in one place.
pub(super) struct Removals {
    /// Where, in Markdown.
    pub title: String,
    pub objects: Vec<Removal>,
    /// Of what they are part.
    pub of: Of,
}

/// What loses something.
pub(super) enum Of {
    /// A node, or several: its objects go.
    Node,
    /// The cluster: nodes go.
    Cluster {
        /// The old configuration.
        file: Untrusted,
        /// The nodes that stay.
        kept: Vec<Untrusted>,
    },
}

/// One object that is removed.
pub(super) struct Removal {
    /// As told in full, after its symbol.
    pub line: Line,
    /// What it is called.
    pub name: String,
    /// Whether it is a route to a node that is removed: who knows the nodes knows these.
    pub to_removed_node: bool,
}

/// What happens in one place, but for removals.
pub(super) struct Section {
    /// Where, in Markdown.
    pub title: String,
    /// What is shown.
    pub shown: Vec<Ranked>,
    /// What is folded away: the same at length.
    pub folded: Vec<Ranked>,
}

/// A line of a section.
pub(super) struct Ranked {
    pub danger: Danger,
    pub line: Line,
}

/// How bad it would be not to see a line: what is less is cut first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Danger {
    /// Something comes to a node that has nothing yet.
    New,
    /// Something comes.
    Add,
    /// Something changes.
    Change,
    /// Something stands in the way, or is not known.
    Conflict,
}

/// How removals are told: each way is shorter than the one before it, most often.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    WithReasons,
    Objects,
    Names,
    SharedNames,
    /// Names, but the routes to removed nodes by these nodes alone.
    NodesOnce,
    /// Names, but removed nodes by the routes to them alone.
    RoutesOnce,
    /// As [`NodesOnce`](Self::NodesOnce), the removed nodes as all but those that stay.
    AllBut,
}

impl Words {
    const ALL: [Self; 7] = [
        Self::WithReasons,
        Self::Objects,
        Self::Names,
        Self::SharedNames,
        Self::NodesOnce,
        Self::RoutesOnce,
        Self::AllBut,
    ];
}

impl Comment {
    /// The comment, ending with a newline.
    pub fn render(&self) -> String {
        let mut text = format!("<!-- hostgw:{} -->\n### {}\n\n", self.marker, self.title);
        for note in &self.notes {
            let _ = write!(text, "{note}.\n\n");
        }
        let _ = writeln!(text, "**{}**", self.counts);
        let shown: usize = self.sections.iter().map(Section::shown_length).sum();
        let room = LIMIT.saturating_sub(text.len() + FOOT + shown.min(SUMMARY));
        text.push_str(&self.removals_within(room));
        self.add_sections(&mut text);
        text
    }

    /// The removals in the most words that there is room for, else in the fewest that there are.
    fn removals_within(&self, room: usize) -> String {
        let is_told = |removals: &Removals| removals.objects.iter().any(|object| object.to_removed_node);
        let has_routes = self.removals.iter().any(is_told);
        let ways = Words::ALL.into_iter().filter(|words| has_routes || *words != Words::RoutesOnce);
        let mut shortest = String::new();
        for told in ways.map(|words| self.removals(words)) {
            if told.len() <= room {
                return told;
            }
            if shortest.is_empty() || told.len() < shortest.len() {
                shortest = told;
            }
        }
        shortest
    }

    fn removals(&self, words: Words) -> String {
        let mut text = String::new();
        if self.removals.is_empty() {
            return text;
        }
        let number: usize = self.removals.iter().map(|removals| removals.objects.len()).sum();
        text.push_str("\n#### Removed\n");
        if number > OPEN {
            let _ = write!(text, "\n<details open>\n<summary>{}</summary>\n", count(number, "removal"));
        }
        for removals in &self.removals {
            let _ = write!(text, "\n{}\n{}", removals.title, fence(&removals.lines(words)));
        }
        if number > OPEN {
            text.push_str("\n</details>\n");
        }
        text
    }

    /// Adds what there is room for, the most dangerous lines first, and says how much there was no room for.
    fn add_sections(&self, text: &mut String) {
        let texts: Vec<[Vec<String>; 2]> =
            self.sections.iter().map(|section| [aligned(&section.shown), aligned(&section.folded)]).collect();
        let mut lines = Vec::new();
        for (place, section) in self.sections.iter().enumerate() {
            for (part, ranked) in [&section.shown, &section.folded].into_iter().enumerate() {
                let danger = |line: &Ranked| (part, Reverse(line.danger));
                lines.extend(ranked.iter().enumerate().map(|(at, line)| (danger(line), place, part, at)));
            }
        }
        // Stable: in order within a rank.
        lines.sort_by_key(|(danger, ..)| *danger);
        let mut taken: Vec<[Vec<bool>; 2]> =
            texts.iter().map(|parts| parts.each_ref().map(|lines| vec![false; lines.len()])).collect();
        let mut begun = vec![[false; 2]; texts.len()];
        let mut room = LIMIT.saturating_sub(text.len() + FOOT);
        let mut cut = 0;
        for &(_, place, part, at) in &lines {
            let is_first = !begun[place][part];
            let head = if is_first { self.sections[place].head(part).len() + TAIL.len() } else { 0 };
            let cost = texts[place][part][at].len() + 1 + head;
            if cost <= room {
                room -= cost;
                taken[place][part][at] = true;
                begun[place][part] = true;
            } else {
                cut += 1;
            }
        }
        for (place, section) in self.sections.iter().enumerate() {
            for part in [SHOWN, FOLDED] {
                let chosen = taken[place][part].iter().zip(&texts[place][part]);
                let chosen: Vec<&String> =
                    chosen.filter(|(taken, _)| **taken).map(|(_, text)| text).collect();
                if !chosen.is_empty() {
                    text.push_str(&section.head(part));
                    chosen.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
                    text.push_str(if part == FOLDED { TAIL } else { "```\n" });
                }
            }
        }
        if cut > 0 {
            let lines = count(lines.len(), "line");
            let _ = write!(
                text,
                "\n_{cut} of {lines} were cut to fit a comment (removals never are): `{}` shows them._\n",
                self.everything
            );
        }
    }
}

/// The parts of a section.
const SHOWN: usize = 0;
const FOLDED: usize = 1;

/// What stands behind the lines of a folded part; a shown one has less.
const TAIL: &str = "```\n\n</details>\n";

impl Section {
    /// How long it is at least with all that is shown.
    fn shown_length(&self) -> usize {
        let lines = self.shown.iter().map(|ranked| ranked.line.text.len() + ranked.line.side.len() + 4);
        self.head(SHOWN).len() + lines.sum::<usize>()
    }

    /// What stands before the lines of a part.
    fn head(&self, part: usize) -> String {
        if part == SHOWN {
            return format!("\n{}\n\n```diff\n", self.title);
        }
        let title = if self.shown.is_empty() { format!("\n{}\n", self.title) } else { String::new() };
        let all = count(self.folded.len(), "line");
        format!("{title}\n<details>\n<summary>One by one: {all}</summary>\n\n```diff\n")
    }
}

/// The lines with their reasons in one column, safe in a fence.
fn aligned(lines: &[Ranked]) -> Vec<String> {
    let symbols = lines.iter().map(|ranked| with_symbol(&ranked.line)).collect();
    Lines { lines: symbols }.aligned(&Palette::new(false)).iter().map(|line| fenced(line)).collect()
}

/// `!` for what changes and what is unknown: see the module's documentation.
fn with_symbol(line: &Line) -> Line {
    let text = match line.text.strip_prefix(['~', '?']) {
        Some(rest) => format!("!{rest}"),
        None => line.text.clone(),
    };
    Line { text, side: line.side.clone() }
}

fn fence(lines: &[String]) -> String {
    format!("\n```diff\n{}\n```\n", lines.join("\n"))
}

impl Removals {
    fn lines(&self, words: Words) -> Vec<String> {
        let names = || self.objects.iter().map(|object| object.name.as_str());
        match (words, &self.of) {
            (Words::NodesOnce | Words::AllBut, Of::Node) => return self.without_routes_to_removed(),
            (Words::RoutesOnce, Of::Cluster { .. }) => {
                return vec![format!(
                    "- the {} that the routes above lead to",
                    count(self.objects.len(), "node")
                )];
            }
            (Words::AllBut, Of::Cluster { file, kept }) => {
                let every = fenced(&format!("- every node of {file}"));
                if kept.is_empty() {
                    return vec![every];
                }
                let names = filled(compact(kept.iter().map(Untrusted::as_raw)).into_iter());
                return std::iter::once(format!("{every} but these, which stay:"))
                    .chain(names.iter().map(|line| line.replacen("- ", "= ", 1)))
                    .collect();
            }
            _ => {}
        }
        match words {
            Words::WithReasons => {
                let lines = self.objects.iter().map(|object| with_symbol(&object.line)).collect();
                Lines { lines }.aligned(&Palette::new(false)).iter().map(|line| fenced(line)).collect()
            }
            Words::Objects => {
                let texts = in_columns(self.objects.iter().map(|object| object.line.text.as_str()));
                texts.iter().map(|text| fenced(text)).collect()
            }
            Words::Names => filled(names().map(ToOwned::to_owned)),
            Words::SharedNames | Words::NodesOnce | Words::RoutesOnce | Words::AllBut => {
                filled(compact(names()).into_iter())
            }
        }
    }

    /// Names, with one line for all routes to nodes that are removed: they are named elsewhere.
    fn without_routes_to_removed(&self) -> Vec<String> {
        let (routes, others): (Vec<&Removal>, Vec<&Removal>) =
            self.objects.iter().partition(|object| object.to_removed_node);
        let mut lines = filled(compact(others.iter().map(|object| object.name.as_str())).into_iter());
        if !routes.is_empty() {
            lines.push(format!(
                "- {} to the removed nodes, which are listed below",
                count(routes.len(), "route")
            ));
        }
        lines
    }
}

/// Words, several in a line.
fn filled(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let word = fenced(&word);
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => line.extend([", ", word.as_str()]),
            _ => lines.push(format!("- {word}")),
        }
    }
    lines
}

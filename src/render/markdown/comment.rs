//! Renders a comment that fits the size limit: omits the least important lines first. Removals are never omitted; if even
//! their names do not fit, they are summarized as ranges.

use std::{cmp::Reverse, fmt::Write as _};

use crate::{
    render::{
        Palette,
        fold_names::{fold_names, name_ranges},
        text::{Line, Section as Lines, Symbols, align_columns},
    },
    text::{Untrusted, count},
};

use super::escape::fenced;

/// The maximum number of bytes in a comment. GitHub allows 65,536 characters; the rest is reserved for what a bot
/// adds.
pub const COMMENT_LIMIT: usize = 60_000;

/// The bytes reserved for the line that says how much was omitted.
const FOOTER_RESERVE: usize = 200;

/// The maximum number of bytes reserved for other changes before removals are rendered in detail.
const SUMMARY_RESERVE: usize = 15_000;

/// The maximum length of a line of names.
const LINE_WIDTH: usize = 100;

/// The maximum numbers of blocks, and of ranges in a block, in a summary of removals. The first ones that fit are used.
const SUMMARY_SIZES: [(usize, usize); 5] = [(16, 128), (16, 24), (8, 12), (4, 4), (1, 1)];

/// The maximum number of removals outside a collapsible section.
const MAX_UNFOLDED: usize = 40;

/// The content of a comment.
pub(super) struct Comment {
    /// The text of the hidden marker.
    pub marker: String,
    /// The heading, in Markdown.
    pub title: String,
    /// Sentences in Markdown for the beginning, without periods.
    pub notes: Vec<String>,
    /// The totals.
    pub counts: String,
    pub removals: Vec<Removals>,
    pub sections: Vec<ChangeSection>,
    /// The command that shows everything.
    pub everything: &'static str,
}

/// The removals in one block.
pub(super) struct Removals {
    /// The title, in Markdown.
    pub title: String,
    pub objects: Vec<Removal>,
    /// What the objects belong to.
    pub scope: RemovalScope,
}

/// What the removed objects belong to.
pub(super) enum RemovalScope {
    /// A node or several nodes, which lose objects.
    Node,
    /// The cluster, which loses nodes.
    Cluster {
        /// The old configuration.
        file: Untrusted,
        /// The remaining nodes.
        kept: Vec<Untrusted>,
    },
}

/// A removed object.
pub(super) struct Removal {
    /// The complete line.
    pub line: Line,
    /// The name, without attributes.
    pub name: String,
    /// Whether it is a route to a removed node, which is implied by that node's removal.
    pub to_removed_node: bool,
}

/// The changes in one block, except removals.
pub(super) struct ChangeSection {
    /// The title, in Markdown.
    pub title: String,
    /// The visible lines.
    pub shown: Vec<RankedLine>,
    /// The folded lines: the same changes in detail.
    pub folded: Vec<RankedLine>,
}

/// A line of a section.
pub(super) struct RankedLine {
    pub importance: Importance,
    pub line: Line,
}

/// The importance of a line. The least important ones are omitted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Importance {
    /// An addition on a new node.
    New,
    /// An addition.
    Add,
    /// A change.
    Change,
    /// A conflict, or an unknown part of the live state.
    Conflict,
}

/// The amount of detail for removals. Each one is usually shorter than the one before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RemovalDetail {
    WithReasons,
    Objects,
    Names,
    SharedNames,
    /// Folded names, with removed nodes instead of the routes to them.
    NodesOnce,
    /// Folded names, with the routes to removed nodes instead of those nodes.
    RoutesOnce,
    /// Same as [`NodesOnce`](Self::NodesOnce), with the remaining nodes instead of the removed ones.
    AllBut,
}

impl RemovalDetail {
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
    /// Renders the comment. It ends with a newline.
    pub fn render(&self) -> String {
        let mut text = format!("<!-- hostgw:{} -->\n### {}\n\n", self.marker, self.title);
        for note in &self.notes {
            let _ = write!(text, "{note}.\n\n");
        }
        let _ = writeln!(text, "**{}**", self.counts);
        let shown: usize = self.sections.iter().map(ChangeSection::shown_length).sum();
        let budget = COMMENT_LIMIT.saturating_sub(text.len() + FOOTER_RESERVE + shown.min(SUMMARY_RESERVE));
        let removals = self.removals_within(budget);
        text.push_str(removals.as_deref().unwrap_or_default());
        if removals.is_none() {
            text.push_str(&self.removals_as_ranges(budget));
        }
        self.add_sections(&mut text, removals.is_some());
        text
    }

    /// The removals with as much detail as fits in `budget`, if all of them do.
    fn removals_within(&self, budget: usize) -> Option<String> {
        let leads_to_removed_node =
            |removals: &Removals| removals.objects.iter().any(|object| object.to_removed_node);
        let has_routes = self.removals.iter().any(leads_to_removed_node);
        let names: usize =
            self.removals.iter().flat_map(|removals| &removals.objects).map(|object| object.name.len()).sum();
        let details = RemovalDetail::ALL.into_iter().filter(|detail| match detail {
            // These contain all names.
            RemovalDetail::WithReasons | RemovalDetail::Objects | RemovalDetail::Names => names <= budget,
            RemovalDetail::RoutesOnce => has_routes,
            _ => true,
        });
        details.map(|detail| self.removals(detail)).find(|removals| removals.len() <= budget)
    }

    /// The numbers of removals, and the ranges that they are in.
    fn removals_as_ranges(&self, budget: usize) -> String {
        let of_size = |(blocks, ranges): (usize, usize)| {
            let (shown, rest) = self.removals.split_at(self.removals.len().min(blocks));
            let total = |removals: &[Removals]| removals.iter().map(|removals| removals.objects.len()).sum();
            let mut text = "\n#### Removals\n".to_owned();
            let _ = write!(
                text,
                "\n_These {} are summarized to fit the comment: run `{}` to see each of them._\n",
                count(total(&self.removals), "removal"),
                self.everything
            );
            for removals in shown {
                let names = removals.objects.iter().map(|object| object.name.as_str());
                let lines: Vec<_> = name_ranges(names, ranges)
                    .iter()
                    .map(|range| fenced(&format!("{} {range}", Symbols::REMOVE)))
                    .collect();
                let _ = write!(text, "\n{}\n{}", removals.title, fence(&lines));
            }
            if !rest.is_empty() {
                let _ = write!(
                    text,
                    "\nAnd {} in {}\n",
                    count(total(rest), "removal"),
                    count(rest.len(), "other block")
                );
            }
            text
        };
        let mut shortest = String::new();
        for size in SUMMARY_SIZES {
            shortest = of_size(size);
            if shortest.len() <= budget {
                break;
            }
        }
        shortest
    }

    fn removals(&self, detail: RemovalDetail) -> String {
        let mut text = String::new();
        if self.removals.is_empty() {
            return text;
        }
        let total: usize = self.removals.iter().map(|removals| removals.objects.len()).sum();
        text.push_str("\n#### Removals\n");
        if total > MAX_UNFOLDED {
            let _ = write!(text, "\n<details open>\n<summary>{}</summary>\n", count(total, "removal"));
        }
        for removals in &self.removals {
            let _ = write!(text, "\n{}\n{}", removals.title, fence(&removals.lines(detail)));
        }
        if total > MAX_UNFOLDED {
            text.push_str("\n</details>\n");
        }
        text
    }

    /// Adds the lines that fit, the most important ones first, and says how many were omitted. `has_removals` says whether
    /// every removal is in the text.
    fn add_sections(&self, text: &mut String, has_removals: bool) {
        let texts: Vec<[Vec<String>; 2]> =
            self.sections.iter().map(|section| [aligned(&section.shown), aligned(&section.folded)]).collect();
        let mut lines = Vec::new();
        for (place, section) in self.sections.iter().enumerate() {
            for (part, ranked) in [&section.shown, &section.folded].into_iter().enumerate() {
                let importance = |line: &RankedLine| (part, Reverse(line.importance));
                lines.extend(ranked.iter().enumerate().map(|(at, line)| (importance(line), place, part, at)));
            }
        }
        // The sort is stable, so lines of the same importance keep their order.
        lines.sort_by_key(|(importance, ..)| *importance);
        let mut included: Vec<[Vec<bool>; 2]> =
            texts.iter().map(|parts| parts.each_ref().map(|lines| vec![false; lines.len()])).collect();
        let mut started = vec![[false; 2]; texts.len()];
        let mut budget = COMMENT_LIMIT.saturating_sub(text.len() + FOOTER_RESERVE);
        let mut omitted = 0;
        for &(_, place, part, at) in &lines {
            let is_first = !started[place][part];
            let opening = if is_first { self.sections[place].opening(part).len() + CLOSING.len() } else { 0 };
            let cost = texts[place][part][at].len() + 1 + opening;
            if cost <= budget {
                budget -= cost;
                included[place][part][at] = true;
                started[place][part] = true;
            } else {
                omitted += 1;
            }
        }
        for (place, section) in self.sections.iter().enumerate() {
            for part in [SHOWN_PART, FOLDED_PART] {
                let chosen = included[place][part].iter().zip(&texts[place][part]);
                let chosen: Vec<&String> =
                    chosen.filter(|(included, _)| **included).map(|(_, text)| text).collect();
                if !chosen.is_empty() {
                    text.push_str(&section.opening(part));
                    chosen.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
                    text.push_str(if part == FOLDED_PART { CLOSING } else { "```\n" });
                }
            }
        }
        if omitted > 0 {
            let lines = count(lines.len(), "line");
            let removals = if has_removals { " (removals never are)" } else { "" };
            let _ = write!(
                text,
                "\n_{omitted} of {lines} were omitted to fit the comment{removals}: run `{}` to see them._\n",
                self.everything
            );
        }
    }
}

/// The parts of a section.
const SHOWN_PART: usize = 0;
const FOLDED_PART: usize = 1;

/// The text after the lines of a folded part, which is longer than after visible ones.
const CLOSING: &str = "```\n\n</details>\n";

impl ChangeSection {
    /// The minimum length of the section with all visible lines.
    fn shown_length(&self) -> usize {
        let lines = self.shown.iter().map(|ranked| ranked.line.text.len() + ranked.line.annotation.len() + 4);
        self.opening(SHOWN_PART).len() + lines.sum::<usize>()
    }

    /// The text before the lines of a part.
    fn opening(&self, part: usize) -> String {
        if part == SHOWN_PART {
            return format!("\n{}\n\n```diff\n", self.title);
        }
        let title = if self.shown.is_empty() { format!("\n{}\n", self.title) } else { String::new() };
        let all = count(self.folded.len(), "line");
        format!("{title}\n<details>\n<summary>Details ({all})</summary>\n\n```diff\n")
    }
}

/// The lines with aligned reasons, escaped for a fenced block.
fn aligned(lines: &[RankedLine]) -> Vec<String> {
    let lines = lines.iter().map(|ranked| ranked.line.clone()).collect();
    Lines { lines }.aligned(&Palette::for_diff()).iter().map(|line| fenced(line)).collect()
}

/// The symbol of nodes that are kept.
const KEPT: char = '=';

fn fence(lines: &[String]) -> String {
    format!("\n```diff\n{}\n```\n", lines.join("\n"))
}

impl Removals {
    fn lines(&self, detail: RemovalDetail) -> Vec<String> {
        let names = || self.objects.iter().map(|object| object.name.as_str());
        match (detail, &self.scope) {
            (RemovalDetail::NodesOnce | RemovalDetail::AllBut, RemovalScope::Node) => {
                return self.without_routes_to_removed();
            }
            (RemovalDetail::RoutesOnce, RemovalScope::Cluster { .. }) => {
                return vec![format!(
                    "- the {} that the routes above lead to",
                    count(self.objects.len(), "node")
                )];
            }
            (RemovalDetail::AllBut, RemovalScope::Cluster { file, kept }) => {
                let every = fenced(&format!("- every node of {file}"));
                if kept.is_empty() {
                    return vec![every];
                }
                let names = fold_names(kept.iter().map(Untrusted::as_raw)).into_iter();
                let head = format!("{every} except these:");
                return std::iter::once(head).chain(fill_lines(KEPT, names)).collect();
            }
            _ => {}
        }
        match detail {
            RemovalDetail::WithReasons => {
                let lines = self.objects.iter().map(|object| object.line.clone()).collect();
                Lines { lines }.aligned(&Palette::for_diff()).iter().map(|line| fenced(line)).collect()
            }
            RemovalDetail::Objects => {
                let texts = align_columns(self.objects.iter().map(|object| object.line.text.as_str()));
                texts.iter().map(|text| fenced(text)).collect()
            }
            RemovalDetail::Names => fill_lines(Symbols::REMOVE, names().map(ToOwned::to_owned)),
            RemovalDetail::SharedNames
            | RemovalDetail::NodesOnce
            | RemovalDetail::RoutesOnce
            | RemovalDetail::AllBut => fill_lines(Symbols::REMOVE, fold_names(names()).into_iter()),
        }
    }

    /// The names, with one line for all routes to removed nodes, which are listed elsewhere.
    fn without_routes_to_removed(&self) -> Vec<String> {
        let (routes, others): (Vec<&Removal>, Vec<&Removal>) =
            self.objects.iter().partition(|object| object.to_removed_node);
        let mut lines = fill_lines(
            Symbols::REMOVE,
            fold_names(others.iter().map(|object| object.name.as_str())).into_iter(),
        );
        if !routes.is_empty() {
            lines.push(format!(
                "- {} to the removed nodes, which are listed below",
                count(routes.len(), "route")
            ));
        }
        lines
    }
}

/// Joins words into lines of limited length.
fn fill_lines(symbol: char, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in names {
        let word = fenced(&word);
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LINE_WIDTH => line.extend([", ", word.as_str()]),
            _ => lines.push(format!("{symbol} {word}")),
        }
    }
    lines
}

//! The plans of many nodes in one: nodes with the same changes share them.

use std::{collections::HashMap, fmt::Write as _};

use schemars::JsonSchema;
use serde::Serialize;

use super::{ChangeEntry, Palette, code_span, fold_names::short_names};
use crate::{
    plan::{Action, Totals},
    text::{Untrusted, count},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The number of changes of one group that are shown.
const SHOWN: usize = 20;

/// The number of words that list nodes.
const MAX_NAME_WORDS: usize = 8;

/// The maximum size in bytes, as for a comparison.
const LIMIT: usize = super::COMMENT_LIMIT;

/// The plans of many nodes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw plan for many nodes")]
pub struct FleetReport {
    /// The version of this format.
    format: u32,
    /// The configuration, as named on the command line.
    pub file: Untrusted,
    /// SHA-256 of the configuration.
    pub config_hash: Untrusted,
    /// The nodes, in the order of the snapshots.
    pub nodes: Vec<FleetNode>,
    /// The changes. Removals come first, then the groups of most nodes.
    pub groups: Vec<ChangeGroup>,
}

/// The plan of one node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetNode {
    /// The name of the node; absent if the snapshot could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The snapshot, as named on the command line.
    pub snapshot: Untrusted,
    /// The counts of its plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// The saved plan, if there are changes, and a directory for plans was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Untrusted>,
    /// Why the plan cannot be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Untrusted>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Untrusted>,
}

/// Nodes, and the changes that are planned on all of them, and on no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeGroup {
    /// The nodes.
    pub nodes: Vec<Untrusted>,
    /// The changes.
    pub changes: Vec<FleetChange>,
}

/// The change of one object on several nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetChange {
    /// The action: `add`, `update` or `remove`.
    pub action: Action,
    /// The live object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Untrusted>,
    /// The desired object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Untrusted>,
    /// The reason.
    pub reason: Untrusted,
}

impl From<&ChangeEntry> for FleetChange {
    fn from(entry: &ChangeEntry) -> Self {
        let text = |object: &super::Object| Untrusted::from(&*object.text());
        Self {
            action: entry.action,
            before: entry.before.as_ref().map(text),
            after: entry.after.as_ref().map(text),
            reason: entry.reason.text.as_str().into(),
        }
    }
}

impl FleetChange {
    const fn symbol(&self) -> char {
        match self.action {
            Action::Add => '+',
            Action::Update => '~',
            Action::Remove => '-',
        }
    }

    /// The change in one line, without its symbol.
    fn line(&self) -> String {
        let object = match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!("{after} (was: {before})"),
            (Some(object), None) | (None, Some(object)) => object.to_string(),
            (None, None) => String::new(),
        };
        format!("{object}  # {}", self.reason)
    }
}

/// Collects the changes of one node after the other.
#[derive(Debug, Default)]
pub struct FleetChanges {
    places: HashMap<FleetChange, usize>,
    /// The changes in the order of their first appearance, with the numbers of the nodes.
    all: Vec<(FleetChange, Vec<usize>)>,
}

impl FleetChanges {
    /// Adds a change on the node with this number.
    pub fn add(&mut self, node: usize, change: FleetChange) {
        if let Some((_, nodes)) = self.places.get(&change).and_then(|at| self.all.get_mut(*at)) {
            nodes.push(node);
        } else {
            self.places.insert(change.clone(), self.all.len());
            self.all.push((change, vec![node]));
        }
    }

    /// Returns the groups. `name` returns the name of a node.
    fn groups(self, name: impl Fn(usize) -> Untrusted) -> Vec<ChangeGroup> {
        let mut places: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut groups: Vec<ChangeGroup> = Vec::new();
        for (change, mut nodes) in self.all {
            nodes.sort_unstable();
            if let Some(group) = places.get(&nodes).and_then(|at| groups.get_mut(*at)) {
                group.changes.push(change);
                continue;
            }
            let names = nodes.iter().map(|node| name(*node)).collect();
            places.insert(nodes, groups.len());
            groups.push(ChangeGroup { nodes: names, changes: vec![change] });
        }
        let rank = |action| match action {
            Action::Remove => 0,
            Action::Update => 1,
            Action::Add => 2,
        };
        for group in &mut groups {
            group.changes.sort_by_key(|change| rank(change.action));
        }
        groups.sort_by_key(|group| {
            let removes = group.changes.iter().any(|change| change.action == Action::Remove);
            (!removes, std::cmp::Reverse(group.nodes.len()))
        });
        groups
    }
}

impl FleetReport {
    /// Creates a report. The changes refer to the `nodes` by their numbers.
    #[must_use]
    pub fn new(
        file: Untrusted,
        config_hash: Untrusted,
        nodes: Vec<FleetNode>,
        changes: FleetChanges,
    ) -> Self {
        let groups = changes.groups(|node| nodes[node].node.clone().unwrap_or_default());
        Self { format: FORMAT, file, config_hash, nodes, groups }
    }

    /// Returns the number of nodes with changes.
    #[must_use]
    pub fn changed(&self) -> usize {
        let has_changes = |totals: &Totals| totals.add + totals.update + totals.remove > 0;
        let planned = self.nodes.iter().filter(|node| node.problem.is_none());
        planned.filter(|node| node.totals.as_ref().is_some_and(has_changes)).count()
    }

    fn problems(&self) -> impl Iterator<Item = (&FleetNode, &Untrusted)> {
        self.nodes.iter().filter_map(|node| Some((node, node.problem.as_ref()?)))
    }

    fn summary(&self) -> String {
        let mut totals = Totals::default();
        let planned = self.nodes.iter().filter(|node| node.problem.is_none());
        for node in planned.filter_map(|node| node.totals) {
            totals.add += node.add;
            totals.update += node.update;
            totals.remove += node.remove;
        }
        let changed = self.changed();
        let problems = self.problems().count();
        let all = count(self.nodes.len(), "node");
        let refused = match problems {
            0 => String::new(),
            all if all == self.nodes.len() => {
                return format!("No usable plan for {}.", count(all, "snapshot"));
            }
            1 => "; 1 has no usable plan".to_owned(),
            number => format!("; {number} have no usable plan"),
        };
        match changed {
            0 if problems > 0 => format!("No changes on {} of {all}{refused}.", self.nodes.len() - problems),
            0 => format!("No changes on {all}."),
            1 => format!("1 of {all} changes: {totals}{refused}."),
            _ => format!("{changed} of {all} change: {totals}{refused}."),
        }
    }
}

impl FleetNode {
    fn title(&self) -> String {
        self.node.as_ref().map_or_else(|| self.snapshot.to_string(), ToString::to_string)
    }
}

impl ChangeGroup {
    /// `On 2 nodes (linux-1, linux-2):`
    fn title(&self) -> String {
        format!("On {} ({}):", count(self.nodes.len(), "node"), short_names(&self.nodes, MAX_NAME_WORDS))
    }
}

/// Renders only the counts of the plans, with the names of the nodes. The text ends with a newline.
#[must_use]
pub fn fleet_summary(report: &FleetReport, palette: &Palette) -> String {
    let mut text = String::new();
    for group in &report.groups {
        let number = |action| group.changes.iter().filter(|change| change.action == action).count();
        let [add, update, remove] = [Action::Add, Action::Update, Action::Remove].map(number);
        let totals = Totals { add, update, remove, ..Totals::default() };
        let _ = writeln!(text, "{} {totals}", palette.head.apply_to(group.title()));
    }
    put_end(&mut text, report, palette);
    text
}

/// Renders the plans for a terminal. The text ends with a newline.
#[must_use]
pub fn fleet_text(report: &FleetReport, palette: &Palette) -> String {
    let mut text = String::new();
    for group in &report.groups {
        let changes = &group.changes;
        let _ = writeln!(text, "{}", palette.head.apply_to(group.title()));
        for change in changes.iter().take(SHOWN) {
            let style = match change.action {
                Action::Add => &palette.add,
                Action::Update => &palette.change,
                Action::Remove => &palette.remove,
            };
            let _ = writeln!(text, "{}", style.apply_to(format!("  {} {}", change.symbol(), change.line())));
        }
        put_rest(&mut text, changes.len(), "  ");
        text.push('\n');
    }
    put_end(&mut text, report, palette);
    text
}

/// Says which plans cannot be applied, and the counts of all others.
fn put_end(text: &mut String, report: &FleetReport, palette: &Palette) {
    for (node, problem) in report.problems() {
        let head = palette.conflict.apply_to("error:");
        let _ = writeln!(text, "{head} {}: {problem}", node.title());
        if let Some(remedy) = &node.remedy {
            let _ = writeln!(text, "  {} {remedy}", palette.head.apply_to("help:"));
        }
    }
    let _ = writeln!(text, "{}", palette.head.apply_to(report.summary()));
}

/// Says how many changes are not shown.
fn put_rest(text: &mut String, changes: usize, indent: &str) {
    if let Some(more) = changes.checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "{indent}{more} more; list all with --json, or with `hostgw show PLAN`");
    }
}

/// Renders the plans in Markdown for a review: removals first, at most 60,000 bytes.
#[must_use]
pub fn fleet_markdown(report: &FleetReport) -> String {
    const REST: usize = 200;
    let mut text = format!("### hostgw plan\n\n{}\n", report.summary());
    let problems: Vec<String> = report
        .problems()
        .map(|(node, problem)| {
            let remedy =
                node.remedy.as_ref().map_or_else(String::new, |it| format!("\n  - help: {}", code_span(it)));
            format!("- {}: {}{remedy}\n", code_span(&node.title().into()), code_span(problem))
        })
        .collect();
    let blocks = report.groups.iter().map(|ChangeGroup { nodes, changes }| {
        let mut block = format!(
            "\n**On {}** {}\n\n```diff\n",
            count(nodes.len(), "node"),
            code_span(&short_names(nodes, MAX_NAME_WORDS).into())
        );
        for change in changes.iter().take(SHOWN) {
            let symbol = if change.action == Action::Update { '!' } else { change.symbol() };
            let _ = writeln!(block, "{symbol} {}", fenced(&change.line()));
        }
        put_rest(&mut block, changes.len(), "# ");
        block + "```\n"
    });
    let head = (!problems.is_empty()).then(|| "\n**Plans that cannot be applied**\n\n".to_owned());
    let mut left = 0;
    for block in head.into_iter().chain(problems).chain(blocks) {
        if left > 0 || text.len() + block.len() + REST > LIMIT {
            left += 1;
        } else {
            text.push_str(&block);
        }
    }
    if left > 0 {
        let _ = writeln!(text, "\n{} omitted; see `hostgw plan --json`", count(left, "section"));
    }
    text
}

/// Returns a line that cannot end a fenced block.
fn fenced(line: &str) -> String {
    line.replace('`', "'")
}

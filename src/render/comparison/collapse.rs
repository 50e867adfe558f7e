//! Collapses many changes of one kind into one line.

use std::collections::HashMap;

use crate::{
    plan::{Action, compare::Class},
    render::{ChangeEntry, text::put_reason},
    state::{Column, ObjectKind, Word},
    text::count,
};

/// The maximum number of changes of one kind that are listed individually.
const MAX_LISTED: usize = 10;

/// The number of names in a collapsed line.
const MAX_NAMED: usize = 3;

/// A line of the collapsed form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollapsedLine {
    /// A single change, by its index.
    Single(usize),
    /// Many changes of one kind.
    Several {
        /// The action of all changes.
        action: Action,
        /// The objects and what they have in common.
        text: String,
        /// The reason.
        reason_text: String,
    },
}

/// The class of each change of a block.
#[derive(Debug, Default)]
pub(super) struct Classes {
    all: Vec<Class>,
    indexes: HashMap<Class, usize>,
    /// For each change, the index of its class.
    of: Vec<usize>,
}

impl Classes {
    pub(super) fn push(&mut self, class: Class) {
        let index = *self.indexes.entry(class).or_insert_with_key(|class| {
            self.all.push(class.clone());
            self.all.len() - 1
        });
        self.of.push(index);
    }

    pub(super) fn reverse(&mut self) {
        self.of.reverse();
    }
}

/// Collapses the changes of a block, in their order. If there are many of one kind, they share a line.
pub(super) fn collapse(classes: &Classes, changes: &[ChangeEntry]) -> Vec<CollapsedLine> {
    let mut kinds: HashMap<(Action, ObjectKind, usize), usize> = HashMap::new();
    let mut groups: Vec<(&Class, Vec<usize>)> = Vec::new();
    let mut group_of = Vec::with_capacity(changes.len());
    for (index, (class, entry)) in classes.of.iter().zip(changes).enumerate() {
        let group = *kinds.entry((entry.action, entry.kind, *class)).or_insert_with(|| {
            groups.push((&classes.all[*class], Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(index);
        group_of.push(group);
    }
    let mut lines = Vec::new();
    for (index, group) in group_of.into_iter().enumerate() {
        let (class, members) = &groups[group];
        if members.len() <= MAX_LISTED {
            lines.push(CollapsedLine::Single(index));
        } else if members.first() == Some(&index) {
            let entries: Vec<&ChangeEntry> = members.iter().map(|index| &changes[*index]).collect();
            lines.push(collapse_group(class, &entries, &changes[index]));
        }
    }
    lines
}

fn collapse_group(class: &Class, entries: &[&ChangeEntry], first: &ChangeEntry) -> CollapsedLine {
    let what = match class {
        Class::Pods => " to the pods of other nodes".to_owned(),
        _ => common_difference(entries)
            .map_or_else(|| first_names(entries), |difference| format!(": {difference}")),
    };
    let reason_text = if *class == Class::Pods { String::new() } else { reasons(entries) };
    CollapsedLine::Several {
        action: first.action,
        text: format!("{}{what}", count(entries.len(), first.kind.noun())),
        reason_text,
    }
}

/// `: 10.244.1.0/24, 10.244.2.0/24 and 9 more`.
fn first_names(entries: &[&ChangeEntry]) -> String {
    let object = |entry: &ChangeEntry| {
        entry.after.as_ref().or(entry.before.as_ref()).map(|object| object.name().into_owned())
    };
    let names: Vec<String> = entries.iter().take(MAX_NAMED).filter_map(|entry| object(entry)).collect();
    let more = entries.len() - names.len();
    format!(": {} and {more} more", names.join(", "))
}

/// The common reason, or the first reasons.
fn reasons(entries: &[&ChangeEntry]) -> String {
    let mut reasons: Vec<String> = Vec::new();
    for entry in entries {
        let mut reason = String::new();
        put_reason(&mut reason, &entry.reason);
        if reasons.last() != Some(&reason) {
            reasons.push(reason);
        }
    }
    let first = reasons.swap_remove(0);
    match reasons.len() {
        0 => first,
        more => format!("{first} (and {})", count(more, "more reason")),
    }
}

/// The difference that all these routes have in common, such as `mtu 1400 -> 1450`.
fn common_difference(entries: &[&ChangeEntry]) -> Option<String> {
    let routes = |entry: &ChangeEntry| -> Option<(Vec<Word>, Vec<Word>)> {
        Some((entry.before.as_ref()?.route_words()?, entry.after.as_ref()?.route_words()?))
    };
    let mut differences =
        entries.iter().map(|entry| routes(entry).and_then(|(old, new)| difference(&old, &new)));
    let first = differences.next()??;
    let mut same = true;
    for difference in differences {
        let difference = difference?;
        if difference.keyword != first.keyword {
            return None;
        }
        same &= difference == first;
    }
    match (same, first.column) {
        (true, _) => Some(first.text),
        (false, Column::NextHop) => Some("next hop changes".to_owned()),
        (false, _) => None,
    }
}

#[derive(PartialEq)]
struct Difference {
    column: Column,
    keyword: &'static str,
    text: String,
}

/// The single word in which two routes differ.
fn difference(old: &[Word], new: &[Word]) -> Option<Difference> {
    let only = |words: &[Word], others: &[Word]| -> Vec<Word> {
        words.iter().filter(|word| !others.contains(word)).cloned().collect()
    };
    let of = |word: &Word, text: String| Difference { column: word.column, keyword: word.keyword, text };
    match (&only(old, new)[..], &only(new, old)[..]) {
        ([removed], [added]) if removed.keyword == added.keyword => {
            Some(of(added, format!("{} {} -> {}", added.keyword, removed.value, added.value)))
        }
        ([removed], []) => Some(of(removed, format!("without {removed}"))),
        ([], [added]) => Some(of(added, format!("with {added}"))),
        _ => None,
    }
}

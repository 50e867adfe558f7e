//! Many changes of one kind as one line.

use std::collections::HashMap;

use crate::{
    plan::{
        Action,
        compare::{Class, NodeGroup},
    },
    render::{Entry, Group, text::reason},
    state::Route,
    text::{count, list},
};

/// So many changes of one kind are told one by one.
const LISTED: usize = 10;

/// So many of a kind are named.
const NAMED: usize = 3;

/// A line of the short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Short {
    /// One change, by its index.
    One(usize),
    /// Many of one kind.
    Many {
        /// What happens to all of them.
        action: Action,
        /// What they are and what they have in common.
        text: String,
        /// Why.
        side: String,
    },
}

/// The changes of a block in short, in their order: those of one kind together where they are many.
pub(super) fn short(block: &NodeGroup, changes: &[Entry]) -> Vec<Short> {
    let mut kinds: HashMap<(Action, Group, Class), usize> = HashMap::new();
    let mut groups: Vec<(Class, Vec<usize>)> = Vec::new();
    let mut group_of = Vec::with_capacity(changes.len());
    for (index, (delta, entry)) in block.deltas.iter().zip(changes).enumerate() {
        let class = delta.cause.class();
        let group = *kinds.entry((entry.action, entry.kind, class.clone())).or_insert_with(|| {
            groups.push((class, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(index);
        group_of.push(group);
    }
    let mut lines = Vec::new();
    for (index, group) in group_of.into_iter().enumerate() {
        let (class, members) = &groups[group];
        if members.len() <= LISTED {
            lines.push(Short::One(index));
        } else if members.first() == Some(&index) {
            let entries: Vec<&Entry> = members.iter().map(|index| &changes[*index]).collect();
            lines.push(many(class, &entries, &changes[index]));
        }
    }
    lines
}

fn many(class: &Class, entries: &[&Entry], first: &Entry) -> Short {
    let noun = match first.kind {
        Group::Route => "route",
        Group::Nat => "NAT object",
        Group::Sysctl => "sysctl",
        Group::Forwarding => "interface",
    };
    let what = match class {
        Class::Pods => " to every other node".to_owned(),
        _ => {
            common_difference(entries).map_or_else(|| named(entries), |difference| format!(": {difference}"))
        }
    };
    let side = if *class == Class::Pods { String::new() } else { reasons(entries) };
    Short::Many { action: first.action, text: format!("{}{what}", count(entries.len(), noun)), side }
}

/// `: 10.244.1.0/24, 10.244.2.0/24 and 9 more`.
fn named(entries: &[&Entry]) -> String {
    let object =
        |entry: &Entry| entry.after.as_ref().or(entry.before.as_ref()).map(|object| object.name.clone());
    let names: Vec<String> = entries.iter().take(NAMED).filter_map(|entry| object(entry)).collect();
    let more = entries.len() - names.len();
    format!(": {} and {more} more", names.join(", "))
}

/// The reason that all share, or the first ones.
fn reasons(entries: &[&Entry]) -> String {
    let mut told: Vec<String> = Vec::new();
    for entry in entries {
        let reason = reason(&entry.reason);
        if told.last() != Some(&reason) {
            told.push(reason);
        }
    }
    if told.len() == 1 { told.remove(0) } else { list(&told, 1) }
}

/// What is the same difference in all of these routes, as in `mtu 1400 -> 1450`.
fn common_difference(entries: &[&Entry]) -> Option<String> {
    let routes = |entry: &Entry| -> Option<(Vec<String>, Vec<String>)> {
        let words = |route: &Option<Route>| Some(route.as_ref()?.words());
        Some((words(&entry.before.as_ref()?.route)?, words(&entry.after.as_ref()?.route)?))
    };
    let mut differences =
        entries.iter().map(|entry| routes(entry).and_then(|(old, new)| difference(&old, &new)));
    let first = differences.next()??;
    let mut same = true;
    for difference in differences {
        let difference = difference?;
        if difference.kind != first.kind {
            return None;
        }
        same &= difference == first;
    }
    match (same, first.kind.as_str()) {
        (true, _) => Some(first.text),
        (false, "via") => Some("via other next hops".to_owned()),
        (false, _) => None,
    }
}

#[derive(PartialEq)]
struct Difference {
    /// What the word is about.
    kind: String,
    text: String,
}

/// The one word in which two routes differ.
fn difference(old: &[String], new: &[String]) -> Option<Difference> {
    let only = |words: &[String], others: &[String]| -> Vec<String> {
        words.iter().filter(|word| !others.contains(word)).cloned().collect()
    };
    let split = |word: &str| {
        let (kind, value) = word.split_once(' ').unwrap_or(("", word));
        (kind.to_owned(), value.to_owned())
    };
    match (&only(old, new)[..], &only(new, old)[..]) {
        ([gone], [come]) => {
            let ((kind, before), (same, after)) = (split(gone), split(come));
            (kind == same).then(|| Difference { text: format!("{kind} {before} -> {after}"), kind })
        }
        ([gone], []) => Some(Difference { kind: split(gone).0, text: format!("without {gone}") }),
        ([], [come]) => Some(Difference { kind: split(come).0, text: format!("with {come}") }),
        _ => None,
    }
}

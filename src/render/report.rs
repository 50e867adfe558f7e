//! What every form of a plan tells.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PersistedFile;
use crate::{
    model::ConfigPath,
    plan::{Action, Change, Conflict, ForeignSysctl, Plan, Reason, Totals, compare::Side},
    state::{Forwarding, NatObject, Route, Unknown, WindowsRoute},
    text::Untrusted,
};

/// The version of the JSON form.
const FORMAT: u32 = 1;

/// What would change on one node: `hostgw plan --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw plan")]
pub struct Report {
    /// Version of this form.
    pub format: u32,
    /// The node; none for a plan that is not made from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The configuration file, as named on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// Object by object, in the order in which they are committed.
    pub changes: Vec<Entry>,
    /// What stands in the way.
    pub conflicts: Vec<ConflictEntry>,
    /// What could not be read.
    pub unknown: Vec<Unknown>,
    /// What is worth knowing though it stands in nobody's way.
    pub warnings: Vec<String>,
    /// The files on this node that restore part of its state at boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub persisted: Vec<PersistedFile>,
    /// The counts.
    pub totals: Totals,
}

/// One object that comes, changes or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `add`, `change` or `remove`.
    pub action: Action,
    /// `route`, `nat`, `sysctl` or `forwarding`.
    pub kind: Group,
    /// What stands.
    pub before: Option<Object>,
    /// What shall stand.
    pub after: Option<Object>,
    /// Why, and where it is asked for.
    #[serde(flatten)]
    pub reason: ReasonEntry,
    /// Where it happens, in a comparison of two files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Reach>,
}

/// On which nodes of a block something happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// How many they are.
    pub nodes: usize,
    /// The others: a route never stands on the node it leads to.
    pub except: Vec<Untrusted>,
    /// The node, where it happens on one of them only: the route to a pod CIDR that was its own, or is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Untrusted>,
}

/// Part of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Routes.
    Route,
    /// The NAT tables.
    Nat,
    /// Sysctls.
    Sysctl,
    /// Forwarding of the interfaces of Windows nodes.
    Forwarding,
}

/// An object, in the words of the kernel's tools and, for programs, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// As `ip route`, `nft` or `sysctl` print it; on Windows as New-NetRoute and Set-NetIPInterface take it.
    pub text: String,
    /// What it is called: a route by its destination, a sysctl by its key.
    pub name: String,
    /// The route's fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The fields of a route of a Windows node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_route: Option<WindowsRoute>,
    /// The sysctl's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The sysctl's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Untrusted>,
}

/// Why a change is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReasonEntry {
    /// In words.
    #[serde(rename = "reason")]
    pub text: String,
    /// The configuration did not change since the last apply: the kernel did.
    pub drift: bool,
    /// The place in the configuration that asks for it; for what is removed, in the one that asked for it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// A place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// As in `nodes[3].podCIDR`.
    pub path: String,
    /// The file, as named on the command line.
    pub file: Untrusted,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The apply whose configuration it is, by its number in the history; none for the file as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<u64>,
}

impl Source {
    /// The place of `path` in `file` as it is now.
    #[must_use]
    pub fn new(path: &ConfigPath, file: &Untrusted, line: usize, column: usize) -> Self {
        Self { path: path.to_string(), file: file.clone(), line, column, apply: None }
    }
}

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConflictEntry {
    /// `route`, `nat` or `sysctl`.
    pub kind: Group,
    /// What stands there and is not hostgw's.
    pub foreign: Vec<Object>,
    /// What hostgw needs there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Object>,
    /// hostgw had put its own route there, which somebody has replaced since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// hostgw could put it back if it removed it.
    #[serde(skip)]
    pub restorable: bool,
    /// In words.
    pub text: String,
}

impl Report {
    /// Resolves `plan`. `explain` gives the reason of a change, `locate` the place of a part of the
    /// configuration, or of the one that was applied last.
    #[must_use]
    pub fn new(
        plan: &Plan,
        explain: impl Fn(&Change) -> Reason,
        locate: impl Fn(Side, &ConfigPath) -> Option<Source>,
    ) -> Self {
        let entries = plan.changes.iter().flat_map(|change| {
            let Reason { text, places, drift } = explain(change);
            let source = places.iter().find_map(|(side, path)| locate(*side, path));
            let is_nat = matches!(change, Change::Nat(_)) && !places.is_empty();
            entries(change, &ReasonEntry { drift, ..ReasonEntry::new(text, source, is_nat) })
        });
        Self {
            changes: entries.collect(),
            conflicts: plan.conflicts.iter().map(conflict).collect(),
            unknown: plan.unknown.clone(),
            ..Self::empty(plan.totals())
        }
    }

    /// Adds the files that restore part of the state at boot, with a warning for each that needs attention.
    pub fn add_persisted(&mut self, files: Vec<PersistedFile>) {
        self.warnings.extend(files.iter().filter_map(PersistedFile::warning));
        self.persisted = files;
    }

    /// A plan that has these changes and nothing in its way.
    #[must_use]
    pub fn of_changes(node: Option<Untrusted>, file: Option<Untrusted>, changes: Vec<Entry>) -> Self {
        let number = |action| changes.iter().filter(|entry| entry.action == action).count();
        let totals = Totals {
            add: number(Action::Add),
            change: number(Action::Change),
            remove: number(Action::Remove),
            ..Totals::default()
        };
        Self { node, file, changes, ..Self::empty(totals) }
    }

    pub(super) const fn empty(totals: Totals) -> Self {
        Self {
            format: FORMAT,
            node: None,
            file: None,
            changes: Vec::new(),
            conflicts: Vec::new(),
            unknown: Vec::new(),
            warnings: Vec::new(),
            persisted: Vec::new(),
            totals,
        }
    }
}

impl ReasonEntry {
    /// A reason that stands at `source`. NAT is there though the file does not mention it.
    pub(super) fn new(text: String, source: Option<Source>, is_nat: bool) -> Self {
        let text = if is_nat && source.is_none() { format!("{text} (default)") } else { text };
        Self { text, drift: false, source }
    }
}

/// The objects of a change, each with its reason.
fn entries(change: &Change, reason: &ReasonEntry) -> Vec<Entry> {
    let entry =
        |action, kind, before, after| Entry { action, kind, before, after, reason: reason.clone(), on: None };
    match change {
        Change::Route(change) => change
            .lines()
            .into_iter()
            .map(|(action, before, after)| {
                entry(action, Group::Route, before.map(Object::route), after.map(Object::route))
            })
            .collect(),
        Change::Nat(change) => change
            .lines()
            .into_iter()
            .map(|(action, before, after)| {
                let object = |object: Option<NatObject>| object.as_ref().map(Object::nat);
                let mut entry = entry(action, Group::Nat, object(before), object(after));
                if action == Action::Remove && change.after.is_some() {
                    "not in the configuration".clone_into(&mut entry.reason.text);
                }
                entry
            })
            .collect(),
        Change::Sysctl(change) => {
            let key = change.key.as_str();
            let (before, after) = (Object::sysctl(key, &change.before), Object::sysctl(key, &change.after));
            vec![entry(Action::Change, Group::Sysctl, Some(before), Some(after))]
        }
    }
}

fn conflict(conflict: &Conflict) -> ConflictEntry {
    let text = conflict.to_string();
    match conflict {
        Conflict::Route { wanted, foreign, replaced } => ConflictEntry {
            replaced: *replaced,
            restorable: true,
            kind: Group::Route,
            foreign: foreign.iter().map(Object::route).collect(),
            wanted: Some(Object::route(wanted)),
            text,
        },
        Conflict::Nat { objects, .. } => ConflictEntry {
            replaced: false,
            restorable: false,
            kind: Group::Nat,
            foreign: objects
                .iter()
                .map(|object| Object::text(object.to_string(), object.to_string()))
                .collect(),
            wanted: None,
            text,
        },
        Conflict::ForeignNat { objects, .. } => ConflictEntry {
            replaced: false,
            restorable: true,
            kind: Group::Nat,
            foreign: objects.iter().map(|object| Object::text(object.name(), object.to_string())).collect(),
            wanted: None,
            text,
        },
        Conflict::Sysctl(ForeignSysctl { key, live, original, .. }) => ConflictEntry {
            replaced: false,
            restorable: true,
            kind: Group::Sysctl,
            foreign: vec![Object::sysctl(key.as_str(), live)],
            wanted: Some(Object::sysctl(key.as_str(), original)),
            text,
        },
    }
}

impl Object {
    pub(super) const fn text(name: String, text: String) -> Self {
        Self { text, name, route: None, windows_route: None, key: None, value: None }
    }

    pub(super) fn route(route: &Route) -> Self {
        Self { route: Some(route.clone()), ..Self::text(route.key().to_string(), route.to_string()) }
    }

    pub(super) fn windows_route(route: &WindowsRoute) -> Self {
        let name = route.destination_prefix.to_string();
        Self { windows_route: Some(route.clone()), ..Self::text(name, route.to_string()) }
    }

    pub(super) fn forwarding(forwarding: Forwarding, enabled: bool) -> Self {
        Self::text(forwarding.name(), forwarding.text(enabled))
    }

    pub(super) fn nat(object: &NatObject) -> Self {
        Self::text(object.name(), object.to_string())
    }

    pub(super) fn sysctl(key: &str, value: &Untrusted) -> Self {
        let text = format!("{key} = {value}");
        Self { key: Some(key.to_owned()), value: Some(value.clone()), ..Self::text(key.to_owned(), text) }
    }
}

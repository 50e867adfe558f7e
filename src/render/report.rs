//! The content of a plan that all forms share.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::BootFile;
use crate::{
    diagnose::{Diagnostic, Severity},
    model::{ConfigPath, Family},
    plan::{Action, Change, Conflict, ForeignSysctl, Plan, Reason, Totals, compare::Side},
    progress::Task,
    state::{Forwarding, NatObject, ObjectKind, Route, Unknown, WindowsRoute, Word, join_words},
    text::Untrusted,
};

/// The version of the JSON format.
const FORMAT: u32 = 1;

/// The planned changes of one node: `hostgw plan --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw plan")]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// The node; absent for a plan that is not made from a configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The configuration file, as named on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// The changes, one per object, in the order of the commit.
    pub changes: Vec<ChangeEntry>,
    /// The foreign objects that conflict with the plan.
    pub conflicts: Vec<ConflictEntry>,
    /// The parts of the live state that could not be read.
    pub unknown: Vec<Unknown>,
    /// Warnings, which do not prevent an apply.
    pub findings: Vec<FindingEntry>,
    /// Whether some of them concern pod paths.
    #[serde(skip)]
    pub has_lost_paths: bool,
    /// Whether this is the plan of a rollback.
    #[serde(skip)]
    pub is_rollback: bool,
    /// The files on this node that restore a part of its state at boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boot_files: Vec<BootFile>,
    /// The number of changes of each kind.
    pub totals: Totals,
}

/// A finding about a plan or a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingEntry {
    /// The code of the rule: `hostgw help CODE` explains it.
    pub code: &'static str,
    /// The severity of the finding.
    pub severity: Severity,
    /// The message, which names the object and the problem.
    pub message: Untrusted,
    /// The line of the configuration that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<SourceLocation>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Untrusted>,
}

/// An object that is added, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeEntry {
    /// The action: `add`, `update` or `remove`.
    pub action: Action,
    /// The kind of the object: `route`, `nat`, `sysctl` or `forwarding`.
    pub kind: ObjectKind,
    /// The live object.
    pub before: Option<Object>,
    /// The desired object.
    pub after: Option<Object>,
    /// The reason for the change.
    #[serde(flatten)]
    pub reason: ReasonEntry,
    /// The nodes that change, in a comparison of two configurations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<AffectedNodes>,
}

/// The nodes of a block that a change affects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AffectedNodes {
    /// The number of nodes.
    pub nodes: usize,
    /// The nodes of the block that are not affected: a node has no route to itself.
    pub except: Vec<Untrusted>,
    /// The node, if only one is affected: the route to a pod CIDR that was or becomes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Untrusted>,
}

/// An object. It is formatted only when it is printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ObjectDocument", into = "ObjectDocument")]
pub enum Object {
    /// A route.
    Route(Route),
    /// A route of several nodes, each of which has its own address in it.
    SharedRoute {
        /// The route, with the preferred source of one of the nodes.
        route: Box<Route>,
        /// The placeholder for the source.
        source: Cow<'static, str>,
    },
    /// A route on a Windows node.
    WindowsRoute(Box<WindowsRoute>),
    /// A sysctl.
    Sysctl {
        /// The key.
        key: String,
        /// The value.
        value: Untrusted,
    },
    /// An object of which only the text is shown.
    Text {
        /// A short name.
        name: String,
        /// The object as text.
        text: String,
        /// The place of a NAT object.
        nat: Option<NatPlace>,
    },
}

/// The schema is that of the document.
impl JsonSchema for Object {
    fn schema_name() -> Cow<'static, str> {
        ObjectDocument::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ObjectDocument::json_schema(generator)
    }
}

/// An object as text and, for programs, as fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Object")]
struct ObjectDocument {
    /// The object as `ip route`, `nft` or `sysctl` print it, or as New-NetRoute and Set-NetIPInterface accept it.
    text: String,
    /// A short name: the destination of a route, or the key of a sysctl.
    name: String,
    /// The fields of a route. `source` is absent if it is the address of each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
    /// The fields of a route on a Windows node.
    #[serde(skip_serializing_if = "Option::is_none")]
    windows_route: Option<WindowsRoute>,
    /// The place of a NAT object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat: Option<NatPlace>,
    /// The key of a sysctl.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The value of a sysctl.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Untrusted>,
}

impl From<Object> for ObjectDocument {
    fn from(object: Object) -> Self {
        let (text, name) = (object.text().into_owned(), object.name().into_owned());
        let document =
            Self { text, name, route: None, windows_route: None, nat: None, key: None, value: None };
        match object {
            Object::Route(route) => Self { route: Some(route), ..document },
            Object::SharedRoute { route, .. } => {
                Self { route: Some(Route { source: None, ..*route }), ..document }
            }
            Object::WindowsRoute(route) => Self { windows_route: Some(*route), ..document },
            Object::Sysctl { key, value } => Self { key: Some(key), value: Some(value), ..document },
            Object::Text { nat, .. } => Self { nat, ..document },
        }
    }
}

impl From<ObjectDocument> for Object {
    fn from(document: ObjectDocument) -> Self {
        let ObjectDocument { text, name, route, windows_route, nat, key, value } = document;
        let object = match (route, windows_route, key, value) {
            (Some(route), ..) => Some(Self::Route(route)),
            (None, Some(route), ..) => Some(Self::WindowsRoute(Box::new(route))),
            (None, None, Some(key), Some(value)) => Some(Self::Sysctl { key, value }),
            _ => None,
        };
        // A text that was changed is what its readers saw, so it counts.
        object.filter(|object| object.text() == text && object.name() == name).unwrap_or(Self::Text {
            name,
            text,
            nat,
        })
    }
}

/// The kind of a NAT object, and the family of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatPlace {
    /// The kind.
    pub kind: NatKind,
    /// The family of the table `hostgw` that it is, or is in.
    pub family: Family,
}

/// A kind of NAT object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NatKind {
    /// A table.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// Anything else, such as a set.
    Other,
}

impl NatPlace {
    pub(super) const fn of(object: &NatObject) -> Self {
        let (kind, family) = match object {
            NatObject::Table { family, .. } => (NatKind::Table, *family),
            NatObject::Chain { family, .. } => (NatKind::Chain, *family),
            NatObject::Rule { family, .. } => (NatKind::Rule, *family),
            NatObject::Other { family, .. } => (NatKind::Other, *family),
        };
        Self { kind, family }
    }
}

/// Why a change is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReasonEntry {
    /// The reason as text.
    #[serde(rename = "reason")]
    pub text: String,
    /// Whether the live state changed although the configuration did not, since the last apply.
    pub drift: bool,
    /// The location in the configuration that requires it. For a removal, the location in the last applied
    /// configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<SourceLocation>,
}

/// A location in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceLocation {
    /// The path of the value, such as `nodes[3].podCIDR`.
    pub path: String,
    /// The file, as named on the command line.
    pub file: Untrusted,
    /// The line, starting with 1.
    pub line: usize,
    /// The column in characters, starting with 1.
    pub column: usize,
    /// The ID of the apply that recorded the configuration; absent for the current file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<u64>,
}

impl SourceLocation {
    /// Creates the location of `path` in the current `file`.
    #[must_use]
    pub fn new(path: &ConfigPath, file: &Untrusted, line: usize, column: usize) -> Self {
        Self { path: path.to_string(), file: file.clone(), line, column, transaction_id: None }
    }
}

/// A conflict with foreign objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConflictEntry {
    /// The kind of the object: `route`, `nat` or `sysctl`.
    pub kind: ObjectKind,
    /// The foreign objects.
    pub foreign: Vec<Object>,
    /// The object that hostgw needs in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<Object>,
    /// Whether the foreign object replaced a managed route.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// Whether hostgw could restore the foreign object after removing it.
    #[serde(skip)]
    pub restorable: bool,
    /// The conflict as text.
    pub text: String,
}

impl FindingEntry {
    /// Creates the entry of a finding about this place in a configuration.
    #[must_use]
    pub fn new(diagnostic: Diagnostic, location: Option<SourceLocation>) -> Self {
        let Diagnostic { rule, severity, message, remedy, .. } = diagnostic;
        Self {
            code: rule.code(),
            severity,
            message: message.into(),
            location,
            remedy: remedy.map(Into::into),
        }
    }
}

impl Report {
    /// Resolves `plan`. `explain` returns the reason for a change. `locate` finds a part of the configuration, or of
    /// the last applied one.
    #[must_use]
    pub fn new(
        plan: &Plan,
        explain: impl Fn(&Change) -> Reason,
        locate: impl Fn(Side, &ConfigPath) -> Option<SourceLocation>,
    ) -> Self {
        let _task = Task::begin("finding the reasons");
        Self { changes: Self::changes_of(plan, explain, locate).collect(), ..Self::without_changes(plan) }
    }

    /// Creates a report without the changes of `plan`, which [`Self::changes_of`] resolves one by one.
    #[must_use]
    pub fn without_changes(plan: &Plan) -> Self {
        Self {
            conflicts: plan.conflicts.iter().map(conflict).collect(),
            unknown: plan.unknown.clone(),
            ..Self::empty(plan.totals())
        }
    }

    /// Resolves the changes of `plan` as [`Self::new`] does.
    pub fn changes_of(
        plan: &Plan,
        explain: impl Fn(&Change) -> Reason,
        locate: impl Fn(Side, &ConfigPath) -> Option<SourceLocation>,
    ) -> impl Iterator<Item = ChangeEntry> {
        plan.changes.iter().flat_map(move |change| {
            let Reason { text, places, drift } = explain(change);
            let location = places.iter().find_map(|(side, path)| locate(*side, path));
            let is_nat = change.kind() == ObjectKind::Nat && !places.is_empty();
            entries(change, ReasonEntry { drift, ..ReasonEntry::new(text, location, is_nat) })
        })
    }

    /// Adds warnings; `locate` finds the lines that they concern.
    pub fn warn(
        &mut self,
        warnings: impl IntoIterator<Item = Diagnostic>,
        locate: impl Fn(&ConfigPath) -> Option<SourceLocation>,
    ) {
        for diagnostic in warnings {
            let location = diagnostic.path.as_ref().and_then(&locate);
            self.findings.push(FindingEntry::new(diagnostic, location));
        }
    }

    /// Adds the pod paths that will not work, or not as planned.
    pub fn warn_of_paths(
        &mut self,
        faults: impl IntoIterator<Item = Diagnostic>,
        locate: impl Fn(&ConfigPath) -> Option<SourceLocation>,
    ) {
        let before = self.findings.len();
        self.warn(faults, locate);
        self.has_lost_paths = self.findings.len() > before;
    }

    /// Adds the files that restore a part of the state at boot, and a warning for each one that needs attention.
    pub fn add_boot_files(&mut self, files: Vec<BootFile>) {
        self.warn(files.iter().filter_map(BootFile::warning), |_| None);
        self.boot_files = files;
    }

    /// Creates a report with these changes and without conflicts.
    #[must_use]
    pub fn of_changes(node: Option<Untrusted>, file: Option<Untrusted>, changes: Vec<ChangeEntry>) -> Self {
        let count = |action| changes.iter().filter(|entry| entry.action == action).count();
        let totals = Totals {
            add: count(Action::Add),
            update: count(Action::Update),
            remove: count(Action::Remove),
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
            findings: Vec::new(),
            has_lost_paths: false,
            is_rollback: false,
            boot_files: Vec::new(),
            totals,
        }
    }
}

impl ReasonEntry {
    /// Creates a reason at `location`. NAT is planned even if the configuration does not mention it.
    pub(super) fn new(text: String, location: Option<SourceLocation>, is_nat: bool) -> Self {
        let text = if is_nat && location.is_none() { format!("{text} (default)") } else { text };
        Self { text, drift: false, location }
    }
}

/// Returns the objects of a change, each with its reason.
fn entries(change: &Change, reason: ReasonEntry) -> Vec<ChangeEntry> {
    let entry =
        |action, kind, before, after, reason| ChangeEntry { action, kind, before, after, reason, on: None };
    match change {
        Change::Route(change) => {
            let lines = change.lines();
            let reasons = std::iter::repeat_n(reason, lines.len());
            let entry = |((action, before, after), reason): ((_, Option<&Route>, Option<&Route>), _)| {
                entry(action, ObjectKind::Route, before.map(Object::route), after.map(Object::route), reason)
            };
            lines.into_iter().zip(reasons).map(entry).collect()
        }
        Change::Nat(change) => change
            .lines()
            .into_iter()
            .map(|(action, before, after)| {
                let object = |object: Option<NatObject>| object.as_ref().map(Object::nat);
                let mut entry = entry(action, ObjectKind::Nat, object(before), object(after), reason.clone());
                if action == Action::Remove && change.after.is_some() {
                    "not in the configuration".clone_into(&mut entry.reason.text);
                }
                entry
            })
            .collect(),
        Change::Sysctl(change) => {
            let key = change.key.as_str();
            let (before, after) = (Object::sysctl(key, &change.before), Object::sysctl(key, &change.after));
            vec![entry(Action::Update, ObjectKind::Sysctl, Some(before), Some(after), reason)]
        }
    }
}

fn conflict(conflict: &Conflict) -> ConflictEntry {
    let text = conflict.to_string();
    match conflict {
        Conflict::Route { wanted, foreign, replaced } => ConflictEntry {
            replaced: *replaced,
            restorable: true,
            kind: ObjectKind::Route,
            foreign: foreign.iter().map(Object::route).collect(),
            desired: Some(Object::route(wanted)),
            text,
        },
        Conflict::Nat { objects, .. } => ConflictEntry {
            replaced: false,
            restorable: false,
            kind: ObjectKind::Nat,
            foreign: objects
                .iter()
                .map(|object| Object::of_text(object.to_string(), object.to_string()))
                .collect(),
            desired: None,
            text,
        },
        Conflict::ForeignNat { objects, .. } => ConflictEntry {
            replaced: false,
            restorable: true,
            kind: ObjectKind::Nat,
            foreign: objects
                .iter()
                .map(|object| Object::of_text(object.name(), object.to_string()))
                .collect(),
            desired: None,
            text,
        },
        Conflict::Sysctl(ForeignSysctl { key, live, original, .. }) => ConflictEntry {
            replaced: false,
            restorable: true,
            kind: ObjectKind::Sysctl,
            foreign: vec![Object::sysctl(key.as_str(), live)],
            desired: Some(Object::sysctl(key.as_str(), original)),
            text,
        },
    }
}

impl Object {
    /// Returns the object as `ip route`, `nft` or `sysctl` print it, or as New-NetRoute and Set-NetIPInterface accept it.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Route(route) => route.to_string().into(),
            Self::SharedRoute { .. } => join_words(&self.route_words().unwrap_or_default()).into(),
            Self::WindowsRoute(route) => route.to_string().into(),
            Self::Sysctl { key, value } => format!("{key} = {value}").into(),
            Self::Text { text, .. } => text.into(),
        }
    }

    /// Returns a short name: the destination of a route, or the key of a sysctl.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Route(route) => route.key().to_string().into(),
            Self::SharedRoute { route, .. } => route.key().to_string().into(),
            Self::WindowsRoute(route) => route.destination_prefix.to_string().into(),
            Self::Sysctl { key, .. } => key.into(),
            Self::Text { name, .. } => name.into(),
        }
    }

    /// Returns the words of a route.
    pub(super) fn route_words(&self) -> Option<Vec<Word>> {
        match self {
            Self::Route(route) => Some(route.words()),
            Self::SharedRoute { route, source } => {
                let mut words = route.words();
                for word in words.iter_mut().filter(|word| word.keyword == "src") {
                    source.as_ref().clone_into(&mut word.value);
                }
                Some(words)
            }
            Self::WindowsRoute(_) | Self::Sysctl { .. } | Self::Text { .. } => None,
        }
    }

    /// Returns the place of a NAT object.
    #[must_use]
    pub const fn nat_place(&self) -> Option<NatPlace> {
        if let Self::Text { nat, .. } = self { *nat } else { None }
    }

    pub(super) const fn of_text(name: String, text: String) -> Self {
        Self::Text { name, text, nat: None }
    }

    pub(super) fn route(route: &Route) -> Self {
        Self::Route(route.clone())
    }

    pub(super) fn windows_route(route: &WindowsRoute) -> Self {
        Self::WindowsRoute(Box::new(route.clone()))
    }

    pub(super) fn forwarding(forwarding: Forwarding, enabled: bool) -> Self {
        Self::of_text(forwarding.name(), forwarding.text(enabled))
    }

    pub(super) fn nat(object: &NatObject) -> Self {
        Self::Text { name: object.name(), text: object.to_string(), nat: Some(NatPlace::of(object)) }
    }

    pub(super) fn sysctl(key: &str, value: &Untrusted) -> Self {
        Self::Sysctl { key: key.to_owned(), value: value.clone() }
    }
}

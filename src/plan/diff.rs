//! Computes the changes from an observed to a desired state.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
};

use smallvec::{SmallVec, smallvec};

use crate::{
    model::{Family, SysctlKey},
    state::{NatObject, NatTable, ObjectKind, Route, RouteKey, RouteList, State, Unknown},
    text::{Untrusted, list},
};

use super::{ForeignSysctl, switch};

/// The changes from one state to another in the order of the commit, and the conflicts that prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// NAT, then routes (on-link first, removals last), then sysctls (forwarding switches first).
    pub changes: Vec<Change>,
    /// Foreign objects in the place of managed ones.
    pub conflicts: Vec<Conflict>,
    /// Parts of the live state that could not be read. No changes are planned for them.
    pub unknown: Vec<Unknown>,
}

/// How a plan treats foreign objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForeignPolicy {
    /// Foreign objects in the place of managed ones are conflicts.
    #[default]
    Respect,
    /// Conflicting foreign objects are adopted (`--adopt`).
    Adopt,
}

/// The change of one object. Almost all are of routes, so the others do not enlarge them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The routes of one key.
    Route(RouteChange),
    /// The NAT table of one family, which is replaced as a whole.
    Nat(Box<NatChange>),
    /// One sysctl.
    Sysctl(Box<SysctlChange>),
}

impl Change {
    /// Returns the kind of the object.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Route(_) => ObjectKind::Route,
            Self::Nat(_) => ObjectKind::Nat,
            Self::Sysctl(_) => ObjectKind::Sysctl,
        }
    }

    /// Returns the change if it is a route change.
    #[must_use]
    pub const fn as_route(&self) -> Option<&RouteChange> {
        if let Self::Route(change) = self { Some(change) } else { None }
    }

    /// Returns the change if it is a NAT change.
    #[must_use]
    pub fn as_nat(&self) -> Option<&NatChange> {
        if let Self::Nat(change) = self { Some(change) } else { None }
    }

    /// Returns the change if it is a sysctl change.
    #[must_use]
    pub fn as_sysctl(&self) -> Option<&SysctlChange> {
        if let Self::Sysctl(change) = self { Some(change) } else { None }
    }
}

/// The change of all routes with the same key, in the kernel's order: packets use the first one. IPv4 allows several
/// (`ip route append`), but more than one is rare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The key.
    pub key: RouteKey,
    /// The live routes.
    pub before: RouteList,
    /// The desired routes.
    pub after: RouteList,
}

/// One step of a route change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Adds a route at a key that has none.
    Add(&'a Route),
    /// Replaces the first route of its key.
    Replace {
        /// The replaced route.
        old: &'a Route,
        /// The new route.
        new: &'a Route,
    },
    /// Adds a route after the others of its key.
    Append(&'a Route),
    /// Adds a route before the others of its key.
    Prepend(&'a Route),
    /// Removes exactly this route.
    Delete(&'a Route),
}

/// The change of the NAT table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatChange {
    /// The family.
    pub family: Family,
    /// The live table.
    pub before: Option<NatTable>,
    /// The desired table.
    pub after: Option<NatTable>,
}

/// The change of a sysctl's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlChange {
    /// The key.
    pub key: SysctlKey,
    /// The live value, or the value that the plan's forwarding switch will have set by then.
    pub before: Untrusted,
    /// The desired value.
    pub after: Untrusted,
    /// The forwarding switch of this plan that overwrites the key, which therefore has to be written again.
    pub rewritten_by: Option<SysctlKey>,
}

/// Whether an object is added, updated or removed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// `+`
    Add,
    /// `~`
    Update,
    /// `-`
    Remove,
}

/// A foreign object in the place of a managed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Foreign routes at a key that hostgw needs.
    Route {
        /// The desired route.
        wanted: Route,
        /// The live routes.
        foreign: Vec<Route>,
        /// Whether they replaced a route that hostgw had added.
        replaced: bool,
    },
    /// Objects in hostgw's table that could not be restored once removed.
    Nat {
        /// The table's family.
        family: Family,
        /// The objects, such as `set blocked`.
        objects: Vec<Untrusted>,
    },
    /// Objects in hostgw's table that another program added and that replacing the table would remove without the user
    /// having seen them.
    ForeignNat {
        /// The table's family.
        family: Family,
        /// The objects.
        objects: Vec<NatObject>,
    },
    /// A sysctl to restore that another program has written since.
    Sysctl(ForeignSysctl),
}

impl Conflict {
    /// Returns what to do if addresses of the node cause all conflicts, so that hostgw can adopt no object.
    #[must_use]
    pub fn address_remedy(conflicts: &[Self]) -> Option<&'static str> {
        let is_of_address =
            |conflict: &Self| matches!(conflict, Self::Route { foreign, .. } if !can_be_adopted(foreign));
        conflicts.iter().all(is_of_address).then_some(
            "hostgw cannot take over the kernel's route to the network of an address: correct the prefix length of the \
             address, or remove it",
        )
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { wanted, foreign, replaced } => {
                let verb = if foreign.len() == 1 { "conflicts" } else { "conflict" };
                let foreign: Vec<_> = foreign.iter().map(ToString::to_string).collect();
                let foreign = foreign.join(" and ");
                if *replaced {
                    write!(f, "{foreign} replaced the managed route {wanted}")
                } else {
                    write!(f, "{foreign} {verb} with {wanted}")
                }
            }
            Self::Nat { family, objects } => write!(
                f,
                "table {} {} contains {}, which hostgw could not restore",
                family.nft(),
                NatTable::NAME,
                list(objects, usize::MAX)
            ),
            Self::ForeignNat { family, objects } => write!(
                f,
                "table {} {} contains {} that hostgw did not create: {}",
                family.nft(),
                NatTable::NAME,
                if objects.len() == 1 { "an object" } else { "objects" },
                list(objects, usize::MAX)
            ),
            Self::Sysctl(foreign) => foreign.fmt(f),
        }
    }
}

/// Counts of a plan, in objects as shown: a route, a table, a chain, a rule, a sysctl.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Totals {
    /// Objects added.
    pub add: usize,
    /// Objects updated.
    pub update: usize,
    /// Objects removed.
    pub remove: usize,
    /// Conflicts.
    pub conflicts: usize,
    /// Parts that could not be read.
    pub unknown: usize,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to add, {} to update, {} to remove", self.add, self.update, self.remove)
    }
}

/// Returns the number of managed routes that the plan removes without a managed replacement.
#[must_use]
pub fn removed_routes(plan: &Plan) -> usize {
    let is_owned = |routes: &[Route]| routes.iter().any(Route::is_owned);
    let routes = plan.changes.iter().filter_map(Change::as_route);
    routes.filter(|route| is_owned(&route.before) && !is_owned(&route.after)).count()
}

/// The keys of the routes that a plan changes. Every route of a cluster is looked up, so a few of them are not hashed.
#[derive(Debug)]
pub enum ChangedKeys {
    /// At most as many as are quickly compared one by one.
    Few(Vec<RouteKey>),
    /// More.
    Many(HashSet<RouteKey>),
}

impl ChangedKeys {
    const FEW: usize = 8;

    /// Returns `true` if the route changes.
    #[must_use]
    pub fn contains(&self, key: &RouteKey) -> bool {
        match self {
            Self::Few(keys) => keys.contains(key),
            Self::Many(keys) => keys.contains(key),
        }
    }
}

impl Plan {
    /// Marks the conflicts in which one of the `last` routes, those that were last applied, was replaced.
    pub fn mark_replaced(&mut self, last: &[Route]) {
        for conflict in &mut self.conflicts {
            if let Conflict::Route { wanted, replaced, .. } = conflict {
                let from = last.partition_point(|route| route.key() < wanted.key());
                *replaced = last.get(from).is_some_and(|route| route == wanted && route.is_owned());
            }
        }
    }

    /// Returns the keys of the routes that change.
    #[must_use]
    pub fn route_keys(&self) -> ChangedKeys {
        let keys = || self.changes.iter().filter_map(Change::as_route).map(|change| change.key);
        let few: Vec<RouteKey> = keys().take(ChangedKeys::FEW + 1).collect();
        if few.len() > ChangedKeys::FEW { ChangedKeys::Many(keys().collect()) } else { ChangedKeys::Few(few) }
    }

    /// Returns `true` if there is nothing to do, as far as the live state could be read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty()
    }

    /// Counts the changes, the conflicts and the unknown parts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals =
            Totals { conflicts: self.conflicts.len(), unknown: self.unknown.len(), ..Totals::default() };
        for action in self.changes.iter().flat_map(Change::actions) {
            *match action {
                Action::Add => &mut totals.add,
                Action::Update => &mut totals.update,
                Action::Remove => &mut totals.remove,
            } += 1;
        }
        totals
    }
}

impl Change {
    /// Returns what happens to each of its objects.
    fn actions(&self) -> SmallVec<[Action; 4]> {
        match self {
            Self::Route(route) => route.lines().into_iter().map(|(action, ..)| action).collect(),
            Self::Nat(nat) => nat.lines().into_iter().map(|(action, ..)| action).collect(),
            Self::Sysctl(_) => smallvec![Action::Update],
        }
    }
}

impl fmt::Display for Change {
    /// Formats the object as the kernel's tools do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(change) => match change.after.first().or(change.before.first()) {
                Some(route) => route.fmt(f),
                None => change.key.fmt(f),
            },
            Self::Nat(change) => write!(f, "table {} {}", change.family.nft(), NatTable::NAME),
            Self::Sysctl(change) => write!(f, "{} = {}", change.key, change.after),
        }
    }
}

/// The change of one route: the action, the route before and the route after.
pub type RouteLine<'a> = (Action, Option<&'a Route>, Option<&'a Route>);

impl RouteChange {
    /// Returns the change route by route, as action, before and after.
    #[must_use]
    pub fn lines(&self) -> SmallVec<[RouteLine<'_>; 1]> {
        // Almost every change of a plan is one of these.
        match (&self.before[..], &self.after[..]) {
            ([], [new]) => return smallvec![(Action::Add, None, Some(new))],
            ([old], []) => return smallvec![(Action::Remove, Some(old), None)],
            _ => {}
        }
        let removed = missing_from(self.before.iter(), self.after.iter());
        let added = missing_from(self.after.iter(), self.before.iter());
        (0..removed.len().max(added.len()))
            .filter_map(|at| match (removed.get(at), added.get(at)) {
                (None, Some(after)) => Some((Action::Add, None, Some(*after))),
                (Some(before), None) => Some((Action::Remove, Some(*before), None)),
                (Some(before), Some(after)) => Some((Action::Update, Some(*before), Some(*after))),
                (None, None) => None,
            })
            .collect()
    }

    /// Returns the steps of the change, one route at a time. A route that is replaced is never missing in between: the
    /// kernel replaces the first route of a key, whoever owns it (`fib_table_insert`, net/ipv4/fib_trie.c).
    #[must_use]
    pub fn steps(&self) -> Vec<Step<'_>> {
        // Almost every change of a plan is one of these.
        match (&self.before[..], &self.after[..]) {
            ([], [new]) => return vec![Step::Add(new)],
            ([old], []) => return vec![Step::Delete(old)],
            _ => {}
        }
        // The routes after them, especially foreign ones, are not touched.
        if let Some(new) = self.prepended() {
            return new.iter().rev().map(Step::Prepend).collect();
        }
        let mut steps = Vec::new();
        let mut live: Vec<&Route> = self.before.iter().collect();
        match (live.first_mut(), self.after.first()) {
            (None, Some(new)) => {
                steps.push(Step::Add(new));
                live.push(new);
            }
            (Some(old), Some(new)) if !self.before.contains(new) => {
                steps.push(Step::Replace { old, new });
                *old = new;
            }
            _ => {}
        }
        let live = || live.iter().copied();
        steps.extend(missing_from(live(), self.after.iter()).into_iter().map(Step::Delete));
        steps.extend(missing_from(self.after.iter(), live()).into_iter().map(Step::Append));
        steps
    }

    /// Returns the routes that are added before all live ones, if nothing else changes. IPv6 has no such order.
    #[must_use]
    pub fn prepended(&self) -> Option<&[Route]> {
        let new = self.after.strip_suffix(&*self.before)?;
        let is_live = |route: &Route| self.before.iter().any(|live| live.is_identical(route));
        let is_prepended = !new.is_empty()
            && !self.before.is_empty()
            && self.key.family() == Family::V4
            && !new.iter().any(is_live);
        is_prepended.then_some(new)
    }

    /// Orders the changes of a plan: routes that others depend on first, removals last and in reverse, so that an
    /// on-link route outlives the routes that depend on it.
    fn order(&self, other: &Self) -> Ordering {
        let is_removal = |change: &Self| change.after.is_empty();
        is_removal(self).cmp(&is_removal(other)).then_with(|| match (self.first(), other.first()) {
            (Some(this), Some(that)) if is_removal(self) => that.plan_order(this),
            (Some(this), Some(that)) => this.plan_order(that),
            _ => self.key.cmp(&other.key),
        })
    }

    fn first(&self) -> Option<&Route> {
        self.after.first().or(self.before.first())
    }
}

/// Returns the routes for which there is none in `others`. Routes can be equal without being identical, so each of
/// `others` counts once, and for an identical route if there is one.
fn missing_from<'a>(
    routes: impl Iterator<Item = &'a Route>,
    others: impl Iterator<Item = &'a Route>,
) -> Vec<&'a Route> {
    let mut others: Vec<_> = others.collect();
    let mut missing: Vec<_> = routes.collect();
    for is_same in [Route::is_identical, Route::eq] {
        missing.retain(|route| match others.iter().position(|other| is_same(route, other)) {
            Some(at) => {
                others.swap_remove(at);
                false
            }
            None => true,
        });
    }
    missing
}

impl NatChange {
    /// Returns the change object by object in the order of the table, as action, before and after. A rule that only
    /// moved is removed and added.
    #[must_use]
    pub fn lines(&self) -> Vec<(Action, Option<NatObject>, Option<NatObject>)> {
        let before = self.before.as_ref().map(NatTable::objects).unwrap_or_default();
        let after = self.after.as_ref().map(NatTable::objects).unwrap_or_default();
        let comparable = |objects: &[NatObject]| objects.iter().map(comparable_text).collect::<Vec<_>>();
        let (old, new) = (comparable(&before), comparable(&after));
        let operations = similar::capture_diff_slices(similar::Algorithm::Myers, &old, &new);
        let mut lines = Vec::new();
        for operation in operations {
            let (tag, removed, added) = operation.as_tag_tuple();
            if tag != similar::DiffTag::Equal {
                lines.extend(pair(before[removed].to_vec(), &after[added]));
            }
        }
        lines
    }
}

/// Pairs removed and added objects at one position that are the same object in another form.
fn pair(
    mut removed: Vec<NatObject>,
    added: &[NatObject],
) -> Vec<(Action, Option<NatObject>, Option<NatObject>)> {
    let mut lines = Vec::new();
    for new in added {
        let old = removed.iter().position(|old| is_same(old, new)).map(|at| removed.remove(at));
        let action = if old.is_some() { Action::Update } else { Action::Add };
        lines.push((action, old, Some(new.clone())));
    }
    let removed = removed.into_iter().map(|old| (Action::Remove, Some(old), None));
    removed.chain(lines).collect()
}

/// Returns `true` if the two are versions of the same object: tables and chains by name, rules by comment.
fn is_same(old: &NatObject, new: &NatObject) -> bool {
    match (old, new) {
        (NatObject::Rule { rule: old, .. }, NatObject::Rule { rule: new, .. }) => {
            old.comment.is_some() && old.comment == new.comment
        }
        _ => old.name() == new.name(),
    }
}

/// Returns the text of an object without the parts that are irrelevant in a comparison.
fn comparable_text(object: &NatObject) -> String {
    match object {
        NatObject::Rule { family, chain, rule } => {
            let bare = crate::state::NatRule { comment: None, body: rule.body.clone() };
            format!("{} {chain} {bare} {}", family.nft(), rule.raw().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

/// Computes the changes that turn `observed` into `desired`.
///
/// Managed routes and tables that are not desired are removed. Foreign ones are never changed, except at a key that
/// hostgw needs under [`ForeignPolicy::Adopt`]. Both route lists must be sorted by key. The cost is linear in their
/// length.
#[must_use]
pub fn plan(desired: &State, observed: &State, policy: ForeignPolicy) -> Plan {
    let mut plan = Plan { unknown: observed.unknown.clone(), ..Plan::default() };
    plan_nat(&mut plan, desired, observed, policy);
    plan_routes(&mut plan, desired, observed, policy);
    plan_sysctls(&mut plan, &desired.sysctls, observed);
    plan
}

fn plan_nat(plan: &mut Plan, desired: &State, observed: &State, policy: ForeignPolicy) {
    for family in Family::ALL {
        let (before, after) = (observed.nat.get(family), desired.nat.get(family));
        if before == after || observed.nat_unknown(family) {
            continue;
        }
        match before {
            Some(table) if !table.can_be_restored() && policy == ForeignPolicy::Respect => {
                plan.conflicts.push(Conflict::Nat { family, objects: table.unrestorable() });
            }
            _ => {
                let (before, after) = (before.cloned(), after.cloned());
                plan.changes.push(Change::Nat(NatChange { family, before, after }.into()));
            }
        }
    }
}

fn plan_routes(plan: &mut Plan, desired: &State, observed: &State, policy: ForeignPolicy) {
    let mut changes = Vec::new();
    for (key, wanted_at, found_at) in by_key(&desired.routes, &observed.routes) {
        let (wanted, found) = (&desired.routes[wanted_at.clone()], &observed.routes[found_at.clone()]);
        let before = || observed.routes.part(found_at.clone());
        let is_foreign = |route: &&Route| !route.is_owned() && !wanted.contains(route);
        if wanted.is_empty() {
            let foreign: RouteList = found.iter().filter(is_foreign).cloned().collect();
            if foreign.len() < found.len() {
                changes.push(RouteChange { key, before: before(), after: foreign });
            }
        } else if wanted != found && !are_effective(wanted, found) {
            let foreign: Vec<_> = found.iter().filter(is_foreign).cloned().collect();
            if foreign.is_empty() || (policy == ForeignPolicy::Adopt && can_be_adopted(&foreign)) {
                let after = desired.routes.part(wanted_at);
                changes.push(RouteChange { key, before: before(), after });
            } else {
                plan.conflicts.push(Conflict::Route { wanted: wanted[0].clone(), foreign, replaced: false });
                // Managed routes there that are not desired are removed regardless.
                let stays = |route: &&Route| !route.is_owned() || wanted.contains(route);
                let after: RouteList = found.iter().filter(stays).cloned().collect();
                if after.len() < found.len() {
                    changes.push(RouteChange { key, before: before(), after });
                }
            }
        }
    }
    changes.sort_by(RouteChange::order);
    plan.changes.extend(changes.into_iter().map(Change::Route));
}

/// Returns `false` for the kernel's own route to an address of the node: the kernel would not add it again.
fn can_be_adopted(foreign: &[Route]) -> bool {
    !foreign.iter().any(Route::is_of_address)
}

/// Returns `true` if the desired routes come first and are only followed by foreign ones, which the kernel never
/// reaches.
fn are_effective(wanted: &[Route], found: &[Route]) -> bool {
    found.strip_prefix(wanted).is_some_and(|rest| rest.iter().all(|route| !route.is_owned()))
}

/// Merges two lists of routes, both sorted by key, and returns the indexes of the routes of each for every key.
fn by_key(
    desired: &[Route],
    observed: &[Route],
) -> impl Iterator<Item = (RouteKey, Range<usize>, Range<usize>)> {
    let (mut next_desired, mut next_observed) = (0, 0);
    std::iter::from_fn(move || {
        let first = |routes: &[Route], at: usize| routes.get(at).map(Route::key);
        let firsts = [first(desired, next_desired), first(observed, next_observed)];
        let key = firsts.into_iter().flatten().min()?;
        Some((key, take_key(desired, &mut next_desired, &key), take_key(observed, &mut next_observed, &key)))
    })
}

fn take_key(routes: &[Route], next: &mut usize, key: &RouteKey) -> Range<usize> {
    let start = *next;
    *next += routes.iter().skip(start).take_while(|route| route.key() == *key).count();
    start..*next
}

fn plan_sysctls(plan: &mut Plan, desired: &BTreeMap<SysctlKey, Untrusted>, observed: &State) {
    let mut values = observed.sysctls.clone();
    let mut flipped: Vec<&SysctlKey> = Vec::new();
    for (key, after) in in_write_order(desired) {
        // `check` reports keys that the kernel does not have, and `unknown` contains those that could not be read.
        let Some(before) = values.get(key).cloned() else { continue };
        if before == *after {
            continue;
        }
        let rewritten_by = flipped
            .iter()
            .find(|switch| switch::side_effects(switch, std::iter::once(key)).next().is_some())
            .map(|switch| (*switch).clone());
        if switch::is_switch(key) {
            switch::flip(&mut values, key, after.as_raw());
            flipped.push(key);
        }
        let after = after.clone();
        let change = SysctlChange { key: key.clone(), before, after, rewritten_by };
        plan.changes.push(Change::Sysctl(change.into()));
    }
}

/// Returns the sysctls in the order in which they have to be written, and otherwise by name.
#[must_use]
pub fn in_write_order(sysctls: &BTreeMap<SysctlKey, Untrusted>) -> Vec<(&SysctlKey, &Untrusted)> {
    let mut ordered: Vec<_> = sysctls.iter().collect();
    // The sort is stable.
    ordered.sort_by_key(|(key, _)| rank(key));
    ordered
}

/// Returns the position of a sysctl in the order of writing. `accept_ra` comes first: an interface that still accepts
/// router advertisements when forwarding is enabled keeps the default route that it learned from them
/// (`rt6_purge_dflt_routers`, net/ipv6/route.c). Switches come next, because they overwrite other keys.
fn rank(key: &SysctlKey) -> u8 {
    if key.as_str().ends_with(".accept_ra") {
        0
    } else if switch::is_switch(key) {
        1
    } else {
        2
    }
}

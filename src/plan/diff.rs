//! What must change to get from an observed to a desired state.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use crate::{
    model::{Family, SysctlKey},
    state::{NatObject, NatTable, ObjectKind, Route, RouteKey, State, Unknown, protocol},
    text::{Untrusted, list},
};

use super::{ForeignSysctl, switch};

/// What must change, in the order in which it is committed, and what stands in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// NAT, then routes (on-link first, removals last), then sysctls (forwarding switches first).
    pub changes: Vec<Change>,
    /// What is not hostgw's and stands where hostgw needs the place.
    pub conflicts: Vec<Conflict>,
    /// What could not be read; nothing is planned for it.
    pub unknown: Vec<Unknown>,
}

/// How a plan treats what is not hostgw's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForeignPolicy {
    /// It is a conflict.
    #[default]
    Respect,
    /// It is taken over (`--adopt`).
    Adopt,
}

/// One object that must change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The routes of one key.
    Route(RouteChange),
    /// The NAT table of one family, replaced as a whole.
    Nat(NatChange),
    /// One sysctl.
    Sysctl(SysctlChange),
}

impl Change {
    /// The kind of the object.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Route(_) => ObjectKind::Route,
            Self::Nat(_) => ObjectKind::Nat,
            Self::Sysctl(_) => ObjectKind::Sysctl,
        }
    }

    /// The change, if it is one of routes.
    #[must_use]
    pub const fn as_route(&self) -> Option<&RouteChange> {
        if let Self::Route(change) = self { Some(change) } else { None }
    }

    /// The change, if it is one of a NAT table.
    #[must_use]
    pub const fn as_nat(&self) -> Option<&NatChange> {
        if let Self::Nat(change) = self { Some(change) } else { None }
    }

    /// The change, if it is one of a sysctl.
    #[must_use]
    pub const fn as_sysctl(&self) -> Option<&SysctlChange> {
        if let Self::Sysctl(change) = self { Some(change) } else { None }
    }
}

/// The routes of one key, in the kernel's order: the first is in force. More than one is rare, but IPv4
/// allows it (`ip route append`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The key.
    pub key: RouteKey,
    /// What stands there.
    pub before: Vec<Route>,
    /// What shall stand there.
    pub after: Vec<Route>,
}

/// One step of a change of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Add a route on a key that has none.
    Add(&'a Route),
    /// Put a route in the place of the first of its key.
    Replace {
        /// The one that goes.
        old: &'a Route,
        /// The one that comes.
        new: &'a Route,
    },
    /// Add a route behind others of its key.
    Append(&'a Route),
    /// Add a route before others of its key.
    Prepend(&'a Route),
    /// Remove just this route.
    Delete(&'a Route),
}

/// The NAT table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatChange {
    /// The family.
    pub family: Family,
    /// The table that stands.
    pub before: Option<NatTable>,
    /// The table that shall stand.
    pub after: Option<NatTable>,
}

/// The value of a sysctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlChange {
    /// The key.
    pub key: SysctlKey,
    /// The value that stands, or that will stand once the plan's forwarding switch is flipped.
    pub before: Untrusted,
    /// The value that shall stand.
    pub after: Untrusted,
    /// The forwarding switch of this plan that rewrites this key, so that it must be written again.
    pub rewritten_by: Option<SysctlKey>,
}

/// Whether something comes, changes or goes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// `+`
    Add,
    /// `~`
    Change,
    /// `-`
    Remove,
}

/// Something that is not hostgw's and stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Foreign routes on a key that hostgw needs.
    Route {
        /// The route hostgw needs there.
        wanted: Route,
        /// What stands there.
        foreign: Vec<Route>,
        /// Whether hostgw had put its own route there, which somebody has replaced since.
        replaced: bool,
    },
    /// Objects in the table `hostgw` that could not be put back if they were removed.
    Nat {
        /// The table's family.
        family: Family,
        /// The objects, each as `set blocked`.
        objects: Vec<Untrusted>,
    },
    /// Objects that somebody else has put into a table `hostgw` that would be replaced without anybody seeing them.
    ForeignNat {
        /// The table's family.
        family: Family,
        /// The objects.
        objects: Vec<NatObject>,
    },
    /// A sysctl that hostgw would restore, and that somebody else has written since.
    Sysctl(ForeignSysctl),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { wanted, foreign, replaced } => {
                let foreign: Vec<_> = foreign.iter().map(ToString::to_string).collect();
                let foreign = foreign.join(" and ");
                if *replaced {
                    write!(f, "{foreign} replaced the route added by hostgw: {wanted}")
                } else {
                    write!(f, "{foreign} conflicts with {wanted}")
                }
            }
            Self::Nat { family, objects } => write!(
                f,
                "table {} {} holds {}, which hostgw could not restore",
                family.nft(),
                NatTable::NAME,
                list(objects, usize::MAX)
            ),
            Self::ForeignNat { family, objects } => write!(
                f,
                "table {} {} holds what hostgw did not add: {}",
                family.nft(),
                NatTable::NAME,
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
    /// Objects changed.
    pub change: usize,
    /// Objects removed.
    pub remove: usize,
    /// Conflicts.
    pub conflicts: usize,
    /// Parts that could not be read.
    pub unknown: usize,
}

/// How many routes of hostgw's go, and nothing of hostgw's comes in their place.
#[must_use]
pub fn removed_routes(plan: &Plan) -> usize {
    let is_owned = |routes: &[Route]| routes.iter().any(Route::is_owned);
    let routes = plan.changes.iter().filter_map(Change::as_route);
    routes.filter(|route| is_owned(&route.before) && !is_owned(&route.after)).count()
}

impl Plan {
    /// Tells the conflicts where somebody has replaced a route of the state that was `last` put in force.
    pub fn tell_replaced(&mut self, last: &State) {
        for conflict in &mut self.conflicts {
            if let Conflict::Route { wanted, replaced, .. } = conflict {
                let from = last.routes.partition_point(|route| route.key() < wanted.key());
                *replaced = last.routes.get(from).is_some_and(|route| route == wanted && route.is_owned());
            }
        }
    }

    /// Whether there is nothing to do, as far as could be seen.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty()
    }

    /// The counts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals =
            Totals { conflicts: self.conflicts.len(), unknown: self.unknown.len(), ..Totals::default() };
        for (action, count) in self.changes.iter().flat_map(Change::actions) {
            *match action {
                Action::Add => &mut totals.add,
                Action::Change => &mut totals.change,
                Action::Remove => &mut totals.remove,
            } += count;
        }
        totals
    }
}

impl Change {
    /// How many objects come, change and go.
    fn actions(&self) -> Vec<(Action, usize)> {
        match self {
            Self::Route(route) => route.lines().into_iter().map(|(action, ..)| (action, 1)).collect(),
            Self::Nat(nat) => nat.lines().into_iter().map(|(action, ..)| (action, 1)).collect(),
            Self::Sysctl(_) => vec![(Action::Change, 1)],
        }
    }
}

impl fmt::Display for Change {
    /// The object, in the words of the kernel's tools.
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

impl RouteChange {
    /// The change, route by route: action, before, after.
    #[must_use]
    pub fn lines(&self) -> Vec<(Action, Option<&Route>, Option<&Route>)> {
        let gone: Vec<_> = self.before.iter().filter(|route| !self.after.contains(route)).collect();
        let come: Vec<_> = self.after.iter().filter(|route| !self.before.contains(route)).collect();
        (0..gone.len().max(come.len()))
            .filter_map(|at| match (gone.get(at), come.get(at)) {
                (None, Some(after)) => Some((Action::Add, None, Some(*after))),
                (Some(before), None) => Some((Action::Remove, Some(*before), None)),
                (Some(before), Some(after)) => Some((Action::Change, Some(*before), Some(*after))),
                (None, None) => None,
            })
            .collect()
    }

    /// What to do, one route at a time, so that there is no moment without a route where one takes
    /// another's place. The kernel replaces the first route of a key, whoever owns it (`fib_table_insert`,
    /// net/ipv4/fib_trie.c).
    #[must_use]
    pub fn steps(&self) -> Vec<Step<'_>> {
        // What stands behind, foreign routes above all, is not touched.
        if let Some(new) = self.prepended() {
            return new.iter().rev().map(Step::Prepend).collect();
        }
        let mut steps = Vec::new();
        let mut standing: Vec<&Route> = self.before.iter().collect();
        match (standing.first_mut(), self.after.first()) {
            (None, Some(new)) => {
                steps.push(Step::Add(new));
                standing.push(new);
            }
            (Some(old), Some(new)) if !self.before.contains(new) => {
                steps.push(Step::Replace { old, new });
                *old = new;
            }
            _ => {}
        }
        let gone = standing.iter().filter(|route| !self.after.contains(route));
        steps.extend(gone.map(|route| Step::Delete(route)));
        let missing = self.after.iter().filter(|route| !standing.contains(route));
        steps.extend(missing.map(Step::Append));
        steps
    }

    /// The routes that come before all that stand, where nothing else changes. IPv6 has no such order.
    #[must_use]
    pub fn prepended(&self) -> Option<&[Route]> {
        let new = self.after.strip_suffix(self.before.as_slice())?;
        let is_so = !new.is_empty() && !self.before.is_empty() && self.key.family() == Family::V4;
        is_so.then_some(new)
    }

    /// The key's place in a plan: what is needed first comes first, what only goes comes last and in
    /// reverse, so that an on-link route outlives the routes that rest on it.
    fn order(&self, other: &Self) -> Ordering {
        let goes = |change: &Self| change.after.is_empty();
        goes(self).cmp(&goes(other)).then_with(|| match (self.first(), other.first()) {
            (Some(own), Some(others)) if goes(self) => others.plan_order(own),
            (Some(own), Some(others)) => own.plan_order(others),
            _ => self.key.cmp(&other.key),
        })
    }

    fn first(&self) -> Option<&Route> {
        self.after.first().or(self.before.first())
    }
}

impl NatChange {
    /// The change, object by object in the order of the table: action, before, after. A rule that only
    /// moved goes and comes.
    #[must_use]
    pub fn lines(&self) -> Vec<(Action, Option<NatObject>, Option<NatObject>)> {
        let before = self.before.as_ref().map(NatTable::objects).unwrap_or_default();
        let after = self.after.as_ref().map(NatTable::objects).unwrap_or_default();
        let texts = |objects: &[NatObject]| objects.iter().map(meaning).collect::<Vec<_>>();
        let (old, new) = (texts(&before), texts(&after));
        let operations = similar::capture_diff_slices(similar::Algorithm::Myers, &old, &new);
        let mut lines = Vec::new();
        for operation in operations {
            let (tag, gone, come) = operation.as_tag_tuple();
            if tag != similar::DiffTag::Equal {
                lines.extend(pair(before[gone].to_vec(), &after[come]));
            }
        }
        lines
    }
}

/// Objects that go and come in one place, paired where they are the same object in another form.
fn pair(mut gone: Vec<NatObject>, come: &[NatObject]) -> Vec<(Action, Option<NatObject>, Option<NatObject>)> {
    let mut lines = Vec::new();
    for new in come {
        let old = gone.iter().position(|old| is_same(old, new)).map(|at| gone.remove(at));
        let action = if old.is_some() { Action::Change } else { Action::Add };
        lines.push((action, old, Some(new.clone())));
    }
    let gone = gone.into_iter().map(|old| (Action::Remove, Some(old), None));
    gone.chain(lines).collect()
}

/// Whether two objects are one in two forms: tables and chains by name, rules by their comment.
fn is_same(old: &NatObject, new: &NatObject) -> bool {
    match (old, new) {
        (NatObject::Rule { rule: old, .. }, NatObject::Rule { rule: new, .. }) => {
            old.comment.is_some() && old.comment == new.comment
        }
        _ => old.name() == new.name(),
    }
}

/// An object's text without what does not count when two are compared.
fn meaning(object: &NatObject) -> String {
    match object {
        NatObject::Rule { family, chain, rule } => {
            let bare = crate::state::NatRule { comment: None, body: rule.body.clone() };
            format!("{} {chain} {bare} {}", family.nft(), rule.raw().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

/// What must change on a node where `observed` stands, so that `desired` stands.
///
/// Routes and tables that carry hostgw's mark and are not desired go; what does not carry it is never
/// changed, but for a key that hostgw needs under [`ForeignPolicy::Adopt`]. Both route lists must be sorted by
/// key. The cost grows in a straight line with their length.
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
            _ => plan.changes.push(Change::Nat(NatChange {
                family,
                before: before.cloned(),
                after: after.cloned(),
            })),
        }
    }
}

fn plan_routes(plan: &mut Plan, desired: &State, observed: &State, policy: ForeignPolicy) {
    let mut changes = Vec::new();
    for (key, wanted, found) in by_key(&desired.routes, &observed.routes) {
        let is_foreign = |route: &&Route| !route.is_owned() && !wanted.contains(route);
        if wanted.is_empty() {
            let foreign: Vec<_> = found.iter().filter(is_foreign).cloned().collect();
            if foreign.len() < found.len() {
                changes.push(RouteChange { key, before: found.to_vec(), after: foreign });
            }
        } else if wanted != found && !is_in_force(wanted, found) {
            let foreign: Vec<_> = found.iter().filter(is_foreign).cloned().collect();
            // What an address of the node made is not to be had: the kernel would not give it back.
            let can_be_adopted = foreign.iter().all(|route| route.protocol != protocol::KERNEL);
            if foreign.is_empty() || (policy == ForeignPolicy::Adopt && can_be_adopted) {
                changes.push(RouteChange { key, before: found.to_vec(), after: wanted.to_vec() });
            } else {
                plan.conflicts.push(Conflict::Route { wanted: wanted[0].clone(), foreign, replaced: false });
                // What is hostgw's there, and not wanted, goes all the same.
                let stays = |route: &&Route| !route.is_owned() || wanted.contains(route);
                let after: Vec<_> = found.iter().filter(stays).cloned().collect();
                if after.len() < found.len() {
                    changes.push(RouteChange { key, before: found.to_vec(), after });
                }
            }
        }
    }
    changes.sort_by(RouteChange::order);
    plan.changes.extend(changes.into_iter().map(Change::Route));
}

/// Whether what is wanted stands first and only foreign routes, which the kernel never gets to, stand
/// behind it.
fn is_in_force(wanted: &[Route], found: &[Route]) -> bool {
    found.strip_prefix(wanted).is_some_and(|rest| rest.iter().all(|route| !route.is_owned()))
}

/// Walks two lists of routes, both sorted by key, and gives what each has for every key of either.
fn by_key<'a>(
    mut desired: &'a [Route],
    mut observed: &'a [Route],
) -> impl Iterator<Item = (RouteKey, &'a [Route], &'a [Route])> {
    std::iter::from_fn(move || {
        let first = |routes: &[Route]| routes.first().map(Route::key);
        let key = [first(desired), first(observed)].into_iter().flatten().min()?;
        Some((key, take_key(&mut desired, &key), take_key(&mut observed, &key)))
    })
}

fn take_key<'a>(routes: &mut &'a [Route], key: &RouteKey) -> &'a [Route] {
    let count = routes.iter().take_while(|route| route.key() == *key).count();
    let (taken, rest) = routes.split_at(count);
    *routes = rest;
    taken
}

fn plan_sysctls(plan: &mut Plan, desired: &BTreeMap<SysctlKey, Untrusted>, observed: &State) {
    let mut standing = observed.sysctls.clone();
    let mut flipped: Vec<&SysctlKey> = Vec::new();
    for (key, after) in in_order_of_writing(desired) {
        // A key that the kernel does not have is for `check` to report; one that could not be read is
        // in `unknown`.
        let Some(before) = standing.get(key).cloned() else { continue };
        if before == *after {
            continue;
        }
        let rewritten_by = flipped
            .iter()
            .find(|switch| switch::side_effects(switch, std::iter::once(key)).next().is_some())
            .map(|switch| (*switch).clone());
        if switch::is_switch(key) {
            switch::flip(&mut standing, key, after.as_raw());
            flipped.push(key);
        }
        let after = after.clone();
        plan.changes.push(Change::Sysctl(SysctlChange { key: key.clone(), before, after, rewritten_by }));
    }
}

/// Sysctls in the order in which they are to be written, by name where it does not matter.
#[must_use]
pub fn in_order_of_writing(sysctls: &BTreeMap<SysctlKey, Untrusted>) -> Vec<(&SysctlKey, &Untrusted)> {
    let mut ordered: Vec<_> = sysctls.iter().collect();
    // Stable.
    ordered.sort_by_key(|(key, _)| rank(key));
    ordered
}

/// The order of sysctls: `accept_ra` before the switches, for an interface that still takes router
/// advertisements when forwarding goes on keeps the default route it has from them
/// (`rt6_purge_dflt_routers`, net/ipv6/route.c); then the switches, for they rewrite others; then the rest.
fn rank(key: &SysctlKey) -> u8 {
    if key.as_str().ends_with(".accept_ra") {
        0
    } else if switch::is_switch(key) {
        1
    } else {
        2
    }
}

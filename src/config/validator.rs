//! What every rule needs: a way to report errors, and the context of the cluster.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;
use smallvec::SmallVec;

use super::{
    capped::Capped,
    parse::{self, ParseError},
    problem::{Location, Problem},
    raw::{OneOrMany, OneOrPrefixes, RawNextHop},
};
use crate::{
    diagnose::Rule,
    model::{
        ConfigPath, Family, InterfaceName, InvalidInterfaceName, NextHopMode, NextHopOverride, PerFamily,
        PrefixList, RouteSource,
    },
    text::{nearest, shortened},
};

/// A value, and its index if it is in a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located<T> {
    pub value: T,
    pub item: Option<u16>,
}

/// The valid cluster prefixes.
#[derive(Default)]
pub(super) struct ClusterPrefixes {
    pub valid: PrefixList<IpNet>,
    /// Whether every cluster prefix of the file is valid.
    pub complete: bool,
}

impl ClusterPrefixes {
    /// The cluster prefix that contains `address`.
    pub fn containing(&self, address: IpAddr) -> Option<IpNet> {
        self.valid.containing(address).copied()
    }

    /// Whether the configuration certainly has no prefix of `family`.
    pub fn lacks(&self, family: Family) -> bool {
        self.complete && !self.valid.has(family)
    }
}

/// Values of one key. Most keys have one, which needs no allocation.
pub(super) type LocatedList<T> = SmallVec<[Located<T>; 1]>;

/// The cluster settings that the rules for a node depend on.
pub(super) struct Context {
    pub prefixes: ClusterPrefixes,
    pub next_hop: Option<NextHopOverride>,
    pub route_source: RouteSource,
    /// Whether masqueraded packets get the address of their node.
    pub nat_to_nodes: bool,
    pub node_count: usize,
}

pub(super) struct Validator<'a> {
    pub problems: Capped<Problem>,
    /// The paths whose errors were already reported.
    pub reported: &'a HashSet<ConfigPath>,
    /// Whether a required value is missing.
    pub incomplete: bool,
}

impl Validator<'_> {
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub fn reject(&mut self, error: ParseError, location: Location) {
        let ParseError { rule, message, hint } = error;
        self.problems.push(Problem { rule, message, location, hint, related: None });
    }

    /// Reports a missing value, unless it is present and an error was already reported for it.
    pub fn report_missing(&mut self, message: String, path: ConfigPath, hint: &str) {
        if !self.reported.contains(&path) {
            self.report(Problem::new(Rule::MissingAddress, message, Location::value(path)).hint(hint));
        }
    }

    /// Returns `value`. If there is none, the result is incomplete.
    pub const fn require<T>(&mut self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.incomplete = true;
        }
        value
    }

    /// Reports a list or mapping with too many entries.
    pub fn at_most(&mut self, count: usize, max: usize, path: &ConfigPath) {
        if count > max {
            let message = format!("{path} has too many entries: {count} (maximum {max})");
            let problem = Problem::new(Rule::TooMany, message, Location::value(path.clone()));
            self.report(problem.hint("remove some of the entries"));
        }
    }

    /// `path` is only called if anything was reported, so that a valid file does not pay for it.
    pub fn is_reported(&self, path: impl FnOnce() -> ConfigPath) -> bool {
        !self.reported.is_empty() && self.reported.contains(&path())
    }

    /// Parses one value or a list of values. Also returns whether all were valid.
    ///
    /// `path` is only called on an error, so that a valid file does not pay for it.
    pub fn values<S: AsRef<str>, T: Copy, const MAX: usize>(
        &mut self,
        raw: &OneOrMany<S, MAX>,
        path: impl Fn() -> ConfigPath,
        what: &str,
        parse: impl Fn(&str) -> Result<T, ParseError>,
    ) -> (LocatedList<T>, bool) {
        let mut values = LocatedList::new();
        let (mut complete, mut count) = (true, 0);
        for (item, text) in raw.iter() {
            let item = item.map(|item| u16::try_from(item).unwrap_or(u16::MAX));
            count += 1;
            let Some(text) = self.require(text) else {
                complete = false;
                continue;
            };
            match parse(text.as_ref()) {
                Ok(value) => values.push(Located { value, item }),
                Err(error) => {
                    self.reject(error, Location::value(item_path(&path(), item)));
                    complete = false;
                }
            }
        }
        if count == 0 {
            let message = format!("expected at least one {what}");
            self.report(Problem::new(Rule::OnePerFamily, message, Location::value(path())));
            complete = false;
        }
        (values, complete)
    }

    /// Parses one value or a list of as many values as a [`PrefixList`] may have. Also returns whether all were valid.
    pub fn limited<S: AsRef<str>, T: Copy>(
        &mut self,
        raw: &OneOrPrefixes<S>,
        path: impl Fn() -> ConfigPath,
        what: &str,
        parse: impl Fn(&str) -> Result<T, ParseError>,
    ) -> (LocatedList<T>, bool) {
        let count = raw.iter().count();
        if count > PrefixList::<IpNet>::MAX {
            self.at_most(count, PrefixList::<IpNet>::MAX, &path());
            return (LocatedList::new(), false);
        }
        self.values(raw, path, what, parse)
    }

    /// Parses one address or a list of addresses, at most one per address family. Also returns whether all were valid.
    pub fn per_family<S: AsRef<str>>(
        &mut self,
        raw: &OneOrMany<S>,
        path: impl Fn() -> ConfigPath,
        what: &str,
        parse: impl Fn(&str) -> Result<IpAddr, ParseError>,
    ) -> (PerFamily<Located<IpAddr>>, bool) {
        let (found, complete) = self.values(raw, &path, what, parse);
        let mut values: PerFamily<Located<IpAddr>> = PerFamily::default();
        for located in found {
            let Located { value, item } = located;
            let family = Family::from(value);
            if let Some(Located { item: first, .. }) = values.get(family) {
                let message = format!("second {family} {what}: {value}");
                let problem =
                    Problem::new(Rule::OnePerFamily, message, Location::value(item_path(&path(), item)));
                let first = Location::value(item_path(&path(), *first));
                let hint = format!("remove one; only one {what} per address family is supported");
                self.report(problem.related("the first is defined here", first).hint(hint));
                continue;
            }
            *values.get_mut(family) = Some(located);
        }
        (values, complete)
    }

    /// Parses `nextHop` of the cluster or of a node: a mode, or a router in each of one or two families. Returns `None` if
    /// it is invalid.
    pub fn next_hop(
        &mut self,
        raw: &RawNextHop,
        path: &ConfigPath,
        prefixes: &ClusterPrefixes,
    ) -> Option<NextHopOverride> {
        if let OneOrMany::One(word) = &raw.0 {
            let mode = NextHopMode::ALL.into_iter().find(|mode| mode.to_string() == *word.0);
            if mode.is_some() {
                return Some(NextHopOverride { mode, routers: PerFamily::default() });
            }
        }
        let parse = |text: &str| next_hop_address(text, path);
        let (routers, complete) = self.per_family(&raw.0, || path.clone(), "router", parse);
        let mut is_valid = complete;
        for (family, Located { value: router, item }) in routers.iter() {
            let location = Location::value(item_path(path, *item));
            let problem = match prefixes.containing(*router) {
                Some(prefix) => Problem::new(
                    Rule::RouterInCluster,
                    format!("next hop {router} is inside the cluster prefix {prefix}"),
                    location,
                )
                .hint("use the address of the router on the nodes' network"),
                None if prefixes.lacks(family) => Problem::new(
                    Rule::FamilyMismatch,
                    format!("next hop {router} does not fit clusterPrefix, which has no {family} prefix"),
                    location,
                )
                .hint("remove it"),
                None => continue,
            };
            is_valid = false;
            self.report(problem);
        }
        is_valid.then(|| NextHopOverride { mode: None, routers: map(&routers, |located| located.value) })
    }

    pub fn interface(
        &mut self,
        name: &str,
        path: &ConfigPath,
        check: impl Fn(&str) -> Result<InterfaceName, InvalidInterfaceName>,
    ) -> Option<InterfaceName> {
        match check(name) {
            Ok(name) => Some(name),
            Err(why) => {
                let message = format!("{:?} is not a valid interface name: {why}", shortened(name));
                self.report(Problem::new(Rule::InvalidInterface, message, Location::value(path.clone())));
                None
            }
        }
    }
}

/// Parses the address of a router that is a next hop. What looks like a word is taken for a misspelled mode.
fn next_hop_address(text: &str, path: &ConfigPath) -> Result<IpAddr, ParseError> {
    let is_word = text.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '-' | '_' | ' '));
    if !is_word || text.is_empty() {
        return parse::router(text);
    }
    let [first, second] = NextHopMode::ALL.map(|mode| mode.to_string());
    let (expected, hint) = match nearest(text, [first.as_str(), second.as_str()]) {
        Some(mode) if mode == text => {
            ("the address of a router".to_owned(), Some(format!("write `nextHop: {mode}`, not a list")))
        }
        nearest => (
            format!("{first}, {second}, or the address of a router"),
            nearest.map(|mode| format!("did you mean {mode}?")),
        ),
    };
    Err(ParseError {
        rule: Rule::WrongValue,
        message: format!("{path}: expected {expected}, found the string {:?}", shortened(text)),
        hint,
    })
}

/// The path of a value: `path` itself, or one of its items.
pub(super) fn item_path(path: &ConfigPath, item: Option<u16>) -> ConfigPath {
    item.map_or_else(|| path.clone(), |index| path.index(index.into()))
}

pub(super) fn map<T, U>(values: &PerFamily<T>, f: impl Fn(&T) -> U) -> PerFamily<U> {
    PerFamily { v4: values.v4.as_ref().map(&f), v6: values.v6.as_ref().map(&f) }
}

//! What every rule needs: the place to report a mistake, and what is known of the cluster.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    capped::Capped,
    mistake::{Finding, Place},
    parse::Wrong,
    raw::OneOrMany,
};
use crate::{
    model::{ConfigPath, Family, InterfaceName, InvalidInterfaceName, NextHop, PerFamily},
    text::shortened,
};

/// A value, and its index when it stands in a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located<T> {
    pub value: T,
    pub item: Option<u16>,
}

/// The cluster prefixes, and whether all that the file has are known.
#[derive(Clone, Copy, Default)]
pub(super) struct Prefixes {
    pub of: PerFamily<IpNet>,
    pub complete: bool,
}

impl Prefixes {
    /// The cluster prefix that holds `address`.
    pub fn around(&self, address: IpAddr) -> Option<IpNet> {
        self.of.get(address.into()).copied().filter(|prefix| prefix.contains(&address))
    }
}

/// What of the cluster the rules for one node need.
pub(super) struct Context {
    pub prefixes: Prefixes,
    pub next_hop: Option<NextHop>,
    pub node_count: usize,
}

pub(super) struct Validator<'a> {
    pub findings: Capped<Finding>,
    pub wrong: &'a HashSet<ConfigPath>,
    pub incomplete: bool,
}

impl Validator<'_> {
    pub fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub fn refuse(&mut self, wrong: Wrong, place: Place) {
        self.findings.push(Finding { message: wrong.message, place, hint: wrong.hint, related: None });
    }

    /// Reports that something is missing, unless it is there and wrong.
    pub fn report_missing(&mut self, message: String, path: ConfigPath, hint: &str) {
        if !self.wrong.contains(&path) {
            self.report(Finding::new(message, Place::value(path)).hint(hint));
        }
    }

    /// Passes `value` on; without it the result is incomplete.
    pub const fn require<T>(&mut self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.incomplete = true;
        }
        value
    }

    pub fn is_wrong(&self, path: &ConfigPath) -> bool {
        self.wrong.contains(path)
    }

    /// Parses one value or a list of them, at most one per family. Also returns whether all were good.
    /// `path` is asked for only when one is not: a file without mistakes does not pay for it.
    pub fn per_family<S: AsRef<str>, T: Copy>(
        &mut self,
        raw: &OneOrMany<S>,
        path: impl Fn() -> ConfigPath,
        what: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
        family: impl Fn(&T) -> Family,
    ) -> (PerFamily<Located<T>>, bool) {
        let mut values = PerFamily::default();
        let (mut complete, mut count) = (true, 0);
        for (item, text) in raw.iter() {
            // The schema allows two.
            let item = item.map(|item| u16::try_from(item).unwrap_or(u16::MAX));
            count += 1;
            let Some(text) = self.require(text) else {
                complete = false;
                continue;
            };
            let value = match parse(text.as_ref()) {
                Ok(value) => value,
                Err(wrong) => {
                    self.refuse(wrong, Place::value(item_path(&path(), item)));
                    complete = false;
                    continue;
                }
            };
            let family = family(&value);
            if let Some(Located { item: first, .. }) = values.get(family) {
                let message = format!("{} is a second {family} {what}", text.as_ref());
                let finding = Finding::new(message, Place::value(item_path(&path(), item)));
                let first = Place::value(item_path(&path(), *first));
                self.report(
                    finding.related("first one here", first).hint("only one per address family is allowed"),
                );
                continue;
            }
            *values.slot(family) = Some(Located { value, item });
        }
        if count == 0 {
            let message = format!("this list holds no {what}");
            self.report(Finding::new(message, Place::value(path())));
            complete = false;
        }
        (values, complete)
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
                let message = format!("{:?} is not an interface name: {why}", shortened(name));
                self.report(Finding::new(message, Place::value(path.clone())));
                None
            }
        }
    }
}

/// `path` itself, or its item when the value stands in a list.
pub(super) fn item_path(path: &ConfigPath, item: Option<u16>) -> ConfigPath {
    item.map_or_else(|| path.clone(), |index| path.index(index.into()))
}

pub(super) fn map<T, U>(values: &PerFamily<T>, f: impl Fn(&T) -> U) -> PerFamily<U> {
    PerFamily { v4: values.v4.as_ref().map(&f), v6: values.v6.as_ref().map(&f) }
}

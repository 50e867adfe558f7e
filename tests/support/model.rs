//! A node in memory, to give the failures that a kernel cannot be made to give on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hostgw::{
    apply::{Backend, CheckResult, CommitError, Interrupt, Order, ProbeMode},
    error::{Error, Kind},
    model::{Check, SysctlKey},
    plan::{Change, Observe, Observed, Scope, SysctlValues},
    state::{Route, State},
};

use hostgw::text::Untrusted;

/// Routes, NAT and sysctls with the kernel's own rules for them, as far as a plan rests on them.
#[derive(Debug, Clone, Default)]
pub struct ModelNode {
    pub state: State,
    /// Which exchange fails, counted from 0 over the life of the node; every later one works again.
    pub fail_at: Option<usize>,
    /// Exchanges fail from this one on.
    pub fail_from: Option<usize>,
    /// At which exchange the process ends: from there on nothing is done or seen.
    pub die_at: Option<usize>,
    /// Exchanges so far.
    pub exchanges: usize,
    /// What the checks will answer, each time they are tried; an error when they cannot be tried.
    pub answers: VecDeque<Result<Vec<CheckResult>, Error>>,
    /// The checks that were tried so far, and how.
    pub probed: Vec<(Vec<Check>, ProbeMode)>,
}

impl ModelNode {
    pub fn new(state: State) -> Self {
        Self { state, ..Self::default() }
    }

    /// Whether the exchange came at which the process ends.
    pub fn is_dead(&self) -> bool {
        self.die_at.is_some_and(|at| self.exchanges > at)
    }

    /// Writes a sysctl.
    pub fn write(&mut self, key: &SysctlKey, value: &str) {
        write(&mut self.state.sysctls, key, value);
    }

    fn exchange(&mut self, change: &Change) -> Result<(), CommitError> {
        let number = self.exchanges;
        self.exchanges += 1;
        let is_from = |from: Option<usize>| from.is_some_and(|from| number >= from);
        if self.fail_at == Some(number) || is_from(self.fail_from) || is_from(self.die_at) {
            return Err(CommitError::Refused {
                object: change.to_string(),
                why: "told to fail".to_owned(),
                hint: None,
            });
        }
        match change {
            Change::Route(route) => {
                let routes = &mut self.state.routes;
                routes.retain(|standing| standing.key() != route.key);
                routes.extend(route.after.iter().cloned());
                routes.sort_by_key(Route::key);
            }
            Change::Nat(nat) if self.state.nat.get(nat.family) != nat.before.as_ref() => {
                return Err(CommitError::Stale { why: format!("{change} changed"), hint: None });
            }
            Change::Nat(nat) => *self.state.nat.get_mut(nat.family) = nat.after.clone(),
            Change::Sysctl(sysctl) => self.write(&sysctl.key, sysctl.after.as_raw()),
        }
        Ok(())
    }
}

/// What the kernel does when a sysctl is written, with what it does to others.
fn write(sysctls: &mut BTreeMap<SysctlKey, Untrusted>, key: &SysctlKey, value: &str) {
    let Some(standing) = sysctls.get_mut(key) else { return };
    if *standing == value {
        return;
    }
    *standing = value.into();
    let (on, off) = if value == "0" { ("0", "1") } else { ("1", "0") };
    let others: &[(&str, &str, &str)] = match key.as_str() {
        "net.ipv4.ip_forward" => {
            &[("net.ipv4.conf.", ".forwarding", on), ("net.ipv4.conf.all.", "accept_redirects", off)]
        }
        "net.ipv6.conf.all.forwarding" => &[("net.ipv6.conf.", ".forwarding", on)],
        _ => &[],
    };
    for (prefix, suffix, value) in others {
        let rewritten = sysctls
            .iter_mut()
            .filter(|(key, _)| key.as_str().starts_with(prefix) && key.as_str().ends_with(suffix));
        for (_, standing) in rewritten {
            *standing = (*value).into();
        }
    }
}

impl Observe for ModelNode {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        if self.is_dead() {
            return Err(Error::unexpected("killed"));
        }
        let mut state = self.state.clone();
        let own: BTreeSet<_> = state.routes.iter().filter(|route| route.is_owned()).map(Route::key).collect();
        state.routes.retain(|route| own.contains(&route.key()) || scope.wants(&route.key()));
        Ok(Observed { state, ..Observed::default() })
    }
}

impl Backend for ModelNode {
    fn sysctls(&mut self, keys: &[SysctlKey]) -> SysctlValues {
        keys.iter()
            .filter_map(|key| self.state.sysctls.get_key_value(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn commit(&mut self, changes: &[Change], order: Order, interrupt: &Interrupt) -> Result<(), CommitError> {
        let rank = |change: &Change| match change {
            Change::Nat(_) => 0,
            Change::Route(_) => 1,
            Change::Sysctl(_) => 2,
        };
        let groups = match order {
            Order::Forward => [0, 1, 2],
            Order::Undo => [2, 1, 0],
        };
        for group in groups {
            for change in changes.iter().filter(|change| rank(change) == group) {
                if interrupt.is_raised() {
                    return Err(CommitError::Interrupted);
                }
                self.exchange(change)?;
            }
        }
        Ok(())
    }

    fn probe(
        &mut self,
        checks: &[Check],
        mode: ProbeMode,
        interrupt: &Interrupt,
    ) -> Result<Vec<CheckResult>, Error> {
        self.probed.push((checks.to_vec(), mode));
        if interrupt.is_raised() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        self.answers.pop_front().expect("an answer")
    }
}

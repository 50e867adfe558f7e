//! A node in memory, which can fail in ways that a kernel cannot be made to fail on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hostgw::{
    apply::{Backend, CheckResult, CommitError, Interrupt, Order, ProbeMode},
    error::{Error, Kind},
    forwarding::{Forwarder, ForwardingModel, Packet, Verdict},
    model::{Check, SysctlKey},
    plan::{Change, Observe, Observed, Scope, SysctlValues},
    state::{Host, Route, State},
};

use hostgw::text::Untrusted;

/// Routes, NAT and sysctls, with the rules of the kernel that plans depend on.
#[derive(Debug, Clone, Default)]
pub struct ModelNode {
    pub state: State,
    /// The exchange that fails, counted from 0 over the lifetime of the node. Later ones succeed again.
    pub fail_at: Option<usize>,
    /// The first of the exchanges that fail.
    pub fail_from: Option<usize>,
    /// The exchange at which the process is killed: from then on, nothing is changed or read.
    pub die_at: Option<usize>,
    /// The number of exchanges so far.
    pub exchanges: usize,
    /// The results of the checks, one list per run, or an error if they cannot be run.
    pub answers: VecDeque<Result<Vec<CheckResult>, Error>>,
    /// The checks that ran so far, and their mode.
    pub probed: Vec<(Vec<Check>, ProbeMode)>,
}

impl ModelNode {
    pub fn new(state: State) -> Self {
        Self { state, ..Self::default() }
    }

    /// Returns whether the process was killed.
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
                why: "requested failure".to_owned(),
                hint: None,
            });
        }
        match change {
            Change::Route(route) => {
                let others = self.state.routes.iter().filter(|value_now| value_now.key() != route.key);
                let mut routes: Vec<Route> = others.chain(&route.after).cloned().collect();
                routes.sort_by_key(Route::key);
                self.state.routes = routes.into();
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

/// Writes a sysctl as the kernel does, including its effects on others.
fn write(sysctls: &mut BTreeMap<SysctlKey, Untrusted>, key: &SysctlKey, value: &str) {
    let Some(value_now) = sysctls.get_mut(key) else { return };
    if *value_now == value {
        return;
    }
    *value_now = value.into();
    let (on, off) = if value == "0" { ("0", "1") } else { ("1", "0") };
    let side_effects: &[(&str, &str, &str)] = match key.as_str() {
        "net.ipv4.ip_forward" => {
            &[("net.ipv4.conf.", ".forwarding", on), ("net.ipv4.conf.all.", "accept_redirects", off)]
        }
        "net.ipv6.conf.all.forwarding" => &[("net.ipv6.conf.", ".forwarding", on)],
        _ => &[],
    };
    for (prefix, suffix, value) in side_effects {
        let rewritten = sysctls
            .iter_mut()
            .filter(|(key, _)| key.as_str().starts_with(prefix) && key.as_str().ends_with(suffix));
        for (_, value_now) in rewritten {
            *value_now = (*value).into();
        }
    }
}

impl Observe for ModelNode {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        if self.is_dead() {
            return Err(Error::unexpected("killed"));
        }
        let mut state = self.state.clone();
        let managed_keys: BTreeSet<_> =
            state.routes.iter().filter(|route| route.is_owned()).map(Route::key).collect();
        let is_seen = |route: &&Route| managed_keys.contains(&route.key()) || scope.wants(&route.key());
        state.routes = state.routes.iter().filter(is_seen).cloned().collect();
        Ok(Observed { state, ..Observed::default() })
    }
}

/// It forwards all packets as its routes say.
impl Forwarder for ModelNode {
    fn verdicts(&mut self, packets: &[Packet]) -> Result<Vec<Verdict>, Error> {
        let host = Host::default();
        let model = ForwardingModel::of(&self.state, &host);
        Ok(packets.iter().map(|packet| model.trace(packet).verdict).collect())
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

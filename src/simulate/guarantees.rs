//! Verifies the guarantees of hostgw on the nodes of a simulation.

use serde::Serialize;

use super::{Before, KeepGoing, Simulation, apply_node, node_error, reconcile, workers};
use crate::{
    apply::StateDir,
    error::Error,
    kernel::{self, Interfaces, LiveNode, inside},
    model::Cluster,
    plan::{self, Change, ForeignPolicy, ForeignSysctlPolicy, Totals},
    reconcile::Destroy,
    state::Route,
    text::Untrusted,
};

/// A guarantee, and whether it held on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guarantee {
    /// The guarantee, in words.
    pub guarantee: &'static str,
    /// Whether it held on every node.
    pub held: bool,
    /// The violations: one line for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Untrusted>,
}

impl Guarantee {
    pub(super) fn new(guarantee: &'static str, violations: Vec<String>) -> Self {
        let held = violations.is_empty();
        Self { guarantee, held, violations: violations.into_iter().map(Into::into).collect() }
    }
}

impl Simulation {
    /// On each node that did not refuse its plan, applies the plan again, removes a route manually, and destroys. Returns
    /// the results, or none if no plan was applied. The nodes are left in their initial state.
    ///
    /// # Errors
    /// Returns an error if a node cannot be read or changed at all, or if `keep_going` returns one.
    pub fn guarantees(&self, keep_going: &KeepGoing) -> Result<Vec<Guarantee>, Error> {
        let count = self.topology.machines.len();
        if self.nodes.iter().all(|node| !node.refused.is_empty()) {
            return Ok(Vec::new());
        }
        let first = self.nodes.iter().position(|node| node.refused.is_empty()).unwrap_or(0);
        let checked = workers::each("checking guarantees", count, keep_going, |number| {
            let (machine, cluster) = (&self.topology.machines[number], &self.topology.cluster);
            let before = &self.before[number];
            if !self.nodes[number].refused.is_empty() {
                return Ok((None, None, Vec::new()));
            }
            inside(&self.lab.nodes[number].0, || {
                let describe = |text: String| format!("{}: {text}", machine.name);
                let apply = || {
                    let applied = apply_node(cluster, machine.index, &before.records);
                    applied.map_err(|failure| node_error(&machine.name, failure))
                };
                let repeated = check_repeated_apply(&apply, before)?.map(describe);
                let drift = if number == first {
                    check_drift(&apply, cluster, machine.index, &before.records)?
                } else {
                    None
                };
                let leftovers = check_destroy(before)?.into_iter().map(describe).collect::<Vec<_>>();
                Ok((repeated, drift.map(describe), leftovers))
            })
        })?;
        let (mut repeated, mut drift, mut leftovers) = (Vec::new(), Vec::new(), Vec::new());
        for (again, deleted, left) in checked {
            repeated.extend(again);
            drift.extend(deleted);
            leftovers.extend(left);
        }
        Ok(vec![
            Guarantee::new("a second apply changes nothing", repeated),
            Guarantee::new("a deleted route is reported as drift, and apply restores it", drift),
            Guarantee::new("destroy restores each node", leftovers),
        ])
    }
}

/// Applies the plan of a node.
type ApplyNode<'a> = dyn Fn() -> Result<Totals, Error> + 'a;

fn check_repeated_apply(apply: &ApplyNode, node: &Before) -> Result<Option<String>, Error> {
    let before = kernel::fingerprint(&node.scope)?;
    let totals = apply()?;
    let differences = before.differences(&kernel::fingerprint(&node.scope)?);
    if totals != Totals::default() {
        return Ok(Some("the second plan is not empty".to_owned()));
    }
    Ok(differences.first().cloned())
}

fn check_drift(
    apply: &ApplyNode,
    cluster: &Cluster,
    index: usize,
    dir: &StateDir,
) -> Result<Option<String>, Error> {
    let plan_now = || -> Result<_, Error> {
        let saved = dir.saved()?;
        let prepared = plan::prepare(&mut LiveNode, cluster, index, &saved, ForeignPolicy::Respect)?;
        prepared.map_err(|plan::NotLinux| Error::unexpected("a node is not a Linux node"))
    };
    let before = plan_now()?;
    let Some(route) = before.desired.state.routes.last() else {
        return Ok(None);
    };
    Interfaces::open()?.remove_route(route)?;
    let after = plan_now()?;
    let last = dir.last_applied()?.map(|last| last.state);
    let restores_route = |change: &Change| {
        change.as_route().is_some_and(|change| change.after.iter().any(|after: &Route| after == route))
    };
    let change = after.plan.changes.iter().find(|change| restores_route(change));
    let is_reported_as_drift = change.is_some_and(|change| {
        let saved = plan::OriginalSysctls::default();
        let last = last.as_ref().map(plan::PreviousApply::of_state);
        plan::reason(Some(cluster), &after.desired, &saved, last.as_ref(), change).drift
    });
    apply()?;
    if !is_reported_as_drift || after.plan.changes.len() != 1 {
        return Ok(Some(format!("the plan did not show that {route} was gone")));
    }
    Ok((!plan_now()?.plan.is_empty()).then(|| format!("{route} was not restored")))
}

fn check_destroy(node: &Before) -> Result<Vec<String>, Error> {
    let mut destroy = Destroy::new(node.records.clone(), ForeignSysctlPolicy::Refuse);
    let name = "destroy".into();
    reconcile(&name, &mut destroy).map_err(|failure| node_error(&name, failure))?;
    Ok(node.fingerprint.differences(&kernel::fingerprint(&node.scope)?))
}

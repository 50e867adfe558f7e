//! hostgw held to its promises on the nodes of a simulation.

use serde::Serialize;

use super::{Progress, Simulation, apply_node, build::inside, reconcile};
use crate::{
    apply::StateDir,
    error::Error,
    kernel::{self, Fingerprint, Interfaces, LiveNode},
    model::Cluster,
    plan::{self, Change, ForeignPolicy, ForeignSysctlPolicy, Totals},
    reconcile::Destroy,
    state::Route,
    text::Untrusted,
};

/// A promise, and whether it was kept on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    /// What is promised.
    pub promise: &'static str,
    /// Whether every node kept it.
    pub kept: bool,
    /// What was seen where it was not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Untrusted>,
}

impl Promise {
    fn new(promise: &'static str, broken: Vec<String>) -> Self {
        Self { promise, kept: broken.is_empty(), broken: broken.into_iter().map(Into::into).collect() }
    }
}

impl Simulation {
    /// Applies again, removes a route by hand, destroys: and says what came of it. The nodes are then as
    /// they were built.
    ///
    /// # Errors
    /// When a node cannot be read or changed at all; and those of `progress`.
    pub fn promises(&self, progress: &Progress) -> Result<Vec<Promise>, Error> {
        let (mut again, mut drift, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let count = self.topology.machines.len();
        for (number, machine) in self.topology.machines.iter().enumerate() {
            progress("checking promises", number, count)?;
            let (cluster, dir) = (&self.topology.cluster, &self.directories[number]);
            let fingerprint = &self.fingerprints[number];
            inside(&self.lab.nodes[number].0, || {
                let say = |text: String| format!("{}: {text}", machine.name);
                again.extend(applies_again(cluster, machine.index, dir)?.map(say));
                if number == 0 {
                    drift.extend(sees_drift(cluster, machine.index, dir)?.map(say));
                }
                left.extend(destroys(dir, fingerprint)?.into_iter().map(say));
                Ok(())
            })?;
        }
        Ok(vec![
            Promise::new("a second apply changes nothing", again),
            Promise::new("a deleted route is drift, and an apply repairs it", drift),
            Promise::new("destroy restores each node", left),
        ])
    }
}

fn applies_again(cluster: &Cluster, index: usize, dir: &StateDir) -> Result<Option<String>, Error> {
    let before = kernel::fingerprint()?;
    let totals = apply_node(cluster, index, dir)?;
    let differences = before.differences(&kernel::fingerprint()?);
    if totals != Totals::default() {
        return Ok(Some("the second plan is not empty".to_owned()));
    }
    Ok(differences.first().cloned())
}

fn sees_drift(cluster: &Cluster, index: usize, dir: &StateDir) -> Result<Option<String>, Error> {
    let plan_now = || -> Result<_, Error> {
        let saved = dir.saved()?;
        let prepared = plan::prepare(&mut LiveNode, cluster, index, &saved, ForeignPolicy::Respect)?;
        prepared.map_err(|plan::NotLinux| Error::unexpected("a node is not a Linux node"))
    };
    let standing = plan_now()?;
    let Some(route) = standing.desired.state.routes.last() else {
        return Ok(None);
    };
    Interfaces::open()?.remove_route(route)?;
    let drifted = plan_now()?;
    let last = dir.last_applied()?.map(|last| last.state);
    let is_missed = |change: &Change| match change {
        Change::Route(change) => change.after.iter().any(|after: &Route| after == route),
        Change::Nat(_) | Change::Sysctl(_) => false,
    };
    let found = drifted.plan.changes.iter().find(|change| is_missed(change));
    let called_drift = found.is_some_and(|change| {
        let saved = plan::OriginalSysctls::default();
        let last = last.as_ref().map(plan::PreviousApply::of_state);
        plan::reason(Some(cluster), &drifted.desired, &saved, last.as_ref(), change).drift
    });
    apply_node(cluster, index, dir)?;
    if !called_drift || drifted.plan.changes.len() != 1 {
        return Ok(Some(format!("the plan did not show that {route} was gone")));
    }
    Ok((!plan_now()?.plan.is_empty()).then(|| format!("{route} was not restored")))
}

fn destroys(dir: &StateDir, built: &Fingerprint) -> Result<Vec<String>, Error> {
    reconcile(&"destroy".into(), &mut Destroy::new(dir.clone(), ForeignSysctlPolicy::Refuse))?;
    Ok(built.differences(&kernel::fingerprint()?))
}

//! The paths of pods once a plan is applied.

use std::convert::Infallible;

use super::{Change, Desired, Observed, Plan, after, kept_routes};
use crate::{
    forwarding::{ForwardingModel, PathFault, Paths, explain},
    model::Cluster,
};

/// Returns the paths of pods that will not work even after `plan` is applied to the node at `index` of `cluster`, as far
/// as rules, routes and sysctls decide.
#[must_use]
pub fn path_faults(
    cluster: &Cluster,
    index: usize,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> Vec<PathFault> {
    let paths = Paths::new(cluster, index, &desired.state, &observed.host);
    if paths.is_empty() {
        return Vec::new();
    }
    let routes = desired.state.routes.iter().chain(kept_routes(&desired.state, &observed.state));
    let sysctls = after(&observed.state.sysctls, plan.changes.iter().filter_map(Change::as_sysctl));
    let model = ForwardingModel::new(routes, &sysctls, &observed.host);
    let ledger = paths.judge(|packets| {
        Ok::<_, Infallible>(packets.iter().map(|packet| model.trace(packet).verdict).collect())
    });
    let Ok(ledger) = ledger;
    explain(&paths, &ledger.blocked(), &model)
}

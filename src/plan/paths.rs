//! The paths of pods once a plan is applied.

use super::{Change, Desired, Observed, Plan, after, kept_routes};
use crate::{
    forwarding::{ForwardingModel, PathFault, Paths, faults},
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
    let paths = paths(cluster, index, desired, observed);
    if paths.is_empty() {
        return Vec::new();
    }
    let routes = desired.state.routes.iter().chain(kept_routes(&desired.state, &observed.state));
    let sysctls = after(&observed.state.sysctls, plan.changes.iter().filter_map(Change::as_sysctl));
    let model = ForwardingModel::new(routes, &sysctls, &observed.host);
    let (desired, released) = (&desired.state, &desired.released);
    let faults = faults(&paths, model).into_iter();
    faults.map(|fault| fault.with_configured_sysctls(desired, released, &observed.state)).collect()
}

/// Returns the paths between the pods of the node at `index` of `cluster` and those of all others.
#[must_use]
pub fn paths<'a>(
    cluster: &'a Cluster,
    index: usize,
    desired: &'a Desired,
    observed: &'a Observed,
) -> Paths<'a> {
    let foreign = observed.state.routes.iter().filter(|route| !route.is_owned());
    let foreign = foreign.chain(&observed.host.foreign).chain(&observed.host.others);
    Paths::new(cluster, index, desired.routes_to_nodes(), foreign, &observed.host)
}

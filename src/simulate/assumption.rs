//! What the simulated machines have although hostgw does not set it up, because the configuration relies on it.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::Topology;
use crate::{state::table_name, text::Untrusted};

/// Something that hostgw does not set up, and that the simulated machines have because the configuration relies on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assumption {
    /// The kind of assumption.
    kind: AssumptionKind,
    /// The assumption, in words.
    message: Untrusted,
}

/// The kind of an assumption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AssumptionKind {
    /// Policy rules look up the table in `routes.table`.
    PolicyRules,
    /// The router has routes to the pods (`nextHop`, `offLink: gateway`).
    RoutesOfRouter,
    /// Nodes in different networks are on one link (`offLink: onlink`).
    OneLink,
}

impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

/// Returns the assumptions about the machines of `topology`, whose nodes are called `nodes`, such as "each node".
pub(super) fn all(topology: &Topology, nodes: &str) -> Vec<Assumption> {
    let has_rules = topology.machines.iter().any(|machine| !machine.rules.is_empty());
    let rules = has_rules.then(|| {
        let table = table_name(topology.cluster.routes.table);
        let message = format!(
            "{nodes} was given policy rules for table {table}: the configuration relies on them (routes.table), and hostgw adds none"
        );
        (AssumptionKind::PolicyRules, message)
    });
    let router = topology.routes_of_router().next().map(|_| {
        let message =
            "the router was given routes to the pods: the configuration relies on it (nextHop or offLink: gateway)";
        (AssumptionKind::RoutesOfRouter, message.to_owned())
    });
    let one_link = topology.is_one_link.then(|| {
        let message =
            "nodes in different networks are on one link: the configuration relies on it (offLink: onlink)";
        (AssumptionKind::OneLink, message.to_owned())
    });
    let found = [one_link, router, rules].into_iter().flatten();
    found.map(|(kind, message)| Assumption { kind, message: message.into() }).collect()
}

//! Brings a node to the desired state of a configuration.

use super::{
    operation::Operation,
    records,
    refusal::{check_complete, check_conflicts, check_fit},
    session::Session,
};
use crate::{
    apply::StateDir,
    config::Document,
    error::{Error, Kind},
    forwarding::Paths,
    kernel::LiveNode,
    model::{Check, Cluster},
    plan::{self, Conflict, ForeignPolicy, OriginalSysctls, Prepared},
    record::Command,
};

/// The minimum number of removed routes for a mass removal.
const MASS: usize = 10;

/// An apply of a configuration to this node.
pub struct Apply<'a> {
    /// The configuration and the node.
    pub session: Session,
    dir: StateDir,
    /// The exact number of routes that a mass removal may remove.
    allowed_removals: Option<usize>,
    guard: &'a dyn Fn(&Session) -> Result<(), Error>,
}

impl<'a> Apply<'a> {
    /// Prepares an apply. `guard` checks what else must hold before the plan is committed.
    ///
    /// # Errors
    /// Returns an error if the state directory cannot be determined.
    pub fn new(
        session: Session,
        allowed_removals: Option<usize>,
        guard: &'a dyn Fn(&Session) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        Ok(Self::in_dir(session, records::state_dir()?, allowed_removals, guard))
    }

    /// Prepares an apply whose records are in `dir`.
    #[must_use]
    pub fn in_dir(
        session: Session,
        dir: StateDir,
        allowed_removals: Option<usize>,
        guard: &'a dyn Fn(&Session) -> Result<(), Error>,
    ) -> Self {
        Self { session, dir, allowed_removals, guard }
    }
}

impl Operation for Apply<'_> {
    fn look(&mut self) -> Result<(), Error> {
        self.session.look()
    }

    fn is_current(&self) -> Result<bool, Error> {
        self.session.is_current()
    }

    fn check(&self) -> Result<(), Error> {
        self.session.check()?;
        check_complete(&self.session.prepared.plan)?;
        let plan = &self.session.prepared.plan;
        let address_remedy = Conflict::address_remedy(&plan.conflicts);
        check_conflicts(
            plan,
            address_remedy.unwrap_or("remove the foreign object, or take it over with --adopt"),
        )?;
        (self.guard)(&self.session)?;
        check_removals(&self.session, self.allowed_removals)
    }

    fn dir(&self) -> &StateDir {
        &self.dir
    }

    fn command(&self) -> Command {
        Command::Apply
    }

    fn prepared(&self) -> &Prepared {
        &self.session.prepared
    }

    fn prepared_mut(&mut self) -> &mut Prepared {
        &mut self.session.prepared
    }

    fn checks(&self) -> &[Check] {
        &self.session.loaded.cluster.checks
    }

    fn paths(&self) -> Option<Paths<'_>> {
        Some(self.session.paths())
    }

    fn configuration(&self) -> Option<&Document> {
        Some(&self.session.loaded.document)
    }
}

/// Refuses a plan that removes most routes, as after a configuration lost its nodes, unless exactly that many are `allowed`.
pub(super) fn check_removals(session: &Session, allowed: Option<usize>) -> Result<(), Error> {
    let Prepared { plan, observed, desired, .. } = &session.prepared;
    let removed = plan::removed_routes(plan);
    let managed = observed.state.routes.iter().filter(|route| route.is_owned()).count();
    let leaves_none = desired.state.routes.iter().all(|route| route.next_hop.gateway.is_none());
    check_mass_removal(removed, managed, allowed, leaves_none)
}

/// Refuses to remove most of the `managed` routes, or the last one to another node, unless exactly that many are `allowed`.
///
/// # Errors
/// [`Kind::NotApplied`], with what to do if the removals are intended.
pub fn check_mass_removal(
    removed: usize,
    managed: usize,
    allowed: Option<usize>,
    leaves_none: bool,
) -> Result<(), Error> {
    let is_mass = removed >= MASS && removed * 2 > managed;
    if removed == 0 || !(is_mass || leaves_none) || allowed == Some(removed) {
        return Ok(());
    }
    let allowed = allowed.map_or_else(String::new, |allowed| format!(", not {allowed}"));
    let left = if leaves_none { "; this node would have no routes to other nodes" } else { "" };
    let routes = match managed {
        1 => "the only managed route".to_owned(),
        _ => format!("{removed} of the {managed} managed routes"),
    };
    let message = format!("this plan removes {routes}{allowed}{left}; nothing was changed");
    Err(Error::new(Kind::NotApplied, message).with_hint(format!(
        "review the removals with `hostgw plan`; if they are intended, run `hostgw apply --allow-removals {removed}`"
    )))
}

/// An apply of a cluster without its file, as in a simulation.
#[derive(Debug)]
pub struct ApplyCluster<'a> {
    cluster: &'a Cluster,
    index: usize,
    dir: &'a StateDir,
    saved: OriginalSysctls,
    prepared: Prepared,
}

impl<'a> ApplyCluster<'a> {
    /// Prepares to apply the desired state of the node at `index`.
    #[must_use]
    pub fn new(cluster: &'a Cluster, index: usize, dir: &'a StateDir) -> Self {
        Self { cluster, index, dir, saved: OriginalSysctls::default(), prepared: Prepared::nothing() }
    }
}

impl Operation for ApplyCluster<'_> {
    fn look(&mut self) -> Result<(), Error> {
        self.saved = self.dir.saved()?;
        let prepared =
            plan::prepare(&mut LiveNode, self.cluster, self.index, &self.saved, ForeignPolicy::Respect)?;
        self.prepared = prepared.map_err(|plan::NotLinux| {
            let name = &self.cluster.nodes[self.index].name;
            Error::unexpected(format!("node {name} is not a Linux node"))
        })?;
        Ok(())
    }

    fn is_current(&self) -> Result<bool, Error> {
        Ok(self.dir.saved()? == self.saved && self.prepared.is_current(&mut LiveNode)?)
    }

    fn check(&self) -> Result<(), Error> {
        let Prepared { desired, observed, plan, .. } = &self.prepared;
        let problems = plan::check(self.cluster, self.index, desired, observed);
        check_fit(&self.cluster.nodes[self.index].name, &problems, |_| None)?;
        check_complete(plan)?;
        check_conflicts(plan, "remove the foreign object")
    }

    fn dir(&self) -> &StateDir {
        self.dir
    }

    fn command(&self) -> Command {
        Command::Apply
    }

    fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    fn prepared_mut(&mut self) -> &mut Prepared {
        &mut self.prepared
    }

    fn paths(&self) -> Option<Paths<'_>> {
        let Prepared { desired, observed, .. } = &self.prepared;
        Some(plan::paths(self.cluster, self.index, desired, observed))
    }
}

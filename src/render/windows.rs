//! Renders the plan of a Windows node in the syntax of the NetTCPIP cmdlets.

use super::{
    ChangeEntry, Report, SourceLocation,
    report::{ConflictEntry, Object, ReasonEntry},
};
use crate::{
    model::{Cluster, ConfigPath},
    plan::{
        Action,
        compare::Side,
        reason::FORWARDING,
        windows::{
            ForwardingChange, StoreChange, Stores, WindowsCause, WindowsChange, WindowsConflict, WindowsPlan,
        },
    },
    state::{Forwarding, ObjectKind, WindowsRoute},
    text::Untrusted,
};

impl Report {
    /// Resolves the plan of a Windows node. `locate` finds a part of the configuration.
    #[must_use]
    pub fn of_windows(
        plan: &WindowsPlan,
        cluster: &Cluster,
        locate: impl Fn(Side, &ConfigPath) -> Option<SourceLocation>,
    ) -> Self {
        let entry = |change: &WindowsChange| match change {
            WindowsChange::Route(change) => route_entry(change, cluster, &locate),
            WindowsChange::Forwarding(change) => forwarding_entry(change, &locate),
        };
        let changes: Vec<ChangeEntry> = plan.changes.iter().map(entry).collect();
        let conflicts = plan.conflicts.iter().map(conflict_entry).collect();
        let mut report = Self { changes, conflicts, ..Self::empty(plan.totals()) };
        report.warn_of_paths(plan.paths.faults.iter().cloned(), |_| None);
        report.warn(plan.paths.warnings.iter().cloned(), |path| locate(Side::New, path));
        report
    }
}

fn route_entry(
    change: &StoreChange,
    cluster: &Cluster,
    locate: &impl Fn(Side, &ConfigPath) -> Option<SourceLocation>,
) -> ChangeEntry {
    let object = |stores: Stores| {
        let route = |metric| WindowsRoute {
            destination_prefix: change.destination,
            next_hop: Some(change.next_hop),
            // An interface that no longer exists has no name.
            interface_alias: Some(Untrusted::from(change.interface.alias.clone()))
                .filter(|alias| !alias.is_empty()),
            route_metric: metric,
            policy_store: None,
        };
        route_in(stores, route)
    };
    let (text, path) = match change.cause {
        WindowsCause::Configured(origin) => {
            (origin.reason_in(cluster), Some(origin.path(cluster, change.destination)))
        }
        WindowsCause::Owned => ("not in the configuration".to_owned(), None),
        WindowsCause::Foreign => ("adopt foreign route".to_owned(), None),
        WindowsCause::Orphaned => ("its interface no longer exists".to_owned(), None),
    };
    ChangeEntry {
        action: change.action(),
        kind: ObjectKind::Route,
        before: object(change.before),
        after: object(change.after),
        reason: ReasonEntry::new(text, path.and_then(|path| locate(Side::New, &path)), false),
        on: None,
    }
}

/// A route and the store that contains it; without the store if both contain the same, `None` if neither has it.
fn route_in(stores: Stores, route: impl Fn(u32) -> WindowsRoute) -> Option<Object> {
    let (metric, store) = match (stores.active, stores.persistent) {
        (None, None) => return None,
        (Some(active), Some(persistent)) if active == persistent => (active, None),
        (Some(active), Some(persistent)) => {
            (active, Some(format!("ActiveStore (metric {persistent} in PersistentStore)")))
        }
        (Some(active), None) => (active, Some("ActiveStore".to_owned())),
        (None, Some(persistent)) => (persistent, Some("PersistentStore".to_owned())),
    };
    Some(Object::windows_route(&WindowsRoute { policy_store: store, ..route(metric) }))
}

fn forwarding_entry(
    change: &ForwardingChange,
    locate: &impl Fn(Side, &ConfigPath) -> Option<SourceLocation>,
) -> ChangeEntry {
    let forwarding = Forwarding { interface: change.role, family: change.family };
    let object = |enabled| Some(Object::forwarding(forwarding, enabled));
    let path = ConfigPath::root().key("clusterPrefix");
    ChangeEntry {
        action: Action::Update,
        kind: ObjectKind::Forwarding,
        before: object(false),
        after: object(true),
        reason: ReasonEntry::new(
            format!("{FORWARDING}, on {}", change.interface.alias),
            locate(Side::New, &path),
            false,
        ),
        on: None,
    }
}

fn conflict_entry(conflict: &WindowsConflict) -> ConflictEntry {
    let route = |next_hop, metric| WindowsRoute {
        destination_prefix: conflict.destination,
        next_hop: Some(next_hop),
        interface_alias: Some(conflict.interface.alias.clone().into()),
        route_metric: metric,
        policy_store: None,
    };
    let foreign = route_in(conflict.live, |metric| route(conflict.next_hop, metric));
    let needed = format!("-DestinationPrefix {} -NextHop {}", conflict.destination, conflict.needed);
    let words = foreign.as_ref().map_or_else(String::new, |object| object.text().into_owned());
    ConflictEntry {
        replaced: false,
        restorable: true,
        kind: ObjectKind::Route,
        foreign: foreign.into_iter().collect(),
        text: format!("{words} conflicts with {needed}"),
        desired: Some(Object::of_text(conflict.destination.to_string(), needed)),
    }
}

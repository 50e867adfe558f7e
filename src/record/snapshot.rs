//! A node's live state as JSON, to plan against on another machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{LastApplied, TransactionMeta};
use crate::{
    error::{Error, Kind},
    model::SysctlKey,
    plan::{Observe, Observed, OriginalSysctls, Scope},
    state::{self, Host, Route, State, Tables, Unknown},
    text::Untrusted,
};

/// The format version. Files of another version are rejected.
const FORMAT: u32 = 2;

/// The live state of a node at one moment. For any configuration, a plan against the snapshot equals the plan that the
/// node itself would have computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    format: u32,
    /// The time of the snapshot, as in RFC 3339.
    pub taken_at: String,
    /// The hostname of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Every route, the tables of hostgw, every sysctl under `net.`, and all interfaces and addresses.
    pub observed: Observed,
    /// The values of sysctls from before hostgw first wrote them.
    pub saved: OriginalSysctls,
    /// The state of the last apply, to detect drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<LastApplied>,
    /// The records that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

/// A snapshot whose routes are not parsed yet, because most of them are the same in all snapshots of a cluster. The
/// configuration in its record of the last apply is left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotOutline<'a> {
    format: u32,
    taken_at: String,
    #[serde(default)]
    host_name: Option<String>,
    #[serde(borrow)]
    observed: ObservedOutline<'a>,
    saved: OriginalSysctls,
    #[serde(default)]
    last_applied: Option<LastAppliedOutline>,
    #[serde(default)]
    unknown: Vec<Unknown>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservedOutline<'a> {
    #[serde(borrow)]
    state: StateOutline<'a>,
    host: Host,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateOutline<'a> {
    #[serde(borrow)]
    routes: Vec<&'a RawValue>,
    nat: Tables,
    #[serde(deserialize_with = "state::sorted_map")]
    sysctls: BTreeMap<SysctlKey, Untrusted>,
    #[serde(default)]
    unknown: Vec<Unknown>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LastAppliedOutline {
    id: u64,
    #[serde(rename = "occasion")]
    meta: TransactionMeta,
    state: State,
    #[serde(default)]
    egress_interface: Option<Untrusted>,
    #[serde(default, rename = "configuration")]
    _configuration: Option<IgnoredAny>,
}

impl<'a> SnapshotOutline<'a> {
    /// Parses a snapshot; `None` if [`Snapshot::parse`] has to find out what is wrong with it.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|outline: &Self| outline.format == FORMAT)
    }

    /// The hostname of the machine.
    #[must_use]
    pub fn host_name(&self) -> Option<&str> {
        self.host_name.as_deref()
    }

    /// The interfaces, addresses and foreign routes.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.observed.host
    }

    /// The name of the node for which the last apply was made.
    #[must_use]
    pub fn applied_node(&self) -> Option<&Untrusted> {
        self.last_applied.as_ref()?.meta.node.as_ref()
    }

    /// The texts of the routes.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &'a str> {
        self.observed.state.routes.iter().map(|route| route.get())
    }

    /// Returns the snapshot with these routes.
    #[must_use]
    pub fn with_routes(self, routes: Vec<Route>) -> Snapshot {
        let Self { format, taken_at, host_name, observed, saved, last_applied, unknown: records } = self;
        let StateOutline { routes: _, nat, sysctls, unknown } = observed.state;
        let state = State { routes: routes.into(), nat, sysctls, unknown };
        let last_applied = last_applied.map(|last| {
            let LastAppliedOutline { id, meta, state, egress_interface, _configuration: _ } = last;
            LastApplied { id, meta, state, egress_interface, configuration: None }
        });
        let observed = Observed { state, host: observed.host };
        Snapshot { format, taken_at, host_name, observed, saved, last_applied, unknown: records }
    }
}

#[derive(Deserialize)]
struct SnapshotHead {
    format: u32,
}

impl Snapshot {
    /// Creates a snapshot.
    #[must_use]
    pub const fn new(
        taken_at: String,
        host_name: Option<String>,
        observed: Observed,
        saved: OriginalSysctls,
        last_applied: Option<LastApplied>,
        unknown: Vec<Unknown>,
    ) -> Self {
        Self { format: FORMAT, taken_at, host_name, observed, saved, last_applied, unknown }
    }

    /// Parses the output of `hostgw snapshot`; `name` is the file name in errors.
    ///
    /// # Errors
    /// Returns an error if the text is something else, or of another version.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(Kind::Invalid, format!("{name} is not a snapshot: {why}"))
                .with_hint("create one with `hostgw snapshot` on the node")
        };
        let parsed: serde_json::Result<Self> = serde_json::from_str(text);
        let error = match parsed {
            Ok(snapshot) if snapshot.format == FORMAT => return Ok(snapshot),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        // Another version may have other fields.
        match serde_json::from_str(text) {
            Ok(SnapshotHead { format }) if format != FORMAT => Err(wrong(format!(
                "it has format {format}, but this version of hostgw reads format {FORMAT}"
            ))),
            Ok(_) => Err(wrong(error.map_or_else(String::new, |error| error.to_string()))),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

impl Observe for Snapshot {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        Ok(self.observed.within(scope))
    }
}

//! A snapshot as a reader of thousands sees it: without the parts that are the same in all of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{LastApplied, Snapshot, TransactionMeta, snapshot::FORMAT};
use crate::{
    model::SysctlKey,
    plan::{Observed, OriginalSysctls},
    state::{self, Host, Route, State, Tables, Unknown},
    text::Untrusted,
};

/// The texts of routes, which are the same in most snapshots of a cluster, and the routes that they describe.
#[derive(Debug, Default)]
pub struct RouteTexts {
    ids: HashMap<Arc<str>, usize>,
    all: Vec<(Arc<str>, Route)>,
}

impl RouteTexts {
    /// Reads an array of routes, without its opening bracket, at the start of `text`. Returns the numbers of the routes, and the
    /// text that begins with the closing bracket.
    fn read<'a>(&mut self, text: &'a str) -> Option<(Vec<usize>, &'a str)> {
        let mut ids = Vec::with_capacity(self.all.len());
        let mut rest = skip_space(text);
        if rest.starts_with(']') {
            return Some((ids, rest));
        }
        // Snapshots list their routes in the same order.
        let mut next = 0;
        loop {
            let known = |at: usize| Some((at, rest.strip_prefix(&*self.all.get(at)?.0)?));
            let (id, after) = match known(next).or_else(|| known(next + 1)) {
                Some(known) => known,
                None => self.read_unexpected(rest)?,
            };
            ids.push(id);
            next = id + 1;
            rest = skip_space(after);
            match rest.strip_prefix(',') {
                Some(after) => rest = skip_space(after),
                None => return rest.starts_with(']').then_some((ids, rest)),
            }
        }
    }

    /// Reads one route.
    fn read_unexpected<'a>(&mut self, text: &'a str) -> Option<(usize, &'a str)> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<&'a RawValue>();
        let route = values.next()?.ok()?.get();
        Some((self.id(route)?, text.get(values.byte_offset()..)?))
    }

    /// Returns the number of the route with this text.
    fn id(&mut self, text: &str) -> Option<usize> {
        if let Some(id) = self.ids.get(text) {
            return Some(*id);
        }
        let (id, text): (usize, Arc<str>) = (self.all.len(), text.into());
        self.all.push((Arc::clone(&text), serde_json::from_str(&text).ok()?));
        self.ids.insert(text, id);
        Some(id)
    }

    /// Returns the route with this number.
    #[must_use]
    pub fn route(&self, id: usize) -> &Route {
        &self.all[id].1
    }
}

/// Skips the whitespace of JSON.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\n', '\r', '\t'])
}

/// A snapshot whose routes are numbers of a [`RouteTexts`]. The configuration in its record of the last apply is left out.
#[derive(Debug)]
pub struct SnapshotOutline {
    routes: Vec<usize>,
    /// The snapshot without its routes.
    document: ShortenedSnapshot,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShortenedSnapshot {
    format: u32,
    taken_at: String,
    #[serde(default)]
    hostname: Option<String>,
    observed: ShortenedObserved,
    original_sysctls: OriginalSysctls,
    #[serde(default)]
    last_applied: Option<ShortenedLastApplied>,
    #[serde(default)]
    unknown: Vec<Unknown>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortenedObserved {
    state: ShortenedState,
    host: Host,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortenedState {
    #[serde(rename = "routes")]
    _routes: [IgnoredAny; 0],
    nat: Tables,
    #[serde(deserialize_with = "state::sorted_map")]
    sysctls: BTreeMap<SysctlKey, Untrusted>,
    #[serde(default)]
    unknown: Vec<Unknown>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShortenedLastApplied {
    id: u64,
    metadata: TransactionMeta,
    state: State,
    #[serde(default)]
    egress_interface: Option<Untrusted>,
    #[serde(default, rename = "configuration")]
    _configuration: Option<IgnoredAny>,
}

impl SnapshotOutline {
    /// Parses a snapshot; `None` if [`Snapshot::parse`] has to find out what is wrong with it.
    #[must_use]
    pub fn parse(text: &str, texts: &mut RouteTexts) -> Option<Self> {
        let start = routes_in(text)?;
        let (routes, rest) = texts.read(&text[start..])?;
        let document: ShortenedSnapshot = serde_json::from_str(&[&text[..start], rest].concat()).ok()?;
        (document.format == FORMAT).then_some(Self { routes, document })
    }

    /// The hostname of the machine.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.document.hostname.as_deref()
    }

    /// The interfaces, addresses and foreign routes.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.document.observed.host
    }

    /// The name of the node for which the last apply was made.
    #[must_use]
    pub fn applied_node(&self) -> Option<&Untrusted> {
        self.document.last_applied.as_ref()?.metadata.node.as_ref()
    }

    /// The numbers of the routes.
    #[must_use]
    pub fn routes(&self) -> &[usize] {
        &self.routes
    }

    /// Returns the snapshot with these routes.
    #[must_use]
    pub fn with_routes(self, routes: Vec<Route>) -> Snapshot {
        let ShortenedSnapshot {
            format,
            taken_at,
            hostname,
            observed,
            original_sysctls,
            last_applied,
            unknown: records,
        } = self.document;
        let ShortenedState { _routes: _, nat, sysctls, unknown } = observed.state;
        let state = State { routes: routes.into(), nat, sysctls, unknown };
        let last_applied = last_applied.map(|last| {
            let ShortenedLastApplied { id, metadata, state, egress_interface, _configuration: _ } = last;
            LastApplied { id, metadata, state, egress_interface, configuration: None }
        });
        let observed = Observed { state, host: observed.host };
        Snapshot { format, taken_at, hostname, observed, original_sysctls, last_applied, unknown: records }
    }
}

/// Returns the offset behind the opening bracket of the routes.
fn routes_in(text: &str) -> Option<usize> {
    first_routes(text).or_else(|| {
        // Another program has written the snapshot again, with its keys in another order.
        let routes = serde_json::from_str::<Nested<&RawValue>>(text).ok()?.observed.state.routes.get();
        routes.starts_with('[').then(|| routes.as_ptr().addr() - text.as_ptr().addr() + 1)
    })
}

/// Returns the offset behind the opening bracket of the first array named `routes`, if it is the one that counts. What follows
/// is not read.
fn first_routes(text: &str) -> Option<usize> {
    let (before, after) = text.split_once("\"routes\"")?;
    let array = skip_space(skip_space(after).strip_prefix(':')?).strip_prefix('[')?;
    let start = text.len() - array.len();
    serde_json::from_str::<Nested<IgnoredAny>>(&format!("{before}\"routes\":[]}}}}}}")).ok()?;
    Some(start)
}

/// The place of the routes in a snapshot.
#[derive(Deserialize)]
struct Nested<T> {
    observed: NestedState<T>,
}

#[derive(Deserialize)]
struct NestedState<T> {
    state: NestedRoutes<T>,
}

#[derive(Deserialize)]
struct NestedRoutes<T> {
    routes: T,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::{to_json, write_json_rows};

    fn snapshot() -> Snapshot {
        let route = |destination: &str| {
            json!({"destination": destination, "table": 254, "metric": 0, "protocol": 87, "scope": "global",
                   "type": "unicast", "nextHop": {"gateway": "172.16.0.1", "device": "eth0"}})
        };
        let host = json!({"links": [], "addresses": [], "foreign": [route("0.0.0.0/0")]});
        let state = |routes| json!({"routes": routes, "nat": {}, "sysctls": {}});
        let state = state(json!(["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24", "10.0.1.0/24"].map(route)));
        let snapshot = json!({"format": FORMAT, "takenAt": "2026-11-29T20:00:00Z", "hostname": "\"routes\":[",
                              "observed": {"state": state, "host": host}, "originalSysctls": {}});
        serde_json::from_value(snapshot).expect("a snapshot")
    }

    /// The snapshot that an outline describes.
    fn outlined(text: &str, texts: &mut RouteTexts) -> Option<Snapshot> {
        let outline = SnapshotOutline::parse(text, texts)?;
        let routes = outline.routes().iter().map(|id| texts.route(*id).clone()).collect();
        Some(outline.with_routes(routes))
    }

    #[test]
    fn an_outline_describes_the_snapshot_in_any_layout() {
        let snapshot = snapshot();
        let mut rows = Vec::new();
        write_json_rows(&mut rows, &snapshot).expect("JSON");
        let value = serde_json::to_value(&snapshot).expect("JSON");
        let layouts = [
            to_json(&snapshot).expect("JSON"),
            String::from_utf8(rows).expect("UTF-8"),
            serde_json::to_string(&snapshot).expect("JSON"),
            serde_json::to_string_pretty(&value).expect("JSON"),
            value.to_string(),
        ];
        let mut texts = RouteTexts::default();
        for text in layouts.iter().chain(&layouts) {
            assert_eq!(outlined(text, &mut texts).as_ref(), Some(&snapshot), "{text}");
        }
        let mut without = snapshot;
        without.observed.state.routes = Vec::new().into();
        let text = to_json(&without).expect("JSON");
        assert_eq!(outlined(&text, &mut texts), Some(without));
    }

    #[test]
    fn a_damaged_snapshot_has_no_outline() {
        let text = serde_json::to_string(&snapshot()).expect("JSON");
        let mut texts = RouteTexts::default();
        assert!(outlined(&text, &mut texts).is_some());
        let damages = [
            ("\"routes\":[", "\"routes\":[],\"routes\":["),
            ("\"routes\":[{", "\"routes\":[,{"),
            ("},{", "}{"),
            ("},{", "}, ,{"),
            ("}],\"nat\"", "},],\"nat\""),
            ("}],\"nat\"", "},\"nat\""),
            ("\"metric\":0", "\"metric\":-1"),
            ("\"metric\":0", "\"metrics\":0"),
            ("\"format\":2", "\"format\":1"),
            ("\"observed\"", "\"noticed\""),
            ("\"originalSysctls\":{}}", "\"originalSysctls\":{}"),
        ];
        for (right, wrong) in damages {
            let damaged = text.replacen(right, wrong, 1);
            assert_ne!(damaged, text, "{right}");
            assert!(Snapshot::parse("x", &damaged).is_err(), "{wrong}");
            assert_eq!(outlined(&damaged, &mut texts), None, "{wrong}");
        }
    }
}

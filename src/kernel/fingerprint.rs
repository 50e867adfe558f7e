//! Captures everything in a namespace that hostgw could change, to compare the states before and after a run.

use std::{collections::BTreeMap, fs, path::Path};

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::{link::Links, nat, netlink::Socket, route};
use crate::{
    error::Error,
    model::{Family, normalize_value},
    state::Tables,
};

/// The state of a network namespace, as far as hostgw could change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// All routes of both families, as `ip route` prints them.
    routes: Vec<String>,
    /// The nftables tables named `hostgw`.
    nat: Tables,
    /// Value by path, for every readable file under `/proc/sys/net`.
    sysctls: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Describes each difference from this fingerprint to a `later` one. Empty if they are equal.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let removed = self.routes.iter().filter(|route| !later.routes.contains(route));
        differences.extend(removed.map(|route| format!("missing: {route}")));
        let added = later.routes.iter().filter(|route| !self.routes.contains(route));
        differences.extend(added.map(|route| format!("left behind: {route}")));
        if self.nat != later.nat {
            differences.push("the nftables table hostgw differs".to_owned());
        }
        for (key, value) in &self.sysctls {
            let now = later.sysctls.get(key);
            if now != Some(value) {
                differences.push(format!("{key} = {}, was {value}", now.map_or("(missing)", |now| now)));
            }
        }
        differences
    }
}

/// Takes the fingerprint of the network namespace of the calling thread.
///
/// # Errors
/// Returns an error if the interfaces, routes or NAT cannot be read.
pub fn fingerprint() -> Result<Fingerprint, Error> {
    let cannot = |what: &str, why: String| Error::unexpected(format!("cannot read {what}: {why}"));
    let mut socket = Socket::open(NETLINK_ROUTE).map_err(|error| cannot("the routes", error.to_string()))?;
    let links = Links::read(&mut socket).map_err(|error| cannot("the interfaces", error.to_string()))?;
    let mut routes =
        route::all(&mut socket, &links).map_err(|error| cannot("the routes", error.to_string()))?;
    routes.sort();
    let (nat, _) =
        nat::observe(&Family::ALL).map_err(|error| Error::unexpected(format!("cannot read NAT: {error}")))?;
    let mut sysctls = BTreeMap::new();
    read_values(Path::new("/proc/sys/net"), &mut sysctls);
    Ok(Fingerprint { routes, nat, sysctls })
}

/// Returns `true` for files whose contents change on their own or cannot be compared.
fn is_volatile(name: &str) -> bool {
    name.contains("nf_conntrack_count") || name.ends_with("/flush") || name.contains("stable_secret")
}

fn read_values(directory: &Path, values: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            read_values(&path, values);
        } else if let Ok(value) = fs::read_to_string(&path) {
            let name = path.to_string_lossy().into_owned();
            if !is_volatile(&name) {
                values.insert(name, normalize_value(&value));
            }
        }
    }
}

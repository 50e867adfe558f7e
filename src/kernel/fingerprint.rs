//! Everything that hostgw could change, to tell whether a namespace is as it was.

use std::{collections::BTreeMap, fs, path::Path};

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::{link::Links, nat, netlink::Socket, route};
use crate::{
    error::Error,
    model::{Family, normalize_value},
    state::Tables,
};

/// Everything in a network namespace that hostgw could change, to tell whether it is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// All routes of both families, in the kernel's words.
    routes: Vec<String>,
    /// The tables named hostgw.
    nat: Tables,
    /// Every value below /proc/sys/net.
    sysctls: BTreeMap<String, String>,
}

impl Fingerprint {
    /// What differs between two, in words; empty when nothing does.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let gone = self.routes.iter().filter(|route| !later.routes.contains(route));
        differences.extend(gone.map(|route| format!("gone: {route}")));
        let come = later.routes.iter().filter(|route| !self.routes.contains(route));
        differences.extend(come.map(|route| format!("left: {route}")));
        if self.nat != later.nat {
            differences.push("the table hostgw is left".to_owned());
        }
        for (key, value) in &self.sysctls {
            let now = later.sysctls.get(key);
            if now != Some(value) {
                differences.push(format!("{key} = {} instead of {value}", now.map_or("nothing", |now| now)));
            }
        }
        differences
    }
}

/// Takes the fingerprint of the network namespace of the calling thread.
///
/// # Errors
/// When it cannot be read.
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

/// Values that count or age on their own.
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

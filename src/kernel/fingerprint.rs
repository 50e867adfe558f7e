//! Captures everything in a namespace that hostgw could change, to compare the states before and after a run.

use std::collections::{BTreeMap, BTreeSet};

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::{link::Links, nat, netlink::Socket, route, sysctl};
use crate::{
    error::Error,
    model::{Family, SysctlKey},
    plan::Scope,
    state::{State, Tables},
    text::{OsError, Untrusted},
};

/// The sysctls in a fingerprint. It always contains all routes and the NAT.
#[derive(Debug, Clone)]
pub enum FingerprintScope {
    /// All sysctls.
    Everything,
    /// The sysctls that a plan can write, and those that the kernel overwrites because of them.
    Within(Scope),
}

impl FingerprintScope {
    /// Returns the scope of a plan to `desired`.
    #[must_use]
    pub fn of(desired: &State) -> Self {
        Self::Within(Scope::of(desired, Vec::new()))
    }
}

/// The state of a network namespace, as far as hostgw could change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// All routes of both families, as `ip route` prints them.
    routes: Vec<String>,
    /// The nftables tables named `hostgw`.
    nat: Tables,
    /// Value by key.
    sysctls: BTreeMap<SysctlKey, Untrusted>,
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
        for key in self.sysctls.keys().chain(later.sysctls.keys()).collect::<BTreeSet<_>>() {
            let [was, now] = [self, later].map(|fingerprint| {
                fingerprint.sysctls.get(key).map_or_else(|| "(missing)".to_owned(), Untrusted::to_string)
            });
            if was != now {
                differences.push(format!("{key} = {now}, was {was}"));
            }
        }
        differences
    }
}

/// Takes the fingerprint of the network namespace of the calling thread.
///
/// # Errors
/// Returns an error if the interfaces, routes or NAT cannot be read.
pub fn fingerprint(scope: &FingerprintScope) -> Result<Fingerprint, Error> {
    let cannot = |what: &str, why: String| Error::unexpected(format!("cannot read {what}: {why}"));
    let mut socket =
        Socket::open(NETLINK_ROUTE).map_err(|error| cannot("the routes", OsError(&error).to_string()))?;
    let links = Links::read(&mut socket).map_err(|error| cannot("the interfaces", error.to_string()))?;
    let mut routes =
        route::all(&mut socket, &links).map_err(|error| cannot("the routes", error.to_string()))?;
    routes.sort();
    let (nat, _) =
        nat::observe(&Family::ALL).map_err(|error| Error::unexpected(format!("cannot read NAT: {error}")))?;
    let mut sysctls = match scope {
        FingerprintScope::Everything => sysctl::everything(),
        FingerprintScope::Within(scope) => sysctl::observe(scope, &Links::default(), &[]),
    }
    .values;
    sysctls.retain(|key, _| !sysctl::is_volatile(&key.to_string()));
    Ok(Fingerprint { routes, nat, sysctls })
}

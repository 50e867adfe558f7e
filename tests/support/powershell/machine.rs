//! A Windows machine: interfaces, the two stores of routes, files; and what can go wrong on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::value::{Failure, Value};

/// Where a route stands in a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    pub index: i64,
    pub destination: IpNet,
    pub next_hop: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteValue {
    pub metric: i64,
    /// `NetMgmt`, or `Local` for what Windows makes of an address.
    pub protocol: &'static str,
}

pub type Store = BTreeMap<RouteKey, RouteValue>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: i64,
    pub alias: String,
    /// With the length of their prefixes.
    pub addresses: Vec<IpNet>,
    /// For IPv4 and IPv6, where it has the family.
    pub forwarding: BTreeMap<&'static str, bool>,
}

/// What goes wrong at one of the steps: a call that changes something, or a write of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused.
    Refuse,
    /// It is done, and an error comes all the same.
    Late,
    /// It says that it was done, and was not.
    Ignore,
    /// The script ends there: nothing of it runs any more.
    Kill,
    /// The same after it was done.
    KillAfter,
    /// Control-C: what `finally` says still runs.
    Stop,
    /// Power is lost: nothing runs any more, and files that were not flushed hold zeros.
    PowerCut,
}

/// The machine, and what happened on it.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub interfaces: Vec<Interface>,
    pub active: Store,
    pub persistent: Store,
    pub files: BTreeMap<String, String>,
    pub is_administrator: bool,
    /// Folders that stand where a file is expected.
    pub folders: BTreeSet<String>,
    /// The files whose content is not on the disk yet.
    pub unflushed: BTreeSet<String>,
    /// Somebody else holds this file open.
    pub locked: BTreeSet<String>,
    /// How the steps go wrong, by their number from 0.
    pub faults: BTreeMap<usize, Fault>,
    /// How the calls of cmdlets go wrong, by their number from 0.
    pub call_faults: BTreeMap<usize, Fault>,
    /// From this call on every one is refused.
    pub calls_denied_from: Option<usize>,
    /// From this step on every call of a cmdlet is refused.
    pub denied_from: Option<usize>,
    /// Reading fails.
    pub blind: bool,
    /// Reading finds nothing, as if there were not even a loopback interface.
    pub is_silent: bool,
    /// The language mode of the PowerShell, where it is not the full one.
    pub language_mode: Option<&'static str>,
    /// The steps that were made.
    pub steps: Vec<String>,
    /// The calls among them that changed the network.
    pub calls: Vec<String>,
}

/// How a step goes.
pub enum Course {
    Well,
    Refused(Failure),
    Late(Failure),
    Ignored,
    Killed { after: bool },
    PowerLost,
    Stopped,
}

impl Machine {
    /// Counts a step, and says how it goes.
    pub fn step(&mut self, what: String, is_call: bool) -> Course {
        let (number, call) = (self.steps.len(), self.calls.len());
        self.steps.push(what.clone());
        if is_call {
            self.calls.push(what);
        }
        let denied = Failure { message: "Access is denied.".to_owned(), category: "PermissionDenied" };
        let is_denied = self.denied_from.is_some_and(|from| number >= from)
            || self.calls_denied_from.is_some_and(|from| call >= from);
        if is_call && is_denied {
            return Course::Refused(denied);
        }
        let fault = self.faults.get(&number).or_else(|| self.call_faults.get(&call).filter(|_| is_call));
        match fault {
            None => Course::Well,
            Some(Fault::Refuse) => Course::Refused(denied),
            Some(Fault::Late) => Course::Late(Failure::new("A general error occurred.")),
            Some(Fault::Ignore) => Course::Ignored,
            Some(Fault::Kill) => Course::Killed { after: false },
            Some(Fault::KillAfter) => Course::Killed { after: true },
            Some(Fault::Stop) => Course::Stopped,
            Some(Fault::PowerCut) => Course::PowerLost,
        }
    }

    /// Takes along whether the content of a file is on the disk.
    pub fn renamed(&mut self, from: &str, to: &str) {
        if self.unflushed.remove(from) {
            self.unflushed.insert(to.to_owned());
        } else {
            self.unflushed.remove(to);
        }
    }

    /// Loses what is not on the disk. NTFS keeps the length of a file, and its content is zeros.
    pub fn lose_power(&mut self) {
        for path in std::mem::take(&mut self.unflushed) {
            if let Some(text) = self.files.get_mut(&path) {
                *text = "\0".repeat(text.len());
            }
        }
    }

    /// Adds what Windows makes of the addresses: the prefix, the host.
    pub fn with_local_routes(mut self) -> Self {
        for interface in &self.interfaces {
            for address in &interface.addresses {
                for destination in [address.trunc(), IpNet::from(address.addr())] {
                    let next_hop = unspecified(destination);
                    let key = RouteKey { index: interface.index, destination, next_hop };
                    self.active.insert(key, RouteValue { metric: 256, protocol: "Local" });
                }
            }
        }
        self
    }

    /// Adds a route of somebody's to the stores.
    pub fn route(&mut self, index: i64, destination: &str, next_hop: &str, metric: i64, stores: &str) {
        let key = RouteKey {
            index,
            destination: destination.parse().unwrap(),
            next_hop: next_hop.parse().unwrap(),
        };
        let value = RouteValue { metric, protocol: "NetMgmt" };
        if stores.contains('A') {
            self.active.insert(key.clone(), value.clone());
        }
        if stores.contains('P') {
            self.persistent.insert(key, value);
        }
    }

    /// All that hostgw must leave as it is, or put back.
    pub fn network(&self) -> (Vec<Interface>, Store, Store) {
        (self.interfaces.clone(), self.active.clone(), self.persistent.clone())
    }

    pub fn alias(&self, index: i64) -> Option<&str> {
        self.interfaces.iter().find(|interface| interface.index == index).map(|one| one.alias.as_str())
    }

    pub fn route_object(&self, key: &RouteKey, value: &RouteValue) -> Value {
        Value::object([
            ("InterfaceIndex", Value::Int(key.index)),
            ("InterfaceAlias", Value::str(self.alias(key.index).unwrap_or(""))),
            ("DestinationPrefix", Value::Str(key.destination.to_string())),
            ("NextHop", Value::Str(key.next_hop.to_string())),
            ("RouteMetric", Value::Int(value.metric)),
            ("Protocol", Value::str(value.protocol)),
        ])
    }
}

/// The next hop of what is on-link.
pub fn unspecified(destination: IpNet) -> IpAddr {
    match destination {
        IpNet::V4(_) => "0.0.0.0".parse().unwrap(),
        IpNet::V6(_) => "::".parse().unwrap(),
    }
}

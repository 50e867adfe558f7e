//! A Windows machine: interfaces, the two route stores, files, and faults.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::value::{Failure, Value};

/// The key of a route in a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    pub index: i64,
    pub destination: IpNet,
    pub next_hop: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteValue {
    pub metric: i64,
    /// `NetMgmt`, or `Local` for routes that Windows derives from addresses.
    pub protocol: &'static str,
}

pub type Store = BTreeMap<RouteKey, RouteValue>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: i64,
    pub alias: String,
    /// With prefix lengths.
    pub addresses: Vec<IpNet>,
    /// For each family that it has: IPv4, IPv6.
    pub forwarding: BTreeMap<&'static str, bool>,
    pub metric: i64,
    pub is_connected: bool,
}

/// How `Find-NetRoute` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Find {
    /// By the active routes.
    #[default]
    ByTable,
    /// It does not exist.
    Absent,
    /// It fails.
    Fails,
    /// Once there were this many calls, and this many times in a run, with this route for the addresses in its
    /// destination, or with an error that there is none; by the active routes otherwise.
    Diverts { from_call: usize, times: usize, destination: IpNet, route: Option<(i64, IpAddr)> },
}

/// A fault at a step, which is a call that changes something or a file write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The step is refused.
    Refuse,
    /// The step is done, but reports an error.
    Late,
    /// The step reports success, but does nothing.
    Ignore,
    /// The script is killed before the step.
    Kill,
    /// The script is killed after the step.
    KillAfter,
    /// Ctrl-C: `finally` blocks still run.
    Stop,
    /// Power is lost: nothing runs any more, and unflushed files contain zeros.
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
    /// Folders in the place of files.
    pub folders: BTreeSet<String>,
    /// Files whose content is not on disk yet.
    pub unflushed: BTreeSet<String>,
    /// Files that another program keeps open.
    pub locked: BTreeSet<String>,
    /// Faults by the number of the step, from 0.
    pub faults: BTreeMap<usize, Fault>,
    /// Faults by the number of the cmdlet call, from 0.
    pub call_faults: BTreeMap<usize, Fault>,
    /// All calls from this one on are refused.
    pub calls_denied_from: Option<usize>,
    /// All cmdlet calls from this step on are refused.
    pub denied_from: Option<usize>,
    /// Reading fails.
    pub blind: bool,
    /// Reading finds nothing, not even a loopback interface.
    pub is_silent: bool,
    /// How `Find-NetRoute` answers.
    pub find: Find,
    /// The addresses that `Find-NetRoute` was asked about.
    pub found: Vec<IpAddr>,
    /// Tasks, event sources and event log entries, in the format of the substitute for ScheduledTasks. The model has none.
    pub scheduler: serde_json::Value,
    /// What the machine becomes while a run of the task waits.
    pub later: Option<Box<Machine>>,
    /// The language mode of the PowerShell, if it is restricted.
    pub language_mode: Option<&'static str>,
    /// The steps so far.
    pub steps: Vec<String>,
    /// The calls among them that changed the network.
    pub calls: Vec<String>,
}

/// How a step proceeds.
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
    /// Counts a step, and returns how it proceeds.
    pub fn step(&mut self, what: String, is_call: bool) -> Course {
        let (number, call) = (self.steps.len(), self.calls.len());
        self.steps.push(what.clone());
        if is_call {
            self.calls.push(what);
        }
        let denied = Failure { category: "PermissionDenied", ..Failure::new("Access is denied.") };
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

    /// Moves a file, including whether its content is on disk.
    pub fn renamed(&mut self, from: &str, to: &str) {
        if self.unflushed.remove(from) {
            self.unflushed.insert(to.to_owned());
        } else {
            self.unflushed.remove(to);
        }
    }

    /// Loses everything that is not on disk. NTFS keeps the length of a file and fills it with zeros.
    pub fn lose_power(&mut self) {
        for path in std::mem::take(&mut self.unflushed) {
            if let Some(text) = self.files.get_mut(&path) {
                *text = "\0".repeat(text.len());
            }
        }
    }

    /// Adds the routes that Windows derives from addresses: the prefix and the host.
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

    /// Adds a foreign route to the stores.
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

    /// Everything that hostgw must leave unchanged or restore.
    pub fn network(&self) -> (Vec<Interface>, Store, Store) {
        (self.interfaces.clone(), self.active.clone(), self.persistent.clone())
    }

    pub fn alias(&self, index: i64) -> Option<&str> {
        self.interfaces.iter().find(|interface| interface.index == index).map(|one| one.alias.as_str())
    }

    /// The route that packets to an address use. Of several with the same total metric, the one with the lowest index.
    pub fn route_to(&self, address: IpAddr) -> Option<(&RouteKey, &RouteValue)> {
        let metric = |key: &RouteKey| {
            self.interfaces.iter().find(|one| one.index == key.index).map_or(0, |one| one.metric)
        };
        let is_connected =
            |key: &RouteKey| self.interfaces.iter().any(|one| one.index == key.index && one.is_connected);
        let usable =
            self.active.iter().filter(|(key, _)| key.destination.contains(&address) && is_connected(key));
        usable.min_by_key(|(key, value)| {
            (
                Reverse(key.destination.prefix_len()),
                value.metric + metric(key),
                key.index,
                key.next_hop.to_string(),
            )
        })
    }

    pub fn route_object(&self, key: &RouteKey, value: &RouteValue) -> Value {
        Value::object([
            ("InterfaceIndex", Value::Int(key.index)),
            ("InterfaceAlias", Value::str(self.alias(key.index).unwrap_or(""))),
            ("DestinationPrefix", Value::str(key.destination.to_string())),
            ("NextHop", Value::str(key.next_hop.to_string())),
            ("RouteMetric", Value::Int(value.metric)),
            ("Protocol", Value::str(value.protocol)),
        ])
    }
}

/// The next hop of an on-link route.
pub fn unspecified(destination: IpNet) -> IpAddr {
    match destination {
        IpNet::V4(_) => "0.0.0.0".parse().unwrap(),
        IpNet::V6(_) => "::".parse().unwrap(),
    }
}

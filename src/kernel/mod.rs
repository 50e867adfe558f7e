//! The Linux backend: reads the live state and commits changes. Netlink is used nowhere else.
//!
//! Every read and write acts on the network namespace of the calling thread.

mod copy;
mod events;
mod ffi;
mod fingerprint;
mod link;
mod lookup;
mod make;
mod namespace;
mod nat;
mod neighbor;
mod netlink;
mod omission;
mod packet_program;
mod policy_rule;
mod probe;
mod route;
mod sysctl;
#[cfg(test)]
mod testing;
mod verdict;

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use crate::{
    apply::{Backend, CheckResult, CommitError, Identity, Interrupt, Order, ProbeMode},
    error::Error,
    forwarding::{Forwarder, Packet, Verdict},
    model::{Check, Family, SysctlKey},
    plan::{Change, NatChange, Observe, Observed, RouteChange, Scope, SysctlChange, SysctlValues},
    progress::{self, Task},
    state::{Firewall, Hardware, Host, InterfaceAddress, NeighborEntry, PacketProgram, State},
    text::{OsError, Untrusted},
};
use link::Links;
use netlink::{KernelError, Refused, Requests, Socket, open_route_socket};
use sysctl::{Accepts, ReplaceError};

pub use copy::{Cable, CopyTotals, LinkImage, NodeCopy, NodeImage, legacy_drops};
pub use events::{EventScope, EventSummary, NodeEvents};
pub use fingerprint::{Fingerprint, FingerprintScope, fingerprint};
pub use lookup::Lookup;
pub use make::Interfaces;
pub use namespace::{Namespace, become_root_of_own_user_namespace, cannot_create_namespace, inside};
pub use nat::{CopiedRules, FirewallTrace, NatError, PacketFate, TracedVerdict};
pub use omission::Omission;
pub use sysctl::{can_write, check_directory as check_sysctl_directory};

/// The number of route messages to send between two checks for a signal.
const MESSAGES_PER_STEP: usize = 1024;

/// The live kernel, in the network namespace of the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiveNode;

impl LiveNode {
    /// Reads everything that a plan could depend on. Foreign routes are listed in [`Host::foreign`].
    ///
    /// # Errors
    /// Returns an error if the interfaces, addresses, routes or NAT cannot be read.
    pub fn everything(self) -> Result<Observed, Error> {
        let reading = HostReading::new()?;
        let mac_addresses = reading.links.hardware.clone();
        let mut observed = reading.read(true, route::everything, |_, _| sysctl::everything())?;
        observed.host.mac_addresses = mac_addresses;
        observed.host.firewall = nat::firewall();
        if let Some(firewall) = &mut observed.host.firewall {
            (firewall.legacy, firewall.legacy_unknown) = copy::legacy_tables();
        }
        observed.host.neighbors = neighbors()?;
        observed.host.programs = packet_programs()?;
        observed.host.machine = hardware();
        Ok(observed)
    }
}

impl Observe for LiveNode {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        HostReading::new()?.observe(scope)
    }
}

/// The interfaces and addresses of this network namespace, which identify the node, and the socket that read them.
#[derive(Debug)]
pub struct HostReading {
    socket: Socket,
    links: Links,
    addresses: Vec<InterfaceAddress>,
}

impl HostReading {
    /// Reads the interfaces and addresses.
    ///
    /// # Errors
    /// Returns an error if the kernel cannot be queried.
    pub fn new() -> Result<Self, Error> {
        let mut socket = open_route_socket()?;
        let links = Links::read(&mut socket).map_err(|error| unreadable("the interfaces", &error))?;
        let addresses =
            link::addresses(&mut socket, &links).map_err(|error| unreadable("the addresses", &error))?;
        Ok(Self { socket, links, addresses })
    }

    /// Returns the interfaces and addresses.
    #[must_use]
    pub fn host(&self) -> Host {
        Host { links: self.links.all.clone(), addresses: self.addresses.clone(), ..Host::default() }
    }

    /// Observes the rest of the node, like [`LiveNode`].
    fn observe(self, scope: &Scope) -> Result<Observed, Error> {
        self.read(
            !scope.prefixes.is_empty(),
            |socket, links| route::observe(socket, links, scope),
            |links, addresses| sysctl::observe(scope, links, addresses),
        )
    }

    /// Reads NAT; the arguments select what else to read.
    fn read(
        mut self,
        with_rules: bool,
        routes: impl FnOnce(&mut Socket, &Links) -> Result<route::ObservedRoutes, KernelError>,
        sysctls: impl FnOnce(&Links, &[InterfaceAddress]) -> sysctl::ObservedSysctls,
    ) -> Result<Observed, Error> {
        let _task = Task::begin("reading the node");
        let routes =
            routes(&mut self.socket, &self.links).map_err(|error| unreadable("the routes", &error))?;
        let rules = if with_rules { policy_rule::all(&mut self.socket) } else { Ok(Vec::new()) };
        let rules = rules.map_err(|error| unreadable("the policy rules", &error))?;
        let (nat, mut unknown) = nat::observe(&Family::ALL).map_err(|error| unreadable_nat(&error))?;
        let sysctls = sysctls(&self.links, &self.addresses);
        unknown.extend(sysctls.unknown);
        Ok(Observed {
            state: State { routes: routes.routes.into(), nat, sysctls: sysctls.values, unknown },
            host: Host {
                links: self.links.all,
                addresses: self.addresses,
                foreign: routes.foreign,
                others: routes.others,
                rules,
                ..Host::default()
            },
        })
    }
}

/// The live node, whose interfaces and addresses have been read if there is a reading. It is used for one observation.
impl Observe for Option<HostReading> {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        self.take().map_or_else(HostReading::new, Ok)?.observe(scope)
    }
}

impl Forwarder for LiveNode {
    fn verdicts(&mut self, packets: &[Packet]) -> Result<Vec<Verdict>, Error> {
        verdict::verdicts(packets)
    }
}

impl Backend for LiveNode {
    fn sysctls(&mut self, keys: &[SysctlKey]) -> SysctlValues {
        sysctl::read(keys.iter().cloned()).values
    }

    fn commit(&mut self, changes: &[Change], order: Order, interrupt: &Interrupt) -> Result<(), CommitError> {
        let groups = Groups::of(changes);
        match order {
            Order::Forward => {
                commit_nat(&groups.nat, interrupt)?;
                commit_routes(&groups.routes, OnRefusal::Stop, interrupt).map_err(|failure| failure.error)?;
                commit_sysctls(&groups.sysctls, Accepts::OldOnly, interrupt)
            }
            Order::Undo => undo(&groups, interrupt),
        }
    }

    fn probe(
        &mut self,
        checks: &[Check],
        mode: ProbeMode,
        interrupt: &Interrupt,
    ) -> Result<Vec<CheckResult>, Error> {
        probe::probe(checks, mode, interrupt)
    }
}

/// Undoes as much as possible: a failure does not stop the rest. Returns the first failure.
fn undo(groups: &Groups, interrupt: &Interrupt) -> Result<(), CommitError> {
    let sysctls = groups.sysctls.iter().map(|change| commit_sysctls(&[change], Accepts::OldOrNew, interrupt));
    let mut first = sysctls.fold(Ok(()), Result::and);
    if let Err(RouteFailure { error, failed }) = commit_routes(&groups.routes, OnRefusal::Continue, interrupt)
    {
        first = first.and(Err(error));
        // They may have depended on each other. Changes that took effect are rejected now, which does no harm.
        let _ = commit_routes(&failed, OnRefusal::Continue, interrupt);
    }
    first.and(commit_nat(&groups.nat, interrupt))
}

/// The changes of a plan, grouped by the subsystem that commits them.
#[derive(Default)]
struct Groups<'a> {
    nat: Vec<&'a NatChange>,
    routes: Vec<&'a RouteChange>,
    sysctls: Vec<&'a SysctlChange>,
}

impl<'a> Groups<'a> {
    fn of(changes: &'a [Change]) -> Self {
        let mut groups = Self::default();
        for change in changes {
            match change {
                Change::Nat(nat) => groups.nat.push(nat),
                Change::Route(route) => groups.routes.push(route),
                Change::Sysctl(sysctl) => groups.sysctls.push(sysctl),
            }
        }
        groups
    }
}

fn check(interrupt: &Interrupt) -> Result<(), CommitError> {
    if interrupt.is_raised() { Err(CommitError::Interrupted) } else { Ok(()) }
}

fn commit_nat(changes: &[&NatChange], interrupt: &Interrupt) -> Result<(), CommitError> {
    check(interrupt)?;
    if changes.is_empty() {
        return Ok(());
    }
    nat::replace(changes, interrupt).map_err(|error| {
        let (why, hint) = (error.to_string(), error.hint().map(ToOwned::to_owned));
        match error {
            NatError::Interrupted => CommitError::Interrupted,
            NatError::Overtaken(_) | NatError::Unsteady => CommitError::Stale { why, hint },
            _ => CommitError::Refused { object: "NAT".to_owned(), why, hint },
        }
    })
}

/// What to do after the kernel rejected a route change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnRefusal {
    /// Send nothing more.
    Stop,
    /// Send the other changes, too.
    Continue,
}

impl OnRefusal {
    const fn task(self) -> &'static str {
        match self {
            Self::Stop => "writing routes",
            Self::Continue => "restoring routes",
        }
    }
}

/// The failure of some route changes.
struct RouteFailure<'a> {
    /// The first error.
    error: CommitError,
    /// The changes that were rejected, not sent, or whose outcome is unknown.
    failed: Vec<&'a RouteChange>,
}

fn commit_routes<'a>(
    changes: &[&'a RouteChange],
    on_refusal: OnRefusal,
    interrupt: &Interrupt,
) -> Result<(), RouteFailure<'a>> {
    if changes.is_empty() {
        return Ok(());
    }
    let refused = |change: &RouteChange, why: String, hint: Option<&str>| CommitError::Refused {
        object: Change::Route(change.clone()).to_string(),
        why,
        hint: hint.map(ToOwned::to_owned),
    };
    let broken = |why: String, hint: Option<&str>| CommitError::Refused {
        object: "routes".to_owned(),
        why,
        hint: hint.map(ToOwned::to_owned),
    };
    let none_sent = |error: CommitError| RouteFailure { error, failed: changes.to_vec() };
    let mut socket = open_route_socket().map_err(|error| none_sent(broken(error.to_string(), None)))?;
    let links = Links::read(&mut socket)
        .map_err(|error| none_sent(broken(error.to_string(), route::hint(&error))))?;
    let mut failure: Option<RouteFailure<'a>> = None;
    let mut fail = |error: CommitError, failed: &[&'a RouteChange]| {
        let failure = failure.get_or_insert(RouteFailure { error, failed: Vec::new() });
        failure.failed.extend(failed);
        on_refusal == OnRefusal::Stop
    };
    let _task = Task::counted(on_refusal.task(), changes.len());
    let mut requests = Requests::default();
    let mut owners: Vec<&RouteChange> = Vec::with_capacity(MESSAGES_PER_STEP);
    let mut rest = changes;
    let mut done = 0;
    while let Some((change, after)) = rest.split_first() {
        rest = after;
        match route::put_requests(&mut requests, change, &links) {
            Ok(()) => owners.resize(requests.len(), *change),
            Err(why) => {
                requests.truncate(owners.len());
                if fail(refused(change, why, None), &[*change]) {
                    break;
                }
            }
        }
        if requests.len() < MESSAGES_PER_STEP && !rest.is_empty() {
            continue;
        }
        if let Err(error) = check(interrupt) {
            fail(error, &[&owners[..], rest].concat());
            break;
        }
        let mut first = 0;
        while let Err(refusal) = socket.transact(&mut requests, first) {
            let failed: Vec<_> =
                refusal.failed().into_iter().filter_map(|at| owners.get(at).copied()).collect();
            let Refused { rejections, failure, sent, .. } = refusal;
            let at = rejections.first().map(|(at, _)| *at);
            let error = rejections.into_iter().next().map(|(_, error)| error).or(failure);
            let why = error.as_ref().map_or_else(String::new, ToString::to_string);
            let hint = error.as_ref().and_then(route::hint);
            let error = match at.and_then(|at| owners.get(at)) {
                Some(change) => refused(change, why, hint),
                None => broken(why, hint),
            };
            if fail(error, &failed) {
                rest = &[];
                break;
            }
            first = sent;
        }
        requests.truncate(0);
        owners.clear();
        progress::advance(changes.len() - rest.len() - done);
        done = changes.len() - rest.len();
    }
    failure.map_or(Ok(()), |mut failure| {
        // A change can have several requests, which are sent one after the other.
        failure.failed.dedup_by(|this, that| std::ptr::eq(*this, *that));
        Err(failure)
    })
}

fn commit_sysctls(
    changes: &[&SysctlChange],
    accepts: Accepts,
    interrupt: &Interrupt,
) -> Result<(), CommitError> {
    for change in changes {
        check(interrupt)?;
        let refused = |why, hint| CommitError::Refused {
            object: Change::Sysctl((*change).clone().into()).to_string(),
            why,
            hint,
        };
        // The kernel has already written it, as a side effect of another sysctl of this transaction.
        let accepts = if change.rewritten_by.is_some() { Accepts::OldOrNew } else { accepts };
        sysctl::replace(change, accepts).map_err(|error| match error {
            ReplaceError::Refused(error) => refused(OsError(&error).to_string(), sysctl::hint(&error)),
            ReplaceError::Normalized(now) => refused(
                format!("the kernel stored {now} instead"),
                Some(format!("set it to {now} in the configuration")),
            ),
            ReplaceError::Moved(now) => CommitError::SysctlChanged { key: change.key.clone(), now },
        })?;
    }
    Ok(())
}

/// Reads the chains of nftables that packets pass. `None` if they cannot be read, which needs `CAP_NET_ADMIN`.
#[must_use]
pub fn firewall() -> Option<Firewall> {
    nat::firewall()
}

/// Lists the programs and filters that see packets besides the firewall.
///
/// # Errors
/// Returns an error if the interfaces cannot be read.
pub fn packet_programs() -> Result<Vec<PacketProgram>, Error> {
    let mut socket = open_route_socket()?;
    let links = Links::read(&mut socket).map_err(|error| unreadable("the interfaces", &error))?;
    Ok(packet_program::all(&mut socket, &links))
}

/// Reads the entries of the neighbor table, except those of addresses that need no resolution.
fn neighbors() -> Result<Vec<NeighborEntry>, Error> {
    let mut socket = open_route_socket()?;
    let links = Links::read(&mut socket).map_err(|error| unreadable("the interfaces", &error))?;
    let entries = neighbor::all(&mut socket).map_err(|error| unreadable("the neighbors", &error))?;
    let entries = entries.iter().filter(|entry| entry.is_resolved());
    Ok(entries.filter_map(|entry| entry.observed(&links)).collect())
}

/// The answers of next hops.
#[derive(Debug, Default)]
pub struct AskedHops {
    /// The entries of the next hops in the neighbor table, with the MAC addresses that answered. The addresses that the
    /// kernel never asks are left out, except for those of static entries.
    pub entries: Vec<NeighborEntry>,
    /// Why the MAC addresses are unknown: a sentence fragment.
    pub failure: Option<String>,
}

/// Asks each of these next hops, an address and the name of an interface, for its MAC address.
///
/// # Errors
/// Returns an error if the kernel cannot be queried.
pub fn ask_next_hops(hops: &[(IpAddr, Untrusted)]) -> Result<AskedHops, Error> {
    let _task = Task::counted("asking next hops", hops.len());
    let mut socket = open_route_socket()?;
    let links = Links::read(&mut socket).map_err(|error| unreadable("the interfaces", &error))?;
    let addresses =
        link::addresses(&mut socket, &links).map_err(|error| unreadable("the addresses", &error))?;
    let fixed: Vec<NeighborEntry> = neighbors()?.into_iter().filter(|entry| entry.permanent).collect();
    let mut asked = AskedHops::default();
    for batch in hops.chunks(probe::HOPS_AT_ONCE) {
        let is_up = |index| links.all.iter().any(|link| link.index == index && link.up);
        let interface = |device: &Untrusted| links.index(device.as_raw()).filter(|index| is_up(*index));
        let known = batch.iter().filter_map(|(address, device)| Some((*address, interface(device)?)));
        let known: Vec<probe::HopAddress> = known.collect();
        let answers = match hardware_answers(&known, &links, &addresses) {
            Ok(answers) => answers,
            Err(error) => {
                asked.failure = Some(error.to_string());
                probe::Answers::new()
            }
        };
        let answered: HashMap<probe::HopAddress, bool> =
            probe::hops(&known, &mut socket)?.into_iter().collect();
        for hop in known {
            let Some(device) = links.name(hop.1) else { continue };
            let hardware: Vec<Untrusted> = answers
                .get(&hop)
                .into_iter()
                .flatten()
                .map(|address| link::hardware_text(address).into())
                .collect();
            let fixed = fixed.iter().find(|entry| entry.address == hop.0 && entry.device == *device);
            let entry = match (answered.get(&hop), fixed) {
                (Some(answers), _) => NeighborEntry {
                    device: device.clone(),
                    address: hop.0,
                    mac_address: None,
                    unanswered: !answers,
                    permanent: false,
                    external: false,
                    answers: hardware,
                },
                (None, Some(fixed)) => {
                    let unanswered = hardware.is_empty() && asked.failure.is_none();
                    NeighborEntry { answers: hardware, unanswered, ..fixed.clone() }
                }
                (None, None) => continue,
            };
            asked.entries.push(entry);
        }
        progress::advance(batch.len());
    }
    Ok(asked)
}

/// Asks next hops for their MAC addresses, past the neighbor table. Those on links that are not Ethernet are left out.
fn hardware_answers(
    hops: &[probe::HopAddress],
    links: &Links,
    addresses: &[InterfaceAddress],
) -> io::Result<probe::Answers> {
    let interfaces: BTreeSet<u32> = hops.iter().map(|(_, interface)| *interface).collect();
    let mut found = probe::Answers::new();
    for interface in interfaces {
        let device = links.name(interface);
        let Some(hardware) = device.and_then(|device| hardware_bytes(links.hardware.get(device)?)) else {
            continue;
        };
        let targets: Vec<IpAddr> =
            hops.iter().filter(|(_, on)| *on == interface).map(|(target, _)| *target).collect();
        let own = addresses.iter().filter(|local| Some(&local.device) == device);
        let mut own = own.filter_map(|local| match local.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let address = own.next();
        found.extend(probe::answers(probe::Asker { interface, hardware, address }, &targets)?);
    }
    Ok(found)
}

/// Reads a MAC address of Ethernet.
fn hardware_bytes(text: &Untrusted) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.as_raw().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Reads the firmware's description of the machine. Unreadable files count as empty.
fn hardware() -> Option<Hardware> {
    let read = |name: &str| -> Untrusted {
        let text = fs::read_to_string(format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
        text.trim().into()
    };
    let hardware = Hardware {
        vendor: read("sys_vendor"),
        product: read("product_name"),
        asset_tag: read("chassis_asset_tag"),
    };
    (hardware != Hardware::default()).then_some(hardware)
}

fn unreadable(what: &str, error: &KernelError) -> Error {
    Error::unexpected(format!("cannot read {what}: {error}")).with_hint_if(error.inconsistent_hint())
}

fn unreadable_nat(error: &NatError) -> Error {
    Error::unexpected(format!("cannot read NAT: {error}")).with_hint_if(error.hint())
}

/// Identifies the current boot and the network namespace of the calling thread.
///
/// # Errors
/// Returns an error if `/proc` cannot be read.
pub fn identity() -> io::Result<Identity> {
    let boot_id = sysctl::value(&File::open("/proc/sys/kernel/random/boot_id")?)?;
    let socket = rtnetlink::sys::Socket::new(rtnetlink::sys::protocols::NETLINK_ROUTE)?;
    let namespace = match ffi::namespace_cookie(socket.as_fd()) {
        Ok(cookie) => format!("net-{cookie:x}"),
        // Before Linux 5.14.
        Err(_) => format!("net-i{}", fs::metadata("/proc/thread-self/ns/net")?.ino()),
    };
    Ok(Identity { boot_id, namespace })
}

/// Ignores `signal` in this process and in every program it starts.
///
/// # Errors
/// Returns `EINVAL` if the signal does not exist or cannot be ignored.
pub fn ignore_signal(signal: i32) -> io::Result<()> {
    ffi::ignore_signal(signal)
}

/// Resets `signal` to its default action.
///
/// # Errors
/// Returns `EINVAL` if the signal does not exist or cannot be handled.
pub fn default_signal(signal: i32) -> io::Result<()> {
    ffi::default_signal(signal)
}

/// Marks every open file descriptor above 2 close-on-exec, so that child processes inherit only the standard ones.
///
/// # Errors
/// Returns an error if `/proc` cannot be read.
pub fn keep_descriptors() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(descriptor) = number.filter(|number| *number > 2) {
            // Another thread may have closed it since.
            let _ = ffi::close_on_exec(descriptor);
        }
    }
    Ok(())
}

/// Returns the kernel's hostname of this machine. `None` if it is not UTF-8.
#[must_use]
pub fn hostname() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{in_namespace, sh},
        *,
    };
    use crate::state::{NextHop, Route, RouteList, RouteScope, RouteType};

    /// More than fit in one step, and in one send.
    const COUNT: u8 = 250;

    fn added(third: u8, fourth: u8, gateway: &str) -> Change {
        let route = Route {
            destination: format!("10.{third}.{fourth}.0/24").parse().expect("a prefix"),
            table: 254,
            tos: None,
            metric: 0,
            protocol: 87,
            scope: RouteScope::Global,
            kind: RouteType::Unicast,
            next_hop: NextHop {
                gateway: Some(gateway.parse().expect("an address")),
                device: Some("eth0".into()),
                onlink: false,
            },
            source: None,
            mtu: None,
            opaque: None,
        };
        Change::Route(RouteChange {
            key: route.key(),
            before: RouteList::default(),
            after: vec![route].into(),
        })
    }

    /// The kernel rejects two of many routes. An apply stops there; an undo adds all others.
    #[test]
    fn an_undo_continues_after_a_rejection() {
        let refused = [(1, 7), (4, 200)];
        let changes: Vec<_> = (0..6)
            .flat_map(|third| (0..COUNT).map(move |fourth| (third, fourth)))
            .map(|(third, fourth)| {
                let gateway = if refused.contains(&(third, fourth)) { "192.0.2.1" } else { "172.30.0.9" };
                added(third, fourth, gateway)
            })
            .collect();
        for (order, routes) in [(Order::Forward, 384 - 1), (Order::Undo, changes.len() - refused.len())] {
            let changes = changes.clone();
            in_namespace(move || {
                sh(
                    "ip link set lo up; ip link add eth0 type veth peer name peer; ip addr add 172.30.0.11/24 dev eth0; \
                    ip link set eth0 up; ip link set peer up",
                );
                let error = LiveNode.commit(&changes, order, &Interrupt::default()).expect_err("refused");
                let CommitError::Refused { object, why, .. } = error else { panic!("{error:?}") };
                assert!(object.starts_with("10.1.7.0/24 via 192.0.2.1"), "{object}");
                assert!(why.contains("ENETUNREACH"), "{why}");
                assert_eq!(sh("ip route show proto 87").lines().count(), routes, "{order:?}");
            });
        }
    }
}

//! Random sequences of events on a node, and the state that must follow after each one. It is derived from the
//! previous state, independently of how hostgw plans and of where the sequence runs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

/// The state of a node by place, as `ip`, `nft` and `sysctl` print it. The place of a route is its destination; the
/// rules of the table are one place.
pub type World = BTreeMap<String, String>;

/// The place of the managed table.
pub const TABLE: &str = "table ip hostgw";
/// The switch that rewrites the [`is_switched`] values.
pub const FORWARD: &str = "net.ipv4.ip_forward";
const RP_FILTER: &str = "net.ipv4.conf.all.rp_filter";

/// The sysctls that drift: the switch, those that it rewrites, and an independent one.
pub const SYSCTLS: [&str; 5] = [
    FORWARD,
    RP_FILTER,
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.eth0.forwarding",
];

/// Returns whether the kernel rewrites a place when forwarding changes.
fn is_switched(place: &str) -> bool {
    place.ends_with(".forwarding") || place.ends_with(".accept_redirects")
}

fn is_managed(line: &str) -> bool {
    line.contains(" proto 87")
}

/// A cluster, described by the numbers of its nodes: node 7 has the pod CIDR 10.244.7.0/24.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub nodes: BTreeSet<u8>,
    pub node_address: bool,
    pub masquerade: bool,
    pub only_pods: bool,
    pub exclude: bool,
    /// Whether nodes have MTUs of their own.
    pub mtus: bool,
    pub rp_filter: Option<u8>,
}

impl Cluster {
    fn any() -> impl Strategy<Value = Self> {
        let nodes = prop::collection::btree_set(0_u8..12, 1..8);
        let flags = any::<[bool; 5]>();
        (nodes, flags, prop::option::of(0_u8..3)).prop_map(|(nodes, flags, rp_filter)| {
            let [node_address, masquerade, only_pods, exclude, mtus] = flags;
            // One of them has to be this node.
            let nodes = if nodes.iter().all(|node| is_windows(*node)) { [0].into() } else { nodes };
            Self { nodes, node_address, masquerade, only_pods, exclude, mtus, rp_filter }
        })
    }

    /// The number of the node that the sequence runs on: the first Linux node.
    pub fn this(&self) -> u8 {
        *self.nodes.iter().find(|node| !is_windows(**node)).expect("a Linux node")
    }

    /// The configuration of the cluster.
    pub fn file(&self) -> String {
        let next_hop = if self.node_address { "node-address" } else { "pod-gateway" };
        let source = if self.only_pods { "pods" } else { "any" };
        let exclude = if self.exclude { "192.168.0.0/16" } else { "" };
        let mut text = format!(
            "clusterPrefix: 10.244.0.0/16\negressInterface: eth0\nnextHop: {next_hop}\n\
             nat: {{masquerade: {}, source: {source}, exclude: [{exclude}]}}\n",
            self.masquerade
        );
        if let Some(value) = self.rp_filter {
            text += &format!("sysctls: {{{RP_FILTER}: {value}}}\n");
        }
        text += "nodes:\n";
        for &node in &self.nodes {
            let os = if is_windows(node) { "windows, egressInterface: Ethernet" } else { "linux" };
            let mtu = self.mtu(node).map_or_else(String::new, |mtu| format!(", mtu: {mtu}"));
            text += &format!(
                "  - {{name: n{node}, os: {os}, podCIDR: 10.244.{node}.0/24, address: 172.30.0.{}{mtu}}}\n",
                node + 1
            );
        }
        text
    }

    /// The MTU of a node, if it has its own.
    fn mtu(&self, node: u8) -> Option<u16> {
        [None, Some(1300), Some(1400)][usize::from(node % 3)].filter(|_| self.mtus)
    }

    /// The managed routes on this node.
    fn routes(&self) -> World {
        // Packets fit both ends.
        let mtu = |ends: [Option<u16>; 2]| {
            ends.into_iter().flatten().min().map_or_else(String::new, |mtu| format!(" mtu {mtu}"))
        };
        let own = self.mtu(self.this());
        let foreign = self.nodes.iter().filter(|node| **node != self.this()).map(|&node| {
            let gateway = match (self.node_address, is_windows(node)) {
                (true, _) => format!("172.30.0.{}", node + 1),
                (false, false) => format!("10.244.{node}.1"),
                (false, true) => format!("10.244.{node}.2"),
            };
            let destination = format!("10.244.{node}.0/24");
            let mtu = mtu([own, self.mtu(node)]);
            (destination.clone(), format!("{destination} via {gateway} dev eth0 proto 87{mtu}"))
        });
        let on_link = format!("10.244.0.0/16 dev eth0 proto 87 scope link{}", mtu([own, None]));
        let on_link = ("10.244.0.0/16".to_owned(), on_link);
        foreign.chain((!self.node_address).then_some(on_link)).collect()
    }

    /// The rules of the managed table on this node.
    fn rules(&self) -> Option<String> {
        let own = format!("ip saddr 10.244.{}.0/24 ", self.this());
        let exclude = "ip daddr 192.168.0.0/16 return comment \"hostgw: nat.exclude\"\n";
        self.masquerade.then(|| {
            format!(
                "{}{}ip daddr != 10.244.0.0/16 fib daddr type != local counter masquerade comment \
                 \"hostgw: traffic that leaves the cluster\"",
                if self.exclude { exclude } else { "" },
                if self.only_pods { &own } else { "" },
            )
        })
    }
}

const fn is_windows(node: u8) -> bool {
    node % 5 == 4
}

/// A foreign change of the node. Routes are identified by the third number of their destination.
#[derive(Debug, Clone, Copy)]
pub enum Drift {
    /// A foreign route replaces whatever route has its key.
    TakeRoute(u8),
    /// A route with hostgw's mark that hostgw did not create replaces whatever route has its key.
    StrayRoute(u8),
    DropRoute(u8),
    /// One of [`SYSCTLS`] is written.
    Sysctl(usize, u8),
    DropTable,
    /// A rule is added to the managed chain, if it exists.
    AddRule,
}

impl Drift {
    /// The rule of [`Drift::AddRule`].
    pub const RULE: &str = "ip daddr 10.9.0.0/16 return";

    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            4 => (0_u8..12).prop_map(Self::TakeRoute),
            2 => (0_u8..12).prop_map(Self::StrayRoute),
            3 => (0_u8..12).prop_map(Self::DropRoute),
            3 => (0..SYSCTLS.len(), 0_u8..2).prop_map(|(key, value)| Self::Sysctl(key, value)),
            1 => Just(Self::DropTable),
            1 => Just(Self::AddRule),
        ]
    }
}

#[derive(Debug, Clone)]
pub enum Command {
    Apply(Cluster),
    Destroy,
    Rollback,
}

/// A fault of a command, at a point 0 to 99 percent of the way through.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Fail(u8),
    FailFrom(u8),
    Kill(u8),
}

#[derive(Debug, Clone)]
pub enum Step {
    Run(Command, Option<Fault>),
    Drift(Drift),
}

/// Sequences of at most `max_steps` steps.
pub fn sequences(max_steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        4 => Cluster::any().prop_map(Command::Apply),
        1 => Just(Command::Destroy),
        3 => Just(Command::Rollback),
    ];
    let fault = prop_oneof![
        3 => Just(None),
        1 => (0_u8..100).prop_map(|at| Some(Fault::Fail(at))),
        1 => (0_u8..100).prop_map(|at| Some(Fault::FailFrom(at))),
        1 => (0_u8..100).prop_map(|at| Some(Fault::Kill(at))),
    ];
    let step = prop_oneof![
        2 => (command, fault).prop_map(|(command, fault)| Step::Run(command, fault)),
        1 => Drift::any().prop_map(Step::Drift),
    ];
    prop::collection::vec(step, 1..=max_steps)
}

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Done,
    NothingToDo,
    /// A conflict.
    Refused,
    /// An error; this command changed nothing.
    Untouched,
    RolledBack,
    Incomplete,
    Killed,
}

/// A node that a sequence can run on.
pub trait Place {
    /// Reads the live state.
    fn observe_state(&mut self) -> World;
    /// Runs hostgw.
    fn run(&mut self, command: &Command, fault: Option<Fault>) -> End;
    fn drift(&mut self, drift: Drift);
    /// Identifies the open transaction, if there is one.
    fn journal(&self) -> Option<String>;
    /// The number of committed transactions.
    fn committed(&self) -> usize;
}

/// Runs a sequence and verifies every step. Returns the results of its commands.
pub fn follow(place: &mut impl Place, steps: &[Step]) -> BTreeSet<End> {
    let mut oracle = Oracle::default();
    let mut ends = BTreeSet::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Drift(drift) => place.drift(*drift),
            Step::Run(command, fault) => {
                let context = format!("step {number} of {steps:#?}");
                let observed = Observed::of(place, command, *fault);
                ends.insert(observed.end);
                match command {
                    Command::Rollback => oracle.rollback(&observed, *fault, &context),
                    _ => oracle.change(command, &observed, *fault, &context),
                }
                assert_eq!(
                    oracle.committed.len(),
                    observed.committed,
                    "on record, {:?}: {context}",
                    observed.end
                );
                assert_eq!(
                    oracle.open.is_some(),
                    observed.journal.is_some(),
                    "open, {:?}: {context}",
                    observed.end
                );
                // Not every time: the check must not be what repairs the records.
                let is_settled = matches!(observed.end, End::Done | End::NothingToDo) && number % 2 == 0;
                if is_settled && !matches!(command, Command::Rollback) {
                    assert_eq!(place.run(command, None), End::NothingToDo, "again: {context}");
                    assert_eq!(place.observe_state(), observed.now, "again: {context}");
                }
            }
        }
    }
    ends
}

/// A command, and its observed effects.
struct Observed {
    was: World,
    journal_was: Option<String>,
    end: End,
    now: World,
    journal: Option<String>,
    committed: usize,
}

impl Observed {
    fn of(place: &mut impl Place, command: &Command, fault: Option<Fault>) -> Self {
        let (was, journal_was) = (place.observe_state(), place.journal());
        let end = place.run(command, fault);
        let (now, journal, committed) = (place.observe_state(), place.journal(), place.committed());
        Self { was, journal_was, end, now, journal, committed }
    }
}

/// The value that the kernel gives a switched place when forwarding changes to `position`.
fn switched_to(place: &str, position: &str) -> &'static str {
    if (position == "0") == place.ends_with(".accept_redirects") { "1" } else { "0" }
}

/// The value of a sysctl from before hostgw, and the one that hostgw left.
#[derive(Debug, Clone)]
struct SavedValue {
    original: String,
    last: String,
}

/// A transaction that can be undone.
#[derive(Debug)]
struct Transaction {
    before: World,
    after: World,
    touched: BTreeSet<String>,
    /// The original values that were saved before it.
    saved: BTreeMap<String, SavedValue>,
    /// Whether it completed, and its undo has not begun.
    is_complete: bool,
    /// The sysctls that its undo found to be foreign.
    foreign: World,
}

impl Transaction {
    /// The places of a transaction that leads from `before` to `after`.
    fn new(before: &World, after: &World, saved: &BTreeMap<String, SavedValue>, is_complete: bool) -> Self {
        let is_switched_on = before.get(FORWARD) != after.get(FORWARD);
        let touched = before.keys().chain(after.keys()).filter(|place| {
            before.get(*place) != after.get(*place) || (is_switched_on && is_switched(place))
        });
        Self {
            touched: touched.cloned().collect(),
            before: before.clone(),
            after: after.clone(),
            saved: saved.clone(),
            is_complete,
            foreign: World::new(),
        }
    }

    /// Returns whether a foreign route or value is in a place that must be restored.
    fn conflicts(&self, place: &str, now: &World) -> bool {
        let (before, after) = (self.before.get(place), self.after.get(place));
        let Some(line) = now.get(place).filter(|line| before != Some(line) && place != TABLE) else {
            return false;
        };
        if !place.starts_with("net.") {
            return !is_managed(line);
        }
        self.foreign.get(place) == Some(line) || (after != Some(line) && !self.is_between(place, line, now))
    }

    /// Returns whether the kernel set `value` with the switch, and the following write is missing.
    fn is_between(&self, place: &str, value: &str, now: &World) -> bool {
        let position = &now[FORWARD];
        let is_back = *position == self.before[FORWARD];
        let may_be = if self.is_complete { is_back } else { is_back || *position == self.after[FORWARD] };
        let is_flipped = self.before[FORWARD] != self.after[FORWARD];
        may_be && is_flipped && is_switched(place) && switched_to(place, position) == value
    }

    fn is_blocked(&self, now: &World) -> bool {
        self.touched.iter().any(|place| self.before.contains_key(place) && self.conflicts(place, now))
    }

    /// The result of its undo in the state `now`: its places are restored, all others unchanged.
    fn undone(&self, now: &World) -> World {
        let mut undone = now.clone();
        for place in self.touched.iter().filter(|place| !self.conflicts(place, now)) {
            match self.before.get(place) {
                Some(line) => drop(undone.insert(place.clone(), line.clone())),
                None => drop(undone.remove(place)),
            }
        }
        undone
    }

    /// The result of an automatic undo in the state `now`: a table with a foreign rule stays.
    fn undone_automatically(&self, now: &World) -> World {
        let mut undone = self.undone(now);
        let known: Vec<&str> = [&self.before, &self.after]
            .into_iter()
            .filter_map(|world| world.get(TABLE))
            .flat_map(|rules| rules.lines())
            .collect();
        let rules = now.get(TABLE).filter(|rules| rules.lines().any(|rule| !known.contains(&rule)));
        if let Some(rules) = rules.filter(|_| self.touched.contains(TABLE)) {
            undone.insert(TABLE.to_owned(), rules.clone());
        }
        undone
    }

    /// Records that its undo began in the state `now`.
    fn begin_undo(&mut self, now: &World) {
        let foreign: World = now
            .iter()
            .filter(|(place, _)| place.starts_with("net.") && self.touched.contains(*place))
            .filter(|(place, _)| self.conflicts(place, now))
            .map(|(place, value)| (place.clone(), value.clone()))
            .collect();
        self.foreign.extend(foreign);
        self.is_complete = false;
    }
}

/// The expectations, derived from the history.
#[derive(Default)]
struct Oracle {
    committed: Vec<Transaction>,
    open: Option<Transaction>,
    /// The original values of the sysctls that hostgw changed.
    saved: BTreeMap<String, SavedValue>,
}

impl Oracle {
    fn change(&mut self, command: &Command, observed: &Observed, fault: Option<Fault>, context: &str) {
        let Observed { was, end, now, .. } = observed;
        // An open transaction is undone first.
        let base = self.open.as_ref().map_or_else(|| was.clone(), |open| open.undone_automatically(was));
        if self.open.is_some() && observed.journal.is_some() && observed.journal == observed.journal_was {
            assert!(fault.is_some(), "{end:?}: {context}");
            assert!([End::Untouched, End::Incomplete, End::Killed].contains(end), "{end:?}: {context}");
            if let Some(open) = &mut self.open {
                open.begin_undo(was);
            }
            return assert_between(now, was, &base, context);
        }
        if let Some(mut undone) = self.open.take() {
            undone.begin_undo(was);
            self.saved = undone.saved;
            // Foreign values are not restored.
            self.saved.retain(|place, _| {
                !undone.foreign.contains_key(place) || base[place] != undone.foreign[place]
            });
        }
        let expected = self.expected(command, &base);
        let is_committed = observed.committed > self.committed.len();
        match end {
            End::Done | End::NothingToDo => {
                assert_eq!(Some(now), expected.as_ref(), "{context}");
                self.complete(command, &base, now, *end == End::Done);
            }
            End::Killed if is_committed => {
                assert_eq!(Some(now), expected.as_ref(), "{context}");
                self.complete(command, &base, now, true);
            }
            End::Incomplete | End::Killed if observed.journal.is_some() => {
                let expected = expected.unwrap_or_else(|| panic!("a conflict was written: {context}"));
                assert_between(now, &base, &expected, context);
                self.open = Some(Transaction::new(&base, &expected, &self.saved, false));
            }
            End::Refused => {
                assert_eq!(expected, None, "{context}");
                assert_eq!(*now, base, "{context}");
            }
            End::Untouched | End::RolledBack | End::Killed => {
                assert!(fault.is_some(), "{end:?}: {context}");
                assert_eq!(*now, base, "{end:?}: {context}");
            }
            End::Incomplete => panic!("incomplete, and nothing is open: {context}"),
        }
    }

    /// The saved sysctls that another program has written since.
    fn foreign<'a>(&'a self, base: &'a World) -> impl Iterator<Item = &'a String> {
        // When forwarding is changed manually, the kernel reverts the values that it switched.
        let is_back = |saved: &BTreeMap<String, SavedValue>| {
            saved
                .get(FORWARD)
                .is_some_and(|saved| saved.last != saved.original && base[FORWARD] == saved.original)
        };
        let is_back = is_back(&self.saved);
        self.saved.iter().filter_map(move |(place, saved)| {
            let value = &base[place];
            let is_between = is_back && is_switched(place) && switched_to(place, &base[FORWARD]) == value;
            (*value != saved.original && *value != saved.last && !is_between).then_some(place)
        })
    }

    /// The expected state; `None` if a foreign route or value conflicts.
    fn expected(&self, command: &Command, base: &World) -> Option<World> {
        let mut expected: World = base.clone();
        expected.retain(|place, line| place != TABLE && !is_managed(line));
        let Command::Apply(cluster) = command else {
            expected.extend(self.saved.iter().map(|(place, saved)| (place.clone(), saved.original.clone())));
            return self.foreign(base).next().is_none().then_some(expected);
        };
        for (destination, route) in cluster.routes() {
            if expected.insert(destination, route).is_some() {
                return None;
            }
        }
        expected.extend(cluster.rules().map(|rules| (TABLE.to_owned(), rules)));
        if base[FORWARD] != "1" {
            for (place, value) in &mut expected {
                match place.as_str() {
                    place if place.ends_with(".accept_redirects") => "0".clone_into(value),
                    place if place == FORWARD || is_switched(place) => "1".clone_into(value),
                    _ => {}
                }
            }
        }
        let filter = cluster.rp_filter.map(|value| value.to_string());
        let is_left = self.foreign(base).any(|place| place == RP_FILTER);
        let saved = self.saved.get(RP_FILTER).filter(|_| !is_left).map(|saved| saved.original.clone());
        let filter = filter.or(saved);
        expected.extend(filter.map(|value| (RP_FILTER.to_owned(), value)));
        Some(expected)
    }

    /// Records a command that completed.
    fn complete(&mut self, command: &Command, base: &World, now: &World, is_recorded: bool) {
        let transaction = Transaction::new(base, now, &self.saved, true);
        for place in transaction.touched.iter().filter(|place| place.starts_with("net.")) {
            let (original, last) = (base[place].clone(), now[place].clone());
            let saved =
                self.saved.entry(place.clone()).or_insert(SavedValue { original, last: String::new() });
            saved.last = last;
        }
        match command {
            Command::Apply(Cluster { rp_filter: None, .. }) => drop(self.saved.remove(RP_FILTER)),
            Command::Destroy => self.saved.clear(),
            _ => {}
        }
        if is_recorded {
            self.committed.push(transaction);
        }
    }

    fn rollback(&mut self, observed: &Observed, fault: Option<Fault>, context: &str) {
        let Observed { was, end, now, .. } = observed;
        let was_open = self.open.is_some();
        let committed = self.committed.len();
        let Some(mut transaction) = self.open.take().or_else(|| self.committed.pop()) else {
            assert!(*end == End::NothingToDo || fault.is_some(), "{end:?}: {context}");
            return assert_eq!(now, was, "{context}");
        };
        let (undone, is_blocked) = (transaction.undone(was), transaction.is_blocked(was));
        let is_open = observed.journal.is_some();
        let is_finished = !is_open && (was_open || observed.committed < committed);
        match end {
            End::Done => assert!(is_finished && !is_blocked, "{context}"),
            End::Refused => assert!(is_blocked && !was_open, "{context}"),
            End::Incomplete => assert!(is_open && (is_blocked || fault.is_some()), "{context}"),
            End::Untouched | End::Killed => assert!(fault.is_some(), "{end:?}: {context}"),
            End::NothingToDo | End::RolledBack => panic!("{end:?}: {context}"),
        }
        if is_finished {
            assert_eq!(*now, undone, "{end:?}: {context}");
            self.saved = transaction.saved;
        } else if is_open {
            match fault {
                None => assert_eq!(*now, undone, "as far as it can be: {context}"),
                Some(_) => assert_between(now, was, &undone, context),
            }
            transaction.begin_undo(was);
            self.open = Some(transaction);
        } else {
            assert_eq!(now, was, "{end:?}: {context}");
            self.committed.push(transaction);
        }
    }
}

/// Asserts that every place is as in one state or the other. Values that are switched together may be in between.
#[track_caller]
fn assert_between(now: &World, one: &World, other: &World, context: &str) {
    for place in now.keys().chain(one.keys()).chain(other.keys()) {
        let is_one_of_both = now.get(place) == one.get(place) || now.get(place) == other.get(place);
        assert!(is_switched(place) || is_one_of_both, "{place}: {:?}: {context}", now.get(place));
    }
}

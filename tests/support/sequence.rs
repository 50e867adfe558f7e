//! Random sequences of what happens to a node, and what must stand after each step, told from what stood
//! before it: independent of how hostgw plans, and of where the sequence runs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

/// What stands on a node, place by place, in the words of `ip`, `nft` and `sysctl`. The place of a route is its
/// destination; the table's rules are one place.
pub type World = BTreeMap<String, String>;

/// The place of hostgw's table.
pub const TABLE: &str = "table ip hostgw";
/// The switch that rewrites [`is_switched`] values.
pub const FORWARD: &str = "net.ipv4.ip_forward";
const RP_FILTER: &str = "net.ipv4.conf.all.rp_filter";

/// The sysctls that drift: the switch, what it rewrites, and one of its own.
pub const SYSCTLS: [&str; 5] = [
    FORWARD,
    RP_FILTER,
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.eth0.forwarding",
];

/// Whether the kernel rewrites a place when forwarding is switched.
fn is_switched(place: &str) -> bool {
    place.ends_with(".forwarding") || place.ends_with(".accept_redirects")
}

fn is_own(line: &str) -> bool {
    line.contains(" proto 87")
}

/// A cluster, by what its nodes are: node number 7 has the pod CIDR 10.244.7.0/24.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub nodes: BTreeSet<u8>,
    pub node_address: bool,
    pub masquerade: bool,
    pub only_pods: bool,
    pub exclude: bool,
    pub rp_filter: Option<u8>,
}

impl Cluster {
    fn any() -> impl Strategy<Value = Self> {
        let nodes = prop::collection::btree_set(0_u8..12, 1..8);
        let flags = any::<[bool; 4]>();
        (nodes, flags, prop::option::of(0_u8..3)).prop_map(|(nodes, flags, rp_filter)| {
            let [node_address, masquerade, only_pods, exclude] = flags;
            // Somebody has to be this node.
            let nodes = if nodes.iter().all(|node| is_windows(*node)) { [0].into() } else { nodes };
            Self { nodes, node_address, masquerade, only_pods, exclude, rp_filter }
        })
    }

    /// The number of the node that the sequence happens to: the first Linux node.
    pub fn this(&self) -> u8 {
        *self.nodes.iter().find(|node| !is_windows(**node)).expect("a Linux node")
    }

    /// The cluster as a file describes it.
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
            text += &format!(
                "  - {{name: n{node}, os: {os}, podCIDR: 10.244.{node}.0/24, address: 172.30.0.{}}}\n",
                node + 1
            );
        }
        text
    }

    /// hostgw's routes on this node.
    fn routes(&self) -> World {
        let others = self.nodes.iter().filter(|node| **node != self.this()).map(|&node| {
            let gateway = match (self.node_address, is_windows(node)) {
                (true, _) => format!("172.30.0.{}", node + 1),
                (false, false) => format!("10.244.{node}.1"),
                (false, true) => format!("10.244.{node}.2"),
            };
            let destination = format!("10.244.{node}.0/24");
            (destination.clone(), format!("{destination} via {gateway} dev eth0 proto 87"))
        });
        let on_link = ("10.244.0.0/16".to_owned(), "10.244.0.0/16 dev eth0 proto 87 scope link".to_owned());
        others.chain((!self.node_address).then_some(on_link)).collect()
    }

    /// The rules of hostgw's table on this node.
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

/// What somebody else does to the node. Routes are told by the third number of their destination.
#[derive(Debug, Clone, Copy)]
pub enum Drift {
    /// Another program's route takes the place of whatever stands there.
    TakeRoute(u8),
    /// A route with hostgw's mark, which it did not make, takes the place of whatever stands there.
    StrayRoute(u8),
    DropRoute(u8),
    /// One of [`SYSCTLS`] is written.
    Sysctl(usize, u8),
    DropTable,
    /// A rule is added to hostgw's chain, where there is one.
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

/// What goes wrong in a command, at a place between 0 and 99 of its way.
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

/// Sequences of at most `most` steps.
pub fn sequences(most: usize) -> impl Strategy<Value = Vec<Step>> {
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
    prop::collection::vec(step, 1..=most)
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Done,
    NothingToDo,
    /// A conflict.
    Refused,
    /// An error; nothing was changed by this command.
    Untouched,
    RolledBack,
    Incomplete,
    Killed,
}

/// A node that a sequence can happen to.
pub trait Place {
    /// What stands.
    fn look(&mut self) -> World;
    /// Runs hostgw.
    fn run(&mut self, command: &Command, fault: Option<Fault>) -> End;
    fn drift(&mut self, drift: Drift);
    /// Tells one open transaction from another; none when none is open.
    fn journal(&self) -> Option<String>;
    /// How many transactions are on record as committed.
    fn committed(&self) -> usize;
}

/// Lets a sequence happen, and judges every step. Gives the ways in which its commands ended.
pub fn follow(place: &mut impl Place, steps: &[Step]) -> BTreeSet<End> {
    let mut judge = Judge::default();
    let mut ends = BTreeSet::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Drift(drift) => place.drift(*drift),
            Step::Run(command, fault) => {
                let context = format!("step {number} of {steps:#?}");
                let seen = Seen::of(place, command, *fault);
                ends.insert(seen.end);
                match command {
                    Command::Rollback => judge.rollback(&seen, *fault, &context),
                    _ => judge.change(command, &seen, *fault, &context),
                }
                assert_eq!(judge.committed.len(), seen.committed, "on record, {:?}: {context}", seen.end);
                assert_eq!(judge.open.is_some(), seen.journal.is_some(), "open, {:?}: {context}", seen.end);
                // Not each time: it must not be what puts the records in order.
                let is_settled = matches!(seen.end, End::Done | End::NothingToDo) && number % 2 == 0;
                if is_settled && !matches!(command, Command::Rollback) {
                    assert_eq!(place.run(command, None), End::NothingToDo, "again: {context}");
                    assert_eq!(place.look(), seen.now, "again: {context}");
                }
            }
        }
    }
    ends
}

/// A command, and what was seen of it.
struct Seen {
    was: World,
    journal_was: Option<String>,
    end: End,
    now: World,
    journal: Option<String>,
    committed: usize,
}

impl Seen {
    fn of(place: &mut impl Place, command: &Command, fault: Option<Fault>) -> Self {
        let (was, journal_was) = (place.look(), place.journal());
        let end = place.run(command, fault);
        let (now, journal, committed) = (place.look(), place.journal(), place.committed());
        Self { was, journal_was, end, now, journal, committed }
    }
}

/// What the kernel makes of a switched place when forwarding takes `position`.
fn switched_to(place: &str, position: &str) -> &'static str {
    if (position == "0") == place.ends_with(".accept_redirects") { "1" } else { "0" }
}

/// The value that a sysctl had before hostgw, and the one that hostgw left.
#[derive(Debug, Clone)]
struct Owed {
    original: String,
    last: String,
}

/// A transaction, as far as it can be undone.
#[derive(Debug)]
struct Transaction {
    before: World,
    after: World,
    touched: BTreeSet<String>,
    /// What hostgw owed before it.
    owed: BTreeMap<String, Owed>,
    /// Whether it came to its end, and its undo has not begun.
    is_whole: bool,
    /// The sysctls that its undo found to be somebody else's.
    foreign: World,
}

impl Transaction {
    /// What stands in the places of a transaction that leads from `before` to `after`.
    fn new(before: &World, after: &World, owed: &BTreeMap<String, Owed>, is_whole: bool) -> Self {
        let is_switched_on = before.get(FORWARD) != after.get(FORWARD);
        let touched = before.keys().chain(after.keys()).filter(|place| {
            before.get(*place) != after.get(*place) || (is_switched_on && is_switched(place))
        });
        Self {
            touched: touched.cloned().collect(),
            before: before.clone(),
            after: after.clone(),
            owed: owed.clone(),
            is_whole,
            foreign: World::new(),
        }
    }

    /// Whether somebody else's route or value stands where one has to be put back.
    fn is_in_the_way(&self, place: &str, now: &World) -> bool {
        let (before, after) = (self.before.get(place), self.after.get(place));
        let Some(line) = now.get(place).filter(|line| before != Some(line) && place != TABLE) else {
            return false;
        };
        if !place.starts_with("net.") {
            return !is_own(line);
        }
        self.foreign.get(place) == Some(line) || (after != Some(line) && !self.is_between(place, line, now))
    }

    /// Whether the kernel made `value` with the switch, and the step after that is missing.
    fn is_between(&self, place: &str, value: &str, now: &World) -> bool {
        let position = &now[FORWARD];
        let is_back = *position == self.before[FORWARD];
        let may_be = if self.is_whole { is_back } else { is_back || *position == self.after[FORWARD] };
        let is_flipped = self.before[FORWARD] != self.after[FORWARD];
        may_be && is_flipped && is_switched(place) && switched_to(place, position) == value
    }

    fn is_blocked(&self, now: &World) -> bool {
        self.touched.iter().any(|place| self.before.contains_key(place) && self.is_in_the_way(place, now))
    }

    /// What its undo makes of `now`: its places as they were, all others as they are.
    fn undone(&self, now: &World) -> World {
        let mut undone = now.clone();
        for place in self.touched.iter().filter(|place| !self.is_in_the_way(place, now)) {
            match self.before.get(place) {
                Some(line) => drop(undone.insert(place.clone(), line.clone())),
                None => drop(undone.remove(place)),
            }
        }
        undone
    }

    /// What its undo makes of `now` where nobody is shown it first: a table that holds somebody else's rule stays.
    fn undone_unseen(&self, now: &World) -> World {
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

    /// Takes note that its undo was begun where `now` stood.
    fn begin_undo(&mut self, now: &World) {
        let foreign: World = now
            .iter()
            .filter(|(place, _)| place.starts_with("net.") && self.touched.contains(*place))
            .filter(|(place, _)| self.is_in_the_way(place, now))
            .map(|(place, value)| (place.clone(), value.clone()))
            .collect();
        self.foreign.extend(foreign);
        self.is_whole = false;
    }
}

/// What is known of the past.
#[derive(Default)]
struct Judge {
    committed: Vec<Transaction>,
    open: Option<Transaction>,
    /// What hostgw owes of the sysctls that it changed.
    owed: BTreeMap<String, Owed>,
}

impl Judge {
    fn change(&mut self, command: &Command, seen: &Seen, fault: Option<Fault>, context: &str) {
        let Seen { was, end, now, .. } = seen;
        // What was left open is undone first.
        let base = self.open.as_ref().map_or_else(|| was.clone(), |open| open.undone_unseen(was));
        if self.open.is_some() && seen.journal.is_some() && seen.journal == seen.journal_was {
            assert!(fault.is_some(), "{end:?}: {context}");
            assert!([End::Untouched, End::Incomplete, End::Killed].contains(end), "{end:?}: {context}");
            if let Some(open) = &mut self.open {
                open.begin_undo(was);
            }
            return assert_between(now, was, &base, context);
        }
        if let Some(mut undone) = self.open.take() {
            undone.begin_undo(was);
            self.owed = undone.owed;
            // What somebody else has changed is theirs.
            self.owed.retain(|place, _| {
                !undone.foreign.contains_key(place) || base[place] != undone.foreign[place]
            });
        }
        let wanted = self.wanted(command, &base);
        let is_committed = seen.committed > self.committed.len();
        match end {
            End::Done | End::NothingToDo => {
                assert_eq!(Some(now), wanted.as_ref(), "{context}");
                self.settle(command, &base, now, *end == End::Done);
            }
            End::Killed if is_committed => {
                assert_eq!(Some(now), wanted.as_ref(), "{context}");
                self.settle(command, &base, now, true);
            }
            End::Incomplete | End::Killed if seen.journal.is_some() => {
                let wanted = wanted.unwrap_or_else(|| panic!("a conflict was written: {context}"));
                assert_between(now, &base, &wanted, context);
                self.open = Some(Transaction::new(&base, &wanted, &self.owed, false));
            }
            End::Refused => {
                assert_eq!(wanted, None, "{context}");
                assert_eq!(*now, base, "{context}");
            }
            End::Untouched | End::RolledBack | End::Killed => {
                assert!(fault.is_some(), "{end:?}: {context}");
                assert_eq!(*now, base, "{end:?}: {context}");
            }
            End::Incomplete => panic!("incomplete, and nothing is open: {context}"),
        }
    }

    /// The owed sysctls that somebody else has written since.
    fn foreign<'a>(&'a self, base: &'a World) -> impl Iterator<Item = &'a String> {
        // Forwarding by hand goes back by the kernel's own doing.
        let is_back = |owed: &BTreeMap<String, Owed>| {
            owed.get(FORWARD).is_some_and(|owed| owed.last != owed.original && base[FORWARD] == owed.original)
        };
        let is_back = is_back(&self.owed);
        self.owed.iter().filter_map(move |(place, owed)| {
            let value = &base[place];
            let is_between = is_back && is_switched(place) && switched_to(place, &base[FORWARD]) == value;
            (*value != owed.original && *value != owed.last && !is_between).then_some(place)
        })
    }

    /// What shall stand; none when somebody else's route or value is in the way.
    fn wanted(&self, command: &Command, base: &World) -> Option<World> {
        let mut wanted: World = base.clone();
        wanted.retain(|place, line| place != TABLE && !is_own(line));
        let Command::Apply(cluster) = command else {
            wanted.extend(self.owed.iter().map(|(place, owed)| (place.clone(), owed.original.clone())));
            return self.foreign(base).next().is_none().then_some(wanted);
        };
        for (destination, route) in cluster.routes() {
            if wanted.insert(destination, route).is_some() {
                return None;
            }
        }
        wanted.extend(cluster.rules().map(|rules| (TABLE.to_owned(), rules)));
        if base[FORWARD] != "1" {
            for (place, value) in &mut wanted {
                match place.as_str() {
                    place if place.ends_with(".accept_redirects") => "0".clone_into(value),
                    place if place == FORWARD || is_switched(place) => "1".clone_into(value),
                    _ => {}
                }
            }
        }
        let filter = cluster.rp_filter.map(|value| value.to_string());
        let is_left = self.foreign(base).any(|place| place == RP_FILTER);
        let owed = self.owed.get(RP_FILTER).filter(|_| !is_left).map(|owed| owed.original.clone());
        let filter = filter.or(owed);
        wanted.extend(filter.map(|value| (RP_FILTER.to_owned(), value)));
        Some(wanted)
    }

    /// Takes note of a command that came to its end.
    fn settle(&mut self, command: &Command, base: &World, now: &World, is_on_record: bool) {
        let transaction = Transaction::new(base, now, &self.owed, true);
        for place in transaction.touched.iter().filter(|place| place.starts_with("net.")) {
            let (original, last) = (base[place].clone(), now[place].clone());
            let owed = self.owed.entry(place.clone()).or_insert(Owed { original, last: String::new() });
            owed.last = last;
        }
        match command {
            Command::Apply(Cluster { rp_filter: None, .. }) => drop(self.owed.remove(RP_FILTER)),
            Command::Destroy => self.owed.clear(),
            _ => {}
        }
        if is_on_record {
            self.committed.push(transaction);
        }
    }

    fn rollback(&mut self, seen: &Seen, fault: Option<Fault>, context: &str) {
        let Seen { was, end, now, .. } = seen;
        let was_open = self.open.is_some();
        let committed = self.committed.len();
        let Some(mut transaction) = self.open.take().or_else(|| self.committed.pop()) else {
            assert!(*end == End::NothingToDo || fault.is_some(), "{end:?}: {context}");
            return assert_eq!(now, was, "{context}");
        };
        let (undone, is_blocked) = (transaction.undone(was), transaction.is_blocked(was));
        let is_open = seen.journal.is_some();
        let is_finished = !is_open && (was_open || seen.committed < committed);
        match end {
            End::Done => assert!(is_finished && !is_blocked, "{context}"),
            End::Refused => assert!(is_blocked && !was_open, "{context}"),
            End::Incomplete => assert!(is_open && (is_blocked || fault.is_some()), "{context}"),
            End::Untouched | End::Killed => assert!(fault.is_some(), "{end:?}: {context}"),
            End::NothingToDo | End::RolledBack => panic!("{end:?}: {context}"),
        }
        if is_finished {
            assert_eq!(*now, undone, "{end:?}: {context}");
            self.owed = transaction.owed;
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

/// That every place is as in one world or as in the other. Values that are switched together pass through
/// others on the way.
#[track_caller]
fn assert_between(now: &World, one: &World, other: &World, context: &str) {
    for place in now.keys().chain(one.keys()).chain(other.keys()) {
        let is_one_of_both = now.get(place) == one.get(place) || now.get(place) == other.get(place);
        assert!(is_switched(place) || is_one_of_both, "{place}: {:?}: {context}", now.get(place));
    }
}

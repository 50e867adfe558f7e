//! Random sequences of apply, drift, crash, rollback and destroy, as in `tests/sequences.rs`, on a real node.

use std::{collections::BTreeSet, thread, time::UNIX_EPOCH};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, TestRunner},
};

use super::node;
use crate::support::{
    namespace::{Namespace, Privilege, each, without_counters},
    random::{random, requested_seed},
    sequence::{Command, Drift, End, Fault, Place, SYSCTLS, TABLE, World, follow, sequences},
};

/// A node in a namespace, observed through `ip`, `nft` and the files of `/proc/sys`.
struct Real(Namespace);

impl Real {
    fn new(privilege: Privilege) -> Self {
        let node = node(privilege);
        // The address belongs to no node of the cluster, so no pod CIDR is this node's own.
        node.sh("ip address del 172.30.0.11/24 dev eth0; ip address add 172.30.0.200/24 dev eth0");
        Self(node)
    }

    /// Translates a fault of a sequence into one of the program, at a point around its writes.
    fn fault(fault: Fault) -> String {
        let (kind, at) = match fault {
            Fault::Fail(at) => ("fail", at),
            Fault::FailFrom(at) => ("fail-from", at),
            Fault::Kill(at) => ("kill", at),
        };
        format!("{kind}:{}", 5 + u32::from(at))
    }
}

impl Place for Real {
    fn observe_state(&mut self) -> World {
        let seen = self.0.look("ip route show; nft -s list table ip hostgw 2>/dev/null || true");
        let sysctls = SYSCTLS.map(|key| (key.to_owned(), self.0.sysctl(key)));
        let mut world = World::from(sysctls);
        for line in without_counters(&seen).lines().map(str::trim_end) {
            if line == "table ip hostgw {" {
                world.insert(TABLE.to_owned(), String::new());
            } else if let Some(rule) = line.strip_prefix("\t\t").filter(|line| !line.starts_with("type ")) {
                let rules = world.get_mut(TABLE).expect("a rule in the table");
                if !rules.is_empty() {
                    rules.push('\n');
                }
                rules.push_str(rule);
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let destination = line.split(' ').next().unwrap_or_default();
                assert_eq!(world.insert(destination.to_owned(), line.to_owned()), None, "{seen}");
            }
        }
        world
    }

    fn run(&mut self, command: &Command, fault: Option<Fault>) -> End {
        let node = match command {
            Command::Apply(cluster) => {
                self.0.write("hostgw.yaml", &cluster.file());
                format!("n{}", cluster.this())
            }
            _ => String::new(),
        };
        let arguments: &[&str] = match command {
            Command::Apply(_) => &["apply", "--yes", "--node", &node],
            Command::Destroy => &["destroy", "--yes"],
            Command::Rollback => &["rollback", "--yes"],
        };
        let fault = fault.map(Self::fault);
        let variables: Vec<_> = fault.iter().map(|fault| ("HOSTGW_FAULT", fault.as_str())).collect();
        let run = |arguments: &[&str]| self.0.hostgw_with(arguments, &variables);
        let mut outcome = run(arguments);
        // Mass removals are always allowed, because they are not the subject here.
        if let Some((_, hint)) = outcome.stderr.clone().rsplit_once("--allow-removals ") {
            let number = hint.trim_end().trim_end_matches('`');
            outcome = run(&[arguments, &["--allow-removals", number]].concat());
        }
        // A rollback of changes that were undone manually changes nothing, but still ends the transaction.
        let nothing = match command {
            Command::Rollback => "Nothing to do: there is no apply",
            Command::Apply(_) => "No changes",
            _ => "Nothing to do",
        };
        match outcome.code {
            0 if outcome.stdout.contains(nothing) => End::NothingToDo,
            0 => End::Done,
            1 => End::Untouched,
            6 => End::RolledBack,
            7 => End::Incomplete,
            10 => End::Refused,
            137 => End::Killed,
            _ => panic!("{outcome}"),
        }
    }

    fn drift(&mut self, drift: Drift) {
        let put = |third: u8, rest: &str| format!("ip route replace 10.244.{third}.0/24 via {rest}");
        self.0.sh(&match drift {
            Drift::TakeRoute(third) => put(third, "172.30.0.209 dev eth0 proto static"),
            Drift::StrayRoute(third) => put(third, "172.30.0.208 dev eth0 proto 87"),
            Drift::DropRoute(third) => format!("ip route del 10.244.{third}.0/24 2>/dev/null || true"),
            Drift::Sysctl(key, value) => {
                format!("echo {value} >/proc/sys/{}", SYSCTLS[key].replace('.', "/"))
            }
            Drift::DropTable => "nft delete table ip hostgw 2>/dev/null || true".to_owned(),
            Drift::AddRule => {
                format!("nft add rule ip hostgw postrouting {} 2>/dev/null || true", Drift::RULE)
            }
        });
    }

    fn journal(&self) -> Option<String> {
        let path = self.0.state_dir()?.join("journal.json");
        let since = path.metadata().ok()?.modified().expect("a time").duration_since(UNIX_EPOCH);
        Some(format!("{:?} {}", since.expect("after 1970"), std::fs::read_to_string(path).ok()?))
    }

    fn committed(&self) -> usize {
        let history = self.0.state_dir().map(|dir| dir.join("history"));
        history.and_then(|history| std::fs::read_dir(history).ok()).map_or(0, Iterator::count)
    }
}

/// Twenty sequences of at most fourteen steps, in which commands end in every possible way. They are the same each
/// time unless `HOSTGW_SEED` is set.
#[test]
fn every_step_of_a_random_sequence_keeps_the_guarantees() {
    each(|privilege| {
        let seeds = requested_seed().map_or_else(|| (1..=20).collect(), |seed| vec![seed]);
        let mut ends = BTreeSet::new();
        for seed in seeds {
            let mut runner = TestRunner::new_with_rng(Config::default(), random(seed));
            let steps = sequences(14).new_tree(&mut runner).expect("a sequence").current();
            let name = format!("HOSTGW_SEED={seed}, with the rights of {privilege:?}");
            let follow = move || follow(&mut Real::new(privilege), &steps);
            let followed = thread::Builder::new().name(name).spawn(follow).expect("a thread").join();
            ends.extend(followed.unwrap_or_else(|_| panic!("HOSTGW_SEED={seed}")));
        }
        if cfg!(feature = "fault-injection") && requested_seed().is_none() {
            assert_eq!(ends.len(), 7, "commands ended in these ways alone: {ends:?}");
        }
    });
}

//! Faults at every exchange with the kernel and at every step of writing the state directory, one by one. Whatever
//! fails, and wherever the process is killed, the node has its previous or its planned state, and hostgw reports
//! which. Requires a build with the feature `fault-injection`, such as that of `tests/run`.

use std::collections::BTreeMap;

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, is_open, live, node};
use crate::support::namespace::{Namespace, Outcome, Peer, Privilege, Snapshots, is_root};

/// An upper bound on the number of points. A test that reaches it is in an endless loop.
const MAX_POINTS: usize = 400;

/// A plan to commit: the previous configuration, and the command.
struct Scenario {
    name: &'static str,
    before: Vec<String>,
    file: Option<String>,
    verb: &'static str,
}

/// Checks that the machine at the other end of the cable answers.
const CHECKS: &str = "\nchecks: [{tcp: '172.30.0.1:8080'}, {neighbor: 172.30.0.1}]\n";

/// Plans that add, change and remove, and one with checks.
fn scenarios() -> [Scenario; 4] {
    let sysctl = "sysctls: {net.ipv4.conf.all.rp_filter: 2}";
    // More records than the state directory keeps: those pruned for a new one must not be missing later.
    let history = [
        cluster("", &[NODE_1]),
        cluster("", &[NODE_1, NODE_2]),
        cluster(sysctl, &[NODE_1, NODE_3]),
        cluster("", &[NODE_1, NODE_2, NODE_3]),
    ];
    let changed = cluster("nextHop: node-address\nnat: {randomFully: true}", &[NODE_1, NODE_2]);
    let (recipe, changed) = (RECIPE.to_owned(), format!("{sysctl}\n{changed}"));
    [
        Scenario { name: "add", before: Vec::new(), file: Some(recipe.clone()), verb: "apply" },
        Scenario { name: "change", before: history.into(), file: Some(changed), verb: "apply" },
        Scenario { name: "remove", before: vec![recipe.clone()], file: None, verb: "destroy" },
        Scenario {
            name: "check",
            before: Vec::new(),
            file: Some(format!("{recipe}{CHECKS}")),
            verb: "apply",
        },
    ]
}

impl Scenario {
    /// Creates a node with `before` in effect, and the machine at the other end if there are checks.
    fn node(&self) -> (Namespace, Option<Peer>) {
        let node = node(if is_root() { Privilege::Root } else { Privilege::User });
        node.sh("echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding; echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects");
        for before in &self.before {
            node.write("hostgw.yaml", before);
            node.hostgw_ok(&["apply", "--yes"]);
        }
        if let Some(file) = &self.file {
            node.write("hostgw.yaml", file);
        }
        let has_checks = self.file.as_ref().is_some_and(|file| file.ends_with(CHECKS));
        let peer = has_checks.then(|| {
            let peer = Peer::behind(&node, "lan0", &[8080]);
            peer.sh(&node, "ip address add 172.30.0.1/24 dev far");
            node.await_ipv6_addresses();
            peer
        });
        (node, peer)
    }

    fn run(&self, node: &Namespace, fault: &str) -> Outcome {
        with_fault(node, &[self.verb, "--yes"], fault)
    }

    /// Calls `each` with the fault at every point (`AT`) of the command, until the point is after the last one.
    fn at_every_point(&self, fault: &str, each: impl Fn(&Namespace, &State, &Outcome)) {
        let (node, _peer) = self.node();
        let mut before = State::of(&node);
        for number in 1.. {
            assert!(number < MAX_POINTS, "{}: more than {MAX_POINTS} points", self.name);
            let outcome = self.run(&node, &fault.replace("AT", &number.to_string()));
            if !met_fault(&node) {
                assert!(number > 10, "{}: no fault was injected", self.name);
                assert_eq!(outcome.code, 0, "{outcome}");
                return;
            }
            if outcome.code == 0 {
                // A read was repeated, and the complete plan is in effect.
                assert_ne!(before.live, State::of(&node).live, "{outcome}");
                // A fault never makes hostgw ignore a check.
                assert!(!outcome.stderr.contains("ignoring it"), "{outcome}");
                node.hostgw_ok(&["rollback", "--yes"]);
                let after = State::of(&node);
                assert_eq!(before.live, after.live, "{outcome}");
                before = after;
            } else {
                each(&node, &before, &outcome);
            }
        }
    }
}

/// Runs hostgw with a fault.
fn with_fault(node: &Namespace, arguments: &[&str], fault: &str) -> Outcome {
    let mark = node.folder().join("fault");
    let mark = mark.to_str().expect("UTF-8");
    let mut outcome = node.hostgw_with(arguments, &[("HOSTGW_FAULT", fault), ("HOSTGW_FAULT_MARK", mark)]);
    outcome.command.push_str(&format!(" # {fault}"));
    outcome
}

/// Returns whether the last command reached the point of its fault.
fn met_fault(node: &Namespace) -> bool {
    std::fs::remove_file(node.folder().join("fault")).is_ok()
}

/// Everything that hostgw could change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// The live state, as other tools print it.
    live: String,
    /// The records, file by file.
    records: String,
}

impl State {
    fn of(node: &Namespace) -> Self {
        Self { live: live(node), records: records(node) }
    }

    /// Asserts that the node is unchanged.
    #[track_caller]
    fn assert_unchanged_by(&self, node: &Namespace, scenario: &Scenario, outcome: &Outcome) {
        let now = Self::of(node);
        for (before, now) in [(&self.live, &now.live), (&self.records, &now.records)] {
            if before != now {
                let diff = similar::TextDiff::from_lines(before, now).unified_diff().to_string();
                panic!("{}: not as it was before, after {outcome}\n{diff}", scenario.name);
            }
        }
    }
}

/// The files of the state directory that have content.
fn records(node: &Namespace) -> String {
    let mut files = Vec::new();
    let mut folders = vec![node.folder().join("state")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(&path).expect("a record");
                files.push(format!("{}: {text}\n", path.display()));
            }
        }
    }
    files.sort();
    files.concat()
}

/// A single fault: nothing was changed (1), or it was rolled back (6).
#[test]
fn a_failure_at_any_point_leaves_the_previous_state() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_point("fail:AT", |node, before, outcome| {
            assert!([1, 6].contains(&outcome.code), "{}: {outcome}", scenario.name);
            seen.set(seen.get() || outcome.code == 6);
            before.assert_unchanged_by(node, &scenario, outcome);
            assert!(!is_open(node), "{}: {outcome}", scenario.name);
        });
        assert!(seen.get(), "{}: no fault came after the first write", scenario.name);
    }
}

/// A privilege is lost midway: the error names it and the remedy. Everything is rolled back, by a later command if the
/// rollback lacks the privilege, too.
#[test]
fn a_privilege_lost_at_any_point_is_named() {
    let [add, ..] = scenarios();
    let outcomes = std::cell::RefCell::new(BTreeMap::new());
    for fault in ["fail:AT:EPERM", "fail-from:AT:EPERM"] {
        add.at_every_point(fault, |node, before, outcome| {
            assert!([1, 6, 7, 9].contains(&outcome.code), "{outcome}");
            let names = ["EPERM", "CAP_NET_ADMIN", "Operation not permitted"];
            let is_named = |text: &str| names.iter().any(|name| text.contains(name));
            assert!(is_named(&outcome.stdout) || is_named(&outcome.stderr), "{outcome}");
            assert_eq!(outcome.code == 7, is_open(node), "{outcome}");
            if outcome.code == 7 {
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            before.assert_unchanged_by(node, &add, outcome);
            if outcome.stderr.contains("cannot write routes") {
                outcomes.borrow_mut().entry(outcome.code).or_insert_with(|| outcome.clone());
            }
        });
    }
    let mut snapshots = Snapshots::default();
    for (code, mut outcome) in outcomes.take() {
        outcome.command = "hostgw apply --yes # CAP_NET_ADMIN is lost midway".to_owned();
        snapshots.compare(&format!("lost-privilege-{code}"), &outcome);
    }
    snapshots.conclude();
}

/// An answer of the kernel that was interrupted by a concurrent change or partly lost is requested again. A change
/// without an answer is rolled back.
#[test]
fn an_interrupted_dump_is_repeated() {
    let [_, change, ..] = scenarios();
    for (fault, code) in [("cut:AT", None), ("lose:AT", Some(6))] {
        let seen = std::cell::Cell::new(None);
        change.at_every_point(fault, |node, before, outcome| {
            outcome.warns("did not fit in the socket buffer (ENOBUFS");
            before.assert_unchanged_by(node, &change, outcome);
            seen.set(Some(outcome.code));
        });
        assert_eq!(seen.get(), code, "{fault}");
    }
}

/// The answers to questions about paths are requested again, too, if some are lost.
#[test]
fn lost_answers_about_paths_are_requested_again() {
    let node = super::paths::node_with_pods(Privilege::User);
    let mut applied = 0;
    for number in 1.. {
        assert!(number < MAX_POINTS, "more than {MAX_POINTS} points");
        let outcome = with_fault(&node, &["apply", "--yes"], &format!("lose:{number}"));
        assert!(!outcome.stderr.contains("cannot ask the kernel"), "{outcome}");
        applied += usize::from(outcome.code == 0);
        if !met_fault(&node) {
            break;
        }
        node.hostgw_ok(&["destroy", "--yes"]);
    }
    assert!(applied > 10, "{applied}");
}

/// A plan made from interrupted answers is correct.
#[test]
fn a_plan_from_interrupted_dumps_is_complete() {
    let [_, change, ..] = scenarios();
    let (node, _peer) = change.node();
    let plan = node.hostgw_ok(&["plan"]);
    for kind in ["cut", "lose"] {
        for number in 1.. {
            assert!(number < MAX_POINTS, "more than {MAX_POINTS} points");
            let torn = with_fault(&node, &["plan"], &format!("{kind}:{number}"));
            assert_eq!((torn.code, &torn.stdout, &torn.stderr), (0, &plan.stdout, &plan.stderr), "{torn}");
            if !met_fault(&node) {
                break;
            }
        }
    }
}

/// If the answers are interrupted every time, the command fails with a message, and the node is unchanged.
#[test]
fn dumps_that_are_always_interrupted_are_an_error() {
    let [_, change, ..] = scenarios();
    let (node, _peer) = change.node();
    let mut snapshots = Snapshots::default();
    for (kind, what) in [("cut", "interrupted"), ("lose", "truncated")] {
        let mut outcome = with_fault(&node, &["plan"], &format!("{kind}-from:1"));
        outcome.command = format!("hostgw plan # every netlink reply is {what}");
        assert!(met_fault(&node));
        snapshots.compare(&format!("torn-{kind}"), &outcome);
        let seen = std::cell::Cell::new(0);
        change.at_every_point(&format!("{kind}-from:AT"), |node, before, outcome| {
            assert!([1, 6, 7].contains(&outcome.code), "{outcome}");
            assert_eq!(outcome.code == 7, is_open(node), "{outcome}");
            if outcome.code == 7 {
                node.hostgw_ok(&["rollback", "--yes"]);
                seen.set(seen.get() + 1);
            }
            before.assert_unchanged_by(node, &change, outcome);
        });
        assert!(seen.get() > 0, "{kind}: every undo was seen to its end");
    }
    snapshots.conclude();
}

/// From some point on, everything fails, including the rollback: that is reported (7), and a later rollback finishes.
#[test]
fn a_failed_rollback_is_reported_and_finished_later() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_point("fail-from:AT", |node, before, outcome| {
            assert!([1, 7].contains(&outcome.code), "{}: {outcome}", scenario.name);
            assert_eq!(outcome.code == 7, is_open(node), "{}: {outcome}", scenario.name);
            if outcome.code == 7 {
                seen.set(true);
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            before.assert_unchanged_by(node, &scenario, outcome);
        });
        assert!(seen.get(), "{}: no undo failed", scenario.name);
    }
}

/// Killed at any point: nothing was changed, or a rollback restores the previous state.
#[test]
fn a_rollback_recovers_from_a_kill_at_any_point() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_point("kill:AT", |node, before, outcome| {
            if is_open(node) {
                seen.set(true);
                node.hostgw_ok(&["status"]).says("interrupted");
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            before.assert_unchanged_by(node, &scenario, outcome);
        });
        assert!(seen.get(), "{}: no kill came after the first write", scenario.name);
    }
}

/// The rollback itself is killed at every point, and the next one resumes it.
#[test]
fn a_rollback_killed_at_any_point_can_be_resumed() {
    let [add, ..] = scenarios();
    let (node, _peer) = add.node();
    let before = State::of(&node);
    for number in 1.. {
        assert!(number < MAX_POINTS, "more than {MAX_POINTS} points");
        node.hostgw_ok(&["apply", "--yes"]);
        let outcome = with_fault(&node, &["rollback", "--yes"], &format!("kill:{number}"));
        if outcome.code != 0 {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
        before.assert_unchanged_by(&node, &add, &outcome);
        if !met_fault(&node) {
            assert_eq!(outcome.code, 0, "{outcome}");
            return;
        }
    }
}

/// Killed at any point, and the rollback fails at any point: that is reported (7, or 1 if it could not begin), and a
/// later rollback finishes.
///
/// Here, each kill is combined with every third failure, varying from kill to kill, and the failing rollbacks of one
/// kill follow one another. With `HOSTGW_WHOLE=1`, each kill is combined with each failure separately, which takes
/// nine minutes on two cores.
#[test]
fn a_rollback_that_fails_after_a_kill_is_finished_later() {
    let is_whole = std::env::var_os("HOSTGW_WHOLE").is_some();
    std::thread::scope(|scope| {
        for scenario in scenarios() {
            scope.spawn(move || {
                let pairs = if is_whole {
                    let of = |kind| combine_kills_and_failed_rollbacks(&scenario, &[kind], 1);
                    of("fail") + of("fail-from")
                } else {
                    combine_kills_and_failed_rollbacks(&scenario, &["fail", "fail-from"], 3)
                };
                assert!(pairs > 300, "{}: {pairs} pairs", scenario.name);
            });
        }
    });
}

/// Combines each kill with every `step`th failure; `kinds` alternate. With a step of 1, each failing rollback is the
/// only one after its kill. Returns the number of combinations.
fn combine_kills_and_failed_rollbacks(scenario: &Scenario, kinds: &[&str], step: usize) -> usize {
    let (node, _peer) = scenario.node();
    let before = State::of(&node);
    let mut pairs = 0;
    for kill in 1..MAX_POINTS {
        let mut failure = 1 + kill % step;
        loop {
            if !is_open(&node) {
                let killed = scenario.run(&node, &format!("kill:{kill}"));
                if !met_fault(&node) {
                    assert_eq!(killed.code, 0, "{killed}");
                    return pairs;
                }
                if !is_open(&node) {
                    before.assert_unchanged_by(&node, scenario, &killed);
                    break;
                }
            }
            let kind = kinds[(kill + failure / step) % kinds.len()];
            let outcome = with_fault(&node, &["rollback", "--yes"], &format!("{kind}:{failure}"));
            let is_over = !met_fault(&node);
            if is_over || outcome.code == 0 {
                outcome.clone().expect(0);
            } else {
                assert!([1, 7].contains(&outcome.code), "{}, killed at {kill}: {outcome}", scenario.name);
                assert!(is_open(&node), "{}, killed at {kill}: {outcome}", scenario.name);
                if step == 1 {
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
            }
            if !is_open(&node) {
                before.assert_unchanged_by(&node, scenario, &outcome);
            }
            if is_over {
                break;
            }
            pairs += 1;
            failure += step;
        }
    }
    panic!("{}: more than {MAX_POINTS} points", scenario.name);
}

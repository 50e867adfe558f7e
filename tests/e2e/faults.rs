//! A fault at every exchange with the kernel and at every step in writing the state directory, one after
//! another: whatever fails, and wherever the process is killed, the node is as before or as planned, and
//! hostgw says which. Only in a build with the feature `fault-injection`, as `tests/run` makes it.

use super::{NODE_1, NODE_2, NODE_3, RECIPE, cluster, node};
use crate::support::namespace::{Namespace, Outcome, Privilege, is_root};

/// No plan here takes more points; beyond it something does not end.
const MOST: usize = 400;

/// A plan to commit: what was applied before, and the command.
struct Scenario {
    name: &'static str,
    before: Vec<String>,
    file: Option<String>,
    verb: &'static str,
}

/// Plans that add, change and remove.
fn scenarios() -> [Scenario; 3] {
    let sysctl = "sysctls: {net.ipv4.conf.all.rp_filter: 2}";
    // More than the state directory keeps of some kinds: what goes for a new one shall not be missing later.
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
        Scenario { name: "remove", before: vec![recipe], file: None, verb: "destroy" },
    ]
}

impl Scenario {
    /// A node where `before` stands.
    fn node(&self) -> Namespace {
        let node = node(if is_root() { Privilege::Root } else { Privilege::User });
        node.sh("echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding; echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects");
        for before in &self.before {
            node.write("hostgw.yaml", before);
            node.hostgw_ok(&["apply", "--yes"]);
        }
        if let Some(file) = &self.file {
            node.write("hostgw.yaml", file);
        }
        node
    }

    fn run(&self, node: &Namespace, fault: &str) -> Outcome {
        with_fault(node, self.verb, fault)
    }

    /// Calls `each` for the fault `kind` at every point of the command, until one comes after the last.
    fn at_every_point(&self, kind: &str, each: impl Fn(&Namespace, &State, &Outcome)) {
        let node = self.node();
        let mut before = State::of(&node);
        for number in 1.. {
            assert!(number < MOST, "{}: no end of points", self.name);
            let outcome = self.run(&node, &format!("{kind}:{number}"));
            if !met_fault(&node) {
                assert!(number > 10, "{}: no fault was injected", self.name);
                assert_eq!(outcome.code, 0, "{outcome}");
                return;
            }
            if outcome.code == 0 {
                // It came through: a read that was repeated. The plan is in force, whole.
                assert_ne!(before.live, State::of(&node).live, "{outcome}");
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

/// `hostgw VERB --yes` with a fault.
fn with_fault(node: &Namespace, verb: &str, fault: &str) -> Outcome {
    let mut command = node.hostgw_command(&[verb, "--yes"]);
    command.env("HOSTGW_FAULT", fault).env("HOSTGW_FAULT_MARK", node.folder().join("fault"));
    Outcome::of(node, &format!("hostgw {verb} --yes # {fault}"), &mut command)
}

/// Whether the last command came to the point of its fault.
fn met_fault(node: &Namespace) -> bool {
    std::fs::remove_file(node.folder().join("fault")).is_ok()
}

/// All that hostgw could change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// Told by others.
    live: String,
    /// What is on record, file by file.
    records: String,
}

impl State {
    fn of(node: &Namespace) -> Self {
        let live = node
            .sh("ip route show table all; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'
             grep -rs . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf | sort");
        Self { live, records: records(node) }
    }

    /// Fails when the node is not as it was.
    #[track_caller]
    fn assert_stands(&self, node: &Namespace, scenario: &Scenario, outcome: &Outcome) {
        let now = Self::of(node);
        for (before, now) in [(&self.live, &now.live), (&self.records, &now.records)] {
            if before != now {
                let diff = similar::TextDiff::from_lines(before, now).unified_diff().to_string();
                panic!("{}: not as it was before, after {outcome}\n{diff}", scenario.name);
            }
        }
    }
}

/// The files of the state directory that speak of something.
fn records(node: &Namespace) -> String {
    node.sh("find state -name '*.json' 2>/dev/null | sort | while read -r file; do
                 echo \"$file: $(cat \"$file\")\"
             done")
}

fn is_open(node: &Namespace) -> bool {
    node.state_dir().is_some_and(|dir| dir.join("journal.json").exists())
}

/// One fault: nothing was changed (1), or it was rolled back (6).
#[test]
fn a_failure_at_every_point_leaves_the_state_before() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_point("fail", |node, before, outcome| {
            assert!([1, 6].contains(&outcome.code), "{}: {outcome}", scenario.name);
            seen.set(seen.get() || outcome.code == 6);
            before.assert_stands(node, &scenario, outcome);
            assert!(!is_open(node), "{}: {outcome}", scenario.name);
        });
        assert!(seen.get(), "{}: no fault came after the first write", scenario.name);
    }
}

/// Everything fails from some point on, the undo too: that is said (7), and a later rollback finishes.
#[test]
fn a_failing_undo_is_said_and_finished_later() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_point("fail-from", |node, before, outcome| {
            assert!([1, 7].contains(&outcome.code), "{}: {outcome}", scenario.name);
            assert_eq!(outcome.code == 7, is_open(node), "{}: {outcome}", scenario.name);
            if outcome.code == 7 {
                seen.set(true);
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            before.assert_stands(node, &scenario, outcome);
        });
        assert!(seen.get(), "{}: no undo failed", scenario.name);
    }
}

/// Killed at any point: nothing was changed, or a rollback puts it back.
#[test]
fn a_kill_at_every_point_is_put_right() {
    for scenario in scenarios() {
        let seen = std::cell::Cell::new(false);
        scenario.at_every_point("kill", |node, before, outcome| {
            if is_open(node) {
                seen.set(true);
                node.hostgw_ok(&["status"]).says("interrupted");
                node.hostgw_ok(&["rollback", "--yes"]);
            }
            before.assert_stands(node, &scenario, outcome);
        });
        assert!(seen.get(), "{}: no kill came after the first write", scenario.name);
    }
}

/// The rollback itself is killed at every point, and the next one goes on.
#[test]
fn a_rollback_killed_at_every_point_goes_on() {
    let [add, ..] = scenarios();
    let node = add.node();
    let before = State::of(&node);
    for number in 1.. {
        assert!(number < MOST, "no end of points");
        node.hostgw_ok(&["apply", "--yes"]);
        let outcome = with_fault(&node, "rollback", &format!("kill:{number}"));
        if outcome.code != 0 {
            node.hostgw_ok(&["rollback", "--yes"]);
        }
        before.assert_stands(&node, &add, &outcome);
        if !met_fault(&node) {
            assert_eq!(outcome.code, 0, "{outcome}");
            return;
        }
    }
}

/// Killed at any point, and the rollback fails at any point: that is said (7; 1 where it could not begin),
/// and a later rollback finishes.
///
/// Every kill meets every third failure here, each time others, and the failing rollbacks of one kill follow
/// one another. With `HOSTGW_WHOLE=1` every kill meets every failure, each on its own: that takes WHOLETIME
/// minutes.
#[test]
fn a_kill_and_a_failing_undo_at_every_point_are_finished_later() {
    let is_whole = std::env::var_os("HOSTGW_WHOLE").is_some();
    std::thread::scope(|scope| {
        for scenario in scenarios() {
            scope.spawn(move || {
                let pairs = if is_whole {
                    let of = |kind| kills_and_failing_undos(&scenario, &[kind], 1);
                    of("fail") + of("fail-from")
                } else {
                    kills_and_failing_undos(&scenario, &["fail", "fail-from"], 3)
                };
                assert!(pairs > 300, "{}: {pairs} pairs", scenario.name);
            });
        }
    });
}

/// Every kill with every failure, or with one of `step` of them; `kinds` take turns. With all of them, each
/// failing rollback is the only one after its kill. Gives how many pairs there were.
fn kills_and_failing_undos(scenario: &Scenario, kinds: &[&str], step: usize) -> usize {
    let node = scenario.node();
    let before = State::of(&node);
    let mut pairs = 0;
    for kill in 1..MOST {
        let mut failure = 1 + kill % step;
        loop {
            if !is_open(&node) {
                let killed = scenario.run(&node, &format!("kill:{kill}"));
                if !met_fault(&node) {
                    assert_eq!(killed.code, 0, "{killed}");
                    return pairs;
                }
                if !is_open(&node) {
                    before.assert_stands(&node, scenario, &killed);
                    break;
                }
            }
            let kind = kinds[(kill + failure / step) % kinds.len()];
            let outcome = with_fault(&node, "rollback", &format!("{kind}:{failure}"));
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
                before.assert_stands(&node, scenario, &outcome);
            }
            if is_over {
                break;
            }
            pairs += 1;
            failure += step;
        }
    }
    panic!("{}: no end of points", scenario.name);
}

//! The progress line: on a terminal only, and only for what takes longer than half a second.

use std::fmt::Write as _;

use super::{RECIPE, node};
use crate::support::namespace::{Namespace, Outcome, Privilege, each};

/// Enough for an apply that takes seconds in the build that the tests use.
const MANY: usize = 60_000;

fn cluster() -> String {
    let mut text = String::from("clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes:\n");
    for number in 0..MANY {
        let [_, a, b, c] = (64 * number as u32).to_be_bytes();
        let _ = writeln!(text, "  - {{name: n{number}, os: linux, podCIDR: 10.{a}.{b}.{c}/26}}");
    }
    text
}

/// What a script printed on a pseudo-terminal, with every version of the progress line.
fn on_terminal(node: &Namespace, script: &str) -> Outcome {
    let child = node.on_terminal(script).spawn().expect("script");
    Outcome::from_output(node, script, child.wait_with_output().expect("our child"))
}

/// The numbers in a line such as `writing routes: 4096 of 60000, 52000/s, 2 s left`.
fn numbers(line: &str) -> Option<Vec<u64>> {
    let rest = line.split("writing routes: ").nth(1)?.split(" s left").next()?;
    let words = rest.split([' ', ',', '/']);
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    (numbers.len() == 4).then_some(numbers)
}

#[test]
fn a_large_apply_counts_its_routes() {
    each(|privilege| {
        let node = node(privilege);
        node.write("hostgw.yaml", &cluster());
        let outcome = on_terminal(&node, "\"$HOSTGW\" apply --node n0 --yes").expect(0);
        let seen: Vec<Vec<u64>> = outcome.stdout.split('\r').filter_map(numbers).collect();
        assert!(seen.len() > 1, "no progress: {}", outcome.stdout.get(..2000).unwrap_or(&outcome.stdout));
        for pair in seen.windows(2) {
            assert!(pair[0][0] <= pair[1][0], "{seen:?}");
        }
        for numbers in &seen {
            let [done, total, rate, left] = numbers[..] else { panic!("{numbers:?}") };
            assert!(done <= total && total == MANY as u64, "{numbers:?}");
            // The rate and the remaining time agree.
            assert!(left <= 2 + 2 * (total - done) / rate.max(1), "{numbers:?}");
        }
        // Whatever follows begins on an empty line.
        let last = outcome.stdout.rsplit("writing routes").next().unwrap_or_default();
        assert!(last.contains("\r\u{1b}[K"), "{last:?}");
        // A pipe shows nothing.
        let outcome = node.hostgw(&["destroy", "--yes"]).expect(0);
        assert!(!outcome.stderr.contains("routes:"), "{}", outcome.stderr);
    });
}

/// A configuration that arrives slowly.
#[test]
fn a_slow_input_is_named() {
    let node = Namespace::new(Privilege::User);
    node.write("recipe.yaml", RECIPE);
    let slow = "(sleep 2; cat recipe.yaml) | \"$HOSTGW\" validate -";
    on_terminal(&node, slow).expect(0).says("reading standard input").says("3 nodes");
    let plain = node.sh(&format!("({slow}) 2>&1"));
    assert!(!plain.contains("reading"), "{plain}");
}

#[test]
fn a_quick_command_shows_nothing() {
    each(|privilege| {
        let node = node(privilege);
        for verb in ["apply --yes", "plan", "rollback --yes"] {
            let outcome = on_terminal(&node, &format!("\"$HOSTGW\" {verb}")).expect(0);
            for shown in ["reading", "writing", "planning", "\r\u{1b}["] {
                assert!(!outcome.stdout.contains(shown), "{shown:?} in {}", outcome.stdout);
            }
        }
    });
}

//! The question before an apply, asked on a terminal: only `y` and `yes` are a yes.

use super::{node, settled};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each, feed};

/// Runs `hostgw` on a pseudo-terminal and types `answer`; an empty one is an end of file.
fn answer(node: &Namespace, arguments: &str, answer: &str) -> Outcome {
    let mut child = node.on_terminal(&format!("\"$HOSTGW\" {arguments}")).spawn().expect("script");
    feed(&mut child, answer);
    let output = child.wait_with_output().expect("our child");
    Outcome::from_output(node, &format!("hostgw {arguments}, answered {answer:?}"), output)
}

#[test]
fn all_but_yes_is_no() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for text in ["n\n", "\n", "", "no\n", "yeah\n", "yy\n"] {
            let outcome = answer(&node, "apply", text).expect(8);
            outcome.says("Apply this plan to node linux-1? [y/N]").says("declined; nothing was changed");
            node.assert_unchanged(&before, "a declined apply");
        }
    });
}

#[test]
fn yes_is_yes() {
    each(|privilege| {
        for text in ["y\n", "yes\n", "Y\n"] {
            let node = node(privilege);
            answer(&node, "apply", text).expect(0).says("Applied to node linux-1 and verified");
            settled(&node);
        }
    });
}

#[test]
fn destroy_and_rollback_ask_too() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        node.hostgw_ok(&["apply", "--yes"]);
        let applied = node.witness();
        for verb in ["destroy", "rollback"] {
            answer(&node, verb, "n\n").expect(8).says("[y/N]");
            node.assert_unchanged(&applied, "a declined command");
            node.hostgw(&[verb]).expect(8).warns("--yes");
            node.assert_unchanged(&applied, "a command without a terminal");
            answer(&node, verb, "y\n").expect(0);
            node.assert_unchanged(&before, verb);
            node.hostgw_ok(&["apply", "--yes"]);
        }
    });
}

/// The plan that was agreed to is the plan that is committed, or none.
#[test]
fn a_plan_that_changes_while_it_is_asked_about_is_not_committed() {
    each(|privilege| {
        let node = node(privilege);
        let mut child = node.on_terminal("\"$HOSTGW\" apply --color never").spawn().expect("script");
        let mut shown = String::new();
        let mut byte = [0];
        while !shown.contains("[y/N]") {
            std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut byte)
                .expect("the question");
            shown.push(char::from(byte[0]));
        }
        node.sh("ip route add 10.244.0.0/16 dev eth0 proto 87 scope link");
        let before = node.witness();
        feed(&mut child, "y\n");
        let output = child.wait_with_output().expect("our child");
        let mut outcome = Outcome::from_output(&node, "hostgw apply # after its question", output).expect(5);
        outcome.stdout = outcome.stdout.replace('\r', "");
        let mut snapshots = Snapshots::default();
        snapshots.compare("stale-apply", &outcome);
        snapshots.conclude();
        node.assert_unchanged(&before, "a stale apply");
    });
}

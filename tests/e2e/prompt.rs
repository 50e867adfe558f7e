//! The question before an apply on a terminal: only `y` and `yes` approve.

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
fn everything_except_yes_declines() {
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
fn yes_approves() {
    each(|privilege| {
        for text in ["y\n", "yes\n", "Y\n"] {
            let node = node(privilege);
            answer(&node, "apply", text).expect(0).says("Applied to node linux-1 and verified");
            settled(&node);
        }
    });
}

#[test]
fn destroy_and_rollback_ask_as_well() {
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

/// A long plan is paged before the prompt. Without a prompt, it is printed directly.
#[test]
fn a_long_plan_is_paged_before_the_question() {
    each(|privilege| {
        let node = node(privilege);
        let sized = "stty rows 10 cols 300; PAGER='sed s/^/paged:/' \"$HOSTGW\"";
        let on_terminal = |arguments: &str, answer: &str| {
            let mut child =
                node.on_terminal(&format!("{sized} {arguments} --color never")).spawn().expect("script");
            feed(&mut child, answer);
            Outcome::from_output(&node, arguments, child.wait_with_output().expect("our child"))
        };
        on_terminal("apply", "n\n").expect(8).says("paged:+ 10.244.1.0/24").says("[y/N]");
        let applied = on_terminal("apply", "y\n").expect(0);
        applied.says("paged:+ 10.244.1.0/24").says("Applied to node linux-1");
        for verb in ["rollback", "destroy"] {
            on_terminal(verb, "n\n").expect(8).says("paged:- 10.244.1.0/24").says("[y/N]");
        }
        let unasked = on_terminal("destroy --yes", "").expect(0);
        assert!(!unasked.stdout.contains("paged:"), "{unasked}");
    });
}

/// Ctrl-C at the question, also after a pager: nothing is changed, and further output begins on a new line.
#[test]
fn an_interrupted_question_ends_its_line() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for script in
            ["exec \"$HOSTGW\" apply", "stty rows 10; export PAGER='sed s/^/paged:/'; exec \"$HOSTGW\" apply"]
        {
            let mut child = node.on_terminal(&format!("{script} --color never")).spawn().expect("script");
            let mut shown = String::new();
            read_until(&mut child, &mut shown, "[y/N]");
            let mut keys = child.stdin.take().expect("piped");
            std::io::Write::write_all(&mut keys, b"\x03").expect("a terminal");
            // The terminal stays open, because an end of file would be a no.
            let output = child.wait_with_output().expect("our child");
            drop(keys);
            let outcome = Outcome::from_output(&node, script, output).expect(130);
            let rest = outcome.stdout.replace('\r', "");
            assert_eq!(
                rest.trim_start_matches([' ', '^', 'C']),
                "\nerror: interrupted; nothing was changed\n"
            );
            node.assert_unchanged(&before, "an interrupted question");
        }
    });
}

/// Reads the output of a child until it contains `text`.
fn read_until(child: &mut std::process::Child, shown: &mut String, text: &str) {
    let mut byte = [0];
    while !shown.contains(text) {
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut byte).expect("the question");
        shown.push(char::from(byte[0]));
    }
}

/// A signal immediately ends the wait for the lock.
#[test]
fn an_interrupted_wait_for_the_lock_changes_nothing() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.sh("ip route del 10.244.1.0/24");
        let before = node.witness();
        let lock = super::refusals::HeldLock::take(&node);
        for verb in ["apply", "destroy", "rollback"] {
            let script = format!("timeout -s INT 1 \"$HOSTGW\" {verb} --yes --lock-timeout 10m; echo $?");
            let outcome = node.try_sh(&script);
            assert!(outcome.stdout.ends_with("124\n"), "{outcome}");
            outcome.warns("interrupted; nothing was changed");
            node.assert_unchanged(&before, verb);
        }
        drop(lock);
    });
}

/// The plan that was approved is committed, or none.
#[test]
fn a_plan_that_changes_during_the_question_is_not_committed() {
    each(|privilege| {
        let node = node(privilege);
        let mut child = node.on_terminal("\"$HOSTGW\" apply --color never").spawn().expect("script");
        let mut shown = String::new();
        read_until(&mut child, &mut shown, "[y/N]");
        node.sh("ip route add 10.244.0.0/16 dev eth0 proto 87 scope link");
        let before = node.witness();
        feed(&mut child, "y\n");
        let output = child.wait_with_output().expect("our child");
        let mut outcome = Outcome::from_output(
            &node,
            "hostgw apply # the live state changes while the prompt waits",
            output,
        )
        .expect(5);
        outcome.stdout = outcome.stdout.replace('\r', "");
        let mut snapshots = Snapshots::default();
        snapshots.compare("stale-apply", &outcome);
        snapshots.conclude();
        node.assert_unchanged(&before, "a stale apply");
    });
}

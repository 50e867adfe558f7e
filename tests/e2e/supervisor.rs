//! The supervisor of `apply --confirm`: the deadline holds though it is stopped, and it keeps nothing that is not its
//! own.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{is_open, node, settled};
use crate::support::namespace::{Namespace, Outcome, each};

fn waiting(node: &Namespace, time: &str) -> Child {
    let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", time]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
    node.wait_until("the apply waits", || supervisor(node).is_some());
    child
}

fn supervisor(node: &Namespace) -> Option<Pid> {
    let dir = node.state_dir()?;
    let text = std::fs::read_to_string(dir.join("lock")).ok()?;
    let is_pending = dir.join("wait/pending.json").exists() && text.contains("waits for");
    Pid::from_raw(text.split_whitespace().nth(1)?.parse().ok()?).filter(|_| is_pending)
}

fn kill(process: Option<Pid>, signal: Signal) {
    let process = process.expect("a process");
    kill_process(process, signal).expect("a process of ours");
    let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
    // On a busy machine it takes a moment.
    while signal == Signal::STOP && !std::fs::read_to_string(&stat).expect("a process").contains(") T ") {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn end(node: &Namespace, child: Child) -> Outcome {
    Outcome::from_output(node, "hostgw apply --confirm", child.wait_with_output().expect("our child"))
}

#[test]
fn a_stopped_supervisor_does_not_let_the_deadline_pass() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let child = waiting(&node, "3s");
        let begun = Instant::now();
        kill(supervisor(&node), Signal::STOP);
        node.hostgw_ok(&["status"]).says("its supervisor is stopped").says("hostgw confirm 1");
        node.wait_until("it is rolled back", || !is_open(&node));
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "rolled back {:?} after 3 s began",
            begun.elapsed()
        );
        end(&node, child).expect(8).warns("this command waits in its place").warns("was not confirmed by");
        node.assert_unchanged(&before, "a stopped supervisor");
    });
}

#[test]
fn a_stopped_supervisor_does_not_keep_a_decision_from_being_carried_out() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for (verb, code) in [("cancel", 8), ("confirm", 0)] {
            let child = waiting(&node, "10m");
            kill(supervisor(&node), Signal::STOP);
            node.hostgw_ok(&[verb]);
            end(&node, child).expect(code);
        }
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "a rollback");
    });
}

/// The command is gone, and the supervisor stopped: the next command has it go on.
#[test]
fn a_stopped_supervisor_without_a_command_goes_on_with_the_next_command() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let alone = |time: &str| {
            let mut child = waiting(&node, time);
            child.kill().expect("our child");
            child.wait().expect("our child");
            kill(supervisor(&node), Signal::STOP);
        };
        alone("10m");
        node.hostgw_ok(&["cancel"]).warns("resumed process");
        node.assert_unchanged(&before, "cancel");
        alone("10m");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "rollback");
        alone("1s");
        std::thread::sleep(Duration::from_secs(1));
        node.hostgw(&["confirm"]).expect(8).warns("was not confirmed by");
        node.assert_unchanged(&before, "a confirmation that came too late");
        alone("1s");
        std::thread::sleep(Duration::from_secs(1));
        node.hostgw_ok(&["apply", "--yes"]).warns("resumed process");
        settled(&node);
    });
}

/// A command that is stopped with the lock is named, with what lets it go on.
#[test]
fn a_stopped_holder_of_the_lock_is_told() {
    each(|privilege| {
        let node = node(privilege);
        let mut child = waiting(&node, "10m");
        child.kill().expect("our child");
        child.wait().expect("our child");
        let process = supervisor(&node);
        kill(process, Signal::STOP);
        let outcome = node.hostgw(&["cancel", "--lock-timeout", "0s"]).expect(4);
        outcome
            .warns(", stopped holds the lock")
            .warns(&format!("`kill -CONT {}`", process.expect("one").as_raw_nonzero()));
        kill(process, Signal::CONT);
        node.wait_until("it is cancelled", || !is_open(&node));
    });
}

#[test]
fn a_supervisor_keeps_nothing_open_that_the_command_inherited() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("echo secret >inherited; mkfifo pipe");
        let mut child = node
            .command("sh")
            .args(["-c", "exec \"$HOSTGW\" apply --yes --confirm 10m 7<inherited 9<>pipe"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        node.wait_until("the apply waits", || supervisor(&node).is_some());
        let process = supervisor(&node).expect("one").as_raw_nonzero();
        let open = node.sh(&format!("ls -l /proc/{process}/fd"));
        assert!(!open.contains("inherited") && !open.contains("/pipe"), "{open}");
        // The command itself has them.
        let own = node.sh(&format!("ls -l /proc/{}/fd", child.id()));
        assert!(own.contains("inherited"), "{own}");
        node.hostgw_ok(&["cancel"]);
        child.wait().expect("our child");
    });
}

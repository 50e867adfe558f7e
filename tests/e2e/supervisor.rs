//! The supervisor of `apply --confirm`: the deadline holds even if it is stopped, and it keeps nothing open that it
//! inherited.

use std::{
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{holder, is_open, node, pending, settled, supervisor};
use crate::support::namespace::{Namespace, Outcome, each};
#[cfg(feature = "fault-injection")]
use crate::support::namespace::{Privilege, is_root};

/// The state of a process (proc_pid_stat(5)); `None` if it no longer exists.
fn state(process: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(feature = "fault-injection")]
fn is_running(process: Pid) -> bool {
    state(process).is_some_and(|state| state != 'Z')
}

fn is_stopped(process: Pid) -> bool {
    state(process) == Some('T')
}

fn kill(process: Option<Pid>, signal: Signal) {
    let process = process.expect("a process");
    kill_process(process, signal).expect("a process of ours");
    // On a busy machine, this takes a moment.
    while signal == Signal::STOP && !is_stopped(process) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn end(node: &Namespace, child: Child) -> Outcome {
    Outcome::from_output(node, "hostgw apply --confirm", child.wait_with_output().expect("our child"))
}

#[test]
fn the_deadline_holds_if_the_supervisor_is_stopped() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let child = pending(&node, "3s", &[]);
        let started = Instant::now();
        kill(supervisor(&node), Signal::STOP);
        node.hostgw_ok(&["status"]).says("its supervisor is stopped").says("hostgw confirm 1");
        node.wait_until("it is rolled back", || !is_open(&node));
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "rolled back {:?} after 3 s began",
            started.elapsed()
        );
        end(&node, child)
            .expect(8)
            .warns("this command now enforces the deadline")
            .warns("was not confirmed by");
        node.assert_unchanged(&before, "a stopped supervisor");
    });
}

#[test]
fn a_decision_is_carried_out_if_the_supervisor_is_stopped() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for (verb, code) in [("cancel", 8), ("confirm", 0)] {
            let child = pending(&node, "10m", &[]);
            kill(supervisor(&node), Signal::STOP);
            node.hostgw_ok(&[verb]);
            end(&node, child).expect(code);
        }
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "a rollback");
    });
}

/// The command is gone, and the supervisor is stopped: the next command resumes it.
#[test]
fn the_next_command_resumes_a_stopped_supervisor() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let alone = |time: &str| {
            let mut child = pending(&node, time, &[]);
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
        thread::sleep(Duration::from_secs(1));
        let late = "has not been rolled back: its supervisor is stopped";
        node.hostgw_ok(&["status"]).says("was not confirmed by").says(late).says("run `hostgw cancel");
        node.hostgw_ok(&["plan"]).warns("was not confirmed by").warns(late);
        node.hostgw(&["confirm"]).expect(8).warns("was not confirmed by");
        node.assert_unchanged(&before, "a confirmation that came too late");
        alone("1s");
        thread::sleep(Duration::from_secs(1));
        node.hostgw_ok(&["apply", "--yes"]).warns("resumed process");
        settled(&node);
    });
}

/// A stopped holder of the lock is named, with the command that resumes it.
#[test]
fn a_stopped_holder_of_the_lock_is_reported() {
    each(|privilege| {
        let node = node(privilege);
        let mut child = pending(&node, "10m", &[]);
        child.kill().expect("our child");
        child.wait().expect("our child");
        let process = supervisor(&node);
        kill(process, Signal::STOP);
        let outcome = node.hostgw(&["cancel", "--lock-timeout", "0s"]).expect(4);
        outcome
            .warns(", stopped holds this node's lock")
            .warns(&format!("`kill -CONT {}`", process.expect("one").as_raw_nonzero()));
        kill(process, Signal::CONT);
        node.wait_until("the apply is canceled", || !is_open(&node));
    });
}

#[test]
fn a_supervisor_keeps_no_inherited_files_open() {
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
        node.wait_until("the apply is pending", || supervisor(&node).is_some());
        let process = supervisor(&node).expect("one").as_raw_nonzero();
        let open = node.sh(&format!("ls -l /proc/{process}/fd"));
        assert!(!open.contains("inherited") && !open.contains("/pipe"), "{open}");
        // The command itself has these files open.
        let own = node.sh(&format!("ls -l /proc/{}/fd", child.id()));
        assert!(own.contains("inherited"), "{own}");
        node.hostgw_ok(&["cancel"]);
        child.wait().expect("our child");
    });
}

/// If a supervisor hangs without being stopped, its command takes over 10 seconds after the deadline.
#[cfg(feature = "fault-injection")]
#[test]
fn a_hanging_supervisor_is_replaced_after_its_grace_period() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let started = Instant::now();
        let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", "3s"]);
        // A point that it passes while the apply is pending.
        command
            .env("HOSTGW_FAULT_SUPERVISOR", "hang:24")
            .env("HOSTGW_FAULT_MARK", node.folder().join("mark"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
        node.wait_until("the apply is pending", || supervisor(&node).is_some());
        let process = supervisor(&node).expect("one").as_raw_nonzero();
        node.wait_until("the supervisor hangs", || node.folder().join("mark").exists());
        node.hostgw_ok(&["status"]).says("rolls back at");
        let outcome = end(&node, child).expect(8);
        outcome.warns("this command now enforces the deadline").warns("was not confirmed by");
        let elapsed = started.elapsed();
        assert!((13..20).contains(&elapsed.as_secs()), "given up after {elapsed:?}");
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "the supervisor still exists");
        node.assert_unchanged(&before, "a supervisor that hangs");
    });
}

/// At every point of an automatic rollback, `status` reports the apply.
#[cfg(feature = "fault-injection")]
#[test]
fn an_apply_never_disappears_from_the_status() {
    const THREADS: usize = 6;
    /// From this point on, the supervisor has the lock.
    const FIRST: usize = 10;
    let privilege = if is_root() { Privilege::Root } else { Privilege::User };
    let reported: usize = thread::scope(|scope| {
        let start = |first| scope.spawn(move || points_of_a_rollback(privilege, (first..).step_by(THREADS)));
        let all: Vec<_> = (FIRST..FIRST + THREADS).map(start).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert!(reported > 20, "stopped at {reported} points after the deadline");
}

/// Stops the supervisor at each of `points` while its command is gone. Returns the number of points at which it was
/// rolling back.
#[cfg(feature = "fault-injection")]
fn points_of_a_rollback(privilege: Privilege, points: impl Iterator<Item = usize>) -> usize {
    let node = node(privilege);
    let mut reported = 0;
    for point in points {
        let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", "1s"]);
        command.env("HOSTGW_FAULT_SUPERVISOR", format!("stop:{point}"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("hostgw");
        let is_there = |name: &str| node.state_dir().is_some_and(|dir| dir.join(name).exists());
        node.wait_until("the apply is in effect", || is_there("wait/pending.json"));
        // The supervisor takes over the lock before the first write, whether it is stopped by now or not.
        let supervisor = holder(&node).map(|(process, _)| process);
        child.kill().expect("our child");
        child.wait().expect("our child");
        let stopped = || supervisor.is_some_and(is_stopped);
        let has_ended = || supervisor.is_none_or(|process| !is_running(process));
        node.wait_until("the supervisor is stopped or has ended", || stopped() || has_ended());
        let status = node.hostgw_ok(&["status"]);
        let is_reported = ["Pending: apply", "Rolled back: apply", "Unfinished: apply"]
            .iter()
            .any(|word| status.stdout.contains(word));
        assert!(is_reported, "stopped at {point}: {status}");
        if has_ended() {
            return reported;
        }
        let is_undecided =
            ["rolls back at", "cannot roll back at"].iter().any(|word| status.stdout.contains(word));
        reported += usize::from(!is_undecided);
        kill(supervisor, Signal::CONT);
        node.wait_until("the supervisor has ended", has_ended);
        assert!(node.hostgw_ok(&["status"]).stdout.contains("Rolled back: apply"), "stopped at {point}");
    }
    reported
}

//! `apply --confirm`: an apply that is not confirmed is rolled back, whatever happens to the waiting processes.

use std::{
    io::Read,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};

#[cfg(feature = "fault-injection")]
use super::stopped::Stopped;
use super::{holder, is_open, node, pending, settled, supervisor};
use crate::support::namespace::{Namespace, Outcome, Privilege, Snapshots, can_become_nobody, each, feed};

/// Longer than any test runs.
const LONG: &str = "10m";

fn start(node: &Namespace, time: &str) -> Child {
    let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", time]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw")
}

/// Waits until the apply is pending or has ended. Returns whether it ended.
fn ends_before_it_is_pending(node: &Namespace, child: &mut Child) -> bool {
    let mut ended = false;
    node.wait_until("the end, or the pending apply", || {
        ended = child.try_wait().expect("our child").is_some();
        ended || supervisor(node).is_some()
    });
    ended
}

fn end(node: &Namespace, child: Child) -> Outcome {
    let output = child.wait_with_output().expect("our child");
    Outcome::from_output(node, "hostgw apply --yes --confirm TIME", output)
}

fn file(node: &Namespace, name: &str) -> Option<String> {
    std::fs::read_to_string(node.state_dir()?.join(name)).ok()
}

fn is_pending(node: &Namespace) -> bool {
    file(node, "wait/pending.json").is_some()
}

fn kill(process: Pid, signal: Signal) {
    kill_process(process, signal).expect("a process of ours");
}

fn process(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The deadline of the pending apply, by the system clock.
fn deadline(node: &Namespace) -> SystemTime {
    let pending: serde_json::Value =
        serde_json::from_str(&file(node, "wait/pending.json").expect("a pending apply")).expect("JSON");
    let milliseconds = pending["content"]["deadline"].as_u64().expect("a number");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(
        now.tv_sec.try_into().expect("after the boot"),
        now.tv_nsec.try_into().expect("nanoseconds"),
    );
    SystemTime::now() - now + Duration::from_millis(milliseconds)
}

/// Waits for the rollback, and asserts that it happens after the deadline, within the promised 2 seconds.
#[track_caller]
fn assert_rolls_back_on_time(node: &Namespace, before: &str, after_what: &str) {
    let deadline = deadline(node);
    let mut in_effect = SystemTime::now();
    node.wait_until("it is rolled back", || {
        let looked = SystemTime::now();
        let is_open = is_open(node);
        if is_open {
            in_effect = looked;
        }
        !is_open
    });
    let now = SystemTime::now();
    assert!(now >= deadline, "{after_what}: rolled back too soon");
    assert!(
        now < deadline + Duration::from_secs(2),
        "{after_what}: rolled back {:?} late",
        now.duration_since(deadline)
    );
    assert!(in_effect + Duration::from_secs(1) > deadline, "{after_what}: it was looked at too seldom");
    node.assert_unchanged(before, after_what);
}

#[test]
fn an_unconfirmed_apply_is_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let child = start(&node, "1s");
        node.wait_until("the apply is pending", || is_pending(&node));
        assert_rolls_back_on_time(&node, &before, "the end of the time");
        snapshots.compare("confirm-expired", &end(&node, child).expect(8));
        snapshots.compare("confirm-expired-status", &node.hostgw_ok(&["status"]));
        snapshots.compare("confirm-too-late", &node.hostgw(&["confirm"]).expect(8));
        node.hostgw_ok(&["cancel"]).says("is already rolled back");
        node.hostgw_ok(&["status", "--history"]).says("The history is empty");
        // The next apply is independent of it, and the status shows the current state.
        node.hostgw_ok(&["apply", "--yes"]);
        assert!(!node.hostgw_ok(&["status"]).stdout.contains("Rolled back"));
        snapshots.conclude();
    });
}

#[test]
fn a_confirmed_apply_stays_in_effect() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let child = pending(&node, LONG, &[]);
        let status = node.hostgw_ok(&["status"]);
        status.says("Pending: apply 1 (").says("unless you run `hostgw confirm 1`").says("Drift: none");
        let json = node.hostgw_ok(&["status", "--json"]).json();
        let left = json["pending"]["remainingSeconds"].as_u64().expect("a number");
        assert!((1..=600).contains(&left), "{json:#}");
        assert_eq!(json["pending"]["node"], "linux-1");
        assert_eq!(json["pending"]["id"], 1);
        node.hostgw_ok(&["plan"]).says("No changes").warns("may be rolled back");
        node.hostgw_ok(&["status", "--history"]).says("1 (unfinished)");
        snapshots.compare("confirm", &node.hostgw_ok(&["confirm"]));
        snapshots.compare("confirm-apply", &end(&node, child).expect(0));
        snapshots.compare("confirm-already", &node.hostgw(&["confirm"]).expect(8));
        node.hostgw_ok(&["cancel"]).says("no apply is pending");
        settled(&node);
        assert_eq!(node.managed_routes().len(), 3);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "confirm and rollback");
        node.hostgw(&["confirm"]).expect(8).warns("no apply is pending here");
        snapshots.conclude();
    });
}

/// Cancels immediately: by `hostgw cancel`, by `hostgw rollback`, by a signal to the command or to its supervisor.
#[test]
fn a_canceled_apply_is_rolled_back() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut snapshots = Snapshots::default();
        let child = pending(&node, LONG, &[]);
        snapshots.compare("cancel", &node.hostgw_ok(&["cancel"]));
        node.assert_unchanged(&before, "cancel");
        snapshots.compare("cancel-apply", &end(&node, child).expect(8));
        node.hostgw(&["confirm"]).expect(8).warns("was canceled, and was rolled back");

        let child = pending(&node, LONG, &[]);
        snapshots.compare("cancel-by-rollback", &node.hostgw_ok(&["rollback", "--yes"]));
        node.assert_unchanged(&before, "rollback");
        end(&node, child).expect(8);

        for signal in [Signal::INT, Signal::TERM] {
            let child = pending(&node, LONG, &[]);
            kill(process(&child), signal);
            let outcome = end(&node, child).expect(130);
            outcome.warns("Rolled back and verified");
            node.assert_unchanged(&before, "a signal to the command");

            let child = pending(&node, LONG, &[]);
            kill(holder(&node).expect("a lock").0, signal);
            end(&node, child).expect(8);
            node.assert_unchanged(&before, "a signal to the supervisor");
        }
        snapshots.conclude();
    });
}

#[test]
fn killing_the_command_does_not_affect_the_deadline() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut child = pending(&node, "5s", &[]);
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert_eq!(node.managed_routes().len(), 3, "it is in effect until the deadline");
        node.hostgw_ok(&["status"]).says("Pending: apply 1 (");
        assert_rolls_back_on_time(&node, &before, "kill -9 of the command");
        // The supervisor records the outcome once everything is done.
        node.wait_until("the status reports it", || {
            node.hostgw_ok(&["status"]).stdout.contains(", not confirmed by")
        });

        // It can also still be confirmed.
        let mut child = pending(&node, LONG, &[]);
        child.kill().expect("our child");
        child.wait().expect("our child");
        node.hostgw_ok(&["confirm"]);
        settled(&node);
    });
}

/// The terminal hangs up, which ends its whole session.
#[test]
fn a_hangup_does_not_affect_the_deadline() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut terminal = node
            .on_terminal("echo $$ >pid; exec \"$HOSTGW\" apply --yes --confirm 5s")
            .spawn()
            .expect("script");
        node.wait_until("the apply is pending", || supervisor(&node).is_some());
        let command = node.sh("cat pid").trim().to_owned();
        terminal.kill().expect("our child");
        terminal.wait().expect("our child");
        node.wait_until("the command ended", || !std::path::Path::new(&format!("/proc/{command}")).exists());
        assert!(is_pending(&node), "it is in effect until the deadline");
        assert_rolls_back_on_time(&node, &before, "a hangup");
    });
}

/// A terminal shows a countdown.
#[test]
fn a_terminal_shows_the_remaining_time() {
    each(|privilege| {
        let node = node(privilege);
        let mut terminal = node.on_terminal("\"$HOSTGW\" apply --yes --confirm 5s").spawn().expect("script");
        let mut shown = String::new();
        terminal.stdout.take().expect("piped").read_to_string(&mut shown).expect("text");
        let code = terminal.wait().expect("our child").code();
        assert_eq!(code, Some(8), "{shown}");
        for text in
            ["2 s left to run hostgw confirm", "1 s left to run hostgw confirm", "was not confirmed by"]
        {
            assert!(shown.contains(text), "{shown}");
        }
    });
}

/// If the supervisor is killed, the command takes over.
#[test]
fn the_command_takes_over_from_a_killed_supervisor() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let child = pending(&node, "5s", &[]);
        let (supervisor, _) = holder(&node).expect("a lock");
        assert_ne!(supervisor, process(&child));
        kill(supervisor, Signal::KILL);
        assert_rolls_back_on_time(&node, &before, "kill -9 of the supervisor");
        end(&node, child).expect(8).warns("this command now enforces the deadline");

        let child = pending(&node, LONG, &[]);
        kill(holder(&node).expect("a lock").0, Signal::KILL);
        node.hostgw_ok(&["confirm"]);
        end(&node, child).expect(0);
        settled(&node);
    });
}

/// If both are killed, nothing rolls back automatically, and every command reports that.
#[test]
fn an_apply_without_processes_is_reported_and_undone_by_the_next() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let alone = |time: &str| {
            let mut child = pending(&node, time, &[]);
            child.kill().expect("our child");
            child.wait().expect("our child");
            kill(holder(&node).expect("a lock").0, Signal::KILL);
            let process = holder(&node).expect("a lock").0.as_raw_nonzero();
            let has_ended = || {
                let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
                stat.map_or(true, |stat| stat.contains(") Z "))
            };
            node.wait_until("the supervisor ended", has_ended);
        };
        alone("1s");
        thread::sleep(Duration::from_secs(1));
        let mut snapshots = Snapshots::default();
        let late =
            "has not been rolled back: its supervisor was killed; run `hostgw rollback` to roll it back";
        snapshots.compare("confirm-supervisor-lost", &node.hostgw(&["confirm"]).expect(8));
        snapshots.compare("confirm-supervisor-lost-plan", &node.hostgw(&["plan"]).expect(0));
        node.hostgw_ok(&["status"]).says("was not confirmed by").says(late);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "rollback");
        node.hostgw_ok(&["status"]).says("Last transaction: none\n");

        alone("1s");
        thread::sleep(Duration::from_secs(1));
        node.hostgw_ok(&["apply", "--yes"]).warns("Rolled back apply");
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "apply and rollback");

        // Before the deadline, it can still be confirmed or canceled without these processes.
        alone(LONG);
        node.hostgw_ok(&["status"]).says("cannot roll back at").says("run `hostgw confirm");
        node.hostgw_ok(&["plan"]).warns("its supervisor was killed\n  help: run `hostgw confirm");
        node.hostgw_ok(&["cancel"]);
        node.assert_unchanged(&before, "cancel");
        alone(LONG);
        node.hostgw_ok(&["confirm"]);
        settled(&node);
        snapshots.conclude();
    });
}

/// No other apply runs while one is pending.
#[test]
fn another_apply_waits_for_the_decision() {
    each(|privilege| {
        let node = node(privilege);
        let child = pending(&node, LONG, &[]);
        let mut snapshots = Snapshots::default();
        let second = node.hostgw(&["apply", "--yes", "--lock-timeout", "100ms"]).expect(4);
        snapshots.compare("confirm-locked", &second);
        let mut command = node.hostgw_command(&["apply", "--yes"]);
        let third = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
        node.hostgw_ok(&["confirm"]);
        end(&node, child).expect(0);
        end(&node, third).expect(0).says("No changes");
        snapshots.conclude();
    });
}

/// The first decision wins, and every command reports the same one.
#[test]
fn the_first_decision_wins() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for round in 0..6 {
            let child = pending(&node, LONG, &[]);
            let verbs = if round % 2 == 0 { ["confirm", "cancel"] } else { ["cancel", "confirm"] };
            let started = verbs.map(|verb| {
                let mut command = node.hostgw_command(&[verb]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw")
            });
            let ended = started.map(|child| end(&node, child));
            let [first, second] = ended;
            let (confirm, cancel) = if round % 2 == 0 { (first, second) } else { (second, first) };
            let apply = end(&node, child);
            match apply.code {
                0 => {
                    confirm.expect(0);
                    assert!(cancel.code != 0 || cancel.stdout.contains("no apply is pending"), "{cancel}");
                    settled(&node);
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
                8 => {
                    cancel.expect(0);
                    confirm.expect(8);
                }
                _ => panic!("{apply}"),
            }
            node.assert_unchanged(&before, "a race");
        }
    });
}

/// A confirmation at the last moment is in time or too late, and reports which.
#[test]
fn a_confirmation_at_the_last_moment_is_in_time_or_too_late() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for lead in [0, 10, 30, 60, 100] {
            let child = pending(&node, "1s", &[]);
            let then = deadline(&node) - Duration::from_millis(lead);
            thread::sleep(then.duration_since(SystemTime::now()).unwrap_or_default());
            let confirm = node.hostgw(&["confirm"]);
            let apply = end(&node, child);
            assert_eq!(confirm.code, apply.code, "{confirm}\n{apply}");
            if apply.code == 0 {
                settled(&node);
                node.hostgw_ok(&["rollback", "--yes"]);
            } else {
                apply.expect(8);
            }
            node.assert_unchanged(&before, "a confirmation in the last moment");
        }
    });
}

/// A conflict prevents the complete rollback: this is reported, and a later rollback finishes.
#[test]
fn an_incomplete_rollback_is_reported() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("ip route add 10.244.1.0/24 via 172.30.0.9 proto 87");
        let before = node.witness();
        let child = pending(&node, LONG, &[]);
        node.sh("ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.30.0.7");
        let mut snapshots = Snapshots::default();
        snapshots.compare("cancel-incomplete", &node.hostgw(&["cancel"]).expect(7));
        end(&node, child).expect(7);
        snapshots.compare("cancel-incomplete-status", &node.hostgw_ok(&["status"]));
        node.hostgw(&["confirm"]).expect(8).warns("run `hostgw rollback` to restore the previous state");
        node.sh("ip route del 10.244.1.0/24");
        node.hostgw_ok(&["rollback", "--yes"]);
        node.assert_unchanged(&before, "a rollback that was finished");
        let status = node.hostgw_ok(&["status"]);
        status.says("Rolled back: apply 1 ");
        assert!(!status.stdout.contains("incomplete"), "{status}");
        let status = node.hostgw_ok(&["status", "--json"]).json();
        assert!(status["unconfirmed"].is_object() && status["unconfirmed"]["failure"].is_null(), "{status}");
        snapshots.conclude();
    });
}

/// Nothing is changed without a supervisor that could roll it back.
#[test]
fn without_a_supervisor_nothing_is_changed() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for time in ["0s", "500ms", "25h", "90", "soon"] {
            node.hostgw(&["apply", "--yes", "--confirm", time]).expect(64);
        }
        // Raises the limit of open files until the apply succeeds.
        let mut without_supervisor = 0;
        for files in 4.. {
            let mut command = node.command("sh");
            command
                .args(["-c", &format!("ulimit -n {files}; exec \"$HOSTGW\" apply --yes --confirm {LONG}")]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
            let ended = ends_before_it_is_pending(&node, &mut child);
            if !ended {
                node.hostgw_ok(&["cancel"]);
                end(&node, child).expect(8);
                break;
            }
            let outcome = end(&node, child);
            assert_ne!(outcome.code, 0, "{outcome}");
            without_supervisor += usize::from(outcome.stderr.contains("cannot start the supervisor"));
            node.assert_unchanged(&before, &format!("an apply with {files} files"));
        }
        assert!(without_supervisor > 0, "the supervisor never failed to start");
        // The internal verb of the supervisor is refused to everyone else.
        node.hostgw(&["supervise"]).expect(1);
        node.assert_unchanged(&before, "a supervisor that no apply started");
    });
}

/// A confirmed apply stays in effect, even if all processes are killed before the confirmation is carried out.
#[test]
fn the_next_apply_does_not_undo_a_confirmed_one() {
    each(|privilege| {
        let node = node(privilege);
        let mut child = pending(&node, LONG, &[]);
        let (supervisor, _) = holder(&node).expect("a lock");
        child.kill().expect("our child");
        child.wait().expect("our child");
        kill(supervisor, Signal::STOP);
        node.sh("cd state/net-*/wait; confirmed=$(echo *-confirmed.json)
                 mv \"$confirmed\" \"${confirmed%-confirmed.json}.json\"");
        kill(supervisor, Signal::KILL);
        node.hostgw_ok(&["apply", "--yes"])
            .says("No changes")
            .warns("was confirmed, and will not be rolled back");
        settled(&node);
    });
}

/// A confirmation that could not be carried out can be repeated.
#[test]
fn a_failed_confirmation_can_be_repeated() {
    each(|privilege| {
        let node = node(privilege);
        let child = pending(&node, LONG, &[]);
        // The history entry of the journal is blocked, so carrying out the confirmation fails.
        let dir = node.state_dir().expect("a state directory").display().to_string();
        node.sh(&format!("mkdir {dir}/history/000001.json"));
        node.hostgw(&["confirm"]).expect(1);
        end(&node, child).expect(1);
        node.sh(&format!("rmdir {dir}/history/000001.json"));
        node.hostgw_ok(&["confirm"]).warns("it will not be rolled back");
        settled(&node);
    });
}

/// Opening the lock file does not give a process the lock.
#[test]
fn a_supervisor_without_the_lock_does_nothing() {
    each(|privilege| {
        let node = node(privilege);
        let child = pending(&node, LONG, &[]);
        node.sh("cd state/net-*
                 status=0; timeout 5 \"$HOSTGW\" supervise </dev/null >>lock 2<. || status=$?; test $status = 1");
        assert!(supervisor(&node).is_some());
        node.hostgw_ok(&["confirm"]);
        end(&node, child).expect(0);
    });
}

/// The command is killed at every exchange: the supervisor immediately undoes its changes.
#[cfg(feature = "fault-injection")]
#[test]
fn the_supervisor_rolls_back_a_command_that_is_killed_midway() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut killed_midway = 0;
        for number in 1.. {
            let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", LONG]);
            command.env("HOSTGW_FAULT", format!("kill:{number}")).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("hostgw");
            // An apply in effect may not have reached the point where it is killed.
            if !ends_before_it_is_pending(&node, &mut child) {
                node.hostgw_ok(&["cancel"]);
                let outcome = end(&node, child);
                if outcome.code != 137 {
                    outcome.expect(8);
                    break;
                }
            }
            killed_midway += usize::from(is_open(&node));
            node.wait_until("the supervisor rolled back", || !is_open(&node) || supervisor(&node).is_some());
            if supervisor(&node).is_some() {
                // It was complete, but had not reported so.
                node.hostgw_ok(&["cancel"]);
            }
            node.wait_until("the supervisor ended", || node.are_free("state/net-"));
            node.assert_unchanged(&before, &format!("kill:{number}"));
        }
        assert!(killed_midway > 0, "no kill came midway");
    });
}

/// The command is stopped, as by Ctrl-Z, when the apply is in effect but not yet reported.
#[cfg(feature = "fault-injection")]
#[test]
fn a_stopped_command_does_not_extend_the_deadline() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        // The command always passes more than 30 points before it ends.
        for point in 30.. {
            let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", "1s"]);
            let stopped = Stopped::at(&node, &mut command, "hostgw apply --confirm 1s, stopped", point)
                .unwrap_or_else(|outcome| panic!("it never waited: {outcome}"));
            if is_pending(&node) {
                assert_rolls_back_on_time(&node, &before, "a command that was stopped");
                stopped.resume().expect(8);
                return;
            }
            stopped.kill();
            node.wait_until("the supervisor ended", || node.are_free("state/net-"));
        }
    });
}

/// If the rollback of the supervisor fails, this is reported (7), and a later rollback finishes.
#[cfg(feature = "fault-injection")]
#[test]
fn a_supervisor_reports_a_failed_rollback() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        let mut incomplete = 0;
        for number in 1.. {
            let mark = node.folder().join("fault");
            let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", LONG]);
            command.env("HOSTGW_FAULT_SUPERVISOR", format!("fail-from:{number}"));
            command.env("HOSTGW_FAULT_MARK", &mark).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("hostgw");
            let ended = ends_before_it_is_pending(&node, &mut child);
            if !ended {
                node.hostgw(&["cancel"]);
            }
            let outcome = end(&node, child);
            let is_over = std::fs::remove_file(&mark).is_err();
            match outcome.code {
                7 => {
                    incomplete += 1;
                    outcome.warns("was canceled");
                    let words = ["the rollback is incomplete", "could not update its records"];
                    assert!(words.iter().any(|words| outcome.stderr.contains(words)), "{outcome}");
                    node.hostgw_ok(&["rollback", "--yes"]);
                }
                // The supervisor could not even begin and the command took over, or nothing was changed without it.
                1 | 8 => assert!(!is_open(&node), "{outcome}"),
                _ => panic!("{outcome}"),
            }
            node.assert_unchanged(&before, &format!("fail-from:{number}"));
            if is_over {
                break;
            }
        }
        assert!(incomplete > 0, "no rollback failed");
    });
}

/// Runs `hostgw apply` on a terminal in an SSH session from `client`, and types `answer`.
fn over_ssh(node: &Namespace, client: &str, inside: &str, answer: &str) -> Outcome {
    let started = Instant::now();
    let mut child = node
        .on_terminal(inside)
        .env("SSH_CONNECTION", format!("{client} 50000 172.30.0.11 22"))
        .spawn()
        .expect("script");
    feed(&mut child, answer);
    let outcome = Outcome::from_output(node, inside, child.wait_with_output().expect("our child"));
    assert!(started.elapsed() < Duration::from_secs(60), "{outcome}");
    outcome
}

const APPLY: &str = "\"$HOSTGW\" apply";
/// As with sudo, which removes the variable.
const SUDO: &str = "env -u SSH_CONNECTION \"$HOSTGW\" apply; exit $?";

#[test]
fn an_ssh_session_at_risk_is_offered_a_confirmation() {
    each(|privilege| {
        let node = node(privilege);
        let before = node.witness();
        for inside in [APPLY, SUDO] {
            // A client whose route does not change.
            let outcome = over_ssh(&node, "172.30.0.99", inside, "n\n").expect(8);
            outcome.says("Apply this plan to node linux-1? [y/N]");
            assert!(!outcome.stdout.contains("SSH session"), "{outcome}");
            // A client among the pods of another node.
            let outcome = over_ssh(&node, "10.244.1.7", inside, "n\n").expect(8);
            outcome.says("this plan changes the route to 10.244.1.7, the client of your SSH session");
            outcome.says("Answer c to roll back after 90s unless you confirm. [y/c/N]");
            node.assert_unchanged(&before, "a declined apply");
        }
        over_ssh(&node, "10.244.1.7", APPLY, "y\n").expect(0);
        settled(&node);
        node.hostgw_ok(&["rollback", "--yes"]);
        // With `--yes`, hostgw prints a hint instead of prompting.
        let outcome = over_ssh(&node, "10.244.1.7", "\"$HOSTGW\" apply --yes", "").expect(0);
        outcome.says("pass --confirm 90s to roll back automatically");
        node.hostgw_ok(&["rollback", "--yes"]);
        // The other answer.
        let mut child = node
            .on_terminal(APPLY)
            .env("SSH_CONNECTION", "10.244.1.7 50000 172.30.0.11 22")
            .spawn()
            .expect("script");
        feed(&mut child, "c\n");
        node.wait_until("the apply is pending", || supervisor(&node).is_some());
        node.hostgw_ok(&["cancel"]);
        let output = child.wait_with_output().expect("our child");
        Outcome::from_output(&node, "hostgw apply, answered c", output).expect(8);
        node.assert_unchanged(&before, "a canceled apply");
    });
}

/// Anyone who can write to the state directory could make root change the kernel arbitrarily.
#[test]
fn a_state_directory_that_others_can_write_is_refused() {
    each(|privilege| {
        let node = node(privilege);
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        let before = node.witness();
        node.sh("chmod 777 state/net-*");
        let refused = node.hostgw(&["apply", "--yes", "--confirm", LONG]).expect(1);
        refused.warns("is writable by group or others (mode 0777)").warns("HOSTGW_STATE_DIR elsewhere");
        node.assert_unchanged(&before, "a state directory that others can write");
        node.sh("chmod 700 state/net-*");
        if privilege == Privilege::Root && can_become_nobody() {
            node.sh("chown 65534 state/net-*");
            node.hostgw(&["apply", "--yes"]).expect(1).warns("belongs to uid 65534, expected root");
            node.assert_unchanged(&before, "a state directory of another user");
        }
    });
}

/// A confirmation just before the next apply becomes pending refers to the previous one, which is already confirmed:
/// it confirms nothing, and reports that.
#[test]
fn a_confirmation_without_a_pending_apply_fails() {
    each(|privilege| {
        let node = node(privilege);
        let child = pending(&node, LONG, &[]);
        node.hostgw_ok(&["confirm"]).warns("Confirmed apply 1 (");
        end(&node, child).expect(0);
        node.hostgw(&["confirm"]).expect(8).warns("apply 1 (").warns("already confirmed");
        node.sh("ip route del 10.244.1.0/24");
        let child = pending(&node, LONG, &[]);
        // A late confirmation refers to the first apply.
        node.hostgw(&["confirm", "1"]).expect(8).warns("apply 1 is not pending: apply 2 (");
        node.hostgw(&["cancel", "1"]).expect(8).warns("apply 1 is not pending: apply 2 (");
        assert!(is_pending(&node));
        node.hostgw_ok(&["confirm", "2"]).warns("Confirmed apply 2 (");
        end(&node, child).expect(0).warns("`hostgw confirm 2`");
        for id in ["1", "2"] {
            node.hostgw(&["confirm", id]).expect(8).warns("already confirmed");
        }
        node.hostgw(&["confirm", "99"]).expect(8).warns("no apply 99 is pending here");
        settled(&node);
    });
}

/// IDs are never reused, so a late confirmation of an apply that was rolled back cannot confirm another one.
#[test]
fn ids_are_never_reused() {
    each(|privilege| {
        let node = node(privilege);
        for id in 1..4 {
            let child = pending(&node, LONG, &[]);
            let json = node.hostgw_ok(&["status", "--json"]).json();
            assert_eq!(json["pending"]["id"], id);
            if id > 1 {
                node.hostgw(&["confirm", &(id - 1).to_string()]).expect(8);
            }
            node.hostgw_ok(&["cancel", &id.to_string()]).warns(&format!("Rolled back apply {id} ("));
            end(&node, child).expect(8);
            node.hostgw(&["confirm", &id.to_string()]).expect(8).warns("was canceled, and was rolled back");
        }
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["rollback", "--yes"]);
        node.hostgw_ok(&["apply", "--yes"]);
        node.hostgw_ok(&["status", "--history"]).says("\n5 ");
    });
}

/// The ID of an apply is recorded before its journal.
#[cfg(feature = "fault-injection")]
#[test]
fn an_apply_that_is_about_to_begin_is_not_reported_as_over() {
    let privilege = if crate::support::namespace::is_root() { Privilege::Root } else { Privilege::User };
    for point in 5.. {
        let node = node(privilege);
        let mut command = node.hostgw_command(&["apply", "--yes", "--confirm", LONG]);
        let stopped = Stopped::at(&node, &mut command, "hostgw apply", point);
        let stopped = stopped.unwrap_or_else(|outcome| panic!("no journal: {outcome}"));
        let confirm = node.hostgw(&["confirm", "1", "--wait", "10ms", "--lock-timeout", "0s"]);
        assert!([4, 8].contains(&confirm.code), "{confirm}");
        assert!(!confirm.stderr.contains("was rolled back"), "stopped at {point}: {confirm}");
        let is_open = is_open(&node);
        stopped.kill();
        if is_open {
            return;
        }
    }
}

/// `--wait` may start before the apply.
#[test]
fn a_confirmation_can_wait_for_its_apply() {
    each(|privilege| {
        let node = node(privilege);
        for arguments in [&["confirm", "--wait", "2m"][..], &["confirm", "2", "--wait", "2m"]] {
            let mut command = node.hostgw_command(arguments);
            let confirm = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hostgw");
            let child = start(&node, LONG);
            let confirmed = confirm.wait_with_output().expect("our child");
            Outcome::from_output(&node, "hostgw confirm --wait", confirmed)
                .expect(0)
                .warns("Confirmed apply");
            end(&node, child).expect(0);
            node.sh("ip route del 10.244.1.0/24");
        }
        node.hostgw(&["confirm", "--wait", "100ms"]).expect(8).warns("already confirmed");
        // `--wait` does not wait for an apply that has already ended.
        node.hostgw(&["confirm", "1", "--wait", "10m"]).expect(8).warns("already confirmed");
        node.hostgw(&["confirm", "9", "--wait", "100ms"])
            .expect(8)
            .warns("no apply 9 became pending within 100ms");
    });
}

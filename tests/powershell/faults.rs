//! A fault at every step leaves the previous or the planned state, or the remaining commands are listed.

use proptest::prelude::*;

use super::{CLUSTER, assert_exit_code, machine, script_of, starts};
use crate::support::powershell::{Fault, Machine, run};

/// Returns whether to run the case with this number: one in three, or all with `HOSTGW_WHOLE=1`.
pub fn is_sampled(number: usize) -> bool {
    std::env::var_os("HOSTGW_WHOLE").is_some() || number.is_multiple_of(3)
}

/// The number of steps in a run without faults.
fn steps_of(start: &Machine, script: &str) -> usize {
    let mut machine = start.clone();
    run(&mut machine, script, &[]);
    machine.steps.len()
}

/// A fault leaves the previous state, the planned state, or a list of the remaining commands.
#[test]
fn a_fault_at_any_step_leaves_the_previous_or_the_planned_state() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        let steps = steps_of(&start, &script);
        for step in 0..steps {
            for (at, fault) in
                [Fault::Refuse, Fault::Late, Fault::Ignore, Fault::Stop].into_iter().enumerate()
            {
                if !is_sampled(step + at) {
                    continue;
                }
                let mut machine = start.clone();
                machine.faults.insert(step, fault);
                let outcome = run(&mut machine, &script, &[]);
                let context = format!("{what}, step {step} {fault:?}: {outcome:#?}\n{:#?}", machine.steps);
                let (before, now) = (start.network(), machine.network());
                match outcome.code {
                    Some(0) => assert_eq!(now, after.network(), "{context}"),
                    // It stopped after the commit, before the final message.
                    None if step + 1 == steps => assert_eq!(now, after.network(), "{context}"),
                    Some(6 | 1 | 4 | 130) | None => assert_eq!(now, before, "{context}"),
                    Some(7) => assert_eq!(now, before, "only the records are outdated: {context}"),
                    other => panic!("{other:?}: {context}"),
                }
                // In any case, the next run completes.
                machine.faults.clear();
                let outcome = run(&mut machine, &script, &[]);
                assert_eq!(outcome.code, Some(0), "{outcome:#?} after {context}");
                assert_eq!(machine.network(), after.network(), "{context}");
            }
        }
    }
}

/// After a power loss or a kill, the next run or -Rollback restores the previous state.
#[test]
fn the_next_run_recovers_from_a_kill_at_any_step() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        for step in 0.. {
            let mut finished = false;
            for fault in [Fault::Kill, Fault::KillAfter, Fault::PowerCut] {
                if !is_sampled(step + fault as usize) {
                    continue;
                }
                let mut machine = start.clone();
                machine.faults.insert(step, fault);
                let outcome = run(&mut machine, &script, &[]);
                finished = outcome.code.is_some();
                if finished {
                    break;
                }
                machine.faults.clear();
                let is_committed = !machine.files.contains_key("C:\\Program Files\\hostgw\\journal.json");
                let context = format!("{what}, step {step} {fault:?}: {:#?}", machine.steps);
                let mut other = machine.clone();
                let outcome = run(&mut other, &script, &[]);
                assert_eq!(outcome.code, Some(0), "{outcome:#?} after {context}");
                assert_eq!(other.network(), after.network(), "{context}");
                if is_committed {
                    let state = machine.network();
                    assert!(state == start.network() || state == after.network(), "{context}");
                } else {
                    assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
                    assert_eq!(machine.network(), start.network(), "{context}");
                }
            }
            if finished {
                break;
            }
        }
    }
}

/// Two faults: one in the change, and one in its rollback. The remaining commands are listed, and executed once the
/// cause is fixed.
#[test]
fn an_incomplete_rollback_lists_the_remaining_commands() {
    let script = script_of(CLUSTER, "win-1");
    for (what, start, after) in starts() {
        let steps = steps_of(&start, &script);
        for step in 0..steps {
            let mut machine = start.clone();
            machine.denied_from = Some(step);
            let outcome = run(&mut machine, &script, &[]);
            let context = format!("{what}, from step {step}: {outcome:#?}");
            if outcome.code == Some(7) {
                assert!(outcome.stderr.contains("Remaining commands, in this order:"), "{context}");
                let left: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("  ")).collect();
                assert!(!left.is_empty(), "{context}");
                assert_ne!(machine.network(), start.network(), "{context}");
            } else {
                let state = if outcome.code == Some(0) { &after } else { &start };
                assert_eq!(machine.network(), state.network(), "{context}");
            }
            machine.denied_from = None;
            assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
            let outcome = run(&mut machine, &script, &["-Rollback"]);
            assert_exit_code(&outcome, 0);
            if what == "fresh" {
                assert_eq!(machine.network(), start.network(), "{context}");
            }
        }
    }
}

/// Routes that may exist on a machine: desired ones, and others with the same and with other destinations.
const ROUTES: [(i64, &str, &str); 9] = [
    (12, "10.244.0.0/24", "10.244.0.1"),
    (12, "10.244.2.0/25", "10.244.2.1"),
    (12, "10.244.8.0/21", "10.244.8.2"),
    (12, "10.244.1.0/24", "0.0.0.0"),
    (12, "172.30.0.11/32", "172.30.0.1"),
    (12, "10.244.0.0/24", "172.30.0.9"),
    (12, "10.244.77.0/24", "10.244.77.1"),
    (1, "10.244.2.0/25", "0.0.0.0"),
    (7, "10.244.1.0/24", "0.0.0.0"),
];

/// The stores that contain a route, its metrics, and whether hostgw manages it.
type StoredRoute = (Option<u8>, Option<u8>, bool);

fn random_machine() -> impl Strategy<Value = Machine> {
    let metric = || prop::option::weighted(0.5, prop::sample::select(vec![1_u8, 250]));
    let state = prop::collection::vec((metric(), metric(), any::<bool>()), ROUTES.len());
    (state, any::<[bool; 2]>()).prop_map(|(state, forwarding)| {
        let mut machine = machine();
        let mut owned = Vec::new();
        for ((index, destination, next_hop), (active, persistent, is_owned)) in
            ROUTES.into_iter().zip::<Vec<StoredRoute>>(state)
        {
            for (metric, store) in [(active, "A"), (persistent, "P")] {
                // The desired metrics, or others.
                let usual = if next_hop == "0.0.0.0" { 300 } else { 256 };
                if let Some(metric) = metric {
                    machine.route(index, destination, next_hop, if metric == 1 { 7 } else { usual }, store);
                }
            }
            if is_owned {
                let alias = machine.alias(index).unwrap();
                owned.push(
                    serde_json::json!({ "Alias": alias, "Destination": destination, "NextHop": next_hop }),
                );
            }
        }
        for (interface, forwards) in machine.interfaces.iter_mut().skip(1).zip(forwarding) {
            interface.forwarding.insert("IPv4", forwards);
        }
        let state = serde_json::json!({ "Format": 1, "Managed": owned, "Forwarding": [] });
        machine.files.insert("C:\\Program Files\\hostgw\\state.json".to_owned(), state.to_string());
        machine
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any faults on any state, one after the other: the result is never permanently in between.
    #[test]
    fn any_faults_on_any_state_leave_the_previous_or_the_planned_state(
        start in random_machine(),
        faults in prop::collection::btree_map(0_usize..40, prop::sample::select(vec![
            Fault::Refuse, Fault::Late, Fault::Ignore, Fault::Kill, Fault::KillAfter, Fault::Stop,
        ]), 0..4),
        denied_from in prop::option::weighted(0.3, 0_usize..40),
    ) {
        let script = script_of(CLUSTER, "win-1");
        let mut clean = start.clone();
        let outcome = run(&mut clean, &script, &["-Adopt"]);
        prop_assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
        let calls = clean.calls.len();
        prop_assert_eq!(run(&mut clean, &script, &[]).code, Some(0));
        prop_assert_eq!(clean.calls.len(), calls, "a second run");
        let mut machine = start.clone();
        (machine.faults, machine.denied_from) = (faults, denied_from);
        let outcome = run(&mut machine, &script, &["-Adopt"]);
        let is_whole = |machine: &Machine| [start.network(), clean.network()].contains(&machine.network());
        if !matches!(outcome.code, None | Some(7)) {
            prop_assert!(is_whole(&machine), "{:?}: {:#?}", outcome, machine.steps);
        }
        (machine.faults, machine.denied_from) = Default::default();
        let mut undone = machine.clone();
        let undo = run(&mut undone, &script, &["-Rollback"]);
        prop_assert_eq!(undo.code, Some(0), "{:#?} after {:#?}", undo, outcome);
        prop_assert!(is_whole(&undone), "{:?}: {:#?}", outcome, undone.steps);
        let again = run(&mut machine, &script, &["-Adopt"]);
        prop_assert_eq!(again.code, Some(0), "{:#?} after {:#?}", again, outcome);
        prop_assert_eq!(machine.network(), clean.network());
    }
}

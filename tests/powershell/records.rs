//! Damaged records: managed routes are never forgotten silently, and no record blocks the node.

use serde_json::{Value, json};

use super::{CLUSTER, applied, assert_exit_code, faults::is_sampled, machine, routes, script_of};
use crate::support::powershell::{Machine, real, run, run_both};

fn path(name: &str) -> String {
    format!("C:\\Program Files\\hostgw\\{name}")
}

/// A machine after two applies, and its script.
fn applied_twice() -> (Machine, String) {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    machine.route(12, "10.244.0.0/24", "10.244.0.1", 5, "A");
    assert_exit_code(&run(&mut machine, &script, &[]), 0);
    (machine, script)
}

/// Content that a power loss, an editor or another version may leave in a record.
fn damaged(text: &str) -> Vec<(&'static str, String)> {
    let format = |other: &str| {
        let replaced = text.replace("\"Format\":1", other);
        assert_ne!(replaced, text);
        replaced
    };
    vec![
        ("empty", String::new()),
        ("zeros", "\0".repeat(text.len())),
        ("a zero at the end", format!("{text}\0")),
        ("truncated", text[..text.len() / 2].to_owned()),
        ("another document", "{}".to_owned()),
        ("null", "null".to_owned()),
        ("another version", format("\"Format\":2")),
        ("an invalid version", format("\"Format\":\"1\"")),
    ]
}

/// Follows the advice of the error: moves the record aside.
fn move_aside(machine: &mut Machine, stderr: &str, name: &str) {
    let (from, to) = (path(name), path(&format!("{name}.damaged")));
    let message = format!("Move-Item -LiteralPath '{from}' -Destination '{to}'");
    assert!(stderr.contains(&message), "{message:?} not in {stderr}");
    let text = machine.files.remove(&from).unwrap();
    machine.files.insert(to, text);
}

#[test]
fn a_damaged_state_is_reported_and_never_counts_as_empty() {
    let (applied_twice, script) = applied_twice();
    for (what, text) in damaged(&applied_twice.files[&path("state.json")]) {
        for switches in [&[][..], &["-Destroy"], &["-WhatIf", "-Destroy"]] {
            let mut machine = applied_twice.clone();
            machine.files.remove(&path("state.json.old"));
            machine.files.insert(path("state.json"), text.clone());
            let before = (machine.network(), machine.files.clone());
            let outcome = run_both(&mut machine, &script, switches);
            assert_eq!(outcome.code, Some(1), "{what} {switches:?}: {outcome:#?}");
            let words = format!("error: cannot use {}: ", path("state.json"));
            assert!(outcome.stderr.starts_with(&words), "{outcome:#?}");
            assert_eq!((machine.network(), machine.files.clone()), before, "{what} {switches:?}");
            move_aside(&mut machine, &outcome.stderr, "state.json");
            assert_exit_code(&run(&mut machine, &script, &[]), 0);
            assert_exit_code(&run(&mut machine, &script, &["-Destroy"]), 0);
            assert!(routes(&machine).iter().all(|line| !line.contains("10.244.")), "{what}");
        }
    }
}

#[test]
fn the_previous_version_of_a_damaged_state_can_be_restored() {
    let (mut machine, script) = applied_twice();
    machine.files.insert(path("state.json"), String::new());
    let outcome = run_both(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 1);
    let (old, new) = (path("state.json.old"), path("state.json"));
    let message = format!("Copy-Item -LiteralPath '{old}' -Destination '{new}'");
    assert!(outcome.stderr.contains(&message) && outcome.stderr.contains("lists 5 routes"), "{outcome:#?}");
    let text = machine.files[&old].clone();
    machine.files.insert(new, text);
    assert_exit_code(&run(&mut machine, &script, &["-Destroy"]), 0);
    assert_eq!(machine.network(), super::machine().network(), "forwarding too");
}

#[test]
fn a_damaged_record_of_the_last_run_blocks_nothing() {
    let (applied_twice, script) = applied_twice();
    for (what, text) in damaged(&applied_twice.files[&path("last.json")]) {
        let mut machine = applied_twice.clone();
        machine.files.insert(path("last.json"), text);
        for _ in 0..2 {
            let before = (machine.network(), machine.files.clone());
            let outcome = run_both(&mut machine, &script, &["-Rollback"]);
            assert_eq!(outcome.code, Some(1), "{what}: {outcome:#?}");
            let words = format!("error: cannot use {}: ", path("last.json"));
            assert!(outcome.stderr.starts_with(&words), "{outcome:#?}");
            assert_eq!((machine.network(), machine.files.clone()), before, "{what}");
        }
        machine.route(12, "10.244.0.0/24", "10.244.0.1", 5, "A");
        let before = machine.network();
        assert_exit_code(&run(&mut machine, &script, &[]), 0);
        assert_eq!(machine.network(), applied_twice.network(), "{what}: the next run");
        assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
        assert_eq!(machine.network(), before, "{what}: a new record");
    }
}

#[test]
fn a_damaged_journal_is_reported_with_a_remedy() {
    let (applied_twice, script) = applied_twice();
    for (what, text) in damaged(&applied_twice.files[&path("last.json")]) {
        for switches in [&[][..], &["-Rollback"], &["-Destroy"]] {
            let mut machine = applied_twice.clone();
            machine.files.insert(path("journal.json"), text.clone());
            assert_exit_code(&run(&mut machine, &script, &["-WhatIf"]), 0);
            let before = machine.network();
            let outcome = run_both(&mut machine, &script, switches);
            assert_eq!(outcome.code, Some(7), "{what} {switches:?}: {outcome:#?}");
            let words = format!("error: cannot use {}: ", path("journal.json"));
            assert!(outcome.stderr.starts_with(&words), "{outcome:#?}");
            assert_eq!(machine.network(), before, "{what}");
            move_aside(&mut machine, &outcome.stderr, "journal.json");
            assert_exit_code(&run(&mut machine, &script, switches), 0);
        }
    }
}

/// Any field of any record that is missing or has another type: the error names the file, and nothing changes.
#[test]
fn every_field_of_every_record_is_validated_before_use() {
    let (applied_twice, script) = applied_twice();
    let wrong = [None, Some(json!(null)), Some(json!([1])), Some(json!({})), Some(json!(true))];
    let mut checked = 0;
    for (name, source, switches, code) in [
        ("state.json", "state.json", &[][..], 1),
        ("last.json", "last.json", &["-Rollback"], 1),
        ("journal.json", "last.json", &[], 7),
    ] {
        let record: Value = serde_json::from_str(&applied_twice.files[&path(source)]).unwrap();
        for pointer in fields_of(&record) {
            for wrong in &wrong {
                checked += 1;
                if !is_sampled(checked) {
                    continue;
                }
                let mut record = record.clone();
                replace(&mut record, &pointer, wrong.clone());
                let mut machine = applied_twice.clone();
                machine.files.insert(path(name), record.to_string());
                let before = machine.network();
                let outcome = run(&mut machine, &script, switches);
                let message = format!("{name} {pointer} {wrong:?}: {outcome:#?}");
                assert_eq!(outcome.code, Some(code), "{message}");
                assert!(
                    outcome.stderr.starts_with(&format!("error: cannot use {}: ", path(name))),
                    "{message}"
                );
                assert_eq!(machine.network(), before, "{message}");
            }
        }
    }
    assert!(checked > 150, "{checked}");
}

/// The fields that a script uses.
fn fields_of(record: &Value) -> Vec<String> {
    let mut found = vec!["/Format".to_owned()];
    for list in ["Managed", "Forwarding", "Changes"] {
        let Some(items) = record.get(list).and_then(Value::as_array) else { continue };
        found.push(format!("/{list}"));
        for (at, item) in items.iter().enumerate() {
            let names = item.as_object().unwrap().keys().filter(|name| *name != "Why");
            found.extend(names.map(|name| format!("/{list}/{at}/{name}")));
        }
    }
    if record.get("StateBefore").is_some() {
        found.push("/StateBefore".to_owned());
    }
    found
}

fn replace(record: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = record.pointer_mut(parent).unwrap();
    match value {
        Some(value) if value == json!([1]) && parent[name].is_array() => parent[name] = value,
        Some(value) => parent[name] = value,
        None => drop(parent.as_object_mut().unwrap().remove(name)),
    }
}

/// A folder in place of a record does not count as a missing record.
#[test]
fn a_folder_in_place_of_the_state_is_reported() {
    let (mut machine, script) = applied_twice();
    machine.files.remove(&path("state.json"));
    machine.folders.insert(path("state.json"));
    let before = machine.network();
    let outcome = run(&mut machine, &script, &["-Destroy"]);
    assert_exit_code(&outcome, 1);
    assert!(outcome.stderr.contains("state.json: it is a folder"), "{outcome:#?}");
    assert_eq!(machine.network(), before);
}

#[test]
fn the_size_of_the_transcript_is_limited() {
    let (mut machine, script) = applied_twice();
    let line = "2026-01-31T12:00:00.0000000Z - Remove-NetRoute\r\n";
    machine.files.insert(path("transcript.log"), line.repeat((1 << 20) / line.len() + 1));
    machine.route(12, "10.244.0.0/24", "10.244.0.1", 5, "A");
    assert_exit_code(&run_both(&mut machine, &script, &[]), 0);
    assert!(machine.files[&path("transcript.log")].len() < 1000);
    assert!(machine.files[&path("transcript.log.old")].len() > 1 << 20);
    assert_eq!(machine.network(), applied(super::machine()).network());
}

/// Cmdlets that list nothing, or that are missing, do not count as an empty machine: managed routes stay recorded.
#[test]
fn an_unreadable_machine_never_counts_as_empty() {
    let (applied_twice, script) = applied_twice();
    for switches in [&[][..], &["-Destroy"], &["-WhatIf"], &["-Rollback"]] {
        let mut machine = applied_twice.clone();
        machine.is_silent = true;
        let before = (machine.network(), machine.files[&path("state.json")].clone());
        let outcome = run_both(&mut machine, &script, switches);
        assert!(matches!(outcome.code, Some(1 | 7)), "{switches:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("Windows shows none"), "{outcome:#?}");
        assert_eq!((machine.network(), machine.files[&path("state.json")].clone()), before, "{switches:?}");
        machine.is_silent = false;
        assert_exit_code(&run(&mut machine, &script, &["-Rollback"]), 0);
    }
    if real::pwsh().is_some() {
        let mut machine = applied_twice.clone();
        let outcome = real::run_process(&mut machine, &script, |command, script| {
            let setup = "Remove-Module NetTCPIP; $env:PSModulePath = Join-Path $PSHOME 'Modules'";
            let call = format!("{setup}; & '{}' -Destroy; exit $LASTEXITCODE", script.display());
            command.args(["-Command", &call]);
        });
        assert_exit_code(&outcome, 1);
        assert!(outcome.stderr.contains("Get-NetIPInterface"), "{outcome:#?}");
        assert_eq!(machine.files[&path("state.json")], applied_twice.files[&path("state.json")]);
    }
}

//! Interface names can neither control a terminal nor hide text from a reader.

use std::fmt::Write as _;

use hostgw::{render::windows_collector, text::printable};

use super::{CLUSTER, PROVENANCE, assert_exit_code, cluster, machine, script_of};
use crate::support::powershell::{Fault, Machine, Outcome, real, run, run_both};

const HOSTILE: &str = "e\u{1b}]0;t\u{7}\u{9b}5m\u{7f}\u{202e}\u{200b}\u{e0001}\r\n\tFORGED\u{e9}";
const SHOWN: &str = "e\\u{1b}]0;t\\u{7}\\u{9b}5m\\u{7f}\\u{202e}\\u{200b}\\u{e0001}\\r\\n\\tFORGED\u{e9}";

/// A machine with such names for the egress interface and another one.
fn hostile() -> Machine {
    let mut machine = machine();
    machine.interfaces[1].alias = HOSTILE.to_owned();
    machine.interfaces[0].alias = format!("{HOSTILE} too");
    machine
}

fn is_plain(text: &str) -> bool {
    text.lines().all(|line| printable(line) == line)
        && !text.lines().any(|line| line.starts_with(['\t', 'F']))
}

#[track_caller]
fn assert_harmless(machine: &Machine, outcome: &Outcome) {
    assert!(is_plain(&outcome.stdout) && is_plain(&outcome.stderr), "{outcome:#?}");
    for (path, text) in machine.files.iter().filter(|(path, _)| path.contains("transcript")) {
        assert!(is_plain(&text.replace("\r\n", "\n")), "{path}: {text:?}");
    }
}

#[test]
fn no_name_controls_the_terminal() {
    let script = script_of(CLUSTER, "win-1");
    let run = |machine: &mut Machine, switches: &[&str], code| {
        let outcome = run_both(machine, &script, switches);
        assert_exit_code(&outcome, code);
        assert_harmless(machine, &outcome);
        outcome
    };
    let mut machine = hostile();
    machine.route(1, "10.244.0.0/24", "10.244.0.9", 1, "A");
    assert!(run(&mut machine, &[], 10).stdout.contains(SHOWN));
    machine = hostile();
    assert!(run(&mut machine, &["-WhatIf"], 0).stdout.contains(SHOWN));
    run(&mut machine, &[], 0);
    let transcript = machine.files.iter().find(|(path, _)| path.ends_with("transcript.log"));
    assert!(transcript.is_some_and(|(_, text)| text.contains(SHOWN)));
    run(&mut machine, &[], 0);
    run(&mut machine, &["-Rollback"], 0);
    machine.call_faults.insert(machine.calls.len() + 2, Fault::Refuse);
    run(&mut machine, &[], 6);
    run(&mut machine, &[HOSTILE], 64);
    // The message about a missing interface lists the names.
    machine.interfaces.retain(|interface| interface.index != 7);
    assert!(run(&mut machine, &[], 3).stderr.contains(SHOWN));
}

/// A program reads the exact names, and JSON on a terminal does not control it.
#[test]
fn collected_json_contains_no_hidden_characters() {
    let collector = windows_collector(&cluster(CLUSTER), 1, &PROVENANCE);
    let mut collected = vec![run(&mut hostile(), &collector, &[])];
    if real::pwsh().is_some() {
        collected.push(real::run_file(&mut hostile(), &collector, &[]));
    }
    for outcome in collected {
        assert_exit_code(&outcome, 0);
        assert_harmless(&hostile(), &outcome);
        let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        let interfaces = json["Interfaces"].as_array().unwrap().iter();
        let aliases: Vec<&str> = interfaces.filter_map(|one| one["Alias"].as_str()).collect();
        assert!(aliases.contains(&HOSTILE), "{aliases:?}");
    }
}

/// Both sides of every boundary, and a sample of all others, are escaped as by hostgw itself.
#[test]
fn the_script_escapes_what_hostgw_escapes() {
    let is_hidden = |c: &char| printable(&c.to_string()) != c.to_string();
    let all: Vec<char> = ('\u{1}'..=char::MAX).collect();
    let is_border = |at: usize| {
        all[at.saturating_sub(1)..all.len().min(at + 2)].iter().any(|c| is_hidden(c) != is_hidden(&all[at]))
    };
    let some: Vec<char> =
        (0..all.len()).filter(|at| at % 7919 == 0 || is_border(*at)).map(|at| all[at]).collect();
    let script = script_of(CLUSTER, "win-1");
    let (mut text, _) =
        script.split_once("# ---- Live state").map(|(head, _)| (head.to_owned(), ())).unwrap();
    let mut wanted = String::new();
    for line in some.chunks(20) {
        let units: Vec<String> =
            line.iter().collect::<String>().encode_utf16().map(|unit| format!("[char] {unit}")).collect();
        let _ = writeln!(text, "Write-Host (Format-Printable ('' + {}))\r", units.join(" + "));
        wanted.push_str(&(printable(&line.iter().collect::<String>()) + "\n"));
    }
    text.push_str("exit 0\r\n");
    let outcome = run_both(&mut machine(), &text, &[]);
    assert_exit_code(&outcome, 0);
    assert_eq!(outcome.stdout, wanted);
}

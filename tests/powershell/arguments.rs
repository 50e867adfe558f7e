//! How a script is called: arguments, preferences of the caller, cultures, language modes.

use hostgw::render::windows_collector;
use serde_json::json;

use super::{CLUSTER, PROVENANCE, applied, cluster, ends_with, machine, script_of};
use crate::support::powershell::{Setting, real, run, run_both, run_both_in};

/// Arguments that are none, and switches that contradict each other.
const WRONG: [&[&str]; 17] = [
    &["-Destory"],
    &["-DryRun"],
    &["-Force"],
    &["-Verbose"],
    &["x"],
    &["12"],
    &["-WhatIf", "x"],
    &["-AllowRemovals"],
    &["-AllowRemovals", "x"],
    &["-AllowRemovals", "0"],
    &["-AllowRemovals", "1.5"],
    &["-AllowRemovals", "007"],
    &["-AllowRemovals", "7", "8"],
    &["-Rollback", "-Destroy"],
    &["-Rollback", "-WhatIf"],
    &["-Destroy", "-Adopt"],
    &["-Destroy", "-AllowRemovals", "3"],
];

#[test]
fn a_wrong_argument_ends_with_64_before_anything_is_looked_at() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    // Looking would fail.
    machine.blind = true;
    let before = machine.network();
    for arguments in WRONG {
        let outcome = run_both(&mut machine, &script, arguments);
        assert_eq!(outcome.code, Some(64), "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("Help: the switches are -WhatIf"), "{arguments:?}: {outcome:#?}");
        assert!(machine.steps.is_empty() && machine.files.is_empty(), "{arguments:?}: {:?}", machine.steps);
        assert_eq!(machine.network(), before, "{arguments:?}");
    }
    let collector = windows_collector(&cluster(CLUSTER), 1, &PROVENANCE);
    ends_with(&run_both(&mut machine, &collector, &["-Destory"]), 64);
    ends_with(&run_both(&mut machine, &collector, &[]), 1);
}

/// As an operator calls it, where PowerShell itself binds the arguments.
#[test]
fn a_mistyped_switch_ends_the_process_with_64() {
    if real::pwsh().is_none() {
        return;
    }
    let script = script_of(CLUSTER, "win-1");
    for arguments in [&["-Destory"][..], &["x"], &["-AllowRemovals"], &["-WhatIf", "-Force"]] {
        let mut machine = machine();
        let outcome = real::run_file(&mut machine, &script, arguments);
        assert_eq!(outcome.code, Some(64), "{arguments:?}: {outcome:#?}");
        assert_eq!(machine.network(), super::machine().network(), "{arguments:?}");
    }
    let mut machine = machine();
    ends_with(&real::run_file(&mut machine, &script, &["-AllowRemovals", "3", "-Adopt"]), 0);
    assert_eq!(machine.network(), applied(super::machine()).network());
}

#[test]
fn whatif_preference_of_the_caller_means_what_if() {
    let script = script_of(CLUSTER, "win-1");
    let setting = Setting { preferences: vec![("WhatIfPreference", json!(true))], ..Setting::default() };
    let mut machine = machine();
    let outcome = run_both_in(&mut machine, &script, &[], &setting);
    ends_with(&outcome, 0);
    assert!(outcome.stdout.ends_with("Nothing was changed.\n"), "{}", outcome.stdout);
    assert!(machine.steps.is_empty(), "{:?}", machine.steps);
    ends_with(&run_both_in(&mut machine, &script, &["-Rollback"], &setting), 64);
    ends_with(&run_both(&mut machine, &script, &[]), 0);
    let before = machine.network();
    ends_with(&run_both_in(&mut machine, &script, &["-Destroy"], &setting), 0);
    assert_eq!(machine.network(), before);
    if real::pwsh().is_some() {
        // Refused by name, although the functions of modules see the preference too.
        let outcome = real::run_process(&mut machine, &script, |command, script| {
            let call = format!("& '{}' -Destroy -WhatIf:$false; exit $LASTEXITCODE", script.display());
            command.args(["-Command", &format!("$global:WhatIfPreference = $true; {call}")]);
        });
        ends_with(&outcome, 0);
        assert_eq!(machine.network(), super::machine().network());
    }
}

#[test]
fn no_preference_of_the_caller_changes_what_a_script_does() {
    let script = script_of(CLUSTER, "win-1");
    for (name, value) in [
        ("ConfirmPreference", json!("Low")),
        ("ErrorActionPreference", json!("SilentlyContinue")),
        ("WarningPreference", json!("Stop")),
        ("ProgressPreference", json!("Continue")),
        ("OFS", json!("@")),
        ("PSNativeCommandUseErrorActionPreference", json!(true)),
        ("PSDefaultParameterValues", json!({ "New-NetRoute:PolicyStore": "ActiveStore", "*:Verbose": true })),
    ] {
        let setting = Setting { preferences: vec![(name, value)], ..Setting::default() };
        let mut machine = machine();
        ends_with(&run_both_in(&mut machine, &script, &[], &setting), 0);
        assert_eq!(machine.network(), applied(super::machine()).network(), "{name}");
        ends_with(&run_both_in(&mut machine, &script, &["-Destroy"], &setting), 0);
        assert_eq!(machine.network(), super::machine().network(), "{name}");
    }
}

#[test]
fn no_culture_changes_what_a_script_does() {
    let script = script_of(CLUSTER, "win-1");
    for culture in ["tr-TR", "de-DE", "fa-IR", "ja-JP"] {
        let setting = Setting { culture: Some(culture), ..Setting::default() };
        let mut machine = machine();
        ends_with(&run_both_in(&mut machine, &script, &[], &setting), 0);
        assert_eq!(machine.network(), applied(super::machine()).network(), "{culture}");
        ends_with(&run_both_in(&mut machine, &script, &["-Rollback"], &setting), 0);
        assert_eq!(machine.network(), super::machine().network(), "{culture}");
    }
}

/// AppLocker and App Control let no method of .NET be called: not those that report an error either.
#[test]
fn a_restricted_language_mode_is_reported_and_ends_with_1() {
    let script = script_of(CLUSTER, "win-1");
    let words = "Error: this PowerShell runs in a restricted language mode";
    let mut machine = machine();
    machine.language_mode = Some("ConstrainedLanguage");
    let outcome = run(&mut machine, &script, &[]);
    ends_with(&outcome, 1);
    assert!(outcome.stdout.starts_with(words) && machine.steps.is_empty(), "{outcome:#?}");
    if real::pwsh().is_none() {
        return;
    }
    for text in [script, windows_collector(&cluster(CLUSTER), 1, &PROVENANCE)] {
        let outcome = real::run_process(&mut machine, &text, |command, script| {
            let mode = "$ExecutionContext.SessionState.LanguageMode = 'ConstrainedLanguage'";
            let call = format!("{mode}; & '{}'; exit $LASTEXITCODE", script.display());
            command.args(["-Command", &call]);
        });
        ends_with(&outcome, 1);
        assert!(outcome.stdout.starts_with(words) && outcome.stderr.is_empty(), "{outcome:#?}");
    }
}

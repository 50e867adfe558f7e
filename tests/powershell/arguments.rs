//! How scripts are called: arguments, preferences of the caller, cultures, and language modes.

use hostgw::render::windows_collector;
use serde_json::json;

use super::{CLUSTER, PROVENANCE, applied, assert_exit_code, cluster, machine, script_of};
use crate::support::powershell::{Setting, real, run, run_both, run_both_in};

/// Unknown arguments, and switches that cannot be combined.
const INVALID: [&[&str]; 25] = [
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
    &["-Install", "-Rollback"],
    &["-Install", "-Uninstall"],
    &["-Install", "-Destroy"],
    &["-Uninstall", "-Destroy"],
    &["-Uninstall", "-Adopt"],
    &["-Scheduled", "-Install"],
    &["-Scheduled", "-WhatIf"],
    &["-Scheduled", "-AllowRemovals", "3"],
];

#[test]
fn an_invalid_argument_exits_with_64_before_reading_the_machine() {
    let script = script_of(CLUSTER, "win-1");
    let mut machine = machine();
    // Reading the machine would fail.
    machine.blind = true;
    let before = machine.network();
    for arguments in INVALID {
        let outcome = run_both(&mut machine, &script, arguments);
        assert_eq!(outcome.code, Some(64), "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("help: the switches are -WhatIf"), "{arguments:?}: {outcome:#?}");
        assert!(machine.steps.is_empty() && machine.files.is_empty(), "{arguments:?}: {:?}", machine.steps);
        assert_eq!(machine.network(), before, "{arguments:?}");
    }
    let collector = windows_collector(&cluster(CLUSTER), 1, &PROVENANCE);
    assert_exit_code(&run_both(&mut machine, &collector, &["-Destory"]), 64);
    assert_exit_code(&run_both(&mut machine, &collector, &[]), 1);
}

/// Called as by an operator, so that PowerShell itself binds the arguments.
#[test]
fn a_mistyped_switch_exits_with_64() {
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
    assert_exit_code(&real::run_file(&mut machine, &script, &["-AllowRemovals", "3", "-Adopt"]), 0);
    assert_eq!(machine.network(), applied(super::machine()).network());
}

#[test]
fn the_callers_whatif_preference_implies_whatif() {
    let script = script_of(CLUSTER, "win-1");
    let setting = Setting { preferences: vec![("WhatIfPreference", json!(true))], ..Setting::default() };
    let mut machine = machine();
    let outcome = run_both_in(&mut machine, &script, &[], &setting);
    assert_exit_code(&outcome, 0);
    assert!(outcome.stdout.ends_with("Nothing was changed.\n"), "{}", outcome.stdout);
    assert!(machine.steps.is_empty(), "{:?}", machine.steps);
    assert_exit_code(&run_both_in(&mut machine, &script, &["-Rollback"], &setting), 64);
    assert_exit_code(&run_both(&mut machine, &script, &[]), 0);
    let before = machine.network();
    assert_exit_code(&run_both_in(&mut machine, &script, &["-Destroy"], &setting), 0);
    assert_eq!(machine.network(), before);
    if real::pwsh().is_some() {
        // Refused by name, although functions of modules also see the preference.
        let outcome = real::run_process(&mut machine, &script, |command, script| {
            let call = format!("& '{}' -Destroy -WhatIf:$false; exit $LASTEXITCODE", script.display());
            command.args(["-Command", &format!("$global:WhatIfPreference = $true; {call}")]);
        });
        assert_exit_code(&outcome, 0);
        assert_eq!(machine.network(), super::machine().network());
    }
}

#[test]
fn preferences_of_the_caller_have_no_effect() {
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
        assert_exit_code(&run_both_in(&mut machine, &script, &[], &setting), 0);
        assert_eq!(machine.network(), applied(super::machine()).network(), "{name}");
        assert_exit_code(&run_both_in(&mut machine, &script, &["-Destroy"], &setting), 0);
        assert_eq!(machine.network(), super::machine().network(), "{name}");
    }
}

#[test]
fn cultures_have_no_effect() {
    let script = script_of(CLUSTER, "win-1");
    for culture in ["tr-TR", "de-DE", "fa-IR", "ja-JP"] {
        let setting = Setting { culture: Some(culture), ..Setting::default() };
        let mut machine = machine();
        assert_exit_code(&run_both_in(&mut machine, &script, &[], &setting), 0);
        assert_eq!(machine.network(), applied(super::machine()).network(), "{culture}");
        assert_exit_code(&run_both_in(&mut machine, &script, &["-Rollback"], &setting), 0);
        assert_eq!(machine.network(), super::machine().network(), "{culture}");
    }
}

/// AppLocker and App Control block all .NET methods, including those that report an error.
#[test]
fn a_restricted_language_mode_is_reported_with_exit_code_1() {
    let script = script_of(CLUSTER, "win-1");
    let words = "error: this PowerShell runs in a restricted language mode";
    let mut machine = machine();
    machine.language_mode = Some("ConstrainedLanguage");
    let outcome = run(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 1);
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
        assert_exit_code(&outcome, 1);
        assert!(outcome.stdout.starts_with(words) && outcome.stderr.is_empty(), "{outcome:#?}");
    }
}

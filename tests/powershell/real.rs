//! Tests that need a real PowerShell, with a substitute for the module NetTCPIP.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use hostgw::{
    config::{self, Document, Format},
    render::{windows_collector, windows_script},
};

use super::{
    CLUSTER, PROVENANCE, assert_exit_code, faults::is_sampled, machine, script_of, starts, windows_nodes,
};
use crate::support::{
    directory::Directory,
    powershell::{Fault, real, run, run_both},
};

/// Ctrl-C only runs `finally` blocks, after which PowerShell would exit with 0.
#[test]
fn an_interrupted_run_is_rolled_back_with_exit_code_130() {
    if real::pwsh().is_none() {
        return;
    }
    let script = script_of(CLUSTER, "win-1");
    let mut clean = machine();
    assert_exit_code(&run(&mut clean, &script, &[]), 0);
    for call in [0, clean.calls.len() / 2, clean.calls.len() - 1] {
        let mut machine = machine();
        machine.call_faults.insert(call, Fault::Stop);
        let outcome = real::run_file(&mut machine, &script, &[]);
        assert_exit_code(&outcome, 130);
        assert!(outcome.stdout.contains("Rolled back and verified"), "{outcome:#?}");
        assert_eq!(machine.network(), super::machine().network());
        machine.call_faults.clear();
        assert_exit_code(&run_both(&mut machine, &script, &[]), 0);
    }
    // Ctrl-C during a rollback: it is incomplete, and the script says so.
    let mut machine = machine();
    machine.call_faults = [(3, Fault::Refuse), (5, Fault::Stop)].into();
    let outcome = real::run_file(&mut machine, &script, &[]);
    assert_exit_code(&outcome, 7);
    machine.call_faults.clear();
    assert_exit_code(&run_both(&mut machine, &script, &["-Rollback"]), 0);
    assert_eq!(machine.network(), super::machine().network());
}

/// A fault at every call has the same output, exit code and result in the model and in a real PowerShell.
#[test]
fn the_model_matches_powershell_for_a_fault_at_any_call() {
    if real::pwsh().is_none() {
        return;
    }
    let script = script_of(CLUSTER, "win-1");
    let mut cases = Vec::new();
    for (what, start, after) in starts() {
        let mut clean = start.clone();
        assert_exit_code(&run(&mut clean, &script, &[]), 0);
        for call in start.calls.len()..clean.calls.len() {
            for fault in [Fault::Refuse, Fault::Late, Fault::Ignore, Fault::Kill, Fault::KillAfter] {
                cases.push((what, start.clone(), after.clone(), call, fault));
            }
        }
    }
    assert!(cases.len() > 100);
    // A kill ends the process, and starting a new one is slow.
    let step = |fault: &Fault| if matches!(fault, Fault::Kill | Fault::KillAfter) { 11 } else { 4 };
    for (number, (what, start, after, call, fault)) in cases.into_iter().enumerate() {
        if !is_one_of(number, step(&fault)) {
            continue;
        }
        let mut machine = start.clone();
        machine.call_faults.insert(call, fault);
        let outcome = run_both(&mut machine, &script, &[]);
        let context = format!("{what}, call {call} {fault:?}: {outcome:#?}");
        match outcome.code {
            Some(0) => assert_eq!(machine.network(), after.network(), "{context}"),
            Some(6) => assert_eq!(machine.network(), start.network(), "{context}"),
            None => {}
            other => panic!("{other:?}: {context}"),
        }
        machine.call_faults.clear();
        assert_exit_code(&run_both(&mut machine, &script, &[]), 0);
        assert_eq!(machine.network(), after.network(), "{context}");
    }
}

/// Returns whether to run the case with this number: one in `step`, or all with `HOSTGW_WHOLE=1`.
fn is_one_of(number: usize, step: usize) -> bool {
    is_sampled(if number.is_multiple_of(step) { 0 } else { 1 })
}

/// Every call fails from some point on: the remaining commands are listed, and executed once the cause is fixed.
#[test]
fn the_model_matches_powershell_for_an_incomplete_rollback() {
    if real::pwsh().is_none() {
        return;
    }
    let script = script_of(CLUSTER, "win-1");
    for (what, start, _) in starts() {
        let mut clean = start.clone();
        assert_exit_code(&run(&mut clean, &script, &[]), 0);
        for call in (start.calls.len()..clean.calls.len()).filter(|call| is_one_of(*call, 4)) {
            let mut machine = start.clone();
            machine.calls_denied_from = Some(call);
            let outcome = run_both(&mut machine, &script, &[]);
            assert!(matches!(outcome.code, Some(6 | 7)), "{what}, from call {call}: {outcome:#?}");
            machine.calls_denied_from = None;
            if outcome.code == Some(7) {
                assert_exit_code(&run_both(&mut machine, &script, &["-Rollback"]), 0);
            }
            assert_eq!(machine.network(), start.network(), "{what}, from call {call}");
        }
    }
}

/// The complete life cycle of a node, for every family, with names that a careless script would execute.
#[test]
fn the_model_matches_powershell_for_a_complete_life_cycle() {
    let v4 = ["10.244.0.0/16", "10.244.0.0/24", "10.244.1.0/24", "172.30.0.11", "172.30.0.12"];
    let v6 = ["fd00:244::/48", "fd00:244::/72", "fd00:244:0:1::/64", "fd00:30::11", "fd00:30::12"];
    let families = [
        v4.map(|one| format!("['{one}']")),
        v6.map(|one| format!("['{one}']")),
        std::array::from_fn(|at| format!("['{}', '{}']", v4[at], v6[at])),
    ];
    let aliases = ["vEthernet (Ethernet)", "a'b$(exit 9)`n;#\"", "R\u{e9}seau \u{2019}\u{1f600}"];
    for (at, [prefix, other, own, other_address, address]) in families.iter().enumerate() {
        for alias in aliases {
            let text = format!(
                "clusterPrefix: {prefix}\nnodes:\n\
                 - {{name: linux-1, os: linux, podCIDR: {other}, address: {other_address}, egressInterface: eth0}}\n\
                 - {{name: win-1, os: windows, podCIDR: {own}, address: {address}, egressInterface: {}}}\n",
                serde_json::json!(alias)
            );
            live(&script_of(&text, "win-1"), alias, at != 1);
        }
    }
}

/// -WhatIf, a first and a second run, repair, conflict, adoption, rollback, destroy.
fn live(script: &str, alias: &str, is_v4: bool) {
    let mut fresh = machine();
    // The current culture considers the last alias equal to this one.
    fresh.interfaces[0].alias = "Ethernet".to_owned();
    fresh.interfaces[1].alias = alias.to_owned();
    fresh.interfaces[1].addresses.push("fd00:30::12/64".parse().unwrap());
    fresh.interfaces[2].addresses.push("fd00:244:0:1::2/64".parse().unwrap());
    let fresh = fresh.with_local_routes();
    let (family, destination, next_hop, foreign) = match is_v4 {
        true => ("IPv4", "10.244.0.0/24", "10.244.0.1", "10.244.0.9"),
        false => ("IPv6", "fd00:244::/72", "fd00:244::1", "fd00:244::9"),
    };
    let mut machine = fresh.clone();
    assert_exit_code(&run_both(&mut machine, script, &["-WhatIf"]), 0);
    assert_eq!(machine.network(), fresh.network());
    assert_exit_code(&run_both(&mut machine, script, &[]), 0);
    let after = machine.network();
    let calls = machine.calls.len();
    assert_exit_code(&run_both(&mut machine, script, &[]), 0);
    assert_eq!(machine.calls.len(), calls, "a second run changes nothing");
    machine.route(12, destination, next_hop, 7, "A");
    machine.interfaces[1].forwarding.insert(family, false);
    assert_exit_code(&run_both(&mut machine, script, &[]), 0);
    assert_eq!(machine.network(), after, "repaired");
    machine.route(7, destination, foreign, 1, "AP");
    let conflict = machine.network();
    assert_exit_code(&run_both(&mut machine, script, &[]), 10);
    assert_eq!(machine.network(), conflict);
    assert_exit_code(&run_both(&mut machine, script, &["-Adopt"]), 0);
    assert_eq!(machine.network(), after, "adopted");
    assert_exit_code(&run_both(&mut machine, script, &["-Rollback"]), 0);
    assert_eq!(machine.network(), conflict, "the adopted route is restored");
    assert_exit_code(&run_both(&mut machine, script, &["-Destroy"]), 0);
    for store in [&mut machine.active, &mut machine.persistent] {
        store.retain(|key, _| key.next_hop.to_string() != foreign);
    }
    assert_eq!(machine.network(), fresh.network(), "destroyed");
}

/// PowerShell's own parser accepts the scripts of every example and the self-test, and does report errors.
#[test]
fn powershells_own_parser_accepts_every_script() {
    if real::pwsh().is_none() {
        return;
    }
    let folder = Directory::new();
    let mut count = 0;
    let mut write = |text: &str| {
        count += 1;
        fs::write(folder.path().join(format!("{count}.ps1")), text).unwrap();
    };
    let windows = fs::read_dir("examples/windows").unwrap();
    for entry in fs::read_dir("examples").unwrap().chain(windows) {
        let path = entry.unwrap().path();
        if let (Some(_), Ok(document)) = (Format::of_path(&path), Document::read(&path)) {
            let cluster = config::load(&document).unwrap();
            for (index, desired) in windows_nodes(&cluster) {
                write(&windows_script(&cluster, index, &desired, &PROVENANCE));
                write(&windows_collector(&cluster, index, &PROVENANCE));
            }
        }
    }
    write(&fs::read_to_string("examples/windows/self-test.ps1").unwrap());
    assert!(count > 4, "{count}");
    let mistakes = |folder: &Path| {
        let parser = "foreach ($file in (Get-ChildItem -Filter *.ps1)) { $wrong = $null; $tokens = $null; \
            [void] [System.Management.Automation.Language.Parser]::ParseFile($file.FullName, [ref] $tokens, [ref] $wrong); \
            foreach ($one in $wrong) { $file.Name + ': ' + $one } }; 'end'";
        let output = real::command(folder)
            .args(["-NoProfile", "-Command", parser])
            .current_dir(folder)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(mistakes(folder.path()), "end\n");
    fs::write(folder.path().join("0.ps1"), "if ($true) {\n").unwrap();
    assert!(mistakes(folder.path()).starts_with("0.ps1: "));
}

/// The self-test as it is shipped: with one interface for both roles and the scheduled task and, with `HOSTGW_WHOLE=1`,
/// also with a separate pod interface.
#[test]
fn the_shipped_self_test_passes() {
    if real::pwsh().is_none() {
        return;
    }
    let document = Document::read(Path::new("examples/windows/self-test.yaml")).unwrap();
    let cluster = config::load(&document).unwrap();
    let (index, desired) = windows_nodes(&cluster).swap_remove(0);
    let script = windows_script(&cluster, index, &desired, &PROVENANCE);
    let test = fs::read_to_string("examples/windows/self-test.ps1").unwrap();
    let variants = [&["-Task"][..], &["-PodInterface", "7"]];
    // Each run starts 30 processes or more.
    for (_, arguments) in variants.into_iter().enumerate().filter(|(at, _)| is_sampled(*at)) {
        let mut machine = machine();
        let before = machine.network();
        let outcome = real::run_process(&mut machine, &test, |command, test| {
            let folder = test.parent().unwrap();
            fs::write(folder.join("node.ps1"), &script).unwrap();
            command.arg("-File").arg(test).arg("-Script").arg(folder.join("node.ps1"));
            let program = with_a_profile(folder);
            command.env("HGW_PWSH", &program).arg("-PowerShell").arg(&program).args(arguments);
        });
        let failed: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert_eq!(outcome.code, Some(0), "{failed:#?} {outcome:#?}");
        assert!(outcome.stdout.ends_with("All checks passed.\n"), "{outcome:#?}");
        assert!(outcome.stderr.contains("unknown argument: -Destory"), "{outcome:#?}");
        assert_eq!(machine.network(), before);
    }
}

/// A PowerShell that reads its profile, in which a test pretends to be an administrator, although the self-test passes
/// `-NoProfile`.
fn with_a_profile(folder: &Path) -> std::path::PathBuf {
    let program = folder.join("pwsh.sh");
    let text = format!(
        "#!/bin/sh\nfor argument do\n    shift\n    [ \"$argument\" = -NoProfile ] || set -- \"$@\" \"$argument\"\n\
         done\nexec {} \"$@\"\n",
        real::pwsh().unwrap().display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

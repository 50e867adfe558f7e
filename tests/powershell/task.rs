//! The scheduled task: installing, replacing and removing it, its runs, and its entries in the event log.
//!
//! These tests need a real PowerShell. Each story is a complete transcript: output, exit codes, changed files, calls, and
//! entries in the event log.

use std::{fmt::Write as _, path::Path};

use hostgw::{plan, render::windows_script};
use serde_json::{Value, json};

use super::{CLUSTER, PROVENANCE, applied, assert_exit_code, cluster, machine, script_of};
use crate::support::{
    cases,
    powershell::{Fault, Find, Machine, Outcome, Setting, real},
};

/// A machine, and everything that happened on it.
struct Story {
    machine: Machine,
    text: String,
}

impl Story {
    fn new(machine: Machine) -> Self {
        Self { machine, text: String::new() }
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {text}\n");
    }

    /// Runs a script that is not installed.
    fn run(&mut self, name: &str, script: &str, switches: &[&str]) -> Outcome {
        self.tell(name, switches, |machine| real::run(machine, script, switches, &Setting::default()))
    }

    /// Runs the installed script as the task does.
    fn scheduled(&mut self) -> Outcome {
        self.tell("(task)", &["-Scheduled"], |machine| real::run_installed(machine, &["-Scheduled"]))
    }

    fn tell(&mut self, name: &str, switches: &[&str], run: impl FnOnce(&mut Machine) -> Outcome) -> Outcome {
        let before = self.machine.clone();
        let outcome = run(&mut self.machine);
        let text = &mut self.text;
        let _ = writeln!(text, "> {} {}", name, switches.join(" "));
        text.push_str(&collapsed(&outcome.stdout));
        text.push_str(&collapsed(&outcome.stderr));
        let _ = writeln!(text, "exit code {}", outcome.code.unwrap());
        for call in &self.machine.calls[before.calls.len()..] {
            let _ = writeln!(text, "call: {call}");
        }
        let (old, new) = (&before.files, &self.machine.files);
        for path in old.keys().chain(new.keys().filter(|path| !old.contains_key(*path))) {
            let symbol = match (old.get(path), new.get(path)) {
                (None, _) => "+",
                (_, None) => "-",
                (old, new) if old != new => "~",
                _ => continue,
            };
            let _ = writeln!(text, "file: {symbol} {path}");
        }
        for (what, kind) in [("tasks", "task"), ("sources", "event source")] {
            let (old, new) = (&before.scheduler[what], &self.machine.scheduler[what]);
            if names(old) != names(new) {
                let _ = writeln!(text, "{kind}: {:?} -> {:?}", names(old), names(new));
            }
        }
        let waits = |machine: &Machine| machine.scheduler["waits"].as_i64().unwrap_or(0);
        if waits(&self.machine) != waits(&before) {
            let _ = writeln!(text, "waits: {}", waits(&self.machine) - waits(&before));
        }
        for event in &events(&self.machine)[events(&before).len()..] {
            let _ = writeln!(text, "event {}, {}:", event["id"], event["level"].as_str().unwrap());
            for line in event["text"].as_str().unwrap().lines() {
                let _ = writeln!(text, "{}", format!("  {line}").trim_end());
            }
        }
        text.push('\n');
        outcome
    }

    /// Adds a file to the records of the machine.
    fn write(&mut self, name: &str, text: &str) {
        self.machine.files.insert(path(name), text.to_owned());
    }

    fn compare(&self, name: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render/task");
        let mut failures = Vec::new();
        cases::compare(&root.join(name), &self.text, &mut failures);
        cases::assert_none(1, &failures);
    }
}

fn path(name: &str) -> String {
    format!("C:\\Program Files\\hostgw\\{name}")
}

/// Replaces a text that repeats its first lines, as a run that waits does, by these lines and their number.
fn collapsed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    for length in 1..=lines.len() / 2 {
        let mut blocks = lines.chunks(length);
        if lines.len().is_multiple_of(length) && blocks.all(|block| block == &lines[..length]) {
            return format!("{}\n({} times)\n", lines[..length].join("\n"), lines.len() / length);
        }
    }
    text.to_owned()
}

/// The names of tasks, or of event sources.
fn names(json: &Value) -> Vec<String> {
    match json {
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
        _ => Vec::new(),
    }
}

fn events(machine: &Machine) -> Vec<Value> {
    machine.scheduler["events"].as_array().cloned().unwrap_or_default()
}

/// The script of a newer configuration, with another node.
fn newer() -> String {
    let added = "  - {name: linux-3, os: linux, podCIDR: 10.244.3.0/24, address: 172.30.0.15}\n";
    script_of(&format!("{CLUSTER}{added}"), "win-1").replace("0123456789abcdef", "fedcba9876543210")
}

/// A machine on which the script is installed.
fn installed() -> Machine {
    let mut machine = machine();
    assert_exit_code(
        &real::run(&mut machine, &script_of(CLUSTER, "win-1"), &["-Install"], &Setting::default()),
        0,
    );
    machine
}

/// The task is installed, replaced by that of a newer script, and uninstalled. The routes stay until -Destroy.
#[test]
fn a_task_is_installed_replaced_and_uninstalled() {
    if real::pwsh().is_none() {
        return;
    }
    let (script, newer) = (script_of(CLUSTER, "win-1"), newer());
    let mut story = Story::new(machine());
    story.run("script.ps1", &script, &["-Uninstall"]);
    story.run("script.ps1", &script, &["-Uninstall", "-WhatIf"]);
    story.run("script.ps1", &script, &["-Install", "-WhatIf"]);
    assert_eq!(story.machine.network(), machine().network());
    assert!(story.machine.files.is_empty() && story.machine.scheduler.is_null());
    story.run("script.ps1", &script, &["-Install"]);
    assert_eq!(story.machine.files[&path("hostgw.ps1")], script);
    let mut task = story.machine.scheduler["tasks"]["\\hostgw"].clone();
    for trigger in task["Triggers"].as_array_mut().unwrap() {
        if let Some(start) = trigger.get_mut("StartBoundary") {
            *start = json!("(the time of -Install)");
        }
    }
    let _ = writeln!(story.text, "{task:#}\n");
    story.run("script.ps1", &script, &["-Install"]);
    story.run("script.ps1", &script, &["-Install", "-WhatIf"]);
    story.tell("hostgw.ps1", &["-Install"], |machine| real::run_installed(machine, &["-Install"]));
    story.run("script.ps1", &script, &["-Destroy"]);
    story.run("script.ps1", &script, &["-Destroy", "-WhatIf"]);
    story.comment("a newer script, run without -Install, and then with it");
    story.run("newer.ps1", &newer, &["-WhatIf"]);
    story.run("newer.ps1", &newer, &[]);
    story.run("newer.ps1", &newer, &["-Rollback"]);
    story.run("newer.ps1", &newer, &["-Install", "-WhatIf"]);
    story.run("newer.ps1", &newer, &["-Install"]);
    assert_eq!(story.machine.files[&path("hostgw.ps1")], newer);
    story.scheduled();
    story.comment("a disabled task does not interfere, and -Install enables it again");
    story.machine.scheduler["tasks"]["\\hostgw"]["Settings"]["Enabled"] = json!(false);
    story.run("script.ps1", &script, &["-WhatIf"]);
    story.run("newer.ps1", &newer, &["-Install"]);
    let network = story.machine.network();
    story.run("newer.ps1", &newer, &["-Uninstall", "-WhatIf"]);
    story.tell("hostgw.ps1", &["-Uninstall"], |machine| real::run_installed(machine, &["-Uninstall"]));
    story.run("newer.ps1", &newer, &["-Uninstall"]);
    assert_eq!(story.machine.network(), network, "the routes stay");
    story.run("newer.ps1", &newer, &["-Destroy"]);
    assert_eq!(story.machine.network(), machine().network());
    story.compare("install.txt");
}

/// A run of the task writes nothing, or one entry for a change, a new failure, or its end.
#[test]
fn a_run_of_the_task_reports_each_change_and_failure_once() {
    if real::pwsh().is_none() {
        return;
    }
    let mut story = Story::new(installed());
    let before = story.machine.clone();
    assert_exit_code(&story.scheduled(), 0);
    assert_eq!(story.machine.files, before.files, "a run with nothing to do");
    assert_eq!(story.machine.scheduler, before.scheduler, "a run with nothing to do");
    assert_eq!(story.machine.calls, before.calls, "a run with nothing to do");
    story.comment("a lost route");
    let applied = story.machine.clone();
    story.machine.active.retain(|key, _| key.destination.to_string() != "10.244.8.0/21");
    story.scheduled();
    assert_eq!(story.machine.network(), applied.network());
    story.scheduled();
    story.comment("a conflict: never adopted, reported once");
    story.machine.route(7, "10.244.8.0/21", "10.244.1.9", 1, "A");
    story.scheduled();
    let failed = story.machine.clone();
    story.scheduled();
    assert_eq!((&story.machine.files, &story.machine.scheduler), (&failed.files, &failed.scheduler));
    story.comment("another conflict in its place");
    story.machine.active.retain(|key, _| key.next_hop.to_string() != "10.244.1.9");
    story.machine.route(7, "10.244.8.0/21", "10.244.1.8", 1, "A");
    story.scheduled();
    story.machine.active.retain(|key, _| key.next_hop.to_string() != "10.244.1.8");
    story.machine.route(7, "10.244.8.0/21", "10.244.1.9", 1, "A");
    story.comment("two conflicts");
    story.machine.route(7, "10.244.0.0/24", "10.244.1.9", 1, "A");
    story.machine.active.retain(|key, _| key.destination.to_string() != "10.244.2.0/25");
    story.scheduled();
    story.scheduled();
    story.comment("resolved, with a change that was due, and later without one");
    story.machine.active.retain(|key, _| key.next_hop.to_string() != "10.244.1.9");
    story.scheduled();
    story.machine.route(7, "10.244.8.0/21", "10.244.1.9", 1, "A");
    story.scheduled();
    story.machine.active.retain(|key, _| key.next_hop.to_string() != "10.244.1.9");
    story.scheduled();
    story.scheduled();
    assert_eq!(story.machine.network(), applied.network());
    story.comment("a more specific foreign route: a warning, reported once, also along with a change");
    story.machine.route(7, "10.244.8.0/24", "10.244.1.9", 1, "A");
    story.scheduled();
    story.scheduled();
    story.machine.interfaces[1].forwarding.insert("IPv4", false);
    story.scheduled();
    story.scheduled();
    story.machine.active.retain(|key, _| key.next_hop.to_string() != "10.244.1.9");
    story.scheduled();
    story.compare("scheduled.txt");
}

/// A failing change is rolled back, and its failure is reported once, also if the files of the report are damaged.
#[test]
fn a_run_of_the_task_that_fails_is_rolled_back_and_reported_once() {
    if real::pwsh().is_none() {
        return;
    }
    let mut story = Story::new(installed());
    story.machine.active.retain(|key, _| key.destination.to_string() != "10.244.8.0/21");
    let lost = story.machine.network();
    for _ in 0..2 {
        let call = story.machine.calls.len();
        story.machine.call_faults = [(call, Fault::Refuse)].into();
        assert_exit_code(&story.scheduled(), 6);
        assert_eq!(story.machine.network(), lost);
    }
    assert_eq!(events(&story.machine).len(), 1);
    story.comment("interrupted by a restart: rolled back, then applied");
    let mut killed = story.machine.clone();
    let journal = killed.files[&path("transcript.log")].clone();
    assert!(journal.contains("Rolled back and verified"), "{journal}");
    killed.call_faults = [(killed.calls.len(), Fault::KillAfter)].into();
    let outcome = real::run_installed(&mut killed, &["-Scheduled"]);
    assert_eq!(outcome.code, None);
    story.machine = killed;
    story.machine.call_faults.clear();
    assert_exit_code(&story.scheduled(), 0);
    story.comment("a damaged record of the failure counts as none");
    story.machine.route(7, "10.244.8.0/21", "10.244.1.9", 1, "A");
    for damaged in ["", "\0\0", "{\"Format\":1}", "{\"Format\":1,\"Text\":3}"] {
        story.write("failure.json", damaged);
        let before = events(&story.machine).len();
        assert_exit_code(&real::run_installed(&mut story.machine, &["-Scheduled"]), 10);
        assert_eq!(events(&story.machine).len(), before + 1, "{damaged:?}");
        assert_exit_code(&real::run_installed(&mut story.machine, &["-Scheduled"]), 10);
        assert_eq!(events(&story.machine).len(), before + 1, "{damaged:?}");
    }
    story.comment("an event log that refuses entries: the failure counts as not reported");
    story.machine.files.remove(&path("failure.json"));
    story.machine.scheduler["faults"] = json!({ "WriteEntry": "refuse" });
    assert_exit_code(&story.scheduled(), 10);
    assert!(!story.machine.files.contains_key(&path("failure.json")));
    story.machine.scheduler["faults"] = json!({});
    story.scheduled();
    story.compare("failures.txt");
}

/// At startup, interfaces come late. A run waits for them, and reports only what lasts.
#[test]
fn a_run_of_the_task_waits_for_interfaces_and_for_the_lock() {
    if real::pwsh().is_none() {
        return;
    }
    let mut story = Story::new(installed());
    let complete = story.machine.clone();
    let without_pods = |machine: &mut Machine| {
        machine.interfaces.retain(|interface| interface.index != 7);
        machine.active.retain(|key, _| key.index != 7);
    };
    story.comment("the pod interface appears");
    without_pods(&mut story.machine);
    story.machine.later = Some(Box::new(complete.clone()));
    assert_exit_code(&story.scheduled(), 0);
    assert_eq!(events(&story.machine), Vec::<Value>::new());
    story.comment("it stays missing: waits once, and reports it once");
    without_pods(&mut story.machine);
    assert_exit_code(&story.scheduled(), 3);
    assert_exit_code(&story.scheduled(), 3);
    story.comment("another run holds the lock: waits, and reports it");
    story.machine = complete.clone();
    story.machine.locked.insert(path("lock"));
    assert_exit_code(&story.scheduled(), 4);
    assert_exit_code(&story.scheduled(), 0);
    story.comment("a newer script is installed while the old one waits: the old one changes nothing");
    story.machine = complete.clone();
    let mut later = complete.clone();
    later.active.retain(|key, _| key.destination.to_string() != "10.244.8.0/21");
    later.files = [(path("hostgw.ps1"), newer())].into();
    without_pods(&mut story.machine);
    let network = later.network();
    story.machine.later = Some(Box::new(later));
    assert_exit_code(&story.scheduled(), 0);
    assert_eq!(story.machine.network(), network);
    story.compare("waiting.txt");
}

/// An install that fails says so, and can be repeated. The routes are applied first, and -Install stops if they are not.
#[test]
fn an_install_that_fails_can_be_repeated() {
    if real::pwsh().is_none() {
        return;
    }
    let script = script_of(CLUSTER, "win-1");
    let mut story = Story::new(machine());
    story.comment("the changes fail: nothing is installed");
    story.machine.route(7, "10.244.8.0/21", "10.244.1.9", 1, "A");
    assert_exit_code(&story.run("script.ps1", &script, &["-Install", "-WhatIf"]), 10);
    assert_exit_code(&story.run("script.ps1", &script, &["-Install"]), 10);
    assert!(story.machine.files.is_empty());
    story.machine.call_faults = [(2, Fault::Refuse)].into();
    assert_exit_code(&story.run("script.ps1", &script, &["-Install", "-Adopt"]), 6);
    story.machine.call_faults.clear();
    story.comment("not an administrator");
    story.machine.is_administrator = false;
    for switches in [&["-Install"][..], &["-Uninstall"], &["-Scheduled"], &["-Install", "-Adopt", "-WhatIf"]]
    {
        story.run("script.ps1", &script, switches);
    }
    story.machine.is_administrator = true;
    story.comment("Windows refuses a step, or reports a success that is none");
    for (call, kind) in [
        ("CreateEventSource", "refuse"),
        ("CreateEventSource", "ignore"),
        ("Register-ScheduledTask", "refuse"),
        ("Register-ScheduledTask", "ignore"),
    ] {
        story.machine.scheduler = json!({ "faults": { call: kind } });
        assert_exit_code(&story.run("script.ps1", &script, &["-Install", "-Adopt"]), 1);
    }
    story.machine.scheduler = json!({});
    assert_exit_code(&story.run("script.ps1", &script, &["-Install"]), 0);
    assert_eq!(story.machine.network(), applied(machine()).network());
    let installed = story.machine.clone();
    story.comment("tasks cannot be listed: only a run that needs to know fails");
    for (switches, code) in [
        (&["-WhatIf"][..], 0),
        (&["-Rollback"], 0),
        (&["-Install"], 1),
        (&["-Uninstall"], 1),
        (&["-Destroy"], 1),
        (&["-Scheduled"], 0),
    ] {
        story.machine = installed.clone();
        story.machine.scheduler["faults"] = json!({ "Get-ScheduledTask": "refuse" });
        assert_exit_code(&story.run("script.ps1", &script, switches), code);
    }
    story.comment("Windows refuses to remove something, or reports a success that is none");
    for (call, kind) in [
        ("Unregister-ScheduledTask", "refuse"),
        ("Unregister-ScheduledTask", "ignore"),
        ("DeleteEventSource", "refuse"),
        ("DeleteEventSource", "ignore"),
    ] {
        story.machine = installed.clone();
        story.machine.scheduler["faults"] = json!({ call: kind });
        assert_exit_code(&story.run("script.ps1", &script, &["-Uninstall"]), 1);
    }
    story.machine.scheduler["faults"] = json!({});
    assert_exit_code(&story.run("script.ps1", &script, &["-Uninstall"]), 0);
    story.compare("refused.txt");
}

/// Whatever an administrator changed in the task is repaired by -Install.
#[test]
fn an_edited_task_is_registered_again() {
    if real::pwsh().is_none() {
        return;
    }
    let script = script_of(CLUSTER, "win-1");
    let edits: [(&str, Value); 12] = [
        ("/Actions/0/Arguments", json!("-File other.ps1")),
        ("/Actions/0/Execute", json!("pwsh.exe")),
        ("/Actions", json!([])),
        ("/Principal/UserId", json!("LOCAL SERVICE")),
        ("/Principal/RunLevel", json!("Limited")),
        ("/Settings/Enabled", json!(false)),
        ("/Settings/ExecutionTimeLimit", json!("PT1S")),
        ("/Settings/DisallowStartIfOnBatteries", json!(true)),
        ("/Triggers/0/Enabled", json!(false)),
        ("/Triggers/1/Subscription", json!("<QueryList/>")),
        ("/Triggers/2/Repetition/Interval", json!("P1D")),
        ("/Triggers", json!([])),
    ];
    let start = installed();
    let good = start.scheduler["tasks"].clone();
    let without_start = |tasks: &Value| {
        let mut tasks = tasks.clone();
        tasks["\\hostgw"]["Triggers"][2].as_object_mut().unwrap().remove("StartBoundary");
        tasks
    };
    for (pointer, value) in edits {
        let mut machine = start.clone();
        let place = machine.scheduler["tasks"]["\\hostgw"].pointer_mut(pointer).unwrap();
        assert_ne!(*place, value, "{pointer}");
        *place = value;
        let outcome = real::run(&mut machine, &script, &["-Install"], &Setting::default());
        assert_exit_code(&outcome, 0);
        let line = "~ Register-ScheduledTask -TaskName hostgw  # as SYSTEM: at startup,";
        assert!(outcome.stdout.contains(line), "{pointer}: {outcome:#?}");
        assert_eq!(without_start(&machine.scheduler["tasks"]), without_start(&good), "{pointer}");
    }
}

/// What a run prints can be longer than an entry, and names can contain anything.
#[test]
fn entries_are_limited_and_printable() {
    if real::pwsh().is_none() {
        return;
    }
    let mut nodes = String::new();
    for at in 0..200 {
        let _ = writeln!(
            nodes,
            "  - {{name: n{at}, os: linux, podCIDR: 10.245.{at}.0/24, address: 172.30.1.{at}}}"
        );
    }
    let mut cluster = cluster(&format!("{}{nodes}", CLUSTER.replace("10.244.0.0/16", "10.244.0.0/15")));
    let (index, _) = cluster.node("win-1").unwrap();
    for node in &mut cluster.nodes {
        node.name = format!("{}\u{202e}'`n$(exit 9)%1", node.name.as_raw()).into();
    }
    let desired = plan::windows_desired(&cluster, index).unwrap();
    let script = windows_script(&cluster, index, &desired, &PROVENANCE);
    let mut machine = machine();
    machine.find = Find::Absent;
    assert_exit_code(&real::run(&mut machine, &script, &["-Scheduled"], &Setting::default()), 0);
    let events = events(&machine);
    assert_eq!(events.len(), 1, "{events:#?}");
    let text = events[0]["text"].as_str().unwrap();
    assert!(text.len() > 29_000 && text.len() < 31_839, "{}", text.len());
    assert!(text.contains("\n(omitted; see the transcript)\n"), "{text}");
    for name in ["The configuration of node win-1", "HG0862: ", "pods of node n7", "Transcript: "] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("win-1\\u{202e}'`n$(exit 9)%1") && !text.contains('\u{202e}'), "{text}");
}

//! A small PowerShell interpreter that runs the rendered scripts unmodified on a model of a Windows machine.
//!
//! It supports what the scripts use, and fails at everything else. It reproduces PowerShell's surprising rules: the
//! output of a function is unrolled, a variable belongs to the function that sets it, strict mode rejects missing
//! properties, `ArrayList.Add` outputs a number, and functions of modules do not see the script's preferences.
//!
//! [`run_both`] compares it with a real PowerShell, if there is one.

mod cmdlets;
mod command;
mod expression;
mod interpreter;
mod lint;
mod machine;
pub mod real;
mod syntax;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::{cell::RefCell, rc::Rc};

pub use lint::{lint, routes_of};
pub use machine::{Fault, Find, Interface, Machine, RouteKey, Store};
pub use real::Setting;
pub use syntax::parse;

use command::Arguments;
use interpreter::{Flow, Interpreter};
use syntax::Node;
use value::Value;

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// `None` if the script was killed or stopped.
    pub code: Option<i64>,
    pub stdout: String,
    pub stderr: String,
}

/// The parameters of the scripts, which are all switches.
const PARAMETERS: [&str; 8] =
    ["WhatIf", "Adopt", "Rollback", "Destroy", "Install", "Uninstall", "Scheduled", "AllowRemovals"];

/// Runs a script on a machine.
pub fn run(machine: &mut Machine, text: &str, switches: &[&str]) -> Outcome {
    run_in(machine, text, switches, &Setting::default())
}

/// Runs a script on a machine with the caller's preferences.
pub fn run_in(machine: &mut Machine, text: &str, switches: &[&str], setting: &Setting) -> Outcome {
    let parsed = parse(text);
    let (tree, wrong) = &*parsed;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut interpreter = Interpreter::new(text, machine);
    for (name, value) in &setting.preferences {
        interpreter.set(&name.to_lowercase(), cmdlets::from_json(value));
    }
    let mut arguments = bind(&mut interpreter, switches);
    let mut output = Vec::new();
    let mut result = Ok(());
    for child in tree.root().named_children() {
        if child.kind() == "param_block" {
            for parameter in child.named_children().into_iter().flat_map(Node::named_children) {
                if let Ok((name, value)) = interpreter.parameter(parameter, &mut arguments) {
                    interpreter.set(&name, value);
                }
            }
            continue;
        }
        result = interpreter.statements(child, &mut output);
    }
    arguments.finish("the script");
    let mut stdout = std::mem::take(&mut interpreter.stdout);
    let stderr = std::mem::take(&mut interpreter.stderr);
    for value in output {
        stdout.push_str(&format!("{}\n", value.text().expect("a text")));
    }
    let code = match result {
        Err(Flow::Exit(code)) => Some(code),
        Err(Flow::Killed | Flow::Stopped) => None,
        Err(Flow::Throw(failure)) => panic!("an error that nothing caught: {failure:?}"),
        Ok(()) | Err(Flow::Return | Flow::Break | Flow::Continue) => panic!("a script ends with exit"),
    };
    // The system closes the files of a dead process.
    machine.locked.clear();
    Outcome { code, stdout, stderr }
}

/// Binds command-line arguments to parameters. The others become `$args`, without an error.
fn bind(interpreter: &mut Interpreter<'_>, switches: &[&str]) -> Arguments {
    let mut arguments = Arguments::default();
    let mut bound = value::Table::default();
    let mut rest = Vec::new();
    for word in switches.iter().flat_map(|switch| switch.split(' ')) {
        match word.strip_prefix('-').filter(|name| PARAMETERS.contains(name)) {
            Some(name) => {
                arguments.named.insert(name.to_lowercase(), None);
                bound.set(Value::str(name), Value::Bool(true));
            }
            None => rest.push(Value::str(word)),
        }
    }
    interpreter.set("args", Value::array(rest));
    interpreter.set("psboundparameters", Value::Table(Rc::new(RefCell::new(bound))));
    arguments
}

/// Runs a script on the model and, if there is one, in a real PowerShell. Asserts that both do the same.
pub fn run_both(machine: &mut Machine, text: &str, switches: &[&str]) -> Outcome {
    run_both_in(machine, text, switches, &Setting::default())
}

/// Same as [`run_both`], with the caller's preferences.
pub fn run_both_in(machine: &mut Machine, text: &str, switches: &[&str], setting: &Setting) -> Outcome {
    let mut real = machine.clone();
    let outcome = run_in(machine, text, switches, setting);
    if real::pwsh().is_some() {
        let actual = real::run(&mut real, text, switches, setting);
        assert_same(machine, &outcome, &real, &actual, switches);
        // Keeps what only a real PowerShell writes.
        machine.files = real.files;
    }
    outcome
}

/// Asserts that two runs have the same output and result.
fn assert_same(model: &Machine, expected: &Outcome, real: &Machine, actual: &Outcome, switches: &[&str]) {
    let both = format!("{switches:?}\nmodel: {expected:#?}\nreal: {actual:#?}");
    assert_eq!(expected.code, actual.code, "{both}");
    assert_eq!(model.network(), real.network(), "{both}");
    assert_eq!(model.calls, real.calls, "{both}");
    if expected.code.is_some() {
        assert_eq!(expected.stdout, actual.stdout, "{both}");
        assert_eq!(expected.stderr, actual.stderr, "{both}");
    }
    let records = |machine: &Machine| {
        machine.files.iter().map(|(path, text)| (path.clone(), record(text))).collect::<Vec<_>>()
    };
    assert_eq!(records(model), records(real), "{both}");
}

/// A record without its times and without insignificant order.
fn record(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(mut fields)) => {
            fields.remove("At");
            if let Some(serde_json::Value::String(before)) = fields.get("StateBefore") {
                let before = record(before);
                fields.insert("StateBefore".to_owned(), before);
            }
            serde_json::Value::Object(fields)
        }
        // A transcript: each line begins with its time.
        _ => text.lines().map(|line| line.split_once(' ').map_or(line, |(_, words)| words)).collect(),
    }
}

//! A small PowerShell, for the scripts that hostgw renders: the real text runs, on a model of a Windows machine.
//!
//! It knows what the scripts use, and fails at all else. Where PowerShell surprises, it does as PowerShell does: what a
//! function leaves is taken apart, a variable is of the function that set it, strict mode refuses what is not there,
//! `ArrayList.Add` leaves a number, functions of modules do not see the script's preferences.

mod cmdlets;
mod command;
mod expression;
mod interpreter;
mod lint;
mod machine;
#[cfg(test)]
mod tests;
mod types;
mod value;

use tree_sitter::{Parser, Tree};

pub use lint::{lint, routes_of};
pub use machine::{Fault, Interface, Machine, RouteKey, Store};

use command::Arguments;
use interpreter::{Flow, Interpreter, named_children};
use value::Value;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// None where the script was killed, or stopped.
    pub code: Option<i64>,
    pub stdout: String,
    pub stderr: String,
}

/// The tree of a script, with what the parser cannot read.
pub fn parse(text: &str) -> (Tree, Vec<String>) {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).expect("the grammar");
    let tree = parser.parse(text, None).expect("a tree");
    let mut wrong = Vec::new();
    if tree.root_node().has_error() {
        let mut nodes = vec![tree.root_node()];
        while let Some(node) = nodes.pop() {
            if node.is_error() || node.is_missing() {
                let text: String = text[node.byte_range()].chars().take(80).collect();
                wrong.push(format!("line {}: {text:?}", node.start_position().row + 1));
            }
            nodes.extend((0..node.child_count()).filter_map(|at| node.child(at as u32)));
        }
    }
    (tree, wrong)
}

/// Runs a script on a machine.
pub fn run(machine: &mut Machine, text: &str, switches: &[&str]) -> Outcome {
    let (tree, wrong) = parse(text);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut interpreter = Interpreter::new(text, machine);
    let mut arguments = Arguments::default();
    for switch in switches {
        let (name, value) =
            switch.split_once(' ').map_or((*switch, None), |(name, value)| (name, Some(Value::str(value))));
        arguments.named.insert(name.trim_start_matches('-').to_lowercase(), value);
    }
    let mut output = Vec::new();
    let mut result = Ok(());
    for child in named_children(tree.root_node()) {
        if child.kind() == "param_block" {
            for parameter in named_children(child).into_iter().flat_map(named_children) {
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
        stdout.push_str(&(value.text().expect("a text") + "\n"));
    }
    let code = match result {
        Err(Flow::Exit(code)) => Some(code),
        Err(Flow::Killed | Flow::Stopped) => None,
        Err(Flow::Throw(failure)) => panic!("an error that nothing caught: {failure:?}"),
        Ok(()) | Err(Flow::Return | Flow::Break | Flow::Continue) => panic!("a script ends with exit"),
    };
    // The system closes what a dead process had open.
    machine.locked.clear();
    Outcome { code, stdout, stderr }
}

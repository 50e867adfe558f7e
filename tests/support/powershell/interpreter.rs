//! Statements: executes a script along its syntax tree.
//!
//! An unsupported construct fails the test; the interpreter never guesses.

use std::collections::HashMap;

use super::{
    machine::Machine,
    syntax::Node,
    value::{Failure, Value},
};

/// Events that end a statement early.
pub enum Flow {
    Return,
    Break,
    Continue,
    Exit(i64),
    Throw(Failure),
    /// Ctrl-C.
    Stopped,
    /// The process ends: nothing of the script runs any more.
    Killed,
}

pub type Step<T> = Result<T, Flow>;

pub struct Interpreter<'t> {
    pub text: &'t str,
    pub machine: &'t mut Machine,
    pub functions: HashMap<&'t str, Node<'t>>,
    pub scopes: Vec<HashMap<String, Value>>,
    pub blocks: Vec<Node<'t>>,
    pub stdout: String,
    pub stderr: String,
    /// The number of diverted answers of `Find-NetRoute`.
    pub diverted: usize,
    /// The error that a plain `throw` rethrows.
    caught: Vec<Failure>,
}

impl<'t> Interpreter<'t> {
    pub fn new(text: &'t str, machine: &'t mut Machine) -> Self {
        Self {
            text,
            machine,
            functions: HashMap::new(),
            scopes: vec![HashMap::new()],
            blocks: Vec::new(),
            stdout: String::new(),
            stderr: String::new(),
            diverted: 0,
            caught: Vec::new(),
        }
    }

    pub fn of(&self, node: Node<'_>) -> &'t str {
        &self.text[node.span()]
    }

    /// Fails the test because of an unsupported construct.
    pub fn unknown(&self, what: &str, node: Node<'_>) -> ! {
        let text: String = self.of(node).chars().take(120).collect();
        panic!("not known: {what} ({}) in line {}: {text}", node.kind(), node.line())
    }

    pub fn throw<T>(&self, message: impl Into<String>) -> Step<T> {
        Err(Flow::Throw(Failure::new(message)))
    }

    /// Runs the statements of a list, a block or an entire script. Appends their output to `output`.
    pub fn statements(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        for child in node.named_children() {
            self.statement(child, output)?;
        }
        Ok(())
    }

    fn statement(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        match node.kind() {
            "statement_list" | "statement_block" | "script_block" | "script_block_body" => {
                self.statements(node, output)
            }
            "function_statement" => {
                let children = node.named_children();
                self.functions.insert(children[0].lower(self.text), node);
                Ok(())
            }
            "pipeline" => self.pipeline_statement(node, output),
            "if_statement" => self.if_statement(node, output),
            "foreach_statement" => self.foreach_statement(node, output),
            "for_statement" => self.for_statement(node, output),
            "try_statement" => self.try_statement(node, output),
            "flow_control_statement" => self.flow(node, output),
            "empty_statement" | "comment" => Ok(()),
            _ => self.unknown("statement", node),
        }
    }

    /// Runs an expression or a command as a statement, and appends its output.
    fn pipeline_statement(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        let node = node.inner();
        match node.kind() {
            "assignment_expression" => self.assign(node),
            "post_increment_expression" | "post_decrement_expression" => self.count(node).map(drop),
            _ => {
                output.extend(self.output(node)?);
                Ok(())
            }
        }
    }

    fn flow(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        let word = node.children()[0].lower(self.text);
        let value = node.named_children().into_iter().next();
        match word {
            "continue" => Err(Flow::Continue),
            "break" => Err(Flow::Break),
            "return" => {
                if let Some(value) = value {
                    output.extend(self.output(value.inner())?);
                }
                Err(Flow::Return)
            }
            "throw" => match value {
                Some(value) => {
                    let value = self.value(value)?;
                    let Some(message) = value.text() else { self.unknown("what is thrown", node) };
                    self.throw(&*message)
                }
                None => match self.caught.last() {
                    Some(failure) => Err(Flow::Throw(failure.clone())),
                    None => self.unknown("throw alone outside catch", node),
                },
            },
            "exit" => {
                let value = value.map(|value| self.value(value)).transpose()?;
                match value {
                    None => Err(Flow::Exit(0)),
                    Some(Value::Int(code)) => Err(Flow::Exit(code)),
                    Some(other) => panic!("an exit code that is a {}: {other:?}", other.kind()),
                }
            }
            _ => self.unknown("flow", node),
        }
    }

    fn if_statement(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        let children = node.named_children();
        if self.value(children[0])?.is_true() {
            return self.statements(children[1], output);
        }
        for child in &children[2..] {
            match child.kind() {
                "elseif_clauses" => {
                    for clause in child.named_children() {
                        let parts = clause.named_children();
                        if self.value(parts[0])?.is_true() {
                            return self.statements(parts[1], output);
                        }
                    }
                }
                "else_clause" => return self.statements(child.named_children()[0], output),
                _ => self.unknown("part of if", *child),
            }
        }
        Ok(())
    }

    fn foreach_statement(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        let children = node.named_children();
        let [variable, items, body] = children[..] else { self.unknown("foreach", node) };
        let items = self.value(items)?;
        let items = if matches!(items, Value::Null) { Vec::new() } else { items.enumerated() };
        for item in items {
            self.set(variable.lower(self.text), item);
            if !self.iteration(body, output)? {
                break;
            }
        }
        Ok(())
    }

    fn for_statement(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        let part = |kind: &str| node.named_children().into_iter().find(|child| child.kind() == kind);
        let (Some(first), Some(condition), Some(next), Some(body)) =
            (part("for_initializer"), part("for_condition"), part("for_iterator"), part("statement_block"))
        else {
            self.unknown("for", node)
        };
        self.pipeline_statement(first, output)?;
        while self.value(condition)?.is_true() {
            if !self.iteration(body, output)? {
                break;
            }
            self.pipeline_statement(next, output)?;
        }
        Ok(())
    }

    /// Runs an iteration of a loop. Returns whether to continue.
    fn iteration(&mut self, body: Node<'t>, output: &mut Vec<Value>) -> Step<bool> {
        match self.statements(body, output) {
            Ok(()) | Err(Flow::Continue) => Ok(true),
            Err(Flow::Break) => Ok(false),
            Err(other) => Err(other),
        }
    }

    fn try_statement(&mut self, node: Node<'t>, output: &mut Vec<Value>) -> Step<()> {
        let children = node.named_children();
        let mut result = self.statements(children[0], output);
        for child in &children[1..] {
            match child.kind() {
                "catch_clauses" => {
                    if let Err(Flow::Throw(failure)) = result {
                        let clause = child.named_children()[0];
                        result =
                            self.catch(*clause.named_children().last().expect("a block"), failure, output);
                    }
                }
                "finally_clause" => {
                    if !matches!(result, Err(Flow::Killed)) {
                        self.statements(child.named_children()[0], output)?;
                    }
                }
                _ => self.unknown("part of try", *child),
            }
        }
        result
    }

    fn catch(&mut self, block: Node<'t>, failure: Failure, output: &mut Vec<Value>) -> Step<()> {
        let message = Value::object([("Message", Value::str(&*failure.message))]);
        let category = Value::object([("Category", Value::str(failure.category))]);
        let id = ("FullyQualifiedErrorId", Value::str(failure.id));
        let error = Value::object([("Exception", message), ("CategoryInfo", category), id]);
        let before = self.find("_");
        self.set("_", error);
        self.caught.push(failure);
        let result = self.statements(block, output);
        self.caught.pop();
        self.set("_", before.unwrap_or(Value::Null));
        result
    }

    /// The value of a variable in this scope or in a calling one, by its name in lower case.
    pub fn find(&self, name: &str) -> Option<Value> {
        let name = name.trim_start_matches('$');
        self.scopes.iter().rev().find_map(|scope| scope.get(name).cloned())
    }

    /// Sets a variable in this scope, by its name in lower case.
    pub fn set(&mut self, name: &str, value: Value) {
        let (name, scope) = (name.trim_start_matches('$'), self.scopes.last_mut().expect("a scope"));
        match scope.get_mut(name) {
            Some(old) => *old = value,
            None => drop(scope.insert(name.to_owned(), value)),
        }
    }
}

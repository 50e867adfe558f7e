//! Calls of script functions and cmdlets, and their arguments.

use std::collections::HashMap;

use super::{
    interpreter::{Flow, Interpreter, Step},
    syntax::Node,
    value::Value,
};

/// The arguments of a call.
#[derive(Debug, Default)]
pub struct Arguments {
    /// By lowercase name; a switch has no value.
    pub named: HashMap<String, Option<Value>>,
    pub positional: Vec<Value>,
}

impl Arguments {
    /// Takes an argument by name, or else by position.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        match self.named.remove(&name.to_lowercase()) {
            Some(value) => Some(value.expect("a value")),
            None => (!self.positional.is_empty()).then(|| self.positional.remove(0)),
        }
    }

    /// Takes a switch.
    pub fn switch(&mut self, name: &str) -> bool {
        self.named.remove(&name.to_lowercase()).is_some_and(|value| value.is_none_or(|value| value.is_true()))
    }

    /// Asserts that no argument is left, which the command would not know.
    pub fn finish(&self, command: &str) {
        assert!(
            self.named.is_empty() && self.positional.is_empty(),
            "{command} does not know {:?} {:?}",
            self.named,
            self.positional
        );
    }
}

/// Parameters without a value.
const SWITCHES: [&str; 4] = ["-unique", "-compress", "-whatif", "-verbose"];

impl<'t> Interpreter<'t> {
    /// Calls a command with the output of the previous one in the pipeline.
    pub fn command(&mut self, node: Node<'t>, input: Option<Vec<Value>>) -> Step<Vec<Value>> {
        let children = node.named_children();
        let name = children[0].lower(self.text);
        if children[0].kind() != "command_name" {
            self.unknown("command", node);
        }
        let arguments = self.arguments(children.get(1).copied())?;
        if let Some(function) = self.functions.get(name).copied() {
            assert!(input.is_none(), "{name} takes no pipeline");
            return self.function(name, function, arguments);
        }
        self.cmdlet(name, arguments, input)
    }

    fn arguments(&mut self, elements: Option<Node<'t>>) -> Step<Arguments> {
        let mut arguments = Arguments::default();
        let Some(elements) = elements else { return Ok(arguments) };
        let mut pending: Option<String> = None;
        for child in elements.children() {
            match child.kind() {
                "command_argument_sep" | "comment" => continue,
                "command_parameter" => {
                    if let Some(name) = pending.take() {
                        arguments.named.insert(name, None);
                    }
                    let name = child.lower(self.text);
                    if SWITCHES.contains(&name) {
                        arguments.named.insert(name[1..].to_owned(), None);
                    } else {
                        pending = Some(name[1..].to_owned());
                    }
                    continue;
                }
                _ => {}
            }
            let node = child.inner();
            let text = self.of(node);
            if node.kind() == "variable" && text.starts_with('@') {
                let Some(Value::Table(table)) = self.find(&node.lower(self.text)[1..]) else {
                    self.unknown("splat", node)
                };
                for (name, value) in table.borrow().entries() {
                    let name = name.text().expect("a name").to_lowercase();
                    arguments.named.insert(name, Some(value.clone()));
                }
                continue;
            }
            let value = match node.kind() {
                "generic_token" => Value::str(text),
                _ => self.value(node)?,
            };
            match pending.take() {
                Some(name) => {
                    arguments.named.insert(name, Some(value));
                }
                None => arguments.positional.push(value),
            }
        }
        if let Some(name) = pending {
            arguments.named.insert(name, None);
        }
        Ok(arguments)
    }

    fn function(&mut self, name: &str, node: Node<'t>, mut arguments: Arguments) -> Step<Vec<Value>> {
        let mut scope = HashMap::new();
        let children = node.named_children();
        for child in &children[1..] {
            if child.kind() == "function_parameter_declaration" {
                for parameter in child.named_children().into_iter().flat_map(Node::named_children) {
                    let (variable, value) = self.parameter(parameter, &mut arguments)?;
                    scope.insert(variable, value);
                }
            }
        }
        arguments.finish(name);
        self.scopes.push(scope);
        assert!(self.scopes.len() < 60, "{name} calls itself");
        let mut output = Vec::new();
        let body = children.into_iter().rfind(|child| child.kind() == "script_block");
        let result = body.map_or(Ok(()), |body| self.statements(body, &mut output));
        self.scopes.pop();
        match result {
            Ok(()) | Err(Flow::Return) => Ok(output),
            Err(Flow::Break | Flow::Continue) => panic!("a break that leaves {name}"),
            Err(other) => Err(other),
        }
    }

    /// The value of a parameter, converted to its declared type.
    pub fn parameter(&mut self, node: Node<'t>, arguments: &mut Arguments) -> Step<(String, Value)> {
        let children = node.named_children();
        let variable = *children.last().expect("a variable");
        let name = variable.lower(self.text).trim_start_matches('$').to_owned();
        let kind = (children.len() > 1).then(|| self.type_name(children[0].inner()));
        let value = match kind.as_deref() {
            Some("switch") => return Ok((name.clone(), Value::Bool(arguments.switch(&name)))),
            _ => arguments.take(&name).unwrap_or(Value::Null),
        };
        let value = match kind {
            Some(kind) => self.convert(&kind, value)?,
            None => value,
        };
        Ok((name, value))
    }

    /// Runs a script block for one item of the pipeline.
    pub fn block(&mut self, block: &Value, item: Value) -> Step<Vec<Value>> {
        let Value::Block(at) = block else { panic!("not a script block: {block:?}") };
        let node = self.blocks[*at];
        let before = self.find("_");
        self.set("_", item);
        let mut output = Vec::new();
        let result = self.statements(node, &mut output);
        self.set("_", before.unwrap_or(Value::Null));
        result.map(|()| output)
    }
}

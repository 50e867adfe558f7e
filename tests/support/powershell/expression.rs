//! Expressions: their values, and their output to the pipeline.

use std::{borrow::Cow, cell::RefCell, rc::Rc};

use super::{
    interpreter::{Flow, Interpreter, Step},
    syntax::{Node, Nodes},
    value::{Key, Name, Table, Value},
};

impl<'t> Interpreter<'t> {
    /// The output of an expression or a command to the pipeline.
    pub fn output(&mut self, node: Node<'t>) -> Step<Vec<Value>> {
        let node = node.inner();
        match node.kind() {
            "command" => self.command(node, None),
            "pipeline_chain" => self.chain(node),
            // A method without a result and a cast to [void] output nothing.
            "invokation_expression" => {
                Ok(self.invoke(node)?.map(|value| value.enumerated()).unwrap_or_default())
            }
            "cast_expression" if node.named_children()[0].lower(self.text) == "[void]" => {
                self.value(*node.named_children().last().expect("an operand"))?;
                Ok(Vec::new())
            }
            _ => Ok(self.value(node)?.enumerated()),
        }
    }

    /// Commands connected by `|`.
    fn chain(&mut self, node: Node<'t>) -> Step<Vec<Value>> {
        let mut parts = node.named_children().into_iter();
        let mut output = self.output(parts.next().expect("a first part"))?;
        for part in parts {
            output = self.command(part.inner(), Some(output))?;
        }
        Ok(output)
    }

    /// The value of an expression, or the collected output of a command.
    pub fn value(&mut self, node: Node<'t>) -> Step<Value> {
        let node = node.inner();
        match node.kind() {
            "command" | "pipeline_chain" => Ok(Value::collected(self.output(node)?)),
            "variable" => self.variable(node),
            "verbatim_string_characters" => Ok(self.verbatim(node)),
            "expandable_string_literal" => Ok(self.expandable(node)),
            "decimal_integer_literal" => Ok(Value::Int(self.of(node).parse().expect("a number"))),
            // The version of the strict mode; the scripts use no other decimal fractions.
            "real_literal" => Ok(Value::str(self.of(node))),
            "hexadecimal_integer_literal" => {
                Ok(Value::Int(i64::from_str_radix(&self.of(node)[2..], 16).expect("a number")))
            }
            "parenthesized_expression" => {
                let only = node.named_children();
                self.value(only[0])
            }
            "array_expression" => {
                let mut output = Vec::new();
                self.statements(node, &mut output)?;
                Ok(Value::array(output))
            }
            "array_literal_expression" => {
                let items = node.named_children().into_iter().map(|item| self.value(item));
                Ok(Value::array(items.collect::<Step<_>>()?))
            }
            "hash_literal_expression" => self.hash(node),
            "script_block_expression" => {
                self.blocks.push(node);
                Ok(Value::Block(self.blocks.len() - 1))
            }
            "type_literal" => Ok(Value::Type(self.type_name(node))),
            "member_access" => self.member(node),
            "element_access" => self.element(node),
            "invokation_expression" => Ok(self.invoke(node)?.unwrap_or(Value::Null)),
            "cast_expression" => self.cast(node),
            "expression_with_unary_operator" => self.unary(node),
            "logical_expression" | "logical_argument_expression" => self.logical(node),
            "comparison_expression"
            | "comparison_argument_expression"
            | "additive_expression"
            | "additive_argument_expression"
            | "multiplicative_expression"
            | "multiplicative_argument_expression"
            | "bitwise_expression" => self.binary(node),
            _ => self.unknown("expression", node),
        }
    }

    fn variable(&mut self, node: Node<'t>) -> Step<Value> {
        let name = node.lower(self.text).trim_start_matches('$');
        match name {
            // The preferences of a caller that did not change any.
            "whatifpreference" => Ok(self.find(name).unwrap_or(Value::Bool(false))),
            "executioncontext" => {
                let mode = self.machine.language_mode.unwrap_or("FullLanguage");
                let session = Value::object([("LanguageMode", Value::str(mode))]);
                Ok(Value::object([("SessionState", session)]))
            }
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            "env:programfiles" => Ok(Value::str("C:\\Program Files")),
            // A 64-bit PowerShell on a 64-bit machine. Environment variables that do not exist are not an error.
            "env:programw6432" => Ok(Value::Null),
            _ => match self.find(name) {
                Some(value) => Ok(value),
                // Set-StrictMode.
                None => self.throw(format!(
                    "The variable '${name}' cannot be retrieved because it has not been set."
                )),
            },
        }
    }

    /// A single-quoted literal. PowerShell also accepts typographic quotes, unlike the parser.
    fn verbatim(&self, node: Node<'t>) -> Value {
        let text = self.of(node);
        let inside = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).expect("quotes");
        assert!(!inside.contains(|c: char| ('\u{2018}'..='\u{201b}').contains(&c)), "a quote in {text}");
        Value::str(inside.replace("''", "'"))
    }

    /// A double-quoted literal, which the scripts only use for line endings.
    fn expandable(&self, node: Node<'t>) -> Value {
        let text = self.of(node);
        let inside = &text[1..text.len() - 1];
        if inside.contains(['$', '"']) {
            self.unknown("expansion", node);
        }
        Value::str(inside.replace("`r", "\r").replace("`n", "\n"))
    }

    fn hash(&mut self, node: Node<'t>) -> Step<Value> {
        let mut table = Table::default();
        for body in node.named_children() {
            for entry in body.named_children() {
                let children = entry.named_children();
                let (name, value) = (children[0], children[1]);
                let name = self.of(name.inner());
                let value = self.value(value)?;
                let name = Value::str(name.trim_matches('\''));
                if table.get(&Key::of(&name).expect("a key")).is_some() {
                    self.unknown("a key twice", node);
                }
                table.set(name, value);
            }
        }
        Ok(Value::Table(Rc::new(RefCell::new(table))))
    }

    pub fn type_name(&self, node: Node<'t>) -> String {
        node.lower(self.text).trim_matches(['[', ']']).replace("system.", "")
    }

    fn member(&mut self, node: Node<'t>) -> Step<Value> {
        let children = node.named_children();
        let owner = self.value(children[0])?;
        let member = children[1].inner();
        let name = match member.kind() {
            "variable" => &*self.value(member)?.text().expect("a name"),
            _ => self.of(member),
        };
        self.property(&owner, name)
    }

    /// A property. A missing one is an error, because the scripts are strict.
    pub fn property(&mut self, owner: &Value, name: &str) -> Step<Value> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let found = match owner {
            Value::Table(table) => {
                let table = table.borrow();
                match table.get(&Key::Str(name.into())) {
                    Some(value) => Some(value.clone()),
                    None if is("Keys") => Some(Value::array(table.keys())),
                    None if is("Values") => Some(Value::array(table.values())),
                    None if is("Count") => Some(Value::Int(table.len() as i64)),
                    None => None,
                }
            }
            Value::Object(object) => object.borrow().get(&Name(Cow::Borrowed(name))).cloned(),
            Value::Array(items) => is("Count").then(|| Value::Int(items.len() as i64)),
            Value::List(items) => is("Count").then(|| Value::Int(items.borrow().len() as i64)),
            Value::Type(kind) => self.static_property(kind, &name.to_lowercase()),
            Value::Str(text) if is("Length") => Some(Value::Int(text.encode_utf16().count() as i64)),
            _ => None,
        };
        match found {
            Some(value) => Ok(value),
            None => self
                .throw(format!("The property '{name}' cannot be found on this object ({}).", owner.kind())),
        }
    }

    fn element(&mut self, node: Node<'t>) -> Step<Value> {
        let children = node.named_children();
        let (owner, index) = (self.value(children[0])?, self.value(children[1])?);
        match (&owner, &index) {
            (Value::Table(table), _) => match Key::of(&index) {
                Some(key) => Ok(table.borrow().get(&key).cloned().unwrap_or(Value::Null)),
                None => self.throw("Index operation failed; the array index evaluated to null."),
            },
            (Value::Array(items), Value::Int(at)) => {
                Ok(usize::try_from(*at).ok().and_then(|at| items.get(at).cloned()).unwrap_or(Value::Null))
            }
            (Value::List(items), Value::Int(at)) => {
                let item = usize::try_from(*at).ok().and_then(|at| items.borrow().get(at).cloned());
                item.map_or_else(|| self.throw("Index was out of range."), Ok)
            }
            (Value::Null, _) => self.throw("Cannot index into a null array."),
            _ => self.unknown("index", node),
        }
    }

    fn cast(&mut self, node: Node<'t>) -> Step<Value> {
        let children = node.named_children();
        let kind = self.type_name(children[0]);
        let value = self.value(children[1])?;
        self.convert(&kind, value)
    }

    /// Converts a value to another type.
    pub fn convert(&mut self, kind: &str, value: Value) -> Step<Value> {
        Ok(match (kind, &value) {
            ("void", _) => Value::Null,
            ("bool" | "switch", _) => Value::Bool(value.is_true()),
            ("string", _) => match value.text() {
                Some(text) => Value::str(text),
                None => panic!("the text of a {}: {value:?}", value.kind()),
            },
            ("char", Value::Int(number)) => {
                // A lone surrogate is kept in a private use area until it meets its other half.
                let unit = u32::try_from(*number).unwrap();
                let private = || char::from_u32(PRIVATE + unit - 0xd800).expect("a surrogate");
                Value::str(char::from_u32(unit).unwrap_or_else(private).to_string())
            }
            ("int" | "long", Value::Int(_)) => value,
            ("int", Value::Null) => Value::Int(0),
            ("int", Value::Bool(value)) => Value::Int(i64::from(*value)),
            ("int", Value::Str(text)) => match text.trim().parse::<i32>() {
                Ok(number) => Value::Int(number.into()),
                Err(_) => return self.throw(format!("Cannot convert value \"{text}\" to type \"Int32\".")),
            },
            _ => panic!("not known: [{kind}] of {value:?}"),
        })
    }

    fn unary(&mut self, node: Node<'t>) -> Step<Value> {
        let operator = node.children()[0].lower(self.text);
        let operand = *node.named_children().last().expect("an operand");
        let value = self.value(operand)?;
        match (operator, value) {
            (",", value) => Ok(Value::array(vec![value])),
            ("-not" | "!", value) => Ok(Value::Bool(!value.is_true())),
            ("-", Value::Int(number)) => Ok(Value::Int(-number)),
            _ => self.unknown("operator", node),
        }
    }

    fn logical(&mut self, node: Node<'t>) -> Step<Value> {
        let children = node.children();
        let left = self.value(children[0])?.is_true();
        match children[1].lower(self.text) {
            "-and" => Ok(Value::Bool(left && self.value(children[2])?.is_true())),
            "-or" => Ok(Value::Bool(left || self.value(children[2])?.is_true())),
            _ => self.unknown("operator", node),
        }
    }

    fn binary(&mut self, node: Node<'t>) -> Step<Value> {
        let children: Nodes<'t> =
            node.children().into_iter().filter(|child| child.kind() != "comment").collect();
        let [left, operator, right] = children[..] else { self.unknown("operands", node) };
        let (left, right) = (self.value(left)?, self.value(right)?);
        let operator = operator.lower(self.text);
        match operator {
            "+" => Ok(self.plus(left, right)),
            "*" => match (left, right) {
                (Value::Int(left), Value::Int(right)) => Ok(Value::Int(left * right)),
                _ => self.unknown("product", node),
            },
            "-" => match (left, right) {
                (Value::Int(left), Value::Int(right)) => Ok(Value::Int(left - right)),
                _ => self.unknown("difference", node),
            },
            "-band" => match (left, right) {
                (Value::Int(left), Value::Int(right)) => Ok(Value::Int(left & right)),
                _ => self.unknown("bits", node),
            },
            "-is" => {
                let Value::Type(kind) = &right else { self.unknown("type", node) };
                Ok(Value::Bool(match kind.as_str() {
                    "string" => matches!(left, Value::Str(_)),
                    "array" => matches!(left, Value::Array(_)),
                    // Everything that the model knows exists.
                    "management.automation.commandnotfoundexception" => false,
                    "int" | "long" => matches!(left, Value::Int(_)),
                    _ => self.unknown("type", node),
                }))
            }
            "-join" => {
                let items = left.enumerated();
                let texts = items.iter().map(|item| item.text().expect("texts"));
                Ok(Value::str(texts.collect::<Vec<_>>().join(&right.text().expect("a text"))))
            }
            "-contains" | "-notcontains" => {
                let has = left.enumerated().iter().any(|item| equal(item, &right));
                Ok(Value::Bool(has == (operator == "-contains")))
            }
            "-eq" | "-ne" => {
                if matches!(left, Value::Array(_) | Value::List(_)) {
                    self.unknown("a comparison that filters", node);
                }
                Ok(Value::Bool(equal(&left, &right) == (operator == "-eq")))
            }
            "-ceq" | "-cne" => match (&left, &right) {
                (Value::Str(left), Value::Str(right)) => {
                    Ok(Value::Bool((left == right) == (operator == "-ceq")))
                }
                _ => self.unknown("a comparison", node),
            },
            // The only pattern: text with a character outside of printable ASCII.
            "-cnotmatch" => match (&left, &right) {
                (Value::Str(left), Value::Str(right)) if &**right == "[^ -~]" => {
                    Ok(Value::Bool(left.chars().all(|c| (' '..='~').contains(&c))))
                }
                _ => self.unknown("a match", node),
            },
            "-lt" | "-gt" | "-le" | "-ge" => {
                let (Value::Int(left), Value::Int(right)) = (&left, &right) else {
                    panic!("{left:?} {operator} {right:?} in line {}", node.line())
                };
                Ok(Value::Bool(match operator {
                    "-lt" => left < right,
                    "-gt" => left > right,
                    "-le" => left <= right,
                    _ => left >= right,
                }))
            }
            _ => self.unknown("operator", node),
        }
    }

    /// A sum; the left operand determines its type.
    pub fn plus(&mut self, left: Value, right: Value) -> Value {
        match (left, right) {
            (Value::Int(left), Value::Int(right)) => Value::Int(left + right),
            (Value::Str(left), right) => match right.text() {
                Some(right) => Value::str(paired(format!("{left}{right}"))),
                None => panic!("{left:?} + {right:?}"),
            },
            (left @ Value::Array(_), right) => {
                let right = right.enumerated();
                Value::array(left.enumerated().into_iter().chain(right).collect())
            }
            (left, right) => panic!("not known: {left:?} + {right:?}"),
        }
    }

    pub fn assign(&mut self, node: Node<'t>) -> Step<()> {
        let children = node.named_children();
        let [target, operator, value] = children[..] else { self.unknown("assignment", node) };
        let mut value = self.value(value)?;
        let target = target.inner();
        match self.of(operator).trim() {
            "=" => {}
            "+=" => {
                let old = self.value(target)?;
                value = self.plus(old, value);
            }
            _ => self.unknown("assignment", node),
        }
        self.store(target, value)
    }

    fn store(&mut self, target: Node<'t>, value: Value) -> Step<()> {
        match target.kind() {
            "variable" => {
                self.set(target.lower(self.text), value);
                Ok(())
            }
            "member_access" => {
                let children = target.named_children();
                let owner = self.value(children[0])?;
                let name = self.of(children[1].inner()).to_owned();
                match &owner {
                    Value::Table(table) => {
                        table.borrow_mut().set(Value::str(name), value);
                        Ok(())
                    }
                    Value::Object(object) => match object.borrow_mut().get_mut(&Name(name.clone().into())) {
                        Some(old) => {
                            *old = value;
                            Ok(())
                        }
                        None => self.throw(format!("The property '{name}' cannot be found on this object.")),
                    },
                    _ => self.unknown("property", target),
                }
            }
            "element_access" => {
                let children = target.named_children();
                let (owner, index) = (self.value(children[0])?, self.value(children[1])?);
                match owner {
                    Value::Table(table) => {
                        table.borrow_mut().set(index, value);
                        Ok(())
                    }
                    _ => self.unknown("element", target),
                }
            }
            _ => self.unknown("target", target),
        }
    }

    /// `$at--`, `$at++`.
    pub fn count(&mut self, node: Node<'t>) -> Step<Value> {
        let variable = node.named_children()[0];
        let Value::Int(number) = self.value(variable)? else { self.unknown("count", node) };
        let next = if self.of(node).ends_with("--") { number - 1 } else { number + 1 };
        self.store(variable.inner(), Value::Int(next))?;
        Ok(Value::Int(number))
    }
}

/// The significant part of a text in a culture-sensitive comparison: without case, and without characters that are
/// ignored in all languages.
fn weighed(text: &str) -> String {
    let has_weight = |c: &char| !matches!(c, '\0' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{feff}');
    text.to_lowercase().chars().filter(has_weight).collect()
}

/// Whether `-eq` considers them equal: converts the right operand to the type of the left one.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Str(left), right) => {
            let right = right.text().unwrap_or_else(|| panic!("{left:?} -eq {right:?}"));
            let is_plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            match is_plain(left) && is_plain(&right) {
                true => left.eq_ignore_ascii_case(&right),
                false => weighed(left) == weighed(&right),
            }
        }
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Int(left), Value::Str(right)) => right.trim().parse() == Ok(*left),
        (Value::Bool(left), right) => *left == right.is_true(),
        _ => panic!("not known: {left:?} -eq {right:?}"),
    }
}

/// The private use area for lone surrogates.
const PRIVATE: u32 = 0x10_0000;

/// Combines surrogates into characters.
fn paired(text: String) -> String {
    if text.is_ascii() {
        return text;
    }
    let half = |c: char| (PRIVATE..PRIVATE + 0x800).contains(&u32::from(c)).then(|| u32::from(c) - PRIVATE);
    let mut paired = String::with_capacity(text.len());
    for character in text.chars() {
        match (paired.chars().last().and_then(half), half(character)) {
            (Some(high @ 0..0x400), Some(low @ 0x400..)) => {
                paired.pop();
                paired.extend(char::from_u32(0x1_0000 + (high << 10) + (low - 0x400)));
            }
            _ => paired.push(character),
        }
    }
    paired
}

/// Same as [`Interpreter::throw`], without an interpreter.
pub fn thrown<T>(message: impl Into<String>) -> Step<T> {
    Err(Flow::Throw(super::value::Failure::new(message)))
}

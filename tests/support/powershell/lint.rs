//! Checks that a script avoids dangerous constructs, and extracts the routes of its data block.

use super::syntax::{Node, Tree};

/// The cmdlets that change the network or remove tasks, with the parameters that each needs to affect a single object.
const SELECTORS: [(&str, &[&str]); 5] = [
    ("new-netroute", &["interfaceindex", "destinationprefix", "nexthop", "routemetric"]),
    ("set-netroute", &["interfaceindex", "destinationprefix", "nexthop", "policystore"]),
    ("remove-netroute", &["interfaceindex", "destinationprefix", "nexthop", "policystore"]),
    ("set-netipinterface", &["interfaceindex", "addressfamily"]),
    ("unregister-scheduledtask", &["taskname", "taskpath"]),
];

/// Other cmdlets of modules, which do not see the script's preferences. Their errors must not be ignored.
const CHECKED: [&str; 13] = [
    "get-netroute",
    "get-netipaddress",
    "get-netipinterface",
    "find-netroute",
    "get-scheduledtask",
    "register-scheduledtask",
    "new-scheduledtask",
    "new-scheduledtaskaction",
    "new-scheduledtasktrigger",
    "new-scheduledtaskprincipal",
    "new-scheduledtasksettingsset",
    "get-cimclass",
    "new-ciminstance",
];

/// Commands that execute text as code.
const CODE: [&str; 4] = ["invoke-expression", "iex", "invoke-command", "add-type"];

/// Returns the problems of a script.
pub fn lint(text: &str, tree: &Tree) -> Vec<String> {
    let mut lint = Lint { text, wrong: Vec::new() };
    lint.walk(tree.root());
    if let Some(character) = text.chars().find(|c| !c.is_ascii()) {
        lint.wrong.push(format!(
            "{character:?} is not ASCII: Windows PowerShell 5.1 reads the code page of the machine"
        ));
    }
    lint.wrong
}

struct Lint<'a> {
    text: &'a str,
    wrong: Vec<String>,
}

impl<'a> Lint<'a> {
    fn of(&self, node: Node<'_>) -> &'a str {
        &self.text[node.span()]
    }

    fn report(&mut self, node: Node<'_>, what: &str) {
        let line = node.line();
        self.wrong.push(format!("line {line}: {what}: {}", self.of(node).lines().next().unwrap_or_default()));
    }

    fn walk(&mut self, node: Node<'_>) {
        match node.kind() {
            "command" => self.command(node),
            "command_invokation_operator" => self.report(node, "calls the command in a variable"),
            "expandable_string_literal" if self.of(node).contains('$') => {
                self.report(node, "a variable in a string");
            }
            "type_literal" if self.of(node).to_lowercase().contains("scriptblock") => {
                self.report(node, "executes text as code");
            }
            _ => {}
        }
        for child in node.named_children() {
            self.walk(child);
        }
    }

    fn command(&mut self, node: Node<'_>) {
        let children = node.named_children();
        let name = self.of(children[0]).to_lowercase();
        if CODE.contains(&name.as_str()) {
            self.report(node, "executes text as code");
        }
        let is_checked = CHECKED.contains(&name.as_str());
        let selectors = SELECTORS.iter().find(|(cmdlet, _)| *cmdlet == name).map(|(_, selectors)| *selectors);
        if selectors.is_none() && !is_checked {
            return;
        }
        let parameters = self.parameters(node, children.get(1).copied());
        let value = |name: &str| {
            parameters
                .iter()
                .find(|(parameters, _)| parameters == name)
                .map(|(_, value)| value.to_lowercase())
        };
        if value("erroraction").is_none_or(|action| action.trim_matches('\'') != "stop") {
            self.report(node, "continues after an error");
        }
        let Some(selectors) = selectors else { return };
        for selector in selectors {
            match value(selector) {
                None => self.report(node, &format!("no -{selector}")),
                Some(value) if value.contains('*') => {
                    self.report(node, &format!("a pattern for -{selector}"))
                }
                Some(_) => {}
            }
        }
        if value("confirm").as_deref() != Some("$false") {
            self.report(node, "would ask");
        }
        if value("whatif").as_deref() != Some("$false") {
            self.report(node, "does nothing where the caller prefers -WhatIf");
        }
    }

    /// The parameters of a call with their values, including splatted ones.
    fn parameters(&self, call: Node<'_>, elements: Option<Node<'_>>) -> Vec<(String, String)> {
        let mut parameters = Vec::new();
        let mut pending = None;
        for child in elements.map(Node::named_children).unwrap_or_default() {
            match child.kind() {
                "command_argument_sep" => {}
                "command_parameter" => pending = Some(self.of(child).trim_start_matches('-').to_lowercase()),
                _ => {
                    let text = self.of(child);
                    if let Some(name) = text.strip_prefix('@') {
                        parameters.extend(self.table(call, name));
                    } else if let Some(name) = pending.take() {
                        parameters.push((name, text.to_owned()));
                    }
                }
            }
        }
        parameters
    }

    /// The entries of the literal table that was last assigned to a variable before a call, in the same function or
    /// the script.
    fn table(&self, call: Node<'_>, name: &str) -> Vec<(String, String)> {
        let mut scope = call;
        while let Some(parent) = scope.parent() {
            scope = parent;
            let mut found = Vec::new();
            assignments(scope, self.text, name, &mut found);
            let before = found.into_iter().rfind(|node| node.span().start < call.span().start);
            if let Some(assignment) = before {
                return table_entries(assignment, self.text);
            }
            if scope.kind() == "function_statement" {
                break;
            }
        }
        Vec::new()
    }
}

/// The assignments to a variable.
fn assignments<'t>(node: Node<'t>, text: &str, name: &str, found: &mut Vec<Node<'t>>) {
    if node.kind() == "assignment_expression" {
        let target = text[node.named_children()[0].span()].trim_start_matches('$');
        if target.eq_ignore_ascii_case(name) {
            found.push(node);
        }
    }
    for child in node.named_children() {
        assignments(child, text, name, found);
    }
}

/// The entries of the first literal table below a node.
fn table_entries(node: Node<'_>, text: &str) -> Vec<(String, String)> {
    if node.kind() == "hash_literal_expression" {
        let entries = node.named_children().into_iter().flat_map(Node::named_children);
        return entries
            .map(|entry| {
                let children = entry.named_children();
                let of = |node: Node<'_>| text[node.span()].trim().to_owned();
                (of(children[0].inner()).to_lowercase(), of(children[1]))
            })
            .collect();
    }
    node.named_children()
        .into_iter()
        .map(|child| table_entries(child, text))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The routes of the data block: destination, next hop, metric.
pub fn routes_of(text: &str, tree: &Tree) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    assignments(tree.root(), text, "Routes", &mut found);
    assert_eq!(found.len(), 1, "the data block");
    let mut tables = Vec::new();
    collect_tables(found[0], &mut tables);
    tables
        .into_iter()
        .map(|table| {
            let entries = table_entries(table, text);
            let of = |name: &str| {
                let entry = entries.iter().find(|(key, _)| key == name).expect("an entry");
                entry.1.trim_matches('\'').to_owned()
            };
            (of("destination"), of("nexthop"), of("metric"))
        })
        .collect()
}

fn collect_tables<'t>(node: Node<'t>, tables: &mut Vec<Node<'t>>) {
    if node.kind() == "hash_literal_expression" {
        tables.push(node);
        return;
    }
    for child in node.named_children() {
        collect_tables(child, tables);
    }
}

//! Verifies README and the guides: runs every command and compares its output, loads every configuration, and looks up
//! every quoted output in the expected outputs of other tests.
//!
//! The language of a fenced block determines the check:
//!
//! | language | check |
//! |---|---|
//! | `console` | each line after `$` runs in the node's folder, and the lines below it are the output; `…` represents omitted lines |
//! | `yaml`, `toml`, `json` | written to the folder after `<!-- file NAME -->`, otherwise a part of a configuration that must be valid together with the rest of the recipe |
//! | `sh`, `powershell` | only parsed, for commands that a test cannot run, such as an installation |
//! | `text` | must be part of an expected output in `tests/cases` |
//!
//! Comments, which readers do not see, prepare the environment: `<!-- node -->` starts a new node with a configuration,
//! `<!-- node listed -->` one with a list of Kubernetes nodes instead, `<!-- run COMMANDS -->` runs commands, and `<!-- exit N -->` sets
//! the exit code of the next block. `<!-- node SETUP -->` starts a node with pods that ping
//! each other every 2 ms until `<!-- no packet lost -->`; if its routes are not set up, pods of other nodes join at
//! `<!-- pods reach each other -->`. `HOSTGW_BLESS=1` updates the outputs.

use std::{fs, path::Path};

use serde_json::json;
use serde_yaml::Value;

use crate::{
    e2e::{
        self,
        migration::{SetUpNode, Setup},
    },
    support::{
        cases,
        namespace::{Namespace, Outcome, Privilege, is_root, steady},
        schema::schema,
    },
};

/// A part of a document.
enum Part {
    /// A line of text.
    Text(String),
    /// A comment with an instruction for the tests.
    Directive(String),
    /// A fenced block: its opening line, its language and its contents.
    Block { fence: String, language: String, content: Vec<String> },
}

fn parts(text: &str) -> Vec<Part> {
    let (mut parts, mut lines) = (Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let content =
                lines.by_ref().take_while(|line| line.trim() != "```").map(ToOwned::to_owned).collect();
            parts.push(Part::Block { fence: line.to_owned(), language: language.to_owned(), content });
        } else if line.trim_start().starts_with("<!--") {
            let mut comment = line.to_owned();
            while !comment.ends_with("-->") {
                comment.push('\n');
                comment.push_str(lines.next().expect("a comment ends"));
            }
            parts.push(Part::Directive(comment));
        } else {
            parts.push(Part::Text(line.to_owned()));
        }
    }
    parts
}

/// The state of checking a document.
struct DocumentCheck<'a> {
    name: &'a str,
    node: Option<Namespace>,
    /// A node that was set up by another program; it comes before the other one.
    set_up: Option<SetUpNode>,
    /// The name of the file in the next block.
    file: Option<String>,
    /// The exit code of the commands in the next block.
    code: i32,
    failures: Vec<String>,
}

impl DocumentCheck<'_> {
    fn fail(&mut self, why: impl std::fmt::Display) {
        self.failures.push(format!("{}: {why}", self.name));
    }

    fn node(&self) -> &Namespace {
        let set_up = self.set_up.as_ref().map(|set_up| &set_up.node);
        set_up
            .or(self.node.as_ref())
            .unwrap_or_else(|| panic!("{}: no <!-- node --> before a command", self.name))
    }

    fn directive(&mut self, comment: &str) {
        let text = comment.trim_start().trim_start_matches("<!--").trim_end_matches("-->").trim();
        let (verb, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match verb {
            "node" => {
                let privilege = if is_root() { Privilege::Root } else { Privilege::User };
                self.set_up = None;
                match rest.trim() {
                    "" => self.node = Some(e2e::node(privilege)),
                    "listed" => {
                        let node = e2e::node(privilege);
                        node.sh("rm hostgw.yaml");
                        node.write("nodes.json", &list_of_nodes().to_string());
                        self.node = Some(node);
                    }
                    name => {
                        let setup = Setup::named(name).expect("a setup");
                        let mut set_up = SetUpNode::new(privilege, setup);
                        set_up.start_flows();
                        self.set_up = Some(set_up);
                    }
                }
            }
            "pods" if rest.trim() == "reach each other" => {
                self.set_up.as_mut().expect("a node with pods").start_all_flows();
            }
            "no" if rest.trim() == "packet lost" => {
                self.set_up.as_mut().expect("a node whose pods send packets").assert_nothing_lost();
            }
            "run" => {
                self.command(rest.trim()).expect(0);
            }
            "file" => self.file = Some(rest.trim().to_owned()),
            "exit" => self.code = rest.trim().parse().expect("an exit code"),
            _ => self.fail(format!("unknown comment {comment}")),
        }
    }

    /// Runs a command with both output streams combined, as on a terminal.
    fn command(&self, command: &str) -> Outcome {
        let script = format!("PATH=$(dirname \"$HOSTGW\"):$PATH; export HOME=$PWD; exec 2>&1\n{command}");
        self.node().try_sh(&script)
    }

    /// Checks a block, and returns its expected contents.
    fn block(&mut self, language: &str, content: &[String]) -> Vec<String> {
        let (file, code) = (self.file.take(), std::mem::take(&mut self.code));
        match language {
            "console" => return self.console(content, code),
            "yaml" | "toml" | "json" => self.configuration(language, file, &content.join("\n")),
            "sh" => self.shell(&content.join("\n")),
            "powershell" => self.powershell(&content.join("\n")),
            "text" => self.quotation(content),
            other => self.fail(format!("a block of language {other:?} has no check")),
        }
        content.to_vec()
    }

    fn console(&mut self, content: &[String], code: i32) -> Vec<String> {
        let mut result = Vec::new();
        let mut lines = content.iter().peekable();
        while let Some(line) = lines.next() {
            let Some(typed) = line.strip_prefix("$ ") else {
                self.fail(format!("{line:?} is not the output of a command"));
                return content.to_vec();
            };
            let mut command = typed.to_owned();
            result.push(line.clone());
            while command.ends_with('\\') {
                let more = lines.next().expect("a command ends");
                command.push('\n');
                command.push_str(more);
                result.push(more.clone());
            }
            let mut expected = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                expected.push(line.as_str());
            }
            let outcome = self.command(&command);
            if outcome.code != code {
                self.fail(format!(
                    "`{command}` ends with {} instead of {code}:\n{}",
                    outcome.code, outcome.stdout
                ));
            }
            let folder = self.node().folder().display().to_string();
            let actual = outcome.stdout.replace(&format!("{folder}/state"), "/run/hostgw");
            let actual = actual.replace(&format!("{folder}/"), "");
            result.extend(updated(&expected, &actual));
        }
        result
    }

    fn configuration(&mut self, language: &str, file: Option<String>, text: &str) {
        if let Some(name) = file {
            self.node().write(&name, &format!("{text}\n"));
            if language != "json" {
                self.command(&format!("hostgw validate {name}")).expect(0);
            }
            return;
        }
        // A part of a configuration must be valid together with the rest of the recipe.
        let part: Value =
            serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", self.name));
        let mut whole: Value =
            serde_yaml::from_str(include_str!("../examples/recipe.yaml")).expect("the recipe");
        let keys = whole.as_mapping_mut().expect("a mapping");
        for (key, value) in part.as_mapping().expect("a mapping") {
            keys.insert(key.clone(), value.clone());
        }
        let whole = serde_yaml::to_string(&whole).expect("YAML");
        let document =
            hostgw::config::Document::new(self.name.to_owned(), whole, hostgw::config::Format::Yaml);
        if let Err(invalid) = hostgw::config::load(&document) {
            self.fail(invalid.render(false));
        }
    }

    fn shell(&mut self, text: &str) {
        let mut command = std::process::Command::new("bash");
        let parsed = command.args(["-n", "-c", text]).output().expect("bash");
        if !parsed.status.success() {
            self.fail(String::from_utf8_lossy(&parsed.stderr));
        }
    }

    fn powershell(&mut self, text: &str) {
        let mut parser = tree_sitter::Parser::new();
        parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).expect("the grammar");
        if parser.parse(text, None).expect("a tree").root_node().has_error() {
            self.fail(format!("not PowerShell:\n{text}"));
        }
    }

    /// Every sequence of lines without `…` must be in a single expected output.
    fn quotation(&mut self, content: &[String]) {
        let mut outputs = Vec::new();
        collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases")), &mut outputs);
        for lines in content.split(|line| line == "…").filter(|lines| !lines.is_empty()) {
            let text = format!("{}\n", lines.join("\n"));
            if !outputs.iter().any(|output| output.contains(&text)) {
                self.fail(format!("in no expected output of tests/cases:\n{text}"));
            }
        }
    }
}

/// Returns what `kubectl get nodes -o json` prints in the cluster of the README.
fn list_of_nodes() -> serde_json::Value {
    let node = |(name, os, pod_cidr, address): (&str, &str, &str, &str)| {
        json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address}],
                "nodeInfo": {"operatingSystem": os},
            },
        })
    };
    let nodes = [
        ("linux-1", "linux", "10.244.0.0/24", "172.30.0.11"),
        ("linux-2", "linux", "10.244.1.0/24", "172.30.0.12"),
        ("win-1", "windows", "10.244.2.0/24", "172.30.0.13"),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": nodes.map(node)})
}

/// Collects the text of every file below `folder`.
fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.extend(fs::read_to_string(&path));
        }
    }
}

/// Returns `expected` if it matches the output, ignoring times and process IDs. Otherwise returns the output with the
/// same lines omitted.
fn updated(expected: &[&str], actual: &str) -> Vec<String> {
    let actual: Vec<&str> = actual.lines().map(str::trim_end).collect();
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();
    let is_same = |a: &str, b: &str| steady(a, "<FOLDER>") == steady(b, "<FOLDER>");
    let find = |run: &[&str], from: usize| {
        let fits = |at: &usize| run.iter().zip(&actual[*at..]).all(|(a, b)| is_same(a, b));
        (from..=actual.len().saturating_sub(run.len())).find(fits)
    };
    let runs: Vec<&[&str]> = expected.split(|line| *line == "…").collect();
    if let [whole] = runs[..] {
        let is_current = whole.len() == actual.len() && find(whole, 0) == Some(0);
        return owned(if is_current { whole } else { &actual });
    }
    let (mut from, mut result) = (0, Vec::new());
    for (number, run) in runs.iter().enumerate() {
        if number > 0 {
            result.push("…".to_owned());
        }
        if run.is_empty() {
            continue;
        }
        // The first sequence must be at the start of the output, and the last one at its end.
        let found = match number {
            0 => find(run, 0).filter(|at| *at == 0),
            _ if number + 1 == runs.len() => actual.len().checked_sub(run.len()).and_then(|at| find(run, at)),
            _ => find(run, from),
        };
        if let Some(at) = found.filter(|at| *at >= from) {
            result.extend(owned(run));
            from = at + run.len();
        } else {
            // Selects the most similar lines.
            let at = (from..=actual.len().saturating_sub(run.len()))
                .max_by_key(|at| likeness(run, &actual[*at..]));
            let at = match number {
                0 => 0,
                _ if number + 1 == runs.len() => actual.len().saturating_sub(run.len()).max(from),
                _ => at.unwrap_or(from),
            };
            let end = (at + run.len()).min(actual.len());
            result.extend(owned(actual.get(at..end).unwrap_or_default()));
            from = end;
        }
    }
    result
}

fn likeness(run: &[&str], lines: &[&str]) -> u32 {
    let ratio = |(a, b): (&&str, &&str)| (similar::TextDiff::from_chars(*a, *b).ratio() * 1000.0) as u32;
    run.iter().zip(lines).map(ratio).sum()
}

/// Checks a document, and updates its outputs if requested.
fn check(path: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&file).expect("a document");
    let mut check =
        DocumentCheck { name: path, node: None, set_up: None, file: None, code: 0, failures: Vec::new() };
    let mut lines: Vec<String> = Vec::new();
    for part in parts(&text) {
        match part {
            Part::Text(line) => lines.push(line),
            Part::Directive(comment) => {
                check.directive(&comment);
                lines.push(comment);
            }
            Part::Block { fence, language, content } => {
                let indent = fence.len() - fence.trim_start().len();
                let bare: Vec<String> =
                    content.iter().map(|line| line.get(indent..).unwrap_or_default().to_owned()).collect();
                let pad = " ".repeat(indent);
                let indented = check.block(&language, &bare).into_iter();
                lines.push(fence);
                lines
                    .extend(indented.map(|line| if line.is_empty() { line } else { format!("{pad}{line}") }));
                lines.push(format!("{pad}```"));
            }
        }
    }
    let mut failures = check.failures;
    cases::compare(&file, &(lines.join("\n") + "\n"), &mut failures);
    cases::assert_none(1, &failures);
}

/// Defines one test per document, so that they run in parallel.
macro_rules! documents {
    ($($test:ident $path:literal)*) => {
        $(#[test]
        fn $test() {
            check($path);
        })*

        #[test]
        fn every_guide_is_checked() {
            let checked = [$($path),*];
            for guide in hostgw::guide::GUIDES {
                assert!(checked.contains(&format!("src/guide/{}.md", guide.name).as_str()), "{}", guide.name);
            }
        }
    };
}

documents! {
    readme "README.md"
    node_agent "src/guide/node-agent.md"
    auditing "src/guide/auditing.md"
    ansible "src/guide/ansible.md"
    boot "src/guide/boot.md"
    configuration "src/guide/configuration.md"
    diagnostics "src/guide/diagnostics.md"
    exit_codes_and_json "src/guide/exit-codes-and-json.md"
    glossary "src/guide/glossary.md"
    importing "src/guide/importing.md"
    internals "src/guide/internals.md"
    kubernetes "src/guide/kubernetes.md"
    migrating "src/guide/migrating.md"
    ownership "src/guide/ownership.md"
    plan_and_apply "src/guide/plan-and-apply.md"
    platforms "src/guide/platforms.md"
    performance "src/guide/performance.md"
    pull_requests "src/guide/pull-requests.md"
    rehearsal "src/guide/rehearsal.md"
    simulation "src/guide/simulation.md"
    troubleshooting "src/guide/troubleshooting.md"
    windows "src/guide/windows.md"
}

/// Returns the files that Markdown text links to.
fn linked_files(text: &str) -> Vec<String> {
    use pulldown_cmark::{Event, Parser, Tag};
    let target = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    };
    Parser::new(text).filter_map(target).filter(|target| !target.contains("://")).collect()
}

/// Returns the anchor of a heading, as GitHub and rustdoc generate it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_of_the_readme_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = linked_files(include_str!("../README.md"));
    assert!(links.len() > 12, "{links:?}");
    for link in links {
        let (file, place) = link.split_once('#').unwrap_or((&link, ""));
        assert!(root.join(file).exists(), "{link}");
        if !place.is_empty() {
            let text = fs::read_to_string(root.join(file)).unwrap();
            let mut headings = text.lines().filter_map(|line| line.strip_prefix("## "));
            assert!(headings.any(|heading| anchor(heading) == place), "{link}");
        }
    }
}

#[test]
fn the_readme_lists_all_guides() {
    let readme = include_str!("../README.md");
    for guide in hostgw::guide::GUIDES {
        assert!(readme.contains(&format!("](src/guide/{}.md)", guide.name)), "{}", guide.name);
    }
}

#[test]
fn the_platforms_guide_lists_the_build_dependencies() {
    let guide = include_str!("../src/guide/platforms.md");
    let packages = include_str!("packages");
    let needed = packages.lines().find_map(|line| line.strip_prefix("build_packages=(")).expect("a list");
    assert!(guide.contains(&format!("sudo apt install {}\n", needed.trim_end_matches(')'))), "{needed}");
}

/// Returns the code that starts each row of the first table after a heading.
fn table_after(guide: &str, heading: &str) -> Vec<String> {
    let (_, rest) = guide.split_once(&format!("\n## {heading}\n")).expect("a heading");
    let rows =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut keys: Vec<String> =
        rows.filter_map(|row| Some(row.strip_prefix("| `")?.split('`').next()?.to_owned())).collect();
    keys.sort();
    keys
}

#[test]
fn the_configuration_guide_documents_every_key() {
    let schema = schema("config");
    let keys = |object: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = object["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let guide = include_str!("../src/guide/configuration.md");
    assert_eq!(table_after(guide, "Top-level keys"), keys(&schema));
    let node = &schema["properties"]["nodes"]["items"];
    assert_eq!(table_after(guide, "Nodes"), keys(node));
}

#[test]
fn the_json_guide_lists_every_schema() {
    let guide = include_str!("../src/guide/exit-codes-and-json.md");
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".schema.json");
        assert!(guide.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn omitted_lines_stay_omitted() {
    let printed = "head\none\ntwo\nthree 3\nfour\n";
    assert_eq!(updated(&["head", "…", "four"], printed), ["head", "…", "four"]);
    assert_eq!(updated(&["head", "…", "three 4", "…"], printed), ["head", "…", "three 3", "…"]);
    assert_eq!(updated(&["haed", "…"], printed), ["head", "…"]);
    assert_eq!(updated(&["…", "five"], printed), ["…", "four"]);
    assert_eq!(
        updated(&["at 2026-11-24T21:16:41Z"], "at 2026-11-28T09:00:00Z\n"),
        ["at 2026-11-24T21:16:41Z"]
    );
    assert_eq!(updated(&["old"], "new\nlines\n"), ["new", "lines"]);
}

//! Editor support for the schema: yaml-language-server completes and explains a configuration, driven over its
//! standard input and output like by an editor (Language Server Protocol).
//!
//! The server is the npm package yaml-language-server, on the PATH or in `HOSTGW_YAML_LANGUAGE_SERVER`. If it is not
//! installed, the tests are skipped with a message; the rules derived from them are always checked on the schema
//! itself (`src/config/schema.rs`).

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

const VARIABLE: &str = "HOSTGW_YAML_LANGUAGE_SERVER";

const DOCUMENT: &str = "file:///hostgw.yaml";

struct Editor {
    server: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    requests: u64,
}

impl Editor {
    /// Starts the server, if it is installed.
    fn start() -> Option<Self> {
        let program = env::var(VARIABLE).unwrap_or_else(|_| "yaml-language-server".to_owned());
        // `timeout` ends a server that does not answer.
        let mut command = Command::new("timeout");
        command.args(["120", &program, "--stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let is_there = Command::new(&program).arg("--version").stdin(Stdio::null()).output().is_ok();
        if !is_there {
            crate::support::say(&format!(
                "not tried: {program} is not on the PATH, and {VARIABLE} names none"
            ));
            return None;
        }
        let mut server = command.spawn().unwrap();
        let (input, output) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
        let mut editor = Self { server, input, output: BufReader::new(output), requests: 0 };
        let completion = json!({ "completionItem": { "snippetSupport": true } });
        let text_document = json!({ "completion": completion, "hover": { "contentFormat": ["markdown"] } });
        let capabilities = json!({ "textDocument": text_document });
        editor.ask("initialize", json!({ "processId": null, "rootUri": null, "capabilities": capabilities }));
        editor.send(json!({ "method": "initialized", "params": {} }));
        Some(editor)
    }

    fn send(&mut self, mut message: Value) {
        message["jsonrpc"] = "2.0".into();
        let text = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        self.input.flush().unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the server ended");
            match line.trim().split_once(": ") {
                Some(("Content-Length", number)) => length = number.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut text = vec![0; length];
        self.output.read_exact(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Sends a request and waits for its answer. Answers the server's own requests with null.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.requests += 1;
        let id = self.requests;
        self.send(json!({ "id": id, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message["method"].is_string() {
                if !message["id"].is_null() {
                    let items = message["params"]["items"].as_array().map_or(0, Vec::len);
                    self.send(json!({ "id": message["id"], "result": vec![json!({}); items] }));
                }
            } else if message["id"] == id {
                return message["result"].clone();
            }
        }
    }

    fn open(&mut self, text: &str) {
        let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/config.schema.json");
        let text = format!("# yaml-language-server: $schema=file://{schema}\n{text}");
        let document =
            json!({ "uri": DOCUMENT, "languageId": "yaml", "version": self.requests, "text": text });
        self.send(json!({ "method": "textDocument/didOpen", "params": { "textDocument": document } }));
    }

    /// The server's answer for a position; lines start with 1.
    fn at(&mut self, method: &str, line: u32, character: u32) -> Value {
        let position = json!({ "line": line, "character": character });
        self.ask(method, json!({ "textDocument": { "uri": DOCUMENT }, "position": position }))
    }

    /// The label, the inserted text, and the explanation of each completion.
    fn completions(&mut self, line: u32, character: u32) -> Vec<[String; 3]> {
        let text = |value: &Value| {
            let text = value["value"].as_str().or_else(|| value.as_str());
            text.unwrap_or_default().to_owned()
        };
        let completion = |item: &Value| {
            let edit = &item["textEdit"]["newText"];
            let inserted = if edit.is_null() { &item["insertText"] } else { edit };
            [text(&item["label"]), text(inserted), text(&item["documentation"])]
        };
        let result = self.at("textDocument/completion", line, character);
        result["items"].as_array().unwrap().iter().map(completion).collect()
    }

    fn hover(&mut self, line: u32, character: u32) -> String {
        self.at("textDocument/hover", line, character)["contents"]["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_editor_completes_and_explains_every_key() {
    let Some(mut editor) = Editor::start() else { return };
    editor.open("clusterPrefix: 10.244.0.0/16\nnodes:\n  - name: a\n    o\nnat:\n  s\nne\n");
    for (line, character, expected) in [
        (4, 5, &["os", "podCIDR", "address", "gateway", "egressInterface", "defaultGateway"][..]),
        (7, 2, &["nextHop", "nat", "sysctls", "routes", "checks", "version", "masterAddress"]),
        (6, 3, &["source", "exclude", "masquerade", "randomFully"]),
    ] {
        let completions = editor.completions(line, character);
        for key in expected {
            let found = completions.iter().find(|[label, ..]| label == key);
            // Existing keys, and those with another prefix, may be omitted.
            let Some([_, inserted, explained]) = found else { continue };
            assert!(inserted.starts_with(&format!("{key}:")), "{key} is completed as {inserted:?}");
            assert!(
                !explained.is_empty() && !explained.contains('\n'),
                "{key} is explained by {explained:?}"
            );
        }
        let first = completions.iter().find(|[label, ..]| label == expected[0]);
        assert!(first.is_some(), "{} is not completed: {completions:?}", expected[0]);
        for [label, inserted, _] in &completions {
            assert!(inserted.contains(':'), "{label} is completed without a colon: {inserted:?}");
        }
    }
    assert!(editor.hover(1, 3).contains("Cluster prefix"), "{}", editor.hover(1, 3));
    assert!(editor.hover(3, 6).contains("Name"), "{}", editor.hover(3, 6));
}

#[test]
fn an_editor_offers_the_allowed_values() {
    let Some(mut editor) = Editor::start() else { return };
    editor.open("nodes:\n  - name: a\n    os: \nnextHop: \n");
    let words = |completions: Vec<[String; 3]>| -> Vec<String> {
        completions.into_iter().map(|[label, ..]| label).filter(|label| label != "null").collect()
    };
    assert_eq!(words(editor.completions(3, 8)), ["linux", "windows"]);
    assert_eq!(words(editor.completions(4, 9)), ["pod-gateway", "node-address"]);
}

//! How a command ended, and the files that say how it shall.

use std::{env, path::Path, process::Command};

use super::Namespace;
use crate::support::cases;

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As it was typed.
    pub command: String,
    /// The exit code; 128 + N after signal N.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The test's folder, which no snapshot holds.
    folder: String,
}

impl Outcome {
    /// Runs `command`, which is called `name`.
    pub fn of(namespace: &Namespace, name: &str, command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self::from_output(namespace, name, output)
    }

    /// How a child that was waited for ended.
    pub fn from_output(namespace: &Namespace, name: &str, output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let signal = || 128 + output.status.signal().expect("neither code nor signal");
        Self {
            command: name.to_owned(),
            code: output.status.code().unwrap_or_else(signal),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            folder: namespace.folder().display().to_string(),
        }
    }

    /// The same, when the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Fails when standard output does not hold `text`.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "no {text:?} in:\n{self}");
        self
    }

    /// What was printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{self}"))
    }

    /// Fails when standard error does not hold `text`.
    #[track_caller]
    pub fn warns(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in:\n{self}");
        self
    }
}

/// The whole of it, with what differs from run to run left out.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = format!(
            "$ {}\nexit code {}\n--- stdout\n{}--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        );
        f.write_str(&steady(&whole, &self.folder))
    }
}

/// Compares whole outputs with the files under `tests/cases/cli`.
#[derive(Default)]
pub struct Snapshots {
    cases: usize,
    failures: Vec<String>,
}

impl Snapshots {
    /// Compares with `NAME.out`, and goes on.
    pub fn compare(&mut self, name: &str, outcome: &Outcome) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cases/cli/{name}.out"));
        self.cases += 1;
        cases::compare(&file, &outcome.to_string(), &mut self.failures);
    }

    /// Fails with all that differed.
    pub fn conclude(self) {
        cases::conclude(self.cases, &self.failures);
    }
}

/// Leaves out paths, process ids, namespace numbers and times.
pub fn steady(text: &str, folder: &str) -> String {
    let text = text.replace(&format!("{folder}/state"), "<STATE>").replace(folder, "<FOLDER>");
    let text = replace_after(&text, "net-", |c| c.is_ascii_hexdigit(), "<N>");
    let text = replace_after(&text, "process ", |c| c.is_ascii_digit(), "<PID>");
    text.split_inclusive(|c: char| !is_time_char(c)).map(without_time).collect()
}

/// Puts `name` for the characters that follow `prefix` and are `volatile`.
fn replace_after(text: &str, prefix: &str, volatile: impl Fn(char) -> bool, name: &str) -> String {
    let mut parts = text.split(prefix);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&volatile);
        result.push_str(prefix);
        if rest.len() < part.len() && !rest.starts_with(|c: char| c.is_alphanumeric()) {
            result.push_str(name);
            result.push_str(rest);
        } else {
            result.push_str(part);
        }
    }
    result
}

const fn is_time_char(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '-' | ':' | 'T' | 'Z' | '.')
}

/// `<TIME>` for a word that begins as `2026-11-24T18:46:11Z` does.
fn without_time(word: &str) -> String {
    const PATTERN: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(pattern, byte): (&u8, u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        other => *other == byte,
    };
    if word.len() < PATTERN.len() || !PATTERN.iter().zip(word.bytes()).all(fits) {
        return word.to_owned();
    }
    let after: String = word.chars().filter(|c| !is_time_char(*c)).collect();
    format!("<TIME>{after}")
}

//! Outcomes of commands, and the files with the expected ones.

use std::{env, path::Path, process::Command};

use super::Namespace;
use crate::support::cases;

/// The outcome of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command as typed.
    pub command: String,
    /// The exit code; 128 + N after signal N.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The test's folder, which snapshots omit.
    folder: String,
}

impl Outcome {
    /// Runs `command`, and calls it `name`.
    pub fn of(namespace: &Namespace, name: &str, command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self::from_output(namespace, name, output)
    }

    /// The outcome of a finished child process.
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

    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Fails if standard output does not contain `text`.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "no {text:?} in:\n{self}");
        self
    }

    /// Parses the output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{self}"))
    }

    /// Fails if standard error does not contain `text`.
    #[track_caller]
    pub fn warns(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in:\n{self}");
        self
    }
}

/// The complete outcome, without anything that differs from run to run.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = format!(
            "$ {}\nexit code {}\n--- stdout\n{}--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        );
        f.write_str(&steady(&whole, &self.folder))
    }
}

/// Compares outcomes with the files in `tests/cases/cli`.
#[derive(Default)]
pub struct Snapshots {
    cases: usize,
    failures: Vec<String>,
}

impl Snapshots {
    /// Compares an outcome with `NAME.out`, and continues.
    pub fn compare(&mut self, name: &str, outcome: &Outcome) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cases/cli/{name}.out"));
        self.cases += 1;
        cases::compare(&file, &outcome.to_string(), &mut self.failures);
    }

    /// Fails with all differences.
    pub fn conclude(self) {
        cases::assert_none(self.cases, &self.failures);
    }
}

/// Replaces paths, process IDs, namespace numbers, times and the durations of repairs. Leaves out a note that depends on the kernel's modules: an ordinary
/// user may not list the tables of iptables-legacy.
pub fn steady(text: &str, folder: &str) -> String {
    let is_note =
        |line: &&str| line.starts_with("note: not examined: ip") && line.contains("(listing their tables ");
    let text: String = text.split_inclusive('\n').filter(|line| !is_note(line)).collect();
    let text = text.replace(&format!("{folder}/state"), "<STATE>").replace(folder, "<FOLDER>");
    let text = replace_after(&text, "net-", |c| c.is_ascii_hexdigit(), "<N>");
    let text = replace_after(&text, "process ", |c| c.is_ascii_digit(), "<PID>");
    let text = replace_after(&text, "Repaired in ", |c| c.is_ascii_digit(), "<N>");
    text.split_inclusive(|c: char| !is_time_char(c)).map(without_time).collect()
}

/// Replaces the characters that follow `prefix` and are `volatile` by `name`.
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

/// Replaces a word that begins like `2026-11-24T18:46:11Z` by `<TIME>`.
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

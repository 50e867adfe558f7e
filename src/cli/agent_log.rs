//! The log of the agent: one line for each event.

use std::{env, io, time::Duration};

use rustix::fs::fstat;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    agent_status::{changed_objects, pinned},
    arguments::LogFormat,
    output::Output,
    reporter,
};
use crate::{
    agent::AgentEvent,
    clock::{now, time},
    error::Error,
    plan::Totals,
    reconcile::Event,
    record::PinReason,
    text::{Untrusted, printable},
};

/// How important a line is, as in syslog(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// One line.
struct LogLine {
    level: Level,
    /// The name of the event in JSON.
    name: &'static str,
    message: String,
    fields: Map<String, Value>,
}

/// Writes the log to standard output.
pub(super) struct AgentLog<'a> {
    format: LogFormat,
    output: &'a Output,
    /// Whether standard output is the journal. Lines then begin with their level.
    is_journal: bool,
}

impl<'a> AgentLog<'a> {
    pub(super) fn new(format: LogFormat, output: &'a Output) -> Self {
        Self { format, output, is_journal: is_journal() }
    }

    /// Writes one line for each part of an event.
    pub(super) fn event(&self, event: &AgentEvent<'_>) {
        for line in lines(event) {
            let LogLine { level, name, message, fields } = line;
            let text = match self.format {
                LogFormat::Text => {
                    let prefix = if self.is_journal { format!("<{}>", level as u8) } else { String::new() };
                    format!("{prefix}{}\n", printable(&message))
                }
                LogFormat::Json => {
                    let mut object = Map::new();
                    object.insert("time".to_owned(), json!(time(now())));
                    object.insert("level".to_owned(), json!(level));
                    object.insert("event".to_owned(), json!(name));
                    object.insert("message".to_owned(), json!(message));
                    object.extend(fields);
                    format!("{}\n", Value::Object(object))
                }
            };
            // A closed standard output must not stop the agent.
            let _ = self.output.verbatim(&text);
        }
    }
}

/// Returns `true` if standard output is the journal of systemd: `JOURNAL_STREAM` names its device and inode.
fn is_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    let here = fstat(io::stdout()).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    here.is_ok_and(|here| here == stream)
}

fn lines(event: &AgentEvent<'_>) -> Vec<LogLine> {
    let one = |level: Level, name: &'static str, message: String, fields: Value| {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        vec![LogLine { level, name, message, fields }]
    };
    match event {
        AgentEvent::Started(report) => {
            let message = format!("Started. Keeping this node in sync with {}.", report.file);
            one(Level::Info, "started", message, json!({ "file": report.file }))
        }
        AgentEvent::Following { file, node } => {
            let message = format!("{file} is already in effect on node {node}.");
            one(Level::Info, "following", message, json!({ "file": file, "node": node }))
        }
        AgentEvent::Applied { file, node, totals } => {
            let message = match totals {
                Some(totals) => format!("Applied {file} to node {node} and verified: {}.", done(*totals)),
                None => format!("Node {node} already matches {file}."),
            };
            one(Level::Notice, "applied", message, json!({ "file": file, "node": node, "totals": totals }))
        }
        AgentEvent::Repaired { totals, objects, programs, took, .. } => {
            let milliseconds = took.as_millis();
            let message = format!(
                "Repaired in {milliseconds} ms and verified: {}: {}",
                done(*totals),
                changed_objects(objects, *totals, programs)
            );
            let fields = json!({
                "totals": totals, "objects": objects, "programs": programs, "milliseconds": milliseconds,
            });
            one(Level::Notice, "repaired", message, fields)
        }
        AgentEvent::Waiting(error) => {
            one(Level::Warning, "waiting", format!("Waiting: {}", described(error)), error_fields(error))
        }
        AgentEvent::Refused { error, in_effect } => {
            let outcome = if in_effect.is_some() {
                "the previous configuration stays in effect"
            } else {
                "nothing was applied"
            };
            let message = format!("Refused; {outcome}: {}", described(error));
            one(Level::Error, "refused", message, error_fields(error))
        }
        AgentEvent::RepairFailed { error, failures } => {
            let message = format!("Repair failed {failures} times in a row; retrying: {}", described(error));
            one(Level::Error, "repairFailed", message, error_fields(error))
        }
        AgentEvent::Recovered => {
            let message = "Recovered: the reported problem is gone.".to_owned();
            one(Level::Notice, "recovered", message, Value::Null)
        }
        AgentEvent::Pinned { pin, file } => {
            let level = if pin.reason == PinReason::LastGood { Level::Warning } else { Level::Notice };
            one(level, "pinned", pinned(pin, &file.to_string()), json!({ "pin": pin }))
        }
        AgentEvent::Unpinned => {
            one(Level::Notice, "unpinned", "Following the file again.".to_owned(), Value::Null)
        }
        AgentEvent::Yielding(holder) => {
            let message = format!("Waiting for another hostgw command: {holder}");
            one(Level::Info, "yielding", message, json!({ "holder": holder }))
        }
        AgentEvent::Contested { object, by, repairs, pause } => {
            let by = by.map_or_else(|| "another program".to_owned(), ToString::to_string);
            let message = format!(
                "Contested: {by} keeps changing {object}; restored {repairs} times in a row; next repair in {} s",
                seconds(*pause)
            );
            let fields = json!({
                "object": object.to_string(), "by": by, "repairs": repairs, "pauseSeconds": seconds(*pause),
            });
            one(Level::Warning, "contested", message, fields)
        }
        AgentEvent::ContestEnded(object) => {
            let message = format!("No longer contested: {object}");
            one(Level::Notice, "contestEnded", message, json!({ "object": object.to_string() }))
        }
        AgentEvent::Conflict(what) => {
            let message = format!(
                "Conflict: {what}; left in place (help: remove it, or take it over with `hostgw apply --adopt`)"
            );
            one(Level::Warning, "conflict", message, Value::Null)
        }
        AgentEvent::ConflictResolved(object) => {
            let message = format!("Conflict resolved: {object}");
            one(Level::Notice, "conflictResolved", message, json!({ "object": object.to_string() }))
        }
        AgentEvent::PathsLost(faults) => {
            let line = |fault: &crate::forwarding::PathFault| {
                let diagnostic = fault.diagnostic();
                let nodes: Vec<&Untrusted> = fault.nodes.keys().collect();
                LogLine {
                    level: Level::Warning,
                    name: "pathsLost",
                    message: capitalized(&with_help(&diagnostic.message, diagnostic.remedy.as_deref())),
                    fields: Map::from_iter([("nodes".to_owned(), json!(nodes))]),
                }
            };
            faults.iter().map(line).collect()
        }
        AgentEvent::PathsRestored => {
            one(Level::Notice, "pathsRestored", "All pod paths work again.".to_owned(), Value::Null)
        }
        AgentEvent::Command(event) => command(event).into_iter().collect(),
        AgentEvent::Reloading => {
            one(Level::Info, "reloading", "Reloading the configuration.".to_owned(), Value::Null)
        }
        AgentEvent::Stopping => {
            let message = "Stopping. Routes, NAT and sysctls stay in effect.".to_owned();
            one(Level::Info, "stopping", message, Value::Null)
        }
        AgentEvent::TaskFailed(error) => {
            one(Level::Warning, "taskFailed", capitalized(&described(error)), error_fields(error))
        }
    }
}

fn command(event: &Event<'_>) -> Option<LogLine> {
    let (is_warning, message) = reporter::sentence(event)?;
    let level = if is_warning { Level::Warning } else { Level::Notice };
    let left = match event {
        Event::Recovered { left: Some(left), .. } => format!(" {}", left.join("; ")),
        _ => String::new(),
    };
    Some(LogLine { level, name: "transaction", message: capitalized(&message) + &left, fields: Map::new() })
}

/// Returns `text` with a capital letter at its start.
fn capitalized(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn done(totals: Totals) -> String {
    format!("{} added, {} updated, {} removed", totals.add, totals.update, totals.remove)
}

/// Describes an error in one line.
fn described(error: &Error) -> String {
    let mut text = error.message.to_string();
    for (at, detail) in error.details.iter().enumerate() {
        text.push_str(if at == 0 { ": " } else { "; " });
        text.push_str(&detail.to_string());
    }
    with_help(&text, error.hint.as_ref().map(ToString::to_string).as_deref())
}

/// Appends what to do about a problem.
fn with_help(problem: &str, help: Option<&str>) -> String {
    help.map_or_else(|| problem.to_owned(), |help| format!("{problem} (help: {help})"))
}

fn error_fields(error: &Error) -> Value {
    json!({ "error": { "message": error.message, "details": error.details, "hint": error.hint, "code": error.code } })
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event: &AgentEvent<'_>) -> String {
        let messages: Vec<String> = lines(event).into_iter().map(|line| line.message).collect();
        messages.join("\n")
    }

    #[test]
    fn a_line_begins_with_the_outcome_and_ends_with_the_remedy() {
        let error =
            &Error::unexpected("no space left").with_details(["/run/hostgw"]).with_hint("free some space");
        let described = "no space left: /run/hostgw (help: free some space)";
        assert_eq!(
            message(&AgentEvent::RepairFailed { error, failures: 3 }),
            format!("Repair failed 3 times in a row; retrying: {described}")
        );
        let refused = |in_effect| message(&AgentEvent::Refused { error, in_effect });
        assert_eq!(refused(None), format!("Refused; nothing was applied: {described}"));
        assert_eq!(
            refused(Some(&"hostgw.yaml".into())),
            format!("Refused; the previous configuration stays in effect: {described}")
        );
        let failure = message(&AgentEvent::TaskFailed(error));
        assert_eq!(failure, "No space left: /run/hostgw (help: free some space)");
    }
}

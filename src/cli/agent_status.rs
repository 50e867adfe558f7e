//! The agent, as `hostgw status` shows it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    apply::StateDir,
    clock::time,
    error::Error,
    plan::Totals,
    record::{AgentCondition, AgentReport, Contested, Pin, PinReason, RepairReport},
    text::{Untrusted, count, list, printable},
};

/// The agent of this node.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentStatus {
    /// Whether the agent is running. If not, the other fields are what it last reported.
    running: bool,
    #[serde(flatten)]
    report: AgentReport,
}

impl AgentStatus {
    /// Returns `None` if no agent has run since the machine booted.
    ///
    /// # Errors
    /// Returns an error if its report exists but cannot be read.
    pub(super) fn of(dir: &StateDir) -> Result<Option<Self>, Error> {
        let report = dir.agent_report()?;
        Ok(report.map(|report| Self { running: dir.agent().is_some(), report }))
    }

    /// Returns lines for `hostgw status`.
    pub(super) fn text(&self) -> String {
        let AgentReport {
            pid,
            since,
            condition,
            problem,
            last_repair,
            repairs,
            contested,
            conflicts,
            pin,
            file,
            ..
        } = &self.report;
        let mut report: Vec<String> = Vec::new();
        report.extend(pin.as_ref().map(|pin| pinned(pin, &file.to_string())));
        if let Some(problem) = problem {
            report.push(format!("{} (since {})", problem.message, time(problem.since)));
            report.extend(problem.details.iter().map(|detail| format!("  {detail}")));
            report.extend(problem.remedy.as_ref().map(|hint| format!("help: {hint}")));
        }
        if let Some(last) = last_repair {
            let what = changed_objects(&last.objects, last.totals, &last.programs);
            report.push(format!("{}, most recently at {}: {what}", count_of(*repairs), time(last.at)));
        }
        report.extend(conflicts.iter().map(|conflict| format!("Conflict: {}", conflict.text)));
        for Contested { object, by, repairs, pause_seconds } in contested {
            let by = by.as_ref().map_or_else(|| "another program".to_owned(), ToString::to_string);
            report.push(format!(
                "Contested: {by} keeps changing {object}; restored {repairs} times in a row; repairs are now {pause_seconds} s apart"
            ));
        }
        let (mut text, mut indent) = (String::new(), "  ");
        if self.running {
            let _ = writeln!(text, "Agent: {} (process {pid}, since {})", word(*condition), time(*since));
        } else {
            let _ = writeln!(text, "Agent: not running; last started at {}", time(*since));
            if !report.is_empty() {
                let _ = writeln!(text, "  Last report:");
                indent = "    ";
            }
        }
        for line in report {
            let _ = writeln!(text, "{indent}{}", printable(&line));
        }
        text
    }
}

/// Names the first objects of a repair, how many more there were, and who had changed them.
pub(super) fn changed_objects(objects: &[Untrusted], totals: Totals, programs: &[Untrusted]) -> String {
    const NAMED: usize = 2;
    let named: Vec<&Untrusted> = objects.iter().take(NAMED).collect();
    // A change of a NAT table counts once for each of its parts, so the totals only matter for a truncated list.
    let is_truncated = objects.len() == RepairReport::MAX_OBJECTS;
    let count = if is_truncated { totals.add + totals.update + totals.remove } else { objects.len() };
    let more = match count.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let by = if programs.is_empty() { String::new() } else { format!(" (changed by {})", list(programs, 4)) };
    format!("{}{more}{by}", list(&named, NAMED))
}

fn count_of(repairs: u64) -> String {
    usize::try_from(repairs).map_or_else(|_| format!("{repairs} repairs"), |repairs| count(repairs, "repair"))
}

const fn word(condition: AgentCondition) -> &'static str {
    match condition {
        AgentCondition::Starting => "starting",
        AgentCondition::InSync => "in sync",
        AgentCondition::Waiting => "waiting",
        AgentCondition::Yielding => "waiting for another hostgw command",
        AgentCondition::Degraded => "degraded",
        AgentCondition::Suspended => "suspended",
    }
}

/// Says why the agent keeps another configuration than the one in its file.
pub(super) fn pinned(pin: &Pin, own: &str) -> String {
    let file = pin.file.as_ref().map_or_else(String::new, |file| format!(", {file},"));
    let follow = format!("to follow {own} again, edit it or reload the agent");
    match pin.reason {
        PinReason::LastGood => match pin.transaction_id {
            Some(id) => format!("Keeping the configuration of apply {id} until {own} can be applied."),
            None => format!("Keeping the last good copy{file} until {own} can be applied."),
        },
        PinReason::Apply => {
            format!(
                "Pinned: `hostgw apply` applied another configuration{file} and the agent keeps it; {follow}."
            )
        }
        PinReason::Rollback if pin.file.is_none() => {
            format!("Suspended: `hostgw rollback` undid the only apply; {follow}.")
        }
        PinReason::Rollback => {
            format!(
                "Pinned: `hostgw rollback` restored an earlier configuration{file} and the agent keeps it; {follow}."
            )
        }
        PinReason::Destroy => format!("Suspended: `hostgw destroy` removed everything; {follow}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_names_two_objects_and_counts_the_rest() {
        let text = |count: usize, add| {
            let objects: Vec<Untrusted> = (0..count).map(|at| format!("object {at}").into()).collect();
            changed_objects(&objects, Totals { add, ..Totals::default() }, &["nft".into()])
        };
        assert_eq!(text(1, 3), "object 0 (changed by nft)", "a table with a chain and a rule");
        assert_eq!(text(4, 6), "object 0, object 1 and 2 more (changed by nft)");
        assert_eq!(text(RepairReport::MAX_OBJECTS, 100), "object 0, object 1 and 98 more (changed by nft)");
    }
}

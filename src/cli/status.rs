//! `hostgw status`

use std::{
    fmt::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    Verdict,
    arguments::StatusOptions,
    output::Output,
    session::{last_applied, readable, state_dir},
    transaction::described,
};
use crate::{
    apply::{LastApplied, Node, Record},
    kernel::LiveNode,
    model::Family,
    plan::{self, Policy, Reason, Scope},
    render::{self, Report},
    state::{NatTable, Route, State, Unknown},
    text::count,
};

/// What is known of hostgw on this node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    format: u32,
    namespace: String,
    owned: Owned,
    saved_sysctls: usize,
    last_apply: Option<LastApply>,
    interrupted: Option<String>,
    drift: Option<Report>,
    unknown: Vec<Unknown>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    routes: Vec<String>,
    nat: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastApply {
    node: String,
    file: String,
    at: String,
}

/// Shows what hostgw owns here, the last apply, and what has drifted since.
pub(super) fn run(options: &StatusOptions, output: &Output) -> Verdict {
    let status = gather()?;
    if options.json {
        output.json(&status)?;
    } else {
        output.result(&text(&status, output))?;
    }
    Ok(0)
}

fn gather() -> Result<Status, super::Failure> {
    let dir = state_dir()?;
    let mut unknown = Vec::new();
    let saved = readable(dir.saved(), &mut unknown)?.unwrap_or_default();
    let last = last_applied(&dir)?;
    let open = readable(dir.open_journal(), &mut Vec::new())?.flatten();
    let desired = last.as_ref().map(|last| last.state.clone());
    let scope = desired.as_ref().map_or_else(Scope::default, |desired| Scope::of(desired, Vec::new()));
    let observed = LiveNode.observe(&scope)?.state;
    unknown.extend(observed.unknown.iter().cloned());
    let drift = desired.map(|desired| {
        let drift = plan::plan(&desired, &observed, Policy::Respect);
        let changed =
            |_: &_| Reason { text: "changed since the last apply".to_owned(), origin: None, drift: true };
        Report::new(&drift, changed, |_| None)
    });
    Ok(Status {
        format: 1,
        namespace: dir
            .path()
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        owned: owned(&observed),
        saved_sysctls: saved.0.len(),
        last_apply: last.as_ref().map(LastApply::of),
        interrupted: open.as_ref().map(|record: &Record| described(record)),
        drift,
        unknown,
    })
}

fn owned(observed: &State) -> Owned {
    let routes = observed.routes.iter().filter(|route| route.is_owned());
    let tables = Family::ALL.into_iter().filter_map(|family| observed.nat.get(family));
    Owned {
        routes: routes.map(Route::to_string).collect(),
        nat: tables.flat_map(NatTable::objects).map(|object| object.to_string()).collect(),
    }
}

impl LastApply {
    fn of(last: &LastApplied) -> Self {
        let at = UNIX_EPOCH + Duration::from_secs(last.at);
        let at = humantime::format_rfc3339_seconds(at).to_string();
        Self { node: last.node.clone(), file: last.file.clone(), at }
    }
}

fn text(status: &Status, output: &Output) -> String {
    let mut text = String::new();
    let Status { owned, unknown, .. } = status;
    let _ = writeln!(
        text,
        "Owned: {}, {}",
        count(owned.routes.len(), "route"),
        count(owned.nat.len(), "NAT object")
    );
    for object in owned.routes.iter().chain(&owned.nat) {
        let _ = writeln!(text, "  {object}");
    }
    for unknown in unknown {
        let _ = writeln!(text, "? {} is unknown: {}", unknown.what, unknown.why);
    }
    let _ = writeln!(text, "Saved: {}", count(status.saved_sysctls, "sysctl value"));
    let _ = match &status.last_apply {
        Some(last) => writeln!(text, "Last apply: {}, node {}, {}", last.at, last.node, last.file),
        None => writeln!(text, "Last apply: none on record in this boot"),
    };
    if let Some(interrupted) = &status.interrupted {
        let _ = writeln!(
            text,
            "Open: {interrupted} was interrupted, or not undone to its end; hostgw rollback finishes undoing it"
        );
    }
    match &status.drift {
        Some(drift) if drift.totals == plan::Totals::default() => text.push_str("Drift: none\n"),
        Some(drift) => {
            text.push_str("Drift, with what an apply would do about it:\n\n");
            text.push_str(&render::text(drift, &output.palette));
        }
        None => {}
    }
    text
}

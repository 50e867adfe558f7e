//! Tests the plans in `tests/cases/plan`. A new case is a new folder and needs no code: `config.yaml` and
//! `observed.json` with the expected `plan.txt` and `plan.md`. An optional `applied.yaml` is the configuration that
//! apply 3 applied.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hostgw::{
    config::{self, Document},
    diagnose::Diagnostic,
    model::Cluster,
    plan::{self, ForeignPolicy, Observed, OriginalSysctls, Scope, compare::Side},
    render::{self, Palette, Report, SourceLocation},
    state::{Route, State},
};
use serde::Deserialize;

use crate::support::cases;

/// The input of a case besides the configuration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    node: String,
    #[serde(default)]
    adopt: bool,
    #[serde(default)]
    original_sysctls: OriginalSysctls,
    #[serde(default)]
    last_applied: Option<State>,
    observed: Observed,
}

#[test]
fn every_case_has_its_expected_plan() {
    let mut failures = Vec::new();
    let folders = folders();
    for folder in &folders {
        cases::compare(&folder.join("plan.txt"), &outcome(folder), &mut failures);
        if let Some(report) = report(folder) {
            cases::compare(&folder.join("plan.md"), &render::plan_markdown(&report), &mut failures);
        }
    }
    cases::assert_none(folders.len(), &failures);
}

/// Returns the folders of all cases.
pub fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/plan");
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn loaded(name: &str, text: String) -> (Document, Cluster) {
    let document = Document::new(name, text, config::Format::Yaml);
    match config::load(&document) {
        Ok(cluster) => (document, cluster),
        Err(invalid) => panic!("{}", invalid.render(false)),
    }
}

/// Returns the report of a plan, and the problems that would make it fail.
fn planned(folder: &Path) -> Option<(Report, Vec<Diagnostic>)> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let (document, cluster) = loaded("config.yaml", read("config.yaml"));
    let applied = fs::read_to_string(folder.join("applied.yaml")).ok();
    let applied = applied.map(|text| loaded("applied.yaml", text));
    let case: Case = serde_json::from_str(&read("observed.json"))
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let (index, _) = cluster.node(&case.node).expect("the node of the case");
    let desired = plan::desired(&cluster, index, &case.original_sysctls).ok()?;
    let mut observed = case.observed;
    // Keeps the routes that an observation of this scope would have returned.
    let scope = Scope::of(&desired.state, desired.prefixes.clone());
    let is_seen = |route: &&Route| route.is_owned() || scope.wants(&route.key());
    observed.state.routes = observed.state.routes.iter().filter(is_seen).cloned().collect();
    let policy = if case.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
    let plan = plan::plan(&desired.state, &observed.state, policy);
    let locate = |side, path: &hostgw::model::ConfigPath| {
        let (document, transaction_id) = match side {
            Side::New => (&document, None),
            Side::Old => (&applied.as_ref()?.0, Some(3)),
        };
        let position = document.positions().of(path)?;
        Some(SourceLocation {
            transaction_id,
            ..SourceLocation::new(path, document.name(), position.line, position.column)
        })
    };
    let last = case.last_applied.as_ref().map(|state| plan::PreviousApply {
        routes: Some((&state.routes[..]).into()),
        state,
        previous: applied
            .as_ref()
            .map(|(_, applied)| plan::PreviousConfig::new(applied, &cluster, index, &plan)),
    });
    let explain =
        |change: &_| plan::reason(Some(&cluster), &desired, &case.original_sysctls, last.as_ref(), change);
    let mut report = Report::new(&plan, explain, locate);
    report.node = Some(case.node.into());
    report.file = Some("config.yaml".into());
    report.warn(plan::check::warnings(&cluster, index, &desired, &observed, |_| false), |_| None);
    Some((report, plan::check(&cluster, index, &desired, &observed)))
}

/// Returns the report of `hostgw plan` on the node, or `None` for a Windows node.
pub fn report(folder: &Path) -> Option<Report> {
    planned(folder).map(|(report, _)| report)
}

/// Returns the report and the problems as text.
fn outcome(folder: &Path) -> String {
    let Some((report, problems)) = planned(folder) else { return "not a Linux node\n".to_owned() };
    let mut text = render::text(&report, &Palette::new(false));
    for problem in problems {
        let place = problem.path.as_ref().map_or_else(String::new, ToString::to_string);
        let hint = problem.remedy.as_deref().unwrap_or("none");
        text.push_str(&format!("\nproblem at {place}: {problem}\n  help: {hint}\n"));
    }
    text
}

//! The files of `examples/ci` contain what their services need, and grant minimal permissions. `e2e/ci` tests their
//! commands.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::support::ci::{example, hooks, text};

/// The value of a required key.
#[track_caller]
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

#[test]
fn the_github_workflow_has_minimal_permissions() {
    let workflow = example("github-actions.yml");
    let rights = json!({ "contents": "read", "pull-requests": "write" });
    assert_eq!(at(&workflow, "/permissions"), &rights);
    assert_eq!(workflow["on"].as_object().unwrap().keys().collect::<Vec<_>>(), ["pull_request"]);
    let paths = at(&workflow, "/on/pull_request/paths").as_array().unwrap();
    assert!(paths.contains(at(&workflow, "/env/HOSTGW_FILE")));
    for name in ["HOSTGW_REPOSITORY", "HOSTGW_REV"] {
        assert_eq!(workflow["env"][name], "", "{name} is the user's to fill in");
    }
    assert_eq!(at(&workflow, "/jobs/review/steps/0/with/fetch-depth"), 0, "the merge base");
    assert_eq!(at(&workflow, "/jobs/review/steps/0/with/persist-credentials"), false);
    for step in at(&workflow, "/jobs/review/steps").as_array().unwrap() {
        let script = step["run"].as_str().unwrap_or_default();
        assert!(
            !script.contains("${{"),
            "an expression in a script can be code of somebody else's: {script}"
        );
        let action = step["uses"].as_str().unwrap_or("actions/");
        assert!(action.starts_with("actions/"), "{action} is a third party's");
        let has_token = step["env"].to_string().contains("github.token");
        assert!(!has_token || script.starts_with("ci/github-comment.sh "), "who needs the token? {script}");
    }
}

#[test]
fn the_scheduled_import_has_minimal_permissions() {
    let workflow = example("github-import.yml");
    let rights = json!({ "contents": "write", "pull-requests": "write" });
    assert_eq!(at(&workflow, "/permissions"), &rights);
    // Nothing that another person starts.
    assert_eq!(
        workflow["on"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["schedule", "workflow_dispatch"]
    );
    for name in ["HOSTGW_REPOSITORY", "HOSTGW_REV"] {
        assert_eq!(workflow["env"][name], "", "{name} is the user's to fill in");
    }
    assert_eq!(at(&workflow, "/jobs/import/steps/0/with/persist-credentials"), false);
    for step in at(&workflow, "/jobs/import/steps").as_array().unwrap() {
        let script = step["run"].as_str().unwrap_or_default();
        assert!(!script.contains("${{"), "an expression in a script: {script}");
        let action = step["uses"].as_str().unwrap_or("actions/");
        assert!(action.starts_with("actions/"), "{action} is a third party's");
        let environment = step["env"].to_string();
        let needs_token = script.starts_with("ci/github-pull-request.sh ");
        assert_eq!(environment.contains("github.token"), needs_token, "who needs the token? {script}");
        assert_eq!(
            environment.contains("secrets."),
            script.contains("kubectl "),
            "who needs the secret? {script}"
        );
    }
}

#[test]
fn the_windows_self_test_renders_on_linux_and_runs_in_both_shells() {
    let workflow = example("windows-self-test.yml");
    assert_eq!(at(&workflow, "/permissions"), &json!({ "contents": "read" }));
    assert_eq!(at(&workflow, "/jobs/self-test/needs"), "render");
    assert!(at(&workflow, "/jobs/self-test/runs-on").as_str().unwrap().starts_with("windows-"));
    let steps = |job: &str| at(&workflow, &format!("/jobs/{job}/steps")).as_array().unwrap().clone();
    let runs = |job: &str| -> Vec<String> {
        steps(job).iter().filter_map(|step| Some(step["run"].as_str()?.to_owned())).collect()
    };
    for step in steps("render").iter().chain(&steps("self-test")) {
        let action = step["uses"].as_str().unwrap_or("actions/");
        assert!(action.starts_with("actions/"), "{action} is a third party's");
        assert!(!step["run"].as_str().unwrap_or_default().contains("${{"));
    }
    assert!(
        runs("render")
            .iter()
            .any(|run| run.contains("hostgw render --node self-test -f ci/windows/self-test.yaml"))
    );
    let shells: Vec<Value> =
        steps("self-test").iter().filter_map(|step| step.get("shell").cloned()).collect();
    assert_eq!(shells, ["powershell", "pwsh"]);
    for run in runs("self-test") {
        assert!(run.ends_with("-File self-test.ps1 -Script self-test-node.ps1 -Task"), "{run}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/windows");
    assert!(folder.join("self-test.ps1").exists() && folder.join("self-test.yaml").exists());
    for name in ["HOSTGW_REPOSITORY", "HOSTGW_REV"] {
        assert_eq!(workflow["env"][name], "", "{name} is the user's to fill in");
    }
}

#[test]
fn the_gitlab_job_runs_for_merge_requests() {
    let job = &example("gitlab-ci.yml")["hostgw"];
    assert_eq!(at(job, "/rules/0/if"), "$CI_PIPELINE_SOURCE == \"merge_request_event\"");
    assert!(at(job, "/rules/0/changes").as_array().unwrap().contains(at(job, "/variables/HOSTGW_FILE")));
    assert_eq!(at(job, "/variables/GIT_DEPTH"), "0", "the merge base");
    for name in ["HOSTGW_REPOSITORY", "HOSTGW_REV"] {
        assert_eq!(job["variables"][name], "", "{name} is the user's to fill in");
    }
    assert_eq!(job["variables"].get("HOSTGW_TOKEN"), None, "a secret of the project's settings");
    assert_eq!(at(job, "/artifacts/when"), "always");
    let review = at(job, "/script/2").as_str().unwrap();
    assert!(review.contains(at(job, "/artifacts/paths/0").as_str().unwrap()), "{review}");
}

#[test]
fn the_pre_commit_configuration_names_the_hook() {
    let hooks = hooks();
    let configuration = example("pre-commit-config.yaml");
    assert_eq!(at(&configuration, "/repos/0/hooks/0/id"), at(&hooks, "/0/id"));
    for key in ["/0/name", "/0/entry", "/0/language", "/0/files"] {
        assert!(at(&hooks, key).is_string(), "{key}");
    }
    for key in ["/repos/0/repo", "/repos/0/rev"] {
        assert!(at(&configuration, key).is_string(), "{key}");
    }
}

#[test]
fn scripts_are_executable_and_stop_at_errors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    let mut scripts: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    scripts.retain(|name| name.ends_with(".sh"));
    assert_eq!(scripts.len(), 5, "{scripts:?}");
    for name in scripts {
        let mode = fs::metadata(folder.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} cannot be run");
        let script = text(&name);
        assert!(
            script.starts_with("#!/usr/bin/env bash\n") && script.contains("\nset -euo pipefail\n"),
            "{name}"
        );
    }
}

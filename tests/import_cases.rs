//! Folders of cases: `tests/cases/import/NAME/` holds a list of nodes (`nodes.json` or `nodes.yaml`), further arguments in
//! `arguments` where there are any, the configuration that `--update` names, and what `hostgw import` prints and writes. A
//! new folder is a new test.
//!
//! Whatever is imported must be valid, and importing it again must change nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::{cases, directory::Directory};

fn hostgw(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostgw"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").output().unwrap()
}

/// The only file in a folder with one of these names.
fn file(folder: &Path, names: &[&str]) -> Option<String> {
    names.iter().find(|name| folder.join(name).exists()).map(|name| (*name).to_owned())
}

#[test]
fn every_list_has_the_expected_result() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/import");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut failures = Vec::new();
    for folder in &folders {
        let work = Directory::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, work.path().join(path.file_name().unwrap())).unwrap();
        }
        let list = file(folder, &["nodes.json", "nodes.yaml"]).expect("a list of nodes");
        let config = file(folder, &["hostgw.yaml", "hostgw.json", "hostgw.toml"]);
        let more = fs::read_to_string(folder.join("arguments")).unwrap_or_default();
        let arguments: Vec<&str> = ["import", &list].into_iter().chain(more.split_whitespace()).collect();
        let output = hostgw(work.path(), &arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut report = format!(
            "$ hostgw {}\nexit code {}\n--- stdout\n{}--- stderr\n{}",
            arguments.join(" "),
            output.status.code().expect("no signal"),
            text(&output.stdout),
            text(&output.stderr)
        );
        assert!(!report.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{report:?}");
        if let Some(config) = &config {
            let written = fs::read_to_string(work.path().join(config)).unwrap();
            report.push_str(&format!("--- {config}\n{written}"));
        }
        cases::compare(&folder.join("expected.txt"), &report, &mut failures);
        if output.status.success() && !arguments.contains(&"--dry-run") {
            again(work.path(), &list, config.as_deref(), &arguments, &output.stdout);
        }
    }
    cases::assert_none(folders.len(), &failures);
}

/// Imports the list once more into what was imported.
fn again(folder: &Path, list: &str, updated: Option<&str>, arguments: &[&str], printed: &[u8]) {
    let is_toml = arguments.contains(&"--toml");
    let name = updated.unwrap_or(if is_toml { "imported.toml" } else { "imported.yaml" });
    if updated.is_none() {
        fs::write(folder.join(name), printed).unwrap();
    }
    let valid = hostgw(folder, &["validate", name]);
    assert!(valid.status.success(), "{arguments:?}: {valid:?}");
    let before = fs::read(folder.join(name)).unwrap();
    let mut update = vec!["import", list, "--update", name];
    update.extend(arguments.contains(&"--keep-missing").then_some("--keep-missing"));
    let second = hostgw(folder, &update);
    let report = String::from_utf8(second.stdout.clone()).unwrap();
    assert_eq!(report, format!("No changes. {name} matches the list.\n"), "{arguments:?}: {second:?}");
    assert!(fs::read(folder.join(name)).unwrap() == before, "{arguments:?}");
}

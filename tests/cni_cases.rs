//! Folders of cases: `tests/cases/cni/NAME/` holds `hostgw.yaml`, `cni.conf` or `cni.conflist`, further arguments in
//! `arguments` where there are any, and what `hostgw check-cni` prints, as text and as JSON. A new folder is a new test.

use std::{fs, path::Path, process::Command};

use crate::support::cases;

fn hostgw(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hostgw"))
        .args(arguments)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!(
        "$ hostgw {}\nexit code {}\n--- stdout\n{}--- stderr\n{}",
        arguments.join(" "),
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

#[test]
fn every_case_has_the_expected_report() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/cni");
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut failures = Vec::new();
    for folder in &folders {
        let more = fs::read_to_string(folder.join("arguments")).unwrap_or_default();
        let file = if folder.join("cni.conflist").exists() { "cni.conflist" } else { "cni.conf" };
        let arguments: Vec<&str> = ["check-cni", file].into_iter().chain(more.split_whitespace()).collect();
        let text = hostgw(folder, &arguments);
        let json = hostgw(folder, &[&arguments[..], &["--json"]].concat());
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
        cases::compare(&folder.join("expected.txt"), &format!("{text}\n{json}"), &mut failures);
    }
    cases::assert_none(folders.len(), &failures);
}

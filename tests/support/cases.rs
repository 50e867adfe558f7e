//! Folders of test cases, with the expected output next to the input.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// The parts of generated scripts that are copied from a file.
const BODIES: [&str; 7] = [
    "src/render/powershell/read.ps1",
    "src/render/powershell/off-link.ps1",
    "src/render/powershell/paths.ps1",
    "src/render/powershell/task.ps1",
    "src/render/powershell/apply.ps1",
    "src/render/powershell/collect.ps1",
    "src/render/shell/body.sh",
];

/// Compares `actual` with the file `expected`. With `HOSTGW_BLESS=1`, writes the file instead. The body of a script is
/// replaced by the name of its file, so that a change of the body changes no expected output.
pub fn compare(expected: &Path, actual: &str, failures: &mut Vec<String>) {
    let actual = &*without_bodies(actual);
    // What this run wrote: two outputs that differ cannot both be expected.
    static WRITTEN: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    let contents = if env::var_os("HOSTGW_BLESS").is_some() {
        let mut written = WRITTEN.lock().expect("no panic");
        written
            .entry(expected.to_owned())
            .or_insert_with(|| {
                fs::write(expected, actual).unwrap();
                actual.to_owned()
            })
            .clone()
    } else {
        fs::read_to_string(expected).unwrap_or_default()
    };
    if contents != actual {
        let diff = similar::TextDiff::from_lines(&contents, actual);
        failures.push(format!(
            "{}\n{}",
            expected.display(),
            diff.unified_diff().header("expected", "actual")
        ));
    }
}

/// Replaces every body of a script by `<PATH>`.
fn without_bodies(text: &str) -> Cow<'_, str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    BODIES.iter().fold(Cow::Borrowed(text), |text, path| {
        let body = fs::read_to_string(root.join(path)).unwrap();
        let bodies = [body.replace('\n', "\r\n"), body];
        match bodies.iter().find(|body| text.contains(body.trim_end())) {
            Some(body) => text.replace(body.trim_end(), &format!("<{path}>")).into(),
            None => text,
        }
    })
}

/// Fails with all differences.
pub fn assert_none(cases: usize, failures: &[String]) {
    assert!(cases > 0, "no case was found");
    assert!(
        failures.is_empty(),
        "{} of {cases} cases differ (HOSTGW_BLESS=1 takes the new output as expected):\n\n{}",
        failures.len(),
        failures.join("\n")
    );
}

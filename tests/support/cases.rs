//! Folders of test cases, with the expected output next to the input.

use std::{env, fs, path::Path};

/// Compares `actual` with the file `expected`. With `HOSTGW_BLESS=1`, writes the file instead.
pub fn compare(expected: &Path, actual: &str, failures: &mut Vec<String>) {
    if env::var_os("HOSTGW_BLESS").is_some() {
        fs::write(expected, actual).unwrap();
        return;
    }
    let contents = fs::read_to_string(expected).unwrap_or_default();
    if contents != actual {
        let diff = similar::TextDiff::from_lines(&contents, actual);
        failures.push(format!(
            "{}\n{}",
            expected.display(),
            diff.unified_diff().header("expected", "actual")
        ));
    }
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

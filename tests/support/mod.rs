//! Code shared by the tests.

pub mod cases;
pub mod ci;
pub mod clusters;
pub mod directory;
pub mod fleet;
pub mod model;
pub mod namespace;
pub mod powershell;
pub mod random;
pub mod schema;
pub mod sequence;

/// Prints a message about skipped tests, even if the test passes and its output is captured.
pub fn say(sentence: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{sentence}");
}

//! What the tests share.

pub mod cases;
pub mod ci;
pub mod clusters;
pub mod directory;
pub mod model;
pub mod namespace;
pub mod powershell;
pub mod random;
pub mod schema;
pub mod sequence;

/// Says what is not tried here, past the capture of passing tests.
pub fn say(sentence: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{sentence}");
}

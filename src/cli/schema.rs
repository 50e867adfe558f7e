//! `hostgw schema`

use super::{Verdict, output::Output};
use crate::config;

/// Prints the JSON Schema of the configuration.
pub(super) fn run(output: &Output) -> Verdict {
    output.result(&(config::schema_text() + "\n"))?;
    Ok(0)
}

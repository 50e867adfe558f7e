//! `hostgw schema`

use super::{
    Verdict,
    arguments::{SchemaOptions, Subject},
    output::Output,
};
use crate::{config, render};

/// Prints a JSON Schema.
pub(super) fn run(options: &SchemaOptions, output: &Output) -> Verdict {
    let text = match options.subject {
        Subject::Config => config::schema_text(),
        Subject::Plan => render::plan_schema(),
        Subject::Diff => render::comparison_schema(),
    };
    output.result(&(text + "\n"))?;
    Ok(0)
}

//! The forms of a plan on standard output.

use super::{VerbFailure, arguments::PlanOptions, output::Output};
use crate::{
    error::{Error, Kind},
    plan::Conflict,
    render::{self, Report},
    text::count,
};

/// The form of a plan on standard output.
#[derive(Debug, Clone, Copy)]
pub(super) enum PlanShape {
    Json,
    Markdown,
    Summary,
    Text,
}

impl PlanShape {
    pub(super) const fn new(json: bool, markdown: bool, summary: bool) -> Self {
        match (json, markdown, summary) {
            (true, ..) => Self::Json,
            (_, true, _) => Self::Markdown,
            (.., true) => Self::Summary,
            _ => Self::Text,
        }
    }

    pub(super) const fn of(options: &PlanOptions) -> Self {
        Self::new(options.json, options.markdown, options.summary)
    }
}

/// Prints a plan in the requested form. Text begins with the title.
pub(super) fn show(
    report: &Report,
    title: Option<&str>,
    shape: PlanShape,
    output: &Output,
) -> Result<(), Error> {
    let title = title.map_or_else(String::new, |title| format!("{title}\n\n"));
    match shape {
        PlanShape::Json => output.json(report),
        PlanShape::Markdown => output.verbatim(&render::plan_markdown(report)),
        PlanShape::Summary => output.long(&(title + &render::plan_summary(report, &output.palette))),
        PlanShape::Text => output.long(&(title + &render::text(report, &output.palette))),
    }
}

/// Returns the error that `who` refuses a plan with this number of conflicts, unless it gets the option `adopt`.
pub(super) fn refused(conflicts: usize, who: &str, adopt: &str) -> Error {
    let (objects, them) = if conflicts == 1 { ("object", "it") } else { ("objects", "them") };
    let conflicts = count(conflicts, "conflict");
    Error::new(Kind::Conflict, format!("{conflicts}: {who} refuses this plan"))
        .with_hint(format!("remove the foreign {objects}, or take {them} over with {adopt}"))
}

/// Returns the error that apply refuses a plan with these conflicts.
pub(super) fn refused_by_apply(conflicts: &[Conflict]) -> Error {
    let error = refused(conflicts.len(), "apply", "--adopt");
    match Conflict::address_remedy(conflicts) {
        Some(remedy) => error.with_hint(remedy),
        None => error,
    }
}

/// Warns that a plan with conflicts is refused.
pub(super) fn warn_of_conflicts(error: &Error, output: &Output) -> VerbFailure {
    let message = error.message.to_string();
    match &error.hint {
        Some(hint) => output.warn_with_help(&message, &hint.to_string()),
        None => output.warn(&message),
    }
    VerbFailure::AlreadyReported(error.kind)
}

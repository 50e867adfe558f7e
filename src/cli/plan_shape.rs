//! The forms of a plan on standard output.

use super::{arguments::PlanOptions, output::Output};
use crate::{
    error::Error,
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

/// Says that `who` refuses a plan with this number of conflicts, unless it gets the option `adopt`.
pub(super) fn refuses(conflicts: usize, who: &str, adopt: &str) -> String {
    let objects = if conflicts == 1 { "object" } else { "objects" };
    let conflicts = count(conflicts, "conflict");
    format!("{conflicts}: {who} refuses this plan; pass {adopt} to take over the foreign {objects}")
}

//! `hostgw show`

use super::{
    VerbResult,
    arguments::ShowOptions,
    output::Output,
    plan_shape::{PlanShape, show},
    saved_plan::SavedPlan,
};

/// Shows a saved plan in any form of `hostgw plan`.
pub(super) fn run(options: &ShowOptions, output: &Output) -> VerbResult {
    let plan = SavedPlan::read(&options.plan)?;
    let shape = PlanShape::new(options.json, options.markdown, options.summary);
    show(&plan.report(), Some(&plan.title()), shape, output)?;
    Ok(0)
}

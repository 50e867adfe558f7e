//! `hostgw destroy`

use super::{
    VerbResult,
    arguments::{DestroyOptions, Preview},
    boot_files::{self, Basis},
    changed,
    command_line::{CommandLine, Presentation},
    output::Output,
    plan::warn_of_open,
    transaction_meta,
};
use crate::{
    diagnose::{Diagnostic, Rule},
    plan::{self, ForeignSysctlPolicy, Prepared},
    reconcile::{self, Committed, Destroy, Operation, RunResult, state_dir},
    record::{Command, TransactionMeta},
    render::Report,
};

/// Removes everything hostgw manages on this node.
pub(super) fn run(options: &DestroyOptions, output: &Output) -> VerbResult {
    let on_foreign = match (options.adopt, options.abandon) {
        (true, _) => ForeignSysctlPolicy::Overwrite,
        (false, true) => ForeignSysctlPolicy::Leave,
        (false, false) => ForeignSysctlPolicy::Refuse,
    };
    let mut destroy = Destroy::new(state_dir()?, on_foreign);
    let Preview { dry_run, detailed_exitcode } = options.preview;
    if dry_run {
        return preview(&mut destroy, options, output);
    }
    let caller = CommandLine { presentation: Destroying, consent: options.consent, output };
    let result = reconcile::run(&mut destroy, None, &caller);
    let RunResult { committed, recovered } = result.map_err(|failure| caller.reporter().failure(failure))?;
    if let Some(Committed { totals, .. }) = &committed {
        output
            .done(&format!("Destroyed and verified: {} removed, {} restored.", totals.remove, totals.update));
    }
    Ok(if committed.is_some() || recovered { changed(detailed_exitcode) } else { 0 })
}

/// Shows what would be removed. The exit codes are those of `plan`.
fn preview(destroy: &mut Destroy, options: &DestroyOptions, output: &Output) -> VerbResult {
    output.record(|transaction| transaction.dry_run = true);
    let dir = destroy.dir().clone();
    let checked = reconcile::preview(&dir, options.consent.lock.lock_timeout, || {
        destroy.look()?;
        Ok(destroy.check())
    })?;
    warn_of_open(&dir, output);
    output.plan_report(&Destroying.report(destroy), true)?;
    checked?;
    Ok(if destroy.prepared.plan.is_empty() { 0 } else { changed(options.preview.detailed_exitcode) })
}

struct Destroying;

impl Presentation<Destroy> for Destroying {
    fn report(&self, destroy: &Destroy) -> Report {
        let Prepared { desired, plan, left, .. } = &destroy.prepared;
        let explain = |change: &_| plan::reason(None, desired, &destroy.saved, None, change);
        let mut report = Report::new(plan, explain, |_, _| None);
        if !destroy.has_record && !plan.is_empty() {
            let message = "there is no record of an apply, so the original sysctl values are unknown; the sysctls keep their current values";
            let remedy = "if there should be a record, check HOSTGW_STATE_DIR; otherwise, set the sysctls with `sysctl -w KEY=VALUE` if you need other values";
            report.warn([Diagnostic::new(Rule::NoRecord, message.to_owned()).with_remedy(remedy)], |_| None);
        }
        report
            .warn(plan::check::irrevocable(plan).into_iter().chain(plan::foreign::warnings(left)), |_| None);
        report.add_boot_files(boot_files::judge(&boot_files::find(), &Basis::Nothing));
        report
    }

    fn question(&self, _: &Destroy) -> String {
        "Remove everything hostgw manages on this node?".to_owned()
    }

    fn can_be_pending(&self) -> bool {
        false
    }

    fn metadata(&self, _: &Destroy) -> TransactionMeta {
        transaction_meta::of_command(Command::Destroy)
    }
}

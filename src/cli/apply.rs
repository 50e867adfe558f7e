//! `hostgw apply` and `hostgw destroy`

use super::{
    Verdict,
    arguments::{ApplyOptions, DestroyOptions},
    output::Output,
    session::{Session, state_dir},
    transaction::{self, Work, now},
};
use crate::{
    apply::{Command, Node, Request},
    error::{Error, Kind},
    kernel::LiveNode,
    plan::{self, Desired, Plan, Policy, Scope},
    render::{self, Report},
};

/// Brings this node to what the file says.
pub(super) fn run(options: &ApplyOptions, output: &Output) -> Verdict {
    let policy = if options.adopt { Policy::Adopt } else { Policy::Respect };
    let dir = state_dir()?;
    transaction::recover(&dir, &options.consent, output)?;
    let mut session = Session::open(&options.target, policy)?;
    check(&session)?;
    if session.plan.is_empty() {
        output.result("Nothing to do: the node is as the file says.\n")?;
        return Ok(0);
    }
    show(&session, output)?;
    if !options.consent.yes {
        output.ask(&format!("Apply this plan to node {}?", session.node_name()))?;
    }
    let _lock = dir.lock(options.consent.lock_timeout, &transaction::description(Command::Apply))?;
    let shown = std::mem::take(&mut session.plan);
    session.refresh()?;
    check(&session)?;
    if session.plan != shown {
        changed_meanwhile(&session, options.consent.yes, output)?;
    }
    let name = session.node_name().to_owned();
    let work = Work {
        request: Request {
            command: Command::Apply,
            node: Some(&name),
            file: Some(session.loaded.document.name()),
            desired: &session.desired.state,
            scope: &session.scope,
            plan: &session.plan,
            observed: &session.observed.state,
            released: &session.desired.released,
            policy,
            now: now(),
        },
        dir: &dir,
    };
    transaction::run(&work, output)?;
    let totals = session.plan.totals();
    output.done(&format!(
        "Applied to node {name} and verified: {} added, {} changed, {} removed.",
        totals.add, totals.change, totals.remove
    ));
    Ok(0)
}

/// Everything that forbids an apply, before the first write.
fn check(session: &Session) -> Result<(), Error> {
    session.check()?;
    session.check_complete()?;
    session.check_conflicts()
}

fn show(session: &Session, output: &Output) -> Result<(), super::Failure> {
    output.result(&render::text(&session.report(), &output.palette))
}

/// The plan that was shown is not the plan that would be committed now.
fn changed_meanwhile(session: &Session, yes: bool, output: &Output) -> Result<(), super::Failure> {
    if yes {
        output.warn("the live state changed meanwhile; the plan is now:");
        return show(session, output);
    }
    show(session, output)?;
    Err(Error::new(Kind::Stale, "the live state changed after the plan was shown; nothing was changed")
        .with_hint("the plan as it is now stands above: run hostgw apply again to be asked about it")
        .into())
}

/// Removes all that hostgw owns here.
pub(super) fn destroy(options: &DestroyOptions, output: &Output) -> Verdict {
    let dir = state_dir()?;
    transaction::recover(&dir, &options.consent, output)?;
    let look = || -> Result<_, Error> {
        let saved = dir.saved()?;
        let desired = Desired::nothing(&saved);
        let scope = Scope::of(&desired.state, Vec::new());
        let observed = LiveNode.observe(&scope)?;
        // What is to go back to a saved value, and is gone with its interface, has nothing to go back to.
        let plan = plan::plan(&desired.state, &observed.state, Policy::Adopt);
        complete(&plan)?;
        Ok((saved, desired, scope, observed, plan))
    };
    let (saved, desired, _, _, shown) = look()?;
    if shown.is_empty() {
        output.result("Nothing to do: hostgw owns nothing here.\n")?;
        return Ok(0);
    }
    let report = |plan: &Plan, desired: &Desired| {
        Report::new(plan, |change| plan::explain(None, desired, &saved, None, change), |_| None)
    };
    output.result(&render::text(&report(&shown, &desired), &output.palette))?;
    if !options.consent.yes {
        output.ask("Remove all that hostgw owns on this node?")?;
    }
    let _lock = dir.lock(options.consent.lock_timeout, &transaction::description(Command::Destroy))?;
    let (_, desired, scope, observed, plan) = look()?;
    if plan != shown {
        output.warn("the live state changed meanwhile; the plan is now:");
        output.result(&render::text(&report(&plan, &desired), &output.palette))?;
        if !options.consent.yes {
            return Err(Error::new(Kind::Stale, "the live state changed after the plan was shown").into());
        }
    }
    let work = Work {
        request: Request {
            command: Command::Destroy,
            node: None,
            file: None,
            desired: &desired.state,
            scope: &scope,
            plan: &plan,
            observed: &observed.state,
            released: &desired.released,
            policy: Policy::Adopt,
            now: now(),
        },
        dir: &dir,
    };
    transaction::run(&work, output)?;
    let totals = plan.totals();
    output.done(&format!("Removed and verified: {} removed, {} restored.", totals.remove, totals.change));
    Ok(0)
}

fn complete(plan: &Plan) -> Result<(), Error> {
    let Some(first) = plan.unknown.first() else { return Ok(()) };
    let details = plan.unknown.iter().map(|unknown| format!("{}: {}", unknown.what, unknown.why));
    Err(Error {
        hint: first.hint.clone(),
        ..Error::new(Kind::Incomplete, "part of the live state could not be read").with_details(details)
    })
}

//! The user at the command line, who reviews and approves the plan of an operation.

use std::{sync::Arc, time::Duration};

use super::{
    arguments::Consent,
    output::{Answer, Output},
    reporter::Reporter,
    ssh,
};
use crate::{
    apply::Interrupt,
    error::Error,
    plan::{self, Prepared},
    reconcile::{Caller, Event, Observer, Operation},
    record::{Record, TransactionMeta},
    render::{self, Palette, Report},
    text::in_units,
};

/// How a verb presents its operation.
pub(super) trait Presentation<O> {
    /// Returns the plan with its reasons, warnings and source lines.
    fn report(&self, operation: &O) -> Report;

    /// Returns the same as text.
    fn text(&self, operation: &O, palette: &Palette) -> String {
        render::text(&self.report(operation), palette)
    }

    /// Returns the question to ask before the commit.
    fn question(&self, operation: &O) -> String;

    /// Returns `true` if the operation can remain pending until it is confirmed.
    fn can_be_pending(&self) -> bool;

    /// Returns what the history records about the operation.
    fn metadata(&self, operation: &O) -> TransactionMeta;
}

/// The caller of an operation.
pub(super) struct CommandLine<'a, P> {
    pub presentation: P,
    pub consent: Consent,
    pub output: &'a Output,
}

impl<P> CommandLine<'_, P> {
    pub(super) const fn reporter(&self) -> Reporter<'_> {
        Reporter { output: self.output }
    }
}

impl<P> Observer for CommandLine<'_, P> {
    fn event(&self, event: Event<'_>) {
        self.reporter().event(event);
    }

    fn interrupt(&self) -> Result<Arc<Interrupt>, Error> {
        self.reporter().interrupt()
    }
}

impl<O: Operation, P: Presentation<O>> Caller<O> for CommandLine<'_, P> {
    fn lock_timeout(&self) -> Duration {
        self.consent.lock.lock_timeout
    }

    fn is_unattended(&self) -> bool {
        self.consent.yes
    }

    fn show(&self, operation: &O, for_review: bool) -> Result<(), Error> {
        let Self { presentation, output, .. } = self;
        output.plan(
            || presentation.report(operation),
            |palette| presentation.text(operation, palette),
            for_review,
        )
    }

    /// Asks. If the plan changes the route to the user, offers to roll back automatically.
    fn approve(&self, operation: &O, hold: Option<Duration>) -> Result<Option<Duration>, Error> {
        /// The confirmation time that the prompt offers.
        const OFFERED: Duration = Duration::from_secs(90);
        let Self { presentation, consent, output } = self;
        let offered = in_units(OFFERED);
        let Prepared { plan, observed, .. } = operation.prepared();
        let cut_off = match hold {
            None => ssh::client().filter(|client| plan::lookup_change(plan, observed, *client).is_some()),
            Some(_) => None,
        };
        if let Some(client) = cut_off {
            output.warn(&format!("this plan changes the route to {client}, the client of your SSH session"));
        }
        let is_offered = cut_off.is_some() && presentation.can_be_pending();
        if consent.yes {
            if is_offered {
                output
                    .say(&format!("pass --confirm {offered} to roll back automatically unless you confirm"));
            }
            return Ok(hold);
        }
        let question = presentation.question(operation);
        if let Some(time) = hold {
            let time = in_units(time);
            output.ask(&format!("{question} It rolls back after {time} unless you confirm."))?;
        } else if is_offered {
            let question = format!("{question} Answer c to roll back after {offered} unless you confirm.");
            let answer = output.choose(&question, 'c')?;
            return Ok((answer == Answer::Other).then_some(OFFERED));
        } else {
            output.ask(&question)?;
        }
        Ok(hold)
    }

    fn approve_recovery(&self, _: &Record) -> Result<(), Error> {
        if self.consent.yes { Ok(()) } else { self.output.ask("Roll it back first?") }
    }

    fn metadata(&self, operation: &O) -> TransactionMeta {
        self.presentation.metadata(operation)
    }
}

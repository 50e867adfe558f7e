//! A caller that approves everything.

use std::{sync::Arc, time::Duration};

use super::caller::{Caller, Event, Observer};
use crate::{
    apply::Interrupt,
    error::Error,
    record::{Record, TransactionMeta},
};

/// A caller that approves every plan, and neither waits nor reports.
#[derive(Debug)]
pub struct Unattended {
    /// What the history records.
    pub metadata: TransactionMeta,
}

impl Observer for Unattended {
    fn event(&self, _: Event<'_>) {}

    fn interrupt(&self) -> Result<Arc<Interrupt>, Error> {
        Ok(Arc::default())
    }
}

impl<O> Caller<O> for Unattended {
    fn lock_timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn is_unattended(&self) -> bool {
        true
    }

    fn show(&self, _: &O, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn approve(&self, _: &O, hold: Option<Duration>) -> Result<Option<Duration>, Error> {
        Ok(hold)
    }

    fn approve_recovery(&self, _: &Record) -> Result<(), Error> {
        Ok(())
    }

    fn metadata(&self, _: &O) -> TransactionMeta {
        self.metadata.clone()
    }
}

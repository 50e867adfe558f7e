//! Names of transactions, and of the ways in which a pending apply ends, in messages.

use crate::{
    clock::time,
    error::{Error, Kind},
    record::{Command, Decision, Outcome, Record, TransactionMeta},
};

/// Returns a noun for a transaction: "apply 4 (2026-01-31T12:00:00Z)".
#[must_use]
pub fn name(id: u64, command: Command, at: &str) -> String {
    format!("{command} {id} ({at})")
}

/// Returns a noun for the transaction `id`.
#[must_use]
pub fn named_by(id: u64, TransactionMeta { command, at, .. }: &TransactionMeta) -> String {
    name(id, *command, &at.to_string())
}

/// Returns a noun for the transaction of `record`.
#[must_use]
pub fn described(record: &Record) -> String {
    named_by(record.id, &record.metadata)
}

/// Says that a transaction was rolled back except for a number of foreign changes, which are listed after this.
#[must_use]
pub fn abandoned(record: &Record, left: usize) -> String {
    let these = if left == 1 { "this foreign change" } else { "these foreign changes" };
    format!("Rolled back {}, except for {these}:", described(record))
}

/// Returns a noun for the apply of `outcome`.
#[must_use]
pub fn named(outcome: &Outcome) -> String {
    named_by(outcome.pending.id, &outcome.metadata)
}

/// Returns the reason that an apply was rolled back, as an error.
#[must_use]
pub fn not_kept(outcome: &Outcome) -> Error {
    let named = named(outcome);
    match outcome.decision {
        Decision::Expired => {
            let message = format!("{named} was not confirmed by {}", time(outcome.pending.until));
            Error::new(Kind::NotApplied, message).with_hint(
                "to try again, run `hostgw apply --confirm 90s`, and confirm within that time with `hostgw confirm`",
            )
        }
        Decision::Canceled | Decision::Confirmed => {
            Error::new(Kind::NotApplied, format!("{named} was canceled"))
        }
    }
}

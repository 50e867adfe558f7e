//! The JSON document that commands that change the node print when they end.

use schemars::JsonSchema;
use serde::Serialize;

use super::error_json::ErrorJson;
use crate::{
    clock::time,
    error::Kind,
    plan::Totals,
    record::{Decision, Pending},
    render::Report,
    text::Untrusted,
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `apply`, `destroy`, `rollback`, `confirm` or `cancel` with `--json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw transaction")]
pub(super) struct TransactionJson {
    /// The version of this format.
    format: u32,
    /// The command.
    command: TransactionCommand,
    /// Whether the command only showed its plan: `--dry-run`.
    pub dry_run: bool,
    /// The exit code of the command.
    exit_code: u8,
    /// What the exit code means, as a name that never changes.
    outcome: CommandOutcome,
    /// The ID of the transaction that was applied, undone, confirmed or canceled; absent if the command did not get
    /// that far.
    pub transaction_id: Option<u64>,
    /// The plan; absent if the command failed before planning, or needs no plan.
    pub planned: Option<Report>,
    /// The changes that are in effect; absent if the node is in its previous state.
    pub done: Option<Counts>,
    /// Whether hostgw verified that the node is in the planned state or, after a rollback, in the previous one.
    pub verified: bool,
    /// Whether the transaction was undone.
    pub rolled_back: bool,
    /// The commands that restore the previous state, in this order, if hostgw could not (exit code 7).
    pub remaining_commands: Vec<Untrusted>,
    /// The ID of an interrupted transaction that this command undid first.
    pub recovered_transaction_id: Option<u64>,
    /// The confirmation, if the transaction is or was pending.
    pub confirmation: Option<Confirmation>,
    /// The warnings.
    pub warnings: Vec<String>,
    /// Why the command failed; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

/// A command that works on a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum TransactionCommand {
    /// `hostgw apply`
    Apply,
    /// `hostgw destroy`
    Destroy,
    /// `hostgw rollback`
    Rollback,
    /// `hostgw confirm`
    Confirm,
    /// `hostgw cancel`
    Cancel,
}

/// Counts of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    /// Objects added.
    pub add: usize,
    /// Objects updated.
    pub update: usize,
    /// Objects removed.
    pub remove: usize,
}

impl From<Totals> for Counts {
    fn from(Totals { add, update, remove, .. }: Totals) -> Self {
        Self { add, update, remove }
    }
}

/// The confirmation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Confirmation {
    /// The ID of the transaction.
    pub transaction_id: u64,
    /// The deadline, as in RFC 3339.
    pub deadline: String,
    /// The decision; absent while it is pending.
    pub decision: Option<Decision>,
}

impl Confirmation {
    /// Creates the confirmation of `pending`, with the decision if there is one.
    pub(super) fn of(pending: &Pending, decision: Option<Decision>) -> Self {
        Self { transaction_id: pending.id, deadline: time(pending.until), decision }
    }
}

/// What an exit code means. The names never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum CommandOutcome {
    /// 0: success, or no changes.
    Success,
    /// 2: something was changed or, with `--dry-run`, would be. Only with `--detailed-exitcode`.
    Changes,
    /// 1: unexpected error.
    UnexpectedError,
    /// 3: the configuration is invalid, or does not fit this node.
    Invalid,
    /// 4: another hostgw command holds the lock.
    Locked,
    /// 5: the live state changed since the plan was shown or saved.
    Stale,
    /// 6: failed and rolled back; the rollback was verified.
    RolledBack,
    /// 7: the rollback is incomplete.
    RollbackIncomplete,
    /// 8: not applied (declined, no terminal, mass removal refused, or nothing to confirm or cancel), or rolled back because it
    /// was canceled or not confirmed in time.
    NotApplied,
    /// 9: part of the live state could not be read.
    Incomplete,
    /// 10: conflict with a foreign object.
    Conflict,
    /// 64: usage error.
    UsageError,
    /// 130: interrupted.
    Interrupted,
}

impl From<Kind> for CommandOutcome {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unexpected => Self::UnexpectedError,
            Kind::Invalid => Self::Invalid,
            Kind::Locked => Self::Locked,
            Kind::Stale => Self::Stale,
            Kind::RolledBack => Self::RolledBack,
            Kind::RollbackIncomplete => Self::RollbackIncomplete,
            Kind::NotApplied => Self::NotApplied,
            Kind::Incomplete => Self::Incomplete,
            Kind::Conflict => Self::Conflict,
            Kind::Usage => Self::UsageError,
            Kind::Interrupted => Self::Interrupted,
        }
    }
}

impl TransactionJson {
    /// Creates the document of `command`, which has not done anything yet.
    pub(super) const fn new(command: TransactionCommand) -> Self {
        Self {
            format: FORMAT,
            command,
            dry_run: false,
            exit_code: 0,
            outcome: CommandOutcome::Success,
            transaction_id: None,
            planned: None,
            done: None,
            verified: false,
            rolled_back: false,
            remaining_commands: Vec::new(),
            recovered_transaction_id: None,
            confirmation: None,
            warnings: Vec::new(),
            error: None,
        }
    }

    /// Records that the command succeeded with this exit code.
    pub(super) const fn succeed(&mut self, exit_code: u8) {
        self.exit_code = exit_code;
        self.outcome = if exit_code == 0 { CommandOutcome::Success } else { CommandOutcome::Changes };
    }

    /// Records that the command failed.
    pub(super) fn fail(&mut self, kind: Kind, error: Option<ErrorJson>) {
        self.exit_code = kind.exit_code();
        self.outcome = kind.into();
        self.error = error;
    }
}

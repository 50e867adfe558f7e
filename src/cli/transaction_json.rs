//! The JSON document that every verb that changes the node prints when it ends.

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
    /// Version of this form.
    format: u32,
    /// The command.
    command: TransactionCommand,
    /// Whether the command only showed its plan: `--dry-run`.
    pub dry_run: bool,
    /// The exit code of the command.
    exit_code: u8,
    /// What the exit code means, in one word that never changes.
    meaning: Meaning,
    /// The number of the transaction that was applied, undone, confirmed or cancelled; none when the command did not
    /// come to one.
    pub transaction: Option<u64>,
    /// The plan; none when the command failed before there was one, or needs none.
    pub planned: Option<Report>,
    /// What the command changed and left in force; none when the node is as it was before the command.
    pub done: Option<Counts>,
    /// Whether hostgw looked at the node after its changes and found the planned state or, where they were undone,
    /// the previous one.
    pub verified: bool,
    /// Whether the transaction was undone: nothing of it is in force.
    pub rolled_back: bool,
    /// The commands that restore the previous state, in this order, where hostgw could not; exit code 7.
    pub left: Vec<Untrusted>,
    /// The number of an interrupted transaction that this command undid before its own work.
    pub recovered: Option<u64>,
    /// The confirmation that the transaction waits for, or waited for.
    pub confirmation: Option<Confirmation>,
    /// What is worth knowing though it did not stop the command.
    pub warnings: Vec<String>,
    /// Why the command failed; none when it did not.
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
    /// Objects changed.
    pub change: usize,
    /// Objects removed.
    pub remove: usize,
}

impl From<Totals> for Counts {
    fn from(Totals { add, change, remove, .. }: Totals) -> Self {
        Self { add, change, remove }
    }
}

/// The confirmation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Confirmation {
    /// The number of the transaction.
    pub transaction: u64,
    /// The deadline, as in RFC 3339.
    pub until: String,
    /// What was decided; none while it is pending.
    pub decision: Option<Decision>,
}

impl Confirmation {
    /// The confirmation of `pending`, and what was decided, if anything was.
    pub(super) fn of(pending: &Pending, decision: Option<Decision>) -> Self {
        Self { transaction: pending.id, until: time(pending.until), decision }
    }
}

/// What an exit code means. The words never change, and none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Meaning {
    /// 0: done, or nothing to do.
    Done,
    /// 2: something was changed or, with `--dry-run`, would be; only with `--detailed-exitcode`.
    Changes,
    /// 1: unexpected error.
    Unexpected,
    /// 3: the configuration is invalid, or does not fit this node.
    Invalid,
    /// 4: another hostgw holds the lock.
    Locked,
    /// 5: the live state changed since the plan was shown or saved.
    Stale,
    /// 6: failed and rolled back; the rollback was verified.
    RolledBack,
    /// 7: the rollback is incomplete.
    RollbackIncomplete,
    /// 8: declined, or not confirmed in time.
    Declined,
    /// 9: part of the live state could not be read.
    Incomplete,
    /// 10: conflict with something that hostgw does not manage.
    Conflict,
    /// 64: usage error.
    Usage,
    /// 130: interrupted.
    Interrupted,
}

impl From<Kind> for Meaning {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unexpected => Self::Unexpected,
            Kind::Invalid => Self::Invalid,
            Kind::Locked => Self::Locked,
            Kind::Stale => Self::Stale,
            Kind::RolledBack => Self::RolledBack,
            Kind::RollbackIncomplete => Self::RollbackIncomplete,
            Kind::Declined => Self::Declined,
            Kind::Incomplete => Self::Incomplete,
            Kind::Conflict => Self::Conflict,
            Kind::Usage => Self::Usage,
            Kind::Interrupted => Self::Interrupted,
        }
    }
}

impl TransactionJson {
    /// The document of `command` before it has done anything.
    pub(super) const fn new(command: TransactionCommand) -> Self {
        Self {
            format: FORMAT,
            command,
            dry_run: false,
            exit_code: 0,
            meaning: Meaning::Done,
            transaction: None,
            planned: None,
            done: None,
            verified: false,
            rolled_back: false,
            left: Vec::new(),
            recovered: None,
            confirmation: None,
            warnings: Vec::new(),
            error: None,
        }
    }

    /// The command ended well, with this exit code.
    pub(super) const fn succeed(&mut self, exit_code: u8) {
        self.exit_code = exit_code;
        self.meaning = if exit_code == 0 { Meaning::Done } else { Meaning::Changes };
    }

    /// The command failed.
    pub(super) fn fail(&mut self, kind: Kind, error: Option<ErrorJson>) {
        self.exit_code = kind.exit_code();
        self.meaning = kind.into();
        self.error = error;
    }
}

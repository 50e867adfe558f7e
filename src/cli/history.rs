//! `hostgw status --history`: the applies that can be undone, and who ran them.

use console::measure_text_width;
use schemars::JsonSchema;
use serde::Serialize;

use super::{output::Output, saved_plan::DIGITS, transaction_json::Counts};
use crate::{
    error::Error,
    plan::Totals,
    reconcile::{name, state_dir},
    record::{Command, Commit, HistoryEntry, Record, TransactionMeta},
    text::{Untrusted, padded},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The metadata of a transaction, as printed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransactionSummary {
    /// The command.
    pub command: Command,
    /// The node; absent for a `destroy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Untrusted>,
    /// The configuration file, as named on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Untrusted>,
    /// SHA-256 of the configuration, as `sha256sum` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<Untrusted>,
    /// The Git commit of the configuration, if it is in a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// The user who ran the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Untrusted>,
    /// When the command was run, as in RFC 3339.
    pub at: Untrusted,
}

impl TransactionSummary {
    pub(super) fn of(metadata: &TransactionMeta) -> Self {
        let TransactionMeta { command, node, file, config_hash, commit, by, at } = metadata.clone();
        Self { command, node, file, config_hash, commit, by, at }
    }

    /// Returns a noun for it, as the transaction `id`: see [`name`].
    pub(super) fn named_by(&self, id: u64) -> String {
        name(id, self.command, &self.at.to_string())
    }
}

/// A transaction, by its ID.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NumberedTransaction {
    /// The ID of the transaction.
    pub id: u64,
    #[serde(flatten)]
    pub summary: TransactionSummary,
}

/// The result of `hostgw status --history --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw status --history")]
pub(super) struct History {
    /// The version of this format.
    format: u32,
    /// The transactions that `hostgw rollback` can undo, newest first.
    transactions: Vec<Transaction>,
}

/// A transaction in the history.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    /// The ID of the transaction.
    id: u64,
    /// Whether it is unfinished: a rollback undoes it first.
    unfinished: bool,
    #[serde(flatten)]
    summary: TransactionSummary,
    /// The number of changed objects.
    totals: Counts,
}

impl Transaction {
    fn new(id: u64, unfinished: bool, metadata: &TransactionMeta, totals: &Totals) -> Self {
        Self { id, unfinished, summary: TransactionSummary::of(metadata), totals: Counts::from(*totals) }
    }
}

/// Shows the open transaction, if any, and the committed ones, newest first.
pub(super) fn show(json: bool, output: &Output) -> Result<(), Error> {
    let dir = state_dir()?;
    let open = dir.open_journal()?;
    let open =
        open.iter().map(|Record { id, metadata, totals, .. }| Transaction::new(*id, true, metadata, totals));
    let committed = dir.entries()?;
    let committed = committed
        .iter()
        .map(|HistoryEntry { id, metadata, totals }| Transaction::new(*id, false, metadata, totals));
    let transactions: Vec<Transaction> = open.chain(committed).collect();
    if json {
        output.json(&History { format: FORMAT, transactions })
    } else if transactions.is_empty() {
        output.result("The history is empty: there is no apply or destroy to roll back.\n")
    } else {
        output.result(&table(&transactions))
    }
}

fn table(transactions: &[Transaction]) -> String {
    let heads = ["ID", "WHEN", "COMMAND", "NODE", "BY", "CHANGES", "FILE", "CONFIG", "COMMIT"];
    let mut rows = vec![heads.map(ToOwned::to_owned)];
    rows.extend(transactions.iter().map(row));
    let widths: Vec<usize> = (0..heads.len())
        .map(|at| rows.iter().map(|row| measure_text_width(&row[at])).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(&widths);
        cells.map(|(cell, width)| padded(cell, *width)).collect::<Vec<_>>().join("  ").trim_end().to_owned()
            + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(transaction: &Transaction) -> [String; 9] {
    let Transaction { id, unfinished, summary, totals } = transaction;
    let or_none =
        |text: &Option<Untrusted>| text.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let short = |text: &Untrusted| text.truncated(DIGITS).to_string();
    let commit =
        |Commit { id, dirty }: &Commit| format!("{}{}", short(id), if *dirty { " (dirty)" } else { "" });
    [
        format!("{id}{}", if *unfinished { " (unfinished)" } else { "" }),
        summary.at.to_string(),
        summary.command.to_string(),
        or_none(&summary.node),
        or_none(&summary.by),
        format!("+{} ~{} -{}", totals.add, totals.update, totals.remove),
        or_none(&summary.file),
        summary.config_hash.as_ref().map_or_else(|| "-".to_owned(), short),
        summary.commit.as_ref().map_or_else(|| "-".to_owned(), commit),
    ]
}

//! The records of a pending apply: its deadline, the decision, and the outcome.

use super::*;

impl StateDir {
    /// Keeps the open transaction in effect and marks it as pending.
    ///
    /// # Errors
    /// Returns an error if it cannot be written. In that case, the transaction counts as interrupted.
    pub fn mark_pending(&self, pending: &Pending) -> Result<(), Error> {
        self.remove(OUTCOME)?;
        let made = self.existing(PENDING_FOLDER)?.create_subfolder(PENDING_FOLDER);
        made.map_err(|error| cannot("create", &self.path.join(PENDING_FOLDER), &error))?;
        for decision in Decision::ALL {
            self.write(&prepared_decision_file(pending, decision), &decision)?;
        }
        self.write(PENDING, pending)
    }

    /// Returns the open transaction if it is in effect and pending.
    ///
    /// # Errors
    /// Same as [`Self::open_journal`].
    pub fn pending(&self) -> Result<Option<(Record, Pending)>, Error> {
        // Read the small file first: this runs many times a second.
        let Some(pending) = self.read::<Pending>(PENDING)? else { return Ok(None) };
        let record = self.open_journal()?.filter(|record| record.id == pending.id);
        Ok(record.map(|record| (record, pending)))
    }

    /// Returns a value that changes whenever a command begins or ends a transaction.
    ///
    /// # Errors
    /// Returns an error if a file exists but cannot be read or parsed.
    pub fn generation(&self) -> Result<Generation, Error> {
        let journal = self.folder()?.map(|folder| folder.open_file(JOURNAL, OFlags::RDONLY)).transpose();
        let journal = journal.map_err(|error| cannot_read(&self.path.join(JOURNAL), &error))?;
        let is_open = journal.flatten().is_some();
        let pending = self.read::<Pending>(PENDING)?.filter(|_| is_open);
        let last_id = self.folder()?.map(|folder| folder.read(LAST_ID)).transpose();
        let last_id = last_id.map_err(|error| cannot_read(&self.path.join(LAST_ID), &error))?.flatten();
        Ok(Generation { pending, is_open, history: self.history()?, last_id })
    }

    /// Decides the pending apply. Returns `false` if it is already decided or over. [`Self::mark_pending`] wrote a
    /// file for each decision, and deciding only renames one of them: this needs no disk space, and the first rename
    /// wins.
    ///
    /// # Errors
    /// Returns an error if the file cannot be renamed.
    pub fn decide(&self, pending: &Pending, decision: Decision) -> Result<bool, Error> {
        let [from, to] = [prepared_decision_file(pending, decision), decision_file(pending)];
        let renamed = self.existing(&to)?.rename_new(&from, &to);
        renamed.map_err(|error| cannot("decide by", &self.path.join(&to), &error))
    }

    /// Returns the decision on `pending`, if there is one.
    ///
    /// # Errors
    /// Returns an error if the file exists but cannot be read or parsed.
    pub fn decision(&self, pending: &Pending) -> Result<Option<Decision>, Error> {
        self.read(&decision_file(pending))
    }

    /// Records the outcome for waiting commands and, until the next apply, for `hostgw status`.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn write_outcome(&self, outcome: &Outcome) -> Result<(), Error> {
        self.write(OUTCOME, outcome)
    }

    /// Returns the outcome of the last pending apply.
    ///
    /// # Errors
    /// Returns an error if the file exists but cannot be read or parsed.
    pub fn outcome(&self) -> Result<Option<Outcome>, Error> {
        self.read(OUTCOME)
    }

    /// Ends the pending state. A transaction that is still open counts as interrupted from now on.
    ///
    /// # Errors
    /// Returns an error if the files cannot be removed.
    pub fn end_pending(&self) -> Result<(), Error> {
        self.remove(PENDING)?;
        self.clear_pending();
        Ok(())
    }

    /// Removes the files of the pending apply on a best-effort basis: they mean nothing without a journal.
    pub(super) fn clear_pending(&self) {
        let Ok(Some(folder)) = self.folder() else { return };
        for name in folder.names(PENDING_FOLDER).unwrap_or_default() {
            folder.discard(&format!("{PENDING_FOLDER}/{name}"));
        }
    }
}

/// The file that is renamed to [`decision_file`] to make this decision. Each pending apply has files of its own, so a
/// late decision cannot affect another one.
fn prepared_decision_file(Pending { deadline, .. }: &Pending, decision: Decision) -> String {
    format!("{PENDING_FOLDER}/{deadline}-{}.json", decision.name())
}

/// The file that holds the decision.
fn decision_file(Pending { deadline, .. }: &Pending) -> String {
    format!("{PENDING_FOLDER}/{deadline}.json")
}

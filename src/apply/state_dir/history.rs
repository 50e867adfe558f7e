//! The committed transactions, and the last apply.

use super::*;

impl StateDir {
    /// Returns the IDs of the committed transactions, oldest first.
    ///
    /// # Errors
    /// Returns an error if the directory exists but cannot be read.
    pub fn history(&self) -> Result<Vec<u64>, Error> {
        self.ids(HISTORY)
    }

    /// Returns the ID of the newest committed transaction.
    ///
    /// # Errors
    /// Same as [`Self::history`].
    pub fn newest(&self) -> Result<Option<u64>, Error> {
        Ok(self.history()?.last().copied())
    }

    /// Returns the committed transactions of this boot, newest first.
    ///
    /// # Errors
    /// Same as [`Self::open_journal`].
    pub fn entries(&self) -> Result<Vec<HistoryEntry>, Error> {
        let ids = self.history()?;
        let entries =
            ids.iter().rev().map(|id| self.read_by_id(HISTORY, *id, |entry: &HistoryEntry| entry.id));
        entries.filter_map(Result::transpose).collect()
    }

    /// Returns the newest committed transaction of this boot.
    ///
    /// # Errors
    /// Same as [`Self::open_journal`].
    pub fn last_committed(&self) -> Result<Option<Record>, Error> {
        match self.newest()? {
            Some(id) => self.read_by_id(HISTORY, id, |record: &Record| record.id),
            None => Ok(None),
        }
    }

    /// Returns the ID of the next transaction: one that no transaction of this boot has had, not even one that was
    /// rolled back.
    ///
    /// # Errors
    /// Same as [`Self::history`], and an error if no greater ID exists.
    pub fn next_id(&self) -> Result<u64, Error> {
        let newest = self.newest()?.unwrap_or(0).max(self.read(LAST_ID)?.unwrap_or(0));
        newest.checked_add(1).ok_or_else(|| {
            Error::unexpected(format!("{} has no free transaction ID below 2^64", text::path(&self.path)))
                .with_hint(format!("check {LAST_ID} and {HISTORY}/{newest}.json there, then move them aside"))
        })
    }

    /// Returns what the last apply put in effect.
    ///
    /// # Errors
    /// Returns an error if the file exists but cannot be read or parsed.
    pub fn last_applied(&self) -> Result<Option<LastApplied>, Error> {
        match self.ids(APPLIED)?.last() {
            Some(id) => self.read_by_id(APPLIED, *id, |last: &LastApplied| last.id),
            None => Ok(None),
        }
    }

    /// Records what an apply put in effect.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn write_last_applied(&self, last: &LastApplied) -> Result<(), Error> {
        self.write(&file_name(APPLIED, last.id), last)
    }

    /// Removes the desired state that the transaction `record` put in effect. The one before it is the last apply
    /// again.
    ///
    /// # Errors
    /// Returns an error if it cannot be removed.
    pub fn remove_applied(&self, record: &Record) -> Result<(), Error> {
        self.remove(&file_name(APPLIED, record.id))
    }

    /// Returns the IDs that the files of a folder are named by, in ascending order.
    pub(super) fn ids(&self, folder: &str) -> Result<Vec<u64>, Error> {
        let Some(dir) = self.folder()? else { return Ok(Vec::new()) };
        let names = dir.names(folder).map_err(|error| cannot_read(&self.path.join(folder), &error))?;
        let number = |name: &String| name.strip_suffix(".json")?.parse().ok();
        let mut ids: Vec<u64> = names.iter().filter_map(number).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads the file of transaction `id`, and verifies that its content has the same ID.
    pub(super) fn read_by_id<T: DeserializeOwned>(
        &self,
        folder: &str,
        id: u64,
        number: impl Fn(&T) -> u64,
    ) -> Result<Option<T>, Error> {
        let name = file_name(folder, id);
        match self.read(&name)? {
            Some(content) if number(&content) != id => {
                Err(self.damaged(&name, &format!("it belongs to transaction {}", number(&content))))
            }
            content => Ok(content),
        }
    }

    /// Removes all but the newest `kept` files of a folder. Errors are ignored: an extra file must not fail a
    /// transaction that is in effect.
    pub(super) fn prune(&self, folder: &str, kept: usize) {
        for id in self.ids(folder).unwrap_or_default().iter().rev().skip(kept) {
            self.discard(&file_name(folder, *id));
        }
    }
}

//! Reads and writes records: JSON in an envelope that names the format, the boot and the namespace.

use std::{fs::File, io::BufWriter};

use serde::de::IgnoredAny;

use super::*;
use crate::text::{JsonError, ShellCommand};

/// The format version of every file in the state directory. Files of other versions are rejected.
const FORMAT: u32 = 3;

/// The wrapper around the content of every file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<T> {
    format: u32,
    boot_id: String,
    namespace: String,
    content: T,
}

/// The header of an [`Envelope`], which tells a newer format from a damaged file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvelopeHeader {
    format: u32,
    boot_id: String,
    namespace: String,
}

impl StateDir {
    /// Reads a file of the directory. A file of another boot or namespace counts as missing.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(bytes) = self.read_bytes(name)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| self.damaged(name, &JsonError(&error).to_string());
        let header: EnvelopeHeader = match serde_json::from_slice(&bytes) {
            Ok(header) => header,
            // A crash of the machine damages what was not written to disk.
            Err(_) if self.is_of_another_boot()? => return Ok(None),
            Err(error) => return Err(damaged(error)),
        };
        if header.boot_id != self.identity.boot_id || header.namespace != self.identity.namespace {
            return Ok(None);
        }
        if header.format != FORMAT {
            let why =
                format!("it has format {}, but this version of hostgw reads format {FORMAT}", header.format);
            return Err(self.damaged(name, &why));
        }
        let envelope: Envelope<T> = serde_json::from_slice(&bytes).map_err(damaged)?;
        Ok(Some(envelope.content))
    }

    fn read_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(folder) = self.folder()? else { return Ok(None) };
        folder.read(name).map_err(|error| cannot_read(&self.path.join(name), &error))
    }

    /// Returns `true` if the last command that changed the directory ran before the machine booted.
    fn is_of_another_boot(&self) -> Result<bool, Error> {
        let Some(bytes) = self.read_bytes(BOOT)? else { return Ok(false) };
        let header: EnvelopeHeader = serde_json::from_slice(&bytes)
            .map_err(|error| self.damaged(BOOT, &JsonError(&error).to_string()))?;
        Ok(header.boot_id != self.identity.boot_id)
    }

    /// Removes the records of an earlier boot, then records this boot as the one that all following records belong to.
    pub(super) fn begin_boot(&self) -> Result<(), Error> {
        if self.read::<()>(BOOT)?.is_some() {
            return Ok(());
        }
        let folder = self.existing(BOOT)?;
        if self.is_of_another_boot()? {
            let files =
                [JOURNAL, OUTCOME, ORIGINAL_SYSCTLS, FOREIGN_SYSCTLS, LAST_ID, AGENT].map(ToOwned::to_owned);
            let mut files = Vec::from(files);
            for subfolder in [PENDING_FOLDER, APPLIED, HISTORY] {
                let names = folder.names(subfolder);
                let names = names.map_err(|error| cannot_read(&self.path.join(subfolder), &error))?;
                files.extend(names.iter().map(|name| format!("{subfolder}/{name}")));
            }
            for file in files {
                // Files of this boot stay.
                if self.read::<IgnoredAny>(&file)?.is_none() {
                    self.remove(&file)?;
                }
            }
        }
        // Written last: after a crash in between, the remaining records still count as those of the earlier boot.
        self.write_to_disk(BOOT, &())?;
        folder.sync().map_err(|error| cannot("write", &self.path.join(BOOT), &error))
    }

    pub(super) fn damaged(&self, name: &str, why: &str) -> Error {
        let path = self.path.join(name);
        let (file, aside) = (path.to_string_lossy(), format!("{}.damaged", path.to_string_lossy()));
        let move_aside = ShellCommand::new(["mv", &file, &aside]);
        let cause = "the file is truncated, or was written by another version of hostgw";
        let hint = match name {
            JOURNAL => format!(
                "{cause}: use that version to roll back the transaction; to abandon the rollback, run `{move_aside}`, then \
                 `hostgw plan`"
            ),
            ORIGINAL_SYSCTLS => format!(
                "{cause}; it has the original sysctl values, which hostgw cannot restore without it: check its contents, then run \
                 `{move_aside}`"
            ),
            _ => format!("{cause}; check its contents, then run `{move_aside}`"),
        };
        Error::unexpected(format!("cannot read {}: {why}", text::path(&path))).with_hint(hint)
    }

    /// Replaces a file that only has to outlive this process: all records are void after a crash of the machine.
    pub(super) fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Error> {
        self.replace(name, content, Survives::Process)
    }

    /// Replaces a file, and waits until it is on the disk. This also detects a disk that does not work.
    pub(super) fn write_to_disk<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Error> {
        self.replace(name, content, Survives::Machine)
    }

    fn replace<T: Serialize>(&self, name: &str, content: &T, survives: Survives) -> Result<(), Error> {
        let Identity { boot_id, namespace } = self.identity.clone();
        let envelope = Envelope { format: FORMAT, boot_id, namespace, content };
        // In parts: the record of a large configuration would take as much memory as the configuration.
        let write = |file: &mut BufWriter<File>| Ok(serde_json::to_writer(file, &envelope)?);
        let replaced = self.existing(name)?.replace(name, write, survives);
        replaced.map_err(|error| cannot("write", &self.path.join(name), &error))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = self.existing(to)?.rename(from, to);
        renamed.map_err(|error| cannot("move the journal to", &self.path.join(to), &error))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(folder) = self.folder()? else { return Ok(()) };
        folder.remove(name).map_err(|error| cannot("remove", &self.path.join(name), &error))
    }

    /// Removes a file on a best-effort basis; leaving it does no harm.
    pub(super) fn discard(&self, name: &str) {
        if let Ok(Some(folder)) = self.folder() {
            folder.discard(name);
        }
    }
}

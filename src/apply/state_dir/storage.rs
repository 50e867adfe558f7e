//! Reads and writes records: JSON in an envelope that names the format, the boot and the namespace.

use serde::de::IgnoredAny;

use super::*;

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
        let damaged = |error: serde_json::Error| self.damaged(name, &error.to_string());
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
            let why = format!("its format is {}, this version of hostgw reads {FORMAT}", header.format);
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
        let header: EnvelopeHeader =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(BOOT, &error.to_string()))?;
        Ok(header.boot_id != self.identity.boot_id)
    }

    /// Names this boot as that of all records that follow, after removing those of an earlier boot.
    pub(super) fn begin_boot(&self) -> Result<(), Error> {
        if self.read::<()>(BOOT)?.is_some() {
            return Ok(());
        }
        let folder = self.existing(BOOT)?;
        if self.is_of_another_boot()? {
            let files = [JOURNAL, OUTCOME, ORIGINAL_SYSCTLS, FOREIGN_SYSCTLS, LAST_ID].map(ToOwned::to_owned);
            let mut files = Vec::from(files);
            for subfolder in [PENDING_FOLDER, APPLIED, HISTORY] {
                let names = folder.names(subfolder);
                let names = names.map_err(|error| cannot_read(&self.path.join(subfolder), &error))?;
                files.extend(names.iter().map(|name| format!("{subfolder}/{name}")));
            }
            for file in files {
                // Whatever names this boot is not removed.
                if self.read::<IgnoredAny>(&file)?.is_none() {
                    self.remove(&file)?;
                }
            }
        }
        // A crash in between leaves no record of this boot under the name of another one.
        self.write_to_disk(BOOT, &())?;
        folder.sync().map_err(|error| cannot("write", &self.path.join(BOOT), &error))
    }

    pub(super) fn damaged(&self, name: &str, why: &str) -> Error {
        let path = self.path.join(name);
        Error::unexpected(format!("cannot read {}: {why}", text::path(&path))).with_hint(
            "truncated, or written by another version of hostgw; check its contents, then move it aside",
        )
    }

    /// Replaces a file that must outlive this process only: all records are void after a crash of the machine.
    pub(super) fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Error> {
        self.replace(name, content, Survives::Process)
    }

    /// Replaces a file, and waits until the disk has it, which also shows that the disk works.
    pub(super) fn write_to_disk<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Error> {
        self.replace(name, content, Survives::Machine)
    }

    fn replace<T: Serialize>(&self, name: &str, content: &T, survives: Survives) -> Result<(), Error> {
        let replaced = self.existing(name)?.replace(name, &self.envelope(content)?, survives);
        replaced.map_err(|error| cannot("write", &self.path.join(name), &error))
    }

    pub(super) fn envelope<T: Serialize>(&self, content: &T) -> Result<Vec<u8>, Error> {
        let Identity { boot_id, namespace } = self.identity.clone();
        serde_json::to_vec(&Envelope { format: FORMAT, boot_id, namespace, content })
            .map_err(|error| Error::unexpected(format!("cannot write JSON: {error}")))
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

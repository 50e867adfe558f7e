//! Reads and writes records: JSON in an envelope that names the format, the boot and the namespace.

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
        let Some(folder) = self.folder()? else { return Ok(None) };
        let bytes = folder.read(name).map_err(|error| cannot_read(&self.path.join(name), &error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = |error: serde_json::Error| self.damaged(name, &error.to_string());
        let header: EnvelopeHeader = serde_json::from_slice(&bytes).map_err(damaged)?;
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

    pub(super) fn damaged(&self, name: &str, why: &str) -> Error {
        let path = self.path.join(name);
        Error::unexpected(format!("cannot read {}: {why}", text::path(&path))).with_hint(
            "truncated, or written by another version of hostgw; check its contents, then move it aside",
        )
    }

    pub(super) fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Error> {
        let replaced = self.existing(name)?.replace(name, &self.envelope(content)?);
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

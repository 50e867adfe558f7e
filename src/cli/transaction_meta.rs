//! Who applies what, for the history: user, hash of the configuration, git commit.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use sha2::{Digest, Sha256};

use super::git::Git;
use crate::{
    clock::now,
    config::Document,
    hex::hex,
    record::{Command, Commit, TransactionMeta},
    text::Untrusted,
};

/// A repository that does not answer in this time is left out of the record.
const TIME: Duration = Duration::from_secs(5);

/// `command`, started now by whoever runs this process.
pub(super) fn of_command(command: Command) -> TransactionMeta {
    #[cfg(target_os = "linux")]
    let by = Some(super::invoker::user());
    #[cfg(not(target_os = "linux"))]
    let by = None;
    TransactionMeta { by, ..TransactionMeta::new(command, now()) }
}

/// SHA-256, as `sha256sum` prints it.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// An apply of `document` to `node`.
pub(super) fn of_apply(document: &Document, node: &Untrusted) -> TransactionMeta {
    TransactionMeta {
        node: Some(node.clone()),
        file: Some(document.name().clone()),
        config_hash: Some(hash(document.bytes()).into()),
        commit: document.path().and_then(commit),
        ..of_command(Command::Apply)
    }
}

/// The commit that `file` is checked out at; none outside a repository, without git, or where git refuses
/// to trust the repository of another user.
fn commit(file: &Path) -> Option<Commit> {
    let file = fs::canonicalize(file).ok()?;
    let (folder, name) = (file.parent()?, file.file_name()?);
    let git = Git::new(folder).within(TIME);
    let id = git.ask_line(["rev-parse", "--verify", "--end-of-options", "HEAD^{commit}"]).ok()?;
    // Not by `git status`: that runs the filters which the repository configures, and this may be root.
    let mut committed = OsString::from("HEAD:./");
    committed.push(name);
    let words = ["rev-parse", "--verify", "--end-of-options"].map(OsString::from);
    let committed = git.ask_line(words.into_iter().chain([committed])).ok();
    let words = ["hash-object", "--no-filters", "--"].map(OsString::from);
    let here = git.ask_line(words.into_iter().chain([name.to_owned()])).ok()?;
    Some(Commit { dirty: committed != Some(here), id: id.into() })
}

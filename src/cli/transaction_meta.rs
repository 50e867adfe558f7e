//! Collects what the history records: the user, the hash of the configuration, and the Git commit.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use super::git::{self, Git};
use crate::{
    clock::now,
    config::Document,
    record::{Command, Commit, TransactionMeta},
    text::Untrusted,
};

/// How long to wait for git. After that, the record has no commit.
const TIME: Duration = Duration::from_secs(5);

/// Returns the metadata of `command`, started now by the user who runs this process.
pub(super) fn of_command(command: Command) -> TransactionMeta {
    #[cfg(target_os = "linux")]
    let by = Some(super::invoker::user());
    #[cfg(not(target_os = "linux"))]
    let by = None;
    TransactionMeta { by, ..TransactionMeta::new(command, now()) }
}

/// Returns the metadata of an apply of `document` to `node`.
pub(super) fn of_apply(document: &Document, node: &Untrusted) -> TransactionMeta {
    TransactionMeta {
        node: Some(node.clone()),
        file: Some(document.name().clone()),
        config_hash: Some(document.hash().into()),
        commit: document.path().and_then(commit),
        ..of_command(Command::Apply)
    }
}

/// Returns the commit that `file` is checked out at. Returns `None` outside a repository, without git, or if git does
/// not trust the repository of another user.
fn commit(file: &Path) -> Option<Commit> {
    let file = fs::canonicalize(file).ok()?;
    let (folder, name) = (file.parent()?, file.file_name()?);
    // Starting git would take as long as a small apply.
    if !git::is_in_worktree(folder) {
        return None;
    }
    let git = Git::new(folder).within(TIME);
    let id = git.ask_line(["rev-parse", "--verify", "--end-of-options", "HEAD^{commit}"]).ok()?;
    // `git status` would run filters that the repository configures, possibly as root.
    let mut committed = OsString::from("HEAD:./");
    committed.push(name);
    let words = ["rev-parse", "--verify", "--end-of-options"].map(OsString::from);
    let committed = git.ask_line(words.into_iter().chain([committed])).ok();
    let words = ["hash-object", "--no-filters", "--"].map(OsString::from);
    let here = git.ask_line(words.into_iter().chain([name.to_owned()])).ok()?;
    Some(Commit { dirty: committed != Some(here), id: id.into() })
}

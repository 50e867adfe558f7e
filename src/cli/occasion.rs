//! Who applies what, for the history: user, hash of the configuration, git commit.

use std::{env, ffi::OsString, fs, path::Path, time::Duration};

use sha2::{Digest, Sha256};

use super::{git::Git, transaction::now};
use crate::{
    apply::{Command, Commit, Occasion},
    config::Document,
    hex::hex,
};

/// A repository, or a directory of users, that does not answer in this time is left out of the record.
const TIME: Duration = Duration::from_secs(5);

/// `command`, started now by whoever runs this process.
pub(super) fn of_command(command: Command) -> Occasion {
    Occasion { by: Some(user().into()), ..Occasion::new(command, now()) }
}

/// SHA-256, as `sha256sum` prints it.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// An apply of `document` to `node`.
pub(super) fn of_apply(document: &Document, node: &str) -> Occasion {
    Occasion {
        node: Some(node.into()),
        file: Some(document.name().into()),
        config_hash: Some(hash(document.bytes()).into()),
        commit: document.path().and_then(commit),
        ..of_command(Command::Apply)
    }
}

/// The user who logged in, whatever sudo and su made of them since; a number where /etc/passwd has no name.
fn user() -> String {
    let login = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    // 4294967295: nobody logged in, as for a daemon (loginuid is -1).
    let id = login
        .trim()
        .parse()
        .ok()
        .filter(|id| *id != u32::MAX)
        .or_else(|| env::var("SUDO_UID").ok()?.parse().ok())
        .unwrap_or_else(|| rustix::process::getuid().as_raw());
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(id, &users).map_or_else(|| format!("uid {id}"), ToOwned::to_owned)
}

/// The name of a user in a file as passwd(5) describes it.
fn name_of(id: u32, users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_of(0, users), Some("root"));
        assert_eq!(name_of(1000, users), Some("alice"));
        assert_eq!(name_of(1001, users), None);
    }
}

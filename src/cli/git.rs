//! Asking git, the program, about a repository.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

/// Why git gave no answer.
#[derive(Debug)]
pub(super) enum GitError {
    /// It could not be started.
    NotRun(io::Error),
    /// It failed; what it said about that, which may be nothing.
    Failed(String),
}

/// Variables that name a repository: git sets them for hooks. The repository here is the one of the folder.
const REPOSITORY: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// What git prints in `folder`, which must be there.
pub(super) fn run(
    folder: &Path,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<Vec<u8>, GitError> {
    let mut git = Command::new("git");
    // No program that the repository configures is run, but for what a partial clone fetches with, and its index is
    // not written.
    git.args(["-c", "core.fsmonitor=false", "--no-optional-locks", "--literal-pathspecs", "-C"]).arg(folder);
    REPOSITORY.iter().for_each(|name| {
        git.env_remove(name);
    });
    arguments(&mut git).stdin(Stdio::null());
    let output = git.output().map_err(GitError::NotRun)?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(GitError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

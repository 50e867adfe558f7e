//! Runs git on untrusted repositories. This is the only place that builds its command line.
//!
//! A repository can make git run programs: to fetch missing objects of a partial clone, to watch files, as hooks,
//! filters, textconv, diff drivers, pagers, and credential helpers. Its author may not be the user who runs hostgw,
//! so none of them runs. git answers from the objects that exist.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::program::{self, Limits};
use crate::input;

/// The reason that git gave no answer.
#[derive(Debug)]
pub(super) enum GitError {
    /// git could not be started, or exceeded its limits.
    NotRun(io::Error),
    /// git failed, with this message, which can be empty.
    Failed(String),
}

/// The repository of a directory.
#[derive(Debug, Clone)]
pub(super) struct Git {
    folder: PathBuf,
    limits: Limits,
}

/// Settings that override those of the repository, its includes and its worktree.
const SETTINGS: [&str; 9] = [
    // No transport, whatever the repository allows: git(1) before 2.45 ignores GIT_NO_LAZY_FETCH.
    "protocol.allow=never",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.askPass=",
    "credential.helper=",
    "gc.auto=0",
    // A change can add a directory that is a bare repository with its own configuration.
    "safe.bareRepository=explicit",
];

/// Environment variables for git and the programs it might run.
const VARIABLES: [(&str, &str); 6] = [
    ("GIT_NO_LAZY_FETCH", "1"),
    // An empty list allows none.
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    // hostgw parses some messages of git.
    ("LC_ALL", "C"),
];

/// Variables of the caller that git receives: they select the configuration files of the user, which list the trusted
/// repositories of other users. All other `GIT_` variables name another repository (git sets them for hooks),
/// programs, or files to write.
const KEPT: [&str; 7] = [
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
];

/// The prefixes of variables that git receives: the pairs of `GIT_CONFIG_COUNT`.
const KEPT_PREFIXES: [&str; 2] = ["GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"];

impl Git {
    /// The maximum size of an answer, in bytes.
    pub(super) const MAX_BYTES: usize = input::LIMIT as usize;

    /// Returns the repository that `folder` is in.
    pub(super) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), limits: Limits { time: None, bytes: Self::MAX_BYTES } }
    }

    /// Limits the time for each answer.
    pub(super) const fn within(mut self, time: Duration) -> Self {
        self.limits.time = Some(time);
        self
    }

    /// Runs `git` with these arguments, and returns its output.
    ///
    /// # Errors
    /// Returns an error if git cannot be run, or fails.
    pub(super) fn ask<I>(&self, arguments: I) -> Result<Vec<u8>, GitError>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let printed =
            program::collect(self.command().args(arguments), self.limits).map_err(GitError::NotRun)?;
        if printed.status.success() {
            Ok(printed.stdout)
        } else {
            Err(GitError::Failed(String::from_utf8_lossy(&printed.stderr).trim().to_owned()))
        }
    }

    /// Runs `git` with these arguments, and returns one line of output.
    pub(super) fn ask_line<I>(&self, arguments: I) -> Result<String, GitError>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let bytes = self.ask(arguments)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
    }

    fn command(&self) -> Command {
        let mut git = Command::new("git");
        git.args(["--no-pager", "--no-optional-locks", "--no-replace-objects", "--literal-pathspecs"]);
        SETTINGS.iter().for_each(|setting| {
            git.args(["-c", setting]);
        });
        git.arg("-C").arg(&self.folder);
        env::vars_os().filter(|(name, _)| !is_kept(name)).for_each(|(name, _)| {
            git.env_remove(name);
        });
        git.envs(VARIABLES);
        git
    }
}

/// Returns `true` if `folder` or one of its parents contains `.git`, as the root of a worktree does. Other repositories
/// do not matter: no environment variable points git to them, and git refuses bare ones.
pub(super) fn is_in_worktree(folder: &Path) -> bool {
    folder.ancestors().any(|folder| folder.join(".git").symlink_metadata().is_ok())
}

/// Returns `true` if git receives this variable of the caller.
fn is_kept(name: &OsString) -> bool {
    let name = name.as_encoded_bytes();
    !name.starts_with(b"GIT_")
        || KEPT.iter().any(|kept| kept.as_bytes() == name)
        || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Returns the path that bytes in the output of git name.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    return PathBuf::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
    #[cfg(not(unix))]
    return PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
}

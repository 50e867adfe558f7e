//! Shows long results in a pager, as git does.
//!
//! A pager can run programs and open files. With elevated privileges, that would give those privileges away, so the
//! rule of systemctl applies (`SYSTEMD_PAGERSECURE`): only less(1), in its secure mode, and without its environment
//! variables.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use console::Term;
use signal_hook::consts::SIGINT;

use super::{invoker, signals, terminal};

/// The options that git(1) passes to less: exit if the text fits, keep colors, and leave the text on the screen.
const LESS: &str = "FRX";

/// Shows `text` in the program that PAGER names, or else in less(1), if standard output is a terminal with fewer
/// lines. Returns `false` if the text still has to be written: no pager is wanted or available, or it failed.
pub(super) fn show(text: &str) -> bool {
    let lines = usize::from(Term::stdout().size().0);
    if !io::stdout().is_terminal() || terminal::is_dumb() || text.lines().count() < lines {
        return false;
    }
    let Some(mut pager) = pager() else { return false };
    // Ctrl-C is for the pager, which handles it.
    let _ = signals::interrupt();
    let Ok(mut child) = pager.stdin(Stdio::piped()).spawn() else { return false };
    if let Some(mut pipe) = child.stdin.take() {
        // Quitting before the end closes the pipe.
        let _ = pipe.write_all(text.as_bytes());
    }
    child.wait().is_ok_and(has_shown)
}

/// Returns `true` if the pager showed the text. If it failed, the text is printed again: shown twice is better than not
/// at all. Ctrl-C ends a pager that reads no keys.
fn has_shown(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(SIGINT)
}

fn pager() -> Option<Command> {
    let wanted = env::var_os("PAGER");
    if wanted.as_deref().is_some_and(is_none) {
        return None;
    }
    if invoker::is_elevated() { secure_less() } else { pager_of_user(wanted) }
}

/// Returns `true` if PAGER disables paging.
fn is_none(pager: &OsStr) -> bool {
    let pager = pager.as_encoded_bytes().trim_ascii();
    pager.is_empty() || pager == b"cat"
}

fn pager_of_user(wanted: Option<OsString>) -> Option<Command> {
    let pager = wanted.or_else(|| is_on_path("less").then(|| "less".into()))?;
    let mut command = Command::new("sh");
    command.arg("-c").arg(pager);
    for (name, value) in [("LESS", LESS), ("LV", "-c")] {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    Some(command)
}

/// Returns less in its secure mode, in which it neither runs programs nor opens or writes other files. Its
/// environment is cleared, because LESS, LESSOPEN, LESSKEY, TERMINFO, HOME and others name options, programs and
/// files.
fn secure_less() -> Option<Command> {
    let less = ["/usr/bin/less", "/bin/less"].into_iter().find(|path| Path::new(path).is_file())?;
    let is_kept = |name: &OsStr| {
        let is_locale = name.as_encoded_bytes().starts_with(b"LC_");
        is_locale || name == "LANG" || name == "TERM"
    };
    let mut command = Command::new(less);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| is_kept(name)));
    command.envs([("PATH", "/usr/bin:/bin"), ("LESS", LESS), ("LESSSECURE", "1"), ("LESSHISTFILE", "-")]);
    Some(command)
}

/// Returns `true` if the PATH has a program of this name.
fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

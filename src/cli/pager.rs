//! A long result on a terminal, page by page, as git does.
//!
//! A pager can run programs and open files: with rights that are not the user's own, that would hand them out. So then
//! the rule is systemctl's (`SYSTEMD_PAGERSECURE`): no program but less(1), in its secure mode, and nothing that the
//! environment says about it.

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

/// What git(1) sets for less: short texts end it at once, colors pass, and the text stays on the screen.
const LESS: &str = "FRX";

/// Shows `text` with the program that PAGER names, or else less(1), when standard output is a terminal with
/// fewer lines. Returns whether it did; where no pager is wanted, there is none, or it fails, the text is still to be
/// written.
pub(super) fn show(text: &str) -> bool {
    let lines = usize::from(Term::stdout().size().0);
    if !io::stdout().is_terminal() || terminal::is_dumb() || text.lines().count() < lines {
        return false;
    }
    let Some(mut pager) = pager() else { return false };
    // ^C is for the pager, which stays.
    let _ = signals::interrupt();
    let Ok(mut child) = pager.stdin(Stdio::piped()).spawn() else { return false };
    if let Some(mut pipe) = child.stdin.take() {
        // Whoever quits before the end closes the pipe.
        let _ = pipe.write_all(text.as_bytes());
    }
    child.wait().is_ok_and(has_shown)
}

/// One that failed may have shown nothing: rather twice than never. ^C ends a pager that takes no keys.
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

/// Whether PAGER says that no pager is wanted.
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

/// less, which in its secure mode neither runs programs nor opens or writes other files. Its environment is made anew:
/// LESS, LESSOPEN, LESSKEY and their like, TERMINFO and HOME name options, programs and files.
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

/// Whether a program of this name is on the PATH.
fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

//! A long result on a terminal, page by page, as git does.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::{Command, Stdio},
};

use console::Term;

use super::signals;

/// Shows `text` by the program that PAGER names, less(1) without it, when standard output is a terminal with
/// fewer lines. Returns whether it did; where no pager is wanted or there is none, the text is still to be
/// written.
pub(super) fn show(text: &str) -> bool {
    let pager = match env::var("PAGER") {
        Ok(pager) => pager,
        Err(_) if exists("less") => "less".to_owned(),
        Err(_) => return false,
    };
    let lines = usize::from(Term::stdout().size().0);
    let is_short = text.lines().count() < lines;
    if !io::stdout().is_terminal() || is_short || pager.trim().is_empty() || pager == "cat" {
        return false;
    }
    // ^C is for the pager, which stays.
    let _ = signals::interrupt();
    // As git(1) sets them: short texts end less at once, colours pass, and the text stays on the screen.
    let default = |name: &str, value: &str| env::var(name).unwrap_or_else(|_| value.to_owned());
    let child = Command::new("sh")
        .args(["-c", &pager])
        .env("LESS", default("LESS", "FRX"))
        .env("LV", default("LV", "-c"))
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return false };
    if let Some(mut pipe) = child.stdin.take() {
        // Whoever quits before the end closes the pipe.
        let _ = pipe.write_all(text.as_bytes());
    }
    // 126, 127: the shell could not run it.
    child.wait().is_ok_and(|status| !matches!(status.code(), Some(126 | 127)))
}

/// Whether a program of this name is on the PATH.
fn exists(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

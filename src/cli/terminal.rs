//! The terminal: its colors, its width, and its input.

use std::{
    env,
    io::{self, IsTerminal},
};

use console::Term;

use super::arguments::Color;
#[cfg(target_os = "linux")]
pub(super) use typed::read_line;

/// Returns `true` if a stream is colored. In this order, the option, NO_COLOR, CLICOLOR_FORCE and FORCE_COLOR,
/// CLICOLOR and TERM decide, and then whether the stream is a terminal. An empty variable counts as unset
/// (no-color.org).
pub(super) fn colored(color: Color, is_terminal: bool) -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_off = |name: &str| env::var_os(name).is_some_and(|value| value == "0");
    let is_on = |name: &str| is_set(name) && !is_off(name);
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if is_set("NO_COLOR") => false,
        Color::Auto if is_on("CLICOLOR_FORCE") || is_on("FORCE_COLOR") => true,
        Color::Auto if is_off("FORCE_COLOR") || is_off("CLICOLOR") || is_dumb() => false,
        Color::Auto => is_terminal,
    }
}

/// Returns `true` if the terminal has no escape sequences.
pub(super) fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|kind| kind == "dumb")
}

/// Returns the number of columns of a stream, which is unlimited if it is not a terminal.
pub(super) fn width(stream: &Term, is_terminal: bool) -> usize {
    let size = stream.size_checked().filter(|(_, columns)| is_terminal && *columns > 0);
    size.map_or(usize::MAX, |(_, columns)| columns.into())
}

/// Returns `true` if a user can answer a question.
pub(super) fn can_answer() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

#[cfg(target_os = "linux")]
mod typed {
    use std::io::{self, BufRead};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use crate::{
        apply::Interrupt,
        error::{Error, Kind},
        text::OsError,
    };

    /// How often to check for a signal, in nanoseconds.
    const LOOK: i64 = 100_000_000;

    /// Reads a line from the terminal, or less at the end of standard input.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] if a signal arrives first; otherwise an error if standard input cannot be read.
    pub(in super::super) fn read_line(interrupt: &Interrupt) -> Result<String, Error> {
        let stdin = io::stdin();
        let cannot =
            |error: io::Error| Error::unexpected(format!("cannot read the answer: {}", OsError(&error)));
        let pause = Timespec { tv_sec: 0, tv_nsec: LOOK };
        let mut line = String::new();
        let mut is_over = false;
        while !is_over && !interrupt.is_raised() {
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&pause)) {
                // A terminal returns at most one line at a time, so nothing is left in the buffer.
                Ok(ready) if ready > 0 => {
                    stdin.lock().read_line(&mut line).map_err(cannot)?;
                    is_over = true;
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(cannot(error.into())),
            }
        }
        if interrupt.is_raised() {
            return Err(Error::new(Kind::Interrupted, "interrupted; nothing was changed"));
        }
        Ok(line)
    }
}

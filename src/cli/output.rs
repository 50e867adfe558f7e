//! Where results and messages go: results to standard output, messages to standard error, and a closed
//! pipe is no error.

use std::{
    env,
    io::{self, BufRead, IsTerminal, Write},
};

use serde::Serialize;

use super::{Failure, arguments::Color, pager};
use crate::{
    error::{Error, Kind},
    render::{LIMIT, Palette},
    text::{Untrusted, for_terminal, printable, to_json},
};

/// Version of the JSON form of a failure.
const FORMAT: u32 = 1;

/// The two streams and their colours.
pub(super) struct Output {
    /// Colours of standard output.
    pub palette: Palette,
    messages: Palette,
    /// Whether results are coloured.
    coloured_results: bool,
    /// Whether messages are coloured.
    pub coloured_messages: bool,
    json: bool,
    pages: bool,
}

/// What was answered to a question, if it was not a no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    Other,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureJson<'a> {
    format: u32,
    error: ErrorJson<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorJson<'a> {
    exit_code: u8,
    message: &'a Untrusted,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [Untrusted],
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a Untrusted>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mistakes: Vec<super::validate::MistakeJson<'a>>,
}

impl Output {
    /// Streams coloured as `color` says; failures are JSON where `json` is asked for. What is long goes
    /// through a pager where `pages` allows it.
    pub(super) fn new(color: Color, json: bool, pages: bool) -> Self {
        let on_stdout = coloured(color, io::stdout().is_terminal());
        let on_stderr = coloured(color, io::stderr().is_terminal());
        Self {
            palette: Palette::new(on_stdout).of_width(width()),
            messages: Palette::new(on_stderr),
            coloured_results: on_stdout,
            coloured_messages: on_stderr,
            json,
            pages,
        }
    }

    /// Writes a result that may be long: on a terminal, page by page.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn long(&self, text: &str) -> Result<(), Failure> {
        if self.pages && pager::show(&for_terminal(text, self.coloured_results)) {
            Ok(())
        } else {
            self.result(text)
        }
    }

    /// Writes a result.
    ///
    /// # Errors
    /// When standard output cannot be written, a closed pipe excepted.
    pub(super) fn result(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(for_terminal(text, self.coloured_results).as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::unexpected(format!("cannot write to standard output: {error}")).into())
            }
            _ => Ok(()),
        }
    }

    /// Writes a result as JSON.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text =
            to_json(value).map_err(|error| Error::unexpected(format!("cannot write JSON: {error}")))?;
        self.result(&(text + "\n"))
    }

    /// Writes a result as Markdown, and says when it is too long for a comment: then the removals alone are.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn markdown(&self, text: &str) -> Result<(), Failure> {
        if text.len() > LIMIT {
            let length = text.len();
            self.warn(&format!(
                "the removals alone take {length} bytes, which may be too long for a comment"
            ));
        }
        self.result(text)
    }

    /// Says something on the side.
    pub(super) fn say(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", for_terminal(text, self.coloured_messages));
    }

    /// Shows how far a long command is, on one line of a terminal that the next call overwrites; an empty
    /// text takes the line away. Nothing where there is no terminal.
    pub(super) fn progress(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K{}", self.messages.dim.apply_to(printable(text)));
            let _ = stderr.flush();
        }
    }

    /// Says that something is worth looking at.
    pub(super) fn warn(&self, text: &str) {
        self.say(&format!("{} {}", self.messages.change.apply_to("warning:"), printable(text)));
    }

    /// Says that not everything could be read, and what to do about it.
    pub(super) fn incomplete(&self, what: &str, hint: Option<&Untrusted>) {
        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}, to see the rest"));
        self.warn(&format!("{what} is incomplete{hint}"));
    }

    /// Says that something went well.
    pub(super) fn done(&self, text: &str) {
        self.say(&self.messages.add.apply_to(printable(text)).to_string());
    }

    /// Reports a failure and gives its exit code.
    pub(super) fn failure(&self, failure: &Failure) -> u8 {
        match failure {
            Failure::Error(error) => {
                self.error(error);
                error.kind.exit_code()
            }
            Failure::Invalid(invalid) => {
                self.invalid(invalid);
                Kind::Invalid.exit_code()
            }
            Failure::Said(kind) => kind.exit_code(),
        }
    }

    /// Prints an error: what, what belongs to it, what to do next.
    pub(super) fn error(&self, error: &Error) {
        if self.json {
            self.error_json(error, Vec::new());
            return;
        }
        let mut text = format!("{} {}", self.messages.conflict.apply_to("error:"), error.message);
        for line in &error.details {
            text.push_str(&format!("\n  {}", line));
        }
        if let Some(hint) = &error.hint {
            text.push_str(&format!("\n{} {}", self.messages.head.apply_to("hint:"), hint));
        }
        self.say(&text);
    }

    /// Prints every mistake of configurations.
    pub(super) fn invalid(&self, invalid: &[crate::config::Invalid]) {
        if self.json {
            let error = Error::new(Kind::Invalid, "the configuration is not valid");
            self.error_json(&error, invalid.iter().flat_map(super::validate::mistakes).collect());
        } else {
            let texts: Vec<String> =
                invalid.iter().map(|invalid| invalid.render(self.coloured_messages)).collect();
            self.say(texts.join("\n").trim_end());
        }
    }

    fn error_json(&self, error: &Error, mistakes: Vec<super::validate::MistakeJson>) {
        let error = ErrorJson {
            exit_code: error.kind.exit_code(),
            message: &error.message,
            details: &error.details,
            hint: error.hint.as_ref(),
            mistakes,
        };
        let _ = self.json(&FailureJson { format: FORMAT, error });
    }

    /// Asks a question on the terminal; only `y` and `yes` are a yes.
    ///
    /// # Errors
    /// [`Kind::Declined`] when the answer is no, or when there is no terminal to ask on.
    pub(super) fn ask(&self, question: &str) -> Result<(), Error> {
        self.answer(question, None).map(|_| ())
    }

    /// The same, with `other` for a yes of another kind.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn choose(&self, question: &str, other: char) -> Result<Answer, Error> {
        self.answer(question, Some(other))
    }

    fn answer(&self, question: &str, other: Option<char>) -> Result<Answer, Error> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Error::new(Kind::Declined, "there is no terminal to ask on; nothing was changed")
                .with_hint("say --yes to go on without being asked"));
        }
        let mut stderr = io::stderr().lock();
        let choices = other.map_or_else(|| "[y/N]".to_owned(), |other| format!("[y/{other}/N]"));
        let asked = self.messages.head.apply_to(format!("{question} {choices}")).to_string();
        let _ = write!(stderr, "{} ", for_terminal(&asked, self.coloured_messages));
        let _ = stderr.flush();
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        let said = answer.trim().to_lowercase();
        if read.is_ok() && ["y", "yes"].contains(&said.as_str()) {
            return Ok(Answer::Yes);
        }
        if read.is_ok() && other.is_some_and(|other| said == other.to_string()) {
            return Ok(Answer::Other);
        }
        if !answer.ends_with('\n') {
            let _ = writeln!(stderr);
        }
        Err(Error::new(Kind::Declined, "declined; nothing was changed"))
    }
}

/// Prints help and version to standard output, and usage errors to standard error. A closed pipe is no reason to
/// fail.
pub(super) fn usage(error: &clap::Error) {
    let print = |stream: &mut dyn Write, styled: bool| {
        let text = if styled { error.render().ansi().to_string() } else { error.render().to_string() };
        let _ = stream.write_all(for_terminal(&text, styled).as_bytes());
    };
    if error.use_stderr() {
        print(&mut io::stderr().lock(), coloured(Color::Auto, io::stderr().is_terminal()));
    } else {
        print(&mut io::stdout().lock(), coloured(Color::Auto, io::stdout().is_terminal()));
    }
}

/// The columns of the terminal that standard output is; without one, no end of them.
fn width() -> usize {
    let size = console::Term::stdout().size_checked();
    size.filter(|_| io::stdout().is_terminal()).map_or(usize::MAX, |(_, columns)| columns.into())
}

/// Whether a stream is coloured: what was asked for, then NO_COLOR, then CLICOLOR_FORCE and FORCE_COLOR,
/// then whether it is a terminal. An empty variable counts as unset (no-color.org), `0` as off where a
/// variable forces.
fn coloured(color: Color, is_terminal: bool) -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_on = |name: &str| is_set(name) && env::var_os(name).is_some_and(|value| value != "0");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if is_set("NO_COLOR") => false,
        Color::Auto if is_on("CLICOLOR_FORCE") || is_on("FORCE_COLOR") => true,
        Color::Auto => is_terminal,
    }
}

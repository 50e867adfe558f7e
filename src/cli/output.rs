//! Prints results to standard output and messages to standard error. A closed pipe is not an error.

use std::{
    cell::{Cell, RefCell},
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
};

use clap::builder::StyledStr;
use console::{Style, Term};
use serde::Serialize;

use super::{
    VerbFailure, VerbResult,
    arguments::{Color, OutputForm},
    error_json::{ErrorDocument, ErrorJson},
    progress_line, terminal,
    transaction_json::TransactionJson,
};
#[cfg(target_os = "linux")]
use super::{pager, signals};
use crate::{
    diagnose::Diagnostic,
    error::{Error, Kind},
    progress::Task,
    render::{self, FindingEntry, Palette, Report, finding_text},
    text::{OsError, Untrusted, for_terminal, printable, wrap, write_json, write_json_rows},
};

/// The two output streams and their colors.
///
/// Text is printed at once. With `--json`, standard output is a single document: the result of the command, or the
/// one that [`Self::finish`] prints at its end.
pub(super) struct Output {
    /// The colors of standard output.
    pub palette: Palette,
    /// The colors and the width of standard error.
    messages: Palette,
    /// Whether results are colored.
    colored_results: bool,
    /// Whether messages are colored.
    pub colored_messages: bool,
    pages: bool,
    form: OutputForm,
    /// Whether the JSON document was printed.
    has_printed: Cell<bool>,
    /// The last error and its causes, for the JSON document.
    error: RefCell<Option<ErrorJson>>,
    /// The actions of a command that changes the node, for the JSON document.
    transaction: Option<RefCell<TransactionJson>>,
}

/// The answer to a question, unless it was no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    Other,
}

/// Prints to standard output. A closed pipe is not an error.
fn print(write: impl FnOnce(&mut BufWriter<StdoutLock<'_>>) -> io::Result<()>) -> Result<(), Error> {
    let print = || {
        let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        write(&mut stdout).and_then(|()| stdout.flush())
    };
    match progress_line::hidden(print) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::unexpected(format!("cannot write to standard output: {}", OsError(&error))))
        }
        _ => Ok(()),
    }
}

impl Output {
    /// Creates the streams for a result of this form. Long results are shown in a pager if `pages` is set.
    pub(super) fn new(color: Color, form: OutputForm, pages: bool) -> Self {
        let (results, messages) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let on_stdout = terminal::colored(color, results);
        let on_stderr = terminal::colored(color, messages);
        Self {
            palette: Palette::new(on_stdout).with_width(terminal::width(&Term::stdout(), results)),
            messages: Palette::new(on_stderr).with_width(terminal::width(&Term::stderr(), messages)),
            colored_results: on_stdout,
            colored_messages: on_stderr,
            pages,
            form,
            has_printed: Cell::new(false),
            error: RefCell::new(None),
            transaction: match form {
                OutputForm::Transaction(operation) => Some(RefCell::new(TransactionJson::new(operation))),
                OutputForm::Text | OutputForm::Json => None,
            },
        }
    }

    /// Records what a command that changes the node did, for the JSON document.
    pub(super) fn record(&self, note: impl FnOnce(&mut TransactionJson)) {
        if let Some(transaction) = &self.transaction {
            note(&mut transaction.borrow_mut());
        }
    }

    /// Shows the plan of a command that changes the node, as a document or as text; in a pager if the user is about to
    /// decide about it.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn plan(
        &self,
        report: impl FnOnce() -> Report,
        text: impl FnOnce(&Palette) -> String,
        is_read: bool,
    ) -> Result<(), Error> {
        if self.transaction.is_some() {
            let report = report();
            self.record(|transaction| transaction.planned = Some(report));
            return Ok(());
        }
        let text = text(&self.palette);
        if is_read { self.long(&text) } else { self.result(&text) }
    }

    /// Shows a plan as [`Self::plan`] does, for the user to read.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn plan_report(&self, report: &Report, is_read: bool) -> Result<(), Error> {
        self.plan(|| report.clone(), |palette| render::text(report, palette), is_read)
    }

    /// Writes a result that may be long; on a terminal, in a pager.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn long(&self, text: &str) -> Result<(), Error> {
        if self.form != OutputForm::Text {
            return self.result(text);
        }
        self.page(&wrap(text, self.palette.width))
    }

    /// Writes a result that may be long and is already wrapped.
    ///
    /// # Errors
    /// As [`Self::verbatim`].
    pub(super) fn page(&self, text: &str) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        if self.pages && pager::show(&for_terminal(text, self.colored_results)) {
            return Ok(());
        }
        self.verbatim(text)
    }

    /// Writes a result, wrapped at words on a terminal. With `--json`, where standard output is reserved for the
    /// document, writes it as a message.
    ///
    /// # Errors
    /// As [`Self::verbatim`].
    pub(super) fn result(&self, text: &str) -> Result<(), Error> {
        if self.form == OutputForm::Text {
            return self.verbatim(&wrap(text, self.palette.width));
        }
        self.say(text.trim_end());
        Ok(())
    }

    /// Writes a result without wrapping it, such as a script.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written; a closed pipe is not an error.
    pub(super) fn verbatim(&self, text: &str) -> Result<(), Error> {
        Self::write(&for_terminal(text, self.colored_results))
    }

    /// Writes escaped text to standard output.
    fn write(text: &str) -> Result<(), Error> {
        print(|stdout| stdout.write_all(text.as_bytes()))
    }

    /// Writes candidates for shell completion, separated by tabs and vertical tabs.
    ///
    /// # Errors
    /// As [`Self::verbatim`].
    pub(super) fn candidates(&self, text: &str) -> Result<(), Error> {
        const SEPARATORS: [char; 2] = ['\t', '\u{b}'];
        let mut escaped = String::with_capacity(text.len());
        for part in text.split_inclusive(SEPARATORS) {
            let candidate = part.trim_end_matches(SEPARATORS);
            escaped.push_str(&for_terminal(candidate, false));
            escaped.push_str(&part[candidate.len()..]);
        }
        Self::write(&escaped)
    }

    /// Writes a result as JSON, the only document of this command.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Error> {
        self.document(|stdout| write_json(stdout, value))
    }

    /// Prints a document of long lists, with one line for each element.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(super) fn json_rows(&self, value: &impl Serialize) -> Result<(), Error> {
        self.document(|stdout| write_json_rows(stdout, value))
    }

    fn document(
        &self,
        write: impl FnOnce(&mut BufWriter<StdoutLock<'_>>) -> serde_json::Result<()>,
    ) -> Result<(), Error> {
        debug_assert!(!self.has_printed.get(), "a second document");
        let _task = Task::begin("formatting");
        self.has_printed.set(true);
        print(|stdout| {
            // Its hidden characters are escaped.
            write(stdout)?;
            stdout.write_all(b"\n")
        })
    }

    /// Prints help.
    pub(super) fn help(&self, help: &StyledStr) {
        // A closed pipe is not an error.
        let _ = self.verbatim(&styled(help, self.colored_results));
    }

    /// Prints what is wrong with the command line.
    pub(super) fn usage_error(&self, message: &StyledStr) {
        self.say(styled(message, self.colored_messages).trim_end());
    }

    /// Writes a message, wrapped at words on a terminal.
    pub(super) fn say(&self, text: &str) {
        self.say_verbatim(&wrap(text, self.messages.width));
    }

    /// Writes a message without wrapping it, because it will be copied or is aligned in columns.
    pub(super) fn say_verbatim(&self, text: &str) {
        progress_line::hidden(|| {
            let _ = writeln!(io::stderr().lock(), "{}", for_terminal(text, self.colored_messages));
        });
    }

    /// The style of the progress line.
    pub(super) fn style_of_progress(&self) -> Style {
        self.messages.dim.clone()
    }

    /// Prints a finding.
    pub(super) fn diagnostic(&self, diagnostic: &Diagnostic) {
        let Diagnostic { message, remedy, .. } = diagnostic;
        let warning =
            remedy.as_ref().map_or_else(|| message.clone(), |remedy| format!("{message}; {remedy}"));
        self.record(|transaction| transaction.warnings.push(warning));
        let finding = FindingEntry::new(diagnostic.clone(), None);
        self.say(finding_text(&finding, &self.messages).trim_end());
    }

    /// Prints a warning.
    pub(super) fn warn(&self, text: &str) {
        self.record(|transaction| transaction.warnings.push(text.to_owned()));
        self.say(&format!("{} {}", self.messages.change.apply_to("warning:"), printable(text)));
    }

    /// Prints a warning with what to do about it.
    pub(super) fn warn_with_help(&self, text: &str, help: &str) {
        self.record(|transaction| transaction.warnings.push(format!("{text}; {help}")));
        let Palette { change, head, .. } = &self.messages;
        let (warning, label) = (change.apply_to("warning:"), head.apply_to("help:"));
        self.say(&format!("{warning} {}\n  {label} {}", printable(text), printable(help)));
    }

    /// Prints an item of the list that the previous message announced, and records it as a warning.
    pub(super) fn warn_of_item(&self, text: &str) {
        self.record(|transaction| transaction.warnings.push(text.to_owned()));
        self.say(&format!("  {}", printable(text)));
    }

    /// Warns that part of the live state could not be read.
    pub(super) fn incomplete(&self, what: &str, hint: Option<&Untrusted>) {
        let text = format!("{what} is incomplete");
        match hint {
            Some(hint) => self.warn_with_help(&text, &hint.to_string()),
            None => self.warn(&text),
        }
    }

    /// Reports success.
    pub(super) fn done(&self, text: &str) {
        self.say(&self.messages.add.apply_to(printable(text)).to_string());
    }

    /// Reports a failure, prints the JSON document, and returns the exit code.
    pub(super) fn finish(&self, verdict: VerbResult) -> u8 {
        let kind = verdict.as_ref().err().map(|failure| self.failure(failure));
        let error = self.error.take();
        let printed = match (&self.transaction, error) {
            (Some(transaction), error) => {
                let mut transaction = transaction.borrow_mut();
                match kind {
                    Some(kind) => transaction.fail(kind, error),
                    None => transaction.succeed(verdict.as_ref().copied().unwrap_or(0)),
                }
                self.json(&*transaction)
            }
            (None, Some(error)) => self.json(&ErrorDocument::new(error)),
            (None, None) => Ok(()),
        };
        if let Err(error) = printed {
            self.error_text(&error);
            return kind.unwrap_or(error.kind).exit_code();
        }
        kind.map_or_else(|| verdict.unwrap_or(0), Kind::exit_code)
    }

    /// Reports a failure unless it was already reported, and returns its kind.
    pub(super) fn failure(&self, failure: &VerbFailure) -> Kind {
        match failure {
            VerbFailure::Error(error) => {
                self.error(error);
                error.kind
            }
            VerbFailure::Invalid(invalid) => {
                self.invalid(invalid);
                Kind::Invalid
            }
            VerbFailure::AlreadyReported(kind) => *kind,
        }
    }

    /// Reports an error with its details and its hint. In the JSON document, errors that were reported before become
    /// its causes.
    pub(super) fn error(&self, error: &Error) {
        if self.form == OutputForm::Text || self.has_printed.get() {
            self.error_text(error);
        } else {
            self.keep(error.into());
            if !error.commands.is_empty() {
                self.record(|transaction| transaction.remaining_commands.clone_from(&error.commands));
            }
        }
    }

    fn keep(&self, error: ErrorJson) {
        let cause = self.error.take();
        self.error.replace(Some(error.because_of(cause)));
    }

    fn error_text(&self, error: &Error) {
        let head = error.code.as_ref().map_or_else(|| "error:".to_owned(), |code| format!("error[{code}]:"));
        let mut text = format!("{} {}", self.messages.conflict.apply_to(head), error.message);
        for line in error.lines() {
            text.push_str(&format!("\n  {line}"));
        }
        let mut text = wrap(&text, self.messages.width).into_owned();
        for command in &error.commands {
            text.push_str(&format!("\n    {command}"));
        }
        if let Some(hint) = &error.hint {
            let hint = format!("{} {}", self.messages.head.apply_to("help:"), hint);
            text.extend(["\n", &wrap(&hint, self.messages.width)]);
        }
        self.say_verbatim(&text);
    }

    /// Prints every error in these configurations.
    pub(super) fn invalid(&self, invalid: &[crate::config::InvalidConfig]) {
        if self.form == OutputForm::Text || self.has_printed.get() {
            let texts: Vec<String> =
                invalid.iter().map(|invalid| invalid.render(self.colored_messages)).collect();
            self.say_verbatim(texts.join("\n").trim_end());
        } else {
            self.keep(ErrorJson::invalid(invalid));
        }
    }

    #[cfg(target_os = "linux")]
    /// Asks a question on the terminal. Only `y` and `yes` count as yes.
    ///
    /// # Errors
    /// [`Kind::NotApplied`] if the answer is no, or if there is no terminal.
    pub(super) fn ask(&self, question: &str) -> Result<(), Error> {
        self.answer(question, None).map(|_| ())
    }

    #[cfg(target_os = "linux")]
    /// Asks a question that can also be answered with `other`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn choose(&self, question: &str, other: char) -> Result<Answer, Error> {
        self.answer(question, Some(other))
    }

    #[cfg(target_os = "linux")]
    fn answer(&self, question: &str, other: Option<char>) -> Result<Answer, Error> {
        if self.form != OutputForm::Text {
            return Err(Error::new(
                Kind::NotApplied,
                "cannot ask for approval with --json; nothing was changed",
            )
            .with_hint("pass --yes to proceed without asking"));
        }
        if !terminal::can_answer() {
            return Err(Error::new(
                Kind::NotApplied,
                "cannot ask for approval without a terminal; nothing was changed",
            )
            .with_hint("pass --yes to proceed without asking"));
        }
        let choices = other.map_or_else(|| "[y/N]".to_owned(), |other| format!("[y/{other}/N]"));
        let asked = self.messages.head.apply_to(format!("{question} {choices}")).to_string();
        let asked = wrap(&asked, self.messages.width);
        // From here on, a signal must not end the process.
        let interrupt = signals::interrupt()?;
        progress_line::hidden(|| {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{} ", for_terminal(&asked, self.colored_messages));
            let _ = stderr.flush();
        });
        let answer = terminal::read_line(&interrupt);
        // Whatever is printed next, even a shell prompt, must begin on a new line.
        if answer.as_ref().map_or(true, |answer| !answer.ends_with('\n')) {
            let _ = writeln!(io::stderr());
        }
        let said = answer?.trim().to_lowercase();
        if ["y", "yes"].contains(&said.as_str()) {
            return Ok(Answer::Yes);
        }
        if other.is_some_and(|other| said == other.to_string()) {
            return Ok(Answer::Other);
        }
        Err(Error::new(Kind::NotApplied, "declined; nothing was changed"))
    }
}

/// Renders a text of clap, with or without color.
fn styled(text: &StyledStr, colored: bool) -> String {
    if colored { text.ansi().to_string() } else { text.to_string() }
}

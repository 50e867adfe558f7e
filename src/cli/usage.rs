//! Help, version, and errors in a command line.

use std::{ffi::OsString, process::ExitCode};

use clap::{
    Parser,
    builder::{PossibleValue, StyledStr},
    error::{ContextKind, ContextValue},
};

use super::{
    arguments::{Arguments, Color, OutputForm},
    output::Output,
};
use crate::{
    error::{Error, Kind},
    text::printable,
};

/// Prints the response of clap to the command line `words`, whose first is the name of the program: help and version
/// to standard output; an error to standard error or, with `--json`, as a document to standard output.
///
/// Returns the exit code. The exit code 2 of clap has another meaning here.
pub(super) fn tell(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let escaped = about_escaped(words);
    let error = escaped.as_ref().unwrap_or(error);
    let flags = Flags::of(words);
    let output =
        Output::new(flags.color, if flags.json { OutputForm::Json } else { OutputForm::Text }, false);
    if !error.use_stderr() {
        output.help(&error.render());
        return ExitCode::SUCCESS;
    }
    if flags.json {
        return ExitCode::from(output.finish(Err(as_error(error).into())));
    }
    output.usage_error(&error.render());
    ExitCode::from(Kind::Usage.exit_code())
}

/// Returns the error with escaped words: clap repeats a wrong word with its line breaks, which could then forge
/// lines. It lacks the tip to pass an unknown option as a value.
fn about_escaped(words: &[OsString]) -> Option<clap::Error> {
    let escaped = words.iter().map(|word| printable(&word.to_string_lossy()));
    let mut error = Arguments::try_parse_from(escaped).err()?;
    let is_useful = |tip: &StyledStr| !tip.to_string().starts_with("to pass ");
    if let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) {
        tips.retain(is_useful);
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    Some(error)
}

/// The flags that determine the form of a usage error, as far as they can be parsed.
struct Flags {
    color: Color,
    json: bool,
}

impl Flags {
    fn of(words: &[OsString]) -> Self {
        let mut flags = Self { color: Color::Auto, json: false };
        let words: Vec<&str> = words.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).collect();
        let options = words.iter().take_while(|word| **word != "--");
        for (at, word) in options.enumerate() {
            let value = match word.strip_prefix("--color") {
                Some("") => words.get(at + 1).copied(),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            flags.color = value.and_then(Color::of).unwrap_or(flags.color);
            flags.json |= *word == "--json";
        }
        flags
    }
}

impl Color {
    fn of(word: &str) -> Option<Self> {
        let is = |color: &&Self| {
            clap::ValueEnum::to_possible_value(*color)
                .is_some_and(|value: PossibleValue| value.get_name() == word)
        };
        <Self as clap::ValueEnum>::value_variants().iter().find(is).copied()
    }
}

/// Returns the error for JSON: the first paragraph of clap is the message, the others are details.
fn as_error(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let mut paragraphs = text.trim().split("\n\n").map(str::trim);
    let message = paragraphs.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let details = paragraphs.filter(|paragraph| !paragraph.starts_with("For more information"));
    Error::new(Kind::Usage, message.split_whitespace().collect::<Vec<_>>().join(" "))
        .with_details(details.map(|detail| detail.split_whitespace().collect::<Vec<_>>().join(" ")))
        .with_hint("run the command with --help for usage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_a_wrong_command_line() {
        let flags = |line: &str| {
            let flags = Flags::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
            (flags.color, flags.json)
        };
        assert_eq!(flags("hostgw plan --wrong"), (Color::Auto, false));
        assert_eq!(flags("hostgw plan --wrong --json --color never"), (Color::Never, true));
        assert_eq!(flags("hostgw --color=always plan --wrong"), (Color::Always, false));
        assert_eq!(flags("hostgw --color=always plan --color never --wrong"), (Color::Never, false));
        assert_eq!(flags("hostgw plan --wrong -- --json --color never"), (Color::Auto, false));
        assert_eq!(flags("hostgw plan --color sometimes"), (Color::Auto, false));
    }
}

//! `hostgw help`

use clap::{CommandFactory, Parser};

use super::{
    VerbResult,
    arguments::{Arguments, HelpOptions},
    output::Output,
};
use crate::{
    diagnose::Rule,
    error::{Error, Kind},
    guide::{self, GUIDES, Guide},
    text::{nearest, printable},
};

/// Shows the help of a command, a guide, or the explanation of a rule.
pub(super) fn run(options: &HelpOptions, output: &Output) -> VerbResult {
    let Some(subject) = options.subject.as_deref() else { return of_command(None, output) };
    if let Some(guide) = Guide::find(subject) {
        output.page(&guide::text(guide, &output.palette))?;
        return Ok(0);
    }
    if commands().iter().any(|command| command == subject) {
        return of_command(Some(subject), output);
    }
    if let Some(rule) = Rule::find(subject) {
        output.page(&guide::explanation(rule, &output.palette))?;
        return Ok(0);
    }
    let known = subjects();
    let hint = nearest(subject, known.iter().map(String::as_str)).map_or_else(
        || "run `hostgw help` to list the commands and guides, or `hostgw help diagnostics` to list the codes".to_owned(),
        |nearest| format!("did you mean `hostgw help {nearest}`?"),
    );
    let message = format!("unknown command, guide or code: {}", printable(subject));
    Err(Error::new(Kind::Usage, message).with_hint(hint).into())
}

/// Shows what `--help` shows.
fn of_command(name: Option<&str>, output: &Output) -> VerbResult {
    let words = ["hostgw"].into_iter().chain(name).chain(["--help"]);
    if let Err(help) = Arguments::try_parse_from(words) {
        output.help(&help.render());
    }
    Ok(0)
}

/// Returns the names of the visible commands.
fn commands() -> Vec<String> {
    let command = Arguments::command();
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

/// Returns everything that `hostgw help` explains.
pub(super) fn subjects() -> Vec<String> {
    let guides = GUIDES.iter().map(|guide| guide.name.to_owned());
    let codes = Rule::ALL.iter().map(|rule| rule.code().to_owned());
    commands().into_iter().chain(guides).chain(codes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a command line with its placeholders filled in.
    fn completed(line: &str) -> String {
        let word = |word: &str| match word {
            "PROGRAM" => "nftables".to_owned(),
            "N" | "SEED" | "ID" => "4".to_owned(),
            "TIME" => "90s".to_owned(),
            "SHELL" => "bash".to_owned(),
            "FORMAT" => "sarif".to_owned(),
            _ => word.to_owned(),
        };
        let line = line.replace("schema NAME", "schema plan");
        line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    }

    /// Returns the text between backticks.
    fn spans(text: &str) -> Vec<String> {
        let outside = text.split("```").step_by(2).collect::<String>();
        let spans = outside.split('`').skip(1).step_by(2);
        spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn every_command_in_a_guide_is_one() {
        let readme = ("README", include_str!("../../README.md"));
        let guides = GUIDES.iter().map(|guide| (guide.name, guide.markdown));
        let mut found = 0;
        for (name, text) in guides.chain([readme]) {
            for span in
                spans(text).iter().filter(|span| span.starts_with("hostgw ") && !span.contains(['…', '|']))
            {
                found += 1;
                let parsed = Arguments::try_parse_from(completed(span).split(' '));
                let is_missing =
                    |error: &clap::Error| error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
                if let Err(error) = parsed.as_ref() {
                    assert!(
                        is_missing(error) && !span.contains(" -") || !error.use_stderr(),
                        "{name}: {span}\n{error}"
                    );
                }
            }
        }
        assert!(found > 50, "{found}");
    }

    #[test]
    fn every_option_in_a_guide_is_one() {
        /// Options of the scripts that `hostgw render` writes, of kube-router, kubectl and Ansible.
        const OF_OTHERS: [&str; 7] =
            ["--undo", "--enable-overlay", "--run-router", "--server-side", "--check", "--diff", "--limit"];
        let command = Arguments::definition();
        let verbs =
            command.get_subcommands().flat_map(clap::Command::get_arguments).chain(command.get_arguments());
        let known: Vec<String> =
            verbs.filter_map(|it| it.get_long()).map(|long| format!("--{long}")).collect();
        for guide in GUIDES {
            for span in spans(guide.markdown).iter().filter(|span| span.starts_with("--")) {
                let option = span.split([' ', '=']).next().unwrap_or_default();
                let is_known = known.iter().any(|it| it == option) || OF_OTHERS.contains(&option);
                assert!(is_known, "{}: {span}", guide.name);
            }
        }
    }

    #[test]
    fn no_guide_has_the_name_of_another_subject() {
        let both: Vec<String> = commands().into_iter().filter(|name| Guide::find(name).is_some()).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}

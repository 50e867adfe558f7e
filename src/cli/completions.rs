//! `hostgw completions`, and the candidates for shells that complete a command line.
//!
//! A completion script runs hostgw with the name of the shell in [`VARIABLE`], and the words after `--`.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, Command};
use clap_complete::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter,
    engine::ValueCompleter,
    env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh},
};

use super::{
    VerbResult,
    arguments::{Arguments, Color, CompletionsOptions, OutputForm, Shell},
    configuration,
    git::Git,
    help,
    output::Output,
};
use crate::{
    error::Error,
    model::{Node, OperatingSystem},
    text::OsError,
};

/// The environment variable with which a completion script asks for candidates.
const VARIABLE: &str = "HOSTGW_COMPLETE";

/// Prints the completion script of a shell.
pub(super) fn run(options: &CompletionsOptions, output: &Output) -> VerbResult {
    let mut script = Vec::new();
    options
        .shell
        .completer()
        .write_registration(VARIABLE, "hostgw", "hostgw", "hostgw", &mut script)
        .map_err(|error| Error::unexpected(format!("cannot write the script: {}", OsError(&error))))?;
    let script = String::from_utf8_lossy(&script);
    output.verbatim(&format!("{}\n", script.trim()))?;
    Ok(0)
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Elvish => &Elvish,
            Self::Fish => &Fish,
            Self::Powershell => &Powershell,
            Self::Zsh => &Zsh,
        }
    }
}

/// Prints candidates for the command line `words` if a shell asks for them. Returns `None` if no shell asks.
pub(super) fn answer(words: &[OsString]) -> Option<ExitCode> {
    let name = env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
    let shells: [&dyn EnvCompleter; 5] = [&Bash, &Elvish, &Fish, &Powershell, &Zsh];
    let start = words.iter().position(|word| word == "--")?;
    let line: Vec<OsString> = words.get(start + 1..)?.to_vec();
    let output = Output::new(Color::Never, OutputForm::Text, false);
    let Some(shell) = shells.into_iter().find(|shell| shell.is(&name)) else {
        return Some(ExitCode::FAILURE);
    };
    if line.is_empty() {
        return Some(ExitCode::FAILURE);
    }
    let mut command = command(file_of(&line));
    let mut candidates = Vec::new();
    let folder = env::current_dir().ok();
    // A line that cannot be completed has no candidates, which is not an error.
    let _ = if shell.is("bash") {
        in_bash(&mut command, line, folder.as_deref(), &mut candidates)
    } else {
        shell.write_complete(&mut command, line, folder.as_deref(), &mut candidates)
    };
    let code = output
        .finish(output.candidates(&String::from_utf8_lossy(&candidates)).map(|()| 0).map_err(Into::into));
    Some(ExitCode::from(code))
}

/// Completes a line for bash, which splits words at `=`: it passes `--node=l` as three words, and replaces only the
/// last one.
fn in_bash(
    command: &mut Command,
    mut line: Vec<OsString>,
    folder: Option<&Path>,
    candidates: &mut Vec<u8>,
) -> io::Result<()> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let mut index: usize = variable("_CLAP_COMPLETE_INDEX").parse().unwrap_or(line.len().saturating_sub(1));
    let is_sign = |line: &[OsString], at: usize| {
        let before = at.checked_sub(1).and_then(|at| line.get(at)).and_then(|word| word.to_str());
        line.get(at).is_some_and(|word| word == "=") && before.is_some_and(|word| word.starts_with("--"))
    };
    while let Some(at) = (1..index).find(|at| is_sign(&line, *at)) {
        line.remove(at);
        index -= 1;
    }
    let found = clap_complete::engine::complete(command, line, index, folder)?;
    let values: Vec<_> = found.iter().map(|candidate| candidate.get_value().to_string_lossy()).collect();
    candidates.write_all(values.join(variable("_CLAP_IFS").as_str()).as_bytes())
}

/// Returns the configuration that the command line names.
fn file_of(line: &[OsString]) -> Option<PathBuf> {
    let mut words = line.iter().filter_map(|word| word.to_str());
    let mut found = None;
    while let Some(word) = words.next() {
        if word == "-f" || word == "--file" {
            found = words.next();
        } else if let Some(file) = word.strip_prefix("--file=") {
            found = Some(file);
        } else if let (Some(file), false) = (word.strip_prefix("-f"), word.starts_with("--")) {
            found = Some(file);
        }
    }
    found.filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// Returns the command line definition with a completer for each argument. `file` is the configuration that the
/// command line names.
fn command(file: Option<PathBuf>) -> Command {
    let mut command = Arguments::definition();
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for verb in verbs {
        command =
            command.mut_subcommand(verb, |verb| verb.mut_args(|argument| complete(argument, file.clone())));
    }
    command
}

/// Returns the completer for an argument, by the name of its value in the usage.
fn complete(argument: Arg, file: Option<PathBuf>) -> Arg {
    let id = argument.get_id().as_str().to_owned();
    let value = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match (id.as_str(), value) {
        ("node" | "nodes", _) => argument.add(ArgValueCandidates::new(move || nodes(file.as_deref()))),
        ("old" | "new", _) => {
            let named = move |current: &OsStr| files_and_revisions(current, file.as_deref());
            argument.add(ArgValueCompleter::new(named))
        }
        ("subject", "TOPIC") => argument.add(ArgValueCandidates::new(subjects)),
        (_, "FILE" | "PLAN" | "CONFIG") => {
            argument.add(ArgValueCompleter::new(|current: &OsStr| files(current)))
        }
        (_, "DIR") => argument.add(ArgValueCompleter::new(|current: &OsStr| {
            typed_as_is(PathCompleter::dir().complete(current))
        })),
        _ => argument,
    }
}

/// Returns the candidates that every shell reads as one word without quoting: bash and PowerShell would insert others
/// unquoted, and could run commands in them.
fn typed_as_is(candidates: Vec<CompletionCandidate>) -> Vec<CompletionCandidate> {
    let is_plain = |c: char| c.is_alphanumeric() || "/\\._-+,:@%~".contains(c);
    let fits = |candidate: &CompletionCandidate| {
        let value = candidate.get_value().to_str();
        value.is_some_and(|value| value.chars().all(is_plain) && !value.starts_with('-'))
    };
    candidates.into_iter().filter(fits).collect()
}

fn files(current: &OsStr) -> Vec<CompletionCandidate> {
    typed_as_is(PathCompleter::file().complete(current))
}

/// Returns the nodes of the configuration.
fn nodes(file: Option<&Path>) -> Vec<CompletionCandidate> {
    // Standard input belongs to the shell.
    if file.is_some_and(|file| file.as_os_str() == "-") {
        return Vec::new();
    }
    let Ok(loaded) = configuration::load(file) else { return Vec::new() };
    let candidate = |node: &Node| {
        let os = match node.os {
            OperatingSystem::Linux => "Linux node",
            OperatingSystem::Windows => "Windows node",
        };
        CompletionCandidate::new(node.name.as_raw()).help(Some(os.into()))
    };
    typed_as_is(loaded.cluster.nodes.iter().map(candidate).collect())
}

/// Returns files, and the revisions of the repository that the configuration is in. With a configuration on the
/// command line, `hostgw diff` accepts only revisions.
fn files_and_revisions(current: &OsStr, file: Option<&Path>) -> Vec<CompletionCandidate> {
    let mut candidates = if file.is_some() { Vec::new() } else { files(current) };
    let Some(current) = current.to_str() else { return candidates };
    let folder = file.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    // In `OLD..NEW` and `OLD...NEW`, complete the last revision.
    let start = current.rfind("..").map_or(0, |at| at + "..".len());
    let (range, begun) = current.split_at(start);
    let revisions = revisions(folder.unwrap_or(Path::new(".")));
    let revisions = revisions.iter().filter(|revision| revision.starts_with(begun));
    candidates.extend(typed_as_is(
        revisions.map(|revision| CompletionCandidate::new(format!("{range}{revision}"))).collect(),
    ));
    candidates
}

/// Returns the names of branches and tags, newest first.
fn revisions(folder: &Path) -> Vec<String> {
    const LISTED: [&str; 4] =
        ["--count=1000", "--sort=-creatordate", "--format=%(refname:short)", "refs/heads"];
    let git = Git::new(folder).within(Duration::from_secs(2));
    let Ok(names) = git.ask(["for-each-ref"].iter().chain(&LISTED).chain(&["refs/tags", "refs/remotes"]))
    else {
        return Vec::new();
    };
    let names = String::from_utf8_lossy(&names);
    ["HEAD"].into_iter().chain(names.lines()).map(ToOwned::to_owned).collect()
}

/// Returns everything that `hostgw help` explains.
fn subjects() -> Vec<CompletionCandidate> {
    help::subjects().into_iter().map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(line: &str) -> Option<PathBuf> {
        file_of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_configuration_of_the_command_line_is_found() {
        assert_eq!(file("hostgw plan --node"), None);
        assert_eq!(file("hostgw plan -f a.yaml --node"), Some("a.yaml".into()));
        assert_eq!(file("hostgw plan -fa.yaml"), Some("a.yaml".into()));
        assert_eq!(file("hostgw plan --file=a.yaml --node l"), Some("a.yaml".into()));
        assert_eq!(file("hostgw plan --file a.yaml -f b.yaml"), Some("b.yaml".into()));
        assert_eq!(file("hostgw diff --full -f"), None);
    }

    #[test]
    fn nothing_is_offered_that_a_shell_would_run() {
        let named = [
            "a.yaml",
            "a b",
            "$(id)",
            "`id`",
            "a;b",
            "-y",
            "ä/ü.yaml",
            "main..HEAD",
            "a'b",
            "a\nb",
            "a\u{202e}b",
        ];
        let offered = typed_as_is(named.map(CompletionCandidate::from).into());
        let values: Vec<&str> =
            offered.iter().filter_map(|candidate| candidate.get_value().to_str()).collect();
        assert_eq!(values, ["a.yaml", "ä/ü.yaml", "main..HEAD"]);
    }

    /// Every argument that names a file, a directory, a node or a revision has a completer.
    #[test]
    fn every_argument_is_completed() {
        let command = command(None);
        for verb in command.get_subcommands() {
            for argument in verb.get_arguments() {
                let names = argument.get_value_names().unwrap_or_default();
                let is_name = names.iter().any(|name| {
                    ["FILE", "PLAN", "CONFIG", "DIR", "NAMES", "OLD", "NEW"].contains(&name.as_str())
                });
                let has_values = argument.get::<ArgValueCompleter>().is_some()
                    || argument.get::<ArgValueCandidates>().is_some()
                    || !argument.get_possible_values().is_empty();
                assert!(!is_name || has_values, "{} {}", verb.get_name(), argument.get_id());
            }
        }
    }
}

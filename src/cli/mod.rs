//! The command line, with one file for each command. Only this module prints, prompts and chooses exit codes.

#[cfg(target_os = "linux")]
mod agent;
#[cfg(target_os = "linux")]
mod agent_log;
#[cfg(target_os = "linux")]
mod agent_metrics;
#[cfg(target_os = "linux")]
mod agent_metrics_file;
#[cfg(target_os = "linux")]
mod agent_server;
#[cfg(target_os = "linux")]
mod agent_status;
#[cfg(target_os = "linux")]
mod apply;
mod arguments;
mod audit;
#[cfg(target_os = "linux")]
mod boot_files;
#[cfg(target_os = "linux")]
mod cancel;
mod check_cni;
#[cfg(target_os = "linux")]
mod command_line;
mod completions;
mod configuration;
#[cfg(target_os = "linux")]
mod confirm;
#[cfg(target_os = "linux")]
mod destroy;
mod diff;
mod doctor;
mod doctor_files;
#[cfg(target_os = "linux")]
mod doctor_managers;
mod environment;
mod error_json;
mod explain;
mod fleet_plan;
mod git;
mod help;
#[cfg(target_os = "linux")]
mod history;
mod import;
#[cfg(target_os = "linux")]
mod import_live;
#[cfg(target_os = "linux")]
mod invoker;
mod man;
mod output;
#[cfg(target_os = "linux")]
mod pager;
mod plan;
mod plan_shape;
mod program;
mod progress_line;
#[cfg(target_os = "linux")]
mod rehearse;
mod render;
#[cfg(target_os = "linux")]
mod reporter;
mod revision;
#[cfg(target_os = "linux")]
mod rollback;
mod saved_plan;
mod schema;
mod session_report;
mod show;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod simulate;
#[cfg(target_os = "linux")]
mod snapshot;
mod snapshot_files;
#[cfg(target_os = "linux")]
mod ssh;
#[cfg(target_os = "linux")]
mod status;
#[cfg(target_os = "linux")]
mod supervise;
mod terminal;
mod transaction_json;
mod transaction_meta;
mod usage;
mod validate;
mod windows;
#[cfg(target_os = "linux")]
mod write;
#[cfg(not(target_os = "linux"))]
#[path = "write_elsewhere.rs"]
mod write;

use std::{ffi::OsString, fmt::Display, path::Path, process::ExitCode};

use clap::Parser;

use crate::{
    config,
    error::{Error, Kind},
    text,
};
use arguments::{Arguments, Verb};
use output::Output;

/// The failure of a command.
#[derive(Debug)]
enum VerbFailure {
    /// An error with its message.
    Error(Error),
    /// Invalid configurations, with every error in them.
    Invalid(Vec<config::InvalidConfig>),
    /// The error has already been reported.
    AlreadyReported(Kind),
}

impl From<Error> for VerbFailure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<config::InvalidConfig> for VerbFailure {
    fn from(invalid: config::InvalidConfig) -> Self {
        Self::Invalid(vec![invalid])
    }
}

/// The exit code of a command that succeeded: 0, or 2 for changes with `--detailed-exitcode`. Otherwise, its failure.
type VerbResult = Result<u8, VerbFailure>;

/// The exit code of a command that changed something.
const fn changed(detailed_exitcode: bool) -> u8 {
    if detailed_exitcode { 2 } else { 0 }
}

/// Runs the command line `arguments`. The first one is the name of the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = arguments.into_iter().collect();
    if let Some(code) = completions::answer(&words) {
        return code;
    }
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return usage::tell(&error, &words),
    };
    let output = Output::new(arguments.color, arguments.verb.form(), !arguments.no_pager);
    #[cfg(target_os = "linux")]
    if let Err(error) = crate::kernel::check_sysctl_directory() {
        return ExitCode::from(output.finish(Err(error.into())));
    }
    // Simulate starts it later: a process with several threads cannot enter a user namespace.
    if !matches!(arguments.verb, Verb::Simulate(_)) {
        progress_line::start(output.style_of_progress());
    }
    let verdict = match &arguments.verb {
        Verb::Plan(options) => plan::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Apply(options) => apply::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Destroy(options) => destroy::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Confirm(options) => confirm::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Cancel(options) => cancel::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Rollback(options) => rollback::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Agent(options) => agent::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Status(options) => status::run(options, &output),
        Verb::Show(options) => show::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Snapshot => snapshot::run(&output),
        Verb::Render(options) => render::run(options, &output),
        Verb::Diff(options) => diff::run(options, &output),
        Verb::CheckCni(options) => check_cni::run(options, &output),
        Verb::Doctor(options) => doctor::run(options, &output),
        Verb::Audit(options) => audit::run(options, &output),
        Verb::Explain(options) => explain::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Import(options) if options.live => import_live::run(options, &output),
        #[cfg(not(target_os = "linux"))]
        Verb::Import(options) if options.live => Err(only_on_linux("hostgw import --live").into()),
        Verb::Import(options) => import::run(options, &output),
        Verb::Validate(options) => validate::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Simulate(options) => simulate::run(options, &output),
        #[cfg(target_os = "linux")]
        Verb::Rehearse(options) => rehearse::run(options, &output),
        Verb::Schema(options) => schema::run(options, &output),
        Verb::Completions(options) => completions::run(options, &output),
        Verb::Man(options) => man::run(options, &output),
        Verb::Help(options) => help::run(options, &output),
        Verb::Version => output
            .verbatim(&format!("hostgw {}\n", arguments::VERSION))
            .map(|()| 0)
            .map_err(VerbFailure::from),
        #[cfg(not(target_os = "linux"))]
        verb => Err(only_on_linux(verb.name()).into()),
        #[cfg(target_os = "linux")]
        Verb::Supervise => supervise::run(),
    };
    ExitCode::from(output.finish(verdict))
}

/// Returns the error that something works only on Linux.
#[cfg(not(target_os = "linux"))]
fn only_on_linux(what: &str) -> Error {
    Error::new(Kind::Usage, format!("{what} works only on Linux")).with_hint(
        "on this machine, hostgw can validate, compare and render configurations, and plan from a snapshot: \
         `hostgw plan --state FILE`",
    )
}

/// The error of a file or directory that cannot be written.
fn cannot_write(path: &Path, why: &dyn Display) -> Error {
    Error::unexpected(format!("cannot write {}: {why}", text::path(path)))
        .with_hint("check that its directory exists, and that you may write to it")
}

//! The command line: one file a verb. Only here is anything printed, asked, or an exit code picked.

mod apply;
mod arguments;
mod check_cni;
mod confirm;
mod diff;
mod environment;
mod error_json;
mod git;
mod history;
mod invoker;
mod occasion;
mod output;
mod pager;
mod pending;
mod persisted;
mod plan;
mod program;
mod render;
mod revision;
mod rollback;
mod saved_plan;
mod schema;
mod session;
mod show;
mod signals;
mod simulate;
mod snapshot;
mod ssh;
mod status;
mod supervisor;
mod terminal;
mod transaction;
mod transaction_json;
mod usage;
mod validate;
mod windows;
mod write;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use crate::{
    config,
    error::{Error, Kind},
};
use arguments::{Arguments, Verb};
use output::Output;

/// What a verb ends with when it does not succeed.
#[derive(Debug)]
enum Failure {
    /// An error with its message.
    Error(Error),
    /// Configurations that are not valid, each with every mistake in it.
    Invalid(Vec<config::Invalid>),
    /// Everything has been said.
    Said(Kind),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<config::Invalid> for Failure {
    fn from(invalid: config::Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}

/// The exit code of a verb that did not fail: 0, or 2 for pending changes with `--detailed-exitcode`.
type Verdict = Result<u8, Failure>;

/// Runs the command line `arguments`, whose first is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return usage::tell(&error, &words),
    };
    let output = Output::new(arguments.color, arguments.verb.form(), !arguments.no_pager);
    let verdict = match &arguments.verb {
        Verb::Plan(options) => plan::run(options, &output),
        Verb::Apply(options) => apply::run(options, &output),
        Verb::Destroy(options) => apply::destroy(options, &output),
        Verb::Confirm(options) => confirm::confirm(options, &output),
        Verb::Cancel(options) => confirm::cancel(options, &output),
        Verb::Rollback(options) => rollback::run(options, &output),
        Verb::Status(options) => status::run(options, &output),
        Verb::Show(options) => show::run(options, &output),
        Verb::Snapshot => snapshot::run(&output),
        Verb::Render(options) => render::run(options, &output),
        Verb::Diff(options) => diff::run(options, &output),
        Verb::CheckCni(options) => check_cni::run(options, &output),
        Verb::Validate(options) => validate::run(options, &output),
        Verb::Simulate(options) => simulate::run(options, &output),
        Verb::Schema(options) => schema::run(options, &output),
        Verb::Supervise => supervisor::run(),
    };
    ExitCode::from(output.finish(verdict))
}

//! `hostgw schema`

use super::{
    VerbResult,
    arguments::{SchemaOptions, Subject},
    check_cni::CniJson,
    doctor::DoctorJson,
    error_json::ErrorDocument,
    explain::ExplainJson,
    import::ImportJson,
    output::Output,
    saved_plan::SavedPlan,
    transaction_json::TransactionJson,
    validate::ValidateJson,
};
#[cfg(target_os = "linux")]
use super::{history::History, rehearse::RehearsalJson, simulate::SimulationJson, status::Status};
use crate::{
    audit::AuditReport,
    config,
    plan::windows::WindowsObserved,
    record::Snapshot,
    render::{ComparisonReport, FleetReport, Report, schema_text},
};

/// Prints a JSON Schema.
pub(super) fn run(options: &SchemaOptions, output: &Output) -> VerbResult {
    output.verbatim(&(text(options.subject) + "\n"))?;
    Ok(0)
}

/// Returns the contents of `schemas/NAME.schema.json`, without the final newline.
fn text(subject: Subject) -> String {
    match subject {
        Subject::Config => config::schema_text(),
        Subject::Plan => schema_text::<Report>(),
        Subject::FleetPlan => schema_text::<FleetReport>(),
        Subject::SavedPlan => schema_text::<SavedPlan>(),
        Subject::Transaction => schema_text::<TransactionJson>(),
        #[cfg(target_os = "linux")]
        Subject::Status => schema_text::<Status>(),
        #[cfg(target_os = "linux")]
        Subject::History => schema_text::<History>(),
        Subject::Snapshot => schema_text::<Snapshot>(),
        Subject::WindowsSnapshot => schema_text::<WindowsObserved>(),
        Subject::Diff => schema_text::<ComparisonReport>(),
        Subject::CheckCni => schema_text::<CniJson>(),
        Subject::Explain => schema_text::<ExplainJson>(),
        Subject::Doctor => schema_text::<DoctorJson>(),
        Subject::Audit => schema_text::<AuditReport>(),
        Subject::Import => schema_text::<ImportJson>(),
        Subject::Validate => schema_text::<ValidateJson>(),
        #[cfg(target_os = "linux")]
        Subject::Simulate => schema_text::<SimulationJson>(),
        #[cfg(target_os = "linux")]
        Subject::Rehearse => schema_text::<RehearsalJson>(),
        Subject::Error => schema_text::<ErrorDocument>(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::ValueEnum;

    use super::{super::arguments::Arguments, *};

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");

    fn name(subject: Subject) -> String {
        subject.to_possible_value().expect("no value is skipped").get_name().to_owned()
    }

    #[test]
    fn the_schemas_in_the_repository_are_current() {
        for subject in Subject::value_variants() {
            let (name, current) = (name(*subject), text(*subject) + "\n");
            let path = format!("{FOLDER}/{name}.schema.json");
            if std::env::var_os("HOSTGW_BLESS").is_some() {
                fs::write(&path, &current).expect("the folder schemas can be written");
            }
            let stored = fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == current, "{path} differs from the types: hostgw schema {name} >{path}");
        }
    }

    #[test]
    fn every_schema_in_the_repository_can_be_printed() {
        let mut stored: Vec<String> = fs::read_dir(FOLDER)
            .expect("the folder schemas")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        stored.sort();
        let mut known: Vec<String> =
            Subject::value_variants().iter().map(|subject| name(*subject) + ".schema.json").collect();
        known.sort();
        assert_eq!(stored, known);
    }

    /// `hostgw schema COMMAND` works for every command that prints JSON.
    #[test]
    fn every_verb_that_prints_json_has_a_schema() {
        let command = Arguments::definition();
        let prints_json = |verb: &&clap::Command| {
            verb.get_name() == "snapshot" || verb.get_arguments().any(|it| it.get_long() == Some("json"))
        };
        let verbs: Vec<&str> =
            command.get_subcommands().filter(prints_json).map(clap::Command::get_name).collect();
        assert!(verbs.len() >= 11, "{verbs:?}");
        for verb in verbs {
            assert!(Subject::from_str(verb, false).is_ok(), "hostgw schema {verb} answers nothing");
        }
    }
}

//! `hostgw import`

use std::{
    fs,
    io::{IsTerminal, stdin},
    path::Path,
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbFailure, VerbResult,
    arguments::{ImportArguments, NextHopArgument},
    changed, configuration,
    output::Output,
    write,
};
use crate::{
    config::{Format, Loaded},
    diagnose::Diagnostic,
    error::{Error, Kind},
    import::{
        self, ImportOptions, LeftoverKind, NodeChange, NodeChangeKind, NodeList, UpdateOptions, Updated,
    },
    input::{self, AnyInput, InputError},
    model::NextHopMode,
    progress::Task,
    render::{FindingEntry, Palette},
    text::{self, OsError, ShellCommand, Untrusted, count, printable},
};

#[cfg(target_os = "linux")]
use crate::import::{Leftover, LiveImport};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `hostgw import --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw import")]
pub(super) struct ImportJson {
    /// The version of this format.
    format: u32,
    /// The number of nodes in the configuration.
    nodes: usize,
    /// The new configuration; absent with `--update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
    /// The changes of `--update`; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<UpdateJson>,
    /// The objects that hostgw does not adopt, in the order in which to remove them. Present only with `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    leftovers: Option<Vec<LeftoverJson>>,
    /// The warnings.
    findings: Vec<FindingEntry>,
}

/// A step of the removal of the objects that hostgw does not adopt.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct LeftoverJson {
    /// The kind of step.
    kind: LeftoverKind,
    /// The program that created the object; absent if it was created by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'static str>,
    /// The command. It is commented out if it needs your decision.
    command: String,
}

impl ImportJson {
    /// The result of `--live`.
    #[cfg(target_os = "linux")]
    pub(super) fn live(imported: &LiveImport, findings: &[Diagnostic]) -> Self {
        let leftover = |step: &Leftover| LeftoverJson {
            kind: step.kind,
            program: step.plugin,
            command: step.command.to_string(),
        };
        Self {
            format: FORMAT,
            nodes: imported.nodes,
            configuration: Some(imported.text.clone()),
            update: None,
            leftovers: Some(imported.leftovers.iter().map(leftover).collect()),
            findings: findings.iter().cloned().map(|found| FindingEntry::new(found, None)).collect(),
        }
    }
}

/// An update of a configuration.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct UpdateJson {
    /// The file, as named on the command line.
    file: Untrusted,
    /// Whether the file was written: there are changes, and `--dry-run` was not given.
    written: bool,
    /// The nodes that change, in natural order.
    changes: Vec<NodeChange>,
}

/// Prints a configuration with the nodes of a list, or updates one.
pub(super) fn run(options: &ImportArguments, output: &Output) -> VerbResult {
    // An invalid configuration is reported before the list is waited for.
    let loaded = options.update.as_deref().map(loaded).transpose()?;
    let (name, list) = read_list(options.list.as_deref(), options.update.as_deref(), output)?;
    let task = Task::begin("importing nodes");
    let result = match (&loaded, options.update.as_deref()) {
        (Some(loaded), Some(file)) => {
            let settings = UpdateOptions {
                all: options.all,
                strict: options.strict,
                keep_missing: options.keep_missing,
                egress_interface: options.egress_interface.clone(),
            };
            let updated =
                import::update(loaded, list, &settings).map_err(|errors| failed(output, &name, errors))?;
            drop(task);
            return update(options, loaded, file, updated, output);
        }
        _ => import::import(list, &new_configuration(options)),
    };
    drop(task);
    let imported = result.map_err(|errors| failed(output, &name, errors))?;
    if options.json {
        output.json(&ImportJson {
            format: FORMAT,
            nodes: imported.nodes,
            configuration: Some(imported.text),
            update: None,
            leftovers: None,
            findings: imported.findings.iter().cloned().map(|found| FindingEntry::new(found, None)).collect(),
        })?;
    } else {
        output.verbatim(&imported.text)?;
        imported.findings.iter().for_each(|finding| output.diagnostic(finding));
    }
    Ok(0)
}

fn new_configuration(options: &ImportArguments) -> ImportOptions {
    ImportOptions {
        format: if options.toml { Format::Toml } else { Format::Yaml },
        cluster_prefixes: options.cluster_prefixes.clone(),
        egress_interface: options.egress_interface.clone(),
        next_hop: options.next_hop.map(|next_hop| match next_hop {
            NextHopArgument::PodGateway => NextHopMode::PodGateway,
            NextHopArgument::NodeAddress => NextHopMode::NodeAddress,
        }),
        all: options.all,
        strict: options.strict,
    }
}

/// Reads the configuration to update.
fn loaded(file: &Path) -> Result<Loaded, VerbFailure> {
    if file.as_os_str() == "-" {
        return Err(Error::new(Kind::Usage, "--update needs a file, not standard input")
            .with_hint("save the configuration to a file, and pass its path to --update")
            .into());
    }
    if !file.exists() {
        let error = Error::new(Kind::Invalid, format!("no such file: {}", text::path(file)))
            .with_hint("create it with `hostgw import` first, without --update");
        return Err(error.into());
    }
    configuration::load(Some(file))
}

/// Reads the list of nodes. Returns its name, too.
fn read_list(
    file: Option<&Path>,
    update: Option<&Path>,
    output: &Output,
) -> Result<(String, NodeList), VerbFailure> {
    if file.is_none() && stdin().is_terminal() {
        let mut command = vec!["hostgw", "import"];
        let name = update.map(|update| update.to_string_lossy());
        command.extend(name.iter().flat_map(|name| ["--update", &**name]));
        let command = ShellCommand::new(command);
        return Err(Error::new(Kind::Usage, "no list of nodes given")
            .with_hint(format!("run `kubectl get nodes -o json | {command}`, or pass a file"))
            .into());
    }
    let refused = |error: &InputError| {
        let hint = match error.is_too_large() {
            true => Some(
                "save it as JSON: `kubectl get nodes -o json`, of which hostgw reads up to 1 GiB".to_owned(),
            ),
            false => error.hint(),
        };
        VerbFailure::from(Error::new(Kind::Invalid, error.to_string()).with_hint_if(hint))
    };
    let (name, input) = match file.filter(|file| file.as_os_str() != "-") {
        Some(file) => (text::path(file).to_string(), input::read_of_any_size(file)),
        None => ("standard input".to_owned(), input::read_standard_input_of_any_size()),
    };
    let _task = Task::begin("importing nodes");
    let list = match input.map_err(|error| refused(&error))? {
        AnyInput::Whole(bytes) => NodeList::read(&configuration::text_in(&name, bytes)?),
        AnyInput::Large(input) if import::is_json(input.start()) => NodeList::read_json(input),
        AnyInput::Large(input) => return Err(refused(&input.refused())),
    };
    let list = list.map_err(|error| failed(output, &name, vec![error]))?;
    Ok((name, list))
}

/// Reports every error of a list.
pub(super) fn failed(output: &Output, name: &str, errors: Vec<Diagnostic>) -> VerbFailure {
    /// The maximum number of errors to list: one is often followed by the same error about every other node.
    const SHOWN: usize = 20;
    let number = errors.len();
    for error in errors.into_iter().take(SHOWN) {
        output.error(
            &Error::new(Kind::Invalid, error.message)
                .with_code(error.rule.number())
                .with_hint_if(error.remedy),
        );
    }
    let more = number.checked_sub(SHOWN).filter(|more| *more > 0);
    output.error(
        &Error::new(Kind::Invalid, format!("cannot import {}: {}", printable(name), count(number, "error")))
            .with_details(more.map(|more| format!("{} not shown", count(more, "error")))),
    );
    VerbFailure::AlreadyReported(Kind::Invalid)
}

/// Writes an updated configuration, and reports what changed.
fn update(
    options: &ImportArguments,
    loaded: &Loaded,
    file: &Path,
    updated: Updated,
    output: &Output,
) -> VerbResult {
    let is_removed = |change: &&NodeChange| change.action == NodeChangeKind::Remove;
    let removed = updated.changes.iter().filter(is_removed).count();
    if !options.json {
        updated.findings.iter().for_each(|finding| output.diagnostic(finding));
        output.result(
            &updated.changes.iter().map(|change| line(change, &output.palette)).collect::<String>(),
        )?;
    }
    let is_written = !updated.changes.is_empty() && !options.dry_run;
    if is_written {
        check_removals(removed, &updated, options.allow_removals)?;
        write_text(loaded, file, &updated.text)?;
    } else if let (Err(error), false) =
        (check_removals(removed, &updated, options.allow_removals), options.json)
    {
        output.warn(&format!("without --dry-run, the update is refused: {}", error.message));
    }
    if options.json {
        output.json(&ImportJson {
            format: FORMAT,
            nodes: updated.nodes,
            configuration: None,
            update: Some(UpdateJson {
                file: text::path(file),
                written: is_written,
                changes: updated.changes.clone(),
            }),
            leftovers: None,
            findings: updated.findings.iter().cloned().map(|found| FindingEntry::new(found, None)).collect(),
        })?;
    } else {
        output.result(&format!("{}\n", summary(&updated, file, options.dry_run)))?;
    }
    Ok(if updated.changes.is_empty() { 0 } else { changed(options.detailed_exitcode) })
}

/// A list that was cut off, or that a selector limited, must not remove most of the cluster.
fn check_removals(removed: usize, updated: &Updated, allowed: Option<usize>) -> Result<(), Error> {
    let is_mass = removed > 1 && 2 * removed > updated.removable;
    if !is_mass && allowed.is_none() || allowed == Some(removed) {
        return Ok(());
    }
    let whose = if updated.removable < updated.nodes_before { " with pod CIDRs" } else { "" };
    let what = format!("the update removes {removed} of {}{whose}", count(updated.removable, "node"));
    let message = match allowed {
        Some(allowed) => format!("{what}, but --allow-removals is {allowed}; nothing was changed"),
        None => format!("{what}; nothing was changed"),
    };
    Err(Error::new(Kind::NotApplied, message).with_hint(format!(
        "if the list is complete, pass --allow-removals {removed}; otherwise, pass --keep-missing to keep these nodes"
    )))
}

/// Writes a configuration in place of the one that was read.
fn write_text(loaded: &Loaded, file: &Path, text: &str) -> Result<(), Error> {
    let cannot = |why: &dyn std::fmt::Display| {
        Error::unexpected(format!("cannot write {}: {why}; nothing was changed", text::path(file)))
    };
    let before = loaded.document.bytes();
    let now = fs::read(file).map_err(|error| cannot(&OsError(&error)))?;
    let is_compressed = input::is_compressed(&now);
    let is_same = input::decompressed(&text::path(file).to_string(), now).is_ok_and(|now| now == before);
    if !is_same {
        return Err(cannot(&"it changed after it was read"));
    }
    let mark = before.len() - loaded.document.text().len();
    let mut bytes = before.get(..mark).unwrap_or_default().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    if is_compressed {
        bytes = input::compressed(&bytes).map_err(|error| cannot(&OsError(&error)))?;
    }
    write::edit(file, &bytes).map_err(|error| cannot(&OsError(&error)))
}

/// Returns the line for a node that changes.
fn line(change: &NodeChange, palette: &Palette) -> String {
    let text = |values: &[String]| printable(&values.join(", "));
    let name = &change.node;
    let keys = |separator: &str, key: &dyn Fn(&import::KeyChange) -> String| -> String {
        change.keys.iter().map(key).collect::<Vec<_>>().join(separator)
    };
    let line = match change.action {
        NodeChangeKind::Add => {
            palette.add.apply_to(format!("+ {name}: {}", keys(", ", &|key| text(&key.after))))
        }
        NodeChangeKind::Remove => palette.remove.apply_to(format!("- {name}")),
        NodeChangeKind::Update => palette.change.apply_to(format!(
            "~ {name}: {}",
            keys("; ", &|key| {
                let before = if key.before.is_empty() { "(none)".to_owned() } else { text(&key.before) };
                format!("{} {before} -> {}", key.key, text(&key.after))
            })
        )),
    };
    format!("{line}\n")
}

/// Returns the result of an update as a sentence.
fn summary(updated: &Updated, file: &Path, is_dry_run: bool) -> String {
    let file = text::path(file);
    if updated.changes.is_empty() {
        return format!("No changes. {file} matches the list.");
    }
    let number = |kind| updated.changes.iter().filter(|change| change.action == kind).count();
    let verb = if is_dry_run { "Would update" } else { "Updated" };
    format!(
        "{verb} {file}: {} added, {} updated, {} removed.",
        count(number(NodeChangeKind::Add), "node"),
        number(NodeChangeKind::Update),
        number(NodeChangeKind::Remove)
    )
}

//! Saved plans: `plan --out FILE` and `apply FILE`.
//!
//! The file contains the configuration and the facts that the plan depends on. Applying it means planning again and
//! finding the same changes; otherwise, the plan is stale.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{VerbFailure, configuration::text_of, session_report::report, transaction_meta, write};
use crate::{
    clock::{now, time},
    config::{Loaded, StoredConfig},
    error::{Error, Kind},
    hex::sha256,
    plan::{Facts, ForeignPolicy},
    reconcile::Session,
    record::{Command, Commit, TransactionMeta},
    render::{ChangeEntry, Report},
    text::{self, JsonError, OsError, Untrusted, printable, to_json},
};

/// The version of the file.
const FORMAT: u32 = 1;

/// Identifies the file among other JSON files.
const KIND: &str = "savedPlan";

/// The number of digits that git shows of a commit in a large repository.
pub(super) const DIGITS: usize = 12;

/// The number of differences listed one by one.
const MAX_LISTED: usize = 20;

/// A plan for a node, which is applied exactly as it is or not at all.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "hostgw saved plan")]
pub(super) struct SavedPlan {
    /// The version of this format.
    format: u32,
    /// `savedPlan`.
    kind: String,
    /// The node.
    node: Untrusted,
    /// The configuration file, as named on the command line.
    file: Untrusted,
    /// SHA-256 of the configuration, as `sha256sum` prints it.
    config_hash: Untrusted,
    /// The Git commit of the configuration, if it is in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<Commit>,
    /// When the plan was created, as in RFC 3339.
    created_at: String,
    /// Whether the plan adopts foreign objects.
    adopt: bool,
    /// SHA-256 of the facts in canonical JSON: without whitespace, keys in the order of this schema.
    fingerprint: String,
    /// The changes, as `plan --json` has them.
    changes: Vec<ChangeEntry>,
    /// The live state that the plan depends on.
    facts: Facts,
    /// The configuration itself.
    configuration: StoredConfig,
}

/// The first fields of a file, which tell a newer format from other files.
#[derive(Deserialize)]
struct SavedPlanHead {
    format: u32,
    kind: String,
}

fn facts(session: &Session) -> Facts {
    let node = &session.loaded.cluster.nodes[session.index];
    Facts::of(node, &session.prepared.desired, &session.prepared.observed)
}

fn fingerprint(facts: &Facts) -> Result<String, Error> {
    let canonical = serde_json::to_vec(facts);
    let canonical = canonical.map_err(|error| Error::unexpected(format!("cannot write JSON: {error}")))?;
    Ok(sha256(&canonical))
}

impl SavedPlan {
    /// Creates the saved plan of `session`, whose report is `report`.
    ///
    /// # Errors
    /// Returns an error if it cannot be written as JSON.
    pub(super) fn of(session: &Session, report: &Report) -> Result<Self, Error> {
        let document = &session.loaded.document;
        let TransactionMeta { config_hash, commit, .. } =
            transaction_meta::of_apply(document, session.node_name());
        let facts = facts(session);
        Ok(Self {
            format: FORMAT,
            kind: KIND.to_owned(),
            node: session.node_name().to_owned(),
            file: document.name().clone(),
            config_hash: config_hash.unwrap_or_default(),
            commit,
            created_at: time(now()),
            adopt: session.policy == ForeignPolicy::Adopt,
            fingerprint: fingerprint(&facts)?,
            changes: report.changes.clone(),
            facts,
            configuration: StoredConfig::from(document),
        })
    }

    /// Writes the file with [`write::write`]: it contains the configuration, so only its owner may read it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::unexpected(format!("cannot write the plan to {}: {error}", text::path(path)))
        };
        let mut text = to_json(self).map_err(|error| cannot(&error))?;
        text.push('\n');
        write::write(path, text.as_bytes())
            .map_err(|error| cannot(&OsError(&error)).with_hint("write it elsewhere"))
    }

    /// Reads a saved plan from a file, or from standard input if the path is `-`.
    ///
    /// # Errors
    /// Returns an error if the file is not a saved plan, or was modified.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let (name, text) = text_of(path)?;
        let wrong = |why: String| {
            Error::new(Kind::Invalid, format!("{name} is not a saved plan: {why}"))
                .with_hint("create one with `hostgw plan --out FILE`; pass a configuration with -f")
        };
        let head: SavedPlanHead =
            serde_json::from_str(&text).map_err(|error| wrong(JsonError(&error).to_string()))?;
        if head.kind != KIND {
            return Err(wrong(format!("its type is {:?}", head.kind)));
        }
        if head.format != FORMAT {
            return Err(wrong(format!(
                "it has format {}, but this version of hostgw reads format {FORMAT}",
                head.format
            )));
        }
        let plan: Self = serde_json::from_str(&text).map_err(|error| wrong(JsonError(&error).to_string()))?;
        let is_whole = plan.config_hash == sha256(plan.configuration.text.as_bytes())
            && plan.fingerprint == fingerprint(&plan.facts)?;
        if is_whole { Ok(plan) } else { Err(wrong("it was modified after it was saved".to_owned())) }
    }

    #[cfg(target_os = "linux")]
    /// Prepares to plan again on this node, from the configuration in the file.
    ///
    /// # Errors
    /// Returns an error if this version rejects the configuration, or if the node is not in it.
    pub(super) fn session(&self) -> Result<Session, VerbFailure> {
        let document = self.configuration.document(self.file.clone());
        let policy = if self.adopt { ForeignPolicy::Adopt } else { ForeignPolicy::Respect };
        Ok(Session::live(Loaded::new(document)?, Some(self.node.as_raw()), policy)?)
    }

    /// Returns the plan as `hostgw plan` shows it.
    pub(super) fn report(&self) -> Report {
        Report::of_changes(Some(self.node.clone()), Some(self.file.clone()), self.changes.clone())
    }

    /// Returns one line that identifies the plan.
    pub(super) fn title(&self) -> String {
        let Self { node, file, commit, created_at, adopt, .. } = self;
        let commit = commit.as_ref().map_or_else(String::new, |Commit { id, dirty }| {
            format!(", commit {}{}", id.truncated(DIGITS), if *dirty { " (dirty)" } else { "" })
        });
        let adopts = if *adopt { ", adopts foreign objects" } else { "" };
        printable(&format!("Saved plan for node {node}, created at {created_at} from {file}{commit}{adopts}"))
    }

    /// Returns what the history records about its apply.
    pub(super) fn metadata(&self) -> TransactionMeta {
        TransactionMeta {
            node: Some(self.node.clone()),
            file: Some(self.file.clone()),
            config_hash: Some(self.config_hash.clone()),
            commit: self.commit.clone(),
            ..transaction_meta::of_command(Command::Apply)
        }
    }

    #[cfg(target_os = "linux")]
    /// Checks that the plan of `session` is still this one, or that nothing is left to do.
    ///
    /// # Errors
    /// [`Kind::Stale`], with the differences.
    pub(super) fn check(&self, session: &Session) -> Result<(), Error> {
        if session.prepared.plan.is_empty() {
            return Ok(());
        }
        let stale = |why: &str| {
            Error::new(Kind::Stale, format!("the saved plan is stale: {why}; nothing was changed"))
        };
        let facts = facts(session);
        if facts != self.facts {
            let differences = self.facts.differences(&facts);
            let more = differences.len().saturating_sub(MAX_LISTED);
            let mut details = vec![format!("since {}:", self.created_at)];
            details.extend(differences.into_iter().take(MAX_LISTED).map(|line| format!("  {line}")));
            if more > 0 {
                details.push(format!("  and {more} more"));
            }
            return Err(stale("the live state it depends on has changed")
                .with_details(details)
                .with_hint("create a new plan with `hostgw plan --out` and have it reviewed"));
        }
        let (now, then) = (report(session), &self.changes);
        let is_same = now.changes.len() == then.len()
            && now.changes.iter().zip(then).all(|(now, then)| is_same_change(now, then));
        if !is_same {
            return Err(stale("this version of hostgw would make different changes")
                .with_hint("create a new plan with `hostgw plan --out`"));
        }
        Ok(())
    }
}

/// Returns `true` if both are the same change, and read the same to a reviewer. The reason may differ by now: it may have
/// become drift.
fn is_same_change(now: &ChangeEntry, then: &ChangeEntry) -> bool {
    now.action == then.action && now.kind == then.kind && now.before == then.before && now.after == then.after
}

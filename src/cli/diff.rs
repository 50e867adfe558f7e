//! `hostgw diff` and `hostgw plan --all-nodes`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    VerbFailure, VerbResult,
    arguments::{DiffOptions, PlanOptions},
    configuration::{document, find, load},
    output::Output,
    revision::{Point, Revision, RevisionRange, Tracked},
};
use crate::{
    config::Loaded,
    config::{self, Document},
    error::{Error, Kind},
    model::Cluster,
    plan::{self, compare::Side},
    render::Locator,
    render::{self, ComparedFiles, ComparisonReport, Detail, RevisionNote},
    text::{self, ShellCommand, Untrusted},
};

/// The form of the comparison.
struct ComparisonForm {
    shape: ComparisonFormat,
    detailed_exitcode: bool,
}

enum ComparisonFormat {
    Json,
    Markdown,
    Text(Detail),
}

impl ComparisonFormat {
    const fn new(json: bool, markdown: bool, detail: Detail) -> Self {
        match (json, markdown) {
            (true, _) => Self::Json,
            (_, true) => Self::Markdown,
            _ => Self::Text(detail),
        }
    }
}

/// How much detail to show for each change.
const fn detail(full: bool, summary: bool) -> Detail {
    match (full, summary) {
        (true, _) => Detail::Full,
        (_, true) => Detail::Summary,
        _ => Detail::Collapsed,
    }
}

/// Shows what a configuration change does to every node.
pub(super) fn run(options: &DiffOptions, output: &Output) -> VerbResult {
    let sides = documents(options)?;
    let detail = detail(options.full, options.summary);
    let shape = ComparisonFormat::new(options.json, options.markdown, detail);
    let form = ComparisonForm { shape, detailed_exitcode: options.detailed_exitcode };
    let compared = sides.check()?;
    for note in &compared.notes {
        output.warn(&note.sentence(ToString::to_string));
    }
    show(&compared, &form, output)
}

/// Shows what the configuration asks for on every node.
pub(super) fn all_nodes(options: &PlanOptions, output: &Output) -> VerbResult {
    let new = load(options.target.file.as_deref())?;
    let detail = detail(options.full, options.summary);
    let shape = ComparisonFormat::new(options.json, options.markdown, detail);
    let form = ComparisonForm { shape, detailed_exitcode: options.detailed_exitcode };
    let file = new.document.name().to_owned();
    config::warnings(&new.cluster).iter().for_each(|warning| output.diagnostic(warning));
    show(&Compared { old: None, new: Some(new), notes: Vec::new(), file }, &form, output)
}

/// Reports the differences.
fn show(compared: &Compared, form: &ComparisonForm, output: &Output) -> VerbResult {
    let report = compared.report();
    match form.shape {
        ComparisonFormat::Json => output.json(&report)?,
        ComparisonFormat::Markdown => {
            output.verbatim(&render::comparison_markdown(&report, &compared.file))?
        }
        ComparisonFormat::Text(detail) => {
            output.long(&render::comparison_text(&report, &output.palette, detail))?
        }
    }
    Ok(if form.detailed_exitcode && !report.blocks.is_empty() { 2 } else { 0 })
}

/// Two valid configurations.
struct Compared {
    /// Absent if there is nothing to compare with.
    old: Option<Loaded>,
    /// Absent if it was deleted.
    new: Option<Loaded>,
    notes: Vec<RevisionNote>,
    /// The name of the file, without a revision.
    file: Untrusted,
}

impl Compared {
    fn report(&self) -> ComparisonReport {
        let report = match (&self.old, &self.new) {
            (old, Some(new)) => report(old.as_ref(), &new.document, &new.cluster),
            // Nothing is left on any node.
            (Some(old), None) => {
                let empty = Cluster { nodes: Vec::new(), ..old.cluster.clone() };
                ComparisonReport { new: None, ..report(Some(old), &old.document, &empty) }
            }
            (None, None) => ComparisonReport::nothing(),
        };
        ComparisonReport { notes: self.notes.clone(), ..report }
    }
}

fn report(old: Option<&Loaded>, document: &Document, new: &Cluster) -> ComparisonReport {
    let comparison = plan::compare(old.map(|old| &old.cluster), new);
    let old_places = old.map(|old| Locator::new(&old.document));
    let new_places = Locator::new(document);
    let files = ComparedFiles {
        old: old.map(|old| (old.document.name(), &old.cluster)),
        new: (document.name(), new),
    };
    ComparisonReport::new(comparison, files, |side, path| match side {
        Side::Old => old_places.as_ref()?.source(path),
        Side::New => new_places.source(path),
    })
}

/// The documents to compare.
struct Sides {
    /// Absent if there was no configuration yet.
    old: Option<Document>,
    /// Absent if it was deleted.
    new: Option<Document>,
    notes: Vec<RevisionNote>,
    file: Untrusted,
    /// Whether these are revisions of one file: the newer one can fix an invalid older one.
    are_revisions: bool,
}

impl Sides {
    /// Looks for the file under its other name, if one of the sides does not have it.
    fn follow_renames(mut self, tracked: &Tracked, old: &Revision, new: &Point) -> Result<Self, Error> {
        let file = Untrusted::from(tracked.name());
        let note = match (&self.old, &self.new) {
            (Some(_), Some(_)) => return Ok(self),
            (None, None) => {
                let revision = new.name().unwrap_or(old.name());
                let list = ShellCommand::new(["git", "ls-tree", "-r", "--name-only", revision]);
                return Err(Error::new(Kind::Invalid, tracked.missing(revision))
                    .with_hint(format!("to list the files of that revision, run `{list}`")));
            }
            (None, Some(_)) => match tracked.before_rename(old, new)? {
                Some((name, document)) => {
                    self.old = Some(document);
                    RevisionNote::Renamed { before: name.into(), after: file }
                }
                None => RevisionNote::Added { file, revision: old.name().into() },
            },
            (Some(_), None) => match tracked.after_rename(old, new)? {
                Some((name, document)) => {
                    self.new = Some(document);
                    RevisionNote::Renamed { before: file, after: name.into() }
                }
                None => {
                    RevisionNote::Deleted { file, revision: new.name().unwrap_or("the working tree").into() }
                }
            },
        };
        self.notes.push(note);
        Ok(self)
    }

    fn check(self) -> Result<Compared, VerbFailure> {
        let Self { old, new, mut notes, file, are_revisions } = self;
        let (old, new) = (old.map(check).transpose(), new.map(check).transpose());
        let (old, new) = match (old, new) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(invalid), Ok(new)) if are_revisions => {
                let error_count = invalid.count();
                notes.push(RevisionNote::InvalidBase { old: invalid.name().to_owned(), error_count });
                (None, new)
            }
            // Errors in the base are not errors in the change.
            (Err(_), Err(invalid)) if are_revisions => return Err(invalid.into()),
            (old, new) => {
                let invalid = [old.err(), new.err()];
                return Err(VerbFailure::Invalid(invalid.into_iter().flatten().collect()));
            }
        };
        Ok(Compared { old, new, notes, file })
    }
}

fn check(document: Document) -> Result<Loaded, config::InvalidConfig> {
    Loaded::new(document)
}

fn documents(options: &DiffOptions) -> Result<Sides, VerbFailure> {
    let DiffOptions { old, new, file, .. } = options;
    let revision = |path: &Path| {
        path.to_str().map(ToOwned::to_owned).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("{:?} is not a Git revision: it is not UTF-8", text::path(path)),
            )
        })
    };
    let range = match (new, file) {
        (Some(new), None) => return files(old, new),
        (Some(new), Some(_)) => RevisionRange::Two(revision(old)?, revision(new)?),
        (None, None) if old.is_file() => {
            let message = format!("{} is a file, not a Git revision", text::path(old));
            let hint = format!(
                "to compare two files, run `hostgw diff OLD NEW`; to compare revisions of this file, run `{}`",
                ShellCommand::new(["hostgw", "diff", "REVISION", "-f", &old.to_string_lossy()])
            );
            return Err(Error::new(Kind::Usage, message).with_hint(hint).into());
        }
        (None, _) => RevisionRange::parse(&revision(old)?),
    };
    revisions(&range, file.as_deref())
}

fn files(old: &Path, new: &Path) -> Result<Sides, VerbFailure> {
    if old.as_os_str() == "-" && new.as_os_str() == "-" {
        return Err(Error::new(Kind::Usage, "only one of the two files can be standard input")
            .with_hint("save one of them to a file")
            .into());
    }
    let (old, new) = (document(Some(old))?, document(Some(new))?);
    let file = new.name().to_owned();
    Ok(Sides { old: Some(old), new: Some(new), notes: Vec::new(), file, are_revisions: false })
}

fn revisions(range: &RevisionRange, file: Option<&Path>) -> Result<Sides, VerbFailure> {
    if file.is_some_and(|file| file.as_os_str() == "-") {
        let message = "cannot compare revisions of standard input";
        return Err(Error::new(Kind::Usage, message)
            .with_hint("pass the path of the file in the repository with -f FILE")
            .into());
    }
    let path: PathBuf = file.map_or_else(find, |file| Ok(file.to_owned()))?;
    let tracked = Tracked::new(&path)?;
    let (old, new) = match range {
        RevisionRange::One(old) => (tracked.revision(old)?, Point::WorkingTree),
        RevisionRange::Two(old, new) => (tracked.revision(old)?, Point::Revision(tracked.revision(new)?)),
        RevisionRange::Since(old, new) => {
            let new = tracked.revision(new)?;
            (tracked.merge_base(&tracked.revision(old)?, &new)?, Point::Revision(new))
        }
    };
    let after = match &new {
        Point::WorkingTree => in_working_tree(&tracked, &path)?,
        Point::Revision(new) => tracked.at(new)?,
    };
    let before = tracked.at(&old)?;
    let sides =
        Sides { old: before, new: after, notes: Vec::new(), file: text::path(&path), are_revisions: true };
    Ok(sides.follow_renames(&tracked, &old, &new)?)
}

/// Returns the current file, or `None` if it was deleted.
fn in_working_tree(tracked: &Tracked, path: &Path) -> Result<Option<Document>, VerbFailure> {
    tracked.check_is_no_link()?;
    let is_missing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_missing { Ok(None) } else { document(Some(path)).map(Some) }
}

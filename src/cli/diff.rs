//! `hostgw diff` and `hostgw plan --all-nodes`

use std::path::{Path, PathBuf};

use super::{
    Failure, Verdict,
    arguments::{DiffOptions, PlanOptions},
    output::Output,
    revision::{Range, Revision, Tracked},
    session::{Loaded, Locator, document, find, load},
};
use crate::{
    config::{self, Document},
    error::{Error, Kind},
    plan::{self, compare::Side},
    render::{self, ComparisonReport, Detail, Files},
};

/// How the comparison is told.
struct Form {
    shape: Shape,
    detailed_exitcode: bool,
}

enum Shape {
    Json,
    Markdown,
    Text(Detail),
}

impl Shape {
    const fn new(json: bool, markdown: bool, detail: Detail) -> Self {
        match (json, markdown) {
            (true, _) => Self::Json,
            (_, true) => Self::Markdown,
            _ => Self::Text(detail),
        }
    }
}

/// Shows what the change from one configuration to another changes on every node.
pub(super) fn run(options: &DiffOptions, output: &Output) -> Verdict {
    let Sides { old, new, file } = documents(options, output)?;
    let (old, new) = match (old.map(check).transpose(), check(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            let invalid = [old.err(), new.err()];
            return Err(Failure::Invalid(invalid.into_iter().flatten().collect()));
        }
    };
    let detail = match (options.full, options.summary) {
        (true, _) => Detail::Full,
        (_, true) => Detail::Summary,
        _ => Detail::Short,
    };
    let shape = Shape::new(options.json, options.markdown, detail);
    show(old.as_ref(), &new, &file, &Form { shape, detailed_exitcode: options.detailed_exitcode }, output)
}

/// Shows what the configuration asks for on every node.
pub(super) fn all_nodes(options: &PlanOptions, output: &Output) -> Verdict {
    let new = load(options.target.file.as_deref())?;
    let detail = if options.full { Detail::Full } else { Detail::Short };
    let shape = Shape::new(options.json, options.markdown, detail);
    let form = Form { shape, detailed_exitcode: options.detailed_exitcode };
    show(None, &new, new.document.name(), &form, output)
}

fn check(document: Document) -> Result<Loaded, config::Invalid> {
    config::load(&document).map(|cluster| Loaded { document, cluster })
}

/// Tells what differs; `file` names the configuration without a revision.
fn show(old: Option<&Loaded>, new: &Loaded, file: &str, form: &Form, output: &Output) -> Verdict {
    let comparison = plan::compare(old.map(|old| &old.cluster), &new.cluster);
    let old_places = old.map(|old| Locator::new(&old.document));
    let new_places = Locator::new(&new.document);
    let files = Files {
        old: old.map(|old| (old.document.name(), &old.cluster)),
        new: (new.document.name(), &new.cluster),
    };
    let report = ComparisonReport::new(&comparison, files, |side, path| match side {
        Side::Old => old_places.as_ref()?.source(path),
        Side::New => new_places.source(path),
    });
    match form.shape {
        Shape::Json => output.json(&report)?,
        Shape::Markdown => output.markdown(&render::comparison_markdown(&report, file))?,
        Shape::Text(detail) => output.long(&render::comparison_text(&report, &output.palette, detail))?,
    }
    Ok(if form.detailed_exitcode && !comparison.is_empty() { 2 } else { 0 })
}

/// What is compared.
struct Sides {
    /// None where there was no configuration yet.
    old: Option<Document>,
    new: Document,
    /// The name of the file, without a revision.
    file: String,
}

fn documents(options: &DiffOptions, output: &Output) -> Result<Sides, Failure> {
    let DiffOptions { old, new, file, .. } = options;
    let revision = |path: &Path| {
        path.to_str().map(ToOwned::to_owned).ok_or_else(|| {
            Error::new(Kind::Invalid, format!("{:?} is not a git revision: it is not UTF-8", path.display()))
        })
    };
    let range = match (new, file) {
        (Some(new), None) => return files(old, new),
        (Some(new), Some(_)) => Range::Two(revision(old)?, revision(new)?),
        (None, None) if old.is_file() => {
            let message = format!("{} is a file: name the one to compare it with, too", old.display());
            return Err(Error::new(Kind::Usage, message).into());
        }
        (None, _) => Range::parse(&revision(old)?),
    };
    revisions(&range, file.as_deref(), output)
}

fn files(old: &Path, new: &Path) -> Result<Sides, Failure> {
    if old.as_os_str() == "-" && new.as_os_str() == "-" {
        return Err(Error::new(Kind::Usage, "standard input can be one of the files, not both").into());
    }
    let (old, new) = (document(Some(old))?, document(Some(new))?);
    Ok(Sides { file: new.name().to_owned(), old: Some(old), new })
}

fn revisions(range: &Range, file: Option<&Path>, output: &Output) -> Result<Sides, Failure> {
    if file.is_some_and(|file| file.as_os_str() == "-") {
        let message = "git revisions are of a file: standard input has none";
        return Err(Error::new(Kind::Usage, message).into());
    }
    let path: PathBuf = file.map_or_else(find, |file| Ok(file.to_owned()))?;
    let tracked = Tracked::new(&path)?;
    let (old, new) = match range {
        Range::One(old) => (tracked.revision(old)?, None),
        Range::Two(old, new) => (tracked.revision(old)?, Some(tracked.revision(new)?)),
        Range::Since(old, new) => {
            let new = tracked.revision(new)?;
            (tracked.merge_base(&tracked.revision(old)?, &new)?, Some(new))
        }
    };
    let new = match new {
        None => document(Some(&path))?,
        Some(new) => at(&tracked, &new)?,
    };
    let before = tracked.at(&old)?;
    if before.is_none() {
        output.warn(&format!("{}: compared with nothing", tracked.missing(&old)));
    }
    Ok(Sides { old: before, new, file: path.display().to_string() })
}

fn at(tracked: &Tracked, revision: &Revision) -> Result<Document, Error> {
    tracked.at(revision)?.ok_or_else(|| Error::new(Kind::Invalid, tracked.missing(revision)))
}

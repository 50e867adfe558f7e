//! Configurations as git revisions have them: read from the repository, nothing is checked out.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use super::git::{self, GitError};
use crate::{
    config::{Document, Format},
    error::{Error, Kind},
    input,
};

/// What of a repository is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Range {
    /// A revision and the working tree.
    One(String),
    /// Two revisions.
    Two(String, String),
    /// `A...B`: the commit at which both branched off, and the second one.
    Since(String, String),
}

impl Range {
    /// Reads `A`, `A..B` and `A...B`, where a side that is left out is `HEAD`, as git does.
    pub(super) fn parse(text: &str) -> Self {
        let side = |text: &str| if text.is_empty() { "HEAD".to_owned() } else { text.to_owned() };
        if let Some((old, new)) = text.split_once("...") {
            return Self::Since(side(old), side(new));
        }
        match text.split_once("..") {
            Some((old, new)) => Self::Two(side(old), side(new)),
            None => Self::One(side(text)),
        }
    }
}

/// A file of a repository, whether the working tree has it or not.
pub(super) struct Tracked {
    /// As it was named.
    name: String,
    /// A folder that is there.
    folder: PathBuf,
    /// The way from there.
    relative: PathBuf,
}

/// A revision that is there.
pub(super) struct Revision {
    /// As it is called in messages.
    name: String,
    id: String,
}

impl Tracked {
    /// The file that `path` names; through a link, the one behind it.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder =
            whole.ancestors().skip(1).find(|folder| is_folder(folder)).unwrap_or_else(|| Path::new(""));
        let relative = whole.strip_prefix(folder).unwrap_or(&whole).to_owned();
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Ok(Self { name: path.display().to_string(), folder: folder.to_owned(), relative })
    }

    /// The revision called `name`.
    pub(super) fn revision(&self, name: &str) -> Result<Revision, Error> {
        if name.starts_with('-') {
            let message = format!("{name:?} is not a git revision: it begins with a dash");
            return Err(Error::new(Kind::Invalid, message));
        }
        let id = self.verify(OsStr::new(&format!("{name}^{{commit}}")))?.ok_or_else(|| {
            Error::new(Kind::Invalid, format!("{name:?} is not a git revision here")).with_hint(
                "a shallow clone lacks older commits (git fetch --unshallow brings them); two files \
                            are compared by naming both",
            )
        })?;
        Ok(Revision { name: name.to_owned(), id })
    }

    /// The commit at which the two branched off.
    pub(super) fn merge_base(&self, one: &Revision, other: &Revision) -> Result<Revision, Error> {
        let base = git::run(&self.folder, |git| git.args(["merge-base", &one.id, &other.id]));
        match base {
            Ok(id) => {
                let id = String::from_utf8_lossy(&id).trim().to_owned();
                Ok(Revision { name: id.chars().take(12).collect(), id })
            }
            Err(GitError::Failed(why)) if why.is_empty() => {
                let message = format!("{} and {} have no commit in common", one.name, other.name);
                Err(Error::new(Kind::Invalid, message)
                    .with_hint("a shallow clone may lack it: git fetch --unshallow brings it"))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The file at that revision; none when the revision does not have it.
    pub(super) fn at(&self, revision: &Revision) -> Result<Option<Document>, Error> {
        let mut path = OsString::from(format!("{}:./", revision.id));
        path.push(&self.relative);
        let Some(id) = self.verify(&path)? else { return Ok(None) };
        let name = format!("{}:{}", revision.name, self.name);
        let size = git::run(&self.folder, |git| git.args(["cat-file", "-s", &id])).map_err(failed)?;
        let size = String::from_utf8_lossy(&size).trim().parse::<u64>();
        if size.is_ok_and(|size| size > input::LIMIT) {
            let message = format!("{name} is too large: hostgw reads at most {} MiB", input::LIMIT >> 20);
            return Err(Error::new(Kind::Invalid, message));
        }
        let bytes = git::run(&self.folder, |git| git.args(["cat-file", "blob", &id])).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to() + 1;
            Error::new(Kind::Invalid, format!("{name} is not UTF-8 text: byte {at} is wrong"))
        })?;
        let format = Format::of(&self.relative, &text);
        Ok(Some(Document::new(name, text, format)))
    }

    /// That the file is not in a revision.
    pub(super) fn missing(&self, revision: &Revision) -> String {
        format!("{} is not in {}", self.name, revision.name)
    }

    /// The id of an object, if there is one of that name.
    fn verify(&self, object: &OsStr) -> Result<Option<String>, Error> {
        let words = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        match git::run(&self.folder, |git| git.args(words).arg(object)) {
            Ok(id) => Ok(Some(String::from_utf8_lossy(&id).trim().to_owned())),
            Err(GitError::Failed(why)) if why.is_empty() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

fn is_folder(path: &Path) -> bool {
    // The empty path is the working directory.
    path.as_os_str().is_empty() || path.is_dir()
}

fn failed(error: GitError) -> Error {
    match error {
        GitError::NotRun(error) => Error::unexpected(format!("cannot run git: {error}"))
            .with_hint("install git, or compare two files: hostgw diff OLD NEW"),
        GitError::Failed(why) => Error::new(Kind::Invalid, "git cannot read the revision")
            .with_details(why.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_as_git_reads_them() {
        let two = |old: &str, new: &str| Range::Two(old.to_owned(), new.to_owned());
        assert_eq!(Range::parse("main"), Range::One("main".to_owned()));
        assert_eq!(Range::parse("main..HEAD"), two("main", "HEAD"));
        assert_eq!(Range::parse("main.."), two("main", "HEAD"));
        assert_eq!(Range::parse("..topic"), two("HEAD", "topic"));
        assert_eq!(Range::parse("a...b"), Range::Since("a".to_owned(), "b".to_owned()));
        assert_eq!(Range::parse("v1.2..v1.3"), two("v1.2", "v1.3"));
    }
}

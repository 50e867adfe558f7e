//! Reads configurations from Git revisions: from the objects of the repository, without a checkout.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::git::{self, Git, GitError};
use crate::{
    config::{Document, Format},
    error::{Error, Kind},
    input, text,
    text::OsError,
};

/// The revisions to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RevisionRange {
    /// A revision and the working tree.
    One(String),
    /// Two revisions.
    Two(String, String),
    /// `A...B`: the merge base of both, and the second one.
    Since(String, String),
}

impl RevisionRange {
    /// Parses `A`, `A..B` and `A...B`. As in git, an omitted side is `HEAD`.
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

/// A file in a repository, which need not exist in the working tree.
pub(super) struct Tracked {
    /// Returns the name of the file on the command line.
    name: String,
    /// The repository, at an existing directory.
    git: Git,
    /// The path from that directory.
    relative: PathBuf,
    /// Whether a link on the path is tracked by git, and therefore not followed.
    is_link: bool,
}

/// An existing revision.
pub(super) struct Revision {
    /// The name in messages.
    name: String,
    id: String,
}

/// What to compare a revision with.
pub(super) enum Point {
    WorkingTree,
    Revision(Revision),
}

impl Point {
    /// Returns the name in messages, or `None` for the working tree.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::WorkingTree => None,
            Self::Revision(revision) => Some(revision.name()),
        }
    }
}

impl Revision {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A file in a revision.
struct Blob {
    id: String,
    size: usize,
}

impl Tracked {
    /// Finds the file that `path` names. Does not follow links that git tracks: the author of the revision controls
    /// them, and they can lead to any file on this machine.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let name = text::path(path).into_raw();
        let resolved = ResolvedPath::of(path).map_err(|error| {
            Error::new(Kind::Invalid, format!("cannot find the directory of {name}: {}", OsError(&error)))
        })?;
        Ok(Self {
            name,
            git: Git::new(resolved.folder),
            relative: resolved.relative,
            is_link: resolved.is_link,
        })
    }

    /// Resolves the revision called `name`.
    pub(super) fn revision(&self, name: &str) -> Result<Revision, Error> {
        if name.starts_with('-') {
            let message = format!("{name:?} is not a Git revision: it begins with a dash");
            return Err(Error::new(Kind::Invalid, message).with_hint("pass a branch, a tag or a commit"));
        }
        let object = format!("{name}^{{commit}}");
        let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &object];
        match self.git.ask_line(words) {
            Ok(id) => Ok(Revision { name: name.to_owned(), id }),
            Err(GitError::Failed(why)) if why.is_empty() => {
                Err(Error::new(Kind::Invalid, format!("{name:?} is not a Git revision in this repository"))
                    .with_hint(
                        "in a shallow clone, run `git fetch --unshallow`; to compare two files, pass both",
                    ))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns the merge base of two revisions.
    pub(super) fn merge_base(&self, one: &Revision, other: &Revision) -> Result<Revision, Error> {
        match self.git.ask_line(["merge-base", &one.id, &other.id]) {
            Ok(id) => Ok(Revision { name: id.chars().take(12).collect(), id }),
            Err(GitError::Failed(why)) if why.is_empty() => {
                let message = format!("{} and {} have no common commit", one.name, other.name);
                Err(Error::new(Kind::Invalid, message)
                    .with_hint("if this is a shallow clone, run `git fetch --unshallow`"))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads the file at a revision. Returns `None` if the revision does not have it.
    pub(super) fn at(&self, revision: &Revision) -> Result<Option<Document>, Error> {
        let name = format!("{}:{}", revision.name, self.name);
        match self.blob(revision, &self.relative, &name)? {
            Some(blob) => self.read(&blob, name, &self.relative).map(Some),
            None => {
                self.check_folders(revision)?;
                Ok(None)
            }
        }
    }

    /// Reads the file in `old` under the name it had there, if git detects that it was renamed since.
    pub(super) fn before_rename(
        &self,
        old: &Revision,
        new: &Point,
    ) -> Result<Option<(String, Document)>, Error> {
        let path = self.path_from_root()?;
        let renames = self.renames(old, new)?;
        let found = renames.into_iter().find(|(_, after)| *after == path);
        found.map_or(Ok(None), |(before, _)| self.named(old, &before))
    }

    /// Reads the file in `new` under its name there, if git detects that it was renamed since `old`. A file in the
    /// working tree keeps its name.
    pub(super) fn after_rename(
        &self,
        old: &Revision,
        new: &Point,
    ) -> Result<Option<(String, Document)>, Error> {
        let Point::Revision(revision) = new else { return Ok(None) };
        let path = self.path_from_root()?;
        let renames = self.renames(old, new)?;
        let found = renames.into_iter().find(|(before, _)| *before == path);
        found.map_or(Ok(None), |(_, after)| self.named(revision, &after))
    }

    /// Returns the path from the root of the working tree.
    fn path_from_root(&self) -> Result<PathBuf, Error> {
        let prefix = self.git.ask(["rev-parse", "--show-prefix"]).map_err(|error| self.failed(error))?;
        Ok(git::path_of(prefix.strip_suffix(b"\n").unwrap_or(&prefix)).join(&self.relative))
    }

    /// Returns the file at a path from the root of the working tree.
    fn named(&self, revision: &Revision, path: &Path) -> Result<Option<(String, Document)>, Error> {
        let up = self.git.ask(["rev-parse", "--show-cdup"]).map_err(|error| self.failed(error))?;
        let from_here = git::path_of(up.strip_suffix(b"\n").unwrap_or(&up)).join(path);
        let name = format!("{}:{}", revision.name, text::path(path));
        let Some(blob) = self.blob(revision, &from_here, &name)? else { return Ok(None) };
        Ok(Some((text::path(path).into_raw(), self.read(&blob, name, path)?)))
    }

    /// Returns the renames that git detects, as old and new paths from the root. Renames in the working tree must be
    /// in the index.
    fn renames(&self, old: &Revision, new: &Point) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        // A fixed limit, independent of the settings of the repository. Beyond it, git detects only exact renames.
        let how: [&str; 6] = ["-z", "--raw", "--no-ext-diff", "--no-textconv", "-l1000", "--diff-filter=R"];
        let compare = |similar: &'static str| match new {
            Point::WorkingTree => {
                self.git.ask(["diff-index", "--cached"].iter().chain(&how).chain(&[similar, old.id.as_str()]))
            }
            Point::Revision(new) => self.git.ask(["diff-tree", "-r"].iter().chain(&how).chain(&[
                similar,
                old.id.as_str(),
                new.id.as_str(),
            ])),
        };
        let renames = match compare("-M") {
            // Files that a partial clone lacks cannot be compared, but have an ID.
            Err(GitError::Failed(_)) => compare("-M100%"),
            other => other,
        };
        let renames = renames.map_err(|error| self.failed(error))?;
        // `:MODE MODE ID ID R100`, the old path, the new path.
        let mut fields = renames.split(|byte| *byte == 0);
        let next = || Some((fields.next()?, git::path_of(fields.next()?), git::path_of(fields.next()?)));
        Ok(std::iter::from_fn(next).map(|(_, before, after)| (before, after)).collect())
    }

    /// Reads what a revision has at `path`, if that is a file.
    fn blob(&self, revision: &Revision, path: &Path, name: &str) -> Result<Option<Blob>, Error> {
        let Some(entry) = self.entry(revision, path)? else { return Ok(None) };
        let refuse = |what: &str| Error::new(Kind::Invalid, format!("{name} is {what}, not a file"));
        match entry.mode.as_str() {
            "100644" | "100755" => {}
            LINK => return Err(refuse("a symbolic link").with_hint(NO_LINKS)),
            "160000" => return Err(refuse("a submodule")),
            "040000" => return Err(refuse("a directory")),
            _ => return Err(refuse("neither a file nor a directory")),
        }
        let Ok(size) = entry.size.parse() else { return Err(self.missing_object(&entry.id, name)) };
        if size > Git::MAX_BYTES {
            let message = format!("{name} is too large: hostgw reads at most {} MiB", Git::MAX_BYTES >> 20);
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(Some(Blob { id: entry.id, size }))
    }

    fn read(&self, blob: &Blob, name: String, path: &Path) -> Result<Document, Error> {
        let bytes = self.git.ask(["cat-file", "blob", &blob.id]).map_err(|error| self.failed(error))?;
        if bytes.len() != blob.size {
            return Err(Error::unexpected(format!(
                "git returned {} of {} bytes of {name}",
                bytes.len(),
                blob.size
            )));
        }
        let bytes = input::decompressed(&name, bytes)
            .map_err(|error| Error::new(Kind::Invalid, error.to_string()).with_hint_if(error.hint()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to() + 1;
            Error::new(Kind::Invalid, format!("{name} is not valid UTF-8: invalid byte {at}"))
        })?;
        let format = Format::of(path, &text);
        Ok(Document::new(name, text, format))
    }

    /// Checks that no directory on the path is a link or a submodule in that revision, in which case the file is not
    /// missing.
    fn check_folders(&self, revision: &Revision) -> Result<(), Error> {
        for folder in self.relative.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            let Some(entry) = self.entry(revision, folder)? else { continue };
            let what = match entry.mode.as_str() {
                LINK => "a symbolic link",
                "160000" => "a submodule",
                _ => return Ok(()),
            };
            let message = format!("{}:{} is {what}, not a directory", revision.name, text::path(folder));
            return Err(Error::new(Kind::Invalid, message).with_hint(NO_LINKS));
        }
        Ok(())
    }

    fn entry(&self, revision: &Revision, path: &Path) -> Result<Option<TreeEntry>, Error> {
        let words =
            [OsStr::new("ls-tree"), "-z".as_ref(), "-l".as_ref(), revision.id.as_ref(), "--".as_ref()];
        let listed = self.git.ask(words.into_iter().chain([path.as_os_str()]));
        let listed = listed.map_err(|error| self.failed(error))?;
        Ok(TreeEntry::parse(&listed))
    }

    /// Returns the name of the file on the command line.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the error that a revision does not have the file.
    pub(super) fn missing(&self, revision: &str) -> String {
        format!("{} is not in {revision}", self.name)
    }

    /// Checks that the working tree has a file, and not a link that git tracks.
    pub(super) fn check_is_no_link(&self) -> Result<(), Error> {
        if !self.is_link {
            return Ok(());
        }
        let message = format!("{} is a symbolic link tracked by Git", self.name);
        Err(Error::new(Kind::Invalid, message).with_hint(NO_LINKS))
    }

    fn missing_object(&self, id: &str, name: &str) -> Error {
        let error = Error::new(Kind::Invalid, format!("cannot read {name}: its object is not in this clone"));
        if self.is_partial() {
            error.with_hint(format!(
                "hostgw never fetches; if you trust the repository, fetch the object with `git cat-file -e {id}`"
            ))
        } else {
            error.with_hint("the repository is damaged: run `git fsck`")
        }
    }

    /// Returns `true` if the repository is a partial clone.
    fn is_partial(&self) -> bool {
        self.git.ask(["config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"]).is_ok()
    }

    fn failed(&self, error: GitError) -> Error {
        let why = match error {
            GitError::NotRun(error) => {
                let message = match error.kind() {
                    io::ErrorKind::NotFound => "git is not installed, or not in PATH".to_owned(),
                    _ => format!("cannot run git: {}", OsError(&error)),
                };
                return Error::unexpected(message)
                    .with_hint("install git, or compare two files with `hostgw diff OLD NEW`");
            }
            GitError::Failed(why) => why,
        };
        let lines = why.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
        let error = Error::new(Kind::Invalid, format!("git cannot read the revisions of {}", self.name))
            .with_details(lines);
        if self.is_partial() {
            error.with_hint(
                "hostgw never fetches; if you trust the repository, complete the partial clone with `git fetch --refetch --no-filter`",
            )
        } else if self.git.ask(["rev-parse", "--git-dir"]).is_err() {
            error.with_hint(
                "run hostgw inside the Git repository, or compare two files with `hostgw diff OLD NEW`",
            )
        } else {
            error
        }
    }
}

/// The mode of a symbolic link in git's trees and index.
const LINK: &str = "120000";

const NO_LINKS: &str = "hostgw does not follow symbolic links in a repository: name the file itself";

/// An entry of a tree: `MODE TYPE ID SIZE<TAB>PATH<NUL>`. The size of a missing object is `BAD`.
struct TreeEntry {
    mode: String,
    id: String,
    size: String,
}

impl TreeEntry {
    fn parse(listed: &[u8]) -> Option<Self> {
        let facts = String::from_utf8_lossy(listed.split(|byte| *byte == b'\t').next()?);
        let mut facts = facts.split_ascii_whitespace().map(ToOwned::to_owned);
        let (mode, _kind, id, size) = (facts.next()?, facts.next()?, facts.next()?, facts.next()?);
        Some(Self { mode, id, size })
    }
}

/// The target of a path: an existing directory, and the rest.
struct ResolvedPath {
    folder: PathBuf,
    relative: PathBuf,
    is_link: bool,
}

/// The maximum number of links to follow in one path; more count as a loop (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl ResolvedPath {
    /// Follows `path` to its last directory, but stops at a link that git tracks.
    fn of(path: &Path) -> io::Result<Self> {
        let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect();
        let mut folder = if path.is_absolute() { PathBuf::from("/") } else { env::current_dir()? };
        let mut rest: VecDeque<OsString> = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match Path::new(&part).components().next() {
                Some(Component::ParentDir) => {
                    folder.pop();
                    continue;
                }
                Some(Component::Normal(_)) => {}
                Some(Component::RootDir) => {
                    folder = PathBuf::from("/");
                    continue;
                }
                _ => continue,
            }
            let whole = folder.join(&part);
            let found = fs::symlink_metadata(&whole).map(|found| found.file_type());
            let is_link = found.as_ref().is_ok_and(fs::FileType::is_symlink);
            if is_link && !is_tracked(&folder, &part) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"));
                }
                let mut target: VecDeque<OsString> = parts(&fs::read_link(&whole)?);
                target.append(&mut rest);
                rest = target;
            } else if found.is_ok_and(|found| found.is_dir()) {
                folder = whole;
            } else {
                rest.push_front(part);
                return Ok(Self { folder, relative: rest.iter().collect(), is_link });
            }
        }
        // A directory is not a configuration: git reports that.
        let relative = folder.file_name().map_or_else(PathBuf::new, PathBuf::from);
        folder.pop();
        Ok(Self { folder, relative, is_link: false })
    }
}

/// Returns `true` if git tracks `name` in `folder`.
fn is_tracked(folder: &Path, name: &OsStr) -> bool {
    let words = [OsStr::new("ls-files"), "-z".as_ref(), "--".as_ref(), name];
    Git::new(folder).ask(words).is_ok_and(|listed| !listed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_as_git_reads_them() {
        let two = |old: &str, new: &str| RevisionRange::Two(old.to_owned(), new.to_owned());
        assert_eq!(RevisionRange::parse("main"), RevisionRange::One("main".to_owned()));
        assert_eq!(RevisionRange::parse("main..HEAD"), two("main", "HEAD"));
        assert_eq!(RevisionRange::parse("main.."), two("main", "HEAD"));
        assert_eq!(RevisionRange::parse("..topic"), two("HEAD", "topic"));
        assert_eq!(RevisionRange::parse("a...b"), RevisionRange::Since("a".to_owned(), "b".to_owned()));
        assert_eq!(RevisionRange::parse("v1.2..v1.3"), two("v1.2", "v1.3"));
    }
}

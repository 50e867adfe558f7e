//! Writes files where the user asks for them: atomically, readable only by their owner unless they are published, and never
//! through a symbolic link that another user planted.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, openat, readlinkat,
        renameat, stat, statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

const PRIVATE: Mode = Mode::from_raw_mode(0o600);
const READABLE: Mode = Mode::from_raw_mode(0o644);
const EXECUTABLE: Mode = Mode::from_raw_mode(0o755);

/// Writes `bytes` to `path`. A new file is readable only by its owner; an existing file of the caller keeps its mode.
/// A symbolic link is kept, and its target replaced. A pipe or a terminal is written to directly.
///
/// # Errors
/// Returns an error if the file cannot be written, or if it is a link or pipe of another user in a directory that
/// others can write to.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, &keep_mode)
}

/// Writes `bytes` in place of a file that the user edits, like [`write`]. The file keeps its mode, and its owner if possible.
///
/// # Errors
/// As [`write`].
pub(super) fn edit(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, &keep_owner)
}

/// Writes `bytes` to a file that everyone may read, and execute if `is_executable`. Otherwise like [`write`].
///
/// # Errors
/// As [`write`].
pub(super) fn publish(path: &Path, bytes: &[u8], is_executable: bool) -> io::Result<()> {
    let mode = if is_executable { EXECUTABLE } else { READABLE };
    write_with(path, bytes, &|file, _| Ok(fchmod(file, mode)?))
}

/// Writes a file that other programs read again and again, like [`publish`], but without waiting for the disk: after a crash of
/// the machine, it can be empty.
///
/// # Errors
/// As [`write`].
pub(super) fn publish_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_by(path, bytes, |file, _| {
        fchmod(&*file, READABLE)?;
        file.write_all(bytes)
    })
}

/// Gives a new file its mode, and an owner other than the caller: for example those of the old one, if there was one.
type Keep<'a> = &'a dyn Fn(&File, Option<&Stat>) -> io::Result<()>;

fn write_with(path: &Path, bytes: &[u8], keep: Keep<'_>) -> io::Result<()> {
    write_by(path, bytes, |file, old| {
        keep(file, old)?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// Writes `bytes` to a stream, or replaces a file by a new one that `fill` writes.
fn write_by(
    path: &Path,
    bytes: &[u8],
    fill: impl FnOnce(&mut File, Option<&Stat>) -> io::Result<()>,
) -> io::Result<()> {
    match resolve(path)? {
        WriteTarget::Stream(stream) => File::from(stream).write_all(bytes),
        WriteTarget::File { folder, name, old } => {
            let (temporary, mut file) = create_temporary(&folder, &name)?;
            let written = fill(&mut file, old.as_ref())
                // Whatever is there by now is replaced, not followed.
                .and_then(|()| Ok(renameat(&folder, &temporary, &folder, &name)?));
            if written.is_err() {
                let _ = unlinkat(&folder, &temporary, AtFlags::empty());
            }
            written
        }
    }
}

/// The target of a path.
enum WriteTarget {
    /// An open pipe, terminal or other device.
    Stream(OwnedFd),
    /// A regular file, which need not exist yet.
    File { folder: OwnedFd, name: OsString, old: Option<Stat> },
}

/// Follows the links that may be followed. Works relative to directory descriptors, so that what was checked is what
/// is used.
fn resolve(path: &Path) -> io::Result<WriteTarget> {
    /// The number of links that the kernel follows (path_resolution(7)).
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let name = path.file_name().ok_or(Errno::ISDIR)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).to_owned();
        let folder = openat(CWD, &parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let found = match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(WriteTarget::File { folder, name, old: None }),
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => return Ok(WriteTarget::File { folder, name, old: Some(found) }),
            FileType::Directory => return Err(Errno::ISDIR.into()),
            FileType::Symlink => {
                check_laid(&folder, &found, "symbolic link")?;
                let link = readlinkat(&folder, &name, Vec::new())?;
                path = parent.join(OsStr::from_bytes(link.as_bytes()));
                if only_the_kernel_follows(&folder, &name, &path) {
                    return stream(&folder, &name, OFlags::empty());
                }
            }
            _ => {
                check_laid(&folder, &found, "special file")?;
                return stream(&folder, &name, OFlags::NOFOLLOW);
            }
        }
    }
    Err(Errno::LOOP.into())
}

/// Returns `true` if a link does not lead where its text says: `/proc` has such links to open files, and
/// `/dev/stdout` is one.
fn only_the_kernel_follows(folder: &OwnedFd, name: &OsStr, text: &Path) -> bool {
    let Ok(there) = statat(folder, name, AtFlags::empty()) else { return false };
    stat(text).map_or(true, |said| (said.st_dev, said.st_ino) != (there.st_dev, there.st_ino))
}

fn stream(folder: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<WriteTarget> {
    let flags = flags | OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(WriteTarget::Stream(openat(folder, name, flags, Mode::empty())?))
}

fn is_trusted(owner: u32) -> bool {
    [0, geteuid().as_raw()].contains(&owner)
}

/// Checks that another user did not plant `found` in a shared directory.
fn check_laid(folder: &OwnedFd, found: &Stat, what: &str) -> io::Result<()> {
    if is_trusted(found.st_uid) || fstat(folder)?.st_mode & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it is a {what} owned by uid {}, in a directory that others can write to",
        found.st_uid
    )))
}

fn create_temporary(folder: &OwnedFd, name: &OsStr) -> io::Result<(PathBuf, File)> {
    /// Another user who occupies that many names does so on purpose.
    const ATTEMPTS: usize = 100;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for attempt in 0..ATTEMPTS {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.{attempt}.new", std::process::id()));
        match openat(folder, &temporary, flags, PRIVATE) {
            Ok(file) => return Ok((temporary.into(), file.into())),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// Copies the mode and group of the `old` file if the caller owns it: a file of another user must not decide who can
/// read or change its replacement.
fn keep_mode(file: &File, old: Option<&Stat>) -> io::Result<()> {
    let Some(old) = old.filter(|old| old.st_uid == geteuid().as_raw()) else {
        return Ok(fchmod(file, PRIVATE)?);
    };
    let has_group =
        fstat(file)?.st_gid == old.st_gid || fchown(file, None, Some(Gid::from_raw(old.st_gid))).is_ok();
    let mode = old.st_mode & if has_group { 0o777 } else { 0o707 };
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Copies the mode of the `old` file, and its owner and group as far as the caller may.
fn keep_owner(file: &File, old: Option<&Stat>) -> io::Result<()> {
    let Some(old) = old else { return Ok(fchmod(file, PRIVATE)?) };
    let group = Some(Gid::from_raw(old.st_gid));
    // An ordinary user may only choose among their own groups.
    let _ = fchown(file, Some(Uid::from_raw(old.st_uid)), group).or_else(|_| fchown(file, None, group));
    Ok(fchmod(file, Mode::from_raw_mode(old.st_mode & 0o777))?)
}

//! A trusted folder that is opened once and used through its descriptor, and the steps of writing a file in it.
//!
//! Anyone who can replace a directory or a file here could make root execute a forged journal. Therefore every folder
//! is opened without following symbolic links and is checked through its descriptor: it must belong to root or the
//! caller, and nobody else may write to it. Renaming the folder afterwards has no effect.
//!
//! Every step of a write can fail, or the process can be killed before it. Each step passes a `fault` point.

use std::{
    fmt,
    fs::{DirBuilder, File},
    io::{self, BufWriter, IntoInnerError, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fchmod, fstat, fsync, mkdirat, openat,
        renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

use crate::{fault, progress::Task, text};

/// The size limit of a record. A configuration has at most 64 MiB, and the state of 100,000 nodes about as much.
const MAX_FILE_SIZE: u64 = 512 << 20;

const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_FOLDER: Mode = Mode::from_raw_mode(0o700);

/// The kind of crash that a written file survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survives {
    /// The end of the process. After a crash of the machine, the file may be empty or damaged.
    Process,
    /// A crash of the machine, after which the file is whole or has its old content.
    Machine,
}

/// A folder that only root and the caller can change.
#[derive(Debug)]
pub(super) struct Folder {
    descriptor: OwnedFd,
    /// The name it was opened by, for error messages.
    path: PathBuf,
}

/// A file or folder that hostgw refuses to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UntrustedPath {
    path: PathBuf,
    why: String,
    pub(super) remedy: Remedy,
}

/// How to fix an [`UntrustedPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    FixOwner,
    FixMode,
    Replace,
    MoveAside,
}

impl fmt::Display for UntrustedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", text::path(&self.path), self.why)
    }
}

impl std::error::Error for UntrustedPath {}

impl UntrustedPath {
    fn error(path: &Path, why: String, remedy: Remedy) -> io::Error {
        io::Error::other(Self { path: path.to_owned(), why, remedy })
    }

    /// Returns the cause of `error` if it is an untrusted path.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Folder {
    /// Opens `path`. Only the last component is checked; its parent folders are the caller's choice.
    ///
    /// # Errors
    /// Returns an error if the folder does not exist or is [`UntrustedPath`].
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // With a trailing slash, the kernel would follow a symbolic link.
        let path: PathBuf = path.components().collect();
        Self::open_at(CWD, &path, path.clone())
    }

    /// Takes over the descriptor of a folder that another process opened as `path`.
    ///
    /// # Errors
    /// Returns an error if it is not a folder or is [`UntrustedPath`].
    pub(super) fn from_descriptor(descriptor: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let found = fstat(&descriptor)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        check_folder(&found, &path)?;
        Ok(Self { descriptor, path })
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(at, name, flags, Mode::empty()) {
            Ok(descriptor) => Self::from_descriptor(descriptor, path),
            Err(error) => {
                let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
                let is_link =
                    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink);
                if is_link {
                    let why = "is a symbolic link".to_owned();
                    return Err(UntrustedPath::error(&path, why, Remedy::Replace));
                }
                Err(error.into())
            }
        }
    }

    /// Duplicates the descriptor, to pass it to another process.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Opens a subfolder.
    pub(super) fn subfolder(&self, name: &str) -> io::Result<Self> {
        Self::open_at(self.descriptor.as_fd(), Path::new(name), self.path.join(name))
    }

    /// Opens a subfolder. Creates it with mode 0700 if it does not exist.
    pub(super) fn create_subfolder(&self, name: &str) -> io::Result<Self> {
        Self::create_at(self.descriptor.as_fd(), Path::new(name), self.path.join(name))
    }

    /// Opens `path` as [`Self::open`] does. Creates it and its missing parent folders with mode 0700.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let path: PathBuf = path.components().collect();
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER.as_raw_mode()).create(parent)?;
        }
        Self::create_at(CWD, &path, path.clone())
    }

    fn create_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> io::Result<Self> {
        let is_new = match mkdirat(at, name, PRIVATE_FOLDER) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let folder = Self::open_at(at, name, path)?;
        if is_new {
            // The umask may have cleared bits.
            fchmod(&folder.descriptor, PRIVATE_FOLDER)?;
        }
        Ok(folder)
    }

    /// Calls `work` with the folder and the last component of `name`, which may contain one subfolder.
    fn in_parent<T>(&self, name: &str, work: impl FnOnce(&Self, &str) -> io::Result<T>) -> io::Result<T> {
        match name.rsplit_once('/') {
            None => work(self, name),
            Some((folder, name)) => work(&self.subfolder(folder)?, name),
        }
    }

    /// Replaces the file `name` atomically: whenever the process ends, it has either the old content or what `write` writes.
    pub(super) fn replace(
        &self,
        name: &str,
        write: impl Fn(&mut BufWriter<File>) -> io::Result<()>,
        survives: Survives,
    ) -> io::Result<()> {
        self.in_parent(name, |folder, name| {
            let temporary = format!("{}.new", name.trim_end_matches(".json"));
            folder
                .write(&temporary, &write, survives)
                .and_then(|()| folder.rename(&temporary, name))
                .inspect_err(|_| folder.discard(&temporary))?;
            // The process can end or stop here, with the file in place.
            Ok(fault::point()?)
        })
    }

    fn write(
        &self,
        name: &str,
        write: impl Fn(&mut BufWriter<File>) -> io::Result<()>,
        survives: Survives,
    ) -> io::Result<()> {
        /// Most records are smaller: they are written at once.
        const BUFFER: usize = 64 << 10;
        let _task = Task::begin("writing records");
        fault::point()?;
        // A killed process may have left it.
        self.discard(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.descriptor, name, flags, PRIVATE_FILE)?);
        fchmod(&file, PRIVATE_FILE)?;
        fault::point()?;
        let mut buffer = BufWriter::with_capacity(BUFFER, file);
        write(&mut buffer)?;
        let file = buffer.into_inner().map_err(IntoInnerError::into_error)?;
        fault::point()?;
        match survives {
            Survives::Process => Ok(()),
            Survives::Machine => file.sync_all(),
        }
    }

    /// Writes the names of the files to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        fault::point()?;
        Ok(fsync(&self.descriptor)?)
    }

    /// Moves a file, without flushing to disk: see [`Self::write`].
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fault::point()?;
        self.in_parent(from, |from_folder, from| {
            self.in_parent(to, |to_folder, to| {
                Ok(renameat(&from_folder.descriptor, from, &to_folder.descriptor, to)?)
            })
        })
    }

    /// Moves a file, unless it does not exist or the new name is taken. Returns `true` if the file was moved.
    pub(super) fn rename_new(&self, from: &str, to: &str) -> io::Result<bool> {
        fault::point()?;
        let moved = self.in_parent(from, |from_folder, from| {
            self.in_parent(to, |to_folder, to| {
                let (from_folder, to_folder) = (&from_folder.descriptor, &to_folder.descriptor);
                Ok(renameat_with(from_folder, from, to_folder, to, RenameFlags::NOREPLACE)?)
            })
        });
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => none_if_missing(other).map(|moved| moved.is_some()),
        }
    }

    /// Removes a file if it exists, without flushing to disk, as in [`Self::rename`].
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fault::point()?;
        let removed =
            self.in_parent(name, |folder, name| Ok(unlinkat(&folder.descriptor, name, AtFlags::empty())?));
        none_if_missing(removed).map(|_| ())
    }

    /// Removes a file on a best-effort basis; leaving it does no harm.
    pub(super) fn discard(&self, name: &str) {
        let _ =
            self.in_parent(name, |folder, name| Ok(unlinkat(&folder.descriptor, name, AtFlags::empty())?));
    }

    /// Reads a file. Returns `None` if it does not exist.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        fault::point()?;
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
        let too_large = || {
            let why = format!("is larger than {} MiB", MAX_FILE_SIZE >> 20);
            UntrustedPath::error(&self.path.join(name), why, Remedy::MoveAside)
        };
        let length = file.metadata()?.len();
        if length > MAX_FILE_SIZE {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_SIZE { Err(too_large()) } else { Ok(Some(bytes)) }
    }

    /// Opens a regular file that belongs to root or the caller. Returns `None` if it does not exist and `flags` do not
    /// create it.
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<Option<File>> {
        // Without O_NONBLOCK, opening a FIFO would block.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = self.in_parent(name, |folder, name| {
            let file = match openat(&folder.descriptor, name, flags, PRIVATE_FILE) {
                // A symbolic link, a socket, or a device without a driver.
                Err(Errno::LOOP | Errno::NXIO) => return Err(not_regular(&folder.path.join(name))),
                other => File::from(other?),
            };
            let found = fstat(&file)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(not_regular(&folder.path.join(name)));
            }
            check_owner(&found, &folder.path.join(name))?;
            if flags.contains(OFlags::CREATE) {
                // The umask may have cleared bits. An unprivileged caller cannot change the mode of root's file.
                let _ = fchmod(&file, PRIVATE_FILE);
            }
            Ok(file)
        });
        none_if_missing(opened)
    }

    /// Returns the names of the files in a subfolder; none if it does not exist.
    pub(super) fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let Some(folder) = none_if_missing(self.subfolder(folder))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in Dir::new(folder.descriptor)? {
            // hostgw only creates UTF-8 names.
            if let Ok(name) = entry?.file_name().to_str()
                && ![".", ".."].contains(&name)
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn not_regular(path: &Path) -> io::Error {
    UntrustedPath::error(path, "is not a regular file".to_owned(), Remedy::MoveAside)
}

fn check_owner(found: &Stat, path: &Path) -> io::Result<()> {
    let caller = rustix::process::geteuid().as_raw();
    if [0, caller].contains(&found.st_uid) {
        return Ok(());
    }
    let expected = if caller == 0 { "root".to_owned() } else { format!("root or uid {caller}") };
    let why = format!("belongs to uid {}, expected {expected}", found.st_uid);
    Err(UntrustedPath::error(path, why, Remedy::FixOwner))
}

fn check_folder(found: &Stat, path: &Path) -> io::Result<()> {
    check_owner(found, path)?;
    let mode = found.st_mode & 0o7777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let why = format!("is writable by group or others (mode {mode:04o})");
    Err(UntrustedPath::error(path, why, Remedy::FixMode))
}

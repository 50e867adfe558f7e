//! A trusted folder, opened once and used through its descriptor, and the steps of writing a file in it.
//!
//! Whoever can replace a folder or a file here can make root carry out a journal of their own. So every folder is
//! opened without following symbolic links and checked through its descriptor: it belongs to root or to the
//! caller, and nobody else can write to it. What happens to its name afterwards does not matter.
//!
//! Each step of a write can fail, and the process can be killed before it: each passes a point of `fault`.

use std::{
    fmt,
    fs::{DirBuilder, File},
    io::{self, Read, Write},
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

use crate::{fault, text};

/// No record is larger: a configuration has at most 64 MiB, and the state of 100,000 nodes about as much.
const LARGEST: u64 = 512 << 20;

const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_FOLDER: Mode = Mode::from_raw_mode(0o700);

/// A folder that only root and the caller can change.
#[derive(Debug)]
pub(super) struct Folder {
    descriptor: OwnedFd,
    /// The name it was opened by, for messages.
    path: PathBuf,
}

/// A file or folder that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suspect {
    path: PathBuf,
    why: String,
    pub(super) remedy: Remedy,
}

/// What to do about an [`Suspect`] file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    FixOwner,
    FixMode,
    Replace,
    MoveAside,
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", text::path(&self.path), self.why)
    }
}

impl std::error::Error for Suspect {}

impl Suspect {
    fn error(path: &Path, why: String, remedy: Remedy) -> io::Error {
        io::Error::other(Self { path: path.to_owned(), why, remedy })
    }

    /// The reason behind `error`, if it is one of these.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Folder {
    /// Opens `path`; only its last component is checked, and what leads there is the caller's choice.
    ///
    /// # Errors
    /// When it is not there, or is [`Suspect`].
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // A slash at the end would have the kernel follow a symbolic link after all.
        let path: PathBuf = path.components().collect();
        Self::open_at(CWD, &path, path.clone())
    }

    /// Takes over the descriptor of a folder that another process opened as `path`.
    ///
    /// # Errors
    /// When it is not a folder, or is [`Suspect`].
    pub(super) fn handed_over(descriptor: OwnedFd, path: PathBuf) -> io::Result<Self> {
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
            Ok(descriptor) => Self::handed_over(descriptor, path),
            Err(error) => {
                let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
                let is_link =
                    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink);
                if is_link {
                    let why = "is a symbolic link".to_owned();
                    return Err(Suspect::error(&path, why, Remedy::Replace));
                }
                Err(error.into())
            }
        }
    }

    /// Another descriptor of the same folder, to be handed to another process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Opens a folder in this one.
    pub(super) fn subfolder(&self, name: &str) -> io::Result<Self> {
        Self::open_at(self.descriptor.as_fd(), Path::new(name), self.path.join(name))
    }

    /// Opens a folder in this one, which is created for its owner alone if it is not there.
    pub(super) fn create_subfolder(&self, name: &str) -> io::Result<Self> {
        Self::create_at(self.descriptor.as_fd(), Path::new(name), self.path.join(name))
    }

    /// Opens `path` as [`Self::open`] does. It is created for its owner alone if it is not there, and so are the
    /// folders above it.
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
            // Whatever the umask took away.
            fchmod(&folder.descriptor, PRIVATE_FOLDER)?;
        }
        Ok(folder)
    }

    /// Calls `work` with the folder and the last component of `name`, which can name a file of a subfolder.
    fn at<T>(&self, name: &str, work: impl FnOnce(&Self, &str) -> io::Result<T>) -> io::Result<T> {
        match name.rsplit_once('/') {
            None => work(self, name),
            Some((folder, name)) => work(&self.subfolder(folder)?, name),
        }
    }

    /// Replaces the file `name` so that, whatever happens, either the old or the new one is there whole.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.at(name, |folder, name| {
            let temporary = format!("{}.new", name.trim_end_matches(".json"));
            folder.write(&temporary, bytes).and_then(|()| folder.rename(&temporary, name)).inspect_err(
                |_| {
                    folder.discard(&temporary);
                },
            )?;
            folder.sync()
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fault::point()?;
        // What a killed hostgw left behind.
        self.discard(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.descriptor, name, flags, PRIVATE_FILE)?);
        fchmod(&file, PRIVATE_FILE)?;
        fault::point()?;
        file.write_all(bytes)?;
        fault::point()?;
        file.sync_all()
    }

    /// Makes a new name in this folder last.
    fn sync(&self) -> io::Result<()> {
        fault::point()?;
        Ok(fsync(&self.descriptor)?)
    }

    /// Moves a file. It is not waited for the disk: a process that ends loses nothing of it, and what a machine
    /// that ends leaves is set aside.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fault::point()?;
        self.at(from, |from_folder, from| {
            self.at(to, |to_folder, to| {
                Ok(renameat(&from_folder.descriptor, from, &to_folder.descriptor, to)?)
            })
        })
    }

    /// Moves a file, unless it is gone or there is one of the new name already. Returns whether it did.
    pub(super) fn rename_new(&self, from: &str, to: &str) -> io::Result<bool> {
        fault::point()?;
        let moved = self.at(from, |from_folder, from| {
            self.at(to, |to_folder, to| {
                let (from_folder, to_folder) = (&from_folder.descriptor, &to_folder.descriptor);
                Ok(renameat_with(from_folder, from, to_folder, to, RenameFlags::NOREPLACE)?)
            })
        });
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => unless_absent(other).map(|moved| moved.is_some()),
        }
    }

    /// Removes a file, if it is there. It is not waited for the disk, as in [`Self::rename`].
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fault::point()?;
        let removed = self.at(name, |folder, name| Ok(unlinkat(&folder.descriptor, name, AtFlags::empty())?));
        unless_absent(removed).map(|_| ())
    }

    /// Removes a file that does no harm where it stays.
    pub(super) fn discard(&self, name: &str) {
        let _ = self.at(name, |folder, name| Ok(unlinkat(&folder.descriptor, name, AtFlags::empty())?));
    }

    /// Reads a file; `None` when it is not there.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        fault::point()?;
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
        let too_large = || {
            let why = format!("is larger than {} MiB", LARGEST >> 20);
            Suspect::error(&self.path.join(name), why, Remedy::MoveAside)
        };
        let length = file.metadata()?.len();
        if length > LARGEST {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST { Err(too_large()) } else { Ok(Some(bytes)) }
    }

    /// Opens a regular file that root or the caller owns; `None` when it is not there, unless `flags` create it.
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<Option<File>> {
        // Without O_NONBLOCK a FIFO would keep the caller waiting.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = self.at(name, |folder, name| {
            let file = match openat(&folder.descriptor, name, flags, PRIVATE_FILE) {
                // A symbolic link, a socket or a device without a driver.
                Err(Errno::LOOP | Errno::NXIO) => return Err(not_regular(&folder.path.join(name))),
                other => File::from(other?),
            };
            let found = fstat(&file)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(not_regular(&folder.path.join(name)));
            }
            check_owner(&found, &folder.path.join(name))?;
            if flags.contains(OFlags::CREATE) {
                // Whatever the umask took away; root's files keep their mode.
                let _ = fchmod(&file, PRIVATE_FILE);
            }
            Ok(file)
        });
        unless_absent(opened)
    }

    /// The names of the files in a subfolder; none when it is not there.
    pub(super) fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let Some(folder) = unless_absent(self.subfolder(folder))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder.descriptor)? {
            // A name that is not UTF-8 is not one of hostgw's.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn not_regular(path: &Path) -> io::Error {
    Suspect::error(path, "is not a regular file".to_owned(), Remedy::MoveAside)
}

fn check_owner(found: &Stat, path: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if [0, own].contains(&found.st_uid) {
        return Ok(());
    }
    let expected = if own == 0 { "root".to_owned() } else { format!("root or uid {own}") };
    let why = format!("belongs to uid {}, expected {expected}", found.st_uid);
    Err(Suspect::error(path, why, Remedy::FixOwner))
}

fn check_folder(found: &Stat, path: &Path) -> io::Result<()> {
    check_owner(found, path)?;
    let mode = found.st_mode & 0o7777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let why = format!("is writable by group or others (mode {mode:04o})");
    Err(Suspect::error(path, why, Remedy::FixMode))
}

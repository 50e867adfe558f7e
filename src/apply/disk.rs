//! The steps in writing a file. Each can fail, and the process can be killed before it: each passes a point
//! of `fault`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::fault;

/// Replaces the file `path` so that, whatever happens, either the old or the new one is there whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    write(&temporary, bytes).and_then(|()| rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    sync_directory(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fault::point()?;
    let mut file = File::create(path)?;
    fault::point()?;
    file.write_all(bytes)?;
    fault::point()?;
    file.sync_all()
}

/// Makes a new name in the directory of `path` last.
fn sync_directory(path: &Path) -> io::Result<()> {
    fault::point()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Moves a file. It is not waited for the disk: a process that ends loses nothing of it, and what a machine
/// that ends leaves is set aside.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::point()?;
    fs::rename(from, to)
}

/// Moves a file, unless it is gone or there is one of the new name already.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    fault::point()?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, if it is there. It is not waited for the disk, as in [`rename`].
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fault::point()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a file; `None` when it is not there.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    fault::point()?;
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

//! Writes files atomically, on systems other than Linux.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Writes `bytes` to a new file next to `path`, and renames it.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, |_| Ok(()))
}

/// Writes `bytes` to a file that everyone may read, and execute if `is_executable`, as far as the system has such modes.
///
/// # Errors
/// As [`write`].
pub(super) fn publish(path: &Path, bytes: &[u8], is_executable: bool) -> io::Result<()> {
    write_with(path, bytes, |file| set_mode(file, if is_executable { 0o755 } else { 0o644 }))
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

fn write_with(path: &Path, bytes: &[u8], prepare: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = OpenOptions::new().write(true).create_new(true).open(&temporary).and_then(|mut file| {
        prepare(&file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes `bytes` in place of a file that the user edits, like [`write`].
///
/// # Errors
/// As [`write`].
pub(super) fn edit(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes)
}

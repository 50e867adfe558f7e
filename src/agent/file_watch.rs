//! Detects when a configuration file may have changed. This includes a replaced file, as editors save it, and a replaced
//! symbolic link on the path to it, as Kubernetes updates the files of a ConfigMap.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// As many symbolic links as the kernel follows (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: usize = 40;

/// The names in each directory on which the content of a file depends.
type WatchedNames = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// What identifies the content of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A watch of one file.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    /// `None` if inotify is not available. The file is then only checked at regular intervals.
    inotify: Option<OwnedFd>,
    names: WatchedNames,
    version: Option<FileVersion>,
}

impl FileWatch {
    /// Starts to watch `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut watch = Self { path, inotify: None, names: WatchedNames::new(), version: None };
        watch.renew();
        watch
    }

    /// The descriptor that becomes readable when something changes in one of the directories.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Reads the notifications. Returns `true` if the file may have changed.
    pub fn take(&mut self) -> bool {
        let Some(descriptor) = &self.inotify else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(descriptor, &mut buffer);
        let mut has_changed = false;
        while let Ok(event) = reader.next() {
            let is_named = |name: &OsStr| self.names.values().any(|names| names.contains(name));
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let concerns_directory = event
                .events()
                .intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::QUEUE_OVERFLOW);
            has_changed |= concerns_directory || name.is_some_and(is_named);
        }
        has_changed
    }

    /// Returns `true` if the metadata of the file has changed since the last call, or if there is no file. Also updates the
    /// directories to watch.
    pub fn has_changed(&mut self) -> bool {
        self.renew();
        let version = fs::metadata(&self.path).ok().map(|metadata| FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
        let has_changed = version.is_none() || version != self.version;
        self.version = version;
        has_changed
    }

    /// Forgets the version, so that the file is read again.
    pub fn forget(&mut self) {
        self.version = None;
    }

    /// Watches the directories on which the file now depends.
    fn renew(&mut self) {
        let names = names(&self.path);
        if names == self.names && self.inotify.is_some() {
            return;
        }
        self.inotify = watch(&names).ok();
        self.names = names;
    }
}

fn watch(names: &WatchedNames) -> io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    for folder in names.keys() {
        inotify::add_watch(&inotify, folder, events | WatchFlags::ONLYDIR)?;
    }
    Ok(inotify)
}

/// Returns the names on which the content of the file at the absolute path `path` depends: those of the file, of the symbolic
/// links on the path to it, and of the first directory that does not exist.
fn names(path: &Path) -> WatchedNames {
    let mut names = WatchedNames::new();
    let mut rest: VecDeque<OsString> = VecDeque::new();
    let push_front = |rest: &mut VecDeque<OsString>, path: &Path| {
        for component in path.components().rev() {
            rest.push_front(component.as_os_str().to_owned());
        }
    };
    push_front(&mut rest, path);
    let (mut folder, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = rest.pop_front() {
        match Path::new(&name).components().next() {
            Some(Component::RootDir) => folder = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                folder.pop();
            }
            Some(Component::Normal(_)) => {
                let next = folder.join(&name);
                let target = fs::read_link(&next).ok().filter(|_| links < MAX_LINKS);
                if target.is_some() || rest.is_empty() || !next.exists() {
                    names.entry(folder.clone()).or_default().insert(name);
                }
                match target {
                    Some(target) => {
                        links += 1;
                        push_front(&mut rest, &target);
                    }
                    None if !next.exists() => break,
                    None => folder = next,
                }
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct WatchedFolder(PathBuf);

    impl WatchedFolder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hostgw-watch-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            Self(path.canonicalize().expect("a path"))
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).expect("written");
        }
    }

    impl Drop for WatchedFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn all_methods_to_replace_a_file_are_noticed() {
        let folder = WatchedFolder::new("ways");
        folder.write("hostgw.yaml", "a");
        let mut watch = FileWatch::new(&folder.0.join("hostgw.yaml"));
        assert!(watch.has_changed() && !watch.has_changed() && !watch.take());
        folder.write("other.yaml", "b");
        assert!(!watch.take(), "another file");
        folder.write("hostgw.yaml", "bb");
        assert!(watch.take() && watch.has_changed(), "written in place");
        folder.write("hostgw.yaml.tmp", "ccc");
        fs::rename(folder.0.join("hostgw.yaml.tmp"), folder.0.join("hostgw.yaml")).expect("renamed");
        assert!(watch.take() && watch.has_changed(), "renamed over");
        fs::remove_file(folder.0.join("hostgw.yaml")).expect("removed");
        assert!(watch.take() && watch.has_changed(), "removed");
        folder.write("hostgw.yaml", "dddd");
        assert!(watch.take() && watch.has_changed() && !watch.has_changed(), "created again");
    }

    #[test]
    fn the_links_of_a_config_map_are_followed() {
        let folder = WatchedFolder::new("map");
        for version in ["..v1", "..v2"] {
            fs::create_dir(folder.0.join(version)).expect("a folder");
            folder.write(&format!("{version}/hostgw.yaml"), version);
        }
        symlink("..v1", folder.0.join("..data")).expect("a link");
        symlink("..data/hostgw.yaml", folder.0.join("hostgw.yaml")).expect("a link");
        let mut watch = FileWatch::new(&folder.0.join("hostgw.yaml"));
        assert!(watch.has_changed() && !watch.has_changed());
        symlink("..v2", folder.0.join("..data_tmp")).expect("a link");
        assert!(!watch.take(), "not in place yet");
        fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).expect("swapped");
        assert!(watch.take() && watch.has_changed() && !watch.has_changed());
        fs::remove_dir_all(folder.0.join("..v1")).expect("removed");
        watch.take();
        folder.write("..v2/hostgw.yaml", "changed in the new folder");
        assert!(watch.take() && watch.has_changed());
    }

    #[test]
    fn a_folder_that_appears_later_is_watched() {
        let folder = WatchedFolder::new("later");
        let mut watch = FileWatch::new(&folder.0.join("etc/hostgw/hostgw.yaml"));
        fs::create_dir_all(folder.0.join("etc/hostgw")).expect("a folder");
        assert!(watch.take() && watch.has_changed());
        folder.write("etc/hostgw/hostgw.yaml", "a");
        assert!(watch.take() && watch.has_changed() && !watch.has_changed());
    }
}

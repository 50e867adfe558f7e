//! hostgw for tests that run it many times: a process that forks for every command, because starting a program takes
//! longer than most commands. Only commands that `Served` sends are run like that; with other arguments, this is hostgw.

#![allow(clippy::expect_used, reason = "tests fail by panicking")]

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    #[cfg(target_os = "linux")]
    if arguments.get(1).is_some_and(|argument| argument == "--serve") {
        return match linux::serve() {
            Some(command) => hostgw::cli::run(command),
            None => ExitCode::SUCCESS,
        };
    }
    hostgw::cli::run(arguments)
}

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code, reason = "fork and the environment; every block has a SAFETY comment")]

    use std::{
        collections::BTreeMap,
        env,
        ffi::OsString,
        fs::{self, File},
        io::{self, BufRead, BufReader, Write},
        os::fd::{AsFd, OwnedFd},
        path::{Path, PathBuf},
        process::ExitCode,
        ptr,
    };

    use hostgw::config::{Document, Format};
    use nftnl::nftnl_sys::libc;
    use rustix::{
        process::{DumpableBehavior, Pid, WaitOptions, set_dumpable_behavior, waitpid},
        stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
        thread::{
            Gid, Uid, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
        },
    };

    /// The program's memory is aligned like this where it uses huge pages.
    const HUGE: usize = 2 << 20;

    /// Arguments, variables, folder, standard output, standard error, namespaces, and whether to run the command here.
    type Request = (Vec<String>, BTreeMap<String, String>, PathBuf, PathBuf, PathBuf, Vec<PathBuf>, bool);

    /// Forks for each command on standard input. Returns the command in the child process, and `None` at the end of the
    /// input. A command is a line `[ARGUMENTS, VARIABLES, FOLDER, STDOUT, STDERR, NAMESPACES, HERE]`; without arguments,
    /// the child ends at once. Each answer is a line with the status of the wait and the process ID.
    ///
    /// A command that runs here leaves behind what valgrind translated for it, and only its exit code is of interest.
    pub fn serve() -> Option<Vec<OsString>> {
        let mut is_first = true;
        // No output may be in a buffer of this process when it forks.
        let take = |descriptor: io::Result<OwnedFd>| File::from(descriptor.expect("an open file"));
        let mut requests = BufReader::new(take(io::stdin().as_fd().try_clone_to_owned()));
        let mut answers = take(io::stdout().as_fd().try_clone_to_owned());
        let mut line = String::new();
        while requests.read_line(&mut line).expect("text") > 0 {
            let (arguments, variables, folder, stdout, stderr, namespaces, is_here): Request =
                serde_json::from_str(&line).expect("a command");
            let namespaces = &namespaces;
            let become_it = || {
                enter(namespaces);
                become_command(arguments, variables, folder, stdout, stderr)
            };
            line.clear();
            if is_here {
                let is_success = hostgw::cli::run(become_it()) == ExitCode::SUCCESS;
                writeln!(answers, "{} {}", i32::from(!is_success) << 8, std::process::id())
                    .expect("a test that reads");
                continue;
            }
            // Commands under valgrind, which would translate everything anew, do not enter namespaces.
            if !namespaces.is_empty() && std::mem::take(&mut is_first) {
                use_huge_pages();
                // The child processes share the schema, which hostgw generates when it first reads a configuration.
                let _ = hostgw::config::load(&Document::new("", "nodes: []", Format::Yaml));
            }
            // SAFETY: this process has only one thread, so the child can do anything that this process can.
            match unsafe { libc::fork() } {
                0 => return Some(become_it()),
                child => {
                    let pid = Pid::from_raw(child).expect("fork failed");
                    let (_, status) =
                        waitpid(Some(pid), WaitOptions::empty()).expect("our child").expect("it ended");
                    writeln!(answers, "{} {child}", status.as_raw()).expect("a test that reads");
                }
            }
        }
        None
    }

    /// Moves the program into huge pages, which child processes share with their page tables. Otherwise, each of them would map
    /// the file again, a few pages at a time, which takes a third of a short command's time.
    fn use_huge_pages() {
        let program = env::current_exe().expect("/proc is mounted");
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
        let mut pages: Option<(usize, usize)> = None;
        for line in maps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [range, "r--p" | "r-xp", .., path] = words[..] else { continue };
            let (start, end) = range.split_once('-').expect("a range");
            let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).expect("an address"));
            let first = pages.map_or(start, |(first, _)| first);
            if Path::new(path) == program && pages.is_none_or(|(_, last)| last == start) {
                pages = Some((first, end));
            }
        }
        let (start, end) = pages.expect("the program's own pages");
        replace_pages(start, end - start);
    }

    /// Replaces read-only pages of the program with huge pages of the same content, all of which can be executed: huge
    /// pages cannot have parts with other rights.
    fn replace_pages(start: usize, length: usize) {
        let check = |address: *mut libc::c_void| {
            assert_ne!(address, libc::MAP_FAILED, "{}", io::Error::last_os_error());
            address
        };
        // SAFETY: the new pages are ours, are large enough, and have the same content when they replace the old ones, which
        // nothing writes to.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            let reserved = check(libc::mmap(ptr::null_mut(), length + HUGE, writable, flags, -1, 0));
            let offset = start.wrapping_sub(reserved as usize) % HUGE;
            let copy = reserved.wrapping_byte_add(offset);
            // Without huge pages, small ones are used.
            libc::madvise(copy, length, libc::MADV_HUGEPAGE);
            let original = ptr::with_exposed_provenance_mut::<libc::c_void>(start);
            ptr::copy_nonoverlapping(original.cast::<u8>(), copy.cast::<u8>(), length);
            assert_eq!(
                libc::mprotect(copy, length, libc::PROT_READ | libc::PROT_EXEC),
                0,
                "{}",
                io::Error::last_os_error()
            );
            let moves = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            check(libc::mremap(copy, length, length, moves, original));
        }
    }

    /// Enters namespaces, as their root.
    fn enter(namespaces: &[PathBuf]) {
        let files = namespaces.iter().map(|path| File::open(path).expect("a namespace"));
        let files: Vec<File> = files.collect();
        let changes_user = namespaces.iter().any(|path| path.ends_with("user"));
        if changes_user {
            // An ordinary user has no right to do so, and no need.
            let _ = set_thread_groups(&[]);
        }
        for file in files {
            move_into_link_name_space(file.as_fd(), None).expect("the right to enter");
        }
        if changes_user {
            let (group, user) = (Gid::ROOT, Uid::ROOT);
            set_thread_res_gid(group, group, group).expect("the root of the namespace");
            set_thread_res_uid(user, user, user).expect("the root of the namespace");
            // As if the program had been started by this user, who can then read its files in /proc.
            set_dumpable_behavior(DumpableBehavior::Dumpable).expect("our own process");
        }
    }

    /// Makes this process what a shell would start. Its copies of the pipes to the test close when `serve` returns.
    fn become_command(
        arguments: Vec<String>,
        variables: BTreeMap<String, String>,
        folder: PathBuf,
        stdout: PathBuf,
        stderr: PathBuf,
    ) -> Vec<OsString> {
        if arguments.is_empty() {
            // SAFETY: nothing has to be done at the end.
            unsafe { libc::_exit(0) };
        }
        for (name, value) in variables {
            // SAFETY: this process has only one thread.
            unsafe { env::set_var(name, value) };
        }
        env::set_current_dir(folder).expect("a folder");
        dup2_stdin(File::open("/dev/null").expect("/dev/null")).expect("standard input");
        dup2_stdout(File::create(stdout).expect("a folder")).expect("standard output");
        dup2_stderr(File::create(stderr).expect("a folder")).expect("standard error");
        arguments.into_iter().map(OsString::from).collect()
    }
}

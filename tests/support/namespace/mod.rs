//! Network namespaces that exist as long as a test.
//!
//! A child process keeps the namespace alive until its standard input ends, and runs the programs of the test there. When
//! the test ends, or its process ends for any reason, the pipe closes, the child removes the test's folder and exits, and
//! the kernel removes the namespace. No names and no mounts are left behind.

mod booted;
mod holder;
mod kept;
mod look;
mod machine;
mod outcome;
mod peer;
pub mod programs;
mod served;
mod witness;

use std::{
    env, fs,
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, chown},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use booted::BootedMachine;
pub use holder::Holder;
use holder::quoted;
pub use kept::SimulatedCluster;
pub use machine::Machine;
pub use outcome::{Outcome, Snapshots, steady};
pub use peer::Peer;
pub use served::Served;
pub use witness::without_counters;

/// The name of the copied program that forks for every command.
const SERVER: &str = "hostgw-served";

/// The ordinary user if the suite runs as root: nobody.
const NOBODY: u32 = 65534;

/// The privileges with which a namespace is created and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The machine's root.
    Root,
    /// An ordinary user who is root only in a user namespace.
    User,
}

impl Privilege {
    /// The privileges that this process can have: root can have both, if there are other users.
    fn possible() -> &'static [Self] {
        match (is_root(), can_become_nobody()) {
            (true, true) => &[Self::Root, Self::User],
            (true, false) => &[Self::Root],
            (false, _) => &[Self::User],
        }
    }
}

/// Returns whether the suite runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0
}

/// Returns whether this process can become [`NOBODY`]. Under `unshare -r`, root is the only user.
pub fn can_become_nobody() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("/proc is mounted");
    let covers = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [from, _, count] if from <= NOBODY && NOBODY - from < count)
    };
    is_root() && map.lines().any(covers)
}

/// Runs `test` with each privilege that this process can have. The name of the thread says which one failed.
pub fn each(test: impl Fn(Privilege) + Sync) {
    thread::scope(|scope| {
        for privilege in Privilege::possible() {
            let name = format!("with the rights of {privilege:?}");
            let run = || test(*privilege);
            thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread");
        }
    });
}

/// A network namespace.
pub struct Namespace {
    privilege: Privilege,
    /// The folder for configuration files and the state directory.
    folder: PathBuf,
    holder: Holder,
    /// The network and the hostname, if a thread of this process can enter them.
    entrance: Option<[fs::File; 2]>,
}

impl Namespace {
    /// Creates a namespace with only the loopback interface, on a host called `machine`.
    pub fn new(privilege: Privilege) -> Self {
        programs::check();
        let folder = new_folder();
        let command = match privilege {
            Privilege::Root => clean(&folder, &["unshare", "-nu"]),
            Privilege::User => clean(&folder, &[as_nobody(), &["unshare", "-rnu"]].concat()),
        };
        let holder = Holder::start(command, &[&folder]);
        let namespace = |kind| fs::File::open(format!("/proc/{}/ns/{kind}", holder.id())).expect("our child");
        let entrance = is_root().then(|| ["net", "uts"].map(namespace));
        Self::ready(Self { privilege, folder, holder, entrance })
    }

    /// Disables duplicate address detection, whose end would look like a change, and sets up lo and the hostname: without
    /// programs, if possible, because starting them takes longer.
    fn ready(self) -> Self {
        let is_ready = self.inside(|| {
            for which in ["default", "all"] {
                // Without IPv6, there is no such file.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0");
            }
            look::set_loopback_up();
            rustix::system::sethostname(b"machine").expect("we are root");
        });
        if is_ready.is_some() {
            return self;
        }
        self.sh("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
                 echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
                 ip link set lo up
                 echo machine 2>/dev/null >/proc/sys/kernel/hostname || hostname machine");
        self
    }

    /// The folder that contains the configuration, and in which hostgw runs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file to the folder.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("our folder");
        give_to_nobody(&path);
    }

    /// A command in the namespace and its folder, with a clean environment.
    pub fn command(&self, program: &str) -> Command {
        let holder = self.holder.id().to_string();
        let words = match self.privilege {
            Privilege::Root => vec!["nsenter", "-t", &holder, "-n", "-u", "--", program],
            Privilege::User => {
                [&["nsenter", "-t", &holder, "-n", "-u", "-U"], as_its_root(), &["--", program]].concat()
            }
        };
        let mut command = clean(&self.folder, &words);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program in the namespace. Returns its standard output.
    #[track_caller]
    pub fn run<const N: usize>(&self, command: [&str; N]) -> String {
        self.run_program(&command.join(" "), &command, &[]).expect(0).stdout
    }

    /// Runs a program with additional environment variables.
    fn run_program(&self, name: &str, words: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let mut script = String::new();
        for (variable, value) in variables {
            script.push_str(&format!("export {variable}={}\n", quoted(value)));
        }
        let words: Vec<String> = words.iter().copied().map(quoted).collect();
        script.push_str(&format!("exec {}\n", words.join(" ")));
        self.run_script(name, &script)
    }

    /// Runs a script, and calls it `name`.
    fn run_script(&self, name: &str, script: &str) -> Outcome {
        self.run_script_in(&self.holder, name, script, || self.command("sh"))
    }

    /// Runs a script in a shell, and calls it `name`. The shell only runs one script at a time, so concurrent ones get
    /// shells of their own.
    fn run_script_in(
        &self,
        shell: &Holder,
        name: &str,
        script: &str,
        another: impl FnOnce() -> Command,
    ) -> Outcome {
        match shell.run(script) {
            Some(output) => Outcome::from_output(self, name, output),
            None => Outcome::of(self, name, another().args(["-c", script])),
        }
    }

    /// Runs `work` in the namespace, with the rights of the suite. Returns `None` if it lacks the right to enter.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Option<T> {
        let entrance = self.entrance.as_ref()?;
        Some(on_thread(|| {
            enter(entrance);
            work()
        }))
    }

    /// Runs a script up to its first failure, which fails the test. Returns its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run_script(script, &format!("set -e\n{script}")).expect(0).stdout
    }

    /// Runs a script. Returns its outcome, whatever its exit code.
    pub fn try_sh(&self, script: &str) -> Outcome {
        self.run_script(script, script)
    }

    /// Runs a script that limits the size of files. Returns its outcome, whatever its exit code. Its output is no file.
    pub fn try_limited_sh(&self, script: &str) -> Outcome {
        Outcome::of(self, script, self.command("sh").args(["-c", script]))
    }

    /// A script on a pseudo-terminal that the test controls.
    pub fn on_terminal(&self, script: &str) -> Command {
        let mut command = self.command("script");
        command.args(["-qec", script, "/dev/null"]).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A hostgw command in the namespace, with its state directory in the folder.
    pub fn hostgw_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(program());
        command.args(arguments);
        command
    }

    /// Starts hostgw with additional environment variables, and with pipes for its output.
    pub fn start_hostgw(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
        self.with_command(program(), |mut command| {
            command.args(arguments).envs(variables.iter().copied());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
        })
    }

    /// Calls `start` with a command in the namespace. Root needs no `nsenter` for that: the program inherits the namespaces
    /// of a thread.
    fn with_command<T: Send>(&self, program: &str, start: impl Fn(Command) -> T + Sync) -> T {
        let inside = match self.privilege {
            Privilege::Root => self.inside(|| start(clean(&self.folder, &[program]))),
            Privilege::User => None,
        };
        inside.unwrap_or_else(|| start(self.command(program)))
    }

    /// Runs hostgw.
    pub fn hostgw(&self, arguments: &[&str]) -> Outcome {
        self.hostgw_with(arguments, &[])
    }

    /// Runs hostgw with additional environment variables.
    pub fn hostgw_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let name = format!("hostgw {}", arguments.join(" "));
        /// The processes that wait for a command.
        static IDLE: Mutex<Vec<Served>> = Mutex::new(Vec::new());
        let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle().pop();
        let mut served = waiting.unwrap_or_else(|| {
            let server = hostgw().with_file_name(SERVER);
            let folder = server.parent().expect("a folder");
            Served::start(clean(folder, &[server.to_str().expect("UTF-8")]), folder)
        });
        let words = [&[program()], arguments].concat();
        let state = self.folder.join("state");
        let state = ("HOSTGW_STATE_DIR", state.to_str().expect("UTF-8"));
        let (output, _) =
            served.run(&words, &[&[state], variables].concat(), &self.folder, &self.namespaces());
        idle().push(served);
        Outcome::from_output(self, &name, output)
    }

    /// The files of its namespaces, in the order in which a process can enter them.
    fn namespaces(&self) -> Vec<String> {
        let kinds: &[&str] = match self.privilege {
            Privilege::Root => &["net", "uts"],
            Privilege::User => &["user", "net", "uts"],
        };
        kinds.iter().map(|kind| format!("/proc/{}/ns/{kind}", self.holder.id())).collect()
    }

    /// Runs hostgw, and fails the test unless it succeeds.
    #[track_caller]
    pub fn hostgw_ok(&self, arguments: &[&str]) -> Outcome {
        self.hostgw(arguments).expect(0)
    }

    /// The state directory of this namespace: the only folder in `HOSTGW_STATE_DIR`, if it exists.
    pub fn state_dir(&self) -> Option<PathBuf> {
        let mut found = fs::read_dir(self.folder.join("state")).ok()?;
        Some(found.next()?.expect("readable").path())
    }

    /// Returns whether nobody holds the locks in the folders whose paths begin like this.
    pub fn are_free(&self, prefix: &str) -> bool {
        let (parent, prefix) = prefix.split_once('/').expect("a folder in a folder");
        let folders = fs::read_dir(self.folder.join(parent)).into_iter().flatten().flatten();
        let mut folders = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(prefix));
        folders.all(|folder| {
            fs::File::open(folder.path().join("lock")).map_or(true, |lock| lock.try_lock().is_ok())
        })
    }

    /// Waits until `is_true` returns true. Fails the test if that takes too long.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_true: impl FnMut() -> bool) {
        self.wait_up_to(Duration::from_secs(20), what, is_true);
    }

    /// The same for what takes longer on a busy machine.
    #[track_caller]
    pub fn wait_up_to(&self, limit: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        loop {
            let start = Instant::now();
            if is_true() {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            // What starts programs must not keep others from running.
            thread::sleep((start.elapsed() * 2).clamp(Duration::from_millis(5), Duration::from_millis(50)));
        }
    }
}

/// The options with which `nsenter` becomes the root of an ordinary user's namespace. Without options, it changes the user,
/// and the groups, which only root can do.
fn as_its_root() -> &'static [&'static str] {
    if is_root() { &[] } else { &["--preserve-credentials"] }
}

/// A script that repeats `script` until it succeeds, and fails after this many seconds.
fn until(script: &str, limit: u32) -> String {
    let repeat = format!("until ({script}) >/dev/null 2>&1; do sleep 0.05; done");
    format!("timeout {limit} sh -c {}", quoted(&repeat))
}

/// Runs `work` on a thread of its own, which can give up what all others keep.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match thread::scope(|scope| scope.spawn(work).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Moves this thread into a network namespace and a hostname, for the rest of its life.
fn enter([network, host]: &[fs::File; 2]) {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let kinds = [LinkNameSpaceType::Network, LinkNameSpaceType::HostNameAndNISDomainName];
    for (file, kind) in [network, host].into_iter().zip(kinds) {
        move_into_link_name_space(file.as_fd(), Some(kind)).expect("we are root");
    }
}

/// The command `words` with a clean environment.
fn clean(folder: &Path, words: &[&str]) -> Command {
    // A suite in the background of a shell ignores SIGINT, and so would all its child processes.
    let prefix: &[&str] = if ignores_signals() { &["env", "--default-signal", "--"] } else { &[] };
    let words = [prefix, words].concat();
    // With another PATH, the standard library only calls `posix_spawn` for a path. It forks otherwise, which took a quarter of
    // the suite's time: the kernel copies the page tables of this large process.
    let mut command = Command::new(programs::find(words[0]));
    command
        .args(&words[1..])
        .env_clear()
        .env("PATH", programs::PATH)
        .env("LC_ALL", "C.UTF-8")
        // git mentions the boundary of a file system, and the folder may be on one of its own.
        .env("GIT_DISCOVERY_ACROSS_FILESYSTEM", "true")
        .env("HOSTGW_STATE_DIR", folder.join("state"))
        .env("HOSTGW", hostgw())
        .current_dir(folder);
    command
}

/// Returns whether this process ignores a signal that its child processes would then ignore, too. Rust resets SIGPIPE,
/// and no program here uses a real-time signal.
fn ignores_signals() -> bool {
    static IGNORES: OnceLock<bool> = OnceLock::new();
    const SIGPIPE: u64 = 1 << 12;
    const STANDARD: u64 = (1 << 31) - 1;
    *IGNORES.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
        u64::from_str_radix(ignored.trim(), 16).expect("a hexadecimal mask") & STANDARD & !SIGPIPE != 0
    })
}

/// The command prefix that drops the privileges to an ordinary user, [`NOBODY`].
fn as_nobody() -> &'static [&'static str] {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    match POSSIBLE.get_or_init(can_become_nobody) {
        true => &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"],
        false => &[],
    }
}

/// Root can use files of the user `nobody`, but that user can only use its own.
fn give_to_nobody(path: &Path) {
    if can_become_nobody() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("we are root");
    }
}

/// Creates a folder that every privilege can use.
fn new_folder() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("hostgw-test-{}-{number}", std::process::id()));
    fs::create_dir(&folder).expect("a temporary folder");
    give_to_nobody(&folder);
    folder
}

/// A copy of the program that an ordinary user can run; the checkout may be inaccessible.
fn hostgw() -> &'static Path {
    static COPY: OnceLock<(PathBuf, Holder)> = OnceLock::new();
    let (path, _) = COPY.get_or_init(|| {
        let folder = new_folder();
        let path = folder.join("hostgw");
        fs::copy(env!("CARGO_BIN_EXE_hostgw"), &path).expect("the built program");
        fs::copy(env!("CARGO_BIN_EXE_hostgw-served"), folder.join(SERVER)).expect("the built program");
        let mut command = Command::new("env");
        command.current_dir("/");
        (path, Holder::start(command, &[&folder]))
    });
    path
}

/// The same, as a word of a command.
fn program() -> &'static str {
    hostgw().to_str().expect("UTF-8")
}

/// Writes to the standard input of a child.
pub fn feed(child: &mut Child, text: &str) {
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("a child that reads");
}

//! The process that rolls back an apply that is not confirmed in time.
//!
//! The command starts it before the first write and shares its lock with it. Over a pair of sockets, the command tells it
//! when the apply is in effect. If the command dies first, the supervisor takes over at once: it waits for the
//! confirmation if the apply is in effect already, and rolls back otherwise. It runs in a session of its own, so that
//! neither a hangup of the terminal nor a signal to the command's process group reaches it. If the command runs in a
//! systemd service, the supervisor also gets a scope of its own, so that it survives the end of the service.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path,
    process::{Child, Command as Program},
    sync::Arc,
    time::Duration,
};

use rustix::process::Pid;

use super::{decision::finish, records::identity, systemd_scope};
use crate::{
    apply::{self, Interrupt, Lock, OVERRIDE, StateDir},
    clock::time,
    error::Error,
    fault,
    kernel::{self, LiveNode},
    record::{Outcome, Pending},
    text::OsError,
};

/// The hidden verb that runs the supervisor.
const VERB: &str = "supervise";

const READY: &str = "ready";
/// The order to wait for the confirmation: the apply is in effect.
const WATCH: &str = "watch";
/// The order to exit: the apply was committed without --confirm, or it failed and was undone.
const DISMISS: &str = "dismiss";

/// How often to poll for changes that trigger no notification.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long a supervisor may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running supervisor, in the command that started it.
#[derive(Debug)]
pub(super) struct Supervisor {
    child: Child,
    socket: UnixStream,
}

impl Supervisor {
    /// Starts a supervisor that shares `lock`.
    ///
    /// # Errors
    /// Returns an error if it does not start; then nothing may be changed.
    pub(super) fn start(dir: &StateDir, lock: &Lock) -> Result<Self, Error> {
        // Without systemd-run or the right to use it, the supervisor ends with the service or the login.
        if systemd_scope::can_end_this_process()
            && let Ok(supervisor) = Self::start_by(systemd_scope::this_program_in_scope(), dir, lock)
        {
            return Ok(supervisor);
        }
        // The running program, even if its file was replaced.
        let mut program = Program::new("/proc/self/exe");
        program.arg0("hostgw");
        Self::start_by(program, dir, lock).map_err(|error| {
            Error::unexpected(format!(
                "cannot start the supervisor of --confirm: {}; nothing was changed",
                OsError(&error)
            ))
        })
    }

    fn start_by(program: Program, dir: &StateDir, lock: &Lock) -> io::Result<Self> {
        let mut supervisor = Self::spawn(program, dir, lock)?;
        let answer = match supervisor.answer() {
            Ok(answer) if answer.trim_end() == READY => return Ok(supervisor),
            Ok(other) => io::Error::other(other.trim_end().to_owned()),
            Err(error) => error,
        };
        let _ = supervisor.child.kill();
        let _ = supervisor.child.wait();
        Err(answer)
    }

    fn spawn(mut program: Program, dir: &StateDir, lock: &Lock) -> io::Result<Self> {
        // The supervisor must not keep open what this command inherited.
        kernel::keep_descriptors()?;
        let (socket, other) = UnixStream::pair()?;
        fault::pass_on(&mut program);
        let child = program
            .arg(VERB)
            .current_dir("/")
            .env(OVERRIDE, path::absolute(dir.base())?)
            .stdin(OwnedFd::from(other))
            .stdout(lock.duplicate()?)
            .stderr(dir.duplicate()?)
            .spawn()?;
        Ok(Self { child, socket })
    }

    fn answer(&mut self) -> io::Result<String> {
        self.socket.set_read_timeout(Some(START_TIMEOUT))?;
        let mut answer = String::new();
        BufReader::new(&self.socket).read_line(&mut answer)?;
        if answer.is_empty() { Err(io::Error::other("it ended")) } else { Ok(answer) }
    }

    /// Tells it that the apply is in effect. [`Self::outcome`] detects a supervisor that is gone.
    pub(super) fn watch(&mut self) {
        let _ = writeln!(self.socket, "{WATCH}");
    }

    /// Tells the supervisor to exit, and waits until it has.
    pub(super) fn dismiss(mut self) {
        let _ = writeln!(self.socket, "{DISMISS}");
        let _ = self.child.wait();
    }

    /// Waits until the apply is confirmed or rolled back, calling `tick` several times a second. At the same interval,
    /// calls `is_stuck`, with whether the supervisor is stopped, and kills it if that returns `true`. Returns `None` if
    /// the supervisor was killed.
    pub(super) fn outcome(
        mut self,
        mut tick: impl FnMut(),
        is_stuck: impl Fn(bool) -> bool,
    ) -> Option<Outcome> {
        self.socket.set_read_timeout(Some(INTERVAL)).ok()?;
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tick();
                    if is_stuck(apply::is_stopped(Pid::from_child(&self.child))) {
                        let _ = self.child.kill();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = self.child.wait();
        serde_json::from_slice(&received).ok()
    }
}

/// Returns the lock description while `pending` awaits confirmation.
pub(super) fn waiting(pending: &Pending) -> String {
    format!("apply --confirm, pending until {}", time(pending.until))
}

/// Runs the supervisor. Standard input is the socket to the command, standard output the lock, and standard error the
/// state directory. `interrupt` is called once signals must no longer end the process.
///
/// # Errors
/// Returns an error if this process was not started by `hostgw apply --confirm`.
pub fn supervise(interrupt: impl FnOnce() -> Result<Arc<Interrupt>, Error>) -> Result<(), Error> {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"hostgw");
    let open = |descriptor: io::Result<OwnedFd>| {
        descriptor.map_err(|error| {
            Error::unexpected(format!("cannot open the inherited directory: {}", OsError(&error)))
        })
    };
    let mut socket = UnixStream::from(open(io::stdin().as_fd().try_clone_to_owned())?);
    let lock = File::from(open(io::stdout().as_fd().try_clone_to_owned())?);
    let folder = open(io::stderr().as_fd().try_clone_to_owned())?;
    let result = watch(&mut socket, lock, folder, interrupt);
    if let Err(error) = &result {
        let _ = writeln!(socket, "{}", error.message);
    }
    let _ = socket.shutdown(Shutdown::Both);
    result
}

/// Reads the order of the command. Returns an empty string if the command is gone, or if the apply is in effect although
/// the command did not say so: a stopped command must not delay the deadline.
fn order(socket: &mut UnixStream, dir: &StateDir) -> Result<String, Error> {
    let cannot =
        |error: io::Error| Error::unexpected(format!("cannot read from the command: {}", OsError(&error)));
    socket.set_read_timeout(Some(INTERVAL)).map_err(cannot)?;
    let (mut order, mut buffer) = (String::new(), [0; 64]);
    while !order.ends_with('\n') {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => order.push_str(&String::from_utf8_lossy(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if dir.pending().is_ok_and(|pending| pending.is_some()) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok(order)
}

fn watch(
    socket: &mut UnixStream,
    lock: File,
    folder: OwnedFd,
    interrupt: impl FnOnce() -> Result<Arc<Interrupt>, Error>,
) -> Result<(), Error> {
    let only = |why: String| {
        Error::unexpected(format!("{why}: this command is only started by `hostgw apply --confirm`"))
    };
    let dir =
        StateDir::from_descriptor(folder, identity()?).map_err(|error| only(error.message.to_string()))?;
    let mut lock = dir.inherit_lock(lock, "apply --confirm").map_err(|error| only(error.to_string()))?;
    let interrupt = interrupt()?;
    let _ = writeln!(socket, "{READY}");
    if order(socket, &dir)?.trim_end() == DISMISS {
        return Ok(());
    }
    let Some((record, pending)) = dir.pending()? else {
        // The command died midway. If something cannot be undone, `hostgw rollback` reports it.
        let _ = apply::recover(&mut LiveNode, &dir);
        return Ok(());
    };
    let _ = lock.describe(&waiting(&pending));
    let decision = apply::wait(&dir, &pending, &interrupt);
    let outcome = finish(&dir, &record, pending, decision);
    let _ = serde_json::to_writer(socket, &outcome);
    Ok(())
}

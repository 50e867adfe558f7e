//! The process that rolls back an apply that is not confirmed in time.
//!
//! It is started before the first write and shares the lock with the command that starts it, over a pair of
//! sockets: the command says when the apply is in force. When the command is gone without a word, the
//! supervisor puts things in order at once: it waits for the confirmation, if the apply was in force already,
//! and rolls back otherwise. It is in a session of its own, so that neither a hang-up of the terminal nor a
//! signal to the command's process group reaches it.

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
    time::Duration,
};

use rustix::process::Pid;

use super::{Failure, Verdict, clock::time, decision::finish, node_records::identity, signals};
use crate::{
    apply::{self, Lock, OVERRIDE, StateDir},
    error::Error,
    fault,
    kernel::{self, LiveNode},
    record::{Outcome, Pending},
};

/// The hidden verb that runs the supervisor.
const VERB: &str = "supervise";

const READY: &str = "ready";
/// The apply is in force: wait for its confirmation.
const WATCH: &str = "watch";
/// The apply has ended, well or not: there is nothing to do.
const DISMISS: &str = "dismiss";

/// How often it is looked whether something happened without a word.
const LOOK: Duration = Duration::from_millis(100);

/// How long a supervisor may take to start.
const START: Duration = Duration::from_secs(10);

/// A supervisor, as the command that started it sees it.
pub(super) struct Supervisor {
    child: Child,
    socket: UnixStream,
}

impl Supervisor {
    /// Starts one that shares `lock`.
    ///
    /// # Errors
    /// When it does not come up; nothing may be changed then.
    pub(super) fn start(dir: &StateDir, lock: &Lock) -> Result<Self, Error> {
        let cannot = |error: io::Error| {
            Error::unexpected(format!(
                "cannot start the supervisor of --confirm: {error}; nothing was changed"
            ))
        };
        let mut supervisor = Self::spawn(dir, lock).map_err(cannot)?;
        match supervisor.answer().map_err(cannot)?.trim_end() {
            READY => Ok(supervisor),
            other => Err(cannot(io::Error::other(other.to_owned()))),
        }
    }

    fn spawn(dir: &StateDir, lock: &Lock) -> io::Result<Self> {
        // Whatever this command inherited is not the supervisor's to keep open.
        kernel::keep_descriptors()?;
        let (socket, other) = UnixStream::pair()?;
        // The running program, even if its file has been replaced.
        let mut program = Program::new("/proc/self/exe");
        fault::hand_on(&mut program);
        let child = program
            .arg0("hostgw")
            .arg(VERB)
            .current_dir("/")
            .env(OVERRIDE, path::absolute(dir.base())?)
            .stdin(OwnedFd::from(other))
            .stdout(lock.share()?)
            .stderr(dir.share()?)
            .spawn()?;
        Ok(Self { child, socket })
    }

    fn answer(&mut self) -> io::Result<String> {
        self.socket.set_read_timeout(Some(START))?;
        let mut answer = String::new();
        BufReader::new(&self.socket).read_line(&mut answer)?;
        if answer.is_empty() { Err(io::Error::other("it ended")) } else { Ok(answer) }
    }

    /// Tells it that the apply is in force. One that is gone is found out by [`Self::outcome`].
    pub(super) fn watch(&mut self) {
        let _ = writeln!(self.socket, "{WATCH}");
    }

    /// Tells it that there is nothing to do, and waits for its end.
    pub(super) fn dismiss(mut self) {
        let _ = writeln!(self.socket, "{DISMISS}");
        let _ = self.child.wait();
    }

    /// Waits for the end of the wait, and calls `tick` several times a second meanwhile. `is_stuck` is asked as
    /// often, and told whether the supervisor is stopped: one that is stuck is killed. None when the supervisor
    /// was killed.
    pub(super) fn outcome(
        mut self,
        mut tick: impl FnMut(),
        is_stuck: impl Fn(bool) -> bool,
    ) -> Option<Outcome> {
        self.socket.set_read_timeout(Some(LOOK)).ok()?;
        let (mut told, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => told.extend_from_slice(&buffer[..length]),
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
        serde_json::from_slice(&told).ok()
    }
}

/// What a lock says whose holder waits for `pending`.
pub(super) fn waiting(pending: &Pending) -> String {
    format!("apply --confirm, waits for hostgw confirm until {}", time(pending.until))
}

/// `hostgw supervise`: standard input is the socket to the command, standard output the lock, standard error the
/// state directory.
pub(super) fn run() -> Verdict {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"hostgw");
    let open = |descriptor: io::Result<OwnedFd>| {
        descriptor.map_err(|error| Error::unexpected(format!("cannot open the inherited folder: {error}")))
    };
    let mut socket = UnixStream::from(open(io::stdin().as_fd().try_clone_to_owned())?);
    let lock = File::from(open(io::stdout().as_fd().try_clone_to_owned())?);
    let folder = open(io::stderr().as_fd().try_clone_to_owned())?;
    let result = supervise(&mut socket, lock, folder);
    if let Err(Failure::Error(error)) = &result {
        let _ = writeln!(socket, "{}", error.message);
    }
    let _ = socket.shutdown(Shutdown::Both);
    result.map(|()| 0)
}

/// What the command says; nothing, when it is gone or when the apply is in force without its word: a command
/// that was stopped shall not stop the time.
fn order(socket: &mut UnixStream, dir: &StateDir) -> Result<String, Error> {
    let cannot = |error: io::Error| Error::unexpected(format!("cannot read from the command: {error}"));
    socket.set_read_timeout(Some(LOOK)).map_err(cannot)?;
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

fn supervise(socket: &mut UnixStream, lock: File, folder: OwnedFd) -> Result<(), Failure> {
    let only = |why: String| {
        Error::unexpected(format!("{why}: this command is only started by `hostgw apply --confirm`"))
    };
    let dir = StateDir::handed_over(folder, identity()?).map_err(|error| only(error.message.to_string()))?;
    let mut lock = dir.take_over(lock, "apply --confirm").map_err(|error| only(error.to_string()))?;
    let interrupt = signals::interrupt()?;
    let _ = writeln!(socket, "{READY}");
    if order(socket, &dir)?.trim_end() == DISMISS {
        return Ok(());
    }
    let Some((record, pending)) = dir.pending()? else {
        // The command ended in the middle. What cannot be undone is for hostgw rollback to tell.
        let _ = apply::recover(&mut LiveNode, &dir);
        return Ok(());
    };
    let _ = lock.describe(&waiting(&pending));
    let decision = apply::wait(&dir, &pending, &interrupt);
    let outcome = finish(&dir, &record, pending, decision);
    let _ = serde_json::to_writer(socket, &outcome);
    Ok(())
}

//! Runs another program and collects what it prints, within limits of time and size.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a program may run, and how much it may print.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Without one, as long as it takes: the user waits and can interrupt it.
    pub time: Option<Duration>,
    /// The most bytes of standard output. What exceeds it fails; standard error is cut.
    pub bytes: usize,
}

/// The output of a program that ended within its limits.
#[derive(Debug)]
pub(super) struct Printed {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// The most bytes that are kept of standard error.
const MAX_STDERR: usize = 16 << 10;

/// How often an ended program is looked for that closed its streams before it ended.
const TICK: Duration = Duration::from_millis(5);

/// Runs `command` without standard input.
///
/// # Errors
/// The program cannot be started, or exceeds its limits; then it has been killed.
pub(super) fn collect(command: &mut Command, limits: Limits) -> io::Result<Printed> {
    let deadline = limits.time.map(|time| Instant::now() + time);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let printed = collect_from(&mut child, limits.bytes, deadline);
    if printed.is_err() {
        // Ended already, if it cannot be killed.
        let _ = child.kill();
        let _ = child.wait();
    }
    printed
}

fn collect_from(child: &mut Child, bytes: usize, deadline: Option<Instant>) -> io::Result<Printed> {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while out.is_some() || err.is_some() {
        let streams = [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)];
        let [out_ready, err_ready] = ready(streams, deadline)?;
        if out_ready && !read_some(&mut out, &mut stdout)? {
            out = None;
        }
        if err_ready && !read_some(&mut err, &mut stderr)? {
            err = None;
        }
        if stdout.len() > bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it prints more than {bytes} bytes"),
            ));
        }
        stderr.truncate(MAX_STDERR);
    }
    Ok(Printed { status: wait(child, deadline)?, stdout, stderr })
}

/// Waits until there is something to read, and tells from which of the streams.
fn ready(streams: [Option<BorrowedFd<'_>>; 2], deadline: Option<Instant>) -> io::Result<[bool; 2]> {
    let mut watched: Vec<PollFd<'_>> =
        streams.iter().flatten().map(|stream| PollFd::from_borrowed_fd(*stream, PollFlags::IN)).collect();
    loop {
        let left = deadline.map(left).transpose()?;
        match poll(&mut watched, left.as_ref()) {
            // A new look at the clock.
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut events = watched.iter().map(|watched| !watched.revents().is_empty());
    Ok(streams.map(|stream| stream.is_some() && events.next().unwrap_or(false)))
}

/// The time until `deadline`.
fn left(deadline: Instant) -> io::Result<Timespec> {
    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
    let left = left.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "it takes too long"))?;
    Timespec::try_from(left).map_err(io::Error::other)
}

/// Reads what is there; returns `false` at the end.
fn read_some(stream: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 8 << 10];
    let Some(stream) = stream else { return Ok(false) };
    match stream.read(&mut buffer) {
        Ok(read) => {
            into.extend_from_slice(&buffer[..read]);
            Ok(read > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}

fn wait(child: &mut Child, deadline: Option<Instant>) -> io::Result<ExitStatus> {
    loop {
        match (child.try_wait()?, deadline) {
            (Some(status), _) => return Ok(status),
            (None, None) => return child.wait(),
            (None, Some(deadline)) => {
                left(deadline)?;
                thread::sleep(TICK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limits: Limits) -> io::Result<Printed> {
        collect(Command::new("sh").args(["-c", script]), limits)
    }

    const ROOMY: Limits = Limits { time: Some(Duration::from_secs(60)), bytes: 1 << 20 };

    #[test]
    fn both_streams_and_the_status_are_collected() {
        let printed = sh("echo out; echo err >&2; exit 3", ROOMY).expect("a result");
        assert_eq!((printed.stdout, printed.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(printed.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let short = Limits { time: Some(Duration::from_millis(200)), ..ROOMY };
        for script in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000", "while :; do echo x >&2; done"] {
            let before = Instant::now();
            let error = sh(script, short).expect_err("no result");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
            assert!(before.elapsed() < Duration::from_secs(30), "{script}");
        }
    }

    #[test]
    fn endless_output_is_cut_off() {
        let limits = Limits { bytes: 10_000, ..ROOMY };
        let error = sh("exec cat /dev/zero", limits).expect_err("no result");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let printed = sh("head -c 100000 /dev/zero >&2", limits).expect("a result");
        assert_eq!(printed.stderr.len(), MAX_STDERR);
    }
}

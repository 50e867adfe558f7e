//! Runs another program and collects its output, within limits of time and size.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long a program may run, and how much it may print.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Unlimited if absent: the user waits and can interrupt it.
    pub time: Option<Duration>,
    /// The maximum size of standard output in bytes. A program that exceeds it fails; standard error is truncated.
    pub bytes: usize,
}

/// The output of a program that ended within its limits.
#[derive(Debug)]
pub(super) struct Printed {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// The number of bytes of standard error to keep.
const MAX_STDERR: usize = 16 << 10;

/// How often to check whether a program that closed its streams has exited.
const TICK: Duration = Duration::from_millis(5);

/// Runs `command` without standard input.
///
/// # Errors
/// Returns an error if the program cannot be started, or if it exceeded its limits and was killed.
pub(super) fn collect(command: &mut Command, limits: Limits) -> io::Result<Printed> {
    let deadline = limits.time.map(|time| Instant::now() + time);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let printed = collect_from(&mut child, limits.bytes, deadline);
    if printed.is_err() {
        // If it cannot be killed, it has already exited.
        let _ = child.kill();
        let _ = child.wait();
    }
    printed
}

/// The output of one of the streams.
type Stream = (bool, io::Result<Vec<u8>>);

fn collect_from(child: &mut Child, bytes: usize, deadline: Option<Instant>) -> io::Result<Printed> {
    let (sender, receiver) = mpsc::channel::<Stream>();
    // Each stream has its own reader, because a full pipe would block the program. A reader ends with its stream, at
    // the latest when the program is killed.
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || sender.send((true, read_all(out, bytes))));
    }
    if let Some(err) = child.stderr.take() {
        thread::spawn(move || sender.send((false, read_start(err, MAX_STDERR))));
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (is_stdout, read) = receive(&receiver, deadline)?;
        *if is_stdout { &mut stdout } else { &mut stderr } = read?;
    }
    Ok(Printed { status: wait(child, deadline)?, stdout, stderr })
}

fn receive(receiver: &mpsc::Receiver<Stream>, deadline: Option<Instant>) -> io::Result<Stream> {
    let gone = || io::Error::other("its output could not be read");
    let Some(deadline) = deadline else { return receiver.recv().map_err(|_| gone()) };
    receiver.recv_timeout(left(deadline)?).map_err(|error| match error {
        RecvTimeoutError::Timeout => too_long(),
        RecvTimeoutError::Disconnected => gone(),
    })
}

/// Reads to the end.
fn read_all(stream: impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    stream.take(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut read)?;
    if read.len() > bytes {
        let message = format!("it printed more than {bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(read)
}

/// Reads to the end, and keeps the start.
fn read_start(mut stream: impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    stream.by_ref().take(u64::try_from(bytes).unwrap_or(u64::MAX)).read_to_end(&mut read)?;
    io::copy(&mut stream, &mut io::sink())?;
    Ok(read)
}

/// Returns the time until `deadline`.
fn left(deadline: Instant) -> io::Result<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or_else(too_long)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it timed out")
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

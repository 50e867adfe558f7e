//! The progress line: what a command is doing, on the last line of a terminal.
//!
//! It appears once a command has been working for half a second, and disappears before anything else is printed.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use console::{Style, Term, truncate_str};

use super::terminal;
use crate::{
    progress::{self, TaskState},
    text::printable,
};

/// How long a command works before the line appears.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(100);

static LINE: Mutex<ProgressLine> = Mutex::new(ProgressLine { busy_since: None, is_shown: false });

struct ProgressLine {
    /// Since when the command has been working without printing anything.
    busy_since: Option<Instant>,
    /// Whether the line is on the terminal.
    is_shown: bool,
}

/// Shows from now on what the command is doing, in this style. Does nothing unless standard error is a terminal with
/// escape sequences.
pub(super) fn start(style: Style) {
    if !io::stderr().is_terminal() || terminal::is_dumb() {
        return;
    }
    let run = move || {
        loop {
            thread::sleep(INTERVAL);
            line().update(progress::current(), &style);
        }
    };
    // Without a thread, there is no line.
    let _ = thread::Builder::new().name("progress".to_owned()).spawn(run);
}

/// Prints something while the line is hidden.
pub(super) fn hidden<T>(print: impl FnOnce() -> T) -> T {
    let mut line = line();
    line.clear();
    line.busy_since = None;
    print()
}

fn line() -> MutexGuard<'static, ProgressLine> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProgressLine {
    fn update(&mut self, current: Option<(TaskState, usize)>, style: &Style) {
        let Some((task, done)) = current else {
            self.clear();
            self.busy_since = None;
            return;
        };
        if self.busy_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            return;
        }
        let text = printable(&describe(&task, done, task.since.elapsed()));
        let text =
            truncate_str(&text, terminal::width(&Term::stderr(), true).saturating_sub(1), "…").into_owned();
        self.is_shown = true;
        print(&format!("{CLEAR}{}", style.apply_to(text)));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            print(CLEAR);
        }
    }
}

/// Returns to the first column and erases the line.
const CLEAR: &str = "\r\x1b[K";

fn print(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// `writing routes: 45056 of 100000, 52000/s, 2 s left`.
fn describe(task: &TaskState, done: usize, elapsed: Duration) -> String {
    let name = &task.name;
    let Some(total) = task.total else { return name.to_string() };
    let milliseconds = elapsed.as_millis().max(1);
    let rate = done as u128 * 1000 / milliseconds;
    if rate == 0 {
        return format!("{name}: {done} of {total}");
    }
    let left = (total.saturating_sub(done) as u128).div_ceil(rate);
    format!("{name}: {done} of {total}, {rate}/s, {left} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_described_by_its_average_rate() {
        let described = |total, done, elapsed| {
            let task =
                TaskState { name: "writing routes".into(), total, since: Instant::now(), done_before: 0 };
            describe(&task, done, Duration::from_millis(elapsed))
        };
        assert_eq!(described(None, 5, 2_000), "writing routes");
        assert_eq!(described(Some(100), 0, 2_000), "writing routes: 0 of 100");
        assert_eq!(described(Some(100), 1, 0), "writing routes: 1 of 100, 1000/s, 1 s left");
        assert_eq!(
            described(Some(100_000), 25_000, 500),
            "writing routes: 25000 of 100000, 50000/s, 2 s left"
        );
        assert_eq!(described(Some(100), 1, 1_500), "writing routes: 1 of 100");
        assert_eq!(described(Some(100), 100, 10_000), "writing routes: 100 of 100, 10/s, 0 s left");
        assert_eq!(described(Some(0), 3, 1_000), "writing routes: 3 of 0, 3/s, 0 s left");
    }
}

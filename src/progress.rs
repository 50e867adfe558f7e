//! The current task of this process, for the progress line of a terminal.
//!
//! Code that can take long begins a [`Task`], and counts what is done. That costs a lock for a task and an addition for
//! a count, whether or not anyone looks. Whoever shows it calls [`current`] from time to time, on a thread of its own, so
//! that a step that hangs is shown, too.

use std::{
    borrow::Cow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

static CURRENT: Mutex<Option<TaskState>> = Mutex::new(None);
static DONE: AtomicUsize = AtomicUsize::new(0);

/// The current task.
#[derive(Debug, Clone)]
pub struct TaskState {
    /// The task, in the form "writing routes".
    pub name: Cow<'static, str>,
    /// The amount of work, if it is known.
    pub total: Option<usize>,
    /// When it began, which also tells two tasks apart.
    pub since: Instant,
    /// The task before this one began.
    pub done_before: usize,
}

/// A task that is being done. When this is dropped, the task that it is a part of continues.
#[derive(Debug)]
pub struct Task {
    outer: Option<TaskState>,
}

impl Task {
    /// Begins a task.
    #[must_use]
    pub fn begin(name: impl Into<Cow<'static, str>>) -> Self {
        Self::new(name.into(), None)
    }

    /// Begins a task with `total` things to do.
    #[must_use]
    pub fn counted(name: impl Into<Cow<'static, str>>, total: usize) -> Self {
        Self::new(name.into(), Some(total))
    }

    fn new(name: Cow<'static, str>, total: Option<usize>) -> Self {
        let done_before = DONE.load(Ordering::Relaxed);
        let task = TaskState { name, total, since: Instant::now(), done_before };
        Self { outer: lock().replace(task) }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        *lock() = self.outer.take();
    }
}

/// Counts things that the current task has done.
pub fn advance(count: usize) {
    DONE.fetch_add(count, Ordering::Relaxed);
}

/// Renames the current task, whose name tells how far it is.
pub fn rename(name: impl Into<Cow<'static, str>>) {
    if let Some(task) = lock().as_mut() {
        task.name = name.into();
    }
}

/// Returns the current task, and how many things it has done.
#[must_use]
pub fn current() -> Option<(TaskState, usize)> {
    let task = lock().clone()?;
    let done = DONE.load(Ordering::Relaxed).saturating_sub(task.done_before);
    Some((task, done))
}

fn lock() -> std::sync::MutexGuard<'static, Option<TaskState>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Runs a function for every node, on all processors.

use std::{
    num::NonZero,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::KeepGoing;
use crate::{
    error::Error,
    progress::{self, Task},
    text::OsError,
};

/// Calls `work` with every number below `count` and returns the results in this order. `name` describes the work.
/// `keep_going` is called on the calling thread.
///
/// # Errors
/// Returns the error of the lowest number that failed, or the error of `keep_going`. After an error,
/// no new work starts.
pub fn each<T: Send>(
    name: &'static str,
    count: usize,
    keep_going: &KeepGoing,
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let _task = Task::counted(name, count);
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next, work) = (sender.clone(), &next, &work);
            let take = move || {
                let number = next.fetch_add(1, Ordering::Relaxed);
                (number < count).then_some(number)
            };
            let run = move || {
                while let Some(number) = take() {
                    let result = work(number);
                    if result.is_err() {
                        next.store(count, Ordering::Relaxed);
                    }
                    if sender.send((number, result)).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new()
                .name("worker".to_owned())
                .spawn_scoped(scope, run)
                .map_err(|error| Error::unexpected(format!("cannot start a thread: {}", OsError(&error))))?;
        }
        drop(sender);
        let mut done = Vec::with_capacity(count);
        for (number, result) in results {
            done.push((number, result));
            progress::advance(1);
            keep_going()?;
        }
        done.sort_unstable_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(number: usize) -> Error {
        Error::unexpected(format!("number {number} failed"))
    }

    #[test]
    fn results_are_in_order() {
        let squares = each("work", 100, &|| Ok(()), |number| Ok(number * number)).unwrap();
        assert_eq!(squares, (0..100).map(|number| number * number).collect::<Vec<_>>());
        assert!(each("work", 0, &|| Ok(()), |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn the_first_failure_is_reported_and_ends_the_work() {
        for _ in 0..100 {
            let begun = AtomicUsize::new(0);
            let result = each("work", 10_000, &|| Ok(()), |number| {
                begun.fetch_add(1, Ordering::Relaxed);
                if number % 10 == 7 { Err(failure(number)) } else { Ok(()) }
            });
            assert_eq!(result.unwrap_err().message, failure(7).message);
            assert!(begun.into_inner() < 10_000);
        }
    }

    #[test]
    fn an_error_of_the_caller_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let calls = std::cell::Cell::new(0);
        let keep_going = || {
            calls.set(calls.get() + 1);
            if calls.get() == 3 { Err(failure(3)) } else { Ok(()) }
        };
        let result = each("work", 100_000, &keep_going, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            thread::sleep(std::time::Duration::from_micros(50));
            Ok(())
        });
        assert_eq!(result.unwrap_err().message, failure(3).message);
        assert!(begun.into_inner() < 100_000);
    }
}

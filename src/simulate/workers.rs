//! Does the same for every node, on all processors.

use std::{
    num::NonZero,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::error::Error;

/// Calls `work` with every number below `count` and returns the results in this order. `progress` receives how many are
/// done, on the calling thread.
///
/// # Errors
/// Returns the error of the lowest number that failed, or the error of `progress`. No other work is begun after it.
pub fn each<T: Send>(
    count: usize,
    progress: &dyn Fn(usize) -> Result<(), Error>,
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count);
    let next = AtomicUsize::new(0);
    let stop = || next.store(count, Ordering::Relaxed);
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
                    if sender.send((number, work(number))).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new()
                .name("worker".to_owned())
                .spawn_scoped(scope, run)
                .map_err(|error| Error::unexpected(format!("cannot start a thread: {error}")))?;
        }
        drop(sender);
        progress(0)?;
        let mut done = Vec::with_capacity(count);
        for (number, result) in results {
            if result.is_err() {
                stop();
            }
            done.push((number, result));
            progress(done.len())?;
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
    fn results_are_in_order_and_progress_counts_them() {
        let counted = std::cell::RefCell::new(Vec::new());
        let progress = |done| {
            counted.borrow_mut().push(done);
            Ok(())
        };
        let squares = each(100, &progress, |number| Ok(number * number)).unwrap();
        assert_eq!(squares, (0..100).map(|number| number * number).collect::<Vec<_>>());
        assert_eq!(counted.into_inner(), (0..=100).collect::<Vec<_>>());
        assert!(each(0, &|_| Ok(()), |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn the_first_failure_is_reported_and_ends_the_work() {
        for _ in 0..100 {
            let begun = AtomicUsize::new(0);
            let result = each(10_000, &|_| Ok(()), |number| {
                begun.fetch_add(1, Ordering::Relaxed);
                if number % 10 == 7 { Err(failure(number)) } else { Ok(()) }
            });
            assert_eq!(result.unwrap_err().message, failure(7).message);
            assert!(begun.into_inner() < 10_000);
        }
    }

    #[test]
    fn an_error_of_progress_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let progress = |done| if done == 3 { Err(failure(3)) } else { Ok(()) };
        let result = each(1_000_000, &progress, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(result.unwrap_err().message, failure(3).message);
        assert!(begun.into_inner() < 1_000_000);
    }
}

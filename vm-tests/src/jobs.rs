//! Several machines, a few of them at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

/// Does `count` pieces of work on `jobs` threads. Calls `on_done` in this thread as each one ends.
/// Returns the results in order, or the first error, after which no new work begins.
///
/// # Errors
///
/// The first error that `work` returns.
pub fn run<T: Send, E: Send>(
    jobs: usize,
    count: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    mut on_done: impl FnMut(&T),
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let (sender, results) = channel();
    let mut done = thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || sender.send((index, work(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = Vec::new();
        for (index, result) in results {
            match result {
                Ok(value) => {
                    on_done(&value);
                    done.push((index, value));
                }
                Err(error) => {
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    })?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_is_done_and_results_are_in_order() {
        for jobs in [0, 1, 3, 20] {
            let mut seen = 0;
            let done = run(jobs, 10, |n| Ok::<_, ()>(n * n), |_| seen += 1).unwrap();
            assert_eq!(done, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
            assert_eq!(seen, 10);
        }
        assert_eq!(run(2, 0, |_| Ok::<u8, ()>(0), |_| {}), Ok(vec![]));
    }

    #[test]
    fn an_error_ends_the_work() {
        assert_eq!(run(1, 10, |n| if n == 2 { Err("two") } else { Ok(n) }, |_| {}), Err("two"));
    }
}

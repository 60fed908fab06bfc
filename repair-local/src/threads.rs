//! Work off the async threads: on one thread, on all processors, or as a stream.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use futures::{Stream, stream};
use repair_core::lake::BatchStream;
use repair_core::{Error, ErrorKind, Result};

/// More readers than this only compete for the disk.
const MAX_WORKERS: usize = 8;

/// Batches that may wait for their reader.
pub(crate) const BATCHES_AHEAD: usize = 4;

/// How many threads work at once.
#[must_use]
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)
}

/// Folds items on as many threads as are useful, each with its own state; returns the states. If several items fail, the error is that of
/// the first in order, whichever thread was faster.
pub(crate) fn fold_parallel<T: Sync, S: Send>(
    items: &[T],
    new: impl Fn() -> S + Sync,
    fold: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> (S, Option<(usize, Error)>) {
        let mut state = new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            if let Err(error) = fold(&mut state, item) {
                failed.store(true, Ordering::Relaxed);
                return (state, Some((index, error)));
            }
        }
        (state, None)
    };
    let threads = workers().min(items.len());
    if threads <= 1 {
        let (state, error) = work();
        return error.map_or(Ok(vec![state]), |(_, error)| Err(error));
    }
    let ended: Vec<std::thread::Result<_>> = std::thread::scope(|scope| {
        // Where the system gives no more threads, this one does the rest.
        let handles: Vec<_> = (1..threads).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        std::iter::once(own).chain(handles.into_iter().map(std::thread::ScopedJoinHandle::join)).collect()
    });
    let mut states = Vec::with_capacity(threads);
    let mut first: Option<(usize, Error)> = None;
    for end in ended {
        let (state, error) = end.map_err(|_| Error::internal("a reading thread of the lake panicked"))?;
        states.push(state);
        if let Some((index, error)) = error
            && first.as_ref().is_none_or(|(earliest, _)| index < *earliest)
        {
            first = Some((index, error));
        }
    }
    first.map_or(Ok(states), |(_, error)| Err(error))
}

/// As [`fold_parallel`], with one result for each item, in the items' order.
pub(crate) fn map_parallel<T: Sync, R: Send>(items: &[T], map: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let indexed: Vec<(usize, &T)> = items.iter().enumerate().collect();
    let states = fold_parallel(&indexed, Vec::new, |done: &mut Vec<(usize, R)>, (index, item)| {
        done.push((*index, map(item)?));
        Ok(())
    })?;
    let mut done: Vec<(usize, R)> = states.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Runs blocking work off the async threads.
///
/// # Errors
/// Those of the work, and `internal` if it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("a thread of the lake panicked").because(error)),
    }
}

/// As [`blocking`], for work that takes much memory, on a thread of its own. An allocator mostly keeps a store of free memory for each thread, which
/// the next new thread inherits. The threads for blocking work stay, and any of them may get the work, so each would keep as much as it took.
pub(crate) async fn on_its_own_thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, answer) = tokio::sync::oneshot::channel();
    // Nobody may be there any more to take the answer; what was done stays done.
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(done.send(work())));
    started.map_err(|error| Error::new(ErrorKind::Transient, "could not start a thread of the lake").because(error))?;
    answer.await.map_err(|_| Error::internal("a thread of the lake panicked"))?
}

/// Streams the batches of a reader that runs on a thread of its own.
pub fn stream_of(read: impl FnOnce(&mut dyn FnMut(RecordBatch) -> Result<ControlFlow<()>>) -> Result<()> + Send + 'static) -> BatchStream {
    stream_ahead(BATCHES_AHEAD, |send| read(send))
}

/// Streams what comes from a thread of its own, which is so many items ahead.
pub(crate) fn stream_ahead<T: Send + 'static>(
    ahead: usize,
    read: impl FnOnce(&mut dyn FnMut(T) -> Result<ControlFlow<()>>) -> Result<()> + Send + 'static,
) -> Pin<Box<dyn Stream<Item = Result<T>> + Send>> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Option<T>>>(ahead);
    tokio::task::spawn_blocking(move || {
        let mut send = |item| {
            // Nobody reads any more, so stop.
            Ok(if sender.blocking_send(Ok(Some(item))).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        // The end is sent too, so that a reader that panicked does not look finished.
        let end = read(&mut send).map(|()| None);
        let _ = sender.blocking_send(end);
    });
    Box::pin(stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(Some(item))) => Some((Ok(item), Some(receiver))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(Error::internal("a reading thread of the lake panicked")), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_in_order_is_the_one_told() {
        let items: Vec<u32> = (0..1_000).collect();
        for _ in 0..20 {
            let error =
                map_parallel(&items, |&item| if item >= 500 { Err(Error::invalid(item.to_string())) } else { Ok(item) }).unwrap_err();
            assert_eq!(error.message(), "500");
        }
        assert_eq!(map_parallel(&items, |&item| Ok(item)).unwrap(), items);
    }
}

//! Work off the async threads: on one thread, on all processors, or as a stream.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

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
    fold_on(workers(), items, new, fold)
}

fn fold_on<T: Sync, S: Send>(
    most: usize,
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
    let threads = most.min(items.len());
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
        let (state, error) = end.map_err(|_| reader_panicked())?;
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
    map_on(workers(), items, map)
}

/// As [`map_parallel`], on more threads than there are processors, for work that mostly waits for the disk, such as files that are flushed.
pub(crate) fn map_waiting<T: Sync, R: Send>(items: &[T], map: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    map_on(workers() * 2, items, map)
}

fn map_on<T: Sync, R: Send>(most: usize, items: &[T], map: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let indexed: Vec<(usize, &T)> = items.iter().enumerate().collect();
    let states = fold_on(most, &indexed, Vec::new, |done: &mut Vec<(usize, R)>, (index, item)| {
        done.push((*index, map(item)?));
        Ok(())
    })?;
    let mut done: Vec<(usize, R)> = states.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// What a thread gives of an item.
enum Given<B, E> {
    Part(B),
    End(Result<E>),
}

/// Reads items on as many threads as are useful, and takes what they give as if they were read one after the other: the parts of an item in their
/// order, then its end, then those of the next item. Of what is read ahead, a few parts wait for each thread.
pub(crate) fn read_in_order<T: Sync, B: Send, E: Send>(
    items: &[T],
    read: impl Fn(&T, &mut dyn FnMut(B) -> Result<ControlFlow<()>>) -> Result<E> + Sync,
    mut take: impl FnMut(B) -> Result<ControlFlow<()>>,
    mut end: impl FnMut(E),
) -> Result<ControlFlow<()>> {
    let threads = workers().min(items.len());
    if threads <= 1 {
        return read_each(items, &read, &mut take, &mut end);
    }
    // Whoever takes the next item says in the same moment where its parts come.
    let (begun, begins) = sync_channel::<Receiver<Given<B, E>>>(threads);
    let next = Mutex::new((0, begun));
    let work = || loop {
        let (item, sender) = {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(item) = items.get(next.0) else { break };
            let (sender, receiver) = sync_channel(BATCHES_AHEAD);
            if next.1.send(receiver).is_err() {
                break;
            }
            next.0 += 1;
            (item, sender)
        };
        let mut send = |part| Ok(if sender.send(Given::Part(part)).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
        let ended = read(item, &mut send);
        if sender.send(Given::End(ended)).is_err() {
            break;
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        if handles.is_empty() {
            // The system gives no more threads.
            return read_each(items, &read, &mut take, &mut end);
        }
        let taking = || take_all(&begins, items.len(), &mut take, &mut end);
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(taking));
        // Who still reads is not waited for.
        drop(begins);
        let has_panicked = handles.into_iter().map(std::thread::ScopedJoinHandle::join).fold(false, |any, ended| any | ended.is_err());
        match taken {
            Ok(Ok(_)) if has_panicked => Err(reader_panicked()),
            Ok(taken) => taken,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn reader_panicked() -> Error {
    Error::internal("a reading thread of the lake panicked")
}

/// Takes what threads give of so many items.
fn take_all<B, E>(
    begins: &Receiver<Receiver<Given<B, E>>>,
    items: usize,
    take: &mut impl FnMut(B) -> Result<ControlFlow<()>>,
    end: &mut impl FnMut(E),
) -> Result<ControlFlow<()>> {
    for _ in 0..items {
        let parts = begins.recv().map_err(|_| reader_panicked())?;
        loop {
            match parts.recv().map_err(|_| reader_panicked())? {
                Given::Part(part) => {
                    if take(part)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Given::End(ended) => {
                    end(ended?);
                    break;
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// As [`read_in_order`], on this thread.
fn read_each<T, B, E>(
    items: &[T],
    read: &impl Fn(&T, &mut dyn FnMut(B) -> Result<ControlFlow<()>>) -> Result<E>,
    take: &mut impl FnMut(B) -> Result<ControlFlow<()>>,
    end: &mut impl FnMut(E),
) -> Result<ControlFlow<()>> {
    for item in items {
        let mut flow = ControlFlow::Continue(());
        let ended = read(item, &mut |part| {
            flow = take(part)?;
            Ok(flow)
        })?;
        if flow.is_break() {
            return Ok(flow);
        }
        end(ended);
    }
    Ok(ControlFlow::Continue(()))
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

/// As [`blocking`], for work that takes much memory, on a thread that does only work of this name. An allocator mostly keeps a store of free memory
/// for each thread. The threads for blocking work are many, and any of them may get the work, so each would keep as much as it took.
///
/// # Errors
/// As [`blocking`], and `transient` if the system gives no more threads.
pub(crate) async fn on_its_own_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, answer) = tokio::sync::oneshot::channel();
    // Nobody may be there any more to take the answer; what was done stays done.
    let job = move || -> Answering {
        let result = work();
        Box::new(move || drop(done.send(result)))
    };
    give(name, Box::new(job)).map_err(|error| Error::new(ErrorKind::Transient, "could not start a thread of the lake").because(error))?;
    answer.await.map_err(|_| Error::internal("a thread of the lake panicked"))?
}

/// Work for a thread, which returns what hands out the result: whoever has the result and asks for more meets the same thread.
type Job = Box<dyn FnOnce() -> Answering + Send>;
type Answering = Box<dyn FnOnce()>;

/// Threads that have done work of a name and wait for more, by name; the one that worked last comes last.
static IDLE: Mutex<BTreeMap<&str, Vec<Waiting>>> = Mutex::new(BTreeMap::new());

/// A thread that waits for work, and what takes the work.
type Waiting = (ThreadId, Sender<Job>);

/// A thread that has had nothing to do for this long ends.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Takes a thread from those that wait; false if somebody else has taken it to give it work.
fn is_still_idle(name: &str, id: ThreadId) -> bool {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(waiting) = idle.get_mut(name) else { return false };
    let before = waiting.len();
    waiting.retain(|(of, _)| *of != id);
    waiting.len() < before
}

/// Gives work to a thread that waits for it, or else to a new one.
fn give(name: &'static str, mut job: Job) -> std::io::Result<()> {
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waiting = idle().get_mut(name).and_then(Vec::pop);
        let Some((_, thread)) = waiting else { break };
        match thread.send(job) {
            Ok(()) => return Ok(()),
            Err(SendError(refused)) => job = refused,
        }
    }
    let works = move || {
        let (own, id) = (channel::<Job>(), std::thread::current().id());
        loop {
            let answer = job();
            idle().entry(name).or_default().push((id, own.0.clone()));
            answer();
            job = match own.1.recv_timeout(IDLE_TIME) {
                Ok(next) => next,
                Err(_) => {
                    if is_still_idle(name, id) {
                        return;
                    }
                    // Somebody has taken this thread just now.
                    match own.1.recv() {
                        Ok(next) => next,
                        Err(_) => return,
                    }
                }
            };
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(works).map(drop)
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
            None => Some((Err(reader_panicked()), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order_whoever_is_faster() {
        let items: Vec<u64> = (0..200).collect();
        let parts = |item: u64| item % 7;
        let read = |item: &u64, sink: &mut dyn FnMut((u64, u64)) -> Result<ControlFlow<()>>| {
            std::thread::sleep(std::time::Duration::from_micros(*item % 3 * 100));
            for part in 0..parts(*item) {
                if sink((*item, part))?.is_break() {
                    break;
                }
            }
            if *item == 150 { Err(Error::invalid("150")) } else { Ok(*item) }
        };
        let all: Vec<(u64, u64)> = items.iter().flat_map(|item| (0..parts(*item)).map(|part| (*item, part))).collect();
        // The first 150 items have no error; then each way to stop.
        let (mut taken, mut ended) = (Vec::new(), Vec::new());
        let flow = read_in_order(
            &items[..150],
            read,
            |part| {
                taken.push(part);
                Ok(ControlFlow::Continue(()))
            },
            |item| ended.push(item),
        )
        .unwrap();
        assert!(flow.is_continue() && taken == all[..taken.len()] && ended == items[..150]);
        assert_eq!(taken.len(), items[..150].iter().map(|item| usize::try_from(parts(*item)).unwrap()).sum::<usize>());
        let error = read_in_order(&items, read, |_| Ok(ControlFlow::Continue(())), drop).unwrap_err();
        assert_eq!(error.message(), "150");
        for most in [1, 2, 30, 100] {
            let mut taken = Vec::new();
            let take = |part| {
                taken.push(part);
                Ok(if taken.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            assert!(read_in_order(&items, read, take, drop).unwrap().is_break());
            assert_eq!(taken, all[..most]);
        }
        let refuse = |_| Err(Error::invalid("enough"));
        assert_eq!(read_in_order(&items, read, refuse, drop).unwrap_err().message(), "enough");
        let panics = |item: &u64, sink: &mut dyn FnMut(u64) -> Result<ControlFlow<()>>| {
            assert!(*item != 20, "as a decoder may");
            sink(*item).map(|_| ())
        };
        assert!(read_in_order(&items, panics, |_| Ok(ControlFlow::Continue(())), drop).unwrap_err().message().contains("panicked"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_of_a_name_stays_on_few_threads_and_survives_a_panic() {
        let here = || on_its_own_thread("test", || Ok(std::thread::current().id()));
        let first = here().await.unwrap();
        for _ in 0..50 {
            assert_eq!(here().await.unwrap(), first);
        }
        assert_ne!(on_its_own_thread("other", || Ok(std::thread::current().id())).await.unwrap(), first);
        let both = futures::future::join_all((0..20).map(|_| here())).await;
        assert!(both.into_iter().all(|id| id.is_ok()));
        let fails = on_its_own_thread("test", || -> Result<()> { panic!("as a decoder may") }).await;
        assert!(fails.unwrap_err().message().contains("panicked"));
        here().await.unwrap();
        // One that is taken at the moment in which it would end does its work.
        let (id, sender) = IDLE.lock().unwrap().get_mut("test").unwrap().pop().unwrap();
        assert!(!is_still_idle("test", id));
        sender.send(Box::new(|| Box::new(|| ()))).unwrap();
    }

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

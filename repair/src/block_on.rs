//! Runs async code from code that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use repair_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Runtime};

/// Threads for blocking work that a run needs at once so as not to wait for itself: it may read and write several streams of rows.
const BLOCKING: usize = 8;

/// They are kept, so that what was there at the beginning is there later.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 86_400);

/// How long they wait for each other to begin.
const TOGETHER: Duration = Duration::from_millis(200);

/// A runtime with all the threads and timers that this crate needs. That it has them is found now, and not halfway through a run, where
/// nothing could be done about it.
///
/// # Errors
/// `transient` if the operating system does not give the process enough threads.
pub fn runtime() -> Result<Runtime> {
    let refused = |error: std::io::Error| {
        let message =
            "the system gives this process no threads; raise its limit (`ulimit -u`, or that of its container), or stop other programs";
        Error::new(ErrorKind::Transient, message).because(error)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    start(workers + BLOCKING).map_err(refused)?;
    let runtime = Builder::new_multi_thread().enable_all().thread_keep_alive(KEEP_ALIVE).build().map_err(refused)?;
    // Each waits for all others, so that each has a thread of its own; not for ever, should another program take the last thread just now.
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..BLOCKING {
        let begun = begun.clone();
        runtime.spawn_blocking(move || {
            begun.fetch_add(1, Ordering::SeqCst);
            let since = Instant::now();
            while begun.load(Ordering::SeqCst) < BLOCKING && since.elapsed() < TOGETHER {
                std::thread::yield_now();
            }
        });
    }
    Ok(runtime)
}

/// Call this first in `main`. Each query of users' SQL over a lake in a folder then runs in a process of its own, so that it can neither
/// exhaust this one nor outlive its step; so does each expression of a workflow that could need much memory. That process is this program,
/// started again: in it, this function runs the query or the expression, and does not return.
///
/// Without this call, both run within the program.
pub fn init() {
    crate::apart::serve();
    #[cfg(feature = "sql")]
    repair_sql::serve();
}

/// Starts so many threads at once, and ends them.
fn start(threads: usize) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let started = (0..threads).try_for_each(|_| {
            let ended = ended.clone();
            // Each ends when the sender is gone.
            let wait = move || drop(ended.lock().map(|ended| ended.recv()));
            std::thread::Builder::new().spawn_scoped(scope, wait).map(drop)
        });
        drop(end);
        started
    })
}

/// Runs a future to its end on a [`runtime`] of its own. For programs without a runtime; do not call it from async code.
///
/// # Panics
/// If the operating system gives the process no threads, or if it is called from async code.
///
/// ```
/// let answer = repair::block_on(async { 6 * 7 });
/// assert_eq!(answer, 42);
/// ```
#[expect(clippy::panic, reason = "a program without threads can do nothing else; the panic is documented")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().unwrap_or_else(|error| panic!("{error}")).block_on(future)
}

//! Runs async code from code that is not.

/// Runs a future to its end on a runtime of its own, with all the threads and timers that this crate needs. For programs without a runtime; do
/// not call it from async code.
///
/// # Panics
/// If the operating system gives the process no threads, or if it is called from async code.
///
/// ```
/// let answer = repair::block_on(async { 6 * 7 });
/// assert_eq!(answer, 42);
/// ```
#[expect(clippy::expect_used, reason = "a program without threads can do nothing else; the panic is documented")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the process cannot start threads");
    runtime.block_on(future)
}

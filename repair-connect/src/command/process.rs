//! Runs one process, with bounds on its time and output, and ends it with everything that it started.
//!
//! It must not know what is asked or answered. What a process wrote to its error output is kept from its end, in bounded memory.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How much of the end of the error output is kept.
const KEPT_BYTES: usize = 8 << 10;
/// The most error output. A process that writes more does not end its own failure.
const MOST_ERROR_BYTES: u64 = 64 << 20;
/// How long a process that is asked to end may take, before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long the output may stay open after the process has ended. Then something that it started holds it.
const HELD_OPEN: Duration = Duration::from_secs(5);
/// How often, at least and at most, it is asked whether a process has ended.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// The bounds of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long it may take.
    pub(super) timeout: Duration,
    /// How many bytes it may answer.
    pub(super) bytes: u64,
}

/// How a process ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) answer: Vec<u8>,
}

/// Why a process was ended, or never began.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be started.
    Start(std::io::Error),
    /// Its output could not be read.
    Read(std::io::Error),
    /// It took too long.
    Timeout,
    /// It answered with too much.
    TooMuch,
    /// It wrote too much to its error output.
    TooManyErrors,
    /// It ended, and something that it started held its output.
    HeldOpen,
    /// The run was asked to stop.
    Cancelled,
}

/// The end of what a process wrote to its error output.
pub(super) type Errors = Vec<u8>;

/// Runs a process with an input, and reports each sign of life. It is ended with its group when it fails, when the run is cancelled, and when the call is
/// dropped. One that does not read its input is judged by its answer alone.
pub(super) async fn run(
    mut command: Command,
    input: Vec<u8>,
    bounds: Bounds,
    cancel: &CancellationToken,
    beat: impl Fn() + Send + Sync,
) -> (Result<Ended, Failure>, Errors) {
    let mut tail = VecDeque::new();
    let done = attempt(&mut command, input, bounds, cancel, &beat, &mut tail).await;
    (done, tail.into())
}

async fn attempt(
    command: &mut Command,
    input: Vec<u8>,
    bounds: Bounds,
    cancel: &CancellationToken,
    beat: &(impl Fn() + Send + Sync),
    tail: &mut VecDeque<u8>,
) -> Result<Ended, Failure> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A group of its own, so that all of it can be ended, and a Ctrl-C in the terminal reaches us alone.
    #[cfg(unix)]
    command.process_group(0);
    let mut running = Running::start(command)?;
    let no_pipe = || Failure::Read(std::io::Error::other("the process has no pipe"));
    let mut stdin = running.child.stdin.take().ok_or_else(no_pipe)?;
    let stdout = running.child.stdout.take().ok_or_else(no_pipe)?;
    let stderr = running.child.stderr.take().ok_or_else(no_pipe)?;
    // A process may answer before it has read everything, or read nothing: that its end of the pipe is closed is no failure.
    let _writing = Aborted(tokio::spawn(async move {
        let _ = stdin.write_all(&input).await;
        let _ = stdin.shutdown().await;
    }));
    let outcome = {
        let output = async { tokio::try_join!(answer(stdout, bounds.bytes, beat), errors(stderr, tail, beat)) };
        tokio::pin!(output);
        let to_the_end = async {
            let (answer, ()) = tokio::select! {
                done = &mut output => {
                    let done = done?;
                    running.exited().await;
                    done
                }
                () = running.exited() => match tokio::time::timeout(HELD_OPEN, &mut output).await {
                    Ok(done) => done?,
                    Err(_) => return Err(Failure::HeldOpen),
                },
            };
            Ok(answer)
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::Cancelled),
            done = to_the_end => done,
            () = tokio::time::sleep(bounds.timeout) => Err(Failure::Timeout),
        }
    };
    match outcome {
        Ok(answer) => Ok(Ended { status: running.finish().await.map_err(Failure::Read)?, answer }),
        Err(failure) => {
            running.end().await;
            Err(failure)
        }
    }
}

/// A task that ends with whoever waits for it.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer(mut from: impl AsyncRead + Unpin, most: u64, beat: &impl Fn()) -> Result<Vec<u8>, Failure> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let (mut all, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = from.read(&mut chunk).await.map_err(Failure::Read)?;
        if length == 0 {
            return Ok(all);
        }
        beat();
        if all.len().saturating_add(length) > most {
            return Err(Failure::TooMuch);
        }
        all.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
}

async fn errors(mut from: impl AsyncRead + Unpin, tail: &mut VecDeque<u8>, beat: &impl Fn()) -> Result<(), Failure> {
    let (mut all, mut chunk) = (0u64, vec![0; 16 << 10]);
    loop {
        let length = from.read(&mut chunk).await.map_err(Failure::Read)?;
        if length == 0 {
            return Ok(());
        }
        beat();
        tail.extend(chunk.get(..length).unwrap_or_default());
        tail.drain(..tail.len().saturating_sub(KEPT_BYTES));
        all = all.saturating_add(length as u64);
        if all > MOST_ERROR_BYTES {
            return Err(Failure::TooManyErrors);
        }
    }
}

/// A process and its group. Until the process is waited for, its number, which is that of its group, belongs to no other.
struct Running {
    child: Child,
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
    is_over: bool,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let child = command.spawn().map_err(Failure::Start)?;
        #[cfg(unix)]
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        Ok(Self {
            child,
            #[cfg(unix)]
            group,
            is_over: false,
        })
    }

    /// Returns when the process has ended, without waiting for it in the sense of the system: what is left of its group can still be ended.
    async fn exited(&self) {
        let mut pause = POLL.0;
        while !self.has_exited() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
    }

    #[cfg(unix)]
    fn has_exited(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(group) = self.group else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error says that there is no such process any more.
        !matches!(waitid(WaitId::Pid(group), options), Ok(None))
    }

    /// Without groups, the end of the output is the end of the process.
    #[cfg(not(unix))]
    fn has_exited(&self) -> bool {
        true
    }

    #[cfg(unix)]
    fn signal(&mut self, is_last: bool) {
        use rustix::process::{Signal, kill_process_group};
        if let Some(group) = self.group {
            // There may be none left.
            let _ = kill_process_group(group, if is_last { Signal::KILL } else { Signal::TERM });
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, _: bool) {
        let _ = self.child.start_kill();
    }

    /// Ends what is left of the group of a process that has ended.
    async fn finish(mut self) -> std::io::Result<ExitStatus> {
        #[cfg(unix)]
        self.signal(true);
        let status = self.child.wait().await;
        self.is_over = true;
        status
    }

    /// Asks the group to end, and kills it if it does not.
    async fn end(mut self) {
        self.signal(false);
        let _ = tokio::time::timeout(GRACE, self.exited()).await;
        self.signal(true);
        // A process that was killed ends, unless the system itself is stuck.
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        self.is_over = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(true);
        }
    }
}

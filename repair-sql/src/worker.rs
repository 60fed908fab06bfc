//! A query in a process of its own: this program, started again. It gets the query on standard input, with its relations behind it in Arrow's
//! stream format, and answers with rows in the same format on standard output. If it fails, it says why on standard error, as JSON, and exits with [`REFUSED`].

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use futures::{StreamExt, TryStreamExt};
use repair_core::lake::BatchStream;
use repair_core::lake::query::{Relation, Seen};
use repair_core::lake::veil::{Veil, VeilParts};
use repair_core::model::{Table, Usage};
use repair_core::price::Meter;
use repair_core::{Error, ErrorKind, Result};
use repair_local::LocalLake;
use repair_local::threads::{self, blocking};
use serde::{Deserialize, Serialize};

use crate::Asked;

/// The argument with which this program is started again.
const ARGUMENT: &str = "repair-sql-worker";

/// The code with which the process exits if it says why it failed.
const REFUSED: i32 = 3;

/// Memory of the process, mapped or used. Sorts and joins use the disk long before.
const MEMORY_BYTES: u64 = 4 << 30;

/// The largest batch of rows that it sends. A batch has some thousand rows, so what is larger holds huge texts.
const BATCH_BYTES: usize = 256 << 20;

/// Stack of each of its threads.
const STACK_BYTES: usize = 16 << 20;

/// What is kept of what the process says on standard error.
const SAID_BYTES: u64 = 64 << 10;

/// Whether this program runs queries when it is started again.
static SERVED: AtomicBool = AtomicBool::new(false);

pub(super) fn is_served() -> bool {
    SERVED.load(Ordering::Relaxed)
}

/// See [`super::serve`].
pub(super) fn serve() {
    if std::env::args_os().nth(1).is_some_and(|first| first == ARGUMENT) {
        std::process::exit(match work() {
            Ok(()) => 0,
            Err(error) => {
                let refusal = Refusal { kind: error.kind(), message: error.full() };
                // Nobody is there to read it, if it cannot be written. Others, such as a thread that panicked, may have written before.
                let _ = writeln!(io::stderr(), "\n{}", serde_json::to_string(&refusal).unwrap_or_default());
                REFUSED
            }
        });
    }
    SERVED.store(true, Ordering::Relaxed);
}

#[derive(Serialize, Deserialize)]
struct Request {
    root: PathBuf,
    tables: Vec<Table>,
    sql: String,
    /// The names of the relations that follow, in order.
    relations: Vec<String>,
    /// What the query sees of tables, of which the relations follow these.
    seen: Vec<(String, SeenParts)>,
}

/// What a query sees of a table, without rows.
#[derive(Serialize, Deserialize)]
enum SeenParts {
    Behind(Box<VeilParts>),
    Instead,
}

impl SeenParts {
    fn relations(&self) -> usize {
        match self {
            Self::Behind(parts) => parts.relations(),
            Self::Instead => 1,
        }
    }
}

/// What the query has read, said at its end.
#[derive(Serialize, Deserialize)]
struct Scanned {
    bytes_scanned: u64,
}

#[derive(Serialize, Deserialize)]
struct Refusal {
    kind: ErrorKind,
    message: String,
}

/// Limits this process. Memory that it cannot have ends it, and nothing else.
#[cfg(unix)]
fn limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let own = |limit: u64, resource: Resource| {
        let Rlimit { current, maximum } = getrlimit(resource);
        // `None` is no limit.
        setrlimit(resource, Rlimit { current: Some(current.map_or(limit, |now| now.min(limit))), maximum })
    };
    own(MEMORY_BYTES, Resource::As)
        .and_then(|()| own(0, Resource::Core))
        .map_err(|error| Error::internal("the process for SQL could not be limited").because(error))
}

#[cfg(not(unix))]
fn limit() -> Result<()> {
    Ok(())
}

/// Runs the query on standard input.
fn work() -> Result<()> {
    limit()?;
    let broken = |error: io::Error| Error::internal("the process for SQL got no query").because(error);
    let mut input = BufReader::with_capacity(1 << 18, io::stdin().lock());
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(broken)?;
    let mut request = Vec::new();
    (&mut input).take(u64::from_le_bytes(length)).read_to_end(&mut request).map_err(broken)?;
    let request: Request = serde_json::from_slice(&request).map_err(|error| broken(error.into()))?;
    let mut next = || {
        let odd = |error: arrow::error::ArrowError| Error::internal("the process for SQL got no relation").because(error);
        let reader = StreamReader::try_new(&mut input, None).map_err(odd)?;
        let schema = reader.schema();
        Ok::<_, Error>(Relation { schema, rows: reader.collect::<std::result::Result<_, _>>().map_err(odd)? })
    };
    let mut relations = Vec::with_capacity(request.relations.len());
    for name in request.relations {
        relations.push((name, next()?));
    }
    let mut seen = BTreeMap::new();
    for (name, parts) in request.seen {
        let rows = (0..parts.relations()).map(|_| next()).collect::<Result<Vec<Relation>>>()?;
        let what = match parts {
            SeenParts::Behind(parts) => Seen::Behind(Veil::from_parts(*parts, rows)?),
            SeenParts::Instead => {
                let rows = rows.into_iter().next();
                Seen::Instead(rows.ok_or_else(|| Error::internal("the process for SQL got no rows of a table"))?)
            }
        };
        seen.insert(name, what);
    }
    let asked = Asked { tables: request.tables, sql: request.sql, relations, seen };
    let no_threads = |error: io::Error| Error::new(ErrorKind::Transient, "the system gives the process for SQL no threads").because(error);
    let workers = threads::workers();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).thread_stack_size(STACK_BYTES).enable_all().build();
    runtime.map_err(no_threads)?.block_on(async {
        let meter = Meter::default();
        let lake = LocalLake::open(&request.root)?.with_meter(meter.clone());
        let mut rows = super::engine::query(&lake, &asked).await?;
        let gone = |error: arrow::error::ArrowError| Error::internal("nobody reads the rows of the SQL any more").because(error);
        let mut writer = None;
        while let Some(batch) = rows.try_next().await? {
            let bytes = batch.get_array_memory_size();
            if bytes > BATCH_BYTES {
                let most = BATCH_BYTES >> 20;
                let message =
                    format!("the SQL gives {} MiB for {} rows, and may give {most}; select less text", bytes >> 20, batch.num_rows());
                return Err(Error::invalid(message));
            }
            if writer.is_none() {
                let out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
                writer = Some(StreamWriter::try_new(out, &batch.schema()).map_err(gone)?);
            }
            if let Some(writer) = &mut writer {
                writer.write(&batch).map_err(gone)?;
            }
        }
        // Before the rows end: whoever reads them then reads this.
        let scanned = Scanned { bytes_scanned: meter.take().usage.bytes_scanned };
        let _ = writeln!(io::stderr(), "\n{}", serde_json::to_string(&scanned).unwrap_or_default());
        match writer {
            Some(mut writer) => writer.finish().and_then(|()| Ok(writer.get_mut().flush()?)).map_err(gone),
            None => Ok(()),
        }
    })
}

/// The process. It ends when this is dropped.
struct Worker(Mutex<Child>);

impl Worker {
    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has ended by itself.
    fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            // The lock is not held while it runs, so that it can be ended meanwhile.
            if let Some(status) = self.child().try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut child = self.child();
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Ends the process when whoever wants its rows is gone. Then whoever reads them finds their end.
struct EndsWith(Arc<Worker>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        let _ = self.0.child().kill();
    }
}

/// Runs a query in a process of its own.
pub(super) async fn query(lake: &LocalLake, asked: Asked) -> Result<BatchStream> {
    let (root, meter) = (lake.root(), lake.meter().cloned());
    let metered = meter.clone();
    let Asked { tables, sql, relations, seen: all } = asked;
    let (names, mut relations): (Vec<String>, Vec<Relation>) = relations.into_iter().unzip();
    let mut seen = Vec::with_capacity(all.len());
    for (name, what) in all {
        seen.push((
            name,
            match what {
                Seen::Behind(veil) => {
                    let (parts, rows) = veil.to_parts()?;
                    relations.extend(rows);
                    SeenParts::Behind(Box::new(parts))
                }
                Seen::Instead(rows) => {
                    relations.push(rows);
                    SeenParts::Instead
                }
            },
        ));
    }
    let request = Request { root: root.to_owned(), tables, sql, relations: names, seen };
    let request = serde_json::to_vec(&request).map_err(|error| Error::internal("a query is not JSON").because(error))?;
    let (worker, out, said) = start()?;
    let (reading, until) = (worker.clone(), EndsWith(worker));
    let opened = blocking(move || {
        let sent = reading.child().stdin.take().map(|input| send(input, &request, &relations));
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = said.take(SAID_BYTES).read_to_string(&mut text);
            text
        });
        match (sent, StreamReader::try_new(BufReader::with_capacity(1 << 18, out), None)) {
            (Some(Ok(())), Ok(rows)) => Ok(Some((rows, said))),
            // No rows, or a process that ended: how it ended says which.
            _ => ended(&reading, said, metered.as_ref()).map(|()| None),
        }
    });
    let Some((rows, said)) = opened.await? else { return Ok(futures::stream::empty().boxed()) };
    let reading = until.0.clone();
    let mut said = Some(said);
    let stream = threads::stream_of(move |sink| {
        let mut broken: Option<arrow::error::ArrowError> = None;
        for batch in rows {
            match batch {
                Ok(batch) => {
                    if sink(batch)?.is_break() {
                        return Ok(());
                    }
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        if let Some(said) = said.take() {
            ended(&reading, said, meter.as_ref())?;
        }
        broken.map_or(Ok(()), |error| Err(Error::internal("the process for SQL sent rows that cannot be read").because(error)))
    });
    Ok(stream
        .map(move |batch: Result<RecordBatch>| {
            // The process ends with the stream.
            let _ = &until;
            batch
        })
        .boxed())
}

/// Sends a request: the length of its text, the text, then its relations.
fn send(input: ChildStdin, request: &[u8], relations: &[Relation]) -> io::Result<()> {
    let mut input = BufWriter::with_capacity(1 << 18, input);
    input.write_all(&(request.len() as u64).to_le_bytes())?;
    input.write_all(request)?;
    for Relation { schema, rows } in relations {
        let mut writer = StreamWriter::try_new(&mut input, schema).map_err(io::Error::other)?;
        rows.iter().try_for_each(|batch| writer.write(batch)).and_then(|()| writer.finish()).map_err(io::Error::other)?;
    }
    input.flush()
}

fn start() -> Result<(Arc<Worker>, ChildStdout, ChildStderr)> {
    let failed = |error: io::Error| Error::new(ErrorKind::Transient, "the process for SQL could not be started").because(error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    // It needs nothing of the environment but where temporary files go; least of all keys.
    command.arg(ARGUMENT).env_clear();
    command.envs(["TMPDIR", "TMP", "TEMP", "SYSTEMROOT"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let worker = Arc::new(Worker(Mutex::new(child)));
    match pipes {
        (Some(out), Some(said)) => Ok((worker, out, said)),
        _ => Err(Error::internal("the process for SQL has no output")),
    }
}

/// How the process ended, once it has sent all that it will.
fn ended(worker: &Worker, said: std::thread::JoinHandle<String>, meter: Option<&Meter>) -> Result<()> {
    let status = worker.wait().map_err(|error| Error::internal("the process for SQL is lost").because(error))?;
    let said = said.join().unwrap_or_default();
    if status.success() {
        let scanned = said.lines().rev().find_map(|line| serde_json::from_str::<Scanned>(line).ok());
        if let (Some(meter), Some(Scanned { bytes_scanned })) = (meter, scanned) {
            meter.add(Usage { bytes_scanned, ..Usage::default() });
        }
        return Ok(());
    }
    if status.code() == Some(REFUSED)
        && let Some(refusal) = said.lines().rev().find_map(|line| serde_json::from_str::<Refusal>(line).ok())
    {
        return Err(Error::new(refusal.kind, refusal.message));
    }
    let why = if said.contains("memory allocation") {
        format!("it needs more than {} GiB of memory", MEMORY_BYTES >> 30)
    } else if said.contains("overflowed its stack") {
        "it is nested too deep".to_owned()
    } else {
        format!("its process ended with {status}")
    };
    Err(Error::invalid(format!(
        "the SQL could not be run: {why}; make it smaller, for example by a shorter interval, or compute it in steps"
    )))
}

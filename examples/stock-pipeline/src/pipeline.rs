//! The pipeline, in one process with the shape of the real one, queues and all:
//!
//! ```text
//!             requests               answers              batches
//!     ticker ──────────▶ fetchers ────────────▶ stream ────────────▶ writer ──▶ lake
//!        │                                        │
//!   the glitch: not every stock's             puts answers back in the order
//!   request is put on the queue               of their requests, half an hour a batch
//! ```
//!
//! It runs on simulated time, as fast as it can. What lands in the lake depends on the seed and on nothing else: not on which
//! fetcher was faster, nor on how often it ran. It knows nothing of the workflow that will repair what it lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::rngs::SmallRng;
use rand::{SeedableRng, seq};
use repair::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use repair::jiff::Timestamp;
use repair::jiff::tz::TimeZone;
use repair::stocks::bar::Bar;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::feed::Feed;

/// How many fetchers take requests from the queue.
const FETCHERS: usize = 4;
/// At most so many requests are under way at once, from the queue until they are part of a batch: what the memory is bounded by.
const IN_FLIGHT: usize = 256;
/// At most so many batches wait for the writer; beyond that, a slow disk slows down the ticker.
const WAITING_BATCHES: usize = 4;
/// How many minutes are written as one file. It divides a day, so that no batch belongs to two partitions.
const BATCH_MINUTES: i64 = 30;

/// A pipeline, ready to run.
pub(crate) struct Pipeline {
    /// The interested stocks, in order.
    pub(crate) symbols: Vec<Arc<str>>,
    /// The minutes in which the clock ticks, since the Unix epoch, in order.
    pub(crate) minutes: Vec<i64>,
    /// Where bars come from.
    pub(crate) feed: Arc<dyn Feed>,
    /// How many stocks are forgotten each minute: the glitch.
    pub(crate) dropped_per_minute: usize,
    /// Where chance begins.
    pub(crate) seed: u64,
    /// The folder of the table.
    pub(crate) bars: PathBuf,
}

/// What a pipeline did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Requests that were put on the queue.
    pub(crate) requests: u64,
    /// Requests that should have been, but for the glitch.
    pub(crate) dropped: u64,
    /// Bars that landed in the lake; for a minute without a trade there is none.
    pub(crate) bars: u64,
    /// Files that they landed in.
    pub(crate) files: u64,
    /// Bytes of those files.
    pub(crate) bytes: u64,
}

/// A request for one stock's minute.
struct Request {
    /// Its place in the order of all requests.
    sequence: u64,
    symbol: Arc<str>,
    minute: i64,
    /// Given back once the answer is part of a batch.
    in_flight: OwnedSemaphorePermit,
}

/// What came of it.
struct Answer {
    request: Request,
    bar: Option<Bar>,
}

impl Pipeline {
    /// Runs to the last minute. If one part fails, all of it ends, with that part's error.
    ///
    /// # Errors
    /// If the lake can't be written.
    pub(crate) async fn run(self) -> Result<Captured> {
        let (requests, queue) = channel(IN_FLIGHT);
        let (answers, answered) = channel(IN_FLIGHT);
        let (batches, landing) = channel(WAITING_BATCHES);
        let (ticked, (), (), written) = tokio::try_join!(
            tick(&self.symbols, &self.minutes, self.dropped_per_minute, self.seed, requests),
            fetch(self.feed.clone(), queue, answers),
            batch(answered, batches),
            write(landing, &self.bars),
        )?;
        Ok(Captured { bars: written.bars, files: written.files, bytes: written.bytes, ..ticked })
    }
}

/// The clock: each minute it puts one request per stock on the queue. This is where the glitch sits: some stocks, drawn anew each
/// minute, are forgotten.
async fn tick(symbols: &[Arc<str>], minutes: &[i64], dropped_per_minute: usize, seed: u64, requests: Sender<Request>) -> Result<Captured> {
    let mut chance = SmallRng::seed_from_u64(seed);
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let kept = symbols.len().saturating_sub(dropped_per_minute);
    let mut ticked = Captured::default();
    for &minute in minutes {
        let mut chosen = seq::index::sample(&mut chance, symbols.len(), kept).into_vec();
        chosen.sort_unstable();
        for symbol in chosen.into_iter().filter_map(|index| symbols.get(index)) {
            let in_flight = in_flight.clone().acquire_owned().await?;
            let request = Request { sequence: ticked.requests, symbol: symbol.clone(), minute, in_flight };
            requests.send(request).await.ok().context("the fetchers are gone")?;
            ticked.requests += 1;
        }
        ticked.dropped += (symbols.len() - kept) as u64;
    }
    Ok(ticked)
}

/// The fetchers: each takes the next request from the queue, asks the feed, and passes the answer on.
async fn fetch(feed: Arc<dyn Feed>, queue: Receiver<Request>, answers: Sender<Answer>) -> Result<()> {
    let queue = Arc::new(Mutex::new(queue));
    let mut fetchers = JoinSet::new();
    for _ in 0..FETCHERS {
        let (feed, queue, answers) = (feed.clone(), queue.clone(), answers.clone());
        fetchers.spawn(async move {
            while let Some(request) = next(&queue).await {
                let bar = feed.bar(&request.symbol, request.minute);
                answers.send(Answer { request, bar }).await.ok().context("the stream is gone")?;
            }
            anyhow::Ok(())
        });
    }
    // The stream ends when the last fetcher does, so this one must not hold it open.
    drop(answers);
    while let Some(done) = fetchers.join_next().await {
        done.context("a fetcher died")??;
    }
    Ok(())
}

async fn next(queue: &Mutex<Receiver<Request>>) -> Option<Request> {
    queue.lock().await.recv().await
}

/// The stream: puts answers back in the order of their requests, and cuts them into batches.
async fn batch(mut answers: Receiver<Answer>, batches: Sender<Batch>) -> Result<()> {
    // Answers that overtook others. It can't grow past what is in flight.
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut batch = Batch::default();
    while let Some(answer) = answers.recv().await {
        early.insert(answer.request.sequence, answer);
        while let Some(Answer { request, bar }) = early.remove(&next) {
            next += 1;
            if !batch.takes(request.minute) {
                batches.send(std::mem::take(&mut batch)).await.ok().context("the writer is gone")?;
            }
            batch.extend(bar.map(|bar| (request.symbol, request.minute, bar)));
            drop(request.in_flight);
        }
    }
    if !early.is_empty() {
        bail!("{} answers came, but not that of request {next}", early.len());
    }
    batches.send(batch).await.ok().context("the writer is gone")
}

/// The writer: lands each batch as one file, in the folder of its date.
async fn write(mut batches: Receiver<Batch>, bars: &Path) -> Result<Captured> {
    let mut written = Captured::default();
    while let Some(batch) = batches.recv().await {
        let Some(file) = batch.file() else { continue };
        written.bars += batch.bars.len() as u64;
        written.files += 1;
        let path = bars.join(file);
        let landed =
            tokio::task::spawn_blocking(move || land(&batch, &path).with_context(|| format!("{} can't be written", path.display())));
        written.bytes += landed.await.context("the writer died")??;
    }
    Ok(written)
}

/// Bars of one stretch of [`BATCH_MINUTES`], in order of time, then symbol: columns, as Parquet has them.
#[derive(Default)]
struct Batch {
    symbols: Vec<Arc<str>>,
    minutes: Vec<i64>,
    bars: Vec<Bar>,
}

impl Batch {
    /// Whether a minute belongs to the same stretch as those it holds.
    fn takes(&self, minute: i64) -> bool {
        self.minutes.first().is_none_or(|first| first.div_euclid(BATCH_MINUTES) == minute.div_euclid(BATCH_MINUTES))
    }

    /// Where it belongs within the table, e.g. `date=2026-03-05/bars-1430.parquet`; nowhere if it is empty.
    fn file(&self) -> Option<PathBuf> {
        let start = self.minutes.first()?.div_euclid(BATCH_MINUTES) * BATCH_MINUTES;
        let start = Timestamp::from_second(start * 60).ok()?.to_zoned_datetime(TimeZone::UTC);
        Some(start.strftime("date=%Y-%m-%d/bars-%H%M.parquet").to_string().into())
    }

    fn columns(&self) -> Result<RecordBatch> {
        let numbers = |of: fn(&Bar) -> f64| Arc::new(Float64Array::from_iter_values(self.bars.iter().map(of))) as ArrayRef;
        let times = self.minutes.iter().map(|minute| minute * 60 * 1_000_000);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("symbol", Arc::new(StringArray::from_iter_values(&self.symbols))),
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
            ("open", numbers(|bar| bar.open)),
            ("high", numbers(|bar| bar.high)),
            ("low", numbers(|bar| bar.low)),
            ("close", numbers(|bar| bar.close)),
            ("volume", numbers(|bar| bar.volume)),
        ];
        Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, false)))?)
    }
}

impl Extend<(Arc<str>, i64, Bar)> for Batch {
    fn extend<T: IntoIterator<Item = (Arc<str>, i64, Bar)>>(&mut self, rows: T) {
        for (symbol, minute, bar) in rows {
            self.symbols.push(symbol);
            self.minutes.push(minute);
            self.bars.push(bar);
        }
    }
}

/// Writes under a name that readers pass over, then renames: whoever looks sees the whole file or none. Returns how many bytes it has.
fn land(batch: &Batch, path: &Path) -> Result<u64> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let rows = batch.columns()?;
    let mut writer = ArrowWriter::try_new(File::create(&partial)?, rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    let file = writer.into_inner()?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    fs::rename(&partial, path)?;
    Ok(bytes)
}

//! The pipeline: a single process with the structure of a real one, queues included.
//!
//! ```text
//!             requests               answers              batches
//!     ticker ──────────▶ fetchers ────────────▶ stream ────────────▶ writer ──▶ lake
//!        │                                        │
//!   the glitch: not every stock's             puts answers back in the order
//!   request is put on the queue               of their requests, half an hour a batch
//! ```
//!
//! It runs on simulated time, as fast as it can. What arrives in the lake depends only on the seed, and not on which fetcher was faster or
//! how often it ran. It knows nothing about the workflow that will repair what it lost.

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
/// How many requests may be in progress at once, from the queue until they are part of a batch. This bounds the memory.
const IN_FLIGHT: usize = 256;
/// How many batches may wait for the writer; beyond that, a slow disk slows down the ticker.
const WAITING_BATCHES: usize = 4;
/// How many minutes are written as one file. It divides a day, so that no batch belongs to two partitions.
const BATCH_MINUTES: i64 = 30;

/// A pipeline, ready to run.
pub(crate) struct Pipeline {
    /// The stocks to capture, in order.
    pub(crate) symbols: Vec<Arc<str>>,
    /// The minutes in which the clock ticks, in order, since the Unix epoch.
    pub(crate) minutes: Vec<i64>,
    /// Where bars come from.
    pub(crate) feed: Arc<dyn Feed>,
    /// How many stocks are dropped each minute: the glitch.
    pub(crate) dropped_per_minute: usize,
    /// The seed of the random numbers.
    pub(crate) seed: u64,
    /// The folder of the table.
    pub(crate) bars: PathBuf,
}

/// What a pipeline did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Requests that were put on the queue.
    pub(crate) requests: u64,
    /// Requests that the glitch dropped.
    pub(crate) dropped: u64,
    /// Bars that arrived in the lake; a minute without a trade has none.
    pub(crate) bars: u64,
    /// Files that the bars were written to.
    pub(crate) files: u64,
    /// Bytes of these files.
    pub(crate) bytes: u64,
}

/// A request for the bar of one stock in one minute.
struct Request {
    /// The position in the order of all requests.
    sequence: u64,
    symbol: Arc<str>,
    minute: i64,
    /// Released once the answer is part of a batch.
    in_flight: OwnedSemaphorePermit,
}

/// The answer to a request.
struct Answer {
    request: Request,
    bar: Option<Bar>,
}

impl Pipeline {
    /// Runs to the last minute. If one part fails, the whole pipeline ends with its error.
    ///
    /// # Errors
    /// Fails if the lake cannot be written.
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

/// The clock, which puts one request per stock on the queue each minute. The glitch is here: some stocks, drawn again each minute, are
/// dropped.
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
            requests.send(request).await.ok().context("the fetchers have stopped")?;
            ticked.requests += 1;
        }
        ticked.dropped += (symbols.len() - kept) as u64;
    }
    Ok(ticked)
}

/// The fetchers, each of which takes the next request from the queue, asks the feed, and passes on the answer.
async fn fetch(feed: Arc<dyn Feed>, queue: Receiver<Request>, answers: Sender<Answer>) -> Result<()> {
    let queue = Arc::new(Mutex::new(queue));
    let mut fetchers = JoinSet::new();
    for _ in 0..FETCHERS {
        let (feed, queue, answers) = (feed.clone(), queue.clone(), answers.clone());
        fetchers.spawn(async move {
            while let Some(request) = next(&queue).await {
                let bar = feed.bar(&request.symbol, request.minute);
                answers.send(Answer { request, bar }).await.ok().context("the stream has stopped")?;
            }
            anyhow::Ok(())
        });
    }
    // The stream ends with the last fetcher, so this sender must not keep it open.
    drop(answers);
    while let Some(done) = fetchers.join_next().await {
        done.context("a fetcher panicked")??;
    }
    Ok(())
}

async fn next(queue: &Mutex<Receiver<Request>>) -> Option<Request> {
    queue.lock().await.recv().await
}

/// The stream, which restores the order of the requests and cuts the answers into batches.
async fn batch(mut answers: Receiver<Answer>, batches: Sender<Batch>) -> Result<()> {
    // Answers that overtook others; there are never more than requests in flight.
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut batch = Batch::default();
    while let Some(answer) = answers.recv().await {
        early.insert(answer.request.sequence, answer);
        while let Some(Answer { request, bar }) = early.remove(&next) {
            next += 1;
            if !batch.takes(request.minute) {
                batches.send(std::mem::take(&mut batch)).await.ok().context("the writer has stopped")?;
            }
            batch.extend(bar.map(|bar| (request.symbol, request.minute, bar)));
            drop(request.in_flight);
        }
    }
    if !early.is_empty() {
        bail!("{} answers arrived, but not that of request {next}", early.len());
    }
    batches.send(batch).await.ok().context("the writer has stopped")
}

/// The writer, which writes each batch as one file, in the folder of its date.
async fn write(mut batches: Receiver<Batch>, bars: &Path) -> Result<Captured> {
    let mut written = Captured::default();
    while let Some(batch) = batches.recv().await {
        let Some(file) = batch.file() else { continue };
        written.bars += batch.bars.len() as u64;
        written.files += 1;
        let path = bars.join(file);
        let landed =
            tokio::task::spawn_blocking(move || land(&batch, &path).with_context(|| format!("{} cannot be written", path.display())));
        written.bytes += landed.await.context("the writer panicked")??;
    }
    Ok(written)
}

/// The bars of one stretch of [`BATCH_MINUTES`], in order of time, then symbol, as columns.
#[derive(Default)]
struct Batch {
    symbols: Vec<Arc<str>>,
    minutes: Vec<i64>,
    bars: Vec<Bar>,
}

impl Batch {
    /// Whether a minute belongs to the same stretch as the bars of the batch.
    fn takes(&self, minute: i64) -> bool {
        self.minutes.first().is_none_or(|first| first.div_euclid(BATCH_MINUTES) == minute.div_euclid(BATCH_MINUTES))
    }

    /// The path of the batch within the table, e.g. `date=2026-03-05/bars-1430.parquet`; `None` if it is empty.
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

/// Writes a batch, see [`land_rows`].
fn land(batch: &Batch, path: &Path) -> Result<u64> {
    land_rows(&batch.columns()?, path)
}

/// Writes rows under a name that readers ignore, then renames it, so that readers see the whole file or none. Returns its size in bytes.
pub(crate) fn land_rows(rows: &RecordBatch, path: &Path) -> Result<u64> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let name = path.file_name().context("a file has a name")?;
    let partial = path.with_file_name(format!("_{}.partial", name.to_string_lossy()));
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(&partial)?, rows.schema(), Some(properties))?;
    writer.write(rows)?;
    let file = writer.into_inner()?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    fs::rename(&partial, path)?;
    Ok(bytes)
}

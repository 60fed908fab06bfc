//! Crashes and failures at chosen moments, as wrappers around any journal and any lake.
//!
//! A process is a [`CrashingJournal`] and a [`CrashingLake`] that share a [`Schedule`]. When the schedule says so, the process crashes: the
//! write takes effect or not, the caller does not learn which, and every later call fails, so the caller unwinds. The restarted process is
//! a new pair of wrappers, with its own schedule, around the same stores.

#![deny(clippy::missing_trait_methods, reason = "a wrapper that forgets a method would answer for itself")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::engine::{Event, Fold, Journal, ListedRun, Recorded, RunHead, Signal};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::extent::Extent;
use crate::lake::overlay;
use crate::lake::overlay::compaction::{Compactable, Compacted};
use crate::lake::overlay::retraction::Retraction;
use crate::lake::pieces;
use crate::lake::rollup::Rollup;
use crate::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck,
};
use crate::model::Usage;
use crate::model::{Interval, SlotRange, Table, TablePresence};

/// The message of every error after a crash.
pub const CRASHED: &str = "crashed";

/// Whether an error comes from a crash of a [`Schedule`].
pub fn is_crash(error: &Error) -> bool {
    error.kind() == ErrorKind::Internal && error.message() == CRASHED
}

/// When a process crashes, relative to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the write takes effect.
    Before,
    /// After the write took effect, but before the caller learns of it.
    After,
}

/// Counts the writes of a process, and decides at which it crashes. A clone is the same schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    crash: Option<(u64, Moment)>,
    abort: bool,
    state: Arc<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    writes: AtomicU64,
    crashed: AtomicBool,
}

impl Schedule {
    /// Never crashes. Use it to count the writes of a whole run before trying a crash at each.
    pub fn never() -> Self {
        Self { crash: None, abort: false, state: Arc::default() }
    }

    /// Crashes at the n-th write, from 1.
    pub fn crash_at(write: u64, moment: Moment) -> Self {
        Self { crash: Some((write, moment)), abort: false, state: Arc::default() }
    }

    /// Aborts the real process at the n-th write, from 1: nothing unwinds, nothing is flushed.
    pub fn abort_at(write: u64, moment: Moment) -> Self {
        Self { abort: true, ..Self::crash_at(write, moment) }
    }

    /// How many writes have begun.
    pub fn writes(&self) -> u64 {
        self.state.writes.load(Ordering::SeqCst)
    }

    /// Whether the process has crashed.
    pub fn crashed(&self) -> bool {
        self.state.crashed.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<()> {
        if self.crashed() { Err(Error::internal(CRASHED).on("write", self.writes())) } else { Ok(()) }
    }

    /// Begins a write, and returns its number.
    fn begin(&self) -> Result<u64> {
        self.check()?;
        let number = self.state.writes.fetch_add(1, Ordering::SeqCst) + 1;
        self.crash_if((number, Moment::Before))?;
        Ok(number)
    }

    /// Ends a write. If the process crashed meanwhile, the write has taken effect and the caller does not learn of it.
    fn end<T>(&self, number: u64, result: Result<T>) -> Result<T> {
        self.crash_if((number, Moment::After))?;
        result
    }

    fn crash_if(&self, now: (u64, Moment)) -> Result<()> {
        if self.crash == Some(now) {
            if self.abort {
                std::process::abort();
            }
            self.state.crashed.store(true, Ordering::SeqCst);
        }
        self.check()
    }

    fn read<T>(&self, result: Result<T>) -> Result<T> {
        self.check()?;
        result
    }

    /// A stream that fails once the process has crashed.
    fn stream(&self, stream: BatchStream) -> BatchStream {
        let schedule = self.clone();
        stream.map(move |batch| schedule.read(batch)).boxed()
    }
}

/// A journal as a process sees it that crashes according to a schedule.
#[derive(Clone)]
pub struct CrashingJournal {
    inner: Arc<dyn Journal>,
    schedule: Schedule,
}

impl CrashingJournal {
    /// Wraps a journal.
    pub fn new(inner: Arc<dyn Journal>, schedule: Schedule) -> Self {
        Self { inner, schedule }
    }
}

#[async_trait]
impl Journal for CrashingJournal {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.append(run, expected, at, events).await)
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.read(run, from, limit).await)
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.runs().await)
    }

    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.listed(now).await)
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.keep(run, fold).await)
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.kept(run).await)
    }

    async fn forget(&self, run: &str) -> Result<u64> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.forget(run).await)
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.acquire(run, driver, now, ttl).await)
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.release(run, driver).await)
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.driver(run, now).await)
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.signal(run, signal).await)
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.signaled(run).await)
    }
}

/// A lake as a process sees it that crashes according to a schedule.
#[derive(Clone)]
pub struct CrashingLake {
    inner: Arc<dyn Lake>,
    schedule: Schedule,
}

impl CrashingLake {
    /// Wraps a lake.
    pub fn new(inner: Arc<dyn Lake>, schedule: Schedule) -> Self {
        Self { inner, schedule }
    }
}

#[async_trait]
impl ReadLake for CrashingLake {
    fn is_queried(&self) -> bool {
        self.inner.is_queried()
    }

    fn hides_rows(&self) -> bool {
        self.inner.hides_rows()
    }

    fn place(&self, table: &Table) -> String {
        self.inner.place(table)
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        self.inner.repairs_of(table).await
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        self.schedule.check()?;
        self.schedule.read(self.inner.describe(table).await)
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        self.schedule.check()?;
        self.schedule.read(self.inner.presence(table, request).await)
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        pieces::of_whole(self, table, request, pieces)
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.extents(table, intervals).await)
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        self.schedule.check()?;
        self.schedule.read(self.inner.extent(table, interval).await)
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        self.schedule.check()?;
        Ok(self.schedule.stream(self.schedule.read(self.inner.scan(table, request).await)?))
    }

    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        self.schedule.check()?;
        self.schedule.read(self.inner.rollup(table, request).await)
    }

    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        self.schedule.check()?;
        self.schedule.read(self.inner.row_counts(table, request).await)
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.retractions(table).await)
    }

    async fn query(&self, query: &crate::lake::Query<'_>) -> Result<BatchStream> {
        self.schedule.check()?;
        Ok(self.schedule.stream(self.schedule.read(self.inner.query(query).await)?))
    }
}

#[async_trait]
impl Overlay for CrashingLake {
    async fn to_create(&self, table: &Table) -> Result<Vec<String>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.to_create(table).await)
    }

    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.stage(scope, request).await)
    }

    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.staged(scope).await)
    }

    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.publish(scope, batch, units).await)
    }

    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.discard_staged(scope, units).await)
    }

    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.retract(table, retraction).await)
    }

    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.compactable(table).await)
    }

    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.compact(table, objects).await)
    }

    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.discard_compacted(table, compacted).await)
    }
}

#[async_trait]
impl Artifacts for CrashingLake {
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.put_artifact(run, name, self.schedule.stream(batches)).await)
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        self.schedule.check()?;
        Ok(self.schedule.stream(self.schedule.read(self.inner.get_artifact(run, name).await)?))
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.copy_artifact(from, to).await)
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        self.schedule.check()?;
        self.schedule.read(self.inner.kept().await)
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.remove_kept(objects).await)
    }
}

#[async_trait]
impl Lake for CrashingLake {
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>> {
        let inner = self.inner.on_behalf_of(caller)?;
        Some(Arc::new(Self { inner, schedule: self.schedule.clone() }))
    }

    async fn check_writable(&self) -> Result<()> {
        self.schedule.check()?;
        self.schedule.read(self.inner.check_writable().await)
    }

    async fn check_state(&self) -> Result<StateCheck> {
        self.schedule.check()?;
        self.schedule.read(self.inner.check_state().await)
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        let number = self.schedule.begin()?;
        self.schedule.end(number, self.inner.replace(table, interval, rows).await)
    }
}

/// A journal of which one append fails, once, as `transient` and without effect; the next attempt succeeds.
#[derive(Clone)]
pub struct FlakyJournal {
    inner: Arc<dyn Journal>,
    fails_at: u64,
    appends: Arc<AtomicU64>,
}

impl FlakyJournal {
    /// Wraps a journal so that its n-th append fails, counted from 1.
    pub fn new(inner: Arc<dyn Journal>, fails_at: u64) -> Self {
        Self { inner, fails_at, appends: Arc::default() }
    }

    /// How many appends have begun.
    pub fn appends(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Journal for FlakyJournal {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        let number = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.fails_at {
            return Err(Error::new(ErrorKind::Transient, "the journal's disk is full for a moment").on("append", number));
        }
        self.inner.append(run, expected, at, events).await
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        self.inner.read(run, from, limit).await
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        self.inner.runs().await
    }

    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        self.inner.listed(now).await
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        self.inner.keep(run, fold).await
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        self.inner.kept(run).await
    }

    async fn forget(&self, run: &str) -> Result<u64> {
        self.inner.forget(run).await
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        self.inner.acquire(run, driver, now, ttl).await
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        self.inner.release(run, driver).await
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        self.inner.driver(run, now).await
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        self.inner.signal(run, signal).await
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        self.inner.signaled(run).await
    }
}

/// A lake of which every call fails with an error of one kind, to see what a plug-in makes of it.
#[derive(Debug, Clone, Copy)]
pub struct FailingLake {
    kind: ErrorKind,
}

impl FailingLake {
    /// A lake that fails with this kind.
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind }
    }

    fn fail<T>(self) -> Result<T> {
        Err(Error::new(self.kind, "the lake fails because the test asked for it"))
    }
}

#[async_trait]
impl ReadLake for FailingLake {
    fn is_queried(&self) -> bool {
        false
    }

    fn hides_rows(&self) -> bool {
        false
    }

    fn place(&self, table: &Table) -> String {
        table.location.clone()
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        Ok(Table { name: overlay::repairs(&table.name), location: overlay::repairs(&table.location), ..table.of_repairs() })
    }

    async fn describe(&self, _: &Table) -> Result<SchemaRef> {
        self.fail()
    }

    async fn presence(&self, _: &Table, _: &PresenceRequest) -> Result<TablePresence> {
        self.fail()
    }

    fn presence_in_pieces<'a>(&'a self, _: &'a Table, _: &'a PresenceRequest, _: &'a [SlotRange]) -> PresenceStream<'a> {
        stream::once(std::future::ready(self.fail())).boxed()
    }

    async fn extent(&self, _: &Table, _: Option<&Interval>) -> Result<Extent> {
        self.fail()
    }

    async fn extents(&self, _: &Table, _: &[Interval]) -> Result<Vec<Extent>> {
        self.fail()
    }

    async fn scan(&self, _: &Table, _: &ScanRequest) -> Result<BatchStream> {
        self.fail()
    }

    async fn rollup(&self, _: &Table, _: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        self.fail()
    }

    async fn row_counts(&self, _: &Table, _: &RowCountRequest) -> Result<RowCounts> {
        self.fail()
    }

    async fn retractions(&self, _: &Table) -> Result<Vec<Retraction>> {
        self.fail()
    }

    async fn query(&self, _: &crate::lake::Query<'_>) -> Result<BatchStream> {
        self.fail()
    }
}

#[async_trait]
impl Overlay for FailingLake {
    async fn to_create(&self, _: &Table) -> Result<Vec<String>> {
        self.fail()
    }

    async fn stage(&self, _: &StageScope<'_>, _: &StageRequest<'_>) -> Result<Staged> {
        self.fail()
    }

    async fn staged(&self, _: &StageScope<'_>) -> Result<Vec<Staged>> {
        self.fail()
    }

    async fn publish(&self, _: &StageScope<'_>, _: u32, _: &[String]) -> Result<Published> {
        self.fail()
    }

    async fn discard_staged(&self, _: &StageScope<'_>, _: &[String]) -> Result<()> {
        self.fail()
    }

    async fn retract(&self, _: &Table, _: &Retraction) -> Result<()> {
        self.fail()
    }

    async fn compactable(&self, _: &Table) -> Result<Vec<Compactable>> {
        self.fail()
    }

    async fn compact(&self, _: &Table, _: &Compactable) -> Result<Vec<Compacted>> {
        self.fail()
    }

    async fn discard_compacted(&self, _: &Table, _: &Compacted) -> Result<()> {
        self.fail()
    }
}

#[async_trait]
impl Artifacts for FailingLake {
    async fn put_artifact(&self, _: &str, _: &str, _: BatchStream) -> Result<Usage> {
        self.fail()
    }

    async fn get_artifact(&self, _: &str, _: &str) -> Result<BatchStream> {
        self.fail()
    }

    async fn copy_artifact(&self, _: ArtifactName<'_>, _: ArtifactName<'_>) -> Result<Usage> {
        self.fail()
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        self.fail()
    }

    async fn remove_kept(&self, _: &[KeptObject]) -> Result<()> {
        self.fail()
    }
}

#[async_trait]
impl Lake for FailingLake {
    fn on_behalf_of(&self, _: &Caller) -> Option<Arc<dyn Lake>> {
        None
    }

    async fn check_writable(&self) -> Result<()> {
        self.fail()
    }

    async fn check_state(&self) -> Result<StateCheck> {
        self.fail()
    }

    async fn replace(&self, _: &Table, _: &Interval, _: Vec<RecordBatch>) -> Result<Usage> {
        self.fail()
    }
}

/// How a life of the process that drives a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is killed at a write.
    Crash(u64, Moment),
    /// It ends because its journal could not write: this append, from 1, and none after it.
    FailedWrite(u64),
    /// It is asked to stop after so many milliseconds.
    Stopped(u64),
}

impl Life {
    /// When this process crashes; one without an end never does.
    pub fn schedule(life: Option<Self>) -> Schedule {
        match life {
            Some(Self::Crash(write, moment)) => Schedule::crash_at(write, moment),
            _ => Schedule::never(),
        }
    }

    /// The journal as this process sees it, but for crashes.
    pub fn journal(life: Option<Self>, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        match life {
            Some(Self::FailedWrite(append)) => Arc::new(FlakyJournal::new(journal, append)),
            _ => journal,
        }
    }

    /// Asks this process to stop when it is time.
    pub fn stop_in_time(life: Option<Self>, stop: &CancellationToken) {
        if let Some(Self::Stopped(after_ms)) = life {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                stop.cancel();
            });
        }
    }

    /// Whether an error is one with which such a life ends.
    pub fn ends_with(error: &Error) -> bool {
        is_crash(error) || matches!(error.kind(), ErrorKind::Transient | ErrorKind::Cancelled | ErrorKind::Internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryJournal;

    fn entered() -> Event {
        Event::StepEntered { step: "step".into(), visit: 1 }
    }

    #[tokio::test]
    async fn a_crash_leaves_the_write_or_not_and_nothing_is_answered_after() {
        for (moment, left) in [(Moment::Before, 1), (Moment::After, 2)] {
            let store = MemoryJournal::default();
            let schedule = Schedule::crash_at(2, moment);
            let process = CrashingJournal::new(Arc::new(store.clone()), schedule.clone());
            process.append("run", 0, Timestamp::UNIX_EPOCH, &[entered()]).await.unwrap();
            let error = process.append("run", 1, Timestamp::UNIX_EPOCH, &[entered()]).await.unwrap_err();
            assert!(is_crash(&error) && schedule.crashed());
            assert!(is_crash(&process.read("run", 0, 10).await.unwrap_err()));
            assert_eq!(store.read("run", 0, 10).await.unwrap().len(), left, "{moment:?}");
            let restarted = CrashingJournal::new(Arc::new(store), Schedule::never());
            assert_eq!(restarted.read("run", 0, 10).await.unwrap().len(), left);
        }
    }

    #[tokio::test]
    async fn a_flaky_append_fails_once_and_takes_no_effect() {
        let journal = FlakyJournal::new(Arc::new(MemoryJournal::default()), 1);
        let append = || journal.append("run", 0, Timestamp::UNIX_EPOCH, &[]);
        assert_eq!(append().await.unwrap_err().kind(), ErrorKind::Transient);
        append().await.unwrap();
    }
}

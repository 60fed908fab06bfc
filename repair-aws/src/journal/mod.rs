//! The journal in a bucket: a run in a container that disappears can be resumed elsewhere.
//!
//! The journal's place holds these objects:
//!
//! ```text
//! events/<run>/<first>.jsonl        segments: the events of one append, named after the number of the first
//! folded/<run>/<first>-<end>.jsonl  folds: copies of the events of many segments, from one number up to another
//! leases/<run>.json                 who drives a run, and until when
//! signals/<run>.json                what its driver is asked to do, if anything
//! ```
//!
//! Here `<run>` is the run's id as part of a key, and numbers have twenty digits. Only segments are authoritative.
//!
//! **An append** is one `PUT` with `If-None-Match`: of several that race for a number, S3 lets one through. This is sound only because the
//! key of a number stays taken for ever. Segments are therefore never removed or replaced, not even by folding, and a driver that slept for
//! a week still finds its number taken. Before it writes, an append knows that the history reaches its number, because this process wrote
//! or read the end, or from a listing. If the remembered end is out of date, the number is taken, and S3 refuses the append.
//!
//! **A lost reply** does not make a process conflict with itself. Each append has a nonce in its segment, and an append that is refused
//! reads the segment that took its number. If an append failed without an answer, or its caller went away, its nonce is remembered, and
//! used again for one append of the same events, time and number, so the caller may try again. Another process never takes a segment for
//! its own, even with the same events: a driver that restarts after a crash reads the history and continues from there.
//!
//! **Folding** makes long histories cheap to read: while a driver appends, 128 segments are copied into one more object in the background.
//! The last segment is never folded, so one always shows the end. A fold's name and bytes follow from segments that never change: writing
//! it twice has the effect of writing it once, an interrupted fold leaves nothing behind, a reader that does not know of a fold reads
//! segments, and a removed fold is written again. A reader follows the folds from the first event on, and reads segments where they end.
//!
//! **Damage** is reported: each object holds a hash of its events, its run and its numbers, and each must begin where the one before it
//! ends. Only the loss of the very last segments goes unnoticed, since nothing comes after them.
//!
//! Storing events costs one `PUT` for each append; in the background, one `GET` for each segment, and one `PUT` and two listings for each
//! fold.

mod history;
mod keys;
mod lease;
pub(crate) mod segment;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use repair_core::engine::{Event, Journal, Recorded, RunHead, Signal};
use repair_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::connect::Connection;
use crate::objects::{Condition, Location, Objects};
use history::{History, Tail, damaged, may_fill};
use keys::Keys;

/// Runs whose end is remembered. The next append to any other run needs a listing.
const MAX_KNOWN: usize = 4_096;

/// The journal in a bucket. Cheap to clone. Any number of processes may use the same place; if two append the same number to a run, one
/// gets `conflict`.
///
/// The bucket must support S3's conditional writes (`If-None-Match` and `If-Match`). No lifecycle rule may remove objects below `events/`.
#[derive(Debug, Clone)]
pub struct S3Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: Objects,
    keys: Keys,
    place: Location,
    history: History,
    /// Unique among all processes, and among the journals of this process.
    id: String,
    writes: AtomicU64,
    runs: Mutex<HashMap<String, Known>>,
}

/// What is remembered about a run.
#[derive(Debug, Default)]
struct Known {
    tail: Option<Tail>,
    is_folding: bool,
    /// The last append, if it is unknown whether it was written.
    unsettled: Option<Attempt>,
}

/// What distinguishes an append from others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    first: u64,
    /// A hash of its events and their time.
    hash: String,
    nonce: String,
}

/// The content of a signal's object.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    run: String,
    signal: Signal,
}

impl S3Journal {
    /// The journal at `s3://bucket/prefix`. This makes no request to S3, and nothing needs to exist yet.
    ///
    /// # Errors
    /// `invalid` if that is not a place in S3.
    pub fn open(connection: &Connection, place: &str) -> Result<Self> {
        let place = Location::parse(place)?;
        let objects = Objects::new(connection.s3(), &place.bucket, connection.patience());
        let keys = Keys::of(&place);
        let history = History { objects: objects.clone(), keys: keys.clone() };
        let (id, writes, runs) = (random_id(), AtomicU64::new(0), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { objects, keys, place, history, id, writes, runs }) })
    }

    /// Whether anything was ever written there. A bucket has no empty folders.
    ///
    /// # Errors
    /// Those of S3.
    pub async fn exists(&self) -> Result<bool> {
        let place = &self.inner.place.prefix;
        let folder = if place.is_empty() { String::new() } else { format!("{place}/") };
        Ok(!self.inner.objects.first(&folder).await?.is_empty())
    }

    /// Folds the segments of a run that fill a fold. A driver's appends do this on their own; it may be called at any time, from any
    /// process, and more than once at a time.
    ///
    /// # Errors
    /// `invalid` if a segment is damaged; otherwise those of S3. No event is lost, whether it succeeds or not.
    pub async fn compact(&self, run: &str) -> Result<()> {
        let (segments, bytes) = self.inner.history.fold(run).await.map_err(|error| error.on("run", run))?;
        self.inner.with(run, |known| {
            if let Some(tail) = &mut known.tail {
                tail.segments = tail.segments.saturating_sub(segments);
                tail.bytes = tail.bytes.saturating_sub(bytes);
            }
        });
        Ok(())
    }

    async fn write(&self, run: &str, first: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        let inner = &self.inner;
        let lines = segment::lines(first, at, events)?;
        let hash = segment::hash(&lines);
        // Taken, so that if the same append runs twice at once, only one of them may take the segment for its own.
        let nonce = inner.with(run, |known| {
            let same = |attempt: &mut Attempt| attempt.first == first && attempt.hash == hash;
            known.unsettled.take_if(same).map(|attempt| attempt.nonce)
        });
        let nonce = nonce.unwrap_or_else(|| inner.nonce());
        let body = segment::object(run, first, events.len(), &lines, Some(&nonce))?;
        let bytes = body.len() as u64;
        let mut unsettled = Unsettled { inner, run, attempt: Some(Attempt { first, hash, nonce }) };
        let end = first.saturating_add(events.len() as u64);
        match self.put(run, first, body).await {
            Ok(()) => {
                unsettled.attempt = None;
                if inner.appended(run, first, end, bytes) {
                    self.fold_beside(run);
                }
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    unsettled.attempt = None;
                }
                Err(error)
            }
        }
    }

    /// Writes a segment, if its number is free.
    async fn put(&self, run: &str, first: u64, body: Bytes) -> Result<()> {
        let inner = &self.inner;
        let key = inner.keys.segment(run, first);
        let failed = match inner.objects.put_if(&key, body.clone(), Condition::IfNoneMatch).await {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            // It may have been written all the same, or another one; then the append is known to be decided.
            Err(error) if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Timeout | ErrorKind::Throttled) => Some(error),
            Err(error) => return Err(error),
        };
        let found = match inner.objects.find(&key).await {
            Ok(found) => found,
            Err(error) => return Err(failed.unwrap_or(error)),
        };
        match (found, failed) {
            (Some((found, _)), _) if found == body => Ok(()),
            (Some(_), _) => Err(Error::new(
                ErrorKind::Conflict,
                format!("the run already has an event number {first}: another process has appended; let only one of them drive the run"),
            )),
            (None, Some(error)) => Err(error),
            (None, None) => {
                Err(Error::new(ErrorKind::Transient, format!("S3 refused to write {}, though it does not exist", inner.objects.uri(&key))))
            }
        }
    }

    /// Folds while the driver continues.
    fn fold_beside(&self, run: &str) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (journal, run) = (self.clone(), run.to_owned());
        runtime.spawn(async move {
            let folded = journal.compact(&run).await;
            journal.inner.with(&run, |known| {
                known.is_folding = false;
                if folded.is_err()
                    && let Some(tail) = &mut known.tail
                {
                    // Try again after as many appends, not at once.
                    (tail.segments, tail.bytes) = (0, 0);
                }
            });
            if let Err(error) = folded {
                tracing::warn!(%run, error = %error.full(), "could not fold the run's history; will try again later");
            }
        });
    }
}

impl Inner {
    fn with<T>(&self, run: &str, work: impl FnOnce(&mut Known) -> T) -> T {
        let mut runs = self.lock();
        if !runs.contains_key(run) && runs.len() >= MAX_KNOWN {
            runs.retain(|_, known| known.is_folding || known.unsettled.is_some());
            if runs.len() >= MAX_KNOWN {
                runs.retain(|_, known| known.is_folding);
            }
        }
        work(runs.entry(run.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_next(&self, run: &str) -> Option<u64> {
        self.lock().get(run)?.tail.map(|tail| tail.next)
    }

    /// Whether an append of that number may have been written, and so be the one that took the number.
    fn is_unsettled(&self, run: &str, first: u64) -> bool {
        self.lock().get(run).and_then(|known| known.unsettled.as_ref()).is_some_and(|attempt| attempt.first == first)
    }

    /// Remembers an end that was seen, unless a later one is known.
    fn saw(&self, run: &str, tail: Tail) {
        self.with(run, |known| {
            if known.tail.is_none_or(|known| known.next < tail.next) {
                known.tail = Some(tail);
            }
        });
    }

    /// Remembers an append; returns whether it is time to fold.
    fn appended(&self, run: &str, first: u64, end: u64, bytes: u64) -> bool {
        self.with(run, |known| {
            let tail = known.tail.get_or_insert_default();
            // A later end may have been seen since.
            if tail.next == first {
                *tail = Tail { next: end, segments: tail.segments + 1, bytes: tail.bytes + bytes };
            }
            let due = !known.is_folding && may_fill(tail.segments, tail.bytes);
            known.is_folding |= due;
            due
        })
    }

    fn nonce(&self) -> String {
        format!("{}-{}", self.id, self.writes.fetch_add(1, Ordering::Relaxed))
    }
}

/// Remembers an append in case it ends without an answer, or its caller goes away.
struct Unsettled<'a> {
    inner: &'a Inner,
    run: &'a str,
    attempt: Option<Attempt>,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.inner.with(self.run, |known| known.unsettled = Some(attempt));
        }
    }
}

#[async_trait]
impl Journal for S3Journal {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        let inner = &self.inner;
        let known = inner.known_next(run);
        // A run that has begun has a first segment, so beginning one needs no listing. An append of no events does.
        let is_sure = !events.is_empty() && (expected == 0 || known == Some(expected));
        // A history never shrinks.
        let is_late = known.is_some_and(|known| known > expected);
        if !is_sure || is_late {
            let next = match known {
                Some(known) if is_late => known,
                _ => {
                    let tail = inner.history.tail(run).await.map_err(|error| error.on("run", run))?;
                    inner.saw(run, tail);
                    tail.next
                }
            };
            // An append that may have been written may be tried again.
            let is_again = !events.is_empty() && inner.is_unsettled(run, expected);
            if next != expected && !is_again {
                let message = format!(
                    "the run's next event is number {next}, not {expected}: another process has appended; let only one of them drive the run"
                );
                return Err(Error::new(ErrorKind::Conflict, message).on("run", run));
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        self.write(run, expected, at, events).await.map_err(|error| error.on("run", run))
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        let (page, tail) = self.inner.history.read(run, from, limit).await.map_err(|error| error.on("run", run))?;
        if let Some(tail) = tail {
            self.inner.saw(run, tail);
        }
        Ok(page)
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        self.inner.history.heads().await
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        let Inner { objects, keys, .. } = &*self.inner;
        lease::acquire(objects, keys, run, driver, (now, ttl), &self.inner.nonce()).await.map_err(|error| error.on("run", run))
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        let Inner { objects, keys, .. } = &*self.inner;
        lease::release(objects, keys, run, driver, &self.inner.nonce()).await.map_err(|error| error.on("run", run))
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        let Inner { objects, keys, .. } = &*self.inner;
        lease::holder(objects, keys, run, now).await.map_err(|error| error.on("run", run))
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        let Inner { objects, keys, history, place, .. } = &*self.inner;
        let failed = |error: Error| error.on("run", run);
        if !history.has_begun(run).await.map_err(failed)? {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no run {run} in the journal {place}")).on("run", run));
        }
        let key = keys.signal(run);
        match signal {
            Some(signal) => {
                let asked = Asked { run: run.to_owned(), signal };
                let body = serde_json::to_vec(&asked).map_err(|error| Error::internal("a signal is not JSON").because(error))?;
                objects.put(&key, body.into(), Condition::Always).await.map_err(failed)
            }
            None => objects.delete(&[key]).await.map_err(failed),
        }
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        let Inner { objects, keys, .. } = &*self.inner;
        let key = keys.signal(run);
        let Some((bytes, _)) = objects.find(&key).await.map_err(|error| error.on("run", run))? else { return Ok(None) };
        let uri = objects.uri(&key);
        let asked: Asked =
            serde_json::from_slice(&bytes).map_err(|error| damaged(run, &uri, &format!("its signal cannot be read: {error}")))?;
        if asked.run == run { Ok(Some(asked.signal)) } else { Err(damaged(run, &uri, "it belongs to another run")) }
    }
}

/// An id that no other journal has, in this process or another: a hasher's keys come from the operating system's randomness.
fn random_id() -> String {
    let mut hasher = blake3::Hasher::new();
    for number in 0..2_u64 {
        hasher.update(&RandomState::new().hash_one(number).to_le_bytes());
    }
    hasher.update(&Timestamp::now().as_nanosecond().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

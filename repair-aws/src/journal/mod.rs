//! The journal in a bucket: a run in a container that vanishes is resumed elsewhere.
//!
//! Below the journal's place there are
//!
//! ```text
//! events/<run>/<first>.jsonl        segments: the events of one append, named by the number of the first
//! folded/<run>/<first>-<end>.jsonl  folds: the events of many segments once more, from one number to before another
//! leases/<run>.json                 who drives a run, until when
//! signals/<run>.json                what its driver is asked to do, if something is
//! ```
//!
//! where `<run>` is the run's id as a part of a key, and numbers have twenty digits. Segments are the only truth.
//!
//! **An append** is one `PUT` with `If-None-Match`: of those that race for a number, S3 lets one through. That is only sound because the key
//! of a number that was ever taken stays taken: so segments are never removed or replaced, not by folding either, and a driver that
//! slept for a week still finds its number taken. Before it writes, an append knows that the history reaches its number: because this
//! process wrote or read the end, or else from a listing. The end that a process remembers may be outdated; then the number is
//! taken, and S3 says so.
//!
//! **A lost reply** is no conflict with oneself: each append has a nonce in its segment, and one that is refused looks at what took its
//! number. The nonce of an append that failed without an answer, or that nobody waited for, is remembered, and used again by one append
//! of the same events, time and number; so it may be tried again. Another process never takes a segment for its own, though it held the
//! same events: a driver that crashed reads what there is, and goes on from there.
//!
//! **Folding** makes long histories cheap to read: 128 segments become one more object, in the background, while a driver appends. The
//! last segment is never folded, so there is always one that shows the end. A fold's name and bytes follow from segments that never
//! change: to write it twice is to write it once, an interrupted fold leaves nothing behind, one who does not know of a fold reads
//! segments, and one that is removed is made again. A reader follows the folds from the first event on, and segments where they end.
//!
//! **Damage** is told: each object holds a hash of its events, its run and its numbers; each must begin where the one before it ends. Only
//! the loss of the very last segments cannot be told, as there is nothing after them.
//!
//! To store events costs one `PUT` an append, and in the background one `GET` a segment and one `PUT` and two listings a fold.

mod history;
mod keys;
mod lease;
mod segment;

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

/// Runs whose end is remembered. To forget one costs its next append a look.
const MAX_KNOWN: usize = 4_096;

/// The journal in a bucket. Cheap to clone. Any number of processes may use the same place; of two that append the same number to a run,
/// one gets `conflict`.
///
/// The bucket must have S3's conditional writes (`If-None-Match` and `If-Match`). No rule may remove objects below `events/`.
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
    /// Like that of no other process, and no other journal of this one.
    id: String,
    writes: AtomicU64,
    runs: Mutex<HashMap<String, Known>>,
}

/// What is remembered of a run.
#[derive(Debug, Default)]
struct Known {
    tail: Option<Tail>,
    is_folding: bool,
    /// The last append of which is not known whether it was written.
    unsettled: Option<Attempt>,
}

/// An append, as it can be told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    first: u64,
    /// Of its events and their time.
    hash: String,
    nonce: String,
}

/// The object of a signal.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    run: String,
    signal: Signal,
}

impl S3Journal {
    /// The journal at `s3://bucket/prefix`. Nothing is asked of S3 yet, and nothing need be there.
    ///
    /// # Errors
    /// `invalid` if that is not a place in S3.
    pub fn open(connection: &Connection, place: &str) -> Result<Self> {
        let place = Location::parse(place)?;
        let objects = Objects::new(connection.s3(), &place.bucket);
        let keys = Keys::of(&place);
        let history = History { objects: objects.clone(), keys: keys.clone() };
        let (id, writes, runs) = (random_id(), AtomicU64::new(0), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { objects, keys, place, history, id, writes, runs }) })
    }

    /// Folds the segments of a run that are enough for a fold. A driver's appends do so by themselves; to call it at any time, from any
    /// process, at once, is safe.
    ///
    /// # Errors
    /// `invalid` if a segment is damaged; else those of S3. All that was appended is there, whether it succeeds or not.
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
        // Taken, so that of two that append the same at once only one may take the segment for its own.
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
            // It may be there all the same, or another may: then we know.
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
                format!("the run has an event number {first} already: another process has appended; let one of them drive the run"),
            )),
            (None, Some(error)) => Err(error),
            (None, None) => {
                Err(Error::new(ErrorKind::Transient, format!("S3 refused to write {}, though there is none", inner.objects.uri(&key))))
            }
        }
    }

    /// Folds while the driver goes on.
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
                    // Not at once again, but after as many appends.
                    (tail.segments, tail.bytes) = (0, 0);
                }
            });
            if let Err(error) = folded {
                tracing::warn!(%run, error = %error.full(), "the run's history could not be made shorter to read; later, then");
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

    /// Whether an append of that number may have been written, and so be the one that took it.
    fn is_unsettled(&self, run: &str, first: u64) -> bool {
        self.lock().get(run).and_then(|known| known.unsettled.as_ref()).is_some_and(|attempt| attempt.first == first)
    }

    /// Remembers an end that was seen, unless one further on is known.
    fn saw(&self, run: &str, tail: Tail) {
        self.with(run, |known| {
            if known.tail.is_none_or(|known| known.next < tail.next) {
                known.tail = Some(tail);
            }
        });
    }

    /// Remembers an append; says whether it is time to fold.
    fn appended(&self, run: &str, first: u64, end: u64, bytes: u64) -> bool {
        self.with(run, |known| {
            let tail = known.tail.get_or_insert_default();
            // What was seen since may be further on.
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

/// Remembers an append, should it end without an answer or not be waited for.
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
        // A run that has begun has a first segment: to begin one needs no look. Of no events, only a look can tell.
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
            // An append that may have been written already may be tried again.
            let is_again = !events.is_empty() && inner.is_unsettled(run, expected);
            if next != expected && !is_again {
                let message = format!(
                    "the run's next event is number {next}, not {expected}: another process has appended; let one of them drive the run"
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
        let asked: Asked = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(run, &uri, &format!("what its driver is asked cannot be read: {error}")))?;
        if asked.run == run { Ok(Some(asked.signal)) } else { Err(damaged(run, &uri, "it is of another run")) }
    }
}

/// An id that no other journal has, in this process or another: the keys of a hasher are the operating system's randomness.
fn random_id() -> String {
    let mut hasher = blake3::Hasher::new();
    for number in 0..2_u64 {
        hasher.update(&RandomState::new().hash_one(number).to_le_bytes());
    }
    hasher.update(&Timestamp::now().as_nanosecond().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

//! Who drives a run: an object that is replaced only by a process that has read what it replaces.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use repair_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::history::damaged;
use super::keys::Keys;
use crate::objects::{Condition, Objects};

/// How often the object is read again because others keep changing it. Each time one of them has succeeded, so by then somebody else holds
/// the lease.
const ROUNDS: usize = 32;

/// The object. It stays, without a holder, when the lease is released, so the next driver replaces it and nobody needs permission to
/// delete.
#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    run: String,
    holder: Option<Holder>,
    /// A nonce of the write: no two are equal, and a write whose reply was lost recognises itself.
    nonce: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    driver: String,
    until: Timestamp,
}

/// Makes a driver the driver of a run, or renews its lease. `nonce` must be unique.
pub(super) async fn acquire(
    objects: &Objects,
    keys: &Keys,
    run: &str,
    driver: &str,
    (now, ttl): (Timestamp, Duration),
    nonce: &str,
) -> Result<()> {
    let until = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
    replace(objects, keys, run, nonce, |found| {
        if let Some(held) = found
            && held.driver != driver
            && held.until > now
        {
            let message = format!(
                "run {run} is driven by {}, whose lease expires at {}; stop that driver, or wait until then",
                held.driver, held.until
            );
            let left = Duration::try_from(held.until.duration_since(now)).unwrap_or_default();
            return Err(Error::new(ErrorKind::Conflict, message).on("run", run).retry_after(left));
        }
        Ok(Some(Some(Holder { driver: driver.to_owned(), until })))
    })
    .await
}

/// Releases the lease, if `driver` holds it.
pub(super) async fn release(objects: &Objects, keys: &Keys, run: &str, driver: &str, nonce: &str) -> Result<()> {
    replace(objects, keys, run, nonce, |found| Ok(found.is_some_and(|held| held.driver == driver).then_some(None))).await
}

/// Who drives a run at `now`.
pub(super) async fn holder(objects: &Objects, keys: &Keys, run: &str, now: Timestamp) -> Result<Option<String>> {
    let key = keys.lease(run);
    let Some((bytes, _)) = objects.find(&key).await? else { return Ok(None) };
    let holder = read(&objects.uri(&key), run, &bytes)?.holder;
    Ok(holder.filter(|holder| holder.until > now).map(|holder| holder.driver))
}

/// Replaces the holder by what `decide` returns for it; leaves it if that is `None`.
async fn replace(
    objects: &Objects,
    keys: &Keys,
    run: &str,
    nonce: &str,
    decide: impl Fn(Option<&Holder>) -> Result<Option<Option<Holder>>> + Send,
) -> Result<()> {
    let key = keys.lease(run);
    for _ in 0..ROUNDS {
        let (found, condition) = match objects.find(&key).await? {
            Some((bytes, tag)) => (Some(read(&objects.uri(&key), run, &bytes)?), Condition::IfMatch(tag)),
            None => (None, Condition::IfNoneMatch),
        };
        // An earlier write of ours, whose reply was lost.
        if found.as_ref().is_some_and(|lease| lease.nonce == nonce) {
            return Ok(());
        }
        let Some(holder) = decide(found.as_ref().and_then(|lease| lease.holder.as_ref()))? else { return Ok(()) };
        let lease = Lease { run: run.to_owned(), holder, nonce: nonce.to_owned() };
        let bytes = serde_json::to_vec(&lease).map_err(|error| Error::internal("a lease is not JSON").because(error))?;
        if objects.put_if(&key, Bytes::from(bytes), condition).await? {
            return Ok(());
        }
    }
    let message = format!("{} keeps being changed by others; let only one process drive the run", objects.uri(&key));
    Err(Error::new(ErrorKind::Conflict, message).on("run", run))
}

fn read(uri: &str, run: &str, bytes: &[u8]) -> Result<Lease> {
    let lease: Lease = serde_json::from_slice(bytes).map_err(|error| damaged(run, uri, &format!("it is not a lease: {error}")))?;
    if lease.run == run { Ok(lease) } else { Err(damaged(run, uri, "it is the lease of another run")) }
}

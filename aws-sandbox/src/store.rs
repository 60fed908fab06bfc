//! Buckets and objects in memory, behind one lock: checking a condition and writing are atomic, so of two conditional writes that race, one
//! wins. It counts requests. It must not know HTTP, SQL or faults.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::fmt;
use std::ops::{AddAssign, Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use s3s::crypto::{Checksum as _, Md5};

/// S3 allows keys of 1,024 bytes.
pub const KEY_LIMIT_BYTES: usize = 1_024;
/// S3 allows 10,000 parts in an upload.
pub const PART_LIMIT: u32 = 10_000;
/// Every part of an upload except the last has at least 5 MiB.
pub const PART_MIN_BYTES: usize = 5 * 1_024 * 1_024;

/// The entity tag of an object, without quotes: as in S3, the MD5 of its bytes, or of its parts' tags with their number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Etag(Arc<str>);

impl Etag {
    /// The tag of an object written in one piece.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex(&Md5::checksum(bytes)).into())
    }

    /// The text, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Etag {
    fn from(text: &str) -> Self {
        Self(text.trim_matches('"').into())
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Two hexadecimal digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The condition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only if there is no object of that key.
    IfNoneMatch,
    /// Only if there is an object of that key, with this tag.
    IfMatch(Etag),
}

/// The metadata of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `Content-Type`, as it was sent.
    pub content_type: Option<String>,
    /// `Content-Encoding`, as it was sent.
    pub content_encoding: Option<String>,
    /// The user's own metadata, sent in headers that begin with `x-amz-meta-`; names are without that prefix.
    pub user: BTreeMap<String, String>,
}

/// An object as it was written. Cloning copies no bytes.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its tag.
    pub etag: Etag,
    /// When it was written.
    pub last_modified: Timestamp,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
}

/// What a listing or a HEAD request returns about an object.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its tag.
    pub etag: Etag,
    /// When it was written.
    pub last_modified: Timestamp,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
}

/// A range of an object's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// From the first, up to and without the second, which may be beyond the end.
    From(u64, u64),
    /// The last bytes, this many.
    Last(u64),
}

/// The result of a read.
pub(crate) struct Read {
    /// The object, with only the bytes of the range.
    pub(crate) object: Object,
    pub(crate) range: Range<usize>,
    /// The size of the whole object.
    pub(crate) size: usize,
}

/// Where a listing continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// After this key.
    Key(String),
    /// After all keys that begin with this.
    Prefix(String),
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Head>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<After>,
}

/// Why the store refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no bucket of that name.
    NoSuchBucket(String),
    /// The bucket is not empty.
    BucketNotEmpty(String),
    /// The bucket exists already.
    BucketExists(String),
    /// There is no object of that key.
    NoSuchKey(String),
    /// The condition of a write does not hold; nothing was written.
    PreconditionFailed(String),
    /// The range begins after the last byte of the object, whose size is given.
    InvalidRange(u64),
    /// The key is empty or too long.
    InvalidKey(String),
    /// There is no upload of that id.
    NoSuchUpload(String),
    /// A named part was not uploaded, or has another tag.
    InvalidPart(u32),
    /// The named parts are not in ascending order.
    InvalidPartOrder,
    /// The number of a part is not between 1 and 10,000.
    InvalidPartNumber(u32),
    /// A part other than the last is smaller than S3 allows.
    PartTooSmall(u32),
}

impl fmt::Display for StoreError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBucket(bucket) => write!(out, "there is no bucket {bucket}"),
            Self::BucketNotEmpty(bucket) => write!(out, "the bucket {bucket} is not empty"),
            Self::BucketExists(bucket) => write!(out, "there is a bucket {bucket} already"),
            Self::NoSuchKey(key) => write!(out, "there is no object {key}"),
            Self::PreconditionFailed(key) => write!(out, "the condition of the write to {key} does not hold"),
            Self::InvalidRange(size) => write!(out, "the range is outside the object's {size} bytes"),
            Self::InvalidKey(key) => write!(out, "a key has 1 to {KEY_LIMIT_BYTES} bytes, this one {}", key.len()),
            Self::NoSuchUpload(id) => write!(out, "there is no upload {id}"),
            Self::InvalidPart(number) => write!(out, "part {number} was not uploaded with that tag"),
            Self::InvalidPartOrder => write!(out, "parts must be named in ascending order"),
            Self::InvalidPartNumber(number) => write!(out, "a part's number is 1 to {PART_LIMIT}, not {number}"),
            Self::PartTooSmall(number) => write!(out, "part {number} is not the last and has less than {PART_MIN_BYTES} bytes"),
        }
    }
}

impl std::error::Error for StoreError {}

/// How many requests of each kind the store served, and how many bytes it returned and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Reads of an object or of a range of it.
    pub gets: u64,
    /// Requests for an object's metadata.
    pub heads: u64,
    /// Writes of an object, including those whose condition did not hold; parts and completions of uploads.
    pub puts: u64,
    /// Listings.
    pub lists: u64,
    /// Deletions.
    pub deletes: u64,
    /// Bytes returned by reads; for a range, only its bytes.
    pub bytes_read: u64,
    /// Bytes received by writes that succeeded.
    pub bytes_written: u64,
}

impl Count {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.gets + self.heads + self.puts + self.lists + self.deletes
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.gets += other.gets;
        self.heads += other.heads;
        self.puts += other.puts;
        self.lists += other.lists;
        self.deletes += other.deletes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
    }
}

/// The counts, for each bucket and key. A listing counts for its prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(String, String), Count>);

impl Counts {
    /// The sum over the keys of a bucket that begin with a prefix.
    pub fn of(&self, bucket: &str, prefix: &str) -> Count {
        let from = (bucket.to_owned(), prefix.to_owned());
        let mut sum = Count::default();
        self.0.range(from..).take_while(|((of, key), _)| of == bucket && key.starts_with(prefix)).for_each(|(_, count)| sum += *count);
        sum
    }

    /// The sum over everything.
    pub fn total(&self) -> Count {
        let mut sum = Count::default();
        self.0.values().for_each(|count| sum += *count);
        sum
    }

    /// How many different objects of a bucket that begin with a prefix were read.
    pub fn objects_read(&self, bucket: &str, prefix: &str) -> usize {
        self.0.iter().filter(|((of, key), count)| of == bucket && key.starts_with(prefix) && count.gets > 0).count()
    }
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    uploads: BTreeMap<String, Upload>,
    upload_count: u64,
    counts: Counts,
}

struct Bucket {
    created: Timestamp,
    objects: BTreeMap<String, Object>,
}

struct Upload {
    bucket: String,
    key: String,
    metadata: Metadata,
    parts: BTreeMap<u32, (Bytes, Etag)>,
}

impl State {
    fn bucket(&self, name: &str) -> Result<&Bucket, StoreError> {
        self.buckets.get(name).ok_or_else(|| StoreError::NoSuchBucket(name.to_owned()))
    }

    fn object(&self, bucket: &str, key: &str) -> Result<&Object, StoreError> {
        self.bucket(bucket)?.objects.get(key).ok_or_else(|| StoreError::NoSuchKey(key.to_owned()))
    }

    fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<&Upload, StoreError> {
        self.uploads
            .get(id)
            .filter(|upload| upload.bucket == bucket && upload.key == key)
            .ok_or_else(|| StoreError::NoSuchUpload(id.to_owned()))
    }

    fn count(&mut self, bucket: &str, key: &str) -> &mut Count {
        self.counts.0.entry((bucket.to_owned(), key.to_owned())).or_default()
    }

    fn write(&mut self, bucket: &str, key: &str, object: Object, condition: Condition) -> Result<(), StoreError> {
        if key.is_empty() || key.len() > KEY_LIMIT_BYTES {
            return Err(StoreError::InvalidKey(key.to_owned()));
        }
        let size = object.bytes.len() as u64;
        let objects = &mut self.buckets.get_mut(bucket).ok_or_else(|| StoreError::NoSuchBucket(bucket.to_owned()))?.objects;
        match (condition, objects.entry(key.to_owned())) {
            (Condition::IfNoneMatch, Entry::Occupied(_)) => return Err(StoreError::PreconditionFailed(key.to_owned())),
            (Condition::IfMatch(_), Entry::Vacant(_)) => return Err(StoreError::NoSuchKey(key.to_owned())),
            (Condition::IfMatch(etag), Entry::Occupied(there)) if there.get().etag != etag => {
                return Err(StoreError::PreconditionFailed(key.to_owned()));
            }
            (_, entry) => {
                entry.insert_entry(object);
            }
        }
        self.count(bucket, key).bytes_written += size;
        Ok(())
    }
}

/// Buckets and objects in memory. Clones share them. Every method is one atomic act.
#[derive(Clone, Default)]
pub struct Store {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Store").field("buckets", &self.buckets()).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half changed, so it is consistent even if a thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a bucket, or refuses if there is one.
    pub fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        match self.lock().buckets.entry(bucket.to_owned()) {
            Entry::Occupied(_) => Err(StoreError::BucketExists(bucket.to_owned())),
            Entry::Vacant(entry) => {
                entry.insert(Bucket { created: Timestamp::now(), objects: BTreeMap::new() });
                Ok(())
            }
        }
    }

    /// Removes an empty bucket.
    pub fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !state.bucket(bucket)?.objects.is_empty() {
            return Err(StoreError::BucketNotEmpty(bucket.to_owned()));
        }
        state.buckets.remove(bucket);
        Ok(())
    }

    /// Whether there is a bucket of that name.
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.lock().buckets.contains_key(bucket)
    }

    /// All buckets, and when they were made.
    pub fn buckets(&self) -> Vec<(String, Timestamp)> {
        self.lock().buckets.iter().map(|(name, bucket)| (name.clone(), bucket.created)).collect()
    }

    /// Writes an object if the condition holds; otherwise nothing changes.
    pub fn put(&self, bucket: &str, key: &str, bytes: Bytes, condition: Condition, metadata: Metadata) -> Result<Etag, StoreError> {
        // Hashes before taking the lock, so that a large object does not delay others.
        let etag = Etag::of(&bytes);
        let object = Object { bytes, etag: etag.clone(), last_modified: Timestamp::now(), metadata: Arc::new(metadata) };
        let mut state = self.lock();
        state.count(bucket, key).puts += 1;
        state.write(bucket, key, object, condition)?;
        Ok(etag)
    }

    /// An object with all its bytes.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Object, StoreError> {
        Ok(match self.read(bucket, key, None, |_| Ok::<_, Infallible>(()))? {
            Ok(read) => read.object,
            Err(never) => match never {},
        })
    }

    /// A range of an object's bytes, cut where the object ends. It must begin before the end; the object is otherwise the same.
    pub fn get_range(&self, bucket: &str, key: &str, range: Range<u64>) -> Result<Object, StoreError> {
        let read = self.read(bucket, key, Some(Part::From(range.start, range.end)), |_| Ok::<_, Infallible>(()))?;
        Ok(match read {
            Ok(read) => read.object,
            Err(never) => match never {},
        })
    }

    /// Reads part of an object, or all of it, if the check of its tag passes; otherwise no bytes are counted as read.
    pub(crate) fn read<E>(
        &self,
        bucket: &str,
        key: &str,
        part: Option<Part>,
        check: impl FnOnce(&Etag) -> Result<(), E>,
    ) -> Result<Result<Read, E>, StoreError> {
        let mut state = self.lock();
        let found = state.object(bucket, key).cloned();
        let count = state.count(bucket, key);
        count.gets += 1;
        let mut object = found?;
        if let Err(error) = check(&object.etag) {
            return Ok(Err(error));
        }
        let size = object.bytes.len();
        let outside = StoreError::InvalidRange(size as u64);
        let range = match part {
            None => 0..size,
            Some(Part::From(start, end)) if start < end && start < size as u64 => {
                // Both are at most the object's size, which is a `usize`.
                usize::try_from(start).unwrap_or(size)..usize::try_from(end).unwrap_or(size).min(size)
            }
            Some(Part::Last(bytes)) if bytes > 0 => size.saturating_sub(usize::try_from(bytes).unwrap_or(size))..size,
            Some(_) => return Err(outside),
        };
        object.bytes = object.bytes.slice(range.clone());
        count.bytes_read += object.bytes.len() as u64;
        Ok(Ok(Read { object, range, size }))
    }

    /// The metadata of an object.
    pub fn head(&self, bucket: &str, key: &str) -> Result<Head, StoreError> {
        let mut state = self.lock();
        state.count(bucket, key).heads += 1;
        Ok(head(key, state.object(bucket, key)?))
    }

    /// The objects whose keys begin with a prefix and come after `after`, in order of their bytes, at most `limit`.
    pub fn list(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Head>, StoreError> {
        let mut state = self.lock();
        state.count(bucket, prefix).lists += 1;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let objects = &state.bucket(bucket)?.objects;
        Ok(objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, object)| head(key, object))
            .collect())
    }

    /// As [`list`](Self::list), but keys that share the text between the prefix and the next delimiter are one entry.
    pub(crate) fn list_page(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&After>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut state = self.lock();
        state.count(bucket, prefix).lists += 1;
        let objects = &state.bucket(bucket)?.objects;
        let mut page = Page::default();
        if limit == 0 {
            return Ok(page);
        }
        let (mut after, mut entries) = (after.cloned(), 0);
        let from = match &after {
            Some(After::Key(text) | After::Prefix(text)) if text.as_str() >= prefix => Bound::Excluded(text.clone()),
            _ => Bound::Included(prefix.to_owned()),
        };
        for (key, object) in objects.range((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix)) {
            if matches!(&after, Some(After::Prefix(common)) if key.starts_with(common.as_str())) {
                continue;
            }
            if entries == limit {
                page.next = after;
                return Ok(page);
            }
            let shared = delimiter.and_then(|delimiter| key[prefix.len()..].find(delimiter).map(|at| prefix.len() + at + delimiter.len()));
            after = Some(if let Some(end) = shared {
                page.prefixes.push(key[..end].to_owned());
                After::Prefix(key[..end].to_owned())
            } else {
                page.objects.push(head(key, object));
                After::Key(key.clone())
            });
            entries += 1;
        }
        Ok(page)
    }

    /// Removes an object. As in S3, it is no error if there was none.
    pub fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.count(bucket, key).deletes += 1;
        state.bucket(bucket)?;
        if let Some(bucket) = state.buckets.get_mut(bucket) {
            bucket.objects.remove(key);
        }
        Ok(())
    }

    /// Removes an object if it has this tag.
    pub fn delete_if_match(&self, bucket: &str, key: &str, etag: &Etag) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.count(bucket, key).deletes += 1;
        if state.object(bucket, key)?.etag != *etag {
            return Err(StoreError::PreconditionFailed(key.to_owned()));
        }
        if let Some(bucket) = state.buckets.get_mut(bucket) {
            bucket.objects.remove(key);
        }
        Ok(())
    }

    /// Begins a multipart upload and returns its id.
    pub fn begin_upload(&self, bucket: &str, key: &str, metadata: Metadata) -> Result<String, StoreError> {
        let mut state = self.lock();
        state.bucket(bucket)?;
        state.count(bucket, key).puts += 1;
        state.upload_count += 1;
        let id = format!("upload-{:08}", state.upload_count);
        let upload = Upload { bucket: bucket.to_owned(), key: key.to_owned(), metadata, parts: BTreeMap::new() };
        state.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// Stores a part of an upload, replacing an earlier part of that number.
    pub fn upload_part(&self, bucket: &str, key: &str, id: &str, number: u32, bytes: Bytes) -> Result<Etag, StoreError> {
        if !(1..=PART_LIMIT).contains(&number) {
            return Err(StoreError::InvalidPartNumber(number));
        }
        let etag = Etag::of(&bytes);
        let mut state = self.lock();
        state.count(bucket, key).puts += 1;
        state.upload(bucket, key, id)?;
        if let Some(upload) = state.uploads.get_mut(id) {
            upload.parts.insert(number, (bytes, etag.clone()));
        }
        Ok(etag)
    }

    /// Completes an upload from the named parts, if the condition holds. If it does not, the upload stays and can be completed again.
    pub fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        parts: &[(u32, Etag)],
        condition: Condition,
    ) -> Result<Etag, StoreError> {
        let mut state = self.lock();
        state.count(bucket, key).puts += 1;
        let upload = state.upload(bucket, key, id)?;
        if !parts.is_sorted_by(|before, after| before.0 < after.0) {
            return Err(StoreError::InvalidPartOrder);
        }
        let mut bytes = BytesMut::new();
        let mut tags = Md5::new();
        for (index, (number, etag)) in parts.iter().enumerate() {
            let (part, _) = upload.parts.get(number).filter(|(_, of)| of == etag).ok_or(StoreError::InvalidPart(*number))?;
            if index + 1 < parts.len() && part.len() < PART_MIN_BYTES {
                return Err(StoreError::PartTooSmall(*number));
            }
            tags.update(&Md5::checksum(part));
            bytes.extend_from_slice(part);
        }
        let etag = Etag(format!("{}-{}", hex(&tags.finalize()), parts.len()).into());
        let metadata = Arc::new(upload.metadata.clone());
        let object = Object { bytes: bytes.freeze(), etag: etag.clone(), last_modified: Timestamp::now(), metadata };
        state.write(bucket, key, object, condition)?;
        state.uploads.remove(id);
        Ok(etag)
    }

    /// Discards an upload and its parts.
    pub fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.upload(bucket, key, id)?;
        state.uploads.remove(id);
        Ok(())
    }

    /// The ids and keys of the uploads in progress in a bucket.
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let state = self.lock();
        state.uploads.iter().filter(|(_, upload)| upload.bucket == bucket).map(|(id, upload)| (id.clone(), upload.key.clone())).collect()
    }

    /// The requests since the store was created, or since [`reset`](Self::reset).
    pub fn counted(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Resets the counts. Objects stay.
    pub fn reset(&self) {
        self.lock().counts = Counts::default();
    }
}

fn head(key: &str, object: &Object) -> Head {
    Head {
        key: key.to_owned(),
        size: object.bytes.len() as u64,
        etag: object.etag.clone(),
        last_modified: object.last_modified,
        metadata: Arc::clone(&object.metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let store = Store::new();
        store.create_bucket("lake").unwrap();
        store
    }

    fn put(store: &Store, key: &str, bytes: &'static [u8], condition: Condition) -> Result<Etag, StoreError> {
        store.put("lake", key, Bytes::from_static(bytes), condition, Metadata::default())
    }

    #[test]
    fn a_tag_is_the_md5_of_the_bytes() {
        assert_eq!(Etag::of(b"hello").as_str(), "5d41402abc4b2a76b9719d911017c592");
    }

    #[test]
    fn a_write_whose_condition_does_not_hold_changes_nothing() {
        let store = store();
        let first = put(&store, "a", b"one", Condition::IfNoneMatch).unwrap();
        assert_eq!(put(&store, "a", b"two", Condition::IfNoneMatch), Err(StoreError::PreconditionFailed("a".into())));
        assert_eq!(put(&store, "a", b"two", Condition::IfMatch("other".into())), Err(StoreError::PreconditionFailed("a".into())));
        assert_eq!(put(&store, "b", b"two", Condition::IfMatch(first.clone())), Err(StoreError::NoSuchKey("b".into())));
        assert_eq!(store.get("lake", "a").unwrap().bytes, "one");
        put(&store, "a", b"two", Condition::IfMatch(first)).unwrap();
        assert_eq!(store.get("lake", "a").unwrap().bytes, "two");
    }

    #[test]
    fn a_listing_goes_on_after_any_text() {
        let store = store();
        for key in ["a/1", "a/2", "a/3", "b/1"] {
            put(&store, key, b"x", Condition::Always).unwrap();
        }
        let keys =
            |prefix, after, limit| store.list("lake", prefix, after, limit).unwrap().into_iter().map(|head| head.key).collect::<Vec<_>>();
        assert_eq!(keys("a/", None, 10), ["a/1", "a/2", "a/3"]);
        assert_eq!(keys("a/", Some("a/1"), 1), ["a/2"]);
        assert_eq!(keys("a/", Some("a/2x"), 10), ["a/3"]);
        assert_eq!(keys("a/", Some("A"), 10), ["a/1", "a/2", "a/3"]);
        assert_eq!(keys("a/", Some("b"), 10), Vec::<String>::new());
    }

    #[test]
    fn a_range_counts_its_own_bytes() {
        let store = store();
        put(&store, "bars/day=1/a", b"0123456789", Condition::Always).unwrap();
        put(&store, "bars/day=2/a", b"0123456789", Condition::Always).unwrap();
        store.reset();
        assert_eq!(store.get_range("lake", "bars/day=1/a", 8..99).unwrap().bytes, "89");
        assert_eq!(store.get_range("lake", "bars/day=1/a", 10..11).unwrap_err(), StoreError::InvalidRange(10));
        let counted = store.counted();
        assert_eq!(counted.of("lake", "bars/day=1"), Count { gets: 2, bytes_read: 2, ..Count::default() });
        assert_eq!(counted.of("lake", "bars/day=2"), Count::default());
        assert_eq!((counted.total().requests(), counted.objects_read("lake", "bars/")), (2, 1));
    }
}

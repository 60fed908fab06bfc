//! Objects in S3: written whole or not at all, and with a condition where two may write.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use repair_core::{Error, ErrorKind, Result};

use crate::error::of_sdk;
use crate::patience::Patience;

/// Keys that S3 deletes in one request.
const KEYS_A_DELETE: usize = 1_000;

/// The size of a part of an upload. S3 accepts no smaller part except the last, and at most 10,000 parts.
const PART_BYTES: usize = 16 << 20;

/// The most objects of one listing; more in one of our folders is a mistake.
const MAX_LISTED: usize = 2_000_000;

/// A bucket and a prefix in it, without `/` at its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The bucket.
    pub(crate) bucket: String,
    /// The prefix; may be empty.
    pub(crate) prefix: String,
}

impl Location {
    /// Reads `s3://bucket/prefix`; anything else is `invalid`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refuse = || Error::invalid(format!("`{text}` is not a place in S3; write it as s3://bucket/prefix"));
        let rest = ["s3://", "s3a://"].iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or_else(refuse)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || !bucket.chars().all(|char| char.is_ascii_alphanumeric() || ".-_".contains(char)) {
            return Err(refuse());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }

    /// A place below it.
    #[must_use]
    pub(crate) fn join(&self, path: &str) -> Self {
        let prefix = if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Self { bucket: self.bucket.clone(), prefix }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix.is_empty() { write!(f, "s3://{}", self.bucket) } else { write!(f, "s3://{}/{}", self.bucket, self.prefix) }
    }
}

/// The condition on which an object is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Always.
    Always,
    /// Only if no object has that key.
    IfNoneMatch,
    /// Only if the object there has this tag.
    IfMatch(String),
}

/// An object, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    /// Its tag, which changes whenever it is written.
    pub(crate) tag: String,
}

/// Marks the error of a missing object in an existing bucket.
const NO_SUCH_KEY: &str = "was answered with NoSuchKey";

/// The last bytes of an object.
struct Got {
    body: Bytes,
    /// The bytes of the whole object.
    size: u64,
    tag: String,
}

/// The objects of a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    client: Client,
    bucket: String,
    patience: Patience,
}

impl Objects {
    pub(crate) fn new(client: Client, bucket: &str, patience: Patience) -> Self {
        Self { client, bucket: bucket.to_owned(), patience }
    }

    /// The objects of another bucket.
    pub(crate) fn of_bucket(&self, bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), ..self.clone() }
    }

    /// The object's name for people.
    pub(crate) fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Writes an object, whole.
    ///
    /// # Errors
    /// `conflict` if the condition does not hold. A write whose reply was lost is repeated, and then conflicts with itself, so callers must
    /// take a conflict as "it is written, by me or by another who writes the same".
    pub(crate) async fn put(&self, key: &str, body: Bytes, condition: Condition) -> Result<()> {
        let (if_none_match, if_match) = match condition {
            Condition::Always => (None, None),
            Condition::IfNoneMatch => (Some("*".to_owned()), None),
            Condition::IfMatch(tag) => (None, Some(tag)),
        };
        self.patience
            .retried(|| async {
                let put = self.client.put_object().bucket(&self.bucket).key(key);
                let put = put.set_if_none_match(if_none_match.clone()).set_if_match(if_match.clone());
                match put.body(ByteStream::from(body.clone())).send().await.map_err(|error| of_sdk("s3:PutObject", &self.uri(key), error)) {
                    Ok(_) => Ok(()),
                    // If two write at once, S3 wants the later one to try again.
                    Err(error) if error.full().contains("ConditionalRequestConflict") => Err(error.of_kind(ErrorKind::Transient)),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Writes an object, whole, and returns whether the condition held. A write whose reply was lost is repeated, and may then return that
    /// it did not hold although the object is its own, so a refused caller must look at the object.
    pub(crate) async fn put_if(&self, key: &str, body: Bytes, condition: Condition) -> Result<bool> {
        match self.put(key, body, condition).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            // The object to replace is gone.
            Err(error) if error.message().contains(NO_SUCH_KEY) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The whole object and its tag; `None` if there is no such object.
    ///
    /// # Errors
    /// `not-found` if there is no such bucket; `transient` if the answer ended early.
    pub(crate) async fn find(&self, key: &str) -> Result<Option<(Bytes, String)>> {
        match self.get_range(key, None).await {
            Ok(got) => Ok(Some((got.body, got.tag))),
            Err(error) if error.message().contains(NO_SUCH_KEY) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole object.
    ///
    /// # Errors
    /// `not-found` if there is none; `transient` if the answer ended early.
    pub(crate) async fn get(&self, key: &str) -> Result<Bytes> {
        Ok(self.get_range(key, None).await?.body)
    }

    /// The first bytes of an object that has at least one.
    pub(crate) async fn get_prefix(&self, key: &str, bytes: u64) -> Result<Bytes> {
        Ok(self.get_range(key, Some(format!("bytes=0-{}", bytes.saturating_sub(1)))).await?.body)
    }

    /// The last bytes of an object, and its size.
    pub(crate) async fn get_suffix(&self, key: &str, bytes: u64) -> Result<(Bytes, u64)> {
        let got = self.get_range(key, Some(format!("bytes=-{bytes}"))).await?;
        Ok((got.body, got.size))
    }

    async fn get_range(&self, key: &str, range: Option<String>) -> Result<Got> {
        self.patience
            .retried(|| async {
                let got = self.client.get_object().bucket(&self.bucket).key(key).set_range(range.clone()).send().await;
                let got = got.map_err(|error| of_sdk("s3:GetObject", &self.uri(key), error))?;
                let length = got.content_length().and_then(|length| u64::try_from(length).ok());
                // `bytes 0-9/200`: the size of the whole follows the slash.
                let whole = got.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
                let tag = got.e_tag.unwrap_or_default();
                let broken = || Error::new(ErrorKind::Transient, format!("{} ended early while it was being read", self.uri(key)));
                let body = got.body.collect().await.map_err(|error| broken().because(error))?.into_bytes();
                if length.is_some_and(|length| length != body.len() as u64) {
                    return Err(broken());
                }
                let size = whole.unwrap_or(body.len() as u64);
                Ok(Got { body, size, tag })
            })
            .await
    }

    /// An object that may be large, as a stream.
    ///
    /// # Errors
    /// As [`Objects::get`]; those of the stream are `transient` if the answer ends early.
    pub(crate) async fn stream_uri(&self, uri: &str) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let location = Location::parse(uri)?;
        let got = self
            .patience
            .retried(|| async {
                let got = self.client.get_object().bucket(&location.bucket).key(&location.prefix).send().await;
                got.map_err(|error| of_sdk("s3:GetObject", uri, error))
            })
            .await?;
        let left = got.content_length().and_then(|length| u64::try_from(length).ok());
        let uri = uri.to_owned();
        Ok(futures::stream::try_unfold((got.body, left), move |(mut body, left)| {
            let broken = Error::new(ErrorKind::Transient, format!("{uri} ended early while it was being read"));
            async move {
                match body.next().await {
                    Some(Ok(bytes)) => {
                        let left = left.map(|left| left.saturating_sub(bytes.len() as u64));
                        Ok(Some((bytes, (body, left))))
                    }
                    Some(Err(error)) => Err(broken.because(error)),
                    None if left.is_some_and(|left| left > 0) => Err(broken),
                    None => Ok(None),
                }
            }
        }))
    }

    /// An object's size and tag.
    ///
    /// # Errors
    /// `not-found` if there is none.
    pub(crate) async fn head(&self, key: &str) -> Result<Object> {
        self.patience
            .retried(|| async {
                let head = self.client.head_object().bucket(&self.bucket).key(key).send().await;
                let head = head.map_err(|error| of_sdk("s3:GetObject", &self.uri(key), error))?;
                let bytes = head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
                Ok(Object { key: key.to_owned(), bytes, tag: head.e_tag.unwrap_or_default() })
            })
            .await
    }

    /// The objects whose keys begin with a prefix, in order.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        self.list_after(prefix, None).await
    }

    /// The objects whose keys begin with a prefix and come after a key, in order.
    pub(crate) async fn list_after(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Object>> {
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = self
                .patience
                .retried(|| async {
                    let page = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).set_start_after(after.map(str::to_owned));
                    let page = page.set_continuation_token(next.clone()).send().await;
                    page.map_err(|error| of_sdk("s3:ListBucket", &format!("s3://{}", self.bucket), error))
                })
                .await?;
            next = page.next_continuation_token;
            for object in page.contents.unwrap_or_default() {
                let bytes = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                let tag = object.e_tag.unwrap_or_default();
                all.extend(object.key.map(|key| Object { key, bytes, tag }));
            }
            if all.len() > MAX_LISTED {
                return Err(Error::invalid(format!("{} holds more than {MAX_LISTED} objects", self.uri(prefix))));
            }
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// The first objects whose keys begin with a prefix, in order, and whether there are more of them.
    pub(crate) async fn some(&self, prefix: &str, most: usize) -> Result<(Vec<Object>, bool)> {
        let mut all: Vec<Object> = Vec::new();
        loop {
            let after = all.last().map(|object| object.key.clone());
            let page = self
                .patience
                .retried(|| async {
                    let page =
                        self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).set_start_after(after.clone()).send().await;
                    page.map_err(|error| of_sdk("s3:ListBucket", &format!("s3://{}", self.bucket), error))
                })
                .await?;
            let goes_on = page.is_truncated.unwrap_or(false);
            let before = all.len();
            for object in page.contents.unwrap_or_default() {
                let bytes = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                let tag = object.e_tag.unwrap_or_default();
                all.extend(object.key.map(|key| Object { key, bytes, tag }));
            }
            if all.len() >= most {
                let are_more = goes_on || all.len() > most;
                all.truncate(most);
                return Ok((all, are_more));
            }
            if !goes_on || all.len() == before {
                return Ok((all, goes_on));
            }
        }
    }

    /// Some of the objects whose keys begin with a prefix: the first ones, in order.
    pub(crate) async fn first(&self, prefix: &str) -> Result<Vec<Object>> {
        let page = self
            .patience
            .retried(|| async {
                let page = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).send().await;
                page.map_err(|error| of_sdk("s3:ListBucket", &format!("s3://{}", self.bucket), error))
            })
            .await?;
        let objects = page.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let bytes = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
            Some(Object { key: object.key?, bytes, tag: object.e_tag.unwrap_or_default() })
        });
        Ok(objects.collect())
    }

    /// The folders directly in a folder, in order. Their names, like the folder's, end in `/`.
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = self
                .patience
                .retried(|| async {
                    let page = self.client.list_objects_v2().bucket(&self.bucket).prefix(folder).delimiter("/");
                    let page = page.set_continuation_token(next.clone()).send().await;
                    page.map_err(|error| of_sdk("s3:ListBucket", &format!("s3://{}", self.bucket), error))
                })
                .await?;
            next = page.next_continuation_token;
            all.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix));
            if all.len() > MAX_LISTED {
                return Err(Error::invalid(format!("{} holds more than {MAX_LISTED} folders", self.uri(folder))));
            }
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Removes objects, which may be gone already.
    pub(crate) async fn delete(&self, keys: &[String]) -> Result<()> {
        for some in keys.chunks(KEYS_A_DELETE) {
            let of = |key: &String| ObjectIdentifier::builder().key(key).build();
            let objects: Vec<ObjectIdentifier> =
                some.iter().map(of).collect::<Result<_, _>>().map_err(|error| Error::internal("a key is missing").because(error))?;
            let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
            let delete = delete.map_err(|error| Error::internal("no keys to delete").because(error))?;
            let resource = some.first().map(|key| self.uri(key)).unwrap_or_default();
            let done = self
                .patience
                .retried(|| async {
                    let done = self.client.delete_objects().bucket(&self.bucket).delete(delete.clone()).send().await;
                    done.map_err(|error| of_sdk("s3:DeleteObject", &resource, error))
                })
                .await?;
            if let Some(error) = done.errors.unwrap_or_default().first() {
                let (key, code) = (error.key().unwrap_or_default(), error.code().unwrap_or_default());
                return Err(crate::error::of_code("s3:DeleteObject", &self.uri(key), code, error.message().unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Starts writing an object as a stream.
    pub(crate) fn upload(&self, key: &str) -> Upload {
        Upload { objects: self.clone(), key: key.to_owned(), waiting: BytesMut::new(), id: None, parts: Vec::new(), bytes: 0, done: false }
    }

    /// Reads a Parquet object in pieces.
    pub(crate) fn reader(&self, key: &str, bytes: u64) -> ParquetObject {
        ParquetObject { objects: self.clone(), key: key.to_owned(), bytes }
    }
}

/// An object that is being written. It appears, or replaces the old one, when it is completed; if it is dropped before, nothing changes.
#[derive(Debug)]
pub(crate) struct Upload {
    objects: Objects,
    key: String,
    waiting: BytesMut,
    id: Option<String>,
    parts: Vec<CompletedPart>,
    bytes: u64,
    done: bool,
}

impl Upload {
    /// Adds bytes.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.waiting.extend_from_slice(&bytes);
        while self.waiting.len() >= PART_BYTES {
            let part = self.waiting.split_to(PART_BYTES).freeze();
            self.part(part).await?;
        }
        Ok(())
    }

    async fn part(&mut self, body: Bytes) -> Result<()> {
        let Objects { client, bucket, patience } = &self.objects;
        let uri = self.objects.uri(&self.key);
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let begun = patience
                    .retried(|| async {
                        let begun = client.create_multipart_upload().bucket(bucket).key(&self.key).send().await;
                        begun.map_err(|error| of_sdk("s3:PutObject", &uri, error))
                    })
                    .await?;
                let id = begun.upload_id.ok_or_else(|| Error::internal("S3 began an upload and gave it no id"))?;
                self.id.insert(id).clone()
            }
        };
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        let sent = patience
            .retried(|| async {
                let body = ByteStream::from(body.clone());
                let sent = client.upload_part().bucket(bucket).key(&self.key).upload_id(&id).part_number(number).body(body).send().await;
                sent.map_err(|error| of_sdk("s3:PutObject", &uri, error))
            })
            .await?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_checksum_crc64_nvme(sent.checksum_crc64_nvme);
        self.parts.push(part.build());
        Ok(())
    }

    /// Completes the object; returns its size and the number of requests.
    pub(crate) async fn complete(mut self) -> Result<(u64, u64)> {
        let last = std::mem::take(&mut self.waiting).freeze();
        if self.id.is_none() {
            self.objects.put(&self.key, last, Condition::Always).await?;
            self.done = true;
            return Ok((self.bytes, 1));
        }
        if !last.is_empty() {
            self.part(last).await?;
        }
        let Objects { client, bucket, patience } = &self.objects;
        let uri = self.objects.uri(&self.key);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let id = self.id.clone().unwrap_or_default();
        let completed = patience
            .retried(|| async {
                let completed =
                    client.complete_multipart_upload().bucket(bucket).key(&self.key).upload_id(&id).multipart_upload(parts.clone());
                match completed.send().await.map_err(|error| of_sdk("s3:PutObject", &uri, error)) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                }
            })
            .await;
        match completed {
            Ok(()) => {}
            // The reply to an earlier try was lost: the upload is gone because the object is complete.
            Err(error)
                if error.full().contains("NoSuchUpload")
                    && self.objects.head(&self.key).await.is_ok_and(|object| object.bytes == self.bytes) => {}
            Err(error) => return Err(error),
        }
        self.done = true;
        Ok((self.bytes, self.parts.len() as u64 + 2))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.done
            && let Some(id) = self.id.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (objects, key) = (self.objects.clone(), std::mem::take(&mut self.key));
            runtime.spawn(async move {
                let aborted = objects.client.abort_multipart_upload().bucket(&objects.bucket).key(&key).upload_id(id).send().await;
                if let Err(error) = aborted {
                    tracing::warn!(%key, %error, "could not remove an abandoned upload");
                }
            });
        }
    }
}

/// A Parquet object, of which only the needed ranges are read.
#[derive(Debug, Clone)]
pub(crate) struct ParquetObject {
    objects: Objects,
    key: String,
    bytes: u64,
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ParquetObject {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            let range = format!("bytes={}-{}", range.start, range.end - 1);
            Ok(self.objects.get_range(&self.key, Some(range)).await.map_err(external)?.body)
        }
        .boxed()
    }

    fn get_metadata<'a>(&'a mut self, _: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let bytes = self.bytes;
            let footer = ParquetMetaDataReader::new().load_and_finish(self, bytes).await?;
            Ok(Arc::new(footer))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_bucket_and_a_prefix() {
        let of = |text: &str| Location::parse(text).map(|location| (location.bucket, location.prefix));
        assert_eq!(of("s3://bucket/lake/a/").unwrap(), ("bucket".to_owned(), "lake/a".to_owned()));
        assert_eq!(of("s3://bucket").unwrap(), ("bucket".to_owned(), String::new()));
        for odd in ["bucket/lake", "s3://", "s3:///lake", "https://bucket/lake", "./lake"] {
            assert!(of(odd).unwrap_err().message().contains("s3://bucket/prefix"), "{odd}");
        }
    }
}

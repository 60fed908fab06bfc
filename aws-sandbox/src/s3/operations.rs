//! What each operation does. The store decides preconditions of reads and writes, atomically with the operation.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use futures::StreamExt as _;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketLocationConstraint, CommonPrefix, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, EncodingType, GetBucketLocationInput,
    GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListObjectsV2Input, ListObjectsV2Output, MetadataDirective, PutObjectInput, PutObjectOutput,
    Range, StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use super::chunked;
use crate::store::{self, Condition, Etag, Metadata, Store, StoreError};

/// S3 returns at most this many keys at a time.
const PAGE_LIMIT: usize = 1_000;

pub(super) struct Operations {
    pub(super) store: Store,
    pub(super) region: String,
}

impl From<StoreError> for s3s::S3Error {
    fn from(error: StoreError) -> Self {
        let mut converted = match &error {
            StoreError::NoSuchBucket(_) => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
            StoreError::BucketNotEmpty(_) => s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"),
            StoreError::BucketExists(_) => s3_error!(BucketAlreadyOwnedByYou, "Your previous request to create the bucket succeeded"),
            StoreError::NoSuchKey(_) => s3_error!(NoSuchKey, "The specified key does not exist."),
            StoreError::PreconditionFailed(_) => {
                s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
            }
            StoreError::InvalidRange(_) => s3_error!(InvalidRange, "The requested range is not satisfiable"),
            StoreError::InvalidKey(_) => s3_error!(KeyTooLongError, "Your key is too long"),
            StoreError::NoSuchUpload(_) => s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
            ),
            StoreError::InvalidPart(_) => s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag \
                 may not match the part's entity tag."
            ),
            StoreError::InvalidPartOrder => s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."),
            StoreError::InvalidPartNumber(_) => {
                s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
            }
            StoreError::PartTooSmall(_) => {
                s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size")
            }
        };
        converted.set_source(Box::new(error));
        converted
    }
}

/// Collects a body. The server already holds it in memory.
async fn bytes(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    let mut collected = bytes::BytesMut::new();
    while let Some(chunk) = body.next().await {
        collected.extend_from_slice(&chunk.map_err(|error| s3_error!(InternalError, "{error}"))?);
    }
    Ok(collected.freeze())
}

fn blob(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::from(Body::from(bytes))
}

fn tag(etag: &Etag) -> ETag {
    ETag::Strong(etag.as_str().to_owned())
}

fn instant(at: jiff::Timestamp) -> Timestamp {
    // Everything here is written after 1970.
    Timestamp::from(SystemTime::UNIX_EPOCH + at.duration_since(jiff::Timestamp::UNIX_EPOCH).unsigned_abs())
}

fn length(size: usize) -> S3Result<i64> {
    i64::try_from(size).map_err(|error| s3_error!(InternalError, "{error}"))
}

/// The condition in a write's headers. S3 accepts only `*` for one, and only a tag for the other.
fn condition(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::IfNoneMatch),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::IfMatch(etag.value().into())),
        _ => Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
    }
}

/// Whether a read may proceed, given the object's tag.
fn check_read(etag: &Etag, if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<()> {
    let is_it = |condition: &ETagCondition| condition.is_any() || condition.as_etag().is_some_and(|of| of.value() == etag.as_str());
    if if_match.is_some_and(|condition| !is_it(condition)) {
        return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
    }
    if if_none_match.is_some_and(is_it) {
        return Err(s3_error!(NotModified, "Not Modified"));
    }
    Ok(())
}

fn not_here(what: &str) -> s3s::S3Error {
    s3_error!(NotImplemented, "The sandbox does not serve {what}")
}

fn metadata(content_type: Option<String>, content_encoding: Option<String>, user: Option<s3s::dto::Metadata>) -> Metadata {
    Metadata { content_type, content_encoding, user: user.unwrap_or_default().into_iter().collect() }
}

fn user(metadata: &BTreeMap<String, String>) -> Option<s3s::dto::Metadata> {
    (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect())
}

/// Percent-encodes what `encoding-type=url` asks for.
fn url_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

/// The token of the next page, opaque to callers: hexadecimal, so that it survives any encoding.
fn token(after: &store::After) -> String {
    let (kind, text) = match after {
        store::After::Key(key) => ('k', key),
        store::After::Prefix(prefix) => ('p', prefix),
    };
    format!("{kind}{}", store::hex(text.as_bytes()))
}

fn read_token(token: &str) -> Option<store::After> {
    let digits = token.get(1..)?;
    let bytes: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect();
    let text = String::from_utf8(bytes?).ok()?;
    match token.as_bytes().first()? {
        b'k' => Some(store::After::Key(text)),
        b'p' => Some(store::After::Prefix(text)),
        _ => None,
    }
}

#[async_trait::async_trait]
impl s3s::S3 for Operations {
    async fn list_buckets(&self, _request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = |(name, created)| Bucket { bucket_region: None, creation_date: Some(instant(created)), name: Some(name) };
        let buckets = self.store.buckets().into_iter().map(bucket).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..Default::default() }))
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = request.input.bucket;
        match self.store.create_bucket(&bucket) {
            // Only this region accepts creating a bucket that the caller already owns.
            Err(StoreError::BucketExists(_)) if self.region == "us-east-1" => {}
            created => created?,
        }
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{bucket}")) }))
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store.delete_bucket(&request.input.bucket)?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.known(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(self.region.clone()), ..Default::default() }))
    }

    async fn get_bucket_location(&self, request: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.known(&request.input.bucket)?;
        // The oldest region has no constraint.
        let constraint = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: constraint }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let condition = condition(input.if_match, input.if_none_match)?;
        let bytes = bytes(input.body).await?;
        let metadata = metadata(input.content_type, input.content_encoding, input.metadata);
        let etag = self.store.put(&input.bucket, &input.key, bytes, condition, metadata)?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(tag(&etag)),
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        if input.part_number.is_some() || input.if_modified_since.is_some() || input.if_unmodified_since.is_some() {
            return Err(not_here("GetObject by part or by time"));
        }
        let range = input.range.map(|range| match range {
            Range::Int { first, last } => store::Part::From(first, last.map_or(u64::MAX, |last| last.saturating_add(1))),
            Range::Suffix { length } => store::Part::Last(length),
        });
        let check = |etag: &Etag| check_read(etag, input.if_match.as_ref(), input.if_none_match.as_ref());
        let read = self.store.read(&input.bucket, &input.key, range, check)??;
        let object = read.object;
        let content_range = input.range.map(|_| match read.range.end {
            0 => format!("bytes */{}", read.size),
            end => format!("bytes {}-{}/{}", read.range.start, end - 1, read.size),
        });
        // Only the checksum of the whole object is known, which proves nothing about part of it.
        let wants_sum = input.checksum_mode.is_some() && content_range.is_none();
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            checksum_crc32: wants_sum.then(|| chunked::crc32(&object.bytes)).flatten(),
            content_length: Some(length(object.bytes.len())?),
            content_range,
            content_type: object.metadata.content_type.clone(),
            content_encoding: object.metadata.content_encoding.clone(),
            e_tag: Some(tag(&object.etag)),
            last_modified: Some(instant(object.last_modified)),
            metadata: user(&object.metadata.user),
            body: Some(blob(object.bytes)),
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        if input.part_number.is_some() || input.range.is_some() || input.if_modified_since.is_some() || input.if_unmodified_since.is_some()
        {
            return Err(not_here("HeadObject by part, range or time"));
        }
        let head = self.store.head(&input.bucket, &input.key)?;
        check_read(&head.etag, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(i64::try_from(head.size).map_err(|error| s3_error!(InternalError, "{error}"))?),
            content_type: head.metadata.content_type.clone(),
            content_encoding: head.metadata.content_encoding.clone(),
            e_tag: Some(tag(&head.etag)),
            last_modified: Some(instant(head.last_modified)),
            metadata: user(&head.metadata.user),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let limit = input.max_keys.map_or(PAGE_LIMIT, |keys| usize::try_from(keys).unwrap_or(0).min(PAGE_LIMIT));
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => {
                Some(read_token(token).ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?)
            }
            (None, Some(key)) => Some(store::After::Key(key.clone())),
            (None, None) => None,
        };
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let page = self.store.list_page(&input.bucket, prefix, delimiter, after.as_ref(), limit)?;
        let encodes = input.encoding_type.as_ref().is_some_and(|of| of.as_str() == EncodingType::URL);
        let text = |text: String| if encodes { url_encoded(&text) } else { text };
        let key_count = page.objects.len() + page.prefixes.len();
        let object = |head: store::Head| -> S3Result<s3s::dto::Object> {
            Ok(s3s::dto::Object {
                key: Some(text(head.key)),
                e_tag: Some(tag(&head.etag)),
                last_modified: Some(instant(head.last_modified)),
                size: Some(i64::try_from(head.size).map_err(|error| s3_error!(InternalError, "{error}"))?),
                ..Default::default()
            })
        };
        let count = |count: usize| i32::try_from(count).map_err(|error| s3_error!(InternalError, "{error}"));
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: Some(text(prefix.to_owned())),
            delimiter: input.delimiter.map(text),
            max_keys: Some(count(limit)?),
            key_count: Some(count(key_count)?),
            continuation_token: input.continuation_token,
            start_after: input.start_after.map(text),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_ref().map(token),
            contents: Some(page.objects.into_iter().map(object).collect::<S3Result<_>>()?),
            common_prefixes: Some(page.prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(text(prefix)) }).collect()),
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        match condition(input.if_match, None)? {
            Condition::IfMatch(etag) => self.store.delete_if_match(&input.bucket, &input.key, &etag)?,
            _ => self.store.delete(&input.bucket, &input.key)?,
        }
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        if input.delete.objects.len() > PAGE_LIMIT {
            return Err(s3_error!(
                MalformedXML,
                "The XML you provided was not well-formed or did not validate against our published schema"
            ));
        }
        let mut deleted = Vec::new();
        for object in input.delete.objects {
            self.store.delete(&input.bucket, &object.key)?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        Ok(S3Response::new(DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), ..Default::default() }))
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, version_id: None } = &input.copy_source else {
            return Err(not_here("CopyObject from access points or versions"));
        };
        if input.copy_source_if_modified_since.is_some() || input.copy_source_if_unmodified_since.is_some() {
            return Err(not_here("CopyObject by time"));
        }
        let object = self.store.get(bucket, key)?;
        check_read(&object.etag, input.copy_source_if_match.as_ref(), None)?;
        if input.copy_source_if_none_match.is_some() {
            // Unlike a read, a copy refuses with 412.
            check_read(&object.etag, None, input.copy_source_if_none_match.as_ref())
                .map_err(|_| s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"))?;
        }
        let replaces = input.metadata_directive.as_ref().is_some_and(|of| of.as_str() == MetadataDirective::REPLACE);
        let metadata =
            if replaces { metadata(input.content_type, input.content_encoding, input.metadata) } else { object.metadata.as_ref().clone() };
        let etag = self.store.put(&input.bucket, &input.key, object.bytes, Condition::Always, metadata)?;
        let copied = self.store.head(&input.bucket, &input.key).map_or_else(|_| jiff::Timestamp::now(), |head| head.last_modified);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(tag(&etag)),
                last_modified: Some(instant(copied)),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let metadata = metadata(input.content_type, input.content_encoding, input.metadata);
        let id = self.store.begin_upload(&input.bucket, &input.key, metadata)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..Default::default()
        }))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let number = part_number(Some(input.part_number))?;
        let bytes = bytes(input.body).await?;
        let etag = self.store.upload_part(&input.bucket, &input.key, &input.upload_id, number, bytes)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(tag(&etag)),
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let condition = condition(input.if_match, input.if_none_match)?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(
                MalformedXML,
                "The XML you provided was not well-formed or did not validate against our published schema"
            ));
        }
        let parts: Vec<(u32, Etag)> = named
            .iter()
            .map(|part| Ok((part_number(part.part_number)?, part.e_tag.as_ref().map_or_else(|| "".into(), |etag| etag.value().into()))))
            .collect::<S3Result<_>>()?;
        let etag = self.store.complete_upload(&input.bucket, &input.key, &input.upload_id, &parts, condition)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(tag(&etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.store.abort_upload(&input.bucket, &input.key, &input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn part_number(number: Option<i32>) -> S3Result<u32> {
    number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| StoreError::InvalidPartNumber(0).into())
}

impl Operations {
    fn known(&self, bucket: &str) -> S3Result<()> {
        if self.store.has_bucket(bucket) { Ok(()) } else { Err(StoreError::NoSuchBucket(bucket.to_owned()).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_to_go_on() {
        for after in [store::After::Key("bars/day=1/ä".to_owned()), store::After::Prefix("bars/".to_owned())] {
            assert_eq!(read_token(&token(&after)), Some(after));
        }
        for wrong in ["", "k1", "x00", "kzz", "kff", "ä"] {
            assert_eq!(read_token(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn keys_are_encoded_for_those_who_ask() {
        assert_eq!(url_encoded("bars/day=1/a b+ä.parquet"), "bars/day%3D1/a%20b%2B%C3%A4.parquet");
    }
}

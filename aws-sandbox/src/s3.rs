//! S3's protocol over the store: `s3s` parses requests and writes answers, this module performs them. It must not know faults; the server
//! applies them before or after.

mod chunked;
mod operations;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use hyper::http::request;
use hyper::{Method, Request, Response, StatusCode};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, S3Error, S3ErrorCode};

use crate::server::{Body, full};
use crate::store::Store;

/// The S3 service. Clones share the store.
#[derive(Clone)]
pub struct S3 {
    service: Arc<S3Service>,
}

impl S3 {
    /// S3 over a store, with its buckets in this region.
    pub fn new(store: Store, region: &str) -> Self {
        let service = S3ServiceBuilder::new(operations::Operations { store, region: region.to_owned() }).build();
        Self { service: Arc::new(service) }
    }

    pub(crate) async fn serve(&self, request: Request<Bytes>) -> Result<Response<Body>, HttpError> {
        let (mut head, mut body) = request.into_parts();
        // Any credentials are accepted, so no signature is checked; without a header to verify, s3s requires none.
        head.headers.remove(AUTHORIZATION);
        if chunked::is_chunked(&head.headers) {
            match chunked::decode(&body) {
                Ok(decoded) => {
                    chunked::undo_headers(&mut head.headers, decoded.trailers);
                    body = decoded.bytes;
                }
                Err(why) => return Ok(error(400, "IncompleteBody", &why.to_string())),
            }
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if let Err((code, why)) = chunked::verify(&head.headers, &body) {
            return Ok(error(400, code, &why));
        }
        let request = Request::from_parts(head, s3s::Body::from(body));
        Ok(self.service.call(request).await?.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// An error in S3's own form.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut error = S3Error::with_message(code, message.to_owned());
    error.set_status_code(status);
    match error.to_http_response() {
        Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
        Err(error) => {
            let mut response = Response::new(full(error.to_string()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// The operation and resource of a request.
pub(crate) struct Target {
    pub(crate) operation: &'static str,
    pub(crate) bucket: String,
    /// The key; for a listing, the prefix; otherwise empty.
    pub(crate) key: String,
}

/// Finds the operation of a path-style request, as s3s will.
pub(crate) fn target(head: &request::Parts) -> Target {
    let path = head.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let (bucket, mut key) = (decode(bucket, false), decode(key, false));
    let query: Vec<(String, String)> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name, true), decode(value, true)))
        .collect();
    let asked = |name: &str| query.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
    let has = |name: &str| asked(name).is_some();
    let copies = head.headers.contains_key("x-amz-copy-source");
    let operation = if bucket.is_empty() {
        "ListBuckets"
    } else if key.is_empty() {
        match head.method {
            Method::GET if has("location") => "GetBucketLocation",
            Method::GET if has("uploads") => "ListMultipartUploads",
            Method::GET => {
                key = asked("prefix").unwrap_or_default().to_owned();
                if asked("list-type") == Some("2") { "ListObjectsV2" } else { "ListObjects" }
            }
            Method::HEAD => "HeadBucket",
            Method::PUT => "CreateBucket",
            Method::DELETE => "DeleteBucket",
            Method::POST if has("delete") => "DeleteObjects",
            _ => "Unknown",
        }
    } else {
        match head.method {
            Method::GET if has("uploadId") => "ListParts",
            Method::GET => "GetObject",
            Method::HEAD => "HeadObject",
            Method::PUT if has("uploadId") && copies => "UploadPartCopy",
            Method::PUT if has("uploadId") => "UploadPart",
            Method::PUT if copies => "CopyObject",
            Method::PUT => "PutObject",
            Method::DELETE if has("uploadId") => "AbortMultipartUpload",
            Method::DELETE => "DeleteObject",
            Method::POST if has("uploads") => "CreateMultipartUpload",
            Method::POST if has("uploadId") => "CompleteMultipartUpload",
            _ => "Unknown",
        }
    };
    Target { operation, bucket, key }
}

/// The action that a policy must allow for an operation. Several operations share one: see "Actions defined by Amazon S3" in the Service
/// Authorization Reference.
pub(crate) fn action(operation: &str) -> String {
    let action = match operation {
        "HeadObject" => "GetObject",
        "HeadBucket" | "ListObjectsV2" | "ListObjects" => "ListBucket",
        "ListBuckets" => "ListAllMyBuckets",
        "CreateMultipartUpload" | "UploadPart" | "UploadPartCopy" | "CompleteMultipartUpload" | "CopyObject" => "PutObject",
        "DeleteObjects" => "DeleteObject",
        "ListParts" => "ListMultipartUploadParts",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        operation => operation,
    };
    format!("s3:{action}")
}

/// Undoes percent-encoding. Invalid encoding stays as it is, since s3s refuses it later.
fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|d| u8::from_str_radix(d, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(method: &str, uri: &str) -> (&'static str, String, String) {
        let (head, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let target = target(&head);
        (target.operation, target.bucket, target.key)
    }

    #[test]
    fn a_request_is_known_by_method_path_and_query() {
        let of = |operation, key: &str| (operation, "lake".to_owned(), key.to_owned());
        assert_eq!(seen("GET", "/lake/bars/day%3D1/a.parquet?x-id=GetObject"), of("GetObject", "bars/day=1/a.parquet"));
        assert_eq!(seen("GET", "/lake/?list-type=2&prefix=bars%2Fday%3D1"), of("ListObjectsV2", "bars/day=1"));
        assert_eq!(seen("PUT", "/lake/a?partNumber=1&uploadId=u"), of("UploadPart", "a"));
        assert_eq!(seen("POST", "/lake/a?uploads"), of("CreateMultipartUpload", "a"));
        assert_eq!(seen("DELETE", "/lake/a"), of("DeleteObject", "a"));
        assert_eq!(seen("HEAD", "/lake"), of("HeadBucket", ""));
        assert_eq!(seen("PUT", "/lake/a+b%zz"), of("PutObject", "a+b%zz"));
    }
}

//! The framing that SDKs put around a body whose checksum follows it (`aws-chunked`), and the checksums themselves.
//!
//! `s3s` removes the framing only from requests whose signature it verifies, and no signature is verified here.
//! The format: "Signature calculations: transferring a payload in multiple chunks", in the S3 API Reference.

use std::fmt;

use crate::store::hex;
use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A body without its framing, and the headers that came after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) bytes: Bytes,
    pub(super) trailers: Vec<(HeaderName, HeaderValue)>,
}

/// An error in the framing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the body is not aws-chunked: {}", self.0)
    }
}

/// Whether the body is framed.
pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_SHA256).is_some_and(|value| value.as_bytes().starts_with(b"STREAMING-"))
}

/// Removes the framing.
pub(super) fn decode(body: &Bytes) -> Result<Decoded, Malformed> {
    let mut bytes = BytesMut::with_capacity(body.len());
    let mut rest = body.clone();
    loop {
        let line = line(&mut rest)?;
        // A signed chunk begins with `size;chunk-signature=…`.
        let size = line.split(';').next().unwrap_or_default().trim().to_owned();
        let size = usize::from_str_radix(&size, 16).map_err(|_| Malformed("a chunk does not begin with its size"))?;
        if size == 0 {
            break;
        }
        if rest.len() < size {
            return Err(Malformed("a chunk is shorter than it says"));
        }
        bytes.extend_from_slice(&rest.split_to(size));
        if !rest.starts_with(b"\r\n") {
            return Err(Malformed("a chunk is longer than it says"));
        }
        let _ = rest.split_to(2);
    }
    let mut trailers = Vec::new();
    while !rest.is_empty() {
        let line = line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or(Malformed("a trailer has no value"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| Malformed("a trailer's name is not one"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| Malformed("a trailer's value is not one"))?;
        trailers.push((name, value));
    }
    Ok(Decoded { bytes: bytes.freeze(), trailers })
}

fn line(rest: &mut Bytes) -> Result<String, Malformed> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or(Malformed("a line does not end"))?;
    let line = rest.split_to(end);
    let _ = rest.split_to(2);
    String::from_utf8(line.to_vec()).map_err(|_| Malformed("a line is not text"))
}

/// Adapts the headers to the unframed body: adds the trailers, removes the framing.
pub(super) fn undo_headers(headers: &mut HeaderMap, trailers: Vec<(HeaderName, HeaderValue)>) {
    headers.insert(CONTENT_SHA256, HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    headers.remove("x-amz-decoded-content-length");
    headers.remove("x-amz-trailer");
    headers.remove("transfer-encoding");
    let others: Vec<String> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|coding| coding.trim().to_owned())
        .filter(|coding| !coding.is_empty() && coding != "aws-chunked")
        .collect();
    headers.remove(CONTENT_ENCODING);
    if let Ok(value) = HeaderValue::from_str(&others.join(","))
        && !others.is_empty()
    {
        headers.insert(CONTENT_ENCODING, value);
    }
    headers.extend(trailers);
}

/// Compares the body with the checksums in the headers. The error is S3's code and message.
pub(super) fn verify(headers: &HeaderMap, body: &[u8]) -> Result<(), (&'static str, String)> {
    let given = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let algorithms = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];
    for algorithm in algorithms {
        let Some(given) = given(&format!("x-amz-checksum-{algorithm}")) else { continue };
        let computed = checksum(algorithm, body);
        if computed.as_deref() != Some(given) {
            return Err(("BadDigest", format!("The {} you specified did not match the calculated checksum.", algorithm.to_uppercase())));
        }
    }
    if let Some(given) = given(CONTENT_SHA256.as_str()).filter(|given| given.len() == 64)
        && !given.eq_ignore_ascii_case(&hex(&Sha256::checksum(body)))
    {
        let why = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(("XAmzContentSHA256Mismatch", why.to_owned()));
    }
    Ok(())
}

/// The CRC-32 of bytes, as S3 writes it.
pub(super) fn crc32(bytes: &[u8]) -> Option<String> {
    checksum("crc32", bytes)
}

fn checksum(algorithm: &str, body: &[u8]) -> Option<String> {
    let mut hasher = ChecksumHasher::default();
    match algorithm {
        "crc32" => hasher.crc32 = Some(Crc32::new()),
        "crc32c" => hasher.crc32c = Some(Crc32c::new()),
        "crc64nvme" => hasher.crc64nvme = Some(Crc64Nvme::new()),
        "sha1" => hasher.sha1 = Some(Sha1::new()),
        _ => hasher.sha256 = Some(Sha256::new()),
    }
    hasher.update(body);
    let sums = hasher.finalize();
    sums.checksum_crc32.or(sums.checksum_crc32c).or(sums.checksum_crc64nvme).or(sums.checksum_sha1).or(sums.checksum_sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_is_taken_away_and_the_trailer_kept() {
        let body = Bytes::from_static(b"5;chunk-signature=00\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32: abc=\r\n\r\n");
        let decoded = decode(&body).unwrap();
        assert_eq!(decoded.bytes, "hello!");
        assert_eq!(decoded.trailers.len(), 1);
        assert_eq!(decoded.trailers[0].1, "abc=");
    }

    #[test]
    fn a_body_that_is_cut_short_is_refused() {
        for cut in ["5\r\nhell", "5\r\nhello!\r\n0\r\n\r\n", "5", "hello\r\n", "0\r\nx-amz\r\n\r\n"] {
            assert!(decode(&Bytes::from_static(cut.as_bytes())).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn a_checksum_that_does_not_fit_is_a_bad_digest() {
        let mut headers = HeaderMap::new();
        // The standard check value: the CRC-32 of "123456789" is 0xcbf43926.
        headers.insert("x-amz-checksum-crc32", HeaderValue::from_static("y/Q5Jg=="));
        assert_eq!(verify(&headers, b"123456789"), Ok(()));
        assert_eq!(verify(&headers, b"123456780").unwrap_err().0, "BadDigest");
    }
}

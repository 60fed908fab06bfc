//! S3's half of the sandbox, driven by AWS's own SDK.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_sandbox::{Fault, Options, Rule, Sandbox, Service};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, MetadataDirective, ObjectIdentifier,
};
use futures::future::join_all;

const BUCKET: &str = "lake";
/// The smallest part that may be followed by another.
const PART_BYTES: usize = 5 * 1_024 * 1_024;

fn client(sandbox: &Sandbox) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(Credentials::new("any", "any", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(sandbox.endpoint())
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn lake() -> (Sandbox, Client) {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.store().create_bucket(BUCKET).unwrap();
    let client = client(&sandbox);
    (sandbox, client)
}

async fn put(client: &Client, key: &str, bytes: impl Into<Vec<u8>>) -> String {
    let put = client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(bytes.into())).send().await.unwrap();
    put.e_tag.unwrap()
}

async fn get(client: &Client, key: &str) -> Vec<u8> {
    let got = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    got.body.collect().await.unwrap().to_vec()
}

/// The code and the HTTP status of a refusal.
fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(result: Result<T, SdkError<E>>) -> (String, u16) {
    let error = result.unwrap_err();
    let status = error.raw_response().unwrap_or_else(|| panic!("no answer: {error:?}")).status().as_u16();
    (error.code().unwrap_or_default().to_owned(), status)
}

fn is(code: &str, status: u16) -> (String, u16) {
    (code.to_owned(), status)
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let (_sandbox, client) = lake().await;
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("bars/day=2024-03-04/a b+ä.parquet")
        .content_type("application/vnd.apache.parquet")
        .metadata("run", "r-1")
        .body(ByteStream::from(bytes.clone()))
        .send()
        .await
        .unwrap();
    let get = client.get_object().bucket(BUCKET).key("bars/day=2024-03-04/a b+ä.parquet").send().await.unwrap();
    assert_eq!(get.e_tag, put.e_tag);
    assert_eq!(get.content_length, Some(1_200_000));
    assert_eq!(get.content_type.as_deref(), Some("application/vnd.apache.parquet"));
    assert_eq!(get.content_encoding, None);
    assert_eq!(get.metadata.as_ref().unwrap().get("run").map(String::as_str), Some("r-1"));
    assert_eq!(get.body.collect().await.unwrap().to_vec(), bytes);
    let head = client.head_object().bucket(BUCKET).key("bars/day=2024-03-04/a b+ä.parquet").send().await.unwrap();
    assert_eq!((head.content_length, head.e_tag), (Some(1_200_000), put.e_tag));
    assert_eq!(head.metadata.unwrap().get("run").map(String::as_str), Some("r-1"));
    assert!(head.last_modified.unwrap().secs() > 1_700_000_000);
}

#[tokio::test]
async fn a_tag_is_the_md5_in_quotes() {
    let (_sandbox, client) = lake().await;
    assert_eq!(put(&client, "a", "hello").await, "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(put(&client, "empty", "").await, "\"d41d8cd98f00b204e9800998ecf8427e\"");
    assert_eq!(get(&client, "empty").await, b"");
}

#[tokio::test]
async fn every_checksum_that_the_sdk_sends_is_verified() {
    let (sandbox, client) = lake().await;
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
        ChecksumAlgorithm::Crc64Nvme,
    ] {
        let key = algorithm.as_str();
        let put = client.put_object().bucket(BUCKET).key(key).checksum_algorithm(algorithm.clone());
        put.body(ByteStream::from_static(b"hello")).send().await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
        assert_eq!(sandbox.store().get(BUCKET, key).unwrap().bytes, "hello");
    }
    let wrong = client.put_object().bucket(BUCKET).key("wrong").checksum_crc32("AAAAAA==").body(ByteStream::from_static(b"hello")).send();
    assert_eq!(refusal(wrong.await), is("BadDigest", 400));
    assert!(sandbox.store().get(BUCKET, "wrong").is_err());
    let got = client.get_object().bucket(BUCKET).key("CRC32").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(got.checksum_crc32.as_deref(), Some("NhCmhg=="));
}

#[tokio::test]
async fn ranges_are_read_from_either_end() {
    let (_sandbox, client) = lake().await;
    put(&client, "a", "0123456789").await;
    let range = async |range: &str| {
        let got = client.get_object().bucket(BUCKET).key("a").range(range).send().await.unwrap();
        let of = got.content_range.clone().unwrap();
        (of, String::from_utf8(got.body.collect().await.unwrap().to_vec()).unwrap())
    };
    assert_eq!(range("bytes=2-4").await, ("bytes 2-4/10".into(), "234".into()));
    assert_eq!(range("bytes=7-").await, ("bytes 7-9/10".into(), "789".into()));
    assert_eq!(range("bytes=8-99").await, ("bytes 8-9/10".into(), "89".into()));
    assert_eq!(range("bytes=-3").await, ("bytes 7-9/10".into(), "789".into()));
    assert_eq!(range("bytes=-99").await, ("bytes 0-9/10".into(), "0123456789".into()));
    for outside in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
        let got = client.get_object().bucket(BUCKET).key("a").range(outside).send().await;
        assert_eq!(refusal(got), is("InvalidRange", 416), "{outside}");
    }
}

#[tokio::test]
async fn reads_can_ask_for_a_tag() {
    let (sandbox, client) = lake().await;
    let etag = put(&client, "a", "one").await;
    let read = || client.get_object().bucket(BUCKET).key("a");
    assert!(read().if_match(&etag).send().await.is_ok());
    assert!(read().if_none_match("\"other\"").send().await.is_ok());
    assert_eq!(refusal(read().if_match("\"other\"").send().await), is("PreconditionFailed", 412));
    sandbox.store().reset();
    assert_eq!(refusal(read().if_none_match(&etag).send().await).1, 304);
    assert_eq!(sandbox.store().counted().of(BUCKET, "").bytes_read, 0);
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key("a").if_match("\"other\"").send().await).1, 412);
}

#[tokio::test]
async fn writes_can_be_conditional() {
    let (_sandbox, client) = lake().await;
    let write = |key: &str, body: &'static [u8]| client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(body));
    let first = write("a", b"one").if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(refusal(write("a", b"two").if_none_match("*").send().await), is("PreconditionFailed", 412));
    assert_eq!(refusal(write("a", b"two").if_match("\"other\"").send().await), is("PreconditionFailed", 412));
    assert_eq!(refusal(write("b", b"two").if_match(&first).send().await), is("NoSuchKey", 404));
    assert_eq!(refusal(write("a", b"two").if_none_match(&first).send().await), is("NotImplemented", 501));
    assert_eq!(get(&client, "a").await, b"one");
    let second = write("a", b"two").if_match(&first).send().await.unwrap().e_tag.unwrap();
    assert_eq!(get(&client, "a").await, b"two");
    let delete = |etag: &str| client.delete_object().bucket(BUCKET).key("a").if_match(etag).send();
    assert_eq!(refusal(delete(&first).await), is("PreconditionFailed", 412));
    delete(&second).await.unwrap();
    assert_eq!(refusal(client.get_object().bucket(BUCKET).key("a").send().await), is("NoSuchKey", 404));
}

/// How many of these writes succeeded; all others must have been refused by their condition.
async fn winners(writes: impl Iterator<Item = aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder>) -> Vec<usize> {
    let tasks: Vec<_> = writes.map(|write| tokio::spawn(async move { write.send().await })).collect();
    let mut winners = Vec::new();
    for (racer, task) in join_all(tasks).await.into_iter().enumerate() {
        match task.unwrap() {
            Ok(_) => winners.push(racer),
            lost => assert_eq!(refusal(lost), is("PreconditionFailed", 412)),
        }
    }
    winners
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_writers_that_race_to_create_one_wins() {
    let (_sandbox, client) = lake().await;
    for round in 0..testdata::by_length(20, 200) {
        let key = format!("lease/{round}");
        let write = |racer: usize| {
            client.put_object().bucket(BUCKET).key(&key).if_none_match("*").body(ByteStream::from(racer.to_string().into_bytes()))
        };
        let winners = winners((0..64).map(write)).await;
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(get(&client, &key).await, winners[0].to_string().into_bytes(), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_writers_that_race_to_replace_one_wins() {
    let (_sandbox, client) = lake().await;
    let mut etag = put(&client, "lease", "first").await;
    for round in 0..testdata::by_length(20, 100) {
        let write = |racer: usize| {
            let body = format!("{round}/{racer}").into_bytes();
            client.put_object().bucket(BUCKET).key("lease").if_match(&etag).body(ByteStream::from(body))
        };
        let winners = winners((0..64).map(write)).await;
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(get(&client, "lease").await, format!("{round}/{}", winners[0]).into_bytes());
        etag = client.head_object().bucket(BUCKET).key("lease").send().await.unwrap().e_tag.unwrap();
    }
}

#[tokio::test]
async fn a_listing_comes_in_pages_and_in_order() {
    let (_sandbox, client) = lake().await;
    let keys: Vec<String> = (0..25).map(|n| format!("bars/day={n:02}/a b.parquet")).collect();
    for key in keys.iter().rev() {
        put(&client, key, "x").await;
    }
    put(&client, "other", "x").await;
    let mut seen = Vec::new();
    let mut pages = client.list_objects_v2().bucket(BUCKET).prefix("bars/").max_keys(10).into_paginator().send();
    let mut page_sizes = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        page_sizes.push(page.key_count.unwrap());
        seen.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!((seen, page_sizes), (keys.clone(), vec![10, 10, 5]));
    let after = client.list_objects_v2().bucket(BUCKET).prefix("bars/").start_after("bars/day=20z").send().await.unwrap();
    assert_eq!(after.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), &keys[21..]);
    assert_eq!(after.is_truncated, Some(false));
    let none = client.list_objects_v2().bucket(BUCKET).prefix("nothing/").send().await.unwrap();
    assert_eq!((none.contents().len(), none.key_count), (0, Some(0)));
    let wrong = client.list_objects_v2().bucket(BUCKET).continuation_token("nonsense").send().await;
    assert_eq!(refusal(wrong), is("InvalidArgument", 400));
}

#[tokio::test]
async fn a_listing_with_a_delimiter_has_each_prefix_once_over_all_pages() {
    let (_sandbox, client) = lake().await;
    for key in ["a", "bars/day=1/x", "bars/day=1/y", "bars/day=2/x", "bars/z", "c/d/e", "d"] {
        put(&client, key, "x").await;
    }
    for page_size in 1..=8 {
        for (prefix, objects, prefixes) in
            [("", vec!["a", "d"], vec!["bars/", "c/"]), ("bars/", vec!["bars/z"], vec!["bars/day=1/", "bars/day=2/"])]
        {
            let mut seen = (Vec::new(), Vec::new());
            let list = client.list_objects_v2().bucket(BUCKET).prefix(prefix).delimiter("/").max_keys(page_size);
            let mut pages = list.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.unwrap();
                seen.0.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
                seen.1.extend(page.common_prefixes().iter().map(|common| common.prefix().unwrap().to_owned()));
            }
            assert_eq!(seen, (objects.iter().map(|&key| key.to_owned()).collect(), prefixes.iter().map(|&key| key.to_owned()).collect()));
        }
    }
}

#[tokio::test]
async fn objects_are_deleted_one_by_one_or_many_at_once() {
    let (sandbox, client) = lake().await;
    for key in ["a", "b", "c d"] {
        put(&client, key, "x").await;
    }
    client.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    client.delete_object().bucket(BUCKET).key("never there").send().await.unwrap();
    let named = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let all = Delete::builder().objects(named("b")).objects(named("c d")).objects(named("never there")).build().unwrap();
    let deleted = client.delete_objects().bucket(BUCKET).delete(all).send().await.unwrap();
    assert_eq!(deleted.deleted().len(), 3);
    assert!(sandbox.store().list(BUCKET, "", None, 10).unwrap().is_empty());
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_what_is_said_of_it() {
    let (_sandbox, client) = lake().await;
    let from = "from a/b+ä";
    client.put_object().bucket(BUCKET).key(from).metadata("run", "1").body(ByteStream::from_static(b"x")).send().await.unwrap();
    let source = "lake/from%20a/b%2B%C3%A4";
    let copied = client.copy_object().bucket(BUCKET).key("kept").copy_source(source).send().await.unwrap();
    assert!(copied.copy_object_result.unwrap().e_tag.is_some());
    let replaced = client.copy_object().bucket(BUCKET).key("new").copy_source(source).metadata_directive(MetadataDirective::Replace);
    replaced.metadata("run", "2").send().await.unwrap();
    let run = async |key| client.head_object().bucket(BUCKET).key(key).send().await.unwrap().metadata.unwrap()["run"].clone();
    assert_eq!((run("kept").await, run("new").await), ("1".to_owned(), "2".to_owned()));
    assert_eq!(get(&client, "kept").await, b"x");
    let missing = client.copy_object().bucket(BUCKET).key("x").copy_source("lake/missing").send().await;
    assert_eq!(refusal(missing), is("NoSuchKey", 404));
}

async fn upload(client: &Client, key: &str, parts: &[Vec<u8>]) -> (String, CompletedMultipartUpload) {
    let id = client.create_multipart_upload().bucket(BUCKET).key(key).metadata("run", "1").send().await.unwrap().upload_id.unwrap();
    let mut completed = CompletedMultipartUpload::builder();
    for (part, number) in parts.iter().zip(1..) {
        let body = ByteStream::from(part.clone());
        let sent = client.upload_part().bucket(BUCKET).key(key).upload_id(&id).part_number(number).body(body).send().await.unwrap();
        completed = completed.parts(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
    }
    (id, completed.build())
}

#[tokio::test]
async fn an_upload_in_parts_is_seen_when_it_is_complete() {
    let (sandbox, client) = lake().await;
    let parts = [vec![b'a'; PART_BYTES], vec![b'b'; 10]];
    let (id, completed) = upload(&client, "big", &parts).await;
    assert!(sandbox.store().head(BUCKET, "big").is_err());
    let complete = |id: &str, key: &str, parts: &CompletedMultipartUpload| {
        client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(parts.clone())
    };
    let done = complete(&id, "big", &completed).if_none_match("*").send().await.unwrap();
    assert!(done.e_tag.unwrap().ends_with("-2\""));
    assert_eq!(get(&client, "big").await, parts.concat());
    let head = client.head_object().bucket(BUCKET).key("big").send().await.unwrap();
    assert_eq!(head.metadata.unwrap()["run"], "1");
    assert_eq!(refusal(complete(&id, "big", &completed).send().await), is("NoSuchUpload", 404));

    let (second, completed) = upload(&client, "big", &[b"other".to_vec()]).await;
    assert_eq!(refusal(complete(&second, "big", &completed).if_none_match("*").send().await), is("PreconditionFailed", 412));
    assert_eq!(get(&client, "big").await.len(), PART_BYTES + 10);
    client.abort_multipart_upload().bucket(BUCKET).key("big").upload_id(&second).send().await.unwrap();
    assert_eq!(refusal(complete(&second, "big", &completed).send().await), is("NoSuchUpload", 404));
    assert!(sandbox.store().uploads(BUCKET).is_empty());

    let (small, completed) = upload(&client, "small", &[b"a".to_vec(), b"b".to_vec()]).await;
    assert_eq!(refusal(complete(&small, "small", &completed).send().await), is("EntityTooSmall", 400));
    let missing = CompletedMultipartUpload::builder().parts(CompletedPart::builder().part_number(7).e_tag("\"x\"").build()).build();
    assert_eq!(refusal(complete(&small, "small", &missing).send().await), is("InvalidPart", 400));
}

#[tokio::test]
async fn buckets_are_made_found_and_missed() {
    let (_sandbox, client) = lake().await;
    client.create_bucket().bucket("other").send().await.unwrap();
    client.head_bucket().bucket("other").send().await.unwrap();
    let location = client.get_bucket_location().bucket("other").send().await.unwrap();
    assert_eq!(location.location_constraint.map(|of| of.as_str().to_owned()).unwrap_or_default(), "");
    let names = client.list_buckets().send().await.unwrap();
    assert_eq!(names.buckets().iter().map(|bucket| bucket.name().unwrap()).collect::<Vec<_>>(), ["lake", "other"]);
    client.put_object().bucket("other").key("a").send().await.unwrap();
    assert_eq!(refusal(client.delete_bucket().bucket("other").send().await), is("BucketNotEmpty", 409));
    client.delete_object().bucket("other").key("a").send().await.unwrap();
    client.delete_bucket().bucket("other").send().await.unwrap();

    assert_eq!(refusal(client.head_bucket().bucket("missing").send().await).1, 404);
    assert_eq!(refusal(client.get_object().bucket("missing").key("a").send().await), is("NoSuchBucket", 404));
    assert_eq!(refusal(client.put_object().bucket("missing").key("a").send().await), is("NoSuchBucket", 404));
    assert_eq!(refusal(client.list_objects_v2().bucket("missing").send().await), is("NoSuchBucket", 404));
    assert_eq!(refusal(client.get_object().bucket(BUCKET).key("a").send().await), is("NoSuchKey", 404));
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key("a").send().await).1, 404);
}

#[tokio::test]
async fn refusals_look_as_s3_gives_them() {
    let (sandbox, client) = lake().await;
    let put = || client.put_object().bucket(BUCKET).key("bars/a").body(ByteStream::from_static(b"x")).send();
    for (fault, code, status) in [
        (Fault::SlowDown, "SlowDown", 503),
        (Fault::Throttled, "SlowDown", 503),
        (Fault::TooManyRequests, "SlowDown", 503),
        (Fault::Internal, "InternalError", 500),
        (Fault::AccessDenied, "AccessDenied", 403),
        (Fault::ExpiredToken, "ExpiredToken", 400),
        (Fault::Conflict, "ConditionalRequestConflict", 409),
    ] {
        sandbox.faults().add(Rule::new(Service::S3, "PutObject", fault.clone()).prefix("lake/bars/").times(1));
        assert_eq!(refusal(put().await), is(code, status));
        assert!(sandbox.store().get(BUCKET, "bars/a").is_err(), "{code} must not write");
        let served = sandbox.faults().log().pop().unwrap();
        assert_eq!((served.operation.as_str(), served.resource.as_str(), served.status), ("PutObject", "lake/bars/a", status));
        assert_eq!(served.fault, Some(fault));
    }
    put().await.unwrap();
    assert_eq!(sandbox.faults().served(Service::S3, "PutObject"), 8);
}

#[tokio::test]
async fn a_denial_names_the_action_and_the_resource() {
    let (sandbox, client) = lake().await;
    sandbox.faults().add(Rule::new(Service::S3, "*", Fault::AccessDenied));
    let denied = client.put_object().bucket(BUCKET).key("bars/a").send().await.unwrap_err();
    let message = denied.message().unwrap();
    assert!(message.contains("is not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::lake/bars/a\""), "{message}");
    let denied = client.list_objects_v2().bucket(BUCKET).prefix("bars/").send().await.unwrap_err();
    let message = denied.message().unwrap();
    assert!(message.contains("s3:ListBucket on resource: \"arn:aws:s3:::lake\""), "{message}");
}

#[tokio::test]
async fn rules_skip_and_end() {
    let (sandbox, client) = lake().await;
    sandbox.faults().add(Rule::new(Service::S3, "GetObject", Fault::SlowDown).skip(2).times(3));
    put(&client, "a", "x").await;
    let mut outcomes = Vec::new();
    for _ in 0..7 {
        outcomes.push(client.get_object().bucket(BUCKET).key("a").send().await.is_ok());
    }
    assert_eq!(outcomes, [true, true, false, false, false, true, true]);
    sandbox.faults().add(Rule::new(Service::S3, "*", Fault::Internal));
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key("a").send().await).1, 500);
    sandbox.faults().clear();
    client.head_object().bucket(BUCKET).key("a").send().await.unwrap();
}

#[tokio::test]
async fn a_delayed_request_is_served_late() {
    let (sandbox, client) = lake().await;
    sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::Delay { delay_ms: 150 }).times(1));
    let start = Instant::now();
    put(&client, "a", "x").await;
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    assert_eq!(get(&client, "a").await, b"x");
}

#[tokio::test]
async fn a_dropped_request_was_done_or_not_but_never_answered() {
    let (sandbox, client) = lake().await;
    let put = |key: &str| client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x")).send();
    for (key, fault, is_done) in [("before", Fault::DropBefore, false), ("after", Fault::DropAfter, true)] {
        sandbox.faults().add(Rule::new(Service::S3, "PutObject", fault).times(1));
        let error = put(key).await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
        assert_eq!(sandbox.store().get(BUCKET, key).is_ok(), is_done, "{key}");
        assert_eq!(sandbox.faults().log().pop().unwrap().status, 0);
    }
    put("again").await.unwrap();
}

#[tokio::test]
async fn a_truncated_body_is_shorter_than_its_head_says() {
    let (sandbox, client) = lake().await;
    put(&client, "a", vec![b'x'; 100_000]).await;
    sandbox.faults().add(Rule::new(Service::S3, "GetObject", Fault::Truncate { keep_bytes: 40_000 }).times(2));
    let mut got = client.get_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(got.content_length, Some(100_000));
    let mut arrived = 0;
    let error = loop {
        match got.body.next().await {
            Some(Ok(chunk)) => arrived += chunk.len(),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(error.is_some(), "the client must notice");
    assert_eq!(arrived, 40_000);
    let ranged = client.get_object().bucket(BUCKET).key("a").range("bytes=0-59999").send().await.unwrap();
    assert!(ranged.body.collect().await.is_err());
    assert_eq!(get(&client, "a").await.len(), 100_000);
}

#[tokio::test]
async fn what_is_read_is_counted_by_prefix() {
    let (sandbox, client) = lake().await;
    for day in 1..=3 {
        put(&client, &format!("bars/day={day}/a"), vec![b'x'; 1_000]).await;
    }
    sandbox.store().reset();
    client.get_object().bucket(BUCKET).key("bars/day=1/a").range("bytes=-100").send().await.unwrap();
    get(&client, "bars/day=2/a").await;
    client.list_objects_v2().bucket(BUCKET).prefix("bars/").send().await.unwrap();
    let counted = sandbox.store().counted();
    assert_eq!(counted.of(BUCKET, "bars/day=1/").bytes_read, 100);
    assert_eq!(counted.of(BUCKET, "bars/day=2/").bytes_read, 1_000);
    assert_eq!(counted.of(BUCKET, "bars/day=3/").requests(), 0);
    let all = counted.of(BUCKET, "bars/");
    assert_eq!((all.gets, all.lists, all.puts, all.bytes_read), (2, 1, 0, 1_100));
    let operations: BTreeSet<String> = sandbox.faults().log().into_iter().map(|served| served.operation).collect();
    assert_eq!(operations, ["GetObject", "ListObjectsV2", "PutObject"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_sandbox_that_is_stopped_answers_nobody() {
    let (sandbox, client) = lake().await;
    client.head_bucket().bucket(BUCKET).send().await.unwrap();
    sandbox.stop().await;
    let error = client.head_bucket().bucket(BUCKET).send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
}

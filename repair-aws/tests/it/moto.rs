//! The calls that the adapter makes, against moto's server: a double of AWS that is written elsewhere, so that what the sandbox gets
//! wrong is not got wrong twice. `scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored` starts it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use aws_sdk_athena::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_athena::types::{QueryExecutionState, ResultConfiguration, Tag, WorkGroupConfiguration};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use aws_sdk_s3::{Client as S3, operation::put_object::builders::PutObjectFluentBuilder};

/// Where moto listens.
fn endpoint() -> String {
    std::env::var("MOTO_ENDPOINT").expect("scripts/moto sets MOTO_ENDPOINT")
}

fn credentials() -> Credentials {
    Credentials::new("any", "any", None, None, "test")
}

fn region() -> Region {
    Region::new("us-east-1")
}

/// S3 with a bucket of the test's own, as tests share the server.
async fn s3(test: &str) -> (S3, String) {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(credentials())
        .region(region())
        .endpoint_url(endpoint())
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .build();
    let client = S3::from_conf(config);
    let bucket = format!("{}-{}", test.replace('_', "-"), std::process::id());
    client.create_bucket().bucket(&bucket).send().await.unwrap();
    (client, bucket)
}

fn athena() -> aws_sdk_athena::Client {
    let config = aws_sdk_athena::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(credentials())
        .region(region())
        .endpoint_url(endpoint())
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_athena::Client::from_conf(config)
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

fn put(client: &S3, bucket: &str, key: &str, body: &'static [u8]) -> PutObjectFluentBuilder {
    client.put_object().bucket(bucket).key(key).body(ByteStream::from_static(body))
}

async fn get(client: &S3, bucket: &str, key: &str) -> Vec<u8> {
    let got = client.get_object().bucket(bucket).key(key).send().await.unwrap();
    got.body.collect().await.unwrap().to_vec()
}

#[tokio::test]
#[ignore = "needs moto: scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored"]
async fn objects_are_written_and_read() {
    let (client, bucket) = s3("objects").await;
    let key = "bars/day=2024-03-04/a b.parquet";
    let written = put(&client, &bucket, key, b"0123456789").metadata("run", "r-1").send().await.unwrap();
    assert_eq!(written.e_tag.as_deref(), Some("\"781e5e245d69b566979b86e28d23f2c7\""));
    assert_eq!(get(&client, &bucket, key).await, b"0123456789");
    for (range, of, expected) in [("bytes=2-4", "bytes 2-4/10", "234"), ("bytes=-3", "bytes 7-9/10", "789")] {
        let got = client.get_object().bucket(&bucket).key(key).range(range).send().await.unwrap();
        assert_eq!(got.content_range.as_deref(), Some(of));
        assert_eq!(got.body.collect().await.unwrap().to_vec(), expected.as_bytes());
    }
    let head = client.head_object().bucket(&bucket).key(key).send().await.unwrap();
    assert_eq!((head.content_length, head.e_tag), (Some(10), written.e_tag));
    assert_eq!(head.metadata.unwrap()["run"], "r-1");
    let copied = client.copy_object().bucket(&bucket).key("copy").copy_source(format!("{bucket}/bars/day=2024-03-04/a%20b.parquet"));
    copied.send().await.unwrap();
    assert_eq!(get(&client, &bucket, "copy").await, b"0123456789");
    client.delete_object().bucket(&bucket).key("copy").send().await.unwrap();
    client.delete_object().bucket(&bucket).key("copy").send().await.unwrap();
    assert_eq!(refusal(client.get_object().bucket(&bucket).key("copy").send().await), is("NoSuchKey", 404));
    assert_eq!(refusal(client.head_object().bucket(&bucket).key("copy").send().await).1, 404);
    assert_eq!(refusal(client.get_object().bucket("no-such-bucket").key("a").send().await), is("NoSuchBucket", 404));
}

#[tokio::test]
#[ignore = "needs moto: scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored"]
async fn conditional_writes_hold() {
    let (client, bucket) = s3("conditional").await;
    let first = put(&client, &bucket, "a", b"one").if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(refusal(put(&client, &bucket, "a", b"two").if_none_match("*").send().await), is("PreconditionFailed", 412));
    assert_eq!(refusal(put(&client, &bucket, "a", b"two").if_match("\"other\"").send().await), is("PreconditionFailed", 412));
    assert_eq!(refusal(put(&client, &bucket, "missing", b"two").if_match(&first).send().await).1, 404);
    assert_eq!(get(&client, &bucket, "a").await, b"one");
    put(&client, &bucket, "a", b"two").if_match(&first).send().await.unwrap();
    assert_eq!(get(&client, &bucket, "a").await, b"two");
    assert_eq!(refusal(put(&client, &bucket, "a", b"three").if_match(&first).send().await), is("PreconditionFailed", 412));
}

#[tokio::test]
#[ignore = "needs moto: scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored"]
async fn listings_come_in_pages_and_by_prefix() {
    let (client, bucket) = s3("listings").await;
    let keys: Vec<String> = (0..25).map(|n| format!("bars/day={n:02}/a")).collect();
    for key in keys.iter().rev().map(String::as_str).chain(["other", "bars/top"]) {
        put(&client, &bucket, key, b"x").send().await.unwrap();
    }
    let mut seen = Vec::new();
    let mut pages = client.list_objects_v2().bucket(&bucket).prefix("bars/day=").max_keys(10).into_paginator().send();
    while let Some(page) = pages.next().await {
        seen.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(seen, keys);
    let after = client.list_objects_v2().bucket(&bucket).prefix("bars/day=").start_after("bars/day=20/a").send().await.unwrap();
    assert_eq!(after.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), &keys[21..]);
    let top = client.list_objects_v2().bucket(&bucket).prefix("bars/").delimiter("/").send().await.unwrap();
    assert_eq!(top.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["bars/top"]);
    assert_eq!(top.common_prefixes().len(), 25);
    let named = |key: &String| ObjectIdentifier::builder().key(key).build().unwrap();
    let all = Delete::builder().set_objects(Some(keys.iter().map(named).collect())).build().unwrap();
    client.delete_objects().bucket(&bucket).delete(all).send().await.unwrap();
    let left = client.list_objects_v2().bucket(&bucket).send().await.unwrap();
    assert_eq!(left.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["bars/top", "other"]);
    assert_eq!(refusal(client.list_objects_v2().bucket("no-such-bucket").send().await), is("NoSuchBucket", 404));
}

#[tokio::test]
#[ignore = "needs moto: scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored"]
async fn an_upload_in_parts_is_one_object() {
    let (client, bucket) = s3("parts").await;
    let id = client.create_multipart_upload().bucket(&bucket).key("big").send().await.unwrap().upload_id.unwrap();
    // A part that another follows has at least 5 MiB.
    let parts = [vec![b'a'; 5 * 1_024 * 1_024], vec![b'b'; 10]];
    let mut completed = CompletedMultipartUpload::builder();
    for (part, number) in parts.iter().zip(1..) {
        let sent = client.upload_part().bucket(&bucket).key("big").upload_id(&id).part_number(number);
        let sent = sent.body(ByteStream::from(part.clone())).send().await.unwrap();
        completed = completed.parts(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
    }
    assert_eq!(refusal(client.head_object().bucket(&bucket).key("big").send().await).1, 404);
    let complete = client.complete_multipart_upload().bucket(&bucket).key("big").upload_id(&id).multipart_upload(completed.build());
    assert!(complete.send().await.unwrap().e_tag.unwrap().trim_matches('"').ends_with("-2"));
    assert_eq!(get(&client, &bucket, "big").await, parts.concat());
}

#[tokio::test]
#[ignore = "needs moto: scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored"]
async fn a_query_is_started_and_found() {
    let client = athena();
    let sql = "SELECT 1";
    let output = ResultConfiguration::builder().output_location("s3://results/here/").build();
    let started = client
        .start_query_execution()
        .query_string(sql)
        .work_group("primary")
        // Moto does not find a query again by its token, so only that it takes one is seen here.
        .client_request_token("a-token-of-at-least-32-characters-it-is")
        .result_configuration(output)
        .send()
        .await
        .unwrap();
    let id = started.query_execution_id.unwrap();
    let got = client.get_query_execution().query_execution_id(&id).send().await.unwrap().query_execution.unwrap();
    assert_eq!((got.query_execution_id.as_deref(), got.query.as_deref()), (Some(id.as_str()), Some(sql)));
    assert_eq!(got.work_group.as_deref(), Some("primary"));
    let state = got.status.unwrap().state.unwrap();
    assert!(!matches!(state, QueryExecutionState::Failed | QueryExecutionState::Cancelled), "{state:?}");
    let location = got.result_configuration.unwrap().output_location.unwrap();
    assert!(location.starts_with("s3://results/here/") && location.contains(&id), "{location}");
    client.stop_query_execution().query_execution_id(&id).send().await.unwrap();
    let stopped = client.get_query_execution().query_execution_id(&id).send().await.unwrap().query_execution.unwrap();
    assert_eq!(stopped.status.unwrap().state, Some(QueryExecutionState::Cancelled));
}

#[tokio::test]
#[ignore = "needs moto: scripts/moto cargo test -p repair-aws --test it moto:: -- --ignored"]
async fn a_workgroup_is_made_with_its_cutoff_and_tags() {
    let client = athena();
    let name = format!("backfill-{}", std::process::id());
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let configuration = WorkGroupConfiguration::builder()
        .enforce_work_group_configuration(true)
        .bytes_scanned_cutoff_per_query(10_000_000)
        .result_configuration(ResultConfiguration::builder().output_location("s3://results/backfill/").build())
        .build();
    let create = || client.create_work_group().name(&name).configuration(configuration.clone()).tags(tag("idea", "backfill"));
    create().send().await.unwrap();
    assert_eq!(refusal(create().send().await), is("InvalidRequestException", 400));
    let got = client.get_work_group().work_group(&name).send().await.unwrap().work_group.unwrap();
    assert_eq!(got.name, name);
    assert_eq!(got.configuration.unwrap().bytes_scanned_cutoff_per_query, Some(10_000_000));
    let arn = format!("arn:aws:athena:us-east-1:123456789012:workgroup/{name}");
    client.tag_resource().resource_arn(&arn).tags(tag("project", "ticker")).send().await.unwrap();
    let tags = client.list_tags_for_resource().resource_arn(&arn).send().await.unwrap();
    let mut tags: Vec<_> = tags.tags().iter().map(|tag| (tag.key().unwrap().to_owned(), tag.value().unwrap().to_owned())).collect();
    tags.sort();
    assert_eq!(tags, [("idea", "backfill"), ("project", "ticker")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    let listed = client.list_work_groups().send().await.unwrap();
    assert!(listed.work_groups().iter().any(|group| group.name() == Some(&name)));
}

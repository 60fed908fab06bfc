//! Artifacts in S3: whole or not there, whatever their size.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use aws_sandbox::{Fault, Rule, Sandbox, Service};
use futures::StreamExt;
use repair_aws::{AwsLake, Connection};
use repair_core::Error;
use repair_core::lake::Artifacts;
use repair_core::testing::lake_suite;

async fn lake() -> (Sandbox, AwsLake) {
    let sandbox = Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
    sandbox.store().create_bucket(BUCKET).unwrap();
    let lake = AwsLake::open(&Connection::of(config(&sandbox.endpoint())).with_patience(PATIENCE), options()).unwrap();
    (sandbox, lake)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_in_s3_keep_the_promises() {
    let (_sandbox, lake) = lake().await;
    lake_suite::to_ask_whether_it_may_be_written_is_no_error(&lake).await;
    lake_suite::artifacts_come_back_in_order(&lake).await;
    lake_suite::an_artifact_takes_the_place_of_what_had_its_name(&lake).await;
    lake_suite::an_error_of_the_stream_leaves_the_artifact_that_was_there(&lake).await;
    lake_suite::artifacts_of_similar_names_are_different_artifacts(&lake).await;
    lake_suite::what_is_kept_for_a_run_can_be_listed_and_removed(&lake).await;
}

/// Numbers that do not compress.
fn batch(number: u64) -> RecordBatch {
    let mut seed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let values = Int64Array::from_iter_values((0..500_000).map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.cast_signed()
    }));
    RecordBatch::try_from_iter([("n", Arc::new(values) as ArrayRef)]).unwrap()
}

/// One that is sent in parts comes back whole; one that breaks off leaves neither an object nor parts; a lost reply to its end is no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_artifact_is_sent_in_parts() {
    let (sandbox, lake) = lake().await;
    let stream = |batches: u64| futures::stream::iter((0..batches).map(|number| Ok(batch(number)))).boxed();
    sandbox.faults().add(Rule::new(Service::S3, "UploadPart", Fault::SlowDown).times(1));
    sandbox.faults().add(Rule::new(Service::S3, "CompleteMultipartUpload", Fault::DropAfter).times(1));
    let usage = lake.put_artifact("run", "big", stream(12)).await.unwrap();
    assert!(usage.bytes_written > 40_000_000 && usage.storage_writes >= 4, "{usage:?}");
    let mut back = lake.get_artifact("run", "big").await.unwrap();
    let mut values = Vec::new();
    while let Some(batch) = back.next().await {
        values.extend_from_slice(batch.unwrap().column(0).as_any().downcast_ref::<Int64Array>().unwrap().values());
    }
    let expected: Vec<i64> =
        (0..12).flat_map(|number| batch(number).column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()).collect();
    assert!(values == expected, "{} of {} values", values.len(), expected.len());
    let broken = stream(12).chain(futures::stream::iter([Err(Error::internal("broken"))])).boxed();
    assert!(lake.put_artifact("run", "broken", broken).await.is_err());
    assert!(lake.get_artifact("run", "broken").await.is_err());
    testdata::wait_until("the parts of an upload that was given up are gone", || sandbox.store().uploads(BUCKET).is_empty());
}

//! What goes wrong in AWS, and what comes of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use crate::common::*;
use aws_sandbox::{Fault, Rule, Service};
use aws_sdk_athena::types::{ManagedQueryResultsConfiguration, ResultConfiguration, WorkGroupConfiguration};
use repair_aws::{AwsLake, AwsOptions, Polling};
use repair_core::lake::{Lake, Layer, Overlay, PresenceRequest, ReadLake, StageRequest, StageScope};
use repair_core::model::{Fix, Format, Key, Table};
use repair_core::price::Metered;
use repair_core::testing::LakeSetup;
use repair_core::{Error, ErrorKind};

const START: &str = "StartQueryExecution";

async fn world_with_bars() -> (World, Table) {
    let (world, table) = (World::new().await, bars());
    let some = rows(&[("A", "2024-03-04T09:00:00Z", 1.0), ("A", "2024-03-04T09:02:00Z", 2.0), ("B", "2024-03-04T09:00:00Z", 3.0)]);
    world.add_rows(&table, &[some]).await.unwrap();
    world.sandbox.faults().clear_log();
    (world, table)
}

fn request(table: &Table) -> PresenceRequest {
    PresenceRequest::new(whole_day(table, "2024-03-04"), keys(&["A", "B"]), at("2024-04-02T00:00:00Z"))
}

fn failed(message: &str, category: i32, retryable: bool) -> Fault {
    Fault::FailQuery { category, kind: 1, retryable, message: message.to_owned() }
}

async fn presence_with(world: &World, table: &Table, rule: Rule) -> Result<u64, Error> {
    world.sandbox.faults().clear();
    world.sandbox.faults().add(rule);
    let found = world.lake.presence(table, &request(table)).await;
    world.sandbox.faults().clear();
    found.map(|found| found.raw.keys[&Key::from("A")].present.count())
}

/// Once is absorbed; again and again is told as `throttled`, whichever of its two errors Athena gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_throttles() {
    let (world, table) = world_with_bars().await;
    for fault in [Fault::Throttled, Fault::TooManyRequests] {
        for operation in [START, "BatchGetQueryExecution", "GetQueryResults", "GetTableMetadata"] {
            world.reopened();
            let rule = Rule::new(Service::Athena, operation, fault.clone());
            assert_eq!(presence_with(&world, &table, rule.clone().times(1)).await.unwrap(), 2, "{operation}: {fault:?}");
        }
        let error = presence_with(&world, &table, Rule::new(Service::Athena, START, fault)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    }
}

/// AWS is busy for longer than a moment: whichever call it is, it is made again, and nothing fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_refusals_in_a_row_are_waited_for() {
    let (world, table) = world_with_bars().await;
    let patient = AwsLake::open(&world.connection.clone().with_patience(Duration::from_secs(60)), options()).unwrap();
    world.sandbox.faults().add(Rule::new(Service::Athena, START, Fault::TooManyRequests).times(6));
    for operation in ["PutObject", "ListObjectsV2"] {
        world.sandbox.faults().add(Rule::new(Service::S3, operation, Fault::SlowDown).times(6));
    }
    repair(&patient, &table, "run", &[("A", "2024-03-04T09:01:00Z", 1.5)], Vec::new()).await;
    let found = patient.presence(&table, &request(&table)).await.unwrap();
    assert_eq!(found.repaired[&Key::from("A")].count(), 1);
    // Who is to stop does not wait.
    world.sandbox.faults().add(Rule::new(Service::Athena, START, Fault::TooManyRequests));
    let caller = caller("run", 1);
    caller.cancel.cancel();
    let error = patient.on_behalf_of(&caller).unwrap().presence(&table, &request(&table)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

/// Results go where the workgroup says, even if it does not insist; only where it says nothing, they go to our place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_go_where_the_workgroup_says() {
    let (world, table) = world_with_bars().await;
    let many: Vec<String> = (0..1_200).map(|minute| format!("2024-03-05T{:02}:{:02}:00Z", minute / 60, minute % 60)).collect();
    let many: Vec<(&str, &str, f64)> = many.iter().map(|time| ("A", time.as_str(), 1.0)).collect();
    world.add_rows(&table, &[rows(&many)]).await.unwrap();
    let place = || ResultConfiguration::builder().output_location(format!("s3://{BUCKET}/theirs/")).build();
    let managed = || ManagedQueryResultsConfiguration::builder().enabled(true).build();
    let ours = "lake/_repair/results/";
    for (name, configuration, there) in [
        (
            "insists",
            WorkGroupConfiguration::builder().result_configuration(place()).enforce_work_group_configuration(true),
            Some("theirs/"),
        ),
        (
            "proposes",
            WorkGroupConfiguration::builder().result_configuration(place()).enforce_work_group_configuration(false),
            Some("theirs/"),
        ),
        ("says-nothing", WorkGroupConfiguration::builder().enforce_work_group_configuration(false), Some(ours)),
        ("managed", WorkGroupConfiguration::builder().managed_query_results_configuration(managed()), None),
    ] {
        world.create_workgroup(name, configuration.build()).await;
        // Also if the caller may not look at the workgroup.
        for is_seen in [true, false] {
            world.sandbox.faults().clear();
            if !is_seen {
                world.sandbox.faults().add(Rule::new(Service::Athena, "GetWorkGroup", Fault::AccessDenied));
            }
            let lake = world.with(AwsOptions { workgroup: name.to_owned(), ..options() });
            let before: Vec<usize> = ["theirs/", ours].iter().map(|prefix| world.keys(prefix).len()).collect();
            // More than a page holds.
            let scanned = texts(&collect(lake.scan(&table, &everything(Layer::Raw)).await.unwrap()).await).len();
            assert_eq!(scanned, 1_203, "{name}");
            for (prefix, before) in ["theirs/", ours].iter().zip(before) {
                assert_eq!(world.keys(prefix).len() > before, Some(*prefix) == there, "{name}: {prefix}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_to_queued() {
    let (world, table) = world_with_bars().await;
    assert_eq!(presence_with(&world, &table, Rule::new(Service::Athena, START, Fault::BackToQueued)).await.unwrap(), 2);
}

/// However many queries are waited for, one poller asks after all of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_storm() {
    let (world, table) = world_with_bars().await;
    let polling = Polling { first: Duration::from_millis(150), longest: Duration::from_millis(300) };
    let lake = world.with(AwsOptions { polling, ..options() });
    world.sandbox.faults().add(Rule::new(Service::Athena, START, Fault::BackToQueued));
    let asked = request(&table);
    let began = Instant::now();
    for found in futures::future::join_all((0..24).map(|_| lake.presence(&table, &asked))).await {
        assert_eq!(found.unwrap().raw.keys[&Key::from("A")].present.count(), 2);
    }
    // One poller waits that long before each request at least; one for each query would make 48 of them at once.
    let most = 2 + began.elapsed().as_millis() / polling.first.as_millis();
    assert_eq!(world.served(Service::Athena, START), 24);
    let polls = world.served(Service::Athena, "BatchGetQueryExecution");
    assert!(
        polls >= 2 && polls as u128 <= most,
        "24 queries, each of which was asked after more than once, took {polls} requests of {most}"
    );
    assert_eq!(world.served(Service::Athena, "GetQueryExecution"), 0);
}

/// Athena's own word decides whether a query that failed is tried again, and its words what kind of failure it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn athena_says_what_a_query_failed_of() {
    let (world, table) = world_with_bars().await;
    for (category, retryable, message, kind) in [
        (1, true, "Query exhausted resources at this scale factor", ErrorKind::Transient),
        (1, false, "GENERIC_INTERNAL_ERROR: something broke", ErrorKind::Internal),
        (2, false, "SYNTAX_ERROR: line 1:8: mismatched input", ErrorKind::Invalid),
        (2, false, "Access Denied (Service: Amazon S3; Status Code: 403)", ErrorKind::Denied),
        (1, true, "Please reduce your request rate. (Service: Amazon S3; Status Code: 503; Error Code: SlowDown)", ErrorKind::Throttled),
    ] {
        let error =
            presence_with(&world, &table, Rule::new(Service::Athena, START, failed(message, category, retryable))).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(message) && error.to_string().contains("query: "), "{error}");
    }
}

/// The reply to a start is lost: the same query is found again, and runs once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_whose_start_was_not_heard_of_is_not_paid_twice() {
    let (world, table) = world_with_bars().await;
    let caller = caller("run", 1);
    let lake = world.lake.on_behalf_of(&caller).unwrap();
    world.sandbox.faults().add(Rule::new(Service::Athena, START, Fault::DropAfter).times(1));
    lake.presence(&table, &request(&table)).await.unwrap();
    assert_eq!(world.served(Service::Athena, START), 2, "it was asked for twice");
    assert_eq!(caller.meter.take().queries.len(), 1);
    // The process crashes and the attempt is begun anew, elsewhere: what it has paid for, it finds.
    let again = crate::common::caller("run", 1);
    let id = async |caller: &repair_core::lake::Caller| {
        let lake = world.reopened().on_behalf_of(caller).unwrap();
        let found = lake.presence(&table, &request(&table)).await.unwrap();
        assert_eq!(found.raw.keys[&Key::from("A")].present.count(), 2);
        caller.meter.take().queries.remove(0).id
    };
    let (first, second) = (id(&again).await, id(&crate::common::caller("run", 1)).await);
    assert_eq!(first, second);
    assert_ne!(first, id(&crate::common::caller("run", 2)).await, "another attempt looks anew");
    assert_ne!(first, id(&crate::common::caller("other", 1)).await);
    // Within an attempt, to look twice is to look twice.
    let twice = crate::common::caller("run", 1);
    let lake = world.lake.on_behalf_of(&twice).unwrap();
    lake.presence(&table, &request(&table)).await.unwrap();
    lake.presence(&table, &request(&table)).await.unwrap();
    let queries = twice.meter.take().queries;
    assert_eq!(queries[0].id, first);
    assert_ne!(queries[1].id, first);
}

/// An attempt that is told to stop stops its query, and what that has scanned is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_still_costs() {
    let (world, table) = world_with_bars().await;
    // It runs until it is stopped.
    world.sandbox.faults().add(Rule::new(Service::Athena, START, Fault::DelayQuery { delay_ms: 600_000 }));
    let caller = caller("run", 1);
    let lake = world.lake.on_behalf_of(&caller).unwrap();
    let asked = request(&table);
    let stopping = async {
        while world.served(Service::Athena, START) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        caller.cancel.cancel();
    };
    let (answered, ()) = tokio::join!(lake.presence(&table, &asked), stopping);
    let error = answered.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    let Metered { usage, queries } = caller.meter.take();
    assert_eq!(queries.len(), 1, "it is on record");
    assert_eq!((usage.queries, usage.bytes_scanned), (1, queries[0].bytes_scanned));
    assert_eq!(world.served(Service::Athena, "StopQueryExecution"), 1);
    // The attempt goes on later, and does not take the stopped query for an answer.
    world.sandbox.faults().clear();
    let resumed = world.lake.on_behalf_of(&crate::common::caller("run", 1)).unwrap();
    assert_eq!(resumed.presence(&table, &request(&table)).await.unwrap().raw.keys[&Key::from("A")].present.count(), 2);
}

/// What fails has cost something, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_query_is_on_record() {
    let (world, table) = world_with_bars().await;
    let caller = caller("run", 1);
    let lake = world.lake.on_behalf_of(&caller).unwrap();
    world.sandbox.faults().add(Rule::new(Service::Athena, START, failed("GENERIC_INTERNAL_ERROR", 1, true)).times(1));
    lake.presence(&table, &request(&table)).await.unwrap_err();
    let metered = caller.meter.take();
    assert_eq!((metered.queries.len(), metered.usage.queries), (1, 1));
}

/// S3 is busy, or a reply is lost after a put took effect: once is absorbed, and nothing is written twice or lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_replies_of_s3_and_slow_downs() {
    let (world, table) = world_with_bars().await;
    let fixed = [("A", "2024-03-04T09:01:00Z", 1.5)];
    for (number, (operation, fault)) in [
        ("PutObject", Fault::SlowDown),
        ("PutObject", Fault::DropAfter),
        ("PutObject", Fault::DropBefore),
        ("PutObject", Fault::Conflict),
        ("PutObject", Fault::Internal),
        ("GetObject", Fault::SlowDown),
        ("GetObject", Fault::Truncate { keep_bytes: 10 }),
        ("GetObject", Fault::DropAfter),
        ("ListObjectsV2", Fault::SlowDown),
    ]
    .into_iter()
    .enumerate()
    {
        world.sandbox.faults().add(Rule::new(Service::S3, operation, fault.clone()).times(1));
        repair(&world.reopened(), &table, &format!("run-{number}"), &fixed, Vec::new()).await;
        world.sandbox.faults().clear();
    }
    let shown = texts(&collect(world.lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await);
    assert_eq!(shown.len(), 4, "{shown:#?}");
    assert_eq!(shown.iter().filter(|row| row.contains("backfill")).count(), 1);
    assert_eq!(world.objects("lake/bars_repairs/").len(), 9, "one object a run");
    let scope = StageScope { run: "busy", step: "fill", visit: 1, table: &table };
    let fix = Fix { rows: vec![rows(&fixed)], source: "market".to_owned(), ..Fix::default() };
    let request = StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix);
    world.sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::SlowDown));
    assert_eq!(world.lake.stage(&scope, &request).await.unwrap_err().kind(), ErrorKind::Throttled);
}

/// A result that breaks off is never taken for the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_result_is_no_result() {
    let (world, table) = (World::new().await, bars());
    let times: Vec<String> = (0..1_300).map(|minute| format!("2024-03-04T{:02}:{:02}:00Z", minute / 60, minute % 60)).collect();
    let many: Vec<(&str, &str, f64)> = times.iter().map(|time| ("A", time.as_str(), 1.0)).collect();
    world.add_rows(&table, &[rows(&many)]).await.unwrap();
    let scan = async || {
        let stream = world.lake.scan(&table, &everything(Layer::Raw)).await?;
        let batches: Vec<_> = futures::TryStreamExt::try_collect(stream).await?;
        Ok::<_, Error>(texts(&batches).len())
    };
    assert_eq!(scan().await.unwrap(), 1_300, "more rows than a page holds are read from S3");
    assert!(world.served(Service::Athena, "GetQueryResults") <= 1);
    world.sandbox.faults().add(Rule::new(Service::S3, "GetObject", Fault::Truncate { keep_bytes: 2_000 }).contains(".csv"));
    assert_eq!(scan().await.unwrap_err().kind(), ErrorKind::Transient);
}

/// Credentials and rights: the message says which, and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_says_what_is_missing() {
    let (world, table) = world_with_bars().await;
    let error = presence_with(&world, &table, Rule::new(Service::Athena, START, Fault::ExpiredToken)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.full().contains("renew"), "{}", error.full());
    let error = presence_with(&world, &table, Rule::new(Service::Athena, START, Fault::AccessDenied)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.full().contains("`athena:StartQueryExecution` on `workgroup/repair`"), "{}", error.full());
    world.sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::AccessDenied));
    let error = world.lake.check_writable().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.full().contains("`s3:PutObject` on `s3://bucket/lake/_repair/write-test`"), "{}", error.full());
    world.sandbox.faults().clear();
    world.sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::ExpiredToken));
    let error = world.lake.check_writable().await.unwrap_err();
    assert!(error.full().contains("renew"), "{}", error.full());
}

/// A missing bucket, database, table or workgroup: `not-found`, with its name and the way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named() {
    let (world, table) = world_with_bars().await;
    let look = async |change: &dyn Fn(&mut repair_aws::AwsOptions)| {
        let mut options = options();
        change(&mut options);
        let lake = world.with(options);
        (lake.presence(&table, &request(&table)).await.err(), lake.check_writable().await.err())
    };
    let (_, error) = look(&|options| options.location = "s3://nowhere/lake".to_owned()).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.full().contains("s3://nowhere/lake") && error.full().contains("create the bucket"), "{}", error.full());
    let (error, _) = look(&|options| options.database = "nowhere".to_owned()).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.full().contains("no database `nowhere`"), "{}", error.full());
    let (error, _) = look(&|options| options.workgroup = "nowhere".to_owned()).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.full().contains("no Athena workgroup `nowhere`"), "{}", error.full());
    let other = Table { name: "nowhere".to_owned(), ..table.clone() };
    let error = world.lake.presence(&other, &request(&table)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.full().contains("CREATE EXTERNAL TABLE"), "{}", error.full());
}

/// Each idea may have a workgroup of its own, made with its tags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workgroup_of_its_own_for_each_idea() {
    let (world, table) = world_with_bars().await;
    let mut options = options();
    (options.workgroup, options.create_workgroups, options.bytes_limit) = ("repair-{idea}".to_owned(), true, Some(50_000_000));
    let lake = world.with(options).on_behalf_of(&caller("run", 1)).unwrap();
    lake.presence(&table, &request(&table)).await.unwrap();
    lake.presence(&table, &request(&table)).await.unwrap();
    assert_eq!(world.served(Service::Athena, "CreateWorkGroup"), 1);
    let athena = aws_sdk_athena::Client::new(&config(&world.sandbox.endpoint()));
    let made = athena.get_work_group().work_group("repair-backfill").send().await.unwrap().work_group.unwrap();
    assert_eq!(made.configuration().unwrap().bytes_scanned_cutoff_per_query(), Some(50_000_000));
    let arn = "arn:aws:athena:us-east-1:123456789012:workgroup/repair-backfill";
    let tags = athena.list_tags_for_resource().resource_arn(arn).send().await.unwrap().tags.unwrap();
    assert_eq!((tags[0].key(), tags[0].value()), (Some("idea"), Some("backfill")));
}

/// A time that is text is read as an instant, in Parquet and in files of text; one that is none is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_time_is_a_string() {
    let world = World::new().await;
    let parquet = Table { name: "texts".into(), location: "texts".into(), partition_by: vec![], ..bars() };
    world.declare(&parquet, &[("symbol", "string"), ("ts", "string")]).await;
    assert!(world.lake.presence(&parquet, &request(&parquet)).await.unwrap().raw.keys[&Key::from("A")].present.is_empty());
    for (format, name, text) in [
        (Format::Csv, "csv", "symbol,ts,close\nA,2024-03-04T09:00:00Z,1.5\nA,2024-03-04T11:01:00+02:00,2.5\n"),
        (
            Format::Jsonl,
            "jsonl",
            "{\"symbol\":\"A\",\"ts\":\"2024-03-04T09:00:00Z\",\"close\":1.5}\n{\"symbol\":\"A\",\"ts\":\"2024-03-04T11:01:00+02:00\",\"close\":2.5}\n",
        ),
    ] {
        let table = Table { name: name.into(), location: name.into(), format, partition_by: vec![], ..bars() };
        let close = if format == Format::Csv { "string" } else { "double" };
        world.declare(&table, &[("symbol", "string"), ("ts", "string"), ("close", close)]).await;
        world.put(&format!("lake/{name}/one.{name}"), text);
        let found = world.lake.presence(&table, &request(&table)).await.unwrap();
        let slots: Vec<i64> = found.raw.keys[&Key::from("A")].present.iter().collect();
        let nine = at("2024-03-04T09:00:00Z").as_second() / 60;
        assert_eq!(slots, [nine, nine + 1], "{format:?}");
        let shown = texts(&collect(world.lake.scan(&table, &everything(Layer::Raw)).await.unwrap()).await);
        assert_eq!(shown, ["A|2024-03-04T09:00:00Z|1.5", "A|2024-03-04T09:01:00Z|2.5"], "{format:?}");
        // And a text that is no time is told.
        world.put(&format!("lake/{name}/two.{name}"), text.replace("2024-03-04T09:00:00Z", "yesterday"));
        let error = world.lake.presence(&table, &request(&table)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// A row that belongs to no slot is never silently left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_key_or_time_are_told() {
    let world = World::new().await;
    for (name, line) in [("no_key", "{\"ts\":\"2024-03-04T09:00:00Z\"}\n"), ("no_time", "{\"symbol\":\"A\"}\n")] {
        let table = Table { name: name.into(), location: name.into(), format: Format::Jsonl, partition_by: vec![], ..bars() };
        world.declare(&table, &[("symbol", "string"), ("ts", "string")]).await;
        world.put(&format!("lake/{name}/one.jsonl"), line);
        let error = world.lake.presence(&table, &request(&table)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("cannot be read"), "{error}");
        let scan = world.lake.scan(&table, &everything(Layer::Raw)).await.unwrap();
        let error = futures::TryStreamExt::try_collect::<Vec<_>>(scan).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("cannot be read"), "{error}");
    }
}

/// What is not ours is not written to, whatever its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_stays_as_it_is() {
    let (world, table) = world_with_bars().await;
    let theirs = Table { name: "bars_repairs".into(), location: "theirs".into(), partition_by: vec![], ..bars() };
    world.declare(&theirs, &[("symbol", "string"), ("note", "string")]).await;
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &table };
    let fix = Fix { rows: vec![rows(&[("A", "2024-03-04T09:01:00Z", 1.5)])], source: "market".to_owned(), ..Fix::default() };
    let request = StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix);
    let error = world.lake.stage(&scope, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("market.bars_repairs"), "{error}");
    assert_eq!(world.keys("lake/_repair/"), Vec::<String>::new(), "nothing is kept that could not be published");
    let error = world.lake.query(&repair_core::lake::Query::new(&[table], "DROP TABLE bars")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

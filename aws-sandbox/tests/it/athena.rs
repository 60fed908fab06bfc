//! Athena's protocol with its real SDK: the life of a query, tokens, results, workgroups, faults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::{World, told};
use aws_sandbox::{Fault, Rule, Service};
use aws_sdk_athena::Error;
use aws_sdk_athena::types::{
    QueryExecutionContext, QueryExecutionState as State, ResultConfiguration, ResultReuseByAgeConfiguration, ResultReuseConfiguration, Tag,
    WorkGroupConfiguration,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_query_goes_from_queued_over_running_to_succeeded() {
    let world = World::new().await;
    world.sandbox.faults().add(Rule::new(Service::Athena, "StartQueryExecution", Fault::DelayQuery { delay_ms: 300 }).contains("1 AS x"));
    let id = world.start("SELECT 1 AS x, 'a' AS y").await.unwrap();
    let (execution, seen) = world.end_of(&id).await;
    assert_eq!(seen.last(), Some(&State::Succeeded));
    assert!(seen.contains(&State::Running), "{seen:?}");
    let status = execution.status.unwrap();
    assert!(status.completion_date_time.unwrap() >= status.submission_date_time.unwrap());
    let statistics = execution.statistics.unwrap();
    assert!(statistics.engine_execution_time_in_millis.unwrap() >= 300);
    assert!(statistics.total_execution_time_in_millis.unwrap() >= statistics.engine_execution_time_in_millis.unwrap());
    assert!(statistics.query_queue_time_in_millis.is_some());
    assert_eq!(statistics.data_scanned_in_bytes, Some(0));
    assert_eq!(execution.statement_type.unwrap().as_str(), "DML");
    assert_eq!(execution.work_group.as_deref(), Some("primary"));
    let output = execution.result_configuration.unwrap().output_location.unwrap();
    assert_eq!(output, format!("s3://lake/results/{id}.csv"));
    let object = world.sandbox.store().get("lake", &format!("results/{id}.csv")).unwrap();
    assert_eq!(&object.bytes[..], b"\"x\",\"y\"\n\"1\",\"a\"\n");
    world.sandbox.store().get("lake", &format!("results/{id}.csv.metadata")).unwrap();
    assert_eq!(crate::common::lines(&world.rows_of(&id).await), "x|y\n1|a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_starts_one_query() {
    let world = World::new().await;
    let token = "a-token-of-at-least-32-characters";
    let start = |sql: &str, token: &str| {
        let request = world.athena.start_query_execution().query_string(sql).client_request_token(token);
        request.result_configuration(ResultConfiguration::builder().output_location("s3://lake/r/").build()).send()
    };
    let first = start("SELECT 1 AS x", token).await.unwrap().query_execution_id.unwrap();
    let again = start("SELECT 1 AS x", token).await.unwrap().query_execution_id.unwrap();
    assert_eq!(first, again);
    let other = start("SELECT 1 AS x", "another-token-of-at-least-32-chars").await.unwrap().query_execution_id.unwrap();
    assert_ne!(first, other);
    let error = told(start("SELECT 2 AS x", token).await.unwrap_err());
    assert_eq!(error, "InvalidRequestException: Idempotent parameters do not match");
    let error = told(start("SELECT 1 AS x", "short").await.unwrap_err());
    assert!(error.contains("Member must have length between 32 and 128"), "{error}");
    world.end_of(&first).await;
    let again = start("SELECT 1 AS x", token).await.unwrap().query_execution_id.unwrap();
    assert_eq!(first, again, "a token is good after the end of its query");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_in_pages_with_the_header_first() {
    let world = World::new().await;
    let execution = world
        .run("SELECT x, NULLIF(x, 2) AS y, IF(x = 3, '', 'a\"b') AS z FROM UNNEST(sequence(1, 2500)) AS t(x) ORDER BY x")
        .await
        .unwrap();
    let id = execution.query_execution_id.unwrap();
    let page = world.athena.get_query_results().query_execution_id(&id).send().await.unwrap();
    assert_eq!(page.result_set.as_ref().unwrap().rows.as_ref().unwrap().len(), 1_000);
    assert!(page.next_token.is_some());
    let columns = page.result_set.unwrap().result_set_metadata.unwrap().column_info.unwrap();
    let kinds: Vec<_> = columns.iter().map(|column| format!("{} {}", column.name, column.r#type)).collect();
    assert_eq!(kinds, ["x bigint", "y bigint", "z varchar"]);
    let rows = world.rows_of(&id).await;
    assert_eq!(rows.len(), 2_501);
    assert_eq!(crate::common::lines(&rows[..4]), "x|y|z\n1|1|a\"b\n2|∅|a\"b\n3|3|");
    assert_eq!(rows[2_500][0].as_deref(), Some("2500"));
    let object = world.sandbox.store().get("lake", &format!("results/{id}.csv")).unwrap();
    let text = String::from_utf8(object.bytes.to_vec()).unwrap();
    let expected = "\"x\",\"y\",\"z\"\n\"1\",\"1\",\"a\"\"b\"\n\"2\",,\"a\"\"b\"\n\"3\",\"3\",\"\"\n";
    assert!(text.starts_with(expected), "{}", &text[..80]);
    let error = told(world.athena.get_query_results().query_execution_id(&id).max_results(1_001).send().await.unwrap_err());
    assert!(error.contains("less than or equal to 1000") || error.contains("between 1 and 1000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queries_are_asked_for_at_once() {
    let world = World::new().await;
    let first = world.start("SELECT 1").await.unwrap();
    let second = world.start("SELECT nocol FROM (VALUES (1)) AS t(x)").await.unwrap();
    world.end_of(&first).await;
    world.end_of(&second).await;
    let batch = world.athena.batch_get_query_execution();
    let got = batch.query_execution_ids(&first).query_execution_ids(&second).query_execution_ids("none").send().await.unwrap();
    assert_eq!(got.query_executions().len(), 2);
    let status = got.query_executions()[1].status.as_ref().unwrap();
    assert_eq!(status.state, Some(State::Failed));
    let error = status.athena_error.as_ref().unwrap();
    assert_eq!((error.error_category, error.retryable), (Some(2), false));
    assert!(error.error_message.as_ref().unwrap().starts_with("COLUMN_NOT_FOUND: line 1:8: Column 'nocol' cannot be resolved"));
    assert_eq!(got.unprocessed_query_execution_ids()[0].query_execution_id.as_deref(), Some("none"));
    let many = (0..51).map(|number| format!("id{number}")).collect();
    let error = told(world.athena.batch_get_query_execution().set_query_execution_ids(Some(many)).send().await.unwrap_err());
    assert!(error.contains("between 1 and 50"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_query_is_cancelled() {
    let world = World::new().await;
    world
        .sandbox
        .faults()
        .add(Rule::new(Service::Athena, "StartQueryExecution", Fault::DelayQuery { delay_ms: 60_000 }).contains("forever"));
    let id = world.start("SELECT 'forever'").await.unwrap();
    let error = told(world.athena.get_query_results().query_execution_id(&id).send().await.unwrap_err());
    assert!(error.contains("Query has not yet finished."), "{error}");
    world.athena.stop_query_execution().query_execution_id(&id).send().await.unwrap();
    let (execution, _) = world.end_of(&id).await;
    let status = execution.status.unwrap();
    assert_eq!(status.state, Some(State::Cancelled));
    assert!(status.completion_date_time.is_some());
    let error = told(world.athena.get_query_results().query_execution_id(&id).send().await.unwrap_err());
    assert!(error.contains("Query did not finish successfully. Final query state: CANCELLED"), "{error}");
    world.athena.stop_query_execution().query_execution_id(&id).send().await.unwrap();
    assert!(told(world.athena.stop_query_execution().query_execution_id("x").send().await.unwrap_err()).contains("was not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workgroups_hold_place_cutoff_and_tags() {
    let world = World::new().await;
    let configuration = WorkGroupConfiguration::builder()
        .result_configuration(ResultConfiguration::builder().output_location("s3://lake/group/").build())
        .enforce_work_group_configuration(true)
        .bytes_scanned_cutoff_per_query(10_000_000)
        .build();
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let create = || {
        let create = world.athena.create_work_group().name("repair").configuration(configuration.clone());
        create.tags(tag("project", "ticker")).send()
    };
    create().await.unwrap();
    assert_eq!(told(create().await.unwrap_err()), "InvalidRequestException: WorkGroup is already created");
    let group = world.athena.get_work_group().work_group("repair").send().await.unwrap().work_group.unwrap();
    let found = group.configuration.unwrap();
    assert_eq!(found.bytes_scanned_cutoff_per_query, Some(10_000_000));
    assert_eq!(found.enforce_work_group_configuration, Some(true));
    let arn = "arn:aws:athena:us-east-1:123456789012:workgroup/repair";
    world.athena.tag_resource().resource_arn(arn).tags(tag("idea", "backfill")).send().await.unwrap();
    let tags = world.athena.list_tags_for_resource().resource_arn(arn).send().await.unwrap();
    let tags: crate::common::Map = tags.tags().iter().map(|tag| (tag.key.clone().unwrap(), tag.value.clone().unwrap())).collect();
    assert_eq!(tags, [("idea", "backfill"), ("project", "ticker")].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let names: Vec<_> =
        world.athena.list_work_groups().send().await.unwrap().work_groups().iter().filter_map(|group| group.name.clone()).collect();
    assert_eq!(names, ["primary", "repair"]);
    // What the workgroup enforces goes before what the request says.
    let request = world.athena.start_query_execution().query_string("SELECT 1 AS x").work_group("repair");
    let id = request.result_configuration(ResultConfiguration::builder().output_location("s3://lake/mine/").build()).send().await.unwrap();
    let id = id.query_execution_id.unwrap();
    let (execution, _) = world.end_of(&id).await;
    assert_eq!(execution.result_configuration.unwrap().output_location.unwrap(), format!("s3://lake/group/{id}.csv"));
    let error = told(world.athena.start_query_execution().query_string("SELECT 1").work_group("none").send().await.unwrap_err());
    assert_eq!(error, "InvalidRequestException: WorkGroup none is not found.");
    let error = told(world.athena.get_work_group().work_group("none").send().await.unwrap_err());
    assert_eq!(error, "InvalidRequestException: WorkGroup none is not found.");
    // 11 MB of one column.
    world.ddl("CREATE EXTERNAL TABLE big (a string) LOCATION 's3://lake/big/'").await;
    world.put("big/1", "x".repeat(1_000).repeat(11_000) + "\n");
    let id = world.athena.start_query_execution().query_string("SELECT count(*) FROM d.big").work_group("repair").send().await.unwrap();
    let (execution, _) = world.end_of(&id.query_execution_id.unwrap()).await;
    let status = execution.status.unwrap();
    assert_eq!(status.state, Some(State::Cancelled));
    assert_eq!(status.state_change_reason.as_deref(), Some("Bytes scanned limit was exceeded"));
    assert!(execution.statistics.unwrap().data_scanned_in_bytes.unwrap() > 10_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_athena_refuses_at_once_is_no_query() {
    let world = World::new().await;
    let long = format!("SELECT '{}'", "x".repeat(262_144));
    assert!(world.refusal(&long).await.contains("Member must have length less than or equal to 262144"));
    assert!(world.refusal("SELEC 1").await.contains("line 1:1: mismatched input 'SELEC'"), "{}", world.refusal("SELEC 1").await);
    let error = told(world.athena.start_query_execution().query_string("SELECT 1").send().await.unwrap_err());
    assert!(error.starts_with("InvalidRequestException: No output location provided."), "{error}");
    let request = world.athena.start_query_execution().query_string("SELECT 1");
    let error =
        told(request.result_configuration(ResultConfiguration::builder().output_location("lake/x").build()).send().await.unwrap_err());
    assert!(error.contains("outputLocation is not a valid S3 path"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_needs_its_bucket() {
    let world = World::new().await;
    let request = world.athena.start_query_execution().query_string("SELECT 1");
    let started = request.result_configuration(ResultConfiguration::builder().output_location("s3://none/x").build()).send().await.unwrap();
    let (execution, _) = world.end_of(&started.query_execution_id.unwrap()).await;
    let status = execution.status.unwrap();
    assert_eq!(status.state, Some(State::Failed));
    assert!(status.state_change_reason.unwrap().contains("Unable to verify/create output bucket"));
    assert_eq!(status.athena_error.unwrap().error_type, Some(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_results_may_be_reused_is_kept_with_the_query() {
    let world = World::new().await;
    let reuse = ResultReuseByAgeConfiguration::builder().enabled(false).build();
    let request = world
        .athena
        .start_query_execution()
        .query_string("SELECT 1")
        .query_execution_context(QueryExecutionContext::builder().database("d").catalog("AwsDataCatalog").build())
        .result_reuse_configuration(ResultReuseConfiguration::builder().result_reuse_by_age_configuration(reuse).build())
        .result_configuration(ResultConfiguration::builder().output_location("s3://lake/x").build());
    let id = request.send().await.unwrap().query_execution_id.unwrap();
    let (execution, _) = world.end_of(&id).await;
    assert!(!execution.result_reuse_configuration.unwrap().result_reuse_by_age_configuration.unwrap().enabled);
    assert_eq!(execution.query_execution_context.unwrap().database.as_deref(), Some("d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_meet_the_faults_they_are_told() {
    let world = World::new().await;
    let rule = |fault| Rule::new(Service::Athena, "StartQueryExecution", fault).times(1);
    world.sandbox.faults().add(rule(Fault::Throttled));
    assert_eq!(told(world.start("SELECT 1").await.unwrap_err()), "ThrottlingException: Rate exceeded");
    world.sandbox.faults().add(rule(Fault::TooManyRequests));
    match world.start("SELECT 1").await.unwrap_err() {
        Error::TooManyRequestsException(error) => assert_eq!(error.reason.unwrap().as_str(), "CONCURRENT_QUERY_LIMIT_EXCEEDED"),
        other => panic!("{other:?}"),
    }
    world.sandbox.faults().add(rule(Fault::ExpiredToken));
    assert!(told(world.start("SELECT 1").await.unwrap_err()).starts_with("ExpiredTokenException: "));
    world.sandbox.faults().add(rule(Fault::AccessDenied));
    let denied = told(world.start("SELECT 1").await.unwrap_err());
    assert!(denied.contains("is not authorized to perform: athena:StartQueryExecution on resource: arn:aws:athena:us-east-1:"), "{denied}");

    world.sandbox.faults().add(rule(Fault::BackToQueued));
    let (_, seen) = world.end_of(&world.start("SELECT 1").await.unwrap()).await;
    let back = [State::Running, State::Queued];
    assert!(seen.windows(2).any(|states| states == back), "{seen:?}");
    assert_eq!(seen.last(), Some(&State::Succeeded));

    for retryable in [true, false] {
        let message = "Query exhausted resources at this scale factor".to_owned();
        world.sandbox.faults().add(rule(Fault::FailQuery { category: 1, kind: 8, retryable, message: message.clone() }));
        let failed = world.run("SELECT 1").await.unwrap_err();
        assert_eq!((failed.state, &failed.reason), (State::Failed, &message));
        let error = failed.execution.status.unwrap().athena_error.unwrap();
        assert_eq!((error.error_category, error.error_type, error.retryable), (Some(1), Some(8), retryable));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_found_again_by_its_token() {
    let world = World::new().await;
    let token = "0123456789abcdef0123456789abcdef";
    let start = || {
        let request = world.athena.start_query_execution().query_string("SELECT 42 AS x").client_request_token(token);
        request.result_configuration(ResultConfiguration::builder().output_location("s3://lake/r/").build()).send()
    };
    world.sandbox.faults().add(Rule::new(Service::Athena, "StartQueryExecution", Fault::DropAfter).times(1));
    start().await.unwrap_err();
    let id = start().await.unwrap().query_execution_id.unwrap();
    world.end_of(&id).await;
    let all = world.athena.list_query_executions().send().await.unwrap();
    // The other is the database's.
    assert_eq!(all.query_execution_ids().len(), 2, "one query was started, not two");
}

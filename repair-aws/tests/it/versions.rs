//! Duplicates on Athena: what is replaced counts no more, files decide nothing, and rows off the grid are not lost in silence.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::sync::Arc;

use crate::common::*;
use aws_sandbox::Service;
use repair_core::ErrorKind;
use repair_core::engine::prepare::can_begin;
use repair_core::lake::{Layer, Overlay, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{BadRowLimit, Fix, Table};
use repair_core::plugin::{AggregateRequest, Aggregator, Detector, PluginKind, Registry, Repairer, StepContext};
use repair_core::testing::{LakeSetup, VirtualClock, context};
use repair_core::workflow::{Variables, Workflow};
use serde_json::{Value, json};

fn within(world: &World, table: &Table) -> StepContext {
    context(Arc::new(world.reopened()), [table.clone()], Arc::new(VirtualClock::starting_at(at("2024-06-01T00:00:00Z"))))
}

fn detector(name: &str) -> Arc<dyn Detector> {
    let config = json!({ "table": "bars", "keys": ["A"], "from": "2024-03-04T14:30:00Z", "to": "2024-03-04T14:33:00Z" });
    Registry::default().make(PluginKind::Detector, name, &config).and_then(Arc::<dyn Detector>::try_from).unwrap()
}

/// The minutes 30 to 32, of which the first two are there twice.
async fn doubled(world: &World, table: &Table) {
    let minute = |minute: u32| format!("2024-03-04T14:{minute}:00Z");
    let times: Vec<String> = [30, 31, 32, 30, 31].map(minute).into();
    let of: Vec<(&str, &str, f64)> = times.iter().zip([1.0, 2.0, 3.0, 1.0, 2.5]).map(|(at, close)| ("A", at.as_str(), close)).collect();
    world.add_rows(table, &[rows(&of)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_that_are_replaced_count_no_more() {
    let (world, table) = (World::new().await, bars());
    doubled(&world, &table).await;
    let context = within(&world, &table);
    assert_eq!(detector("gaps").detect(&context, None).await.unwrap().counts.duplicates, 2);
    let found = detector("duplicates").detect(&context, None).await.unwrap();
    assert_eq!(found.counts.defective, 2);

    let keep = |rule: Value| {
        let config = json!({ "keep": rule });
        Registry::default().make(PluginKind::Repairer, "keep", &config).and_then(Arc::<dyn Repairer>::try_from).unwrap()
    };
    let queries = world.served(Service::Athena, "StartQueryExecution");
    let refused = keep(json!("last_file")).plan(&context, &found).await.err().unwrap();
    assert!(refused.message().contains("rows have no such order on Athena"), "{refused}");
    assert_eq!(
        (refused.kind(), world.served(Service::Athena, "StartQueryExecution")),
        (ErrorKind::Invalid, queries),
        "before anything is asked"
    );
    // Nor does a run or a plan begin.
    let text = "workflow: keep\nkind: state-machine\ntables:\n  bars: { location: bars, format: parquet, key: [symbol], time: ts, cadence: 1m, partition_by: [{ \
                date: day }] }\nstart: find\nsteps:\n  find: { detect: duplicates, with: { table: bars, keys: [A], from: 2024-03-04, to: 2024-03-04 }, next: fix }\n  \
                fix: { repair: keep, of: find, with: { keep: last_file }, end: true }\n";
    let workflow = Workflow::parse("w.yaml", text, &Registry::default()).unwrap();
    let now = at("2024-06-01T00:00:00Z");
    let refused =
        can_begin(&Registry::default(), &world.lake, &Default::default(), &workflow, &Variables::at_start(&Default::default(), now, now))
            .await;
    let refused = refused.unwrap_err().full();
    assert!(refused.contains("rows have no such order on Athena") && refused.contains("fix"), "{refused}");

    let unit = keep(json!("first")).plan(&context, &found).await.unwrap().next().unwrap().unwrap();
    let fix: Fix = keep(json!("first")).repair(&context, &found, &unit).await.unwrap();
    assert_eq!(fix.conflicts.slots, 1, "of the second minute, nothing is kept");
    let scope = StageScope { run: "run", step: "keep", visit: 1, table: &table };
    let request = StageRequest::new("unit", "keep", at("2024-04-01T00:00:00Z"), &fix).replacing(&found.judged);
    world.lake.stage(&scope, &request).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    assert_eq!(detector("gaps").detect(&context, None).await.unwrap().counts.duplicates, 1);

    let mean = keep(json!("mean"));
    let found = detector("duplicates").detect(&context, None).await.unwrap();
    let unit = mean.plan(&context, &found).await.unwrap().next().unwrap().unwrap();
    let fix = mean.repair(&context, &found, &unit).await.unwrap();
    assert_eq!(texts(&fix.rows), ["A|2024-03-04T14:31:00Z|2.25|1"]);
    let scope = StageScope { step: "mean", ..scope };
    let request = StageRequest::new("unit", "keep", at("2024-04-02T00:00:00Z"), &fix).replacing(&found.judged);
    world.lake.stage(&scope, &request).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    assert_eq!(detector("gaps").detect(&context, None).await.unwrap().counts.duplicates, 0);
    let shown: usize =
        collect(world.lake.scan(&table, &ScanRequest::new(Layer::Repaired)).await.unwrap()).await.iter().map(|rows| rows.num_rows()).sum();
    assert_eq!(shown, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_view_leaves_out_are_counted() {
    let (world, table) = (World::new().await, bars());
    let times: Vec<String> =
        (0..30).map(|minute| format!("2024-03-04T14:{minute:02}:00Z")).chain(["2024-03-04T14:07:30Z".to_owned()]).collect();
    let of: Vec<(&str, &str, f64)> = times.iter().enumerate().map(|(at, time)| (["A", "B"][at % 2], time.as_str(), 1.0)).collect();
    world.add_rows(&table, &[rows(&of)]).await.unwrap();
    let aggregate = async |table: &Table, more: Value| {
        let mut config = json!({ "into": "sums", "query": "SELECT min(ts) AS ts, sum(close) AS s FROM bars_repaired" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = Registry::default().make(PluginKind::Aggregator, "sql", &config).and_then(Arc::<dyn Aggregator>::try_from).unwrap();
        made.aggregate(&within(&world, table), AggregateRequest::new(None)).await
    };
    let left_out = json!([{ "table": "bars", "misaligned": 1, "rows": 31 }]);
    assert_eq!(aggregate(&table, json!({})).await.unwrap().output["left_out"], left_out);
    let strict = table.clone().with_misaligned(BadRowLimit::Rows(0));
    let queries = world.served(Service::Athena, "StartQueryExecution");
    let refused = aggregate(&strict, json!({ "from": "2024-03-04", "to": "2024-03-04" })).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Blind, "{refused}");
    assert!(
        refused.message().contains("1 of 31 rows") && refused.message().contains("`bars_repaired`, which the query reads"),
        "{refused}"
    );
    assert_eq!(world.served(Service::Athena, "StartQueryExecution"), queries + 1, "one query, and not the user's");
}

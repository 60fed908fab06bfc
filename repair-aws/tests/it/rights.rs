//! The role of `docs/aws/stack.yaml` allows all that the program writes and deletes, and nothing of what it must never touch.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use crate::common::*;
use repair_aws::S3Journal;
use repair_core::engine::{Event, Journal, Signal};
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Artifacts, Lake, Overlay, StageRequest, StageScope};
use repair_core::model::{Fix, Interval, Table};
use repair_core::testing::LakeSetup;

/// The patterns of keys for which a statement of the template allows an action.
fn allowed(action: &str) -> Vec<String> {
    let template = include_str!("../../../docs/aws/stack.yaml");
    let statements = template.split("- Sid: ").skip(1);
    let of_objects = statements.filter(|statement| statement.contains("Effect: Allow") && statement.contains(&format!("- {action}\n")));
    let arns = of_objects.flat_map(|statement| statement.split("arn:${AWS::Partition}:s3:::${Bucket}/").skip(1));
    arns.map(|rest| rest.split('"').next().unwrap().replace("${Prefix}", "lake")).collect()
}

/// Whether a key is one of a pattern, in which `*` stands for anything.
fn is_of(key: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => key == pattern,
        Some((before, after)) => key
            .strip_prefix(before)
            .is_some_and(|rest| rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| is_of(&rest[at..], after))),
    }
}

fn is_allowed(action: &str, key: &str) -> bool {
    allowed(action).iter().any(|pattern| is_of(key, pattern))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_the_template_allows_what_is_needed_and_spares_what_is_not_ours() {
    let (world, table) = (World::new().await, bars());
    world.add_rows(&table, &[rows(&[("A", "2024-03-04T09:00:00Z", 1.0)])]).await.unwrap();
    let before: BTreeSet<String> = world.keys("").into_iter().collect();
    world.sandbox.faults().clear_log();

    // Everything that is ever written.
    let lake = &world.lake;
    lake.check_writable().await.unwrap();
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &table };
    let absent = repair_core::model::Absence {
        key: "B".into(),
        slots: whole_day(&table, "2024-03-04"),
        source: "market".into(),
        asked_at: at("2024-04-01T00:00:00Z"),
        answer: "nothing traded".into(),
        recheck_after: at("2030-01-01T00:00:00Z"),
    };
    let some = rows(&[("A", "2024-03-04T09:01:00Z", 1.5)]);
    let fix = Fix { rows: vec![some.clone()], absent: vec![absent], source: "market".to_owned(), ..Fix::default() };
    lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    lake.discard_staged(&scope, &["unit".to_owned()]).await.unwrap();
    let retraction = Retraction {
        id: "undo-run".to_owned(),
        parts: vec![Part::of_run("run")],
        undoes: None,
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "wrong".to_owned(),
    };
    lake.retract(&table, &retraction).await.unwrap();
    let stream = futures::stream::iter([Ok(some.clone())]);
    lake.put_artifact("run", "findings", Box::pin(stream)).await.unwrap();
    let daily = Table { name: "daily".into(), location: "sums/daily".into(), ..bars() };
    let day = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    lake.replace(&daily, &day, vec![some]).await.unwrap();
    lake.replace(&daily, &day, Vec::new()).await.unwrap();
    let journal = S3Journal::open(&world.connection, &format!("s3://{BUCKET}/lake/_repair/journal")).unwrap();
    let now = at("2024-04-01T00:00:00Z");
    journal.acquire("run", "driver", now, std::time::Duration::from_secs(30)).await.unwrap();
    journal.append("run", 0, now, &[Event::DriverStarted { driver: "driver".to_owned(), expressions: None }]).await.unwrap();
    journal.signal("run", Some(Signal::Pause)).await.unwrap();
    journal.signal("run", None).await.unwrap();
    journal.release("run", "driver").await.unwrap();

    let log = world.sandbox.faults().log();
    let writes = ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"];
    let key = |resource: &str| resource.strip_prefix("bucket/").unwrap().to_owned();
    let written: BTreeSet<String> =
        log.iter().filter(|served| writes.contains(&served.operation.as_str())).map(|served| key(&served.resource)).collect();
    let after: BTreeSet<String> = world.keys("").into_iter().collect();
    let deleted: Vec<&String> = written.difference(&after).collect();
    assert!(written.len() >= 10 && deleted.len() >= 4, "{written:#?}\n{deleted:#?}");
    for key in &written {
        assert!(is_allowed("s3:PutObject", key), "{key}");
    }
    for key in deleted {
        assert!(is_allowed("s3:DeleteObject", key), "{key}");
    }

    // What is not ours, and what the journal must keep.
    for key in before.iter().filter(|key| key.starts_with("lake/")) {
        assert!(!is_allowed("s3:PutObject", key) && !is_allowed("s3:DeleteObject", key), "{key}");
    }
    for key in written.iter().filter(|key| key.contains("/journal/events/") || key.contains("bars_")) {
        assert!(!is_allowed("s3:DeleteObject", key), "{key}");
    }
}

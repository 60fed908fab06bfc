//! Programs as plug-ins keep the promises of their traits, and are ended when the run is asked to stop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use repair_core::ErrorKind;
use repair_core::model::{Interval, Table};
use repair_core::plugin::{Plugin, PluginKind, Request, StepContext};
use repair_core::testing::{VirtualClock, context, plugin_suite};
use repair_core::workflow::Workflow;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{ARCHIVE, World, is_alive, options, registry, soon};

pub(crate) fn table(world: &World) -> Table {
    let registry = registry(&options());
    Workflow::parse("w", &world.filling("exit 1", ""), &registry).unwrap().tables["readings"].clone()
}

pub(crate) fn within(world: &World) -> StepContext {
    let clock = VirtualClock::starting_at("2024-03-10T00:00:00Z".parse().unwrap());
    context(Arc::new(world.lake()), [table(world)], Arc::new(clock))
}

pub(crate) fn made(kind: PluginKind, with: &Value) -> Plugin {
    registry(&options()).make(kind, "command", with).unwrap()
}

/// The `with` of a program.
pub(crate) fn with(world: &World, program: &str, more: &Value) -> Value {
    let mut with = json!({ "run": ["sh", world.program(program)], "folder": world.path() });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

fn request(world: &World) -> Request {
    Request::new(table(world), vec!["a".into()], Interval::parse("2024-03-04T04:00:00Z", "2024-03-04T20:00:00Z").unwrap())
}

#[tokio::test]
async fn a_source_promises_what_sources_promise() {
    for vouches in [false, true] {
        let world = World::new();
        let context = within(&world);
        let Plugin::Source(source) = made(PluginKind::Source, &with(&world, ARCHIVE, &json!({ "rows": "csv", "vouches": vouches }))) else {
            panic!("not a source")
        };
        plugin_suite::source(source.as_ref(), &context, &request(&world), Some(&"z".into())).await;
        let answer = source.fetch(&context, &request(&world)).await.unwrap();
        assert_eq!(answer.covered.len(), usize::from(vouches));
    }
}

#[tokio::test]
async fn what_is_younger_than_settles_after_is_not_vouched_for() {
    let world = World::new();
    let clock = VirtualClock::starting_at("2024-03-04T12:30:00Z".parse().unwrap());
    let context = context(Arc::new(world.lake()), [table(&world)], Arc::new(clock));
    let more = json!({ "rows": "csv", "vouches": true, "settles_after": "2h" });
    let Plugin::Source(source) = made(PluginKind::Source, &with(&world, ARCHIVE, &more)) else { panic!("not a source") };
    let covered = source.fetch(&context, &request(&world)).await.unwrap().covered;
    let to = covered[0].interval.to();
    assert!(to >= "2024-03-04T10:30:00Z".parse().unwrap() && to < "2024-03-04T10:31:00Z".parse().unwrap(), "{to}");
}

#[tokio::test]
async fn a_repairer_promises_what_repairers_promise() {
    let world = World::new();
    let context = within(&world);
    let gaps = json!({ "table": "readings", "from": "2024-03-04", "to": "2024-03-04" });
    let Plugin::Detector(gaps) = registry(&options()).make(PluginKind::Detector, "gaps", &gaps).unwrap() else { panic!("not a detector") };
    let findings = gaps.detect(&context, None).await.unwrap();
    // Each gap has a call of its own, so that all rows between its ends are wanted.
    let more = json!({ "rows": "csv", "rows_per_request": 3, "around": "1d", "name": "archive" });
    let Plugin::Repairer(repairer) = made(PluginKind::Repairer, &with(&world, ARCHIVE, &more)) else { panic!("not a repairer") };
    plugin_suite::repairer(repairer.as_ref(), &context, &findings).await;
}

#[tokio::test]
async fn a_detector_promises_what_detectors_promise() {
    let world = World::new();
    let context = within(&world);
    for columns in [json!([]), json!(["value"])] {
        let program = r#"echo '{"sensor": "a", "ts": "2024-03-04T09:00:00Z"}'; echo '{"sensor": "b", "ts": "2024-03-04T09:00:00Z"}'"#;
        let more = json!({ "table": "readings", "from": "2024-03-04", "to": "2024-03-04", "columns": columns });
        let Plugin::Detector(detector) = made(PluginKind::Detector, &with(&world, program, &more)) else { panic!("not a detector") };
        plugin_suite::detector(detector.as_ref(), &context).await;
    }
}

#[tokio::test]
async fn a_program_is_ended_with_its_children_when_the_run_is_asked_to_stop() {
    let world = World::new();
    let program = "sleep 600 & echo $! > child.new; mv child.new child; wait";
    let Plugin::Source(source) = made(PluginKind::Source, &with(&world, program, &json!({}))) else { panic!("not a source") };
    let file = world.path().join("child");
    let child = || std::fs::read_to_string(&file).ok();
    // It is asked to stop.
    let cancel = CancellationToken::new();
    let context = within(&world).with_cancel(cancel.clone());
    let asked = request(&world);
    let (fetched, _) = tokio::join!(source.fetch(&context, &asked), async {
        assert!(soon(|| child().is_some()).await, "the program began");
        cancel.cancel();
    });
    assert_eq!(fetched.unwrap_err().kind(), ErrorKind::Cancelled);
    let first = child().unwrap();
    assert!(soon(|| !is_alive(&first)).await, "the child is still there");
    // Nobody waits for it any more.
    std::fs::remove_file(&file).unwrap();
    let context = within(&world);
    tokio::select! {
        _ = source.fetch(&context, &asked) => panic!("it does not answer"),
        began = soon(|| child().is_some()) => assert!(began),
    }
    let second = child().unwrap();
    assert!(second != first && soon(|| !is_alive(&second)).await, "the child is still there");
}

#[tokio::test]
async fn a_program_sees_the_whole_request() {
    let world = World::new();
    let program = "cat > request; echo \"$@\" > arguments; echo '{\"$rows\": 0}'";
    let mut with = with(&world, program, &json!({ "params": { "level": 3, "names": ["x"] } }));
    with["run"].as_array_mut().unwrap().extend(["--from={from}", "{to_date}", "{{{table}}}", "{keys}"].map(Value::from));
    let Plugin::Source(source) = made(PluginKind::Source, &with) else { panic!("not a source") };
    let mut asked = request(&world);
    asked.keys.push("b; rm -rf $HOME".into());
    source.fetch(&within(&world), &asked).await.unwrap();
    let arguments = std::fs::read_to_string(world.path().join("arguments")).unwrap();
    assert_eq!(arguments.trim(), "--from=2024-03-04T04:00:00Z 2024-03-04 {readings} a,b; rm -rf $HOME");
    let mut request: Value = serde_json::from_str(&std::fs::read_to_string(world.path().join("request")).unwrap()).unwrap();
    let id = request["id"].take();
    assert_eq!(id.as_str().unwrap().len(), 24);
    assert_eq!(
        request,
        json!({
            "format": "repair-command/1", "kind": "source", "id": null, "run": "run", "step": "step", "visit": 1, "attempt": 1,
            "now": request["now"], "params": { "level": 3, "names": ["x"] },
            "table": {
                "name": "readings", "key": ["sensor"], "time": "ts", "cadence": "1h", "time_marks": "start", "zone": "UTC",
                "columns": { "sensor": "Utf8", "ts": "Timestamp(µs, \"UTC\")", "value": "Float64" },
            },
            "from": "2024-03-04T04:00:00Z", "to": "2024-03-04T20:00:00Z", "keys": ["a", "b; rm -rf $HOME"],
        })
    );
}

#[tokio::test]
async fn calls_do_not_wait_for_what_has_ended() {
    let world = World::new();
    let Plugin::Source(source) = made(PluginKind::Source, &with(&world, ARCHIVE, &json!({ "rows": "csv" }))) else {
        panic!("not a source")
    };
    let (context, asked) = (within(&world), request(&world));
    let began = Instant::now();
    for _ in 0..20 {
        source.fetch(&context, &asked).await.unwrap();
    }
    // To wait for what has ended takes two seconds a call.
    assert!(began.elapsed() < Duration::from_secs(38), "20 calls took {:?}", began.elapsed());
}

//! A table on Athena against a source: what differs is found in one scan, as readers see it, and is not found again once it is replaced.

use std::sync::Arc;

use crate::common::*;
use async_trait::async_trait;
use aws_sandbox::Service;
use repair_core::Result;
use repair_core::lake::{Overlay, StageRequest, StageScope};
use repair_core::model::{DefectKind, Fix, Key};
use repair_core::plugin::{Answer, Covered, Detector, Limits, PluginKind, Registry, Request, Source, StepContext};
use repair_core::testing::{LakeSetup, VirtualClock, context};
use serde_json::json;

const HELD: [(&str, &str, f64); 3] =
    [("A", "2024-03-04T14:30:00Z", 1.0), ("A", "2024-03-04T14:31:00Z", 2.5), ("A", "2024-03-04T14:32:00Z", 3.0)];

/// Vouches for all of the time, and has a row of each of three minutes.
struct Holds;

#[async_trait]
impl Source for Holds {
    fn limits(&self) -> Limits {
        Limits::new(2, 1)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let held: Vec<_> = HELD.into_iter().filter(|row| request.interval.contains(at(row.1))).collect();
        let covered = request.keys.iter().map(|key| Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(vec![rows(&held)]).with_covered(covered))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_found_until_it_is_replaced() {
    let (world, table) = (World::new().await, bars());
    let own: Vec<_> = HELD.into_iter().map(|(key, time, close)| (key, time, if close == 2.5 { 2.0 } else { close })).collect();
    world.add_rows(&table, &[rows(&own)]).await.unwrap();
    let source: Arc<dyn Source> = Arc::new(Holds);
    let context = context(Arc::new(world.reopened()), [table.clone()], Arc::new(VirtualClock::starting_at(at("2024-06-01T00:00:00Z"))));
    let context = context.with_sources([("it".to_owned(), source)]);
    let detector = |patch: bool| {
        let config = json!({
            "table": "bars", "source": "it", "keys": ["A"], "from": "2024-03-04T14:30:00Z", "to": "2024-03-04T14:33:00Z", "patch": patch,
        });
        Registry::default().make(PluginKind::Detector, "differs", &config).and_then(Arc::<dyn Detector>::try_from).unwrap()
    };
    let queries = || world.served(Service::Athena, "StartQueryExecution");
    let before = queries();
    let found = detector(true).detect(&context, None).await.unwrap();
    assert!(queries() - before <= 3, "presence, the rows, and the repairs, for both requests");
    let compared = found.counts.compared.unwrap();
    assert_eq!((found.kind, found.counts.defective, found.counts.cells), (DefectKind::Different, 1, 1));
    assert_eq!((compared.asked, compared.slots), (3, 3));
    assert_eq!(found.examples, ["A at 2024-03-04T14:31:00Z: close is 2.0 in the table, 2.5 in the source"]);

    let found = detector(false).detect(&context, None).await.unwrap();
    let slot = table.grid().unwrap().slot_at(at("2024-03-04T14:31:00Z"));
    assert!(found.judged.get(&Key::from("A"), slot).is_some() && found.cells.is_empty());
    let fix = Fix { rows: vec![rows(&HELD[1..2])], source: "it".to_owned(), ..Fix::default() };
    let scope = StageScope { run: "run", step: "restate", visit: 1, table: &table };
    let request = StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix).replacing(&found.judged);
    world.lake.stage(&scope, &request).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    for patch in [true, false] {
        let found = detector(patch).detect(&context, None).await.unwrap();
        assert_eq!((found.counts.defective, found.counts.replaced, found.counts.compared), (0, 1, Some(compared)));
    }
}

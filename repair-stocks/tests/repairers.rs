//! The repairers, as a workflow makes them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use repair_core::ErrorKind;
use repair_core::model::{Findings, Fix, Table};
use repair_core::plugin::{Plugin, PluginKind, Repairer, StepContext};
use repair_stocks::calendar::calendar;
use serde_json::{Value, json};

use crate::common::{Row, bars, batch, context, findings, flat, interval, keys, lake_with, number, plugin};

fn repairer(name: &str, with: &Value) -> Arc<dyn Repairer> {
    match plugin(PluginKind::Repairer, name, with).unwrap() {
        Plugin::Repairer(repairer) => repairer,
        _ => unreachable!("asked for a repairer"),
    }
}

/// IBM's missing minutes of 14:31 to 14:34, and a context with these rows in the table and in an archive.
fn gap(held: &[Row<'_>], archived: &[Row<'_>]) -> (StepContext, Findings) {
    let lake = lake_with(&bars(), &batch(&bars(), held));
    let archive = Table { location: "archive".to_owned(), ..bars() };
    lake.put_table(&archive, &[batch(&archive, archived)]).unwrap();
    let mut context = context(lake, vec![bars()], "2026-03-10T00:00:00Z");
    let Plugin::Source(archive) = plugin(PluginKind::Source, "stocks.archive", &json!({ "location": "archive" })).unwrap() else {
        unreachable!("asked for a source")
    };
    context.sources = Arc::new([("market".to_owned(), archive)].into());
    let day = interval("2026-03-05", "2026-03-05");
    let mut found = findings(&keys(&["IBM", "SPY"]), day, calendar("XNYS").unwrap().as_ref());
    found.gaps.push(&keys(&["IBM"])[0], found.scope.grid.slots_in(&interval("2026-03-05T14:31:00Z", "2026-03-05T14:34:00Z")));
    (context, found)
}

async fn repair(name: &str, with: &Value, (context, found): &(StepContext, Findings)) -> repair_core::Result<Fix> {
    let repairer = repairer(name, with);
    let units = repairer.plan(context, found).await?.collect::<repair_core::Result<Vec<_>>>()?;
    assert_eq!(units.len(), 1);
    repairer.repair(context, found, &units[0]).await
}

#[tokio::test]
async fn backfill_believes_no_bar_that_cannot_be() {
    let with = json!({ "source": "market" });
    let good = ("IBM", "2026-03-05T14:31:00Z", flat(31.0, 5.0));
    let fix = repair("stocks.backfill", &with, &gap(&[], &[good])).await.unwrap();
    assert_eq!(number(&fix.rows[0], "close", 0), Some(31.0));
    assert_eq!(fix.absent.iter().map(|absence| absence.slots.len()).sum::<u64>(), 2);
    assert!(fix.absent[0].answer.starts_with("the archive archive, which holds IBM from"), "{}", fix.absent[0].answer);

    let bad = ("IBM", "2026-03-05T14:32:00Z", [31.0, 31.5, 31.2, 31.3, 5.0]);
    let error = repair("stocks.backfill", &with, &gap(&[], &[good, bad])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.full();
    assert!(
        said.contains("IBM at 2026-03-05T14:32:00Z") && said.contains("low 31.2 is above open 31") && said.contains("market"),
        "{said}"
    );
}

#[tokio::test]
async fn carry_forward_repeats_the_last_price_for_a_while() {
    let held = [("IBM", "2026-03-05T14:30:00Z", [30.0, 32.0, 29.0, 31.0, 500.0])];
    let fix = repair("stocks.carry-forward", &json!({ "max_age": "2m" }), &gap(&held, &[])).await.unwrap();
    let rows = &fix.rows[0];
    assert_eq!((rows.num_rows(), fix.source.as_str()), (2, "stocks.carry-forward"));
    for row in 0..2 {
        let bar = ["open", "high", "low", "close", "volume"].map(|column| number(rows, column, row));
        assert_eq!(bar, [31.0, 31.0, 31.0, 31.0, 0.0].map(Some));
    }
}

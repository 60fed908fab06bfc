//! The extent of a table in an interval, according to listings.

use super::LakeSetup;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::extent::Extent;
use crate::lake::overlay::retraction::{Part, Retraction};
use crate::lake::{Lake, StageRequest};
use crate::model::{Interval, Table};

/// The extent of a day, asked for by itself and among others.
async fn of_day(lake: &dyn Lake, table: &Table, day: &str) -> Extent {
    let day = Interval::parse(day, day).unwrap();
    let alone = lake.extent(table, Some(&day)).await.unwrap();
    let others = [Interval::parse("2024-03-11", "2024-03-11").unwrap(), Interval::parse("2024-01-01", "2024-03-04").unwrap()];
    let among = lake.extents(table, &[others[0], day, others[1]]).await.unwrap();
    assert_eq!((among.len(), &among[1]), (3, &alone));
    for (extent, interval) in [(&among[0], others[0]), (&among[2], others[1])] {
        assert_eq!(*extent, lake.extent(table, Some(&interval)).await.unwrap());
    }
    assert_eq!(lake.extents(table, &[]).await.unwrap(), []);
    alone
}

/// The digest changes with rows that land within the interval, not with those that land in a partition that is too far away. Asking twice gives the same.
pub async fn an_extent_changes_with_rows_within(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1), row("A", "2024-03-11T09:00:00Z", 1.0, 1)]).await;
    let (monday, tuesday) = (of_day(lake, &table, "2024-03-04").await, of_day(lake, &table, "2024-03-11").await);
    assert!(monday.objects > 0 && monday.bytes > 0, "{monday:?}");
    assert_eq!(of_day(lake, &table, "2024-03-04").await, monday);
    assert_ne!(monday.digest, tuesday.digest);
    let nothing = of_day(lake, &table, "2024-03-20").await;
    assert_eq!((nothing.objects, nothing.bytes), (0, 0));
    let all = lake.extent(&table, None).await.unwrap();
    assert!((1..=monday.objects + tuesday.objects).contains(&all.objects), "{all:?}");
    assert_eq!(all.bytes, monday.bytes + tuesday.bytes);
    put(setup, &table, &[row("A", "2024-03-11T09:01:00Z", 2.0, 2)]).await;
    assert_eq!(of_day(lake, &table, "2024-03-04").await, monday, "nothing has changed there");
    assert_ne!(of_day(lake, &table, "2024-03-11").await.digest, tuesday.digest);
    assert_ne!(lake.extent(&table, None).await.unwrap().digest, all.digest);
    let nowhere = lake.extent(&new_table(), None).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::NotFound);
}

/// Publishing changes the digest of the interval it touches; staging does not.
pub async fn an_extent_changes_with_repairs_and_absences(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1), row("A", "2024-03-11T09:00:00Z", 1.0, 1)]).await;
    let (before, other) = (of_day(lake, &table, "2024-03-04").await, of_day(lake, &table, "2024-03-11").await);
    let run = new_run();
    let fixed = fix(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)], Vec::new());
    lake.stage(&scope(&table, &run), &request("unit", &fixed)).await.unwrap();
    assert_eq!(of_day(lake, &table, "2024-03-04").await, before);
    lake.publish(&scope(&table, &run), 0, &["unit".to_owned()]).await.unwrap();
    let repaired = of_day(lake, &table, "2024-03-04").await;
    assert!(repaired.bytes > before.bytes && repaired.digest != before.digest);
    let minutes = slots(&table, "2024-03-04T09:05:00Z", "2024-03-04T09:06:00Z");
    let absent = fix(&table, &[], vec![absence("A", minutes, "2025-01-01T00:00:00Z")]);
    repair(lake, &table, "backfill", "2024-04-01T00:00:00Z", &absent).await;
    assert_ne!(of_day(lake, &table, "2024-03-04").await.digest, repaired.digest);
    assert_eq!(of_day(lake, &table, "2024-03-11").await, other);
}

/// A retraction changes the digest.
pub async fn an_extent_changes_with_retractions(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let fixed = fix(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)], Vec::new());
    lake.stage(&scope(&table, &run), &StageRequest { repaired_at: at("2024-04-01T00:00:00Z"), ..request("unit", &fixed) }).await.unwrap();
    lake.publish(&scope(&table, &run), 0, &["unit".to_owned()]).await.unwrap();
    let before = of_day(lake, &table, "2024-03-04").await;
    let retraction = Retraction {
        id: "taken-back".to_owned(),
        parts: vec![Part::of_run(&run)],
        undoes: None,
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "it's wrong".to_owned(),
    };
    lake.retract(&table, &retraction).await.unwrap();
    assert_ne!(of_day(lake, &table, "2024-03-04").await.digest, before.digest);
}

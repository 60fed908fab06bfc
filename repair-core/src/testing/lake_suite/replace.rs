//! Tables that we own.

use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::{Lake, Layer};
use crate::model::{Cadence, Interval, Table};

/// An hourly table that only we write.
fn hourly() -> Table {
    Table { cadence: Some(Cadence::HOUR), ..new_table() }
}

async fn replace(lake: &dyn Lake, table: &Table, from: &str, to: &str, rows: &[Row]) {
    lake.replace(table, &Interval::parse(from, to).unwrap(), vec![batch(table, rows)]).await.unwrap();
}

/// A replaced interval holds the new rows and nothing else, however often it is replaced, even with no rows. The first replacement creates
/// the table, which has its columns even without rows.
pub async fn a_replaced_interval_holds_the_rows_and_nothing_else(lake: &dyn Lake) {
    let table = hourly();
    let first = [row("A", "2024-03-04T09:00:00Z", 1.0, 1), row("B", "2024-03-04T10:00:00Z", 2.0, 2)];
    let second = [row("A", "2024-03-04T11:00:00Z", 3.0, 3)];
    for rows in [&[][..], &first, &first, &second, &[]] {
        replace(lake, &table, "2024-03-04", "2024-03-04", rows).await;
        assert_eq!(lake.describe(&table).await.unwrap().fields().len(), 4);
        assert_eq!(read(lake, &table, Layer::Raw).await, own(rows));
    }
    replace(lake, &table, "2024-03-04", "2024-03-04", &first).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&first));
}

/// In a table with partitions, those that the interval touches are replaced as a whole, and the others stay.
pub async fn only_touched_partitions_are_replaced(lake: &dyn Lake) {
    let table = hourly();
    let at = |day: u32, hour: u32, price: f64| row("A", &format!("2024-03-{day:02}T{hour:02}:00:00Z"), price, 1);
    let all: Vec<Row> = (4..8).flat_map(|day| [0, 12, 23].map(|hour| at(day, hour, 1.0))).collect();
    replace(lake, &table, "2024-03-04", "2024-03-07", &all).await;
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&all));
    // The interval touches the 5th and, with its last hour, the 6th.
    replace(lake, &table, "2024-03-05T23:00:00Z", "2024-03-06T01:00:00Z", &[at(6, 0, 2.0)]).await;
    let mut expected: Vec<Row> =
        all.iter().filter(|row| [4, 7].iter().any(|day| (0..24).any(|hour| at(*day, hour, 1.0) == **row))).cloned().collect();
    expected.push(at(6, 0, 2.0));
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&expected));
    // The interval ends where the 7th begins.
    replace(lake, &table, "2024-03-06", "2024-03-07T00:00:00Z", &[]).await;
    expected.pop();
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&expected));
}

/// A table without partitions is replaced as a whole, whatever the interval.
pub async fn a_table_without_partitions_is_replaced_as_a_whole(lake: &dyn Lake) {
    let table = Table { partition_by: Vec::new(), ..hourly() };
    replace(
        lake,
        &table,
        "2024-03-04",
        "2024-03-05",
        &[row("A", "2024-03-04T00:00:00Z", 1.0, 1), row("A", "2024-03-05T00:00:00Z", 1.0, 1)],
    )
    .await;
    let rows = [row("A", "2024-03-05T03:00:00Z", 2.0, 2)];
    replace(lake, &table, "2024-03-05", "2024-03-05", &rows).await;
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&rows));
}

/// Rows outside the interval are `invalid`, and the old rows stay.
pub async fn a_row_outside_of_what_is_replaced_is_invalid_and_changes_nothing(lake: &dyn Lake) {
    let table = hourly();
    let rows = [row("A", "2024-03-04T00:00:00Z", 1.0, 1)];
    replace(lake, &table, "2024-03-04", "2024-03-04", &rows).await;
    let interval = Interval::parse("2024-03-04T10:00:00Z", "2024-03-04T12:00:00Z").unwrap();
    for outside in ["2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z", "2024-03-05T10:00:00Z"] {
        let odd = [row("A", "2024-03-04T10:00:00Z", 2.0, 2), row("A", outside, 2.0, 2)];
        let error = lake.replace(&table, &interval, vec![batch(&table, &odd)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{outside}");
    }
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&rows));
}

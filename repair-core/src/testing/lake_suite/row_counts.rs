//! How many rows a table without a cadence has in stretches of time.

use std::collections::BTreeMap;

use super::LakeSetup;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::{Lake, RowCountRequest};
use crate::model::{Interval, Key, Table};

/// Rows are counted once, in the stretch of their time, for each requested key or all together; those beyond the interval are not.
pub async fn rows_are_counted_by_stretch_and_key(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = Table { cadence: None, ..new_table() };
    let rows = [
        row("A", "2024-03-03T23:59:59.999Z", 1.0, 1),
        row("A", "2024-03-04T00:00:00Z", 1.0, 1),
        // Two rows of one instant are two rows.
        row("A", "2024-03-04T09:15:00.500Z", 1.0, 1),
        row("A", "2024-03-04T09:15:00.500Z", 1.0, 1),
        row("B", "2024-03-04T23:59:59.999Z", 1.0, 1),
        row("B", "2024-03-06T00:00:00Z", 1.0, 1),
        row("C", "2024-03-06T12:00:00Z", 1.0, 1),
        row("A", "2024-03-07T00:00:00Z", 1.0, 1),
    ];
    put(setup, &table, &rows).await;
    let interval = Interval::parse("2024-03-04", "2024-03-06").unwrap();
    let counted = async |every_s: u32, keys: Option<Vec<Key>>| {
        let request = RowCountRequest::new(interval, every_s).of_keys(keys);
        let counts = lake.row_counts(&table, &request).await.unwrap();
        let from = |stretch: i64| jiff::Timestamp::from_second(stretch * i64::from(every_s)).unwrap().to_string();
        let of_key =
            |counts: BTreeMap<i64, u64>| counts.into_iter().filter(|(_, rows)| *rows > 0).map(|(at, rows)| (from(at), rows)).collect();
        counts.rows.into_iter().map(|(key, counts)| (key, of_key(counts))).collect::<BTreeMap<Key, Vec<(String, u64)>>>()
    };
    let of = |counts: &[(&str, u64)]| counts.iter().map(|(at, rows)| ((*at).to_owned(), *rows)).collect::<Vec<_>>();
    let by_day = of(&[("2024-03-04T00:00:00Z", 4), ("2024-03-06T00:00:00Z", 2)]);
    assert_eq!(counted(86_400, None).await, BTreeMap::from([(Key::default(), by_day)]));
    let by_quarter = BTreeMap::from([
        (Key::from("A"), of(&[("2024-03-04T00:00:00Z", 1), ("2024-03-04T09:15:00Z", 2)])),
        (Key::from("B"), of(&[("2024-03-04T23:45:00Z", 1), ("2024-03-06T00:00:00Z", 1)])),
        (Key::from("Z"), Vec::new()),
    ]);
    assert_eq!(counted(900, Some(keys(&["Z", "B", "A", "A"]))).await, by_quarter);
    assert_eq!(counted(86_400, Some(Vec::new())).await, BTreeMap::new());
    let refused = async |table: &Table, every_s: u32| {
        lake.row_counts(table, &RowCountRequest::new(interval, every_s)).await.map(|counts| counts.rows).unwrap_err().kind()
    };
    assert_eq!(refused(&Table { cadence: new_table().cadence, ..table.clone() }, 900).await, ErrorKind::Invalid);
    assert_eq!(refused(&table, 0).await, ErrorKind::Invalid);
    assert_eq!(refused(&Table { cadence: None, ..new_table() }, 900).await, ErrorKind::NotFound);
}

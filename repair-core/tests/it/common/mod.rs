//! The table that tests of the engine repair.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use repair_core::model::Table;
use repair_core::testing::minute_table;

/// A table of one key and a value a minute.
pub(crate) fn table() -> Table {
    minute_table("bars", "key")
}

/// Rows of its key `K`.
pub(crate) fn rows(slots: &[i64]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("key", Arc::new(StringArray::from(vec!["K"; slots.len()]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(slots.iter().map(|slot| slot * 60_000_000)).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from(vec![1.0; slots.len()]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

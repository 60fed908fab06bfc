//! How many rows a slot of a table holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many rows a slot of a table holds where nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Rows {
    /// One: a second row of a slot is a duplicate.
    #[default]
    One,
    /// One or more, such as the trades of a minute.
    Many,
    /// There are no slots, and the key identifies a row, such as an order: rows with the same key are versions of one row, wherever they lie.
    Unique,
}

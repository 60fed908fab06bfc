//! What a plug-in says of the SQL that it has the lake run.

use std::collections::BTreeMap;

use serde_json::Value;

/// The SQL of a plug-in, as its configuration has it. It is checked before a run begins: its names of values and relations, and the columns of tables that
/// are known then.
#[derive(Debug, Clone, Copy)]
pub struct UserQuery<'a> {
    /// The text.
    pub sql: &'a str,
    /// The profile of the lake that answers it, if that is another one than the workflow's.
    pub lake: Option<&'a str>,
    /// The values that it may name beside those that every step has: `:now` and the parameters of the run.
    pub values: &'a BTreeMap<String, Value>,
    /// Whether it may name `:from` and `:to`.
    pub has_interval: bool,
    /// The relations that it may name, without the dollar sign. Each has the key columns of the step's table, and `missing` also its time column.
    pub relations: &'a [&'a str],
    /// What its rows are.
    pub rows: QueryRows<'a>,
}

/// What the rows of a query are, and so which columns it must select.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryRows<'a> {
    /// Anything.
    #[default]
    Any,
    /// They say of slots of the step's table what is to be said, so they have its key and time columns.
    Slots,
    /// Rows of the step's table: its key and time columns, and others of its columns.
    Rows,
    /// The rows of a table that is written: if the workflow has a table of this name, they have its key and time columns, else a time.
    Into(&'a str),
}

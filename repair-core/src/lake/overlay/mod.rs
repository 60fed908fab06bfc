//! The tables that we own beside a user's table: their names and columns. Raw data is never touched.

pub mod accuracy;
pub mod aside;
pub mod base;
pub mod compaction;
pub mod fingerprint;
pub mod live;
pub(super) mod operations;
pub mod owner;
pub mod patch;
pub mod retraction;
pub mod staging;
pub mod story;
pub mod versions;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::lake::shape;
use crate::model::{DefectKind, Table};

/// The column of the repaired view that names the strategy a row came from; null for the table's own rows.
pub const REPAIRED_BY: &str = "repaired_by";

/// The column of the repaired view that names the repaired cells of a row and the strategy of each, as a JSON object such as
/// `{"temp":"interpolate"}`; null if none of its cells was repaired by itself.
pub const REPAIRED_CELLS: &str = "repaired_cells";

/// The name of the table of repairs.
pub fn repairs(table: &str) -> String {
    format!("{table}_repairs")
}

/// The name of the table of slots confirmed absent.
pub fn exceptions(table: &str) -> String {
    format!("{table}_exceptions")
}

/// The name of the table of retractions.
pub fn retractions(table: &str) -> String {
    format!("{table}_retractions")
}

/// The name of the repaired view.
pub fn repaired_view(table: &str) -> String {
    format!("{table}_repaired")
}

/// What a row of the overlay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Fills a slot that raw lacks; if a raw row arrives later, raw wins.
    Insert,
    /// Replaces all raw rows of its slot.
    Replace,
    /// Changes some cells of the row of its slot, and keeps all others.
    Patch,
    /// Removes all raw rows of its slot: the source of the table says that there are none.
    Remove,
    /// Confirms a slot as absent; used only in staged objects.
    Absent,
}

impl Op {
    /// What rows do that repair a defect; `None` if the defect is repaired by computing again, not by rows.
    pub fn repairing(kind: DefectKind) -> Option<Self> {
        match kind {
            DefectKind::Missing => Some(Self::Insert),
            DefectKind::Duplicate | DefectKind::Invalid | DefectKind::Different => Some(Self::Replace),
            DefectKind::Stale => None,
        }
    }

    /// Whether raw rows of its slot are not shown.
    pub fn hides_own(self) -> bool {
        matches!(self, Self::Replace | Self::Remove)
    }

    /// The op of this value in the column [`columns::OP`]; `None` if a row of repairs has no such op.
    pub fn of_repair(value: &str) -> Option<Self> {
        [Self::Insert, Self::Replace, Self::Patch, Self::Remove].into_iter().find(|op| op.as_str() == value)
    }

    /// Its value in the column [`columns::OP`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Replace => "replace",
            Self::Patch => "patch",
            Self::Remove => "remove",
            Self::Absent => "absent",
        }
    }
}

/// The provenance columns. They begin with `repair_`, to avoid the user's own column names.
pub mod columns {
    /// What the row does: `insert`, `replace`, `patch` or `remove`.
    pub const OP: &str = "repair_op";
    /// The run that added it.
    pub const RUN: &str = "repair_run";
    /// The step.
    pub const STEP: &str = "repair_step";
    /// The unit.
    pub const UNIT: &str = "repair_unit";
    /// The strategy.
    pub const STRATEGY: &str = "repair_strategy";
    /// The source of the row.
    pub const SOURCE: &str = "repair_source";
    /// When it was repaired; for an exception and for a row that removes, when the source was asked.
    pub const AT: &str = "repaired_at";
    /// For a row that replaces or removes: the fingerprint of the table's own rows that it replaces or removes.
    pub const REPLACED: &str = "repair_replaced";
    /// For a row that changes cells: their columns, as a JSON list such as `["temp"]`. Tables of repairs without such rows do not have it.
    pub const CELLS: &str = "repair_cells";
    /// For a row that changes cells: what precedes the name of a column in the name of the column with its old value.
    pub const WAS: &str = "repair_was_";
    /// For an exception, and for a row that removes: what the source answered. Tables of repairs without such rows do not have it.
    pub const ANSWER: &str = "repair_answer";
    /// For estimated values: where the true ones probably lie, as a JSON object such as `{"temp":[17.5,19.5]}` with the ends of an interval of 95 %. Tables
    /// of repairs without such rows do not have it.
    pub const ESTIMATED: &str = "repair_estimated";
    /// For an exception: when to ask again.
    pub const RECHECK_AFTER: &str = "recheck_after";
}

/// The type of every time column in the batches of a lake.
pub fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn provenance() -> [Field; 6] {
    [
        text(columns::RUN),
        text(columns::STEP),
        text(columns::UNIT),
        text(columns::STRATEGY),
        text(columns::SOURCE),
        Field::new(columns::AT, instant_type(), false),
    ]
}

/// The columns of `…_repairs`: the table's own, all nullable, then op, provenance, and what was replaced.
pub fn repairs_schema(table: &Schema) -> SchemaRef {
    let own = table.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(own.chain([text(columns::OP)]).chain(provenance()).chain([text(columns::REPLACED)]).collect::<Vec<_>>()))
}

/// The columns of `…_exceptions`: key and time, provenance, and the evidence.
pub fn exceptions_schema(table: &Table) -> SchemaRef {
    let own = table.key.iter().map(|key| text(key)).chain([Field::new(&table.time, instant_type(), false)]);
    let evidence = [text(columns::ANSWER), Field::new(columns::RECHECK_AFTER, instant_type(), false)];
    Arc::new(Schema::new(own.chain(provenance()).chain(evidence).collect::<Vec<_>>()))
}

/// The columns of the repaired view: the table's own, who repaired the row, and which of its cells were repaired by themselves.
pub fn view_schema(table: &Schema) -> SchemaRef {
    let own = table.fields().iter().map(|field| field.as_ref().clone());
    Arc::new(Schema::new(own.chain([text(REPAIRED_BY), text(REPAIRED_CELLS)]).collect::<Vec<_>>()))
}

/// Whether a column of a table of repairs or a view is one that we add.
pub fn is_ours(name: &str) -> bool {
    shape::RESERVED.contains(&name) || name.starts_with(columns::WAS)
}

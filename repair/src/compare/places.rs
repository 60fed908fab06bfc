//! What a table is while strategies are compared: the one whose rows are hidden, something beside it or computed from it, or any other. This is
//! decided by where the table lies, since names and locations may be written in many ways.

use repair_core::lake::{Lake, overlay};
use repair_core::model::Table;
use repair_core::{Error, Result};

/// What a table is here.
pub(super) enum Standing {
    /// The one whose rows are hidden.
    Masked,
    /// Its repairs or exceptions.
    Beside,
    /// Computed, or written by what works here.
    Computed(String),
    /// Any other.
    Other,
}

/// Where the rows of a table lie, and what would reveal them.
pub(super) struct Places {
    masked: Table,
    hidden: String,
    /// Where its repairs, exceptions and retractions lie.
    beside: Vec<String>,
    /// Where the tables lie that are computed from it.
    computed: Vec<String>,
}

impl Places {
    pub(super) fn new(lake: &dyn Lake, masked: &Table, computed: &[Table]) -> Self {
        let mut beside = Vec::new();
        for name in [overlay::repairs, overlay::exceptions, overlay::retractions] {
            // The overlay of a table elsewhere lies in the lake, under the table's name.
            for location in [&masked.location, &masked.name] {
                beside.push(lake.place(&Table { name: name(&masked.name), location: name(location), ..masked.clone() }));
            }
        }
        let computed = computed.iter().map(|table| lake.place(table)).collect();
        Self { masked: masked.clone(), hidden: lake.place(masked), beside, computed }
    }

    /// What a table is that lies at a place, to which something may have been written meanwhile.
    ///
    /// # Errors
    /// `invalid` if hidden rows lie there, and it is not the table as the workflow declares it.
    pub(super) fn standing(&self, table: &Table, place: String, is_written: bool) -> Result<Standing> {
        let Self { masked, hidden, beside, computed } = self;
        let same_rows = |table: &Table| {
            let shape = |table: &Table| (table.format, table.partition_by.clone(), table.key.clone(), table.time.clone(), table.time_marks);
            shape(table) == shape(masked) && table.cadence == masked.cadence
        };
        if place == *hidden && same_rows(table) {
            return Ok(Standing::Masked);
        }
        if beside.contains(&place) && (&table.key, &table.time) == (&masked.key, &masked.time) {
            return Ok(Standing::Beside);
        }
        // A lake with a catalog finds tables by their names.
        let names = [overlay::repairs, overlay::exceptions, overlay::retractions, overlay::repaired_view].map(|name| name(&masked.name));
        let same_name = names.iter().chain([&masked.name]).any(|name| name.eq_ignore_ascii_case(&table.name));
        if same_name || [hidden].into_iter().chain(beside).any(|other| overlap(&place, other)) {
            return Err(Error::invalid(format!(
                "table `{}` at `{}` has, or lies among, the rows of table `{}`, some of which are hidden while strategies are compared; it can \
                 be read only as the workflow declares it",
                table.name, table.location, masked.name
            )));
        }
        if is_written || computed.contains(&place) {
            return Ok(Standing::Computed(place));
        }
        match computed.iter().find(|other| overlap(&place, other)) {
            Some(over) => {
                Err(Error::invalid(format!("`{}` lies where a table lies that is computed from hidden rows ({over})", table.location)))
            }
            None => Ok(Standing::Other),
        }
    }
}

/// Whether one place lies within the other.
fn overlap(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        let outer = outer.trim_end_matches('/');
        matches!(outer, "" | ".") || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}

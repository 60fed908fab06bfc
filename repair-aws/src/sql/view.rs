//! The repaired view, for anyone who reads with SQL.

use repair_core::Result;
use repair_core::lake::overlay;
use repair_core::lake::partition::TimeBounds;
use repair_core::model::OnBadRow;

use super::folders::Folders;
use super::timing::Timing;
use super::{Shape, Source, Wanted, key_name, name, values};
use crate::catalog::Relation;

impl Source<'_> {
    /// The columns of the repaired view: those of the table with its time as an instant, its partitions, and who repaired a row and its cells.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read the table as it is declared.
    pub(crate) fn view_columns(&self) -> Result<Vec<String>> {
        let (mut all, others, _) = self.shown()?;
        all.extend(others);
        all.extend([overlay::REPAIRED_BY, overlay::REPAIRED_CELLS].map(str::to_owned));
        Ok(all)
    }

    /// Whether the time of the view is not the table's own column.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read the table as it is declared.
    pub(crate) fn computes_time(&self) -> Result<bool> {
        Ok(!matches!(self.timing()?, Timing::Plain))
    }

    /// The columns that the view has of the table's objects, and of its partitions; and whether its time column is one that we compute.
    fn shown(&self) -> Result<(Vec<String>, Vec<String>, bool)> {
        let names = |columns: &[crate::catalog::Column]| {
            columns.iter().map(|column| column.name.clone()).filter(|column| !overlay::is_ours(column)).collect::<Vec<_>>()
        };
        let (mut own, mut others) = (names(&self.raw.columns), names(&self.raw.partitions));
        // What a path makes a column of its own would be there as it was before a repair.
        own.retain(|column| !values::has_own_columns(self.table, column));
        let nested = self.table.columns.iter().filter(|(_, rule)| rule.path.is_some()).map(|(column, _)| column.clone());
        for column in nested {
            if !own.iter().any(|known| known.eq_ignore_ascii_case(&column)) {
                own.push(column);
            }
        }
        let is_time = |column: &String| column.eq_ignore_ascii_case(&self.table.time);
        let computed = self.computes_time()?;
        if computed && !own.iter().any(is_time) {
            own.push(self.table.time.to_ascii_lowercase());
            others.retain(|column| !is_time(column));
        }
        Ok((own, others, computed))
    }

    /// The repaired view, for anyone who reads with SQL. A condition on the partitions prunes the table; repaired rows have the partitions
    /// that rows of their time are in.
    pub(crate) fn create_view(&self, database: &str, repairs: &Relation) -> Result<String> {
        let (database, view) = (name(database), name(&overlay::repaired_view(&self.raw.name)));
        Ok(format!("CREATE OR REPLACE VIEW {database}.{view} AS {}", self.view(repairs)?))
    }

    /// The table as it is declared, as a named select that stands for it in a person's query; `None` if the catalog says the same.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read the table as it is declared.
    pub(crate) fn as_declared(&self) -> Result<Option<String>> {
        let (own, others, computed) = self.shown()?;
        let is_time = |column: &str| computed && column.eq_ignore_ascii_case(&self.table.time);
        let columns: Vec<&str> = own.iter().chain(&others).map(String::as_str).collect();
        let mut is_plain = !computed && self.table.ignore.is_empty() && self.table.on_bad_row == OnBadRow::Refuse;
        for column in columns.iter().copied().filter(|column| !is_time(column)) {
            is_plain &= values::value(self.table, self.raw, column)?.is_none_or(|value| value.expression == name(column));
        }
        if is_plain {
            return Ok(None);
        }
        let shown = columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ");
        Ok(Some(format!("{} AS (SELECT {shown} FROM ({}))", name(&self.raw.name), self.rows_for_people(&columns, is_time)?)))
    }

    /// What the repaired view selects.
    pub(crate) fn view(&self, repairs: &Relation) -> Result<String> {
        let all = TimeBounds::ALL;
        let (own, others, computed) = self.shown()?;
        let folders = Folders::of(self.table, self.raw)?;
        let is_time = |column: &str| computed && column.eq_ignore_ascii_case(&self.table.time);
        let columns: Vec<&str> = own.iter().chain(&others).map(String::as_str).collect();
        let raw = self.rows_for_people(&columns, is_time)?;
        let raw = self.aligned(raw, &all)?;
        let keys = |column: &str| {
            let key = self.table.key.iter().find(|key| key.eq_ignore_ascii_case(column)).map(|key| key_name(key));
            key.map_or_else(|| "NULL".to_owned(), |key| format!("a.{}", name(&key)))
        };
        // What the folders of a row's time are called is computed once for all of them.
        let local = folders.as_ref().map_or_else(|| "repair_ms".to_owned(), |folders| folders.local("repair_ms"));
        // Columns that repairs lack are null in a repaired row; keys have the table's own type.
        let mut known: Vec<&str> = Vec::new();
        let mut fixed: Vec<String> = Vec::new();
        for column in &columns {
            let declared = values::declared(self.table, self.raw, column).unwrap_or_else(|| "string".to_owned());
            let is_partition = self.raw.partition_kind(column).is_some() && !is_time(column);
            let in_folders = folders.as_ref().filter(|_| is_partition);
            let computed = in_folders.and_then(|folders| folders.value_for(column, &declared, "a.repair_local", keys));
            fixed.push(match (computed, repairs.kind(column)) {
                (Some(value), _) => value,
                (None, Some(_)) if is_time(column) => {
                    known.push(column);
                    format!("a.{}", name(column))
                }
                (None, Some(_)) => {
                    known.push(column);
                    format!("CAST(a.{} AS {})", name(column), crate::catalog::trino_type(&declared))
                }
                // Hive's names of nested types are not Trino's; the other half of the view determines the type.
                (None, None) => "NULL".to_owned(),
            });
        }
        let wanted = Wanted { bounds: all, keys: None, columns: &known };
        let fix = format!("SELECT *, {local} AS repair_local FROM ({})", self.winners(repairs, &wanted, Shape::Native)?);
        let mut raw_out: Vec<String> = columns.iter().map(|column| format!("a.{}", name(column))).collect();
        if !self.patched(repairs).is_empty() {
            let slot = || self.slot_names().into_iter().map(|column| format!("a.{column}"));
            raw_out.extend(slot());
            fixed.extend(slot());
        }
        let (named, rows) = self.base((&raw, &raw_out.join(", ")), (&fix, &fixed.join(", ")), &all);
        let out: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        self.with_cells((&named, &rows), &out, repairs, &wanted, Shape::Native)
    }
}

//! Repaired cells in SQL: which patches a row of the view gets.
//!
//! The patches of a slot become one row with an array for each changed column, newest first, and that row is joined to the rows of the
//! slot. A row's own value is looked up among the old values; the patch at the first place where it is found counts. So the overlay is read
//! once and joined once, however many columns have patches, and several rows of one slot stay as they are.

use repair_core::lake::Layer;
use repair_core::lake::overlay::patch::was;
use repair_core::lake::overlay::retraction::Kind as RetractedKind;
use repair_core::lake::overlay::{self, Op, columns};
use repair_core::{Error, Result};

use super::{Shape, Source, Wanted, filter, milliseconds, name, newest_first, text, values};
use crate::catalog::{Kind, Relation, kind_of, trino_type};

/// Pieces of text that are joined in one group. A longer chain of operators would be nested too deeply for a parser.
const JOINED_AT_ONCE: usize = 50;

/// A column of which patches change cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patched {
    /// Its name in the table.
    column: String,
    /// Its type in the table, in Hive's words.
    declared: String,
    /// How its old value in a patch is selected.
    was: String,
}

/// The type in which the old values of a column are kept. `ALTER TABLE ADD COLUMNS` does not work for dates in Athena:
/// <https://docs.aws.amazon.com/athena/latest/ug/alter-table-add-columns.html>.
pub(crate) fn declared_was(declared: &str) -> String {
    if kind_of(declared) == Kind::Date { "timestamp".to_owned() } else { declared.to_owned() }
}

/// Whether the old values of a column are dates that are kept as timestamps.
pub(super) fn is_date_kept_as_timestamp(relation: &Relation, column: &str) -> bool {
    let changed =
        column.get(..columns::WAS.len()).filter(|start| start.eq_ignore_ascii_case(columns::WAS)).and(column.get(columns::WAS.len()..));
    changed.is_some_and(|changed| {
        let is_date = relation.kind(changed) == Some(Kind::Date) || relation.keeps_date(changed);
        relation.kind(columns::OP).is_some() && is_date && relation.kind(column) == Some(Kind::Instant)
    })
}

fn json(value: &str) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a name is not JSON").because(error))
}

/// A value as text that is the same for the same value, and different from the text of null. Zero has one text, whatever its sign is.
fn comparable(kind: Kind, expression: &str) -> String {
    let expression = if kind == Kind::Float { format!("CAST({expression} AS double) + 0e0") } else { expression.to_owned() };
    format!("coalesce('=' || CAST({expression} AS varchar), '')")
}

/// Texts joined to one.
fn joined(pieces: &[String]) -> String {
    let groups: Vec<String> = pieces.chunks(JOINED_AT_ONCE).map(|some| format!("({})", some.join(" || "))).collect();
    groups.join(" || ")
}

impl Patched {
    fn kind(&self) -> Kind {
        kind_of(&self.declared)
    }

    /// An expression in the form in which values of a shape are selected.
    fn shown(&self, shape: Shape, expression: &str) -> String {
        match (shape, self.kind()) {
            (Shape::Exact, Kind::Instant) => milliseconds(expression),
            _ => expression.to_owned(),
        }
    }
}

impl Source<'_> {
    /// The columns of which patches change cells, in the order of the table.
    pub(super) fn patched(&self, repairs: &Relation) -> Vec<Patched> {
        let (table, raw) = (self.table, self.raw);
        let is_nested = |column: &str| values::rule(table, column).is_some_and(|(_, rule)| rule.path.is_some());
        let own = raw.columns.iter().map(|column| column.name.as_str()).filter(|column| !is_nested(column));
        let nested = table.columns.iter().filter(|(_, rule)| rule.path.is_some()).map(|(column, _)| column.as_str());
        let patched = own.chain(nested).filter(|column| !overlay::is_ours(column)).filter_map(|column| {
            let declared = values::declared(table, raw, column)?;
            let was = values::cell(table, repairs, &was(column))?.expression;
            repairs.kind(column)?;
            (kind_of(&declared) != Kind::Other).then(|| Patched { column: column.to_owned(), declared, was })
        });
        patched.collect()
    }

    /// The names of the columns of which patches change cells.
    pub(crate) fn patched_columns(&self, repairs: &Relation) -> Vec<String> {
        self.patched(repairs).into_iter().map(|patched| patched.column).collect()
    }

    /// The columns that are read to show some columns of a layer: with repaired cells, every column of which patches change cells, since
    /// what the view says of a row does not depend on what is asked for.
    pub(crate) fn read_for(&self, layer: Layer, columns: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        if let (Layer::Repaired, Some(repairs)) = (layer, self.repairs) {
            for column in self.patched_columns(repairs) {
                if !all.iter().any(|known| known.eq_ignore_ascii_case(&column)) {
                    all.push(column);
                }
            }
        }
        all
    }

    /// The live patches, one row for each slot: `repair_s`, the strategies as JSON, and for each column `repair_w…`, the old values where a
    /// patch changes it, and `repair_v…`, the new ones. All arrays have the newest patch first.
    fn patches(&self, repairs: &Relation, wanted: &Wanted<'_>, patched: &[Patched], shape: Shape) -> Result<String> {
        let slot = self.slot_names().join(", ");
        let mut select = self.slot_columns(repairs, &wanted.bounds)?;
        let mut arrays = vec!["array_agg(repair_s ORDER BY repair_age) AS repair_s".to_owned()];
        for (number, cell) in patched.iter().enumerate() {
            let value = match shape {
                Shape::Exact => self.value(repairs, &cell.column, shape),
                Shape::Native => format!("CAST({} AS {})", name(&cell.column), trino_type(&cell.declared)),
            };
            select.push(format!("{} AS repair_k{number}", comparable(cell.kind(), &cell.shown(shape, &cell.was))));
            select.push(format!("{value} AS repair_n{number}"));
            // The list is text such as `["temp","hum"]`: a quote after a comma begins a name, since a quote within a name is escaped.
            arrays.push(format!(
                "array_agg(CASE WHEN strpos(repair_list, {}) > 0 THEN repair_k{number} END ORDER BY repair_age) AS repair_w{number}, \
                 array_agg(repair_n{number} ORDER BY repair_age) AS repair_v{number}",
                text(&format!(",{}", json(&cell.column.to_lowercase())?)),
            ));
        }
        select.push(format!("lower(',' || substr({}, 2)) AS repair_list", name(columns::CELLS)));
        select.push(format!(
            "'\"' || replace(replace(coalesce({}, 'unknown'), '\\', '\\\\'), '\"', '\\\"') || '\"' AS repair_s",
            name(columns::STRATEGY)
        ));
        select.extend([columns::AT, columns::RUN, columns::UNIT].map(name));
        select.extend(self.of_retractions().into_iter().filter(|column| *column != name(columns::RUN)));
        let mut conditions = self.within(repairs, &wanted.bounds)?;
        conditions.extend(self.key_filter(repairs, wanted.keys));
        conditions.push(format!("{} = {}", name(columns::OP), text(Op::Patch.as_str())));
        let live = format!("SELECT {} FROM {}{}", select.join(", "), repairs.quoted(), filter(&conditions));
        Ok(format!(
            "SELECT {slot}, {arrays} FROM (SELECT *, row_number() OVER (PARTITION BY {slot} ORDER BY {newest_first}) AS repair_age FROM ({live})) \
             GROUP BY {slot}",
            arrays = arrays.join(", "),
            newest_first = newest_first(),
            live = self.not_retracted(live, RetractedKind::Repairs, &wanted.bounds)?,
        ))
    }

    /// Rows of the view from rows without repaired cells: `base` are statements that are named, and `rows` one that selects keys,
    /// `repair_slot`, the columns of `out` and `repaired_by` from them. `wanted` says of which rows and columns patches are read.
    pub(super) fn with_cells(
        &self,
        (base, rows): (&str, &str),
        out: &[String],
        repairs: &Relation,
        wanted: &Wanted<'_>,
        shape: Shape,
    ) -> Result<String> {
        let (by, cells) = (name(overlay::REPAIRED_BY), name(overlay::REPAIRED_CELLS));
        let patched = self.patched(repairs);
        if patched.is_empty() {
            let out: Vec<String> = out.iter().map(|column| name(column)).collect();
            return Ok(format!("WITH {base} SELECT {}, {by}, CAST(NULL AS varchar) AS {cells} FROM ({rows})", out.join(", ")));
        }
        let mut joins = vec!["b.repair_s".to_owned()];
        let mut names = Vec::with_capacity(patched.len());
        for (number, cell) in patched.iter().enumerate() {
            let own = comparable(cell.kind(), &format!("a.{}", name(&cell.column)));
            joins.push(format!("b.repair_v{number}, nullif(array_position(b.repair_w{number}, {own}), 0) AS repair_i{number}"));
            let text = text(&format!(",{}:", json(&cell.column)?));
            names.push(format!("coalesce({text} || element_at(repair_s, repair_i{number}), '')"));
        }
        let shown = out.iter().map(|column| {
            let quoted = name(column);
            match patched.iter().position(|cell| cell.column.eq_ignore_ascii_case(column)) {
                Some(number) => format!(
                    "CASE WHEN repair_i{number} IS NULL THEN {quoted} ELSE element_at(repair_v{number}, repair_i{number}) END AS {quoted}"
                ),
                None => quoted,
            }
        });
        Ok(format!(
            "WITH {base}, repair_base AS ({rows}), repair_patch AS ({patches}) SELECT {shown}, {by}, CASE WHEN repair_s IS NOT NULL THEN \
             nullif('{{' || substr({names}, 2) || '}}', '{{}}') END AS {cells} FROM (SELECT a.*, {joins} FROM repair_base a LEFT JOIN repair_patch b \
             ON {same})",
            patches = self.patches(repairs, wanted, &patched, shape)?,
            shown = shown.collect::<Vec<_>>().join(", "),
            names = joined(&names),
            joins = joins.join(", "),
            same = self.same_slot(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Column;
    use crate::sql::MAX_STATEMENT_BYTES;
    use repair_core::lake::partition::TimeBounds;
    use repair_core::model::{Cadence, Format, PartitionUnit, Table};

    fn relation(name: &str, columns: impl IntoIterator<Item = (String, &'static str)>) -> Relation {
        let columns = columns.into_iter().map(|(name, declared)| Column { name, declared: declared.to_owned() });
        Relation { database: "d".to_owned(), name: name.to_owned(), columns: columns.collect(), ..Relation::default() }
    }

    #[test]
    fn a_hundred_columns_with_repaired_cells_fit_into_a_statement() {
        let table =
            Table::new("t", Format::Parquet, "ts").with_key(["k"]).with_partition("day", PartitionUnit::Day).with_cadence(Cadence::MINUTE);
        let names: Vec<String> = (0..100).map(|number| format!("a_column_with_quite_a_long_name_{number}")).collect();
        let own = || {
            [("k".to_owned(), "string"), ("ts".to_owned(), "timestamp")]
                .into_iter()
                .chain(names.iter().cloned().map(|name| (name, "double")))
        };
        let raw = relation("t", own());
        let ours = [columns::OP, columns::RUN, columns::STEP, columns::UNIT, columns::STRATEGY, columns::CELLS]
            .map(|name| (name.to_owned(), "string"));
        let repairs = relation("t_repairs", own().chain(ours).chain(names.iter().map(|name| (was(name), "double"))));
        let source = Source { table: &table, raw: &raw, repairs: Some(&repairs), exceptions: None, retracted: None };
        assert_eq!(source.patched_columns(&repairs), names);
        let wanted = Wanted { bounds: TimeBounds::ALL, keys: None, columns: &[] };
        for sql in [source.scan(Layer::Repaired, &wanted).unwrap(), source.create_view("d", &repairs).unwrap()] {
            assert!(sql.len() < MAX_STATEMENT_BYTES / 2, "{} bytes", sql.len());
            assert_eq!(sql.matches("\"d\".\"t_repairs\"").count(), 2, "rows and patches are read once each");
        }
    }

    #[test]
    fn old_dates_are_kept_as_timestamps_and_read_as_dates() {
        let of_repairs =
            |kept| relation("t_repairs", [("repair_op".to_owned(), "string"), ("d".to_owned(), "date"), ("repair_was_d".to_owned(), kept)]);
        assert!(is_date_kept_as_timestamp(&of_repairs("timestamp"), "REPAIR_WAS_d"));
        assert!(!is_date_kept_as_timestamp(&of_repairs("date"), "repair_was_d"));
        assert!(!is_date_kept_as_timestamp(&of_repairs("timestamp"), "d"));
        assert_eq!((declared_was("date"), declared_was("decimal(10,2)")), ("timestamp".to_owned(), "decimal(10,2)".to_owned()));
    }
}

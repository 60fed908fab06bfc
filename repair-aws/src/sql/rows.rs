//! The rows of a layer: raw rows, the live repairs of slots, and the rows of the repaired view.

use repair_core::lake::Layer;
use repair_core::lake::overlay::retraction::Kind as RetractedKind;
use repair_core::lake::overlay::{self, Op, columns};
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::model::{Key, PartitionUnit};
use repair_core::{Error, Result};

use super::judged::Prepared;
use super::slots::Slots;
use super::{Shape, Source, Wanted, filter, in_bounds, instant, key_name, milliseconds, name, newest_first, one_of, text, values};
use crate::catalog::{Kind, Relation};

/// What is reported of a row that cannot be read: the column, and the object. Null for any other row.
const REPORT: &str = "CASE WHEN repair_reason IS NOT NULL THEN repair_reason || '|' || repair_file END";

impl Source<'_> {
    /// The time column of a relation, as it is.
    pub(super) fn time_column(&self, relation: &Relation) -> String {
        if std::ptr::eq(relation, self.raw) {
            let column = self.table.time_columns().first().copied().unwrap_or(&self.table.time);
            return values::cell(self.table, relation, column).map_or_else(|| name(column), |cell| cell.expression);
        }
        name(&self.table.time)
    }

    /// The keys of the table's own rows as text.
    pub(super) fn raw_keys(&self) -> Vec<String> {
        let key = |key: &String| values::key(self.table, self.raw, key).unwrap_or_else(|| "CAST(NULL AS varchar)".to_owned());
        self.table.key.iter().map(key).collect()
    }

    /// The time of a row as a timestamp.
    pub(super) fn time(&self, relation: &Relation) -> String {
        let column = self.time_column(relation);
        let kind = if std::ptr::eq(relation, self.raw) {
            self.table.time_columns().first().and_then(|column| values::cell(self.table, relation, column)).map(|cell| cell.kind())
        } else {
            relation.kind(&self.table.time)
        };
        match kind {
            Some(Kind::Date) => format!("CAST({column} AS timestamp(3))"),
            _ => column,
        }
    }

    /// The time of a row in milliseconds.
    pub(super) fn time_ms(&self, relation: &Relation) -> String {
        milliseconds(&self.time(relation))
    }

    /// The slot of a row, as the core counts slots. In a table without cadence, every time is a slot.
    pub(super) fn slot(&self, time_ms: &str, bounds: &TimeBounds) -> Result<String> {
        match self.table.grid() {
            Ok(grid) => Ok(Slots::new(grid, bounds)?.slot(time_ms)),
            Err(_) => Ok(time_ms.to_owned()),
        }
    }

    /// Those of raw rows that belong to slots, and those that cannot be read. In a table without cadence, all.
    pub(super) fn aligned(&self, rows: String, bounds: &TimeBounds) -> Result<String> {
        match self.table.grid() {
            Ok(grid) => Ok(format!("SELECT * FROM ({rows}) WHERE {}", Slots::new(grid, bounds)?.is_kept())),
            Err(_) => Ok(rows),
        }
    }

    pub(super) fn keys(&self, relation: &Relation) -> Vec<String> {
        if std::ptr::eq(relation, self.raw) {
            return self.raw_keys();
        }
        self.table
            .key
            .iter()
            .map(|key| match relation.kind(key) {
                Some(Kind::Text) => name(key),
                _ => format!("CAST({} AS varchar)", name(key)),
            })
            .collect()
    }

    /// The conditions that select rows within bounds: partitions first, then times. Rows without a time are always selected, so that they
    /// are noticed.
    pub(super) fn within(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Vec<String>> {
        let mut all = Vec::new();
        if *bounds == TimeBounds::ALL {
            return Ok(all);
        }
        if !std::ptr::eq(relation, self.raw) {
            all.extend(self.partitions(relation, bounds)?);
        }
        let (time, null) = (self.time(relation), self.time_column(relation));
        all.push(format!("(({time} >= {} AND {time} < {}) OR {null} IS NULL)", instant(bounds.from_us), instant(bounds.to_us)));
        Ok(all)
    }

    /// The condition on the partitions of an overlay. We wrote it, so each row is in its folder.
    fn partitions(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Option<String>> {
        let Some(by) = partition::time_partition(self.table)? else { return Ok(None) };
        let Some(kind) = relation.partition_kind(&by.column) else { return Ok(None) };
        if bounds.from_us >= bounds.to_us {
            return Ok(Some("false".to_owned()));
        }
        let (first, _) = partition::of_time(by.unit, bounds.from_us)?;
        let (last, _) = partition::of_time(by.unit, bounds.to_us - 1)?;
        let column = name(&by.column);
        let value = |value: &str| match kind {
            Kind::Text => Ok(text(value)),
            Kind::Date if by.unit == PartitionUnit::Day => Ok(format!("DATE {}", text(value))),
            Kind::Whole if by.unit == PartitionUnit::Year => Ok(value.to_owned()),
            _ => Err(Error::invalid(format!(
                "partition column `{}` of table `{}` is {kind} in Athena, and `partition_by` says it holds one {:?} each, such as `{value}`; \
                 declare the column as `string` in Athena, or correct `partition_by`",
                by.column, self.table.name, by.unit
            ))),
        };
        Ok(Some(if first == last {
            format!("{column} = {}", value(&first)?)
        } else {
            format!("{column} BETWEEN {} AND {}", value(&first)?, value(&last)?)
        }))
    }

    pub(super) fn key_filter(&self, relation: &Relation, keys: Option<&[Key]>) -> Option<String> {
        keys.map(|keys| one_of(&self.keys(relation), keys))
    }

    /// A column in the selected form.
    pub(super) fn value(&self, relation: &Relation, column: &str, shape: Shape) -> String {
        let quoted = name(column);
        match (shape, relation.kind(column)) {
            (Shape::Native, _) => quoted,
            (Shape::Exact, Some(Kind::Instant)) if relation.keeps_date(column) => format!("CAST({quoted} AS date)"),
            (Shape::Exact, Some(Kind::Instant)) => milliseconds(&quoted),
            (Shape::Exact, _) => quoted,
        }
    }

    /// The raw rows, as `repair_raw`: key, `repair_slot`, `repair_ms`, and columns. Judged rows have `repair_path`, too: which column cannot
    /// be read, and the object. Rows that cannot be read come whatever was asked for, without a slot.
    pub(super) fn raw_rows(&self, wanted: &Wanted<'_>, shape: Shape) -> Result<String> {
        if !self.is_judged(wanted.columns)? {
            let mut select = self.slot_columns(self.raw, &wanted.bounds)?;
            for column in wanted.columns {
                let Some(value) = values::value(self.table, self.raw, column)? else { continue };
                let shown = match (shape, crate::catalog::kind_of(&value.declared)) {
                    (Shape::Exact, Kind::Instant) => milliseconds(&value.expression),
                    _ => value.expression,
                };
                select.push(format!("{shown} AS {}", name(column)));
            }
            let mut conditions = self.within(self.raw, &wanted.bounds)?;
            conditions.extend(self.is_data());
            conditions.extend(self.key_filter(self.raw, wanted.keys));
            return Ok(format!("SELECT {} FROM {}{}", select.join(", "), self.raw.quoted(), filter(&conditions)));
        }
        let Prepared { sql } = self.prepared(wanted, shape, false)?;
        let mut select = self.key_names();
        select.push(format!("CASE WHEN repair_reason IS NULL THEN {} END AS repair_slot", self.slot("repair_ms", &wanted.bounds)?));
        select.push("repair_ms".to_owned());
        select.extend(wanted.columns.iter().map(|column| name(column)));
        select.push(format!("{REPORT} AS repair_path"));
        let mut good = vec!["repair_reason IS NULL".to_owned(), "repair_far < 2".to_owned()];
        good.extend(in_bounds(&wanted.bounds));
        good.extend(wanted.keys.map(|keys| one_of(&self.key_names(), keys)));
        Ok(format!("SELECT {} FROM ({sql}) WHERE repair_reason IS NOT NULL OR ({})", select.join(", "), good.join(" AND ")))
    }

    pub(super) fn slot_columns(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Vec<String>> {
        let time_ms = self.time_ms(relation);
        let keys = self.keys(relation).into_iter().zip(&self.table.key).map(|(value, key)| format!("{value} AS {}", name(&key_name(key))));
        Ok(keys.chain([format!("{} AS repair_slot", self.slot(&time_ms, bounds)?), format!("{time_ms} AS repair_ms")]).collect())
    }

    /// The live repair of each slot: the newest; of two from the same instant, the one whose run, then unit, sorts last by name. If the key
    /// alone identifies a row, those of all rows that may have versions within the bounds.
    pub(super) fn winners(&self, repairs: &Relation, wanted: &Wanted<'_>, shape: Shape) -> Result<String> {
        let bounds = self.around_versions(&wanted.bounds);
        let mut select = self.slot_columns(repairs, &bounds)?;
        for column in wanted.columns {
            let value = match repairs.kind(column) {
                Some(_) => self.value(repairs, column, shape),
                // Repairs may have been made before the table had the column.
                None => "NULL".to_owned(),
            };
            select.push(format!("{value} AS {}", name(column)));
        }
        select.extend([name(columns::OP), name(columns::STRATEGY), name(columns::RUN), name(columns::UNIT), name(columns::AT)]);
        select.extend(self.of_retractions().into_iter().filter(|column| *column != name(columns::RUN)));
        let mut conditions = self.within(repairs, &bounds)?;
        conditions.extend(self.key_filter(repairs, wanted.keys));
        // A patch is no row.
        conditions.push(format!("{} IS DISTINCT FROM {}", name(columns::OP), text(Op::Patch.as_str())));
        let live = format!("SELECT {} FROM {}{}", select.join(", "), repairs.quoted(), filter(&conditions));
        let newest = format!(
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {}) AS repair_rank FROM ({})) WHERE repair_rank = 1",
            self.slot_names().join(", "),
            newest_first(),
            self.not_retracted(live, RetractedKind::Repairs, &bounds)?,
        );
        Ok(self.not_outdated(newest))
    }

    pub(super) fn key_names(&self) -> Vec<String> {
        self.table.key.iter().map(|key| name(&key_name(key))).collect()
    }

    /// The columns that a slot is identified by.
    pub(super) fn slot_names(&self) -> Vec<String> {
        self.key_names().into_iter().chain(["repair_slot".to_owned()]).collect()
    }

    /// Rows without repaired cells: those of `raw` that are neither replaced nor removed, and those of `fix` that are needed and within bounds.
    /// Returns statements that are named, and one that selects from them; `raw_out` and `fix_out` are what it selects of `a`, with `repaired_by`
    /// behind it.
    pub(super) fn base(&self, (raw, raw_out): (&str, &str), (fix, fix_out): (&str, &str), bounds: &TimeBounds) -> (String, String) {
        let (op, replace, remove) = (name(columns::OP), text(Op::Replace.as_str()), text(Op::Remove.as_str()));
        // A reader may not know yet that rows have been removed, so it always looks for that.
        let (hiding, is_row) = (format!("({replace}, {remove})"), format!("(a.{op} IS DISTINCT FROM {remove})"));
        let slot = self.slot_names().join(", ");
        let named = format!("repair_raw AS ({raw}), repair_fix AS ({fix}), repair_had AS (SELECT DISTINCT {slot} FROM repair_raw)");
        let (by, strategy) = (name(overlay::REPAIRED_BY), name(columns::STRATEGY));
        let rows = match self.same_row() {
            // Several repairs may be near one row, and several rows near one repair.
            Some(same) => format!(
                "SELECT {raw_out}, CAST(NULL AS varchar) AS {by} FROM repair_raw a LEFT JOIN repair_fix b ON {same} AND b.{op} IN {hiding} \
                 WHERE b.repair_slot IS NULL \
                 UNION ALL SELECT {fix_out}, a.{strategy} FROM repair_fix a LEFT JOIN repair_had b ON {same} AND a.{op} <> {replace} \
                 WHERE b.repair_slot IS NULL AND {is_row}{within}",
                within = in_bounds(bounds).map(|within| format!(" AND {within}")).unwrap_or_default(),
            ),
            None => format!(
                "SELECT {raw_out}, CAST(NULL AS varchar) AS {by} FROM repair_raw a LEFT JOIN repair_fix b ON {same} \
                 WHERE b.{op} IS NULL OR b.{op} NOT IN {hiding} \
                 UNION ALL SELECT {fix_out}, a.{strategy} FROM repair_fix a LEFT JOIN repair_had b ON {same} \
                 WHERE (b.repair_slot IS NULL OR a.{op} = {replace}) AND {is_row}",
                same = self.same_slot(),
            ),
        };
        (named, rows)
    }

    /// The rows of a layer: key as `repair_key_…`, `repair_slot`, `repair_ms`, the columns, and in the view `repaired_by` and
    /// `repaired_cells`.
    pub(super) fn rows(&self, layer: Layer, wanted: &Wanted<'_>) -> Result<String> {
        match (layer, self.repairs) {
            (Layer::Raw, _) => self.raw_rows(wanted, Shape::Exact),
            (Layer::Repaired, None) => Ok(format!(
                "SELECT *, CAST(NULL AS varchar) AS {}, CAST(NULL AS varchar) AS {} FROM ({})",
                name(overlay::REPAIRED_BY),
                name(overlay::REPAIRED_CELLS),
                self.aligned(self.raw_rows(wanted, Shape::Exact)?, &wanted.bounds)?
            )),
            (Layer::Repaired, Some(repairs)) => {
                let read = self.read_for(layer, wanted.columns);
                let read: Vec<&str> = read.iter().map(String::as_str).collect();
                let wanted = Wanted { columns: &read, ..*wanted };
                let mut out: Vec<String> = self.table.key.iter().map(|key| key_name(key)).collect();
                out.extend(["repair_slot".to_owned(), "repair_ms".to_owned()]);
                out.extend(read.iter().map(|&column| column.to_owned()));
                let of_a = out.iter().map(|column| format!("a.{}", name(column))).collect::<Vec<_>>().join(", ");
                let (mut raw_out, mut fix_out) = (of_a.clone(), of_a);
                if self.is_judged(&read)? {
                    out.push("repair_path".to_owned());
                    raw_out.push_str(", a.repair_path");
                    fix_out.push_str(", CAST(NULL AS varchar) AS repair_path");
                }
                let raw = self.aligned(self.raw_rows(&wanted, Shape::Exact)?, &wanted.bounds)?;
                let fix = self.winners(repairs, &wanted, Shape::Exact)?;
                let (named, rows) = self.base((&raw, &raw_out), (&fix, &fix_out), &wanted.bounds);
                self.with_cells((&named, &rows), &out, repairs, &wanted, Shape::Exact)
            }
        }
    }

    /// The condition that two rows, `a` and `b`, are in the same slot.
    pub(super) fn same_slot(&self) -> String {
        self.slot_names().iter().map(|column| format!("a.{column} = b.{column}")).collect::<Vec<_>>().join(" AND ")
    }

    /// A scan. Its result has the key, the time in milliseconds, the wanted columns, and in the view who repaired the row and its cells. If
    /// rows are judged, the last column is null for a row that is used, and says what cannot be read of any other.
    ///
    /// # Errors
    /// `invalid` if the partition column's type cannot hold the declared partitions.
    pub(crate) fn scan(&self, layer: Layer, wanted: &Wanted<'_>) -> Result<String> {
        let mut out = self.key_names();
        out.push("repair_ms".to_owned());
        out.extend(wanted.columns.iter().map(|column| name(column)));
        if layer == Layer::Repaired {
            out.extend([name(overlay::REPAIRED_BY), name(overlay::REPAIRED_CELLS)]);
        }
        if self.is_judged_in(layer, wanted.columns)? {
            out.push("repair_path".to_owned());
        }
        Ok(format!("SELECT {} FROM ({})", out.join(", "), self.rows(layer, wanted)?))
    }
}

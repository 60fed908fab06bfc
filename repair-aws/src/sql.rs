//! What is sent to Athena: all SQL of this crate is printed here, from values. No I/O.
//!
//! The dialect is Trino's, except that statements which create tables and partitions use Hive's, as Athena requires. These rules hold
//! throughout:
//! - Times are whole numbers of milliseconds since 1970, which is what Athena keeps of a timestamp, so nothing is rounded.
//! - Division of whole numbers rounds towards zero, so the dividend is first made positive, by counting from a base before all rows.
//! - Our names begin with `repair_`, as in the overlay, to avoid a user's columns.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use repair_core::lake::overlay::retraction::{Kind as RetractedKind, Part};
use repair_core::lake::overlay::{self, Op, columns};
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::lake::rollup::{Function, Rollup};
use repair_core::lake::{Layer, shape};
use repair_core::model::{Format, Key, PartitionUnit, SlotGrid, SlotRange, Table, TimeMark};
use repair_core::{Error, Result};

use crate::catalog::{Kind, Relation};

/// The longest statement that Athena accepts, in bytes: <https://docs.aws.amazon.com/athena/latest/ug/service-limits.html>.
pub(crate) const MAX_STATEMENT_BYTES: usize = 262_144;

/// Partitions that one statement adds.
pub(crate) const PARTITIONS_A_STATEMENT: usize = 100;

/// Microseconds in a millisecond.
pub(crate) const MILLI_US: i64 = 1_000;

/// A time before all rows, from which seconds are counted if nothing else bounds them: the start of the year 1.
const BEFORE_ALL_S: i64 = -62_135_596_800;

/// A name in a query.
pub(crate) fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A name in a statement of Hive's dialect.
fn hive_name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// A string literal in a query.
pub(crate) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// An instant, rounded up to milliseconds; used for bounds, which lie between rows.
fn instant(us: i64) -> String {
    let ms = us.div_euclid(MILLI_US) + i64::from(us.rem_euclid(MILLI_US) > 0);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(if us < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX });
    format!("TIMESTAMP '{}'", jiff::tz::TimeZone::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S.%3f"))
}

/// How values are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As text that can be read back without loss, for a scan.
    Exact,
    /// As the table has them, for people who read the view.
    Native,
}

/// A table with what Athena knows about it, and about the tables beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) table: &'a Table,
    pub(crate) raw: &'a Relation,
    /// `None` if nothing has been repaired.
    pub(crate) repairs: Option<&'a Relation>,
    /// `None` if nothing has been confirmed absent.
    pub(crate) exceptions: Option<&'a Relation>,
    /// What is retracted of repairs and exceptions; `None` if nothing is.
    pub(crate) retracted: Option<&'a [Part]>,
}

/// The wanted rows and columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) bounds: TimeBounds,
    pub(crate) keys: Option<&'a [Key]>,
    /// The columns other than key and time, in order.
    pub(crate) columns: &'a [&'a str],
}

impl<'a> Source<'a> {
    /// The time of a row as a timestamp.
    fn time(&self, relation: &Relation) -> String {
        let column = name(&self.table.time);
        match relation.kind(&self.table.time) {
            Some(Kind::Date) => format!("CAST({column} AS timestamp(3))"),
            Some(Kind::Text) => format!("CAST(from_iso8601_timestamp({column}) AT TIME ZONE 'UTC' AS timestamp(3))"),
            _ => column,
        }
    }

    /// The time of a row in milliseconds.
    fn time_ms(&self, relation: &Relation) -> String {
        milliseconds(&self.time(relation))
    }

    /// The slot of a row, as the core counts slots. In a table without cadence, every time is a slot.
    fn slot(&self, time_ms: &str, bounds: &TimeBounds) -> String {
        self.table.grid().map_or_else(|_| time_ms.to_owned(), |grid| slot(&grid, time_ms, bounds))
    }

    fn keys(&self, relation: &Relation) -> Vec<String> {
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
    fn within(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Vec<String>> {
        let mut all = Vec::new();
        if *bounds == TimeBounds::ALL {
            return Ok(all);
        }
        all.extend(self.partitions(relation, bounds)?);
        let (time, null) = (self.time(relation), name(&self.table.time));
        all.push(format!("(({time} >= {} AND {time} < {}) OR {null} IS NULL)", instant(bounds.from_us), instant(bounds.to_us)));
        Ok(all)
    }

    fn partitions(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Option<String>> {
        let Some(by) = partition::time_partition(self.table)? else { return Ok(None) };
        // A view shows the partitions of its table as columns.
        let kind = relation.partition_kind(&by.column).or_else(|| relation.kind(&by.column).filter(|_| relation.is_view));
        let Some(kind) = kind else { return Ok(None) };
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

    fn key_filter(&self, relation: &Relation, keys: Option<&[Key]>) -> Option<String> {
        keys.map(|keys| one_of(&self.keys(relation), keys))
    }

    /// The condition that a row of the overlay is not retracted; `None` if no row of its kind is retracted.
    fn not_retracted(&self, relation: &Relation, kind: RetractedKind) -> Option<String> {
        let parts = self.retracted.unwrap_or_default().iter().filter(|part| part.kind == RetractedKind::All || part.kind == kind);
        let hidden: Vec<String> = parts
            .map(|part| {
                let mut all = vec![format!("{} = {}", name(columns::RUN), text(&part.run))];
                all.extend(part.step.as_ref().map(|step| format!("{} = {}", name(columns::STEP), text(step))));
                if let Some(key) = &part.key {
                    all.extend(self.keys(relation).iter().zip(key.values()).map(|(column, value)| format!("{column} = {}", text(value))));
                }
                if part.interval.is_some() {
                    let bounds = TimeBounds::of_interval(self.table, part.interval.as_ref());
                    let time = self.time(relation);
                    all.push(format!("{time} >= {} AND {time} < {}", instant(bounds.from_us), instant(bounds.to_us)));
                }
                format!("({})", all.join(" AND "))
            })
            .collect();
        (!hidden.is_empty()).then(|| format!("NOT ({})", hidden.join(" OR ")))
    }

    /// A column in the selected form.
    fn value(&self, relation: &Relation, column: &str, shape: Shape) -> String {
        let quoted = name(column);
        match (shape, relation.kind(column)) {
            (Shape::Native, _) => quoted,
            (Shape::Exact, Some(Kind::Instant)) => milliseconds(&quoted),
            (Shape::Exact, _) => quoted,
        }
    }

    /// The raw rows, as `repair_raw`: key, `repair_slot`, `repair_ms`, and columns.
    fn raw_rows(&self, wanted: &Wanted<'_>, shape: Shape) -> Result<String> {
        let mut select = self.slot_columns(self.raw, &wanted.bounds);
        select.extend(wanted.columns.iter().map(|column| format!("{} AS {}", self.value(self.raw, column, shape), name(column))));
        let mut conditions = self.within(self.raw, &wanted.bounds)?;
        conditions.extend(self.key_filter(self.raw, wanted.keys));
        Ok(format!("SELECT {} FROM {}{}", select.join(", "), self.raw.quoted(), filter(&conditions)))
    }

    fn slot_columns(&self, relation: &Relation, bounds: &TimeBounds) -> Vec<String> {
        let time_ms = self.time_ms(relation);
        let keys = self.keys(relation).into_iter().zip(&self.table.key).map(|(value, key)| format!("{value} AS {}", name(&key_name(key))));
        keys.chain([format!("{} AS repair_slot", self.slot(&time_ms, bounds)), format!("{time_ms} AS repair_ms")]).collect()
    }

    /// The live repair of each slot: the newest; of two from the same instant, the one whose run, then unit, sorts last by name.
    fn winners(&self, repairs: &Relation, wanted: &Wanted<'_>, shape: Shape, more: &[String]) -> Result<String> {
        let mut select = self.slot_columns(repairs, &wanted.bounds);
        for column in wanted.columns {
            let value = match repairs.kind(column) {
                Some(_) => self.value(repairs, column, shape),
                // Repairs may have been made before the table had the column.
                None => "NULL".to_owned(),
            };
            select.push(format!("{value} AS {}", name(column)));
        }
        select.extend([name(columns::OP), name(columns::STRATEGY), name(columns::RUN), name(columns::UNIT), name(columns::AT)]);
        select.extend(more.iter().map(|column| name(column)));
        let mut conditions = self.within(repairs, &wanted.bounds)?;
        conditions.extend(self.key_filter(repairs, wanted.keys));
        conditions.extend(self.not_retracted(repairs, RetractedKind::Repairs));
        let mut by: Vec<String> = self.key_names();
        by.push("repair_slot".to_owned());
        by.extend(more.iter().map(|column| name(column)));
        Ok(format!(
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {} DESC, {} DESC, {} DESC) AS repair_rank FROM (SELECT {} \
             FROM {}{})) WHERE repair_rank = 1",
            by.join(", "),
            name(columns::AT),
            name(columns::RUN),
            name(columns::UNIT),
            select.join(", "),
            repairs.quoted(),
            filter(&conditions)
        ))
    }

    fn key_names(&self) -> Vec<String> {
        self.table.key.iter().map(|key| name(&key_name(key))).collect()
    }

    /// The rows of a layer: key as `repair_key_…`, `repair_slot`, `repair_ms`, the columns, and in the view `repaired_by`.
    fn rows(&self, layer: Layer, wanted: &Wanted<'_>) -> Result<String> {
        match (layer, self.repairs) {
            (Layer::Raw, _) => self.raw_rows(wanted, Shape::Exact),
            (Layer::Repaired, None) => Ok(format!(
                "SELECT *, CAST(NULL AS varchar) AS {} FROM ({})",
                name(overlay::REPAIRED_BY),
                self.raw_rows(wanted, Shape::Exact)?
            )),
            (Layer::Repaired, Some(repairs)) => {
                let mut out = self.key_names();
                out.extend(["repair_slot".to_owned(), "repair_ms".to_owned()]);
                out.extend(wanted.columns.iter().map(|column| name(column)));
                let of = |side: &str| out.iter().map(|column| format!("{side}.{column}")).collect::<Vec<_>>().join(", ");
                let same = self.same_slot(&[]);
                Ok(format!(
                    "WITH repair_raw AS ({raw}), repair_fix AS ({fix}), repair_had AS (SELECT DISTINCT {slot} FROM ({slots})) \
                     SELECT {raw_out}, CAST(NULL AS varchar) AS {by} FROM repair_raw a LEFT JOIN repair_fix b ON {same} \
                     WHERE b.{op} IS NULL OR b.{op} <> {replace} \
                     UNION ALL SELECT {fix_out}, a.{strategy} FROM repair_fix a LEFT JOIN repair_had b ON {same} \
                     WHERE b.repair_slot IS NULL OR a.{op} = {replace}",
                    raw = self.raw_rows(wanted, Shape::Exact)?,
                    fix = self.winners(repairs, wanted, Shape::Exact, &[])?,
                    slots = self.raw_rows(&Wanted { columns: &[], ..*wanted }, Shape::Exact)?,
                    slot = self.key_names().into_iter().chain(["repair_slot".to_owned()]).collect::<Vec<_>>().join(", "),
                    raw_out = of("a"),
                    fix_out = of("a"),
                    by = name(overlay::REPAIRED_BY),
                    op = name(columns::OP),
                    replace = text(Op::Replace.as_str()),
                    strategy = name(columns::STRATEGY),
                ))
            }
        }
    }

    /// The condition that two rows, `a` and `b`, are in the same slot.
    fn same_slot(&self, more: &[String]) -> String {
        let same = self.key_names().into_iter().chain(["repair_slot".to_owned()]).chain(more.iter().map(|column| name(column)));
        same.map(|column| format!("a.{column} = b.{column}")).collect::<Vec<_>>().join(" AND ")
    }

    /// A scan. Its result has the key, the time in milliseconds, the wanted columns, and in the view who repaired the row.
    ///
    /// # Errors
    /// `invalid` if the partition column's type cannot hold the declared partitions.
    pub(crate) fn scan(&self, layer: Layer, wanted: &Wanted<'_>) -> Result<String> {
        let mut out = self.key_names();
        out.push("repair_ms".to_owned());
        out.extend(wanted.columns.iter().map(|column| name(column)));
        if layer == Layer::Repaired {
            out.push(name(overlay::REPAIRED_BY));
        }
        Ok(format!("SELECT {} FROM ({})", out.join(", "), self.rows(layer, wanted)?))
    }

    /// Presence, as bits of slots. The result has one row for each word (a group of neighbouring slots) of each requested key, and one for
    /// all rows of other keys. Its columns are the key, the word counted from the first, whether the key was requested, and the bits of the
    /// raw rows; then how many raw rows there are, how many of them are off the grid, and how many have no key; then the bits of repairs
    /// that insert, of repairs that replace, and of exceptions.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn presence(&self, grid: &SlotGrid, slots: SlotRange, keys: Option<&[Key]>, as_of: jiff::Timestamp) -> Result<String> {
        let bounds = TimeBounds::of_slots(grid, slots);
        let per_word = i64::from(grid.cadence.slots_per_word());
        let key_names = self.key_names();
        let key_list = |prefix: &str| key_names.iter().map(|key| format!("{prefix}{key}, ")).collect::<String>();
        let wanted = Wanted { bounds, keys: None, columns: &[] };
        let on_grid = match grid.marks {
            TimeMark::Start => 0,
            TimeMark::End => i64::from(grid.cadence.seconds()),
        };
        let slot_ms = i64::from(grid.cadence.seconds()) * 1_000;
        let mut layers = vec![format!(
            "SELECT {}0 AS repair_layer, repair_slot, repair_ms <> repair_slot * {slot_ms} + {} AS repair_off FROM ({})",
            key_list(""),
            on_grid * 1_000,
            self.raw_rows(&wanted, Shape::Exact)?
        )];
        if let Some(repairs) = self.repairs {
            layers.push(format!(
                "SELECT {}CASE {} WHEN {} THEN 2 ELSE 1 END, repair_slot, false FROM ({})",
                key_list(""),
                name(columns::OP),
                text(Op::Replace.as_str()),
                self.winners(repairs, &wanted, Shape::Exact, &[])?
            ));
        }
        if let Some(exceptions) = self.exceptions {
            let mut conditions = self.within(exceptions, &bounds)?;
            conditions.extend(self.not_retracted(exceptions, RetractedKind::Exceptions));
            conditions.push(format!("{} > {}", name(columns::RECHECK_AFTER), instant(as_of.as_microsecond())));
            layers.push(format!(
                "SELECT {}3, repair_slot, false FROM (SELECT {} FROM {}{})",
                key_list(""),
                self.slot_columns(exceptions, &bounds).join(", "),
                exceptions.quoted(),
                filter(&conditions)
            ));
        }
        let asked = match keys {
            None => "true".to_owned(),
            Some(keys) => format!("coalesce({}, false)", one_of(&key_names, keys)),
        };
        let no_key = match key_names.iter().map(|key| format!("{key} IS NULL")).collect::<Vec<_>>() {
            none if none.is_empty() => "false".to_owned(),
            some => some.join(" OR "),
        };
        let shown = key_names.iter().map(|key| format!("CASE WHEN repair_asked THEN {key} END AS {key}, ")).collect::<String>();
        // Words count from the first slot's, so that nothing negative is divided; a row without a time has no word.
        let first_word = slots.first.div_euclid(per_word);
        let base = first_word * per_word;
        let bits = |layer: u8| format!("bitwise_or_agg(repair_bit) FILTER (WHERE repair_asked AND repair_layer = {layer})");
        Ok(format!(
            "SELECT {keys}repair_word, repair_asked, {raw}, count(*) FILTER (WHERE repair_layer = 0), \
             count(*) FILTER (WHERE repair_layer = 0 AND repair_asked AND repair_off), count(*) FILTER (WHERE repair_layer = 0 AND repair_no_key), \
             {inserted}, {replaced}, {absent} \
             FROM (SELECT {shown}CASE WHEN repair_asked OR repair_slot IS NULL THEN (repair_slot - {base}) / {per_word} ELSE -1 END AS repair_word, repair_asked, \
             repair_layer, repair_off, repair_no_key, \
             bitwise_left_shift(BIGINT '1', CAST((repair_slot - {base}) % {per_word} AS integer)) AS repair_bit \
             FROM (SELECT *, {asked} AS repair_asked, {no_key} AS repair_no_key FROM ({layers}))) \
             GROUP BY {keys}repair_word, repair_asked",
            keys = key_list(""),
            raw = bits(0),
            inserted = bits(1),
            replaced = bits(2),
            absent = bits(3),
            layers = layers.join(" UNION ALL "),
        ))
    }

    /// A rollup. Its result has the key, the bucket counted from `first_bucket`, the measures, then how many slots are observed, how many
    /// are repaired, and how many rows there are beyond one for each slot. If a slot has several rows, the same one counts as in the core.
    /// Floats are added in order of time by a running sum, since an aggregate would add them in any order and round differently each time.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn rollup(&self, grid: &SlotGrid, rollup: &Rollup, first_bucket: i64) -> Result<String> {
        let slots = grid.slots_in(&rollup.interval);
        let mut columns: Vec<&str> = rollup.measures.iter().map(|measure| measure.column.as_str()).collect();
        columns.sort_unstable();
        columns.dedup();
        let wanted = Wanted { bounds: TimeBounds::of_slots(grid, slots), keys: Some(&rollup.keys), columns: &columns };
        let cadence_s = i64::from(grid.cadence.seconds());
        let every_s = i64::from(rollup.every.seconds());
        let keys = self.key_names();
        let key_list: String = keys.iter().map(|key| format!("{key}, ")).collect();
        let expected = match ranges(grid, rollup) {
            ranges if ranges.is_empty() => String::new(),
            ranges => format!(
                " WHERE {}",
                ranges
                    .iter()
                    .map(|range| format!("repair_slot BETWEEN {} AND {}", range.first, range.end - 1))
                    .collect::<Vec<_>>()
                    .join(" OR ")
            ),
        };
        let mut least = vec![format!("CASE WHEN {} IS NULL THEN 0 ELSE 1 END", name(overlay::REPAIRED_BY))];
        least.extend(rollup.measures.iter().map(|measure| format!("{} ASC NULLS FIRST", name(&measure.column))));
        let bucket = format!("PARTITION BY {key_list}repair_bucket");
        let whole = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING";
        let mut measures = String::new();
        for (number, measure) in rollup.measures.iter().enumerate() {
            let column = name(&measure.column);
            let value = match self.raw.kind(&measure.column) {
                Some(Kind::Float) => format!("CAST({column} AS double)"),
                Some(Kind::Whole) => format!("CAST({column} AS bigint)"),
                _ => column.clone(),
            };
            let computed = match measure.function {
                Function::First => format!("first_value({value}) IGNORE NULLS OVER ({bucket} ORDER BY repair_slot {whole})"),
                Function::Last => format!("last_value({value}) IGNORE NULLS OVER ({bucket} ORDER BY repair_slot {whole})"),
                Function::Min => format!("min({value}) OVER ({bucket})"),
                Function::Max => format!("max({value}) OVER ({bucket})"),
                Function::Sum => {
                    format!("sum({value}) OVER ({bucket} ORDER BY repair_slot ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")
                }
            };
            let _ = write!(measures, "{computed} AS repair_m{number}, ");
        }
        let results: String = (0..rollup.measures.len()).map(|number| format!("repair_m{number}, ")).collect();
        Ok(format!(
            "SELECT {key_list}repair_bucket, {results}repair_slots - repair_fixed, repair_fixed, repair_rows - repair_slots FROM (\
             SELECT {key_list}repair_bucket, {measures}repair_rows, count(*) OVER ({bucket}) AS repair_slots, count({by}) OVER ({bucket}) AS repair_fixed, \
             row_number() OVER ({bucket} ORDER BY repair_slot DESC) AS repair_place FROM (\
             SELECT *, count(*) OVER ({bucket}) AS repair_rows, row_number() OVER (PARTITION BY {key_list}repair_slot ORDER BY {least}) AS repair_place_in_slot FROM (\
             SELECT *, (repair_slot * {cadence_s} - {base_s}) / {every_s} AS repair_bucket FROM ({rows}){expected})) \
             WHERE repair_place_in_slot = 1) WHERE repair_place = 1",
            by = name(overlay::REPAIRED_BY),
            least = least.join(", "),
            base_s = first_bucket * every_s,
            rows = self.rows(Layer::Repaired, &wanted)?,
        ))
    }

    /// The repaired view, for anyone who reads with SQL: the table's columns, its partitions, and who repaired a row. A condition on the
    /// partition prunes both raw and repairs.
    pub(crate) fn create_view(&self, database: &str, repairs: &Relation) -> Result<String> {
        let all = TimeBounds::ALL;
        let own: Vec<&str> =
            self.raw.columns.iter().map(|column| column.name.as_str()).filter(|column| !shape::RESERVED.contains(column)).collect();
        let by: Vec<String> = partition::time_partition(self.table)?
            .filter(|by| self.raw.partition_kind(&by.column).is_some() && repairs.partition_kind(&by.column).is_some())
            .map(|by| by.column.clone())
            .into_iter()
            .collect();
        let others: Vec<&str> = self
            .raw
            .partitions
            .iter()
            .map(|column| column.name.as_str())
            .filter(|column| !by.iter().any(|by| by.eq_ignore_ascii_case(column)))
            .collect();
        let mut raw_select = self.slot_columns(self.raw, &all);
        raw_select.extend(own.iter().chain(&others).copied().chain(by.iter().map(String::as_str)).map(name));
        let had: Vec<String> = self.slot_columns(self.raw, &all).into_iter().chain(by.iter().map(|column| name(column))).collect();
        // Columns that repairs lack are null in a repaired row; keys have the table's own type.
        let columns: Vec<&str> = own.iter().chain(&others).copied().collect();
        let fixed: Vec<String> = columns
            .iter()
            .map(|column| {
                let of = self.raw.declared(column).unwrap_or("string");
                match repairs.kind(column) {
                    Some(_) => format!("CAST(a.{} AS {})", name(column), crate::catalog::trino_type(of)),
                    // Hive's names of nested types are not Trino's; the other half of the view determines the type.
                    None => "NULL".to_owned(),
                }
            })
            .collect();
        let known: Vec<&str> = columns.iter().copied().filter(|column| repairs.kind(column).is_some()).collect();
        let wanted = Wanted { bounds: all, keys: None, columns: &known };
        let same = self.same_slot(&by);
        let by_of = |side: &str| by.iter().map(|column| format!(", {side}.{}", name(column))).collect::<String>();
        let named_by: String = by.iter().map(|column| format!(", {}", name(column))).collect();
        let slot = self.key_names().into_iter().chain(["repair_slot".to_owned()]).collect::<Vec<_>>().join(", ");
        Ok(format!(
            "CREATE OR REPLACE VIEW {database}.{view} AS \
             WITH repair_raw AS (SELECT {raw_select} FROM {raw}), repair_fix AS ({fix}), \
             repair_had AS (SELECT DISTINCT {slot}{named_by} FROM (SELECT {had} FROM {raw})) \
             SELECT {raw_out}{raw_by}, CAST(NULL AS varchar) AS {repaired_by} FROM repair_raw a LEFT JOIN repair_fix b ON {same} \
             WHERE b.{op} IS NULL OR b.{op} <> {replace} \
             UNION ALL SELECT {fixed}{fix_by}, a.{strategy} FROM repair_fix a LEFT JOIN repair_had b ON {same} \
             WHERE b.repair_slot IS NULL OR a.{op} = {replace}",
            database = name(database),
            view = name(&overlay::repaired_view(&self.raw.name)),
            raw_select = raw_select.join(", "),
            raw = self.raw.quoted(),
            fix = self.winners(repairs, &wanted, Shape::Native, &by)?,
            had = had.join(", "),
            raw_out = columns.iter().map(|column| format!("a.{}", name(column))).collect::<Vec<_>>().join(", "),
            raw_by = by_of("a"),
            fixed = fixed.join(", "),
            fix_by = by_of("a"),
            repaired_by = name(overlay::REPAIRED_BY),
            op = name(columns::OP),
            replace = text(Op::Replace.as_str()),
            strategy = name(columns::STRATEGY),
        ))
    }
}

/// The slots within the interval that a calendar expects; empty if it expects all.
fn ranges(grid: &SlotGrid, rollup: &Rollup) -> Vec<SlotRange> {
    let all = grid.slots_in(&rollup.interval);
    let within = rollup.within.iter().map(|interval| grid.slots_in(interval).intersection(&all));
    let some: Vec<SlotRange> = within.filter(|range| !range.is_empty()).collect();
    // No expected slot is within the interval. That selects no slot, which is not the same as all.
    if some.is_empty() && !rollup.within.is_empty() { vec![SlotRange::new(0, 0)] } else { some }
}

/// The name that we give to a key column.
fn key_name(key: &str) -> String {
    format!("repair_key_{key}")
}

fn filter(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Milliseconds since 1970 of a timestamp, exactly.
fn milliseconds(timestamp: &str) -> String {
    format!("date_diff('millisecond', TIMESTAMP '1970-01-01 00:00:00.000', {timestamp})")
}

/// The slot of a time in milliseconds, within bounds.
fn slot(grid: &SlotGrid, time_ms: &str, bounds: &TimeBounds) -> String {
    let cadence_s = i64::from(grid.cadence.seconds());
    let from_s = if *bounds == TimeBounds::ALL { BEFORE_ALL_S } else { bounds.from_us.div_euclid(partition::SECOND_US) };
    // A whole slot before all rows that are read.
    let base_slot = from_s.div_euclid(cadence_s) - 1;
    let base_ms = base_slot.saturating_mul(cadence_s).saturating_mul(1_000);
    let second = format!("({time_ms} - ({base_ms})) / 1000");
    match grid.marks {
        TimeMark::Start => format!("({second}) / {cadence_s} + ({base_slot})"),
        TimeMark::End => format!("({second} - 1) / {cadence_s} + ({base_slot})"),
    }
}

/// The condition that a key is one of those given. Keys of several columns are grouped by the first, since Trino needs seconds to plan
/// `IN` with thousands of rows.
fn one_of(columns: &[String], keys: &[Key]) -> String {
    let values: Vec<Vec<&str>> = keys.iter().map(|key| key.values().collect()).collect();
    one_of_values(columns, &values.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn one_of_values(columns: &[String], values: &[&[&str]]) -> String {
    match columns {
        _ if values.is_empty() => "false".to_owned(),
        [] => "true".to_owned(),
        [column] => {
            let values: Vec<String> = values.iter().flat_map(|value| value.first()).map(|value| text(value)).collect();
            format!("{column} IN ({})", values.join(", "))
        }
        [column, others @ ..] => {
            let mut by_first: BTreeMap<&str, Vec<&[&str]>> = BTreeMap::new();
            for value in values {
                if let [first, rest @ ..] = value {
                    by_first.entry(first).or_default().push(rest);
                }
            }
            let all: Vec<String> =
                by_first.iter().map(|(first, rest)| format!("({column} = {} AND {})", text(first), one_of_values(others, rest))).collect();
            format!("({})", all.join(" OR "))
        }
    }
}

/// A table of ours: Parquet at a location, with the partitions of the table it belongs to.
pub(crate) fn create_table(
    database: &str,
    table: &str,
    columns: &[(String, String)],
    partitions: &[(String, String)],
    location: &str,
) -> String {
    let list = |columns: &[(String, String)]| {
        columns.iter().map(|(column, kind)| format!("{} {kind}", hive_name(column))).collect::<Vec<_>>().join(", ")
    };
    let partitioned = if partitions.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", list(partitions)) };
    format!(
        "CREATE EXTERNAL TABLE IF NOT EXISTS {}.{} ({}){partitioned} STORED AS PARQUET LOCATION {} TBLPROPERTIES ('parquet.compression'='ZSTD')",
        hive_name(database),
        hive_name(table),
        list(columns),
        text(location)
    )
}

/// Adds columns to a table of ours.
pub(crate) fn add_columns(database: &str, table: &str, columns: &[(String, String)]) -> String {
    let list: Vec<String> = columns.iter().map(|(column, kind)| format!("{} {kind}", hive_name(column))).collect();
    format!("ALTER TABLE {}.{} ADD COLUMNS ({})", hive_name(database), hive_name(table), list.join(", "))
}

/// Adds partitions to a table of ours.
pub(crate) fn add_partitions(database: &str, table: &str, column: &str, partitions: &[(String, String)]) -> String {
    let list: Vec<String> = partitions
        .iter()
        .map(|(value, location)| format!("PARTITION ({} = {}) LOCATION {}", hive_name(column), text(value), text(location)))
        .collect();
    format!("ALTER TABLE {}.{} ADD IF NOT EXISTS {}", hive_name(database), hive_name(table), list.join(" "))
}

/// A template for declaring a missing table, with what is known of it; the user adds the columns.
pub(crate) fn suggested_table(database: &str, table: &Table, location: &str) -> String {
    let keys: Vec<String> = table.key.iter().map(|key| format!("{} string", hive_name(key))).collect();
    let time = format!("{} {}", hive_name(&table.time), if table.format == Format::Parquet { "timestamp" } else { "string" });
    let partitions = table.partition_by.iter().map(|by| format!("{} string", hive_name(&by.column))).collect::<Vec<_>>();
    let partitioned = if partitions.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", partitions.join(", ")) };
    let stored = match table.format {
        Format::Parquet => "STORED AS PARQUET",
        Format::Csv => "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'",
        Format::Jsonl => "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'",
        _ => "STORED AS …",
    };
    let columns: Vec<String> = keys.into_iter().chain([time, "…".to_owned()]).collect();
    format!(
        "CREATE EXTERNAL TABLE {}.{} ({}){partitioned} {stored} LOCATION {}",
        hive_name(database),
        hive_name(&table.name),
        columns.join(", "),
        text(location)
    )
}

//! Reading through Athena: presence, scans, rollups and users' queries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::{SortColumn, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use repair_core::lake::overlay::owner;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::query::Bound;
use repair_core::lake::rollup::{self, Rollup};
use repair_core::lake::{BatchStream, Layer, PresenceRequest, Query, RowCountRequest, RowCounts, ScanRequest, overlay, shape};
use repair_core::model::Usage;
use repair_core::model::{Interval, Key, OnBadRow, Presence, Quarantine, SlotGrid, SlotRange, SlotSet, Table, TablePresence};
use repair_core::{Error, Result};

use crate::athena::{Execution, Page};
use crate::bad::Bad;
use crate::given::{self, Given};
use crate::kept::{Asked, ByDay, Rows, from_epoch, without_outside};
use crate::lake::{AwsLake, Looked, odd_result};
use crate::objects::Location;
use crate::results::{BATCH_ROWS, Layout, Reader, Texts};
use crate::sql::{MAX_STATEMENT_BYTES, Wanted, values, words};

/// If the keys have more text than this, they are not sent: all keys are then read, and filtered here.
const MAX_KEY_BYTES: usize = 200_000;

/// The keys to send, unless there are too many.
fn sent(keys: &[Key]) -> Option<&[Key]> {
    let bytes: usize = keys.iter().flat_map(Key::values).map(|value| value.len() + 4).sum();
    (bytes <= MAX_KEY_BYTES).then_some(keys)
}

/// A statement that names keys, and these keys; without them, if it is too long: it may name them several times, and other lists, too.
fn fitting<'a>(keys: Option<&'a [Key]>, print: impl Fn(Option<&'a [Key]>) -> Result<String>) -> Result<(String, Option<&'a [Key]>)> {
    let sql = print(keys)?;
    if keys.is_some() && sql.len() > MAX_STATEMENT_BYTES { Ok((print(None)?, None)) } else { Ok((sql, keys)) }
}

impl AwsLake {
    pub(crate) async fn look_at(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        let grid = table.grid()?;
        shape::check_keys(table, &request.keys)?;
        let (known, _) = self.look_up(table).await?;
        let keys: Vec<Key> = request.keys.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let mut found = Found::new(grid, request, &keys);
        found.whole = whole_keys(table, &known);
        if request.slots.is_empty() {
            return found.finish(table, Usage::default());
        }
        let mut fields: Vec<Field> = table.key.iter().map(|key| Field::new(key, DataType::Utf8, true)).collect();
        fields.push(Field::new("word", DataType::Int64, true));
        fields.push(Field::new("asked", DataType::Boolean, true));
        fields.extend(
            ["raw", "rows", "off", "keyless", "inserted", "replaced", "absent", "removed", "misplaced"]
                .map(|name| Field::new(name, DataType::Int64, true)),
        );
        fields.push(Field::new("path", DataType::Utf8, true));
        fields.extend(["until", "others"].map(|name| Field::new(name, DataType::Int64, true)));
        let schema = Arc::new(Schema::new(fields));
        let asked = Asked { table, known: &known, grid: &grid, slots: request.slots, keys: &keys, as_of: request.as_of, schema };
        if sent(&keys).is_some()
            && let Some(presence) = self.look_by_day(&asked, || found.clone()).await?
        {
            return Ok(presence);
        }
        let mut usage = Usage::default();
        let mut batches = self.words_of(&asked, request.slots, &mut usage).await?;
        let first_word = first_word(&grid, request.slots);
        while let Some(batch) = batches.next().await {
            found.add(table, &batch?, first_word)?;
        }
        found.finish(table, usage)
    }

    /// Which words of slots have rows, by a query. They are counted from the first of these slots.
    async fn words_of(&self, asked: &Asked<'_>, slots: SlotRange, usage: &mut Usage) -> Result<BatchStream> {
        let Asked { table, known, grid, keys, as_of, schema, .. } = asked;
        let (sql, _) = fitting(sent(keys), |keys| known.source(table).presence(grid, slots, keys, *as_of))?;
        let execution = self.shared.athena.run(self.behalf.as_deref(), &sql).await?;
        *usage += execution.usage;
        self.results(&execution, Layout::of(schema.clone()), usage).await
    }

    /// As a query of the whole, but of days whose objects are as they were, what was counted then is used. `None` if that cannot be said, or if
    /// the days that were asked for have more than rows of the keys in their slots: then only the whole can count them.
    async fn look_by_day(&self, asked: &Asked<'_>, found: impl Fn() -> Found) -> Result<Option<TablePresence>> {
        let Some(mut by_day) = ByDay::of(self, asked).await? else { return Ok(None) };
        let stretches = by_day.unknown();
        let mut usage = std::mem::take(&mut by_day.usage);
        let (mut presence, mut counted, mut kind) = (found(), Vec::new(), Rows::Plain);
        let mut known = 0;
        for batch in by_day.known_outside(&stretches) {
            presence.add(asked.table, batch, 0)?;
            known += 1;
        }
        for &slots in &stretches {
            let batches: Vec<RecordBatch> = self.words_of(asked, slots, &mut usage).await?.try_collect().await?;
            for batch in batches {
                let first_word = first_word(asked.grid, slots);
                presence.add(asked.table, &batch, first_word)?;
                let batch = without_outside(&batch)?;
                kind = kind.max(Rows::of(&batch, asked.table, asked.keys));
                counted.push(from_epoch(&batch, first_word)?);
            }
        }
        let is_whole = match kind {
            Rows::Plain => true,
            // What is odd may have been counted by two of the queries.
            Rows::Odd => stretches.len() == 1,
            // How many may be bad depends on how many there are in all.
            Rows::Bad => stretches.len() == 1 && known == 0,
        };
        if !is_whole {
            self.meter(usage);
            return Ok(None);
        }
        if kind == Rows::Plain && !stretches.is_empty() {
            usage += by_day.keep(asked, &stretches, &counted).await;
        }
        presence.finish(asked.table, usage).map(Some)
    }

    pub(crate) async fn read(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        if let Some(keys) = &request.keys {
            shape::check_keys(table, keys)?;
        }
        let (known, schema) = self.look_up(table).await?;
        let schema = shape::project(table, &schema, request.columns.as_deref())?;
        let named = shape::as_requested(table, &schema, request.columns.as_deref())?;
        let (own, out) = match request.layer {
            Layer::Raw => (schema.clone(), named),
            Layer::Repaired => (overlay::view_schema(&schema), overlay::view_schema(&named)),
        };
        if request.keys.as_ref().is_some_and(Vec::is_empty) {
            return Ok(futures::stream::empty().boxed());
        }
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns: Vec<&str> =
            columns.into_iter().filter(|name| *name != table.time && !table.key.iter().any(|key| key == name)).collect();
        // Sorted, since a resumed attempt finds its query by its text.
        let keys: Option<Vec<Key>> = request.keys.as_ref().map(|keys| keys.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect());
        let keys = keys.as_deref();
        let wanted = Wanted { bounds: TimeBounds::of_interval(table, request.interval.as_ref()), keys: None, columns: &columns };
        let (sql, sent) = fitting(keys.and_then(sent), |keys| known.source(table).scan(request.layer, &Wanted { keys, ..wanted }))?;
        // In the order in which the statement selects them. Nulls are allowed here, and reported below where there may be none.
        let mut fields: Vec<Field> = table.key.iter().map(|key| Field::new(key, DataType::Utf8, true)).collect();
        fields.push(shape::time_field(table).with_nullable(true));
        for name in &columns {
            fields.push(schema.field_with_name(name)?.clone());
        }
        fields.extend([overlay::REPAIRED_BY, overlay::REPAIRED_CELLS].iter().filter_map(|name| own.field_with_name(name).ok().cloned()));
        let is_judged = known.source(table).is_judged_in(request.layer, &columns)?;
        if is_judged {
            fields.push(Field::new(REPORT, DataType::Utf8, true));
        }
        let layout = Layout::of(Arc::new(Schema::new(fields)));
        let execution = self.shared.athena.run(self.behalf.as_deref(), &sql).await?;
        let mut usage = execution.usage;
        let batches = self.results(&execution, layout, &mut usage).await?;
        self.meter(usage);
        let all_keys: Option<BTreeSet<Key>> = if sent.is_none() { keys.map(|keys| keys.iter().cloned().collect()) } else { None };
        let bounds = wanted.bounds;
        let whole = whole_keys(table, &known);
        let table = table.clone();
        let bad = Arc::new(Mutex::new(Bad::default()));
        let arrange = move |batch: RecordBatch, table: &Table, bad: &Mutex<Bad>| {
            let batch = if is_judged { used(table, &batch, bad)? } else { batch };
            let mut arrays: Vec<ArrayRef> = Vec::with_capacity(out.fields().len());
            for field in own.fields() {
                let array = rollup::column(&batch, field.name())?;
                if !field.is_nullable() && array.null_count() > 0 {
                    return Err(Error::invalid(format!(
                        "{} rows have no value in column `{}` of table `{}`{}, so they belong to no slot; remove them from the table, or give them one",
                        array.null_count(),
                        field.name(),
                        table.name,
                        if table.key.contains(field.name()) { whole.as_str() } else { "" }
                    )));
                }
                arrays.push(array.clone());
            }
            let batch = RecordBatch::try_new(out.clone(), arrays)?;
            match &all_keys {
                None => Ok(batch),
                Some(keys) => {
                    let rows = shape::KeyTime::of(table, &batch)?;
                    let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(keys.contains(&rows.key(row)))).collect();
                    Ok(filter_record_batch(&batch, &mask)?)
                }
            }
        };
        if !is_judged {
            return Ok(batches.map(move |batch| arrange(batch?, &table, &bad)).boxed());
        }
        // Whether there are too many bad rows is known at the end.
        let lake = self.clone();
        let (ended, of) = (bad.clone(), table.clone());
        let last = futures::stream::once(async move { lake.judge(&of, &known, &bounds, &ended).await });
        let last = last.filter_map(|judged| std::future::ready(judged.err().map(Err)));
        Ok(batches.map(move |batch| arrange(batch?, &table, &bad)).chain(last).boxed())
    }

    pub(crate) async fn count_rows(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        request.check(table)?;
        shape::check_keys(table, request.keys.as_deref().unwrap_or_default())?;
        let (known, _) = self.look_up(table).await?;
        let mut counts = RowCounts::new(request);
        if request.keys.as_ref().is_some_and(Vec::is_empty) {
            return Ok(counts);
        }
        let keys: Option<Vec<Key>> = request.keys.as_ref().map(|_| counts.rows.keys().cloned().collect());
        let bounds = TimeBounds::of_interval(table, Some(&request.interval));
        let every_s = i64::from(request.every_s);
        let first = request.stretch_of(bounds.from_us);
        let names: &[String] = if keys.is_some() { &table.key } else { &[] };
        let wanted = Wanted { bounds, keys: None, columns: &[] };
        let count = |sent| known.source(table).row_counts(&Wanted { keys: sent, ..wanted }, keys.is_some(), (first * every_s, every_s));
        let (sql, _) = fitting(keys.as_deref().and_then(sent), count)?;
        let mut fields: Vec<Field> = names.iter().map(|key| Field::new(key, DataType::Utf8, true)).collect();
        fields.extend(["stretch", "rows", "keyless"].map(|name| Field::new(name, DataType::Int64, true)));
        fields.push(Field::new(REPORT, DataType::Utf8, true));
        let layout = Layout::of(Arc::new(Schema::new(fields)));
        let execution = self.shared.athena.run(self.behalf.as_deref(), &sql).await?;
        counts.usage = execution.usage;
        let mut batches = self.results(&execution, layout, &mut counts.usage).await?;
        let bad = Mutex::new(Bad::default());
        while let Some(batch) = batches.try_next().await? {
            let columns: Vec<_> = (0..names.len()).map(|at| batch.column(at).as_string::<i32>()).collect();
            let number = |at: usize| whole(batch.column(names.len() + at));
            let (stretches, rows, keyless) = (number(0)?, number(1)?, number(2)?);
            let reports = batch.column(names.len() + 3).as_string_opt::<i32>().ok_or_else(odd_result)?;
            for row in 0..batch.num_rows() {
                let count = u64::try_from(rows.value(row)).map_err(|_| odd_result())?;
                if reports.is_valid(row) {
                    bad.lock().unwrap_or_else(PoisonError::into_inner).add(count, reports.value(row));
                    continue;
                }
                if stretches.is_null(row) || keyless.value(row) > 0 {
                    let what = if stretches.is_null(row) { "time column" } else { "key" };
                    return Err(Error::invalid(format!(
                        "{count} rows of table `{}` have no value in their {what}, so they cannot be counted; remove them from the table, or give \
                         them one",
                        table.name
                    )));
                }
                let key = Key::new(columns.iter().map(|column| column.value(row)));
                if let Some(of_key) = counts.rows.get_mut(&key) {
                    *of_key.entry(first + stretches.value(row)).or_default() += count;
                }
            }
        }
        counts.quarantine = self.judge(table, &known, &bounds, &bad).await?;
        Ok(counts)
    }

    /// The rows that were left out, after checking that they are no more than the table allows.
    async fn judge(&self, table: &Table, known: &Looked, bounds: &TimeBounds, bad: &Mutex<Bad>) -> Result<Quarantine> {
        let bad = std::mem::take(&mut *bad.lock().unwrap_or_else(PoisonError::into_inner));
        if bad.rows() == 0 {
            return Ok(Quarantine::default());
        }
        let mut all = None;
        if bad.needs_total(table) {
            let layout = Layout::of(Arc::new(Schema::new(vec![Field::new("rows", DataType::Int64, true)])));
            let execution = self.shared.athena.run(self.behalf.as_deref(), &known.source(table).count(bounds)?).await?;
            let mut usage = execution.usage;
            let batches: Vec<RecordBatch> = self.results(&execution, layout.clone(), &mut usage).await?.try_collect().await?;
            self.meter(usage);
            let batch = concat_batches(&layout.schema, &batches)?;
            let rows = whole(batch.column(0))?;
            all = Some(if rows.is_empty() { 0 } else { u64::try_from(rows.value(0)).map_err(|_| odd_result())? });
        }
        bad.judged(table, all)
    }

    pub(crate) async fn sum_up(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        let grid = table.grid()?;
        shape::check_keys(table, &request.keys)?;
        let (known, columns) = self.look_up(table).await?;
        let schema = request.schema(table, &columns)?;
        let mut usage = Usage::default();
        let mut all = vec![RecordBatch::new_empty(schema.clone())];
        let keys: Vec<Key> = request.keys.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let mut waiting = vec![Rollup { keys, ..request.clone() }];
        while let Some(piece) = waiting.pop() {
            if piece.keys.is_empty() || grid.slots_in(&piece.interval).is_empty() {
                continue;
            }
            let every_s = i64::from(piece.every.seconds());
            let first_bucket = piece.interval.from().as_second().div_euclid(every_s);
            let sql = known.source(table).rollup(&grid, &piece, first_bucket)?;
            if sql.len() > MAX_STATEMENT_BYTES {
                waiting.extend(halves(&piece)?);
                continue;
            }
            let bad = Mutex::new(Bad::default());
            all.push(self.sum_up_piece(table, &schema, &sql, (first_bucket * every_s, every_s), &mut usage, &bad).await?);
            self.judge(table, &known, &TimeBounds::of_slots(&grid, grid.slots_in(&piece.interval)), &bad).await?;
        }
        // As the core returns them: by key and time.
        let all = concat_batches(&schema, &all)?;
        let by: Vec<SortColumn> =
            all.columns()[..=table.key.len()].iter().map(|values| SortColumn { values: values.clone(), options: None }).collect();
        let order = lexsort_to_indices(&by, None)?;
        Ok((vec![take_record_batch(&all, &order)?], usage))
    }

    async fn sum_up_piece(
        &self,
        table: &Table,
        schema: &SchemaRef,
        sql: &str,
        (base_s, every_s): (i64, i64),
        usage: &mut Usage,
        bad: &Mutex<Bad>,
    ) -> Result<RecordBatch> {
        let bucket_at = table.key.len();
        let mut as_text: Vec<Field> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| match field.data_type() {
                _ if at == bucket_at => Field::new(field.name(), DataType::Int64, true),
                DataType::UInt64 => Field::new(field.name(), DataType::Int64, false),
                other => Field::new(field.name(), other.clone(), true),
            })
            .collect();
        let is_judged = sql.contains(REPORT);
        if is_judged {
            as_text.push(Field::new(REPORT, DataType::Utf8, true));
        }
        let execution = self.shared.athena.run(self.behalf.as_deref(), sql).await?;
        *usage += execution.usage;
        let layout = Layout::of(Arc::new(Schema::new(as_text)));
        let batches: Vec<RecordBatch> = self.results(&execution, layout.clone(), usage).await?.try_collect().await?;
        let batch = without_bucket(table, &concat_batches(&layout.schema, &batches)?, bucket_at, schema.fields().len(), is_judged, bad)?;
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
        for (at, (array, field)) in batch.columns().iter().zip(schema.fields()).enumerate() {
            arrays.push(match field.data_type() {
                _ if at == bucket_at => {
                    let times: TimestampMicrosecondArray =
                        whole(array)?.unary(|bucket| (bucket * every_s + base_s).saturating_mul(1_000_000));
                    Arc::new(times.with_timezone("UTC"))
                }
                DataType::UInt64 => {
                    let counts: UInt64Array = whole(array)?.try_unary(|count| u64::try_from(count).map_err(|_| odd_result()))?;
                    Arc::new(counts)
                }
                _ => array.clone(),
            });
        }
        Ok(RecordBatch::try_new(schema.clone(), arrays)?)
    }

    pub(crate) async fn ask(&self, query: &Query<'_>) -> Result<BatchStream> {
        if !query.seen.is_empty() {
            return Err(Error::invalid(
                "Athena cannot hide rows of a table from a query, which may name any table and view of the catalog",
            ));
        }
        let tables = query.tables;
        let on_behalf = self.behalf.as_ref().map(|behalf| format!("{} {} {}", behalf.caller.run, behalf.caller.step, behalf.caller.visit));
        let give = |(name, relation)| Ok((name, Given::of(name, relation, on_behalf.as_deref().unwrap_or_default())?));
        let only_read = self.shared.only_read;
        let mut inline: Vec<String> = Vec::new();
        let given: BTreeMap<&str, Given> = if only_read {
            let relations = query.named_relations().into_iter();
            inline.extend(relations.map(|(name, relation)| given::inline(&given_name(name), relation)).collect::<Result<Vec<_>>>()?);
            BTreeMap::new()
        } else {
            query.named_relations().into_iter().map(give).collect::<Result<_>>()?
        };
        let literal = |value: &Bound| match value {
            Bound::Instant(at) => crate::sql::instant(at.as_microsecond()),
            other => other.to_string(),
        };
        let text = query.text(literal, |name| match given.get(name) {
            Some(given) => format!("\"{}\"", given.name),
            None => format!("\"{}\"", given_name(name)),
        })?;
        let sql = text.trim().trim_end_matches(';');
        let lower = sql.to_ascii_lowercase();
        let begins =
            |word: &str| lower.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|char: char| char.is_alphanumeric() || char == '_'));
        if !lower.starts_with('(') && !["select", "with", "values"].into_iter().any(begins) {
            return Err(Error::invalid("only SELECT is run, not statements that define or change something"));
        }
        for table in tables {
            let known = self.tables();
            let name = crate::tables::name_of(table)?;
            if names(&lower, &name) {
                self.refuse_overlays_below(table).await?;
                if let Some(raw) = known.relation(&name).await? {
                    raw.shape(table)?;
                    let looked = Looked { raw, repairs: None, exceptions: None, retracted: None };
                    if let Some(declared) = looked.source(table).as_declared()? {
                        check_names(&lower, table, &looked.raw.database.to_ascii_lowercase(), &name)?;
                        inline.push(declared);
                    }
                }
            }
            if !lower.contains(&overlay::repaired_view(&name)) {
                continue;
            }
            let raw = known.table(table).await?;
            self.check_owner(table, Some(&raw)).await?;
            if only_read {
                inline.push(self.view_inline(table).await?);
                continue;
            }
            let repairs = known.ensure_repairs(table, &raw, raw.shape(table)?.as_ref(), &Schema::empty()).await?;
            let retracted = self.retracted(table, &raw).await?;
            let all = Looked { raw, repairs: Some(repairs.clone()), exceptions: None, retracted };
            known.ensure_view(&all.source(table), &repairs).await?;
        }
        let sql = &with_inline(sql, &inline)?;
        let mut usage = self.give(given.values()).await?;
        let ran = self.shared.athena.run(self.behalf.as_deref(), sql).await;
        // The result is there without them. If the query is asked for again, they are given again under the same names.
        self.withdraw(given.values()).await;
        let execution = ran?;
        usage += execution.usage;
        let page = self.shared.athena.page(&execution.id, None).await?;
        let columns = page.columns.iter();
        let layout = Layout::of_types(columns.map(|(name, kind, precision, scale)| (name.as_str(), kind.as_str(), *precision, *scale)));
        let batches = self.results_from(page, &execution, layout, &mut usage).await?;
        self.meter(usage);
        Ok(batches)
    }

    /// The repaired view of a table as part of a statement.
    async fn view_inline(&self, table: &Table) -> Result<String> {
        let (looked, _) = self.look_up(table).await?;
        let view = overlay::repaired_view(&looked.raw.name);
        let Some(repairs) = &looked.repairs else {
            return Err(Error::invalid(format!(
                "table `{}` has no repairs in database {}, and nothing is made there; let the query name `{}` in place of `{view}`",
                table.name, looked.raw.database, table.name
            )));
        };
        Ok(format!("\"{view}\" AS ({})", looked.source(table).view(repairs)?))
    }

    /// Refuses a table of a user's own SQL below whose location the overlay of another table lies: Athena would take its objects for rows.
    async fn refuse_overlays_below(&self, table: &Table) -> Result<()> {
        let Some(raw) = self.tables().relation(&crate::tables::name_of(table)?).await? else { return Ok(()) };
        let Some(place) = raw.location.as_deref().filter(|_| !raw.is_view).map(Location::parse).transpose()? else { return Ok(()) };
        let folder = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        let objects = self.shared.objects.of_bucket(&place.bucket);
        let is_ours = |key: &str| owner::is_object(key.strip_prefix(&folder).unwrap_or(key));
        let mut folders = vec![folder.clone()];
        if !raw.partitions.is_empty() {
            // Athena reads partitions only, and a crawler takes every folder with `=` in its name for one.
            folders = objects.folders(&folder).await?;
            folders.retain(|name| name.contains('=') && name.trim_end_matches('/').rsplit('/').next().and_then(owner::named).is_some());
        }
        let mut listed = Vec::new();
        for folder in folders {
            listed.extend(objects.list(&folder).await?);
        }
        let Some(found) = listed.into_iter().find(|object| is_ours(&object.key)) else { return Ok(()) };
        Err(Error::invalid(format!(
            "the repairs of another table lie below the location of table `{}`, {place}, and in your own SQL Athena would take them for its rows \
             ({}); ask `{}`, which leaves them out, or move one of the tables",
            table.name,
            objects.uri(&found.key),
            overlay::repaired_view(&raw.name)
        )))
    }

    /// A query's result, in batches.
    async fn results(&self, execution: &Execution, layout: Layout, usage: &mut Usage) -> Result<BatchStream> {
        let page = self.shared.athena.page(&execution.id, None).await?;
        self.results_from(page, execution, layout, usage).await
    }

    /// The first page holds all of a small result. A large one is streamed from S3, since pages would take a call for every thousand rows.
    async fn results_from(&self, page: Page, execution: &Execution, layout: Layout, usage: &mut Usage) -> Result<BatchStream> {
        if page.is_all {
            usage.rows_read += page.rows.len() as u64;
            return Ok(futures::stream::iter([layout.batch(page.rows)]).boxed());
        }
        let Some(output) = execution.output.clone() else { return Ok(self.pages(page, execution.id.clone(), layout)) };
        usage.storage_reads += 1;
        let bytes = self.shared.objects.stream_uri(&output).await?;
        let state = Parsing { bytes: Box::pin(bytes), reader: Some(Reader::default()), rows: Vec::new(), header: true, layout };
        Ok(futures::stream::try_unfold(state, |mut state| async move { Ok(state.next().await?.map(|batch| (batch, state))) }).boxed())
    }

    /// Results that Athena manages itself.
    fn pages(&self, first: Page, id: String, layout: Layout) -> BatchStream {
        let athena = self.shared.athena.clone();
        let state = (Some(first), athena, id, layout);
        futures::stream::try_unfold(state, |(page, athena, id, layout)| async move {
            let Some(page) = page else { return Ok(None) };
            let next = match &page.next {
                Some(token) => Some(athena.page(&id, Some(token)).await?),
                None => None,
            };
            let batch = layout.batch(page.rows)?;
            Ok(Some((batch, (next, athena, id, layout))))
        })
        .boxed()
    }
}

/// A result object that is being read.
struct Parsing {
    bytes: std::pin::Pin<Box<dyn futures::Stream<Item = Result<bytes::Bytes>> + Send>>,
    reader: Option<Reader>,
    rows: Vec<Texts>,
    header: bool,
    layout: Layout,
}

impl Parsing {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.rows.len() < BATCH_ROWS {
            let Some(reader) = &mut self.reader else { break };
            match self.bytes.next().await {
                Some(bytes) => reader.feed(&bytes?, &mut self.rows)?,
                None => {
                    if let Some(reader) = self.reader.take() {
                        reader.finish(&mut self.rows)?;
                    }
                }
            }
            if self.header && !self.rows.is_empty() {
                self.rows.remove(0);
                self.header = false;
            }
        }
        if self.rows.is_empty() {
            return Ok(None);
        }
        self.layout.batch(std::mem::take(&mut self.rows)).map(Some)
    }
}

/// The name in a statement of rows that are part of it.
fn given_name(name: &str) -> String {
    format!("repair_given_{name}")
}

/// A statement with these named selects before its own.
fn with_inline(sql: &str, inline: &[String]) -> Result<String> {
    if inline.is_empty() {
        return Ok(sql.to_owned());
    }
    let named = inline.join(", ");
    let after = |word: &str, text: &str| {
        let rest = text.get(word.len()..).filter(|_| text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word)))?;
        rest.starts_with(char::is_whitespace).then(|| rest.trim_start().to_owned())
    };
    let sql = match after("with", sql) {
        Some(rest) => match after("recursive", &rest) {
            Some(rest) => format!("WITH RECURSIVE {named}, {rest}"),
            None => format!("WITH {named}, {rest}"),
        },
        None => format!("WITH {named} {sql}"),
    };
    if sql.len() > MAX_STATEMENT_BYTES {
        return Err(Error::invalid(format!(
            "the statement has {} bytes with the keys in it and how its tables are read, and Athena takes {MAX_STATEMENT_BYTES}; give a source fewer \
             `keys_per_query`, or let the query name fewer tables",
            sql.len()
        )));
    }
    Ok(sql)
}

/// Whether SQL in lower case names a table, and not only one whose name begins with the same letters.
fn names(sql: &str, table: &str) -> bool {
    places(sql, table).next().is_some()
}

/// The bytes at which a query has a name, and not only one that begins or ends with the same letters.
fn places<'a>(sql: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let is_whole = move |at: usize| {
        let (before, after) = (sql.get(..at).unwrap_or_default(), sql.get(at + name.len()..).unwrap_or_default());
        !before.chars().next_back().is_some_and(is_word) && !after.chars().next().is_some_and(is_word)
    };
    sql.match_indices(name).map(|(at, _)| at).filter(move |at| is_whole(*at))
}

/// Refuses a query in lower case in which the name of a table that is not read as the catalog has it would mean something else: the table of the
/// catalog, behind the name of its database, or a select of the query's own.
fn check_names(sql: &str, table: &Table, database: &str, name: &str) -> Result<()> {
    for at in places(sql, name) {
        let before = sql.get(..at).unwrap_or_default().trim_end_matches('"').trim_end();
        let owner = before.strip_suffix('.').map(|before| before.trim_end().trim_end_matches('"'));
        let is_of_database = owner.is_some_and(|owner| {
            owner
                .strip_suffix(database)
                .is_some_and(|rest| !rest.chars().next_back().is_some_and(|char| char.is_alphanumeric() || char == '_'))
        });
        if is_of_database {
            return Err(Error::invalid(format!(
                "the query names table `{}` with its database, as Athena's catalog has it, without what the workflow declares of it; write `{name}` alone",
                table.name
            )));
        }
        let after = sql.get(at + name.len()..).unwrap_or_default().trim_start_matches('"').trim_start();
        // The names of its columns may stand between.
        let after = match after.strip_prefix('(').and_then(|list| list.split_once(')')) {
            Some((list, rest)) if !list.contains('(') => rest.trim_start(),
            _ => after,
        };
        let body = after.strip_prefix("as").filter(|rest| !rest.starts_with(|char: char| char.is_alphanumeric() || char == '_'));
        if body.is_some_and(|body| body.trim_start().starts_with('(')) {
            return Err(Error::invalid(format!(
                "the query calls a select of its own `{name}`, as table `{}` is called; give it another name",
                table.name
            )));
        }
    }
    Ok(())
}

/// What is said of rows without a key, if a key may be a number that is not whole.
fn whole_keys(table: &Table, known: &Looked) -> String {
    match values::float_key(table, &known.raw) {
        Some(column) => format!(", or a number that is not whole (column `{column}` holds floats; a key must be text or a whole number)"),
        None => String::new(),
    }
}

fn whole(array: &ArrayRef) -> Result<&Int64Array> {
    array.as_primitive_opt::<Int64Type>().ok_or_else(odd_result)
}

/// Splits a rollup into two smaller ones: half of the keys each, or half of the time.
fn halves(rollup: &Rollup) -> Result<[Rollup; 2]> {
    if rollup.keys.len() > 1 {
        let (some, others) = rollup.keys.split_at(rollup.keys.len() / 2);
        return Ok([some, others].map(|keys| Rollup { keys: keys.to_vec(), ..rollup.clone() }));
    }
    let too_long = || Error::invalid("this rollup needs a longer statement than Athena accepts; use a shorter interval");
    let every_s = i64::from(rollup.every.seconds());
    let (from, to) = (rollup.interval.from(), rollup.interval.to());
    let middle = (from.as_second() + (to.as_second() - from.as_second()) / 2).div_euclid(every_s) * every_s;
    let middle = jiff::Timestamp::from_second(middle).map_err(|_| too_long())?;
    if middle <= from || middle >= to {
        return Err(too_long());
    }
    let part = |from, to| {
        let interval = Interval::new(from, to).map_err(|_| too_long())?;
        let within = rollup.within.iter().filter(|open| open.from() < to && from < open.to()).copied();
        let mut within: Vec<Interval> = within.collect();
        // An empty list would mean all slots.
        if within.is_empty() && !rollup.within.is_empty() {
            within.extend(rollup.within.first().copied());
        }
        Ok::<_, Error>(Rollup { interval, within, ..rollup.clone() })
    };
    Ok([part(from, middle)?, part(middle, to)?])
}

/// The column of a result that says what cannot be read of a row.
const REPORT: &str = "repair_path";

/// The rows of a judged batch that are used; the others are noted.
fn used(table: &Table, batch: &RecordBatch, bad: &Mutex<Bad>) -> Result<RecordBatch> {
    let reports = rollup::column(batch, REPORT)?.as_string_opt::<i32>().ok_or_else(odd_result)?;
    if reports.null_count() == reports.len() {
        return Ok(batch.clone());
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for report in reports.iter().flatten() {
        *counts.entry(report).or_default() += 1;
    }
    let mut all = bad.lock().unwrap_or_else(PoisonError::into_inner);
    for (report, rows) in counts {
        all.add(rows, report);
    }
    if table.on_bad_row == OnBadRow::Refuse {
        // What follows cannot make it better.
        std::mem::take(&mut *all).judged(table, None)?;
    }
    Ok(filter_record_batch(batch, &arrow::compute::is_null(reports)?)?)
}

/// The sums of rows that have a bucket, in as many columns; rows without one cannot be read.
fn without_bucket(
    table: &Table,
    batch: &RecordBatch,
    bucket_at: usize,
    columns: usize,
    is_judged: bool,
    bad: &Mutex<Bad>,
) -> Result<RecordBatch> {
    let buckets = batch.column(bucket_at).clone();
    if buckets.null_count() > 0 {
        // The last three columns count slots that are observed, slots that are repaired, and rows beyond one for each slot.
        let counts: Vec<&Int64Array> = (columns - 3..columns).map(|at| whole(batch.column(at))).collect::<Result<_>>()?;
        let mut all = bad.lock().unwrap_or_else(PoisonError::into_inner);
        for row in (0..batch.num_rows()).filter(|row| buckets.is_null(*row)) {
            let rows = counts.iter().map(|count| u64::try_from(count.value(row)).unwrap_or(0)).sum();
            let report = if is_judged { rollup::column(batch, REPORT)?.as_string::<i32>().value(row).to_owned() } else { String::new() };
            if report.is_empty() {
                return Err(Error::invalid(format!(
                    "{rows} rows of table `{}` have no value in their time column, so they belong to no slot; remove them from the table, or give \
                     them one",
                    table.name
                )));
            }
            all.add(rows, &report);
        }
    }
    let kept = filter_record_batch(batch, &arrow::compute::is_not_null(&buckets)?)?;
    Ok(kept.project(&(0..columns).collect::<Vec<_>>())?)
}

/// The first word of slots, counted from the epoch.
fn first_word(grid: &SlotGrid, slots: SlotRange) -> i64 {
    slots.first.div_euclid(i64::from(grid.cadence().slots_per_word()))
}

/// A presence that is being put together.
#[derive(Clone)]
struct Found {
    raw: Presence,
    /// All rows that were read, whatever their time is.
    rows_read: u64,
    /// Whether the rows of other keys were counted.
    has_others: bool,
    /// What is said of rows without a key.
    whole: String,
    bad: Bad,
    inserted: BTreeMap<Key, SlotSet>,
    replaced: BTreeMap<Key, SlotSet>,
    absent: BTreeMap<Key, SlotSet>,
    removed: BTreeMap<Key, SlotSet>,
    /// When the first exception expires.
    absent_until: Timestamp,
}

impl Found {
    fn new(grid: SlotGrid, request: &PresenceRequest, keys: &[Key]) -> Self {
        let sets: BTreeMap<Key, SlotSet> = keys.iter().map(|key| (key.clone(), SlotSet::new(grid.cadence(), request.slots))).collect();
        Self {
            raw: Presence::new(grid, request.slots, keys),
            rows_read: 0,
            has_others: false,
            whole: String::new(),
            bad: Bad::default(),
            inserted: sets.clone(),
            replaced: sets.clone(),
            removed: sets.clone(),
            absent: sets,
            absent_until: Timestamp::MAX,
        }
    }

    fn add(&mut self, table: &Table, batch: &RecordBatch, first_word: i64) -> Result<()> {
        let keys: Vec<_> = table.key.iter().enumerate().map(|(at, _)| batch.column(at).as_string::<i32>()).collect();
        let number = |name: &str| whole(rollup::column(batch, name)?);
        let (word_numbers, rows, off, keyless) = (number("word")?, number("rows")?, number("off")?, number("keyless")?);
        let (misplaced, until, others) = (number("misplaced")?, number("until")?, number("others")?);
        let reports = rollup::column(batch, "path")?.as_string_opt::<i32>().ok_or_else(odd_result)?;
        let layers = [number("raw")?, number("inserted")?, number("replaced")?, number("absent")?, number("removed")?];
        let asked = rollup::column(batch, "asked")?.as_boolean_opt().ok_or_else(odd_result)?;
        let count = |array: &Int64Array, row: usize| u64::try_from(array.value(row)).map_err(|_| odd_result());
        for row in 0..batch.num_rows() {
            let whole = &self.whole;
            let without = |what: &str, rows: u64| {
                let whole = if what == "key" { whole.as_str() } else { "" };
                Error::invalid(format!(
                    "{rows} rows of table `{}` have no value in their {what}{whole}, so they belong to no slot; remove them from the table, or give \
                     them one",
                    table.name
                ))
            };
            // Of other keys, only the first few have a row, and each says how many rows there are in all.
            let is_other = !others.is_null(row);
            if is_other && !self.has_others {
                self.has_others = true;
                self.rows_read += count(others, row)?;
                self.raw.other_rows += count(others, row)?;
            } else if !is_other {
                self.rows_read += count(rows, row)?;
            }
            if count(keyless, row)? > 0 {
                return Err(without("key", count(keyless, row)?));
            }
            let key = || Key::new(keys.iter().map(|column| column.value(row)));
            if is_other {
                self.raw.other_keys.add(&key(), count(rows, row)?);
                continue;
            }
            if !word_numbers.is_null(row) && !asked.value(row) {
                match word_numbers.value(row) {
                    words::STRAY => *self.raw.stray_rows.entry(reports.value(row).to_owned()).or_default() += count(rows, row)?,
                    words::BAD => self.bad.add(count(rows, row)?, reports.value(row)),
                    words::OUTSIDE => {}
                    _ => self.raw.other_rows += count(rows, row)?,
                }
                continue;
            }
            if word_numbers.is_null(row) {
                return Err(without("time column", count(rows, row)?));
            }
            let key = key();
            let Some(presence) = self.raw.keys.get_mut(&key).filter(|_| asked.value(row)) else {
                self.raw.other_rows += count(rows, row)?;
                self.raw.other_keys.add(&key, count(rows, row)?);
                continue;
            };
            self.raw.misaligned_rows += count(off, row)?;
            self.raw.misplaced_rows += count(misplaced, row)?;
            if !until.is_null(row) {
                let until = Timestamp::from_millisecond(until.value(row)).map_err(|_| odd_result())?;
                self.absent_until = self.absent_until.min(until);
            }
            let word = first_word + word_numbers.value(row);
            let bits = layers.map(|layer| if layer.is_null(row) { 0 } else { layer.value(row).cast_unsigned() });
            presence.present.insert_word(word, bits[0]);
            let at = usize::try_from(word - presence.present.first_word()).map_err(|_| odd_result())?;
            *presence.rows.get_mut(at).ok_or_else(odd_result)? =
                u32::try_from(count(rows, row)?.saturating_sub(count(off, row)?)).unwrap_or(u32::MAX);
            let sets = [&mut self.inserted, &mut self.replaced, &mut self.absent, &mut self.removed];
            for (sets, bits) in sets.into_iter().zip(bits.into_iter().skip(1)) {
                if let Some(set) = sets.get_mut(&key) {
                    set.insert_word(word, bits);
                }
            }
        }
        Ok(())
    }

    /// The repairs that the view shows: those of slots that raw lacks, and those that replace rows.
    fn finish(mut self, table: &Table, usage: Usage) -> Result<TablePresence> {
        self.raw.quarantine = std::mem::take(&mut self.bad).judged(table, Some(self.rows_read))?;
        let (mut repaired, mut overtaken) = (self.inserted.clone(), self.inserted);
        for (key, set) in &mut overtaken {
            match self.raw.keys.get(key) {
                Some(raw) => set.intersect(&raw.present),
                None => *set = SlotSet::new(self.raw.grid.cadence(), self.raw.slots),
            }
        }
        for (key, set) in &mut repaired {
            if let Some(raw) = self.raw.keys.get(key) {
                set.subtract(&raw.present);
            }
            if let Some(replaced) = self.replaced.get(key) {
                set.union(replaced);
            }
        }
        let absent_until = Some(self.absent_until);
        Ok(TablePresence { raw: self.raw, repaired, overtaken, absent: self.absent, removed: self.removed, absent_until, usage })
    }
}

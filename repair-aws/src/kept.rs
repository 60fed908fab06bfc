//! What Athena has counted of a day is kept, and not asked for again while the objects that may hold rows of that day stay the same.
//!
//! It is derived data, in artifacts that belong to no run, and safe to delete: one for about a month of a table and a list of keys. Each holds
//! rows as a query gave them. A day is kept if its query found nothing odd, because a count of odd rows belongs to the query as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use repair_core::lake::Artifacts;
use repair_core::lake::extent::ExtentPart;
use repair_core::lake::known;
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Key, SlotGrid, SlotRange, Table, Usage};
use repair_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::lake::{AwsLake, Looked};
use crate::sql::words;

/// The column whose first row says what the others are.
const HEAD: &str = "head";

/// The days of one artifact.
const DAYS: i64 = 32;

/// If the days to ask for are in more stretches than this, one query asks for all of them: each has its least price, and takes its time.
const MOST_STRETCHES: usize = 4;

/// A stretch of time that is kept or not as a whole: a day, or, where a word of slots is longer than that, a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    /// Which one, counted from the epoch.
    number: i64,
    /// Its slots, or those of them that were asked for.
    pub(crate) slots: SlotRange,
}

/// The days of a range of slots.
pub(crate) fn days(grid: &SlotGrid, slots: SlotRange) -> Vec<Day> {
    let per_word = i64::from(grid.cadence().slots_per_word());
    let words = (86_400 / i64::from(grid.cadence().seconds()).max(1) / per_word).max(1);
    let length = per_word * words;
    let mut days = Vec::new();
    let mut first = slots.first;
    while first < slots.end {
        let number = first.div_euclid(length);
        let end = ((number + 1) * length).min(slots.end);
        days.push(Day { number, slots: SlotRange::new(first, end) });
        first = end;
    }
    days
}

/// What is known of the time of a kept day.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    first: i64,
    end: i64,
    /// A digest of the objects.
    state: String,
    /// For when exceptions were asked for.
    as_of: Timestamp,
    /// When the first of them expires.
    until: Timestamp,
    /// Its rows are those from here to there.
    rows: (usize, usize),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Head {
    /// A digest of everything but objects that the rows follow from.
    asked: String,
    days: Vec<Entry>,
}

/// A day of an artifact, with its rows.
#[derive(Debug, Clone)]
struct Kept {
    entry: Entry,
    batch: RecordBatch,
}

/// What is asked of a table, day by day.
pub(crate) struct ByDay<'a> {
    lake: &'a AwsLake,
    /// The shape of the rows; the words in it are counted from the epoch.
    schema: SchemaRef,
    as_of: Timestamp,
    name: String,
    asked: String,
    days: Vec<Day>,
    /// The digests of their objects.
    states: Vec<String>,
    /// What is known of them.
    known: Vec<Option<RecordBatch>>,
    /// All that was kept, for what is written again.
    groups: BTreeMap<i64, Vec<Kept>>,
    pub(crate) usage: Usage,
}

/// What the rows of a query say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rows {
    /// Nothing but which slots of the keys are there.
    Plain,
    /// That there are rows of other keys, or off the grid, or in the folder of another time.
    Odd,
    /// That rows cannot be read.
    Bad,
}

impl Rows {
    pub(crate) fn of(batch: &RecordBatch, table: &Table, keys: &[Key]) -> Self {
        let number = |name: &str| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let is_zero = |name: &str| number(name).is_some_and(|all| all.iter().all(|value| value == Some(0)));
        let is_null = |name: &str| batch.column_by_name(name).is_some_and(|column| column.null_count() == column.len());
        let Some(numbers) = number("word") else { return Self::Bad };
        if numbers.iter().any(|word| word.is_none_or(|word| word == words::BAD)) {
            return Self::Bad;
        }
        let asked = batch.column_by_name("asked").and_then(|asked| asked.as_boolean_opt());
        let is_asked = asked.is_some_and(|asked| asked.iter().all(|asked| asked == Some(true)));
        let columns: Option<Vec<&StringArray>> = (0..table.key.len()).map(|at| batch.column(at).as_string_opt::<i32>()).collect();
        let is_of_keys = columns.is_some_and(|columns| {
            (0..batch.num_rows()).all(|row| keys.binary_search(&Key::new(columns.iter().map(|column| column.value(row)))).is_ok())
        });
        let is_plain = is_asked
            && is_of_keys
            && numbers.iter().flatten().all(|word| word >= 0)
            && ["off", "keyless", "misplaced"].into_iter().all(is_zero)
            && ["path", "others"].into_iter().all(is_null);
        if is_plain { Self::Plain } else { Self::Odd }
    }
}

/// Without the rows that say what lies in folders beside those that were asked for, since no slot of it was.
pub(crate) fn without_outside(batch: &RecordBatch) -> Result<RecordBatch> {
    let is_inside: BooleanArray = word_numbers(batch)?.iter().map(|word| Some(word != Some(words::OUTSIDE))).collect();
    Ok(filter_record_batch(batch, &is_inside)?)
}

/// What is asked of a table.
pub(crate) struct Asked<'a> {
    pub(crate) table: &'a Table,
    pub(crate) known: &'a Looked,
    pub(crate) grid: &'a SlotGrid,
    pub(crate) slots: SlotRange,
    pub(crate) keys: &'a [Key],
    pub(crate) as_of: Timestamp,
    pub(crate) schema: SchemaRef,
}

impl<'a> ByDay<'a> {
    /// Finds what is known. `None` if listings do not show whether it still holds.
    pub(crate) async fn of(lake: &'a AwsLake, asked: &Asked<'_>) -> Result<Option<Self>> {
        let Asked { table, known, grid, slots, keys, as_of, schema } = asked;
        // Without folders, whatever is written concerns all days.
        if repair_core::lake::partition::folders(table).is_none() {
            return Ok(None);
        }
        let days = days(grid, *slots);
        let Some(states) = states(lake, asked, &days).await? else { return Ok(None) };
        // The statement for any range of slots shows what it does with rows; the range itself is that of the day.
        let statement = known.source(table).presence(grid, SlotRange::new(0, 1), Some(keys), Timestamp::UNIX_EPOCH)?;
        let digest = |text: String| blake3::hash(text.as_bytes()).to_hex().to_string();
        let mut by_day = Self {
            lake,
            schema: schema.clone(),
            as_of: *as_of,
            name: digest(format!("{} {} {keys:?}", repair_core::lake::ReadLake::place(lake, table), table.name)),
            asked: digest(format!("{statement} {table:?}")),
            known: vec![None; days.len()],
            days,
            states,
            groups: BTreeMap::new(),
            usage: Usage::default(),
        };
        by_day.read().await?;
        Ok(Some(by_day))
    }

    /// The stretches of slots to ask for, in order.
    pub(crate) fn unknown(&self) -> Vec<SlotRange> {
        let mut stretches: Vec<SlotRange> = Vec::new();
        for (day, _) in self.days.iter().zip(&self.known).filter(|(_, known)| known.is_none()) {
            match stretches.last_mut().filter(|last| last.end == day.slots.first) {
                Some(last) => last.end = day.slots.end,
                None => stretches.push(day.slots),
            }
        }
        if stretches.len() > MOST_STRETCHES
            && let (Some(first), Some(last)) = (stretches.first(), stretches.last())
        {
            return vec![SlotRange::new(first.first, last.end)];
        }
        stretches
    }

    /// What is known of days outside these stretches; words are counted from the epoch.
    pub(crate) fn known_outside<'b>(&'b self, stretches: &'b [SlotRange]) -> impl Iterator<Item = &'b RecordBatch> {
        let outside = |day: &Day| !stretches.iter().any(|stretch| stretch.first <= day.slots.first && day.slots.first < stretch.end);
        self.days.iter().zip(&self.known).filter(move |(day, _)| outside(day)).filter_map(|(_, known)| known.as_ref())
    }

    /// Keeps what was found in stretches, unless something was written meanwhile. An error is no error of the look.
    pub(crate) async fn keep(mut self, asked: &Asked<'_>, stretches: &[SlotRange], found: &[RecordBatch]) -> Usage {
        if let Err(error) = self.keep_found(asked, stretches, found).await {
            tracing::warn!(error = error.full(), "what was counted is not kept");
        }
        self.usage
    }

    async fn keep_found(&mut self, asked: &Asked<'_>, stretches: &[SlotRange], found: &[RecordBatch]) -> Result<()> {
        if states(self.lake, asked, &self.days).await?.as_ref() != Some(&self.states) {
            return Ok(());
        }
        let per_word = i64::from(asked.grid.cadence().slots_per_word());
        let mut changed: BTreeMap<i64, Vec<Kept>> = BTreeMap::new();
        for (day, state) in self.days.iter().zip(&self.states) {
            if !stretches.iter().any(|stretch| stretch.first <= day.slots.first && day.slots.end <= stretch.end) {
                continue;
            }
            let words = day.slots.first.div_euclid(per_word)..(day.slots.end - 1).div_euclid(per_word) + 1;
            let mut parts = Vec::new();
            for batch in found {
                let numbers = word_numbers(batch)?;
                let is_of_day: BooleanArray = numbers.iter().map(|word| Some(word.is_some_and(|word| words.contains(&word)))).collect();
                parts.push(filter_record_batch(batch, &is_of_day)?);
            }
            let batch = arrow::compute::concat_batches(&self.schema, &parts)?;
            let until = until(&batch)?;
            let entry = Entry { first: day.slots.first, end: day.slots.end, state: state.clone(), as_of: self.as_of, until, rows: (0, 0) };
            changed.entry(day.number.div_euclid(DAYS)).or_default().push(Kept { entry, batch });
        }
        for (group, days) in changed {
            let mut all = self.groups.remove(&group).unwrap_or_default();
            // A part of a day that is no longer asked for goes with the day.
            let length = |entry: &Entry| (entry.first, entry.end);
            all.retain(|old| {
                !days.iter().any(|new| {
                    new.entry.first < old.entry.end && old.entry.first < new.entry.end || length(&new.entry) == length(&old.entry)
                })
            });
            all.extend(days);
            all.sort_by_key(|rows| rows.entry.first);
            self.write(group, all).await?;
        }
        Ok(())
    }

    async fn write(&mut self, group: i64, mut days: Vec<Kept>) -> Result<()> {
        let mut at = 0;
        for rows in &mut days {
            rows.entry.rows = (at, at + rows.batch.num_rows());
            at += rows.batch.num_rows();
        }
        let head = Head { asked: self.asked.clone(), days: days.iter().map(|rows| rows.entry.clone()).collect() };
        let head = serde_json::to_string(&head).map_err(|error| Error::internal("what was counted is not JSON").because(error))?;
        let schema = with_head(&self.schema);
        let nothing = self.schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), 1));
        let first = [Arc::new(StringArray::from(vec![head])) as ArrayRef].into_iter().chain(nothing).collect();
        let mut batches = vec![Ok(RecordBatch::try_new(schema.clone(), first)?)];
        for rows in days {
            let head: ArrayRef = Arc::new(StringArray::new_null(rows.batch.num_rows()));
            let columns = [head].into_iter().chain(rows.batch.columns().iter().cloned()).collect();
            batches.push(Ok(RecordBatch::try_new(schema.clone(), columns)?));
        }
        self.usage += self.lake.put_artifact(known::RUN, &self.artifact(group), stream::iter(batches).boxed()).await?;
        Ok(())
    }

    fn artifact(&self, group: i64) -> String {
        format!("{}-{group}", self.name)
    }

    async fn read(&mut self) -> Result<()> {
        let groups: std::collections::BTreeSet<i64> = self.days.iter().map(|day| day.number.div_euclid(DAYS)).collect();
        for group in groups {
            match self.read_group(group).await {
                Ok(rows) => drop(self.groups.insert(group, rows)),
                Err(error) => known::without(error)?,
            }
        }
        for ((day, state), known) in self.days.iter().zip(&self.states).zip(&mut self.known) {
            let of_day = self.groups.get(&day.number.div_euclid(DAYS)).into_iter().flatten();
            let holds = |entry: &Entry| {
                (entry.first, entry.end, &entry.state) == (day.slots.first, day.slots.end, state)
                    && entry.as_of <= self.as_of
                    && self.as_of < entry.until
            };
            *known = of_day.into_iter().find(|rows| holds(&rows.entry)).map(|rows| rows.batch.clone());
        }
        Ok(())
    }

    /// The days of an artifact; none if it is about something else.
    async fn read_group(&mut self, group: i64) -> Result<Vec<Kept>> {
        let batches: Vec<RecordBatch> = self.lake.get_artifact(known::RUN, &self.artifact(group)).await?.try_collect().await?;
        self.usage.storage_reads += 1;
        let odd = || Error::invalid("what was counted before is not in its shape");
        let schema = with_head(&self.schema);
        if batches.iter().any(|batch| batch.schema().fields() != schema.fields()) {
            return Ok(Vec::new());
        }
        let all = arrow::compute::concat_batches(&schema, &batches)?;
        let text = all.column(0).as_string_opt::<i32>().filter(|head| !head.is_empty() && head.is_valid(0)).ok_or_else(odd)?.value(0);
        let head: Head = serde_json::from_str(text).map_err(|error| odd().because(error))?;
        if head.asked != self.asked {
            return Ok(Vec::new());
        }
        let rows = all.slice(1, all.num_rows() - 1);
        let columns: Vec<usize> = (1..schema.fields().len()).collect();
        let rows = RecordBatch::try_new(self.schema.clone(), rows.project(&columns)?.columns().to_vec())?;
        let of_day = |entry: Entry| {
            let (from, to) = entry.rows;
            if from > to || to > rows.num_rows() {
                return Err(odd());
            }
            Ok(Kept { batch: rows.slice(from, to - from), entry })
        };
        head.days.into_iter().map(of_day).collect()
    }
}

fn with_head(schema: &Schema) -> SchemaRef {
    let head = Arc::new(Field::new(HEAD, DataType::Utf8, true));
    Arc::new(Schema::new([head].into_iter().chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

fn word_numbers(batch: &RecordBatch) -> Result<&Int64Array> {
    let column = repair_core::lake::rollup::column(batch, "word")?;
    column.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("words of slots are no numbers"))
}

/// When the first exception among rows expires.
fn until(batch: &RecordBatch) -> Result<Timestamp> {
    let column = repair_core::lake::rollup::column(batch, "until")?;
    let until = column.as_primitive_opt::<Int64Type>().and_then(arrow::compute::min);
    Ok(until.and_then(|until| Timestamp::from_millisecond(until).ok()).unwrap_or(Timestamp::MAX))
}

/// The same rows, with words counted from the epoch.
pub(crate) fn from_epoch(batch: &RecordBatch, first_word: i64) -> Result<RecordBatch> {
    let numbers = word_numbers(batch)?.unary::<_, Int64Type>(|word| word + first_word);
    let at = batch.schema_ref().index_of("word")?;
    let mut columns = batch.columns().to_vec();
    if let Some(column) = columns.get_mut(at) {
        *column = Arc::new(numbers);
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// For each day, a digest of the objects that may hold rows of it, and of what decides which of them Athena reads.
async fn states(lake: &AwsLake, asked: &Asked<'_>, days: &[Day]) -> Result<Option<Vec<String>>> {
    let bounds = TimeBounds::of_slots(asked.grid, asked.slots);
    let Some((mut objects, Some(seen))) = lake.objects_of(asked.table, &asked.known.raw, &bounds).await? else { return Ok(None) };
    objects.sort_unstable_by(|one, other| (one.part, &one.key).cmp(&(other.part, &other.key)));
    let digest = |day: &Day| {
        let bounds = TimeBounds::of_slots(asked.grid, day.slots);
        let mut hasher = blake3::Hasher::new();
        let mut reach = bounds.to_us;
        for object in objects.iter().filter(|object| object.span.is_none_or(|span| span.overlaps(&bounds))) {
            if object.part == ExtentPart::Table {
                reach = reach.max(object.span.map_or(i64::MAX, |span| span.to_us));
            }
            hasher.update(format!("{:?} {:?} {} {:?} ", object.part, object.key, object.bytes, object.tag).as_bytes());
        }
        hasher.update(seen.before(reach).as_bytes());
        hasher.finalize().to_hex().to_string()
    };
    Ok(Some(days.iter().map(digest).collect()))
}

//! A lake in which some rows of one table, or some cells of them, are hidden, and to which nothing is written: what it is asked to write it keeps in memory.
//!
//! **What is hidden** is hidden from every method: scans of either layer, presence, rollups; what earlier runs repaired in the hidden slots;
//! tables that the workflow's aggregate steps write, which were computed from the hidden rows; artifacts of earlier runs. SQL runs behind the same
//! veil, if the lake can hide rows from it, and is refused if its engine would read the files themselves. Another name for the table's own files
//! (a folder within it, one around it, another shape) is refused too. What cannot be seen from here is whether another table holds the same rows:
//! an archive does, and is there to be asked.
//!
//! **What is written** (staged and published units, replaced tables, artifacts) is seen through this lake as in any other, and gone with it.

#![deny(clippy::missing_trait_methods, reason = "a method that is forgotten here could show hidden rows")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use crate::compare::mask::Mask;
use crate::compare::places::{Places, Standing};
use repair_core::lake::extent::Extent;
use repair_core::lake::name;
use repair_core::lake::overlay::aside;
use repair_core::lake::overlay::compaction::{Compactable, Compacted};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::overlay::staging;
use repair_core::lake::overlay::staging::{Parts, StagedRows};
use repair_core::lake::pieces;
use repair_core::lake::query::{Query, Relation, Seen};
use repair_core::lake::replacement::replacement;
use repair_core::lake::rollup::{self, Rollup};
use repair_core::lake::row_count;
use repair_core::lake::shape;
use repair_core::lake::shape::KeyTime;
use repair_core::lake::veil::{Veil, wanted, without_patches};
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Layer, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck, overlay,
};
use repair_core::model::Usage;
use repair_core::model::{Interval, Key, SlotRange, SlotSet, Table, TablePresence};
use repair_core::{Error, ErrorKind, Result};

/// A lake in which rows are hidden, and to which nothing is written. A clone is the same lake.
#[derive(Clone)]
pub struct MaskedLake {
    inner: Arc<dyn Lake>,
    shared: Arc<Shared>,
}

struct Shared {
    table: Table,
    mask: Mask,
    /// The same as a veil.
    veil: Veil,
    places: Places,
    written: Mutex<Written>,
}

/// A run, a step of it, and a visit of that.
type Area = (String, String, u32);
/// Units that are staged, by id.
type StagedUnits = BTreeMap<String, (Staged, Vec<RecordBatch>)>;

#[derive(Default)]
struct Written {
    staged: BTreeMap<Area, StagedUnits>,
    /// The repairs and the exceptions of each batch.
    published: BTreeMap<(Area, u32), [Vec<RecordBatch>; 2]>,
    /// By place.
    tables: BTreeMap<String, WrittenTable>,
    artifacts: BTreeMap<(String, String), Vec<RecordBatch>>,
}

/// A table that was written.
#[derive(Debug, Clone)]
struct WrittenTable {
    table: Table,
    schema: SchemaRef,
    parts: Parts,
}

impl MaskedLake {
    /// Hides rows of a table of a lake. `computed` are the tables that are computed from it.
    pub fn new(inner: Arc<dyn Lake>, table: Table, mask: Mask, computed: &[Table]) -> Self {
        let places = Places::new(inner.as_ref(), &table, computed);
        let veil = mask.veil(&table);
        Self { inner, shared: Arc::new(Shared { table, mask, veil, places, written: Mutex::default() }) }
    }

    /// The repairs and the exceptions that were published here.
    pub fn published(&self) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
        let written = self.written();
        let of = |which: usize| written.published.values().flat_map(|batches| batches[which].iter().cloned()).collect();
        (of(0), of(1))
    }

    /// The tables that were written here, each with its rows.
    pub fn tables(&self) -> Vec<(Table, SchemaRef, Vec<RecordBatch>)> {
        let rows = |written: &WrittenTable| written.parts.values().flatten().cloned().collect();
        self.written().tables.values().map(|written| (written.table.clone(), written.schema.clone(), rows(written))).collect()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Nothing that panics runs under the lock, so a poisoned one is whole.
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a table is here.
    fn standing(&self, table: &Table) -> Result<Standing> {
        let place = self.inner.place(table);
        let is_written = self.written().tables.contains_key(&place);
        self.shared.places.standing(table, place, is_written)
    }

    /// A table that is computed: what was written here; before that, nothing.
    fn computed(&self, table: &Table, place: &str) -> Result<WrittenTable> {
        self.written().tables.get(place).cloned().ok_or_else(|| {
            let message = format!("table `{}` is computed from rows of which some are hidden, and was not computed here yet", table.name);
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// What a reader of the table does not see, and the repairs that it sees.
    fn veil(&self) -> Veil {
        self.shared.veil.clone().with_repairs(self.published().0)
    }

    /// Takes what is hidden out of a presence, and puts in what was repaired here.
    fn hide(&self, request: &PresenceRequest, found: &mut TablePresence) -> Result<()> {
        let Shared { table, mask, .. } = self.shared.as_ref();
        let per_word = i64::from(mask.grid().cadence().slots_per_word());
        // Where cells are hidden, the rows are there.
        for (key, hidden) in mask.keys().filter(|_| !mask.is_of_cells()) {
            let Some(of_key) = found.raw.keys.get_mut(key) else {
                let rows = hidden.count_in(request.slots);
                found.raw.other_rows = found.raw.other_rows.saturating_sub(rows);
                found.raw.other_keys.remove(key, rows);
                continue;
            };
            for slot in hidden.iter().filter(|slot| of_key.present.contains(*slot)) {
                let word = usize::try_from(slot.div_euclid(per_word) - of_key.present.first_word()).ok();
                if let Some(rows) = word.and_then(|word| of_key.rows.get_mut(word)) {
                    *rows = rows.saturating_sub(1);
                }
            }
            of_key.present.subtract(hidden);
            for sets in [&mut found.repaired, &mut found.overtaken, &mut found.absent, &mut found.removed] {
                if let Some(slots) = sets.get_mut(key) {
                    slots.subtract(hidden);
                }
            }
        }
        let (repairs, exceptions) = self.published();
        for batch in &repairs {
            let batch = &without_patches(batch)?;
            insert(table, mask, &mut found.repaired, batch, |_| true)?;
        }
        for batch in &exceptions {
            let recheck = rollup::column(batch, overlay::columns::RECHECK_AFTER)?.as_primitive::<TimestampMicrosecondType>();
            insert(table, mask, &mut found.absent, batch, |row| recheck.value(row) > request.as_of.as_microsecond())?;
        }
        Ok(())
    }

    /// Only the compared table is repaired here.
    fn repairs(&self, table: &Table) -> Result<()> {
        match self.standing(table)? {
            Standing::Masked => Ok(()),
            _ => Err(Error::invalid(format!("table `{}` is not the one that is compared, so nothing is repaired in it", table.name))),
        }
    }
}

fn slot_of(mask: &Mask, time_us: i64) -> i64 {
    mask.grid().slot_of_seconds(time_us.div_euclid(1_000_000))
}

/// Adds the slots of rows to sets.
fn insert(
    table: &Table,
    mask: &Mask,
    sets: &mut BTreeMap<Key, SlotSet>,
    batch: &RecordBatch,
    counts: impl Fn(usize) -> bool,
) -> Result<()> {
    let places = KeyTime::of(table, batch)?;
    for row in (0..batch.num_rows()).filter(|row| counts(*row)) {
        if let Some(slots) = sets.get_mut(&places.key(row)) {
            slots.insert(slot_of(mask, places.times.value(row)));
        }
    }
    Ok(())
}

fn rows_of(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

fn area(scope: &StageScope<'_>) -> Area {
    (scope.run.to_owned(), scope.step.to_owned(), scope.visit)
}

#[async_trait]
impl ReadLake for MaskedLake {
    fn is_queried(&self) -> bool {
        self.inner.is_queried()
    }

    fn hides_rows(&self) -> bool {
        self.inner.hides_rows()
    }

    fn place(&self, table: &Table) -> String {
        self.inner.place(table)
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        self.inner.repairs_of(table).await
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        match self.standing(table)? {
            Standing::Computed(place) => Ok(self.computed(table, &place)?.schema),
            _ => self.inner.describe(table).await,
        }
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        match self.standing(table)? {
            Standing::Masked => {
                let mut found = self.inner.presence(table, request).await?;
                self.hide(request, &mut found)?;
                Ok(found)
            }
            Standing::Other => self.inner.presence(table, request).await,
            Standing::Beside | Standing::Computed(_) => {
                Err(Error::invalid(format!("the slots of table `{}` cannot be listed while strategies are compared", table.name)))
            }
        }
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        pieces::of_whole(self, table, request, pieces)
    }

    /// Of the files as they are: they reveal nothing of what is in them, and are no evidence of what is seen here.
    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        match self.standing(table)? {
            Standing::Computed(_) => Err(Error::invalid(format!("table `{}` has no files while strategies are compared", table.name))),
            _ => Ok(Extent { evidence: None, ..self.inner.extent(table, interval).await? }),
        }
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        let mut extents = Vec::with_capacity(intervals.len());
        for interval in intervals {
            extents.push(self.extent(table, Some(interval)).await?);
        }
        Ok(extents)
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        let veil = self.veil();
        let repaired = match self.standing(table)? {
            Standing::Other => return self.inner.scan(table, request).await,
            Standing::Computed(place) => {
                request.refuse_files(table, "a comparison that computes it")?;
                let WrittenTable { schema, parts, .. } = self.computed(table, &place)?;
                let schema = shape::project(table, &schema, request.columns.as_deref())?;
                let named = shape::as_requested(table, &schema, request.columns.as_deref())?;
                let mut batches = Vec::new();
                for batch in parts.values().flatten() {
                    let columns: Vec<usize> =
                        schema.fields().iter().map(|field| batch.schema_ref().index_of(field.name())).collect::<Result<_, _>>()?;
                    let batch = wanted(table, batch, request)?.project(&columns)?;
                    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    batches.push(RecordBatch::try_new_with_options(named.clone(), batch.columns().to_vec(), &options)?);
                }
                return Ok(stream::iter(batches.into_iter().map(Ok)).boxed());
            }
            Standing::Masked if request.layer == Layer::Repaired => veil.repaired_rows(&self.inner.describe(table).await?, request)?,
            Standing::Masked => Vec::new(),
            Standing::Beside => {
                let outside = move |batch: Result<RecordBatch>| veil.outside(&batch?);
                return Ok(self.inner.scan(table, request).await?.map(outside).boxed());
            }
        };
        let over = veil.over(request.layer)?;
        let rows = self.inner.scan(table, request).await?.map(move |batch| over.shown(&batch?));
        Ok(rows.chain(stream::iter(repaired.into_iter().map(Ok))).boxed())
    }

    /// From the rows that are not hidden: an engine would also see the others.
    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        rollup::by_scan(self, table, request).await
    }

    /// Of other tables by the lake; of these, from the rows that are not hidden.
    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        match self.standing(table)? {
            Standing::Other => self.inner.row_counts(table, request).await,
            _ => row_count::by_scan(self, table, request).await,
        }
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        // What people have set aside is repaired here too: nothing that a comparison writes remains.
        Ok(self.inner.retractions(table).await?.into_iter().filter(|record| !aside::is_decision(record)).collect())
    }

    /// As the query of a table that has no hidden row: the lake applies the veil to whatever its engine reads.
    async fn query(&self, query: &Query<'_>) -> Result<BatchStream> {
        if !self.hides_rows() {
            return Err(Error::invalid("SQL is not run while strategies are compared: the lake's engine would read the hidden rows"));
        }
        if !query.seen.is_empty() {
            return Err(Error::internal("a query is behind two veils"));
        }
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        for table in query.tables {
            let what = match self.standing(table)? {
                Standing::Other => continue,
                Standing::Masked => Seen::Behind(self.veil()),
                Standing::Beside => Seen::Behind(self.shared.veil.of_whole_rows()),
                Standing::Computed(place) => {
                    let WrittenTable { schema, parts, .. } = self.computed(table, &place)?;
                    Seen::Instead(Relation { schema, rows: parts.into_values().flatten().collect() })
                }
            };
            seen.insert(table.name.clone(), what);
        }
        let mut behind = query.clone();
        behind.seen = seen;
        self.inner.query(&behind).await
    }
}

#[async_trait]
impl Overlay for MaskedLake {
    /// Nothing is written to the lake.
    async fn to_create(&self, _: &Table) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        self.repairs(scope.table)?;
        let own = self.inner.describe(scope.table).await?;
        let (_, rows) = staging::rows(scope, request, &own)?;
        let summary = staging::summary(request);
        self.written().staged.entry(area(scope)).or_default().insert(request.unit.to_owned(), (summary.clone(), rows));
        Ok(summary)
    }

    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        let written = self.written();
        Ok(written.staged.get(&area(scope)).into_iter().flat_map(BTreeMap::values).map(|(summary, _)| summary.clone()).collect())
    }

    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        self.repairs(scope.table)?;
        let mut written = self.written();
        let staged = written.staged.get(&area(scope));
        let (mut published, mut rows) = (Published::default(), StagedRows::default());
        for unit in units {
            let (summary, of_unit) = staged.and_then(|staged| staged.get(unit)).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("unit {unit} is not staged; it has to be repaired again")).on("unit", unit)
            })?;
            published.rows += summary.rows;
            published.absent += summary.absent;
            rows.add(of_unit.iter().cloned())?;
        }
        let all = staging::publication(scope.table, rows)?;
        let flat = |parts: Parts| parts.into_values().flatten().collect::<Vec<RecordBatch>>();
        let batches = [flat(all.repairs), flat(all.exceptions)];
        for rows in &batches {
            for hidden in rows {
                if self.shared.veil.outside(hidden)?.num_rows() > 0 {
                    return Err(Error::internal("a repair of a slot that is not hidden"));
                }
            }
        }
        written.published.insert((area(scope), batch), batches);
        Ok(published)
    }

    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        if let Some(staged) = self.written().staged.get_mut(&area(scope)) {
            staged.retain(|unit, _| !units.contains(unit));
        }
        Ok(())
    }

    async fn retract(&self, table: &Table, _: &Retraction) -> Result<()> {
        Err(Error::invalid(format!("nothing in table `{}` can be undone while strategies are compared", table.name)))
    }

    /// What a comparison writes is in memory, and what the lake itself keeps is none of its business.
    async fn compactable(&self, _: &Table) -> Result<Vec<Compactable>> {
        Ok(Vec::new())
    }

    async fn compact(&self, table: &Table, _: &Compactable) -> Result<Vec<Compacted>> {
        Err(Error::invalid(format!("nothing of table `{}` is compacted while strategies are compared", table.name)))
    }

    async fn discard_compacted(&self, table: &Table, _: &Compacted) -> Result<()> {
        Err(Error::invalid(format!("nothing of table `{}` is compacted while strategies are compared", table.name)))
    }
}

#[async_trait]
impl Artifacts for MaskedLake {
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage> {
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let usage = Usage { rows_written: rows_of(&batches), ..Usage::default() };
        if let Some(first) = batches.first() {
            // As any lake refuses batches that do not have the same columns.
            concat_batches(first.schema_ref(), &batches)?;
        }
        self.written().artifacts.insert((run.to_owned(), name.to_owned()), batches);
        Ok(usage)
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        let found = self.written().artifacts.get(&(run.to_owned(), name.to_owned())).cloned();
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("run {run} has kept no `{name}` here")))?;
        Ok(stream::iter(found.into_iter().map(Ok)).boxed())
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        let kept = self.get_artifact(from.run, from.name).await?;
        self.put_artifact(to.run, to.name, kept).await
    }

    /// What was kept here. What the lake itself keeps is none of a comparison's business.
    async fn kept(&self) -> Result<Vec<KeptObject>> {
        let size = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum::<u64>();
        let written = self.written();
        let mut kept: Vec<KeptObject> = written
            .artifacts
            .iter()
            .map(|((run, artifact), rows)| KeptObject::new(name::part(run), name::part(artifact), size(rows)))
            .collect();
        kept.sort();
        Ok(kept)
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        let paths = objects.iter().map(KeptObject::path).collect::<Result<std::collections::BTreeSet<String>>>()?;
        let goes = |kept: KeptObject| kept.path().is_ok_and(|path| paths.contains(&path));
        self.written().artifacts.retain(|(run, artifact), _| !goes(KeptObject::new(name::part(run), name::part(artifact), 0)));
        Ok(())
    }
}

#[async_trait]
impl Lake for MaskedLake {
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>> {
        let inner = self.inner.on_behalf_of(caller)?;
        Some(Arc::new(Self { inner, shared: self.shared.clone() }))
    }

    /// Nothing is written, so nothing can be in the way.
    async fn check_writable(&self) -> Result<()> {
        Ok(())
    }

    /// What it keeps is in memory.
    async fn check_state(&self) -> Result<StateCheck> {
        Ok(StateCheck::default())
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        let place = match self.standing(table)? {
            Standing::Computed(place) => place,
            Standing::Other => self.inner.place(table),
            Standing::Masked | Standing::Beside => {
                return Err(Error::new(ErrorKind::Conflict, format!("table `{}` is not ours to replace", table.name)));
            }
        };
        let new = replacement(table, interval, &rows)?;
        let mut written = self.written();
        match (written.tables.get_mut(&place), new.schema) {
            (Some(known), schema) => {
                known.schema = schema.unwrap_or_else(|| known.schema.clone());
                known.parts.extend(new.parts);
            }
            (None, Some(schema)) => {
                written.tables.insert(place, WrittenTable { table: table.clone(), schema, parts: new.parts });
            }
            (None, None) => {}
        }
        Ok(Usage { rows_written: rows_of(&rows), ..Usage::default() })
    }
}

#[cfg(test)]
mod tests;

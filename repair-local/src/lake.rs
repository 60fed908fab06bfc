//! The lake of files in a folder.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use repair_core::lake::extent::Extent;
use repair_core::lake::overlay;
use repair_core::lake::overlay::compaction::{Compactable, Compacted};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::program;
use repair_core::lake::rollup::Rollup;
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck, name,
};
use repair_core::model::Usage;
use repair_core::model::{Format, Interval, SlotRange, Table, TablePresence};
use repair_core::price::Meter;
use repair_core::{Error, ErrorKind, Hint, Result};
use tokio::sync::Semaphore;

use crate::files::{self, DataFile, Folder, Found};
use crate::held::Small;
use crate::kept::{Kept, New, PackId};
use crate::query::QueryEngine;
use crate::stage::{self, Scope};
use crate::stamp::Stamp;
use crate::threads::{self, blocking, on_its_own_thread};
use crate::{artifact, compact, extent, kept, place, presence, publish, read, replace, retract, rollup, row_count, scan, stamp, state};

/// The number of files whose columns are remembered, at some hundred bytes each. Beyond, all are forgotten, so it must be more than tables have.
const MAX_REMEMBERED: usize = 400_000;

/// For this long, or as long as a listing takes [`FRESH_LISTINGS`] times, the columns of a table are believed to be those of all of its files.
/// Otherwise, thousands of units would list all files of the table thousands of times.
const FRESH: Duration = Duration::from_secs(5);

/// What is to be kept of so many files is made together.
const NEW_TOGETHER: usize = 256;

/// A table whose files have more kinds of columns is always listed as a whole.
const MOST_KINDS: usize = 1_000;

/// Of the time of a long step, listing tables takes at most one part in so many.
const FRESH_LISTINGS: u32 = 10;

/// Tables of files in a folder: Parquet, CSV and JSON lines. Cheap to clone.
///
/// Every call looks at the files again, so it sees rows that have arrived. What a small file of text holds is believed for a short time, if its size,
/// its number in the file system and its times are still the same, and it was not written in the seconds before it was read.
///
/// - Every file below a table's location is read, is ignored by its name (`_…`, `.…`, or `ignore`), or is an error.
/// - A row in the folder of another time is used, and counted as misplaced, if it is no farther away than the table's slack; otherwise it is
///   counted, and never used. The partition column is not among a table's columns, since it follows from the time. Of other columns in the
///   path, only key columns are read, and only if the files lack them.
/// - A column of CSV or JSON lines has its declared type, or the narrowest one (whole numbers, numbers, booleans, text) that fits the first
///   50,000 rows of each file. A row that does not fit is an error with its line, or quarantined; JSON columns that first appear later are
///   ignored.
/// - A time in CSV or JSON lines is an instant with its zone (`2024-03-04T14:30:00Z`), a date in a table of days, or what the table says. In
///   Parquet it may also be a timestamp of any unit; without a zone it is in the table's zone, or else UTC.
/// - The overlay lies beside the table (`bars_repairs`, `bars_exceptions`, `bars_retractions`); for a table outside the root, or one whose
///   location is a glob, it lies in the root. It belongs to one location, as its record says, and overlays below a table's location are not
///   its rows.
#[derive(Debug, Clone)]
pub struct LocalLake {
    inner: Arc<Inner>,
    engine: Option<Arc<dyn QueryEngine>>,
    /// Counts the bytes of what streams read.
    meter: Option<Meter>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    /// Whether what was read is kept for later looks.
    pub(crate) keeps: bool,
    /// Which program this is, for which alone it is kept; `None` if that is not known, and then nothing is.
    pub(crate) program: Option<&'static str>,
    /// How long after a write of a file another one surely shows.
    pub(crate) settles: Duration,
    /// The most bytes that are kept.
    pub(crate) max_kept_bytes: u64,
    columns: Mutex<Columns>,
    last: Mutex<SchemaRef>,
    /// For how long a listing is fresh at least.
    pub(crate) fresh: Duration,
    wholes: Mutex<HashMap<Table, Arc<Whole>>>,
    small: Small,
    /// Of several who need a table as a whole at once, one lists it.
    listing: Mutex<()>,
    /// Who encodes a unit to be staged has one of these.
    encoding: Semaphore,
}

/// A table as it was when all of its files were listed.
#[derive(Debug)]
struct Whole {
    until: Instant,
    /// Its folders, each with its stamp from before it was listed, if every later change of a name in it would show.
    folders: BTreeMap<PathBuf, Option<Stamp>>,
    /// Each kind of columns that its files have.
    kinds: Vec<SchemaRef>,
    /// The columns of the table in shape; `None` if it has no file.
    schema: Option<SchemaRef>,
}

impl Whole {
    /// Whether no name has come or gone.
    fn has_all_names(&self) -> bool {
        let is_same = |(path, stamp): (&PathBuf, &Option<Stamp>)| {
            stamp.is_some() && std::fs::metadata(path).is_ok_and(|now| Some(Stamp::of(&now)) == *stamp)
        };
        !self.folders.is_empty() && self.folders.iter().all(is_same)
    }

    /// Whether no name in a folder, nor below it, has come or gone.
    fn is_as_before(&self, folder: &Folder<'_>) -> bool {
        let is_same = |path: &PathBuf, stamp: Option<Stamp>| {
            let now = if path == folder.path { Some(folder.stamp) } else { std::fs::metadata(path).ok().map(|now| Stamp::of(&now)) };
            stamp.is_some() && now == stamp
        };
        let mut below = self.folders.range(folder.path.to_owned()..).take_while(|(path, _)| path.starts_with(folder.path)).peekable();
        below.peek().is_some_and(|(path, _)| *path == folder.path) && below.all(|(path, stamp)| is_same(path, *stamp))
    }
}

/// The columns of a file that were read.
struct ToKeep {
    /// The number of the file.
    at: usize,
    /// Whether it was seen that the file that was read is the one that was listed.
    is_listed: bool,
    /// How they are written; `None` if they cannot be kept.
    head: Option<Arc<[u8]>>,
}

/// The columns of files, by how the tables say that these are written.
#[derive(Debug, Default)]
struct Columns {
    of: HashMap<u64, HashMap<PathBuf, Remembered>>,
    files: usize,
}

/// The columns of a file, valid as long as its stamp stays the same.
#[derive(Debug)]
struct Remembered {
    stamp: Stamp,
    columns: SchemaRef,
}

impl Inner {
    /// The lake in a folder that is there, without links in its path.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            keeps: true,
            program: program::identity(),
            settles: stamp::SETTLES,
            max_kept_bytes: kept::MAX_BYTES,
            columns: Mutex::default(),
            last: Mutex::new(Arc::new(Schema::empty())),
            fresh: FRESH,
            wholes: Mutex::default(),
            small: Small::new(stamp::SETTLES),
            listing: Mutex::default(),
            encoding: Semaphore::new(threads::workers()),
        }
    }

    /// The small files that were read a short time ago.
    pub(crate) fn small(&self) -> Small {
        self.small.settling(self.settles)
    }

    /// The columns of files, as each has them.
    pub(crate) fn columns(&self, table: &Table, files: &[DataFile]) -> Result<Vec<SchemaRef>> {
        // What a file's columns are depends on how the table says that it is written.
        let places = (table.format == Format::Csv).then_some((&table.key, &table.time));
        let written = format!("{:?}", (table.format, &table.csv, &table.nulls, &table.columns, read::quarantines(table), places));
        let mut hasher = DefaultHasher::new();
        written.hash(&mut hasher);
        let number = hasher.finish();
        let mut columns: Vec<Option<SchemaRef>> = {
            let known = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.of.get(&number);
            let of_file =
                |file: &DataFile| known?.get(&file.path).filter(|known| known.stamp == file.stamp).map(|known| known.columns.clone());
            files.iter().map(of_file).collect()
        };
        let unknown = |columns: &[Option<SchemaRef>]| -> Vec<usize> { (0..files.len()).filter(|at| columns[*at].is_none()).collect() };
        let to_find = unknown(&columns);
        if to_find.is_empty() {
            return Ok(columns.into_iter().flatten().collect());
        }
        let kept = Kept::of(self, "columns", written.as_bytes()).map(Kept::small);
        if let Some(kept) = &kept {
            let mut last: Option<(Arc<[u8]>, SchemaRef)> = None;
            let found = kept.find(&to_find.iter().map(|at| &files[*at]).collect::<Vec<_>>());
            for (at, entry) in to_find.into_iter().zip(found) {
                let Some(entry) = entry else { continue };
                if last.as_ref().is_none_or(|(head, _)| *head != entry.head) {
                    let Some(schema) = kept::schema_of(&entry.head) else { continue };
                    last = Some((entry.head.clone(), Arc::new(schema)));
                }
                columns[at] = last.as_ref().map(|(_, schema)| self.remember(&files[at], number, schema));
            }
        }
        let to_read = unknown(&columns);
        let files_to_read: Vec<&DataFile> = to_read.iter().map(|at| &files[*at]).collect();
        let (parts, small) = (scan::parts(&files_to_read), self.small());
        let read = threads::map_parallel(&parts, |part| read::columns_of_each(table, part, &small))?;
        let mut new: Vec<ToKeep> = Vec::new();
        let mut last: Option<(SchemaRef, Option<Arc<[u8]>>)> = None;
        for (at, (schema, is_listed)) in to_read.into_iter().zip(read.into_iter().flatten()) {
            let schema = self.remember(&files[at], number, &schema);
            if kept.is_some() {
                // Most files have the same columns.
                let (_, head) = match last.take().filter(|(known, _)| Arc::ptr_eq(known, &schema)) {
                    Some(known) => last.insert(known),
                    None => last.insert((schema.clone(), kept::head_of(&schema).map(Arc::from))),
                };
                new.push(ToKeep { at, is_listed, head: head.clone() });
            }
            columns[at] = Some(schema);
        }
        if let Some(kept) = kept.filter(|_| !new.is_empty()) {
            let new = threads::map_parallel(&new.chunks(NEW_TOGETHER).collect::<Vec<_>>(), |new| {
                let mut places = kept.places();
                let entry = |ToKeep { at, is_listed, head }: &ToKeep| {
                    Kept::new_entry(&mut places, &files[*at], *is_listed, self.settles, head.clone()?, Vec::new())
                };
                Ok(new.iter().map(entry).collect::<Vec<_>>())
            })?;
            let mut of_packs: BTreeMap<PackId, Vec<New>> = BTreeMap::new();
            new.into_iter().flatten().flatten().for_each(|(pack, new)| of_packs.entry(pack).or_default().push(new));
            if !of_packs.is_empty() {
                let of_packs: Vec<_> = of_packs.into_iter().map(|(pack, new)| (pack, Mutex::new(new))).collect();
                threads::map_parallel(&of_packs, |(pack, new)| {
                    kept.add(*pack, std::mem::take(&mut *new.lock().unwrap_or_else(PoisonError::into_inner)));
                    Ok(())
                })?;
                kept.evict();
            }
        }
        Ok(columns.into_iter().flatten().collect())
    }

    /// Remembers the columns of a file. Most files of a table are alike and share one description, which is returned.
    fn remember(&self, file: &DataFile, number: u64, columns: &SchemaRef) -> SchemaRef {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&last, columns) && *last != *columns {
            last.clone_from(columns);
        }
        let columns = last.clone();
        drop(last);
        if file.stamp.has_time() {
            let mut known = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
            if known.files >= MAX_REMEMBERED {
                *known = Columns::default();
            }
            let remembered = Remembered { stamp: file.stamp, columns: columns.clone() };
            let is_new = known.of.entry(number).or_default().insert(file.path.clone(), remembered).is_none();
            known.files += usize::from(is_new);
        }
        columns
    }

    /// The columns of a table in shape, and whether they may be older than the table; `None` if it has no file.
    pub(crate) fn recent_schema(&self, table: &Table) -> Result<(Option<SchemaRef>, bool)> {
        if let Some(schema) = self.recent(table).and_then(|whole| whole.schema.clone()) {
            return Ok((Some(schema), true));
        }
        let _one = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = self.recent(table).and_then(|whole| whole.schema.clone()) {
            return Ok((Some(schema), true));
        }
        Ok((self.all_files(&place::Place::of(&self.root, table)?, table)?.1, false))
    }

    /// The columns of a table in shape; `None` if it has no file.
    ///
    /// They are those of a short time ago if no name has come or gone since. As in [`Inner::files_within`], only that a file was written again in
    /// place may not be noticed, for that short time.
    pub(crate) fn described(&self, place: &place::Place, table: &Table) -> Result<Option<SchemaRef>> {
        if let Some(whole) = self.recent(table)
            && whole.schema.is_some()
            && whole.has_all_names()
        {
            return Ok(whole.schema.clone());
        }
        Ok(self.all_files(place, table)?.1)
    }

    /// The files of a table that may hold rows within bounds, and perhaps others; and the columns of the table in shape, `None` if it has no
    /// file.
    ///
    /// Folders of other times are not listed again if no name in them has come or gone since all were listed, a short time ago. So rows, files and
    /// columns that have arrived are always noticed; only that another file was written again in place with other columns may not be, for that
    /// short time.
    pub(crate) fn files_within(
        &self,
        place: &place::Place,
        table: &Table,
        bounds: &TimeBounds,
    ) -> Result<(Vec<DataFile>, Option<SchemaRef>)> {
        if *bounds == TimeBounds::ALL {
            return self.all_files(place, table);
        }
        if let Some(found) = self.some_files(place, table, bounds)? {
            return Ok(found);
        }
        let _one = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.some_files(place, table, bounds)? {
            Some(found) => Ok(found),
            None => self.all_files(place, table),
        }
    }

    /// As [`Inner::files_within`], if all files were listed a short time ago, and had the same columns.
    fn some_files(&self, place: &place::Place, table: &Table, bounds: &TimeBounds) -> Result<Option<(Vec<DataFile>, Option<SchemaRef>)>> {
        let Some(whole) = self.recent(table) else { return Ok(None) };
        let files = place.find(table, Some(&|folder| place::is_elsewhere(table, folder, bounds) && whole.is_as_before(folder)))?.files;
        let columns = scan::columns_of(self, table, &files)?;
        let is_known = |columns: &SchemaRef| whole.kinds.iter().any(|kind| Arc::ptr_eq(kind, columns) || kind == columns);
        Ok(columns.iter().all(is_known).then(|| (files, whole.schema.clone())))
    }

    /// All files of a table, and its columns in shape; `None` if it has no file.
    pub(crate) fn all_files(&self, place: &place::Place, table: &Table) -> Result<(Vec<DataFile>, Option<SchemaRef>)> {
        let (now, begun) = (SystemTime::now(), Instant::now());
        let Found { files, folders } = place.find(table, None)?;
        let columns = scan::columns_of(self, table, &files)?;
        let schema = scan::merged(table, &files, &columns)?;
        let mut kinds: Vec<SchemaRef> = Vec::new();
        for columns in columns {
            let is_known = kinds.iter().any(|kind| Arc::ptr_eq(kind, &columns) || *kind == columns);
            if !is_known && kinds.len() <= MOST_KINDS {
                kinds.push(columns);
            }
        }
        let until = Instant::now() + self.fresh.max(begun.elapsed() * FRESH_LISTINGS);
        let settled = |stamp: Stamp| Some(stamp).filter(|stamp| stamp.is_settled(now, self.settles));
        let folders = folders.into_iter().map(|(path, stamp)| (path, settled(stamp))).collect();
        let mut wholes = self.wholes.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() > MOST_KINDS {
            wholes.remove(table);
            return Ok((files, schema));
        }
        wholes.retain(|_, whole| Instant::now() < whole.until);
        wholes.insert(table.clone(), Arc::new(Whole { until, folders, kinds, schema: schema.clone() }));
        Ok((files, schema))
    }

    /// A table as it was a short time ago.
    fn recent(&self, table: &Table) -> Option<Arc<Whole>> {
        let wholes = self.wholes.lock().unwrap_or_else(PoisonError::into_inner);
        wholes.get(table).filter(|whole| Instant::now() < whole.until).cloned()
    }

    /// Forgets what [`Inner::recent_schema`] remembers of a table.
    pub(crate) fn forget_schema(&self, table: &Table) {
        self.wholes.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
    }
}

impl LocalLake {
    /// What its handles share.
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The lake in a folder.
    ///
    /// # Errors
    /// `not-found` if there is no such folder, `invalid` if it is a file.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let root = match absolute.canonicalize() {
            Ok(root) => root,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                let message = format!("no folder {} for the lake; create it or correct the lake's `root`", absolute.display());
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            Err(error) => return Err(files::io_error(error, "open the lake", &absolute)),
        };
        if !files::is_folder(&root)? {
            return Err(Error::invalid(format!("{} is a file; the lake's `root` must be a folder", root.display())));
        }
        files::trust_folder(&root);
        Ok(Self { inner: Arc::new(Inner::new(root)), engine: None, meter: None })
    }

    /// The same lake, with a meter that counts the bytes which streams of it read: no call returns these.
    #[must_use]
    pub fn with_meter(self, meter: impl Into<Option<Meter>>) -> Self {
        Self { meter: meter.into(), ..self }
    }

    /// The meter, if there is one.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// The same lake, over which an engine runs users' SQL. Without one, queries are refused.
    #[must_use]
    pub fn with_query_engine(self, engine: Arc<dyn QueryEngine>) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// The same lake, in which nothing is kept of what is read. Whoever only reads it leaves it as it is.
    #[must_use]
    pub fn only_read(self) -> Self {
        let mut inner = Inner::new(self.inner.root.clone());
        inner.keeps = false;
        Self { inner: Arc::new(inner), ..self }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    fn scope(&self, scope: &StageScope<'_>) -> Scope {
        Scope::of(&self.inner.root, scope)
    }
}

#[async_trait]
impl ReadLake for LocalLake {
    fn is_queried(&self) -> bool {
        false
    }

    fn hides_rows(&self) -> bool {
        true
    }

    fn place(&self, table: &Table) -> String {
        let place = place::Place::of(&self.inner.root, table).map_or_else(|_| self.inner.root.join(&table.location), |place| place.data);
        // A path that does not exist yet cannot be resolved.
        let place = place.canonicalize().unwrap_or(place);
        let parts: Vec<_> = place.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        parts.join("/")
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        let (lake, named) = (self.inner.clone(), table.clone());
        let place = blocking(move || place::Place::to_read(&lake.root, &named)).await?.repairs;
        Ok(Table { name: overlay::repairs(&table.name), location: place.to_string_lossy().into_owned(), ..table.of_repairs() })
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        let (lake, table) = (self.inner.clone(), table.clone());
        blocking(move || scan::describe(&lake, &table)).await
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        let (lake, table, request) = (self.inner.clone(), table.clone(), request.clone());
        blocking(move || presence::presence(&lake, &table, &request)).await
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        let (lake, table, request, pieces) = (self.inner.clone(), table.clone(), request.clone(), pieces.to_vec());
        threads::stream_ahead(1, move |sink| presence::in_pieces(&lake, &table, &request, &pieces, sink))
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        let (lake, table, interval) = (self.inner.clone(), table.clone(), interval.copied());
        let all = blocking(move || extent::extents(&lake, &table, &[interval])).await?;
        all.into_iter().next().ok_or_else(|| Error::internal("there is no extent of an interval"))
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        let (lake, table) = (self.inner.clone(), table.clone());
        let intervals: Vec<Option<Interval>> = intervals.iter().copied().map(Some).collect();
        blocking(move || extent::extents(&lake, &table, &intervals)).await
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        let (lake, table, request) = (self.inner.clone(), table.clone(), request.clone());
        let scan = blocking(move || scan::Scan::new(&lake, &table, &request)).await?;
        Ok(scan::stream(Arc::new(scan.metered(self.meter.clone()))))
    }

    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        let (lake, table, request) = (self.inner.clone(), table.clone(), request.clone());
        blocking(move || rollup::rollup(&lake, &table, &request)).await
    }

    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        let (lake, table, request) = (self.inner.clone(), table.clone(), request.clone());
        blocking(move || row_count::row_counts(&lake, &table, &request)).await
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        let (lake, table) = (self.inner.clone(), table.clone());
        blocking(move || retract::retractions(&table, &place::Place::to_read(&lake.root, &table)?)).await
    }

    async fn query(&self, query: &repair_core::lake::Query<'_>) -> Result<BatchStream> {
        match &self.engine {
            Some(engine) => engine.query(self, query).await,
            None => {
                Err(Error::invalid("this lake has no engine for SQL, such as the feature `sql` brings").hint(Hint::Feature { name: "sql" }))
            }
        }
    }
}

#[async_trait]
impl Overlay for LocalLake {
    /// Only files are written.
    async fn to_create(&self, table: &Table) -> Result<Vec<String>> {
        let (lake, table) = (self.inner.clone(), table.clone());
        blocking(move || place::Place::to_read(&lake.root, &table)).await?;
        Ok(Vec::new())
    }

    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        let (lake, scope, request) = (self.inner.clone(), self.scope(scope), stage::Request::of(request));
        // Encoding takes memory, and few do it at once; many may wait for the disk.
        let one_of_few =
            self.inner.encoding.acquire().await.map_err(|error| Error::internal("no unit is staged any more").because(error))?;
        let prepared = on_its_own_thread("stage", move || stage::prepare(&lake, &scope, &request)).await?;
        drop(one_of_few);
        blocking(move || prepared.keep()).await
    }

    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        let scope = self.scope(scope);
        blocking(move || stage::staged(&scope)).await
    }

    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        let object = name::object(scope, batch);
        let (lake, scope, units) = (self.inner.clone(), self.scope(scope), units.to_vec());
        on_its_own_thread("publish", move || publish::publish(&lake, &scope, &object, &units)).await
    }

    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        let (scope, units) = (self.scope(scope), units.to_vec());
        blocking(move || stage::discard(&scope, &units)).await
    }

    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        let (lake, table, retraction) = (self.inner.clone(), table.clone(), retraction.clone());
        blocking(move || retract::retract(&lake, &table, &retraction)).await
    }

    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        let (lake, table) = (self.inner.clone(), table.clone());
        blocking(move || compact::compactable(&lake, &table)).await
    }

    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>> {
        let (lake, table, objects) = (self.inner.clone(), table.clone(), objects.clone());
        on_its_own_thread("compact", move || compact::compact(&lake, &table, &objects)).await
    }

    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        let (lake, table, compacted) = (self.inner.clone(), table.clone(), compacted.clone());
        blocking(move || compact::discard(&lake, &table, &compacted)).await
    }
}

#[async_trait]
impl Artifacts for LocalLake {
    async fn put_artifact(&self, run: &str, name: &str, mut batches: BatchStream) -> Result<Usage> {
        let (lake, run, name) = (self.inner.clone(), run.to_owned(), name.to_owned());
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Option<RecordBatch>>(threads::BATCHES_AHEAD);
        // The end is sent too; if the sender stops without it, nothing is written.
        let mut next = move || receiver.blocking_recv().ok_or_else(|| Error::internal("the rows to write ended early"));
        let writing = tokio::task::spawn_blocking(move || artifact::put(&lake.root, &run, &name, &mut next));
        let mut failed = None;
        loop {
            let next = match batches.next().await.transpose() {
                Ok(next) => next,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let is_end = next.is_none();
            // A writer that no longer listens has failed; its error is returned below.
            if sender.send(next).await.is_err() || is_end {
                break;
            }
        }
        drop(sender);
        let written = writing.await.map_err(|error| Error::internal("a thread of the lake panicked").because(error))?;
        failed.map_or(written, Err)
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        let (lake, run, name) = (self.inner.clone(), run.to_owned(), name.to_owned());
        let opened = blocking(move || artifact::open(&lake.root, &run, &name)).await?;
        Ok(threads::stream_of(move |sink| opened.read(sink)))
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        let lake = self.inner.clone();
        let [from, to] = [from, to].map(|of| (of.run.to_owned(), of.name.to_owned()));
        blocking(move || artifact::copy(&lake.root, (&from.0, &from.1), (&to.0, &to.1))).await
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        let lake = self.inner.clone();
        blocking(move || artifact::kept(&lake.root)).await
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        let (lake, objects) = (self.inner.clone(), objects.to_vec());
        blocking(move || artifact::remove_kept(&lake.root, &objects)).await
    }
}

#[async_trait]
impl Lake for LocalLake {
    /// What calls return is counted by whoever gets it; what streams read, by the meter.
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>> {
        Some(Arc::new(self.clone().with_meter(caller.meter.clone())))
    }

    async fn check_writable(&self) -> Result<()> {
        let lake = self.inner.clone();
        blocking(move || {
            files::check_writable(&lake.root)?;
            // The caller is about to write.
            files::remove_abandoned(&place::own_folder(&lake.root));
            Ok(())
        })
        .await
    }

    async fn check_state(&self) -> Result<StateCheck> {
        let lake = self.inner.clone();
        blocking(move || state::check(&lake.root)).await
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        let (lake, table, interval) = (self.inner.clone(), table.clone(), *interval);
        blocking(move || replace::replace(&lake, &table, &interval, &rows)).await
    }
}

//! The lake of files in a folder.

use std::collections::HashMap;
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
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::rollup::Rollup;
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake, RowCountRequest,
    RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck, name,
};
use repair_core::model::Usage;
use repair_core::model::{Interval, SlotRange, Table, TablePresence};
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile, blocking, on_its_own_thread};
use crate::stage::{self, Scope};
use crate::{artifact, extent, place, presence, publish, read, replace, retract, rollup, row_count, scan, sql, state};

/// The number of files whose columns are remembered.
const MAX_REMEMBERED: usize = 100_000;

/// For this long the columns of a table are reused for units that are staged. Otherwise, staging thousands of units would list all files of
/// the table thousands of times.
const FRESH: Duration = Duration::from_secs(5);

/// Tables of files in a folder: Parquet, CSV and JSON lines. Cheap to clone.
///
/// Every call looks at the files again, so it sees rows that have arrived.
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
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    columns: Mutex<HashMap<(PathBuf, u64), Remembered>>,
    last: Mutex<SchemaRef>,
    schemas: Mutex<HashMap<Table, (Instant, SchemaRef)>>,
}

/// The columns of a file, valid as long as its size and time stay the same.
#[derive(Debug)]
struct Remembered {
    bytes: u64,
    changed: SystemTime,
    columns: SchemaRef,
}

impl Inner {
    /// The columns of a file, as it has them.
    pub(crate) fn columns(&self, table: &Table, file: &DataFile) -> Result<SchemaRef> {
        let changed = std::fs::metadata(&file.path).and_then(|metadata| metadata.modified()).ok();
        let known = || self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        // What a file's columns are depends on how the table says that it is written.
        let mut hasher = DefaultHasher::new();
        (table.format, &table.csv, &table.nulls, &table.columns, read::quarantines(table)).hash(&mut hasher);
        let of = (file.path.clone(), hasher.finish());
        if let (Some(known), Some(changed)) = (known().get(&of), changed)
            && (known.bytes, known.changed) == (file.bytes, changed)
        {
            return Ok(known.columns.clone());
        }
        let mut columns = read::columns(table, file)?;
        if let Some(changed) = changed {
            let mut known = known();
            if known.len() >= MAX_REMEMBERED {
                known.clear();
            }
            // Most files of a table are alike and share one description.
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last != columns {
                last.clone_from(&columns);
            }
            columns = last.clone();
            known.insert(of, Remembered { bytes: file.bytes, changed, columns: columns.clone() });
        }
        Ok(columns)
    }

    /// The columns of a table in shape, at most [`FRESH`] old, and whether they may be older than the table; `None` if it has no file.
    pub(crate) fn recent_schema(&self, table: &Table) -> Result<(Option<SchemaRef>, bool)> {
        let recent = || self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, schema)) = recent().get(table)
            && at.elapsed() < FRESH
        {
            return Ok((Some(schema.clone()), true));
        }
        let schema = scan::schema_of(self, table, &place::Place::of(&self.root, table)?.files(table)?)?;
        let mut recent = recent();
        recent.retain(|_, (at, _)| at.elapsed() < FRESH);
        if let Some(schema) = &schema {
            recent.insert(table.clone(), (Instant::now(), schema.clone()));
        }
        Ok((schema, false))
    }

    /// Forgets what [`Inner::recent_schema`] remembers of a table.
    pub(crate) fn forget_schema(&self, table: &Table) {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
    }
}

impl LocalLake {
    /// What its handles share.
    #[cfg(feature = "sql")]
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
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                columns: Mutex::default(),
                last: Mutex::new(Arc::new(Schema::empty())),
                schemas: Mutex::default(),
            }),
        })
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
        scan::stream_ahead(1, move |sink| presence::in_pieces(&lake, &table, &request, &pieces, sink))
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        let (lake, table, interval) = (self.inner.clone(), table.clone(), interval.copied());
        blocking(move || extent::extent(&lake, &table, interval.as_ref())).await
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        let (lake, table, request) = (self.inner.clone(), table.clone(), request.clone());
        let scan = blocking(move || scan::Scan::new(&lake, &table, &request)).await?;
        Ok(scan::stream(Arc::new(scan)))
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

    async fn query(&self, tables: &[Table], sql: &str) -> Result<BatchStream> {
        sql::query(&self.inner, tables, sql).await
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
        blocking(move || stage::stage(&lake, &scope, &request)).await
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
}

#[async_trait]
impl Artifacts for LocalLake {
    async fn put_artifact(&self, run: &str, name: &str, mut batches: BatchStream) -> Result<Usage> {
        let (lake, run, name) = (self.inner.clone(), run.to_owned(), name.to_owned());
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Option<RecordBatch>>(scan::BATCHES_AHEAD);
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
        Ok(scan::stream_of(move |sink| opened.read(sink)))
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        let lake = self.inner.clone();
        let [from, to] = [from, to].map(|of| (of.run.to_owned(), of.name.to_owned()));
        blocking(move || artifact::copy(&lake.root, (&from.0, &from.1), (&to.0, &to.1))).await
    }
}

#[async_trait]
impl Lake for LocalLake {
    fn on_behalf_of(&self, _: &Caller) -> Option<Arc<dyn Lake>> {
        None
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

//! The lake on S3 and Athena.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use repair_core::lake::extent::Extent;
use repair_core::lake::overlay;
use repair_core::lake::overlay::compaction::{Compactable, Compacted};
use repair_core::lake::overlay::owner::Owner;
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::pieces;
use repair_core::lake::rollup::{self, Rollup};
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck,
};
use repair_core::model::Usage;
use repair_core::model::{Interval, SlotRange, Table, TablePresence};
use repair_core::{Error, Result};

use crate::place;

use crate::athena::{Athena, Behalf, Polling, Settings};
use crate::catalog::Relation;
use crate::connect::Connection;
use crate::objects::{Location, Objects};
use crate::place::{OWN, Place};
use crate::sql::Source;
use crate::tables::{Known, Tables};

/// The settings of a lake on S3 and Athena.
#[derive(Debug, Clone)]
pub struct AwsOptions {
    /// The bucket and prefix below which we write, and nowhere else: `s3://bucket/lake`.
    pub location: String,
    /// The database that has the tables.
    pub database: String,
    /// The catalog that has the database; `AwsDataCatalog` is Glue's.
    pub catalog: String,
    /// The workgroup that runs queries and is billed for them. `{tag}` stands for a tag of the workflow: `repair-{idea}` bills strategies
    /// apart.
    pub workgroup: String,
    /// Creates a missing workgroup, with the workflow's tags.
    pub create_workgroups: bool,
    /// Where results go, unless the workgroup says; `None` is within the lake.
    pub results: Option<String>,
    /// A query that reads more bytes is stopped. It is also the cutoff of a workgroup that we create.
    pub bytes_limit: Option<u64>,
    /// How often Athena is asked whether queries have ended.
    pub polling: Polling,
    /// Whether users' queries leave nothing in the lake and the catalog, as is due in the lake of others: relations and repaired views are then part of
    /// the statement, and results go to `results` or where the workgroup says.
    pub only_read: bool,
}

impl AwsOptions {
    /// The settings of a typical lake.
    pub fn new(location: impl Into<String>, database: impl Into<String>, workgroup: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            database: database.into(),
            catalog: "AwsDataCatalog".to_owned(),
            workgroup: workgroup.into(),
            create_workgroups: false,
            results: None,
            bytes_limit: None,
            polling: Polling::default(),
            only_read: false,
        }
    }
}

/// Tables of objects in S3, which Athena reads. Cheap to clone.
///
/// - A table is what Athena's catalog says: its columns, its partitions, its place. It has the same name there as in the workflow.
/// - Times are milliseconds, as Athena reads them.
/// - The overlay lies in S3 beside the table, as Parquet, and is in the catalog as `…_repairs`, `…_exceptions`, `…_retractions` and the
///   view `…_repaired`. These are created when they are first needed. Nothing else in the catalog or the bucket is changed. An overlay
///   belongs to one location, as its record says, and overlays below a table's location are not its rows.
/// - Batches leave out columns of arrays, maps, structs and bytes; the view has them, null in repaired rows.
#[derive(Clone)]
pub struct AwsLake {
    pub(crate) shared: Arc<Shared>,
    pub(crate) behalf: Option<Arc<Behalf>>,
}

pub(crate) struct Shared {
    pub(crate) athena: Athena,
    pub(crate) objects: Objects,
    pub(crate) location: Location,
    pub(crate) only_read: bool,
    pub(crate) known: Known,
    /// Retractions by their keys. Their objects never change.
    pub(crate) retractions: Mutex<HashMap<String, Retraction>>,
    /// Whose overlays are, by the keys of their records, and when that was read.
    owners: Mutex<HashMap<String, (Instant, Option<Owner>)>>,
}

impl Shared {
    pub(crate) fn owners(&self) -> MutexGuard<'_, HashMap<String, (Instant, Option<Owner>)>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table with what the catalog knows about it and its overlay.
pub(crate) struct Looked {
    pub(crate) raw: Relation,
    pub(crate) repairs: Option<Relation>,
    pub(crate) exceptions: Option<Relation>,
    /// The retractions of both; `None` if there are none.
    pub(crate) retracted: Option<Relation>,
}

impl AwsLake {
    /// The lake of a bucket and a database. This makes no request to AWS.
    ///
    /// # Errors
    /// `invalid` if a location is not a place in S3.
    pub fn open(connection: &Connection, options: AwsOptions) -> Result<Self> {
        let location = Location::parse(&options.location)?;
        let results = match options.results {
            Some(results) => Some(Location::parse(&results)?),
            None if options.only_read => None,
            None => Some(location.join(&format!("{OWN}/results"))),
        };
        let apart = options.only_read.then(|| format!("{}.{}", options.catalog, options.database));
        let settings = Settings {
            apart,
            catalog: options.catalog,
            database: options.database.to_ascii_lowercase(),
            workgroup: options.workgroup,
            create_workgroups: options.create_workgroups && !options.only_read,
            results: results.map(|results| format!("{results}/")),
            bytes_limit: options.bytes_limit,
            polling: options.polling,
        };
        let shared = Shared {
            athena: Athena::new(connection.athena(), settings, connection.patience()),
            objects: Objects::new(connection.s3(), &location.bucket, connection.patience()),
            location,
            only_read: options.only_read,
            known: Known::default(),
            retractions: Mutex::default(),
            owners: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), behalf: None })
    }

    pub(crate) fn tables(&self) -> Tables<'_> {
        let Shared { athena, location, known, .. } = self.shared.as_ref();
        Tables { athena, known, lake: location, behalf: self.behalf.as_deref() }
    }

    /// What is known of a table and its overlay. Checks that the table is usable.
    pub(crate) async fn look_up(&self, table: &Table) -> Result<(Looked, SchemaRef)> {
        let tables = self.tables();
        let raw = tables.table(table).await?;
        let schema = raw.shape(table)?;
        let (repairs, exceptions) = (tables.repairs(&raw).await?, tables.exceptions(&raw).await?);
        if repairs.is_some() || exceptions.is_some() {
            self.check_owner(table, Some(&raw)).await?;
        }
        // Without repairs or exceptions there is nothing to retract.
        let retracted = if repairs.is_some() || exceptions.is_some() { self.retracted(table, &raw).await? } else { None };
        Ok((Looked { raw, repairs, exceptions, retracted }, schema))
    }

    /// Counts usage that no call returns.
    pub(crate) fn meter(&self, usage: Usage) {
        if let Some(behalf) = &self.behalf {
            behalf.caller.meter.add(usage);
        }
    }
}

impl Looked {
    pub(crate) fn source<'a>(&'a self, table: &'a Table) -> Source<'a> {
        Source {
            table,
            raw: &self.raw,
            repairs: self.repairs.as_ref(),
            exceptions: self.exceptions.as_ref(),
            retracted: self.retracted.as_ref(),
        }
    }
}

#[async_trait]
impl ReadLake for AwsLake {
    fn is_queried(&self) -> bool {
        true
    }

    /// Athena knows all tables and views of its catalogs, and any of them may show the same rows.
    fn hides_rows(&self) -> bool {
        false
    }

    fn place(&self, table: &Table) -> String {
        // A location that is not in a bucket is refused by whatever reads it.
        Place::of(&self.shared.location, table).map_or_else(|_| table.location.clone(), |place| place.data.to_string())
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        self.check_owner_by_name(table).await?;
        let place = Place::of(&self.shared.location, table)?;
        let location = format!("s3://{}/{}", self.shared.location.bucket, place.repairs);
        Ok(Table { name: overlay::repairs(&table.name), location, ..table.of_repairs() })
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        let raw = self.tables().table(table).await?;
        let shape = raw.shape(table)?;
        self.check_clock(table, &raw).await?;
        Ok(shape)
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        self.look_at(table, request).await
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        pieces::one_by_one(self, table, request, pieces)
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        let all = self.size_up(table, &[interval.copied()]).await?;
        all.into_iter().next().ok_or_else(|| Error::internal("there is no extent of an interval"))
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        let intervals: Vec<Option<Interval>> = intervals.iter().copied().map(Some).collect();
        self.size_up(table, &intervals).await
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        request.refuse_files(table, "Athena")?;
        self.read(table, request).await
    }

    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        let (sums, mut usage) = self.sum_up(table, &Rollup { absent_as_of: None, ..request.clone() }).await?;
        let Some(as_of) = request.absent_as_of else { return Ok((sums, usage)) };
        // After the rows: see `with_absent`.
        let asked = PresenceRequest::new(table.grid()?.slots_in(&request.interval), request.keys.clone(), as_of);
        let presence = self.look_at(table, &asked).await?;
        usage += presence.usage;
        Ok((rollup::with_absent(table, request, &sums, &presence)?, usage))
    }

    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        self.count_rows(table, request).await
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        self.taken_back(table).await
    }

    async fn query(&self, query: &repair_core::lake::Query<'_>) -> Result<BatchStream> {
        self.ask(query).await
    }
}

#[async_trait]
impl Overlay for AwsLake {
    async fn to_create(&self, table: &Table) -> Result<Vec<String>> {
        self.check_owner_by_name(table).await?;
        self.tables().missing(table).await
    }

    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        self.keep(scope, request).await
    }

    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        self.kept(scope).await
    }

    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        self.show(scope, batch, units).await
    }

    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        self.discard(scope, units).await
    }

    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        self.take_back(table, retraction).await
    }

    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        self.list_compactable(table).await
    }

    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>> {
        self.write_compacted(table, objects).await
    }

    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        self.remove_members(table, compacted).await
    }
}

#[async_trait]
impl Artifacts for AwsLake {
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage> {
        self.write_artifact(run, name, batches).await
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        self.read_artifact(run, name).await
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        let batches = self.read_artifact(from.run, from.name).await?;
        self.write_artifact(to.run, to.name, batches).await
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        let areas = place::areas(&self.shared.location);
        let objects = self.shared.objects.list(&areas).await?;
        let mut kept: Vec<KeptObject> =
            objects.iter().filter_map(|object| KeptObject::at(object.key.strip_prefix(&areas)?, object.bytes)).collect();
        kept.sort();
        Ok(kept)
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        let areas = place::areas(&self.shared.location);
        let keys = objects.iter().map(|kept| Ok(format!("{areas}{}", kept.path()?))).collect::<Result<Vec<String>>>()?;
        self.shared.objects.delete(&keys).await
    }
}

#[async_trait]
impl Lake for AwsLake {
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>> {
        Some(Arc::new(Self { shared: self.shared.clone(), behalf: Some(Arc::new(Behalf::new(caller.clone()))) }))
    }

    async fn check_writable(&self) -> Result<()> {
        let key = self.shared.location.join(&format!("{OWN}/write-test")).prefix;
        self.shared.objects.put(&key, bytes::Bytes::new(), crate::objects::Condition::Always).await?;
        self.shared.objects.delete(&[key]).await
    }

    async fn check_state(&self) -> Result<StateCheck> {
        self.check_objects().await
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        self.put_interval(table, interval, &rows).await
    }
}

/// The error for a result that does not match its statement.
pub(crate) fn odd_result() -> Error {
    Error::internal("Athena returned a result that does not match its statement")
}

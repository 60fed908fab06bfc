//! A lake and sources that answer nothing: what plug-ins refuse before they read. A [rehearsal](super::rehearsal) works on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::columns::typed_columns;
use repair_core::lake::extent::Extent;
use repair_core::lake::overlay::compaction::{Compactable, Compacted};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::rollup::Rollup;
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck, pieces,
};
use repair_core::model::{Interval, SlotRange, Table, TablePresence, Usage};
use repair_core::plugin::{Answer, Limits, Request, Source, StepContext};
use repair_core::{Error, ErrorKind, Result};

/// Whether something was asked for. What a plug-in says after that may follow from the missing answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Whether something was asked for.
    pub(super) fn was(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn refuse<T>(&self) -> Result<T> {
        self.0.store(true, Ordering::SeqCst);
        Err(Error::new(ErrorKind::Blind, "nothing is read in a rehearsal"))
    }
}

/// A lake that knows where tables are and which columns they have, as far as that is known without it, and nothing of what is in them.
pub(super) struct UnreadLake {
    pub(super) asked: Asked,
    /// The lake that says which columns tables have; if there is none, only those are known that the workflow declares with their types.
    pub(super) described_by: Option<Arc<dyn Lake>>,
}

impl UnreadLake {
    fn refuse<T>(&self) -> Result<T> {
        self.asked.refuse()
    }
}

/// A source that knows its limits, and is not asked.
pub(super) struct UnreadSource {
    pub(super) asked: Asked,
    pub(super) inner: Arc<dyn Source>,
}

#[async_trait]
impl Source for UnreadSource {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn requests_at_worst(&self) -> u64 {
        self.inner.requests_at_worst()
    }

    async fn ready(&self) -> Result<()> {
        self.asked.refuse()
    }

    async fn fetch(&self, _: &StepContext, _: &Request) -> Result<Answer> {
        self.asked.refuse()
    }
}

#[async_trait]
impl ReadLake for UnreadLake {
    fn place(&self, table: &Table) -> String {
        table.location.clone()
    }

    fn is_queried(&self) -> bool {
        false
    }

    fn hides_rows(&self) -> bool {
        false
    }

    async fn repairs_of(&self, _: &Table) -> Result<Table> {
        self.refuse()
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        let known = match &self.described_by {
            Some(lake) => lake.describe(table).await.ok(),
            None => typed_columns(table),
        };
        known.map_or_else(|| self.refuse(), Ok)
    }

    async fn presence(&self, _: &Table, _: &PresenceRequest) -> Result<TablePresence> {
        self.refuse()
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        pieces::one_by_one(self, table, request, pieces)
    }

    async fn extent(&self, _: &Table, _: Option<&Interval>) -> Result<Extent> {
        self.refuse()
    }

    async fn extents(&self, _: &Table, _: &[Interval]) -> Result<Vec<Extent>> {
        self.refuse()
    }

    async fn scan(&self, _: &Table, _: &ScanRequest) -> Result<BatchStream> {
        self.refuse()
    }

    async fn rollup(&self, _: &Table, _: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        self.refuse()
    }

    async fn row_counts(&self, _: &Table, _: &RowCountRequest) -> Result<RowCounts> {
        self.refuse()
    }

    async fn retractions(&self, _: &Table) -> Result<Vec<Retraction>> {
        self.refuse()
    }

    async fn query(&self, _: &repair_core::lake::Query<'_>) -> Result<BatchStream> {
        self.refuse()
    }
}

#[async_trait]
impl Overlay for UnreadLake {
    async fn to_create(&self, _: &Table) -> Result<Vec<String>> {
        self.refuse()
    }

    async fn stage(&self, _: &StageScope<'_>, _: &StageRequest<'_>) -> Result<Staged> {
        self.refuse()
    }

    async fn staged(&self, _: &StageScope<'_>) -> Result<Vec<Staged>> {
        self.refuse()
    }

    async fn publish(&self, _: &StageScope<'_>, _: u32, _: &[String]) -> Result<Published> {
        self.refuse()
    }

    async fn discard_staged(&self, _: &StageScope<'_>, _: &[String]) -> Result<()> {
        self.refuse()
    }

    async fn retract(&self, _: &Table, _: &Retraction) -> Result<()> {
        self.refuse()
    }

    async fn compactable(&self, _: &Table) -> Result<Vec<Compactable>> {
        self.refuse()
    }

    async fn compact(&self, _: &Table, _: &Compactable) -> Result<Vec<Compacted>> {
        self.refuse()
    }

    async fn discard_compacted(&self, _: &Table, _: &Compacted) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl Artifacts for UnreadLake {
    async fn put_artifact(&self, _: &str, _: &str, _: BatchStream) -> Result<Usage> {
        self.refuse()
    }

    async fn get_artifact(&self, _: &str, _: &str) -> Result<BatchStream> {
        self.refuse()
    }

    async fn copy_artifact(&self, _: ArtifactName<'_>, _: ArtifactName<'_>) -> Result<Usage> {
        self.refuse()
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        self.refuse()
    }

    async fn remove_kept(&self, _: &[KeptObject]) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl Lake for UnreadLake {
    fn on_behalf_of(&self, _: &Caller) -> Option<Arc<dyn Lake>> {
        None
    }

    async fn check_writable(&self) -> Result<()> {
        self.refuse()
    }

    async fn check_state(&self) -> Result<StateCheck> {
        self.refuse()
    }

    async fn replace(&self, _: &Table, _: &Interval, _: Vec<RecordBatch>) -> Result<Usage> {
        self.refuse()
    }
}

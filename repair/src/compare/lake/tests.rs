//! A mask that hides nothing changes nothing: what is read through it passes the whole lake suite.

use std::collections::BTreeSet;

use repair_core::model::{Cadence, Rows};
use repair_core::testing::{MemoryLake, lake_suite};

use super::*;

/// Reads each table through a mask of its own that hides nothing, and replaces tables and keeps artifacts in a masked lake. Repairs go to
/// the lake behind, since a masked lake accepts only repairs of hidden slots.
struct SeenThroughMasks {
    behind: MemoryLake,
    kept: MaskedLake,
    replaced: Mutex<BTreeSet<String>>,
}

impl SeenThroughMasks {
    fn new(behind: &MemoryLake) -> Self {
        let kept = masked(behind, &Table::implicit("nowhere", "ts"));
        Self { behind: behind.clone(), kept, replaced: Mutex::default() }
    }

    fn seen(&self, table: &Table) -> MaskedLake {
        let is_replaced = self.replaced.lock().unwrap().contains(&table.location);
        if is_replaced { self.kept.clone() } else { masked(&self.behind, table) }
    }
}

fn masked(behind: &MemoryLake, table: &Table) -> MaskedLake {
    // A table without cadence has no slots that could be hidden, so any grid will do.
    let cadence = table.cadence.or(Some(Cadence::MINUTE));
    let grid = Table { cadence, rows: Rows::One, ..table.clone() }.grid().unwrap();
    MaskedLake::new(Arc::new(behind.clone()), table.clone(), Mask::nothing(grid), &[])
}

#[async_trait]
impl ReadLake for SeenThroughMasks {
    fn is_queried(&self) -> bool {
        false
    }

    fn hides_rows(&self) -> bool {
        self.kept.hides_rows()
    }

    fn place(&self, table: &Table) -> String {
        self.seen(table).place(table)
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        self.seen(table).repairs_of(table).await
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        self.seen(table).describe(table).await
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        self.seen(table).presence(table, request).await
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        pieces::of_whole(self, table, request, pieces)
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        self.seen(table).extents(table, intervals).await
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        self.seen(table).extent(table, interval).await
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        self.seen(table).scan(table, request).await
    }

    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        self.seen(table).rollup(table, request).await
    }

    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        self.seen(table).row_counts(table, request).await
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        self.seen(table).retractions(table).await
    }

    async fn query(&self, query: &repair_core::lake::Query<'_>) -> Result<BatchStream> {
        self.kept.query(query).await
    }
}

#[async_trait]
impl Overlay for SeenThroughMasks {
    async fn to_create(&self, table: &Table) -> Result<Vec<String>> {
        self.seen(table).to_create(table).await
    }

    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        self.behind.stage(scope, request).await
    }

    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        self.behind.staged(scope).await
    }

    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        self.behind.publish(scope, batch, units).await
    }

    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        self.behind.discard_staged(scope, units).await
    }

    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        self.behind.retract(table, retraction).await
    }

    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        self.behind.compactable(table).await
    }

    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>> {
        self.behind.compact(table, objects).await
    }

    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        self.behind.discard_compacted(table, compacted).await
    }
}

#[async_trait]
impl Artifacts for SeenThroughMasks {
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage> {
        self.kept.put_artifact(run, name, batches).await
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        self.kept.get_artifact(run, name).await
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        self.kept.copy_artifact(from, to).await
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        self.kept.kept().await
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        self.kept.remove_kept(objects).await
    }
}

#[async_trait]
impl Lake for SeenThroughMasks {
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>> {
        self.kept.on_behalf_of(caller)
    }

    async fn check_writable(&self) -> Result<()> {
        self.kept.check_writable().await
    }

    async fn check_state(&self) -> Result<StateCheck> {
        self.kept.check_state().await
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        let usage = self.kept.replace(table, interval, rows).await?;
        self.replaced.lock().unwrap().insert(table.location.clone());
        Ok(usage)
    }
}

#[tokio::test]
async fn a_mask_that_hides_nothing_changes_nothing() {
    let behind = MemoryLake::default();
    let lake = SeenThroughMasks::new(&behind);
    lake_suite::all(&lake, &behind).await;
    lake_suite::all_of_retractions(&lake, &behind, 0..2, 14).await;
    assert!(!lake.replaced.lock().unwrap().is_empty(), "tables were replaced");
    assert_eq!((behind.requests("replace"), behind.requests("put_artifact")), (0, 0), "nothing is written to the lake behind");
}

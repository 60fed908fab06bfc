//! What an adapter implements so that workflows run on its lake. Nothing above these traits may ask which lake it has.
//!
//! [`Lake`] is the sum of three traits: [`ReadLake`] reads tables, [`Overlay`] writes repairs beside them, and [`Artifacts`] keeps what a
//! run needs later. No method has a default, so a wrapper that forgets one does not compile. What any lake can do on top of them is a
//! function, such as [`rollup::by_scan`] and [`on_behalf_of`].

mod artifact;
pub mod extent;
pub mod known;
pub mod name;
pub mod notified;
pub mod overlay;
pub mod partition;
pub mod pieces;
pub mod program;
pub mod query;
mod read;
pub mod replacement;
pub mod rollup;
pub mod row_count;
pub mod said;
pub mod seal;
pub mod shape;
pub mod stale;
pub mod standing;
pub mod veil;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::artifact::{ArtifactName, Artifacts, KeptObject};
pub use self::overlay::operations::{Overlay, Published, StageRequest, StageScope, Staged};
pub use self::query::Query;
pub use self::read::{BatchStream, FILE, Layer, PresenceRequest, PresenceStream, ReadLake, ScanRequest};
pub use self::row_count::{RowCountRequest, RowCounts};
use crate::error::Result;
use crate::model::{Interval, Table, Usage};
use crate::price::Meter;

/// The attempt of a step that a lake is used for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Caller {
    /// The run.
    pub run: Arc<str>,
    /// The step.
    pub step: Arc<str>,
    /// Which visit of the step, from 1.
    pub visit: u32,
    /// Which attempt of the visit, from 1. It stays the same after a crash, so the lake may take up what the attempt had begun.
    pub attempt: u32,
    /// The workflow's tags.
    pub tags: Arc<BTreeMap<String, String>>,
    /// Counts usage that no call returns.
    pub meter: Meter,
    /// Cancelled when the attempt is to stop. The lake then ends its queries, and counts what they used.
    pub cancel: CancellationToken,
}

impl Caller {
    /// An attempt without tags, with a meter and a token of its own.
    pub fn new(run: impl Into<Arc<str>>, step: impl Into<Arc<str>>, visit: u32, attempt: u32) -> Self {
        Self {
            run: run.into(),
            step: step.into(),
            visit,
            attempt,
            tags: Arc::default(),
            meter: Meter::default(),
            cancel: CancellationToken::new(),
        }
    }

    /// Sets the workflow's tags.
    #[must_use]
    pub fn with_tags(mut self, tags: Arc<BTreeMap<String, String>>) -> Self {
        self.tags = tags;
        self
    }

    /// Counts usage with this meter.
    #[must_use]
    pub fn with_meter(mut self, meter: Meter) -> Self {
        self.meter = meter;
        self
    }

    /// Stops when this token is cancelled.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }
}

/// Tables in files or objects, each with an overlay of repairs beside it.
///
/// Batches have one shape in both directions: key columns as UTF-8, the time column as microseconds in UTC, all others as the table has
/// them. After a crash every method may be called again with the same arguments: names of objects follow from the arguments, so writing
/// twice has the effect of writing once. A call that is dropped leaves no object that readers see in part.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
/// use futures::TryStreamExt;
/// use jiff::Timestamp;
/// use repair_core::lake::{Lake, Layer, ScanRequest, StageRequest, StageScope};
/// use repair_core::model::{Cadence, Fix, Table};
/// use repair_core::testing::MemoryLake;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bars = Table { key: vec!["symbol".into()], cadence: Some(Cadence::MINUTE), ..Table::implicit("bars", "ts") };
/// let bar = |minute: i64, close: f64| {
///     RecordBatch::try_from_iter([
///         ("symbol", Arc::new(StringArray::from(vec!["IBM"])) as _),
///         ("ts", Arc::new(TimestampMicrosecondArray::from(vec![minute * 60_000_000]).with_timezone("UTC")) as _),
///         ("close", Arc::new(Float64Array::from(vec![close])) as _),
///     ])
/// };
/// let memory = MemoryLake::default();
/// memory.put_table(&bars, &[bar(0, 187.5)?])?;
/// let lake: Arc<dyn Lake> = Arc::new(memory);
///
/// // A repair of the next minute is staged, and then published.
/// let fix = Fix { rows: vec![bar(1, 187.6)?], source: "vendor".into(), ..Fix::default() };
/// let scope = StageScope { run: "run-1", step: "fill", visit: 1, table: &bars };
/// lake.stage(&scope, &StageRequest::new("unit-1", "backfill", Timestamp::UNIX_EPOCH, &fix)).await?;
/// lake.publish(&scope, 0, &["unit-1".to_owned()]).await?;
/// lake.discard_staged(&scope, &["unit-1".to_owned()]).await?;
///
/// // The repaired view has it; the table's own rows are as before.
/// for (layer, rows) in [(Layer::Raw, 1), (Layer::Repaired, 2)] {
///     let batches: Vec<RecordBatch> = lake.scan(&bars, &ScanRequest::new(layer)).await?.try_collect().await?;
///     assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Lake: ReadLake + Overlay + Artifacts {
    /// The same lake, used on behalf of one attempt of a step; `None` if the lake serves all callers alike. A lake makes a difference if it
    /// counts queries, names them so that a resumed attempt finds what it has paid for, and ends them when the attempt is to stop.
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>>;

    /// Checks that the lake can be written to. It leaves nothing behind, unless it is dropped, and may be called at any time.
    ///
    /// # Errors
    /// `denied` with the place that cannot be written to.
    async fn check_writable(&self) -> Result<()>;

    /// Reads all objects that the lake keeps itself, those of artifacts, staged units and overlays, and says which are not what was written.
    /// Changes nothing.
    ///
    /// # Errors
    /// If they cannot be listed. An object that cannot be read is damaged.
    async fn check_state(&self) -> Result<StateCheck>;

    /// Writes a table that we own: afterwards every partition that `interval` touches holds `rows` and nothing else. Each partition is
    /// replaced atomically; a table without partitions is replaced as a whole. To replace with the same rows again changes nothing. A call
    /// that is dropped leaves each partition with its old or its new rows.
    ///
    /// # Errors
    /// `invalid` if rows lie outside the interval; `conflict` if the table holds anything we did not write: that is never replaced.
    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage>;
}

/// What [`Lake::check_state`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StateCheck {
    /// Objects that are what was written.
    pub intact: u64,
    /// Objects that can be read and have no [seal], since an earlier version wrote them.
    pub unsealed: u64,
    /// The size of all objects that were read, in bytes.
    pub bytes: u64,
    /// Objects that are not what was written, or cannot be read.
    pub damaged: Vec<Damaged>,
}

/// An object of the lake that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Where it is.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl StateCheck {
    /// Adds an object of so many bytes, and the verdict on it.
    pub fn add(&mut self, place: impl Into<String>, bytes: u64, verdict: Result<seal::Verdict>) {
        self.bytes += bytes;
        let what = match verdict {
            Ok(seal::Verdict::Intact) => return self.intact += 1,
            Ok(seal::Verdict::Unsealed) => return self.unsealed += 1,
            Ok(seal::Verdict::Changed) => "it is not what was written".to_owned(),
            Err(error) => error.full(),
        };
        self.damaged.push(Damaged { place: place.into(), what });
    }
}

/// The lake that serves a caller: one of its own, or the same for all.
pub fn on_behalf_of(lake: &Arc<dyn Lake>, caller: &Caller) -> Arc<dyn Lake> {
    lake.on_behalf_of(caller).unwrap_or_else(|| lake.clone())
}

//! Our own objects in a lake, wherever they lie, and whether they are what we wrote.

use futures::StreamExt;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use repair_core::lake::StateCheck;
use repair_core::lake::overlay::owner::{self, Owner, RECORD};
use repair_core::lake::seal::Verdict;
use repair_core::{Error, Result};

use crate::lake::AwsLake;
use crate::place::OWN;

/// Objects that are read at once.
const AT_ONCE: usize = 8;

/// Whether an object is ours, by its key below the lake's prefix.
fn is_ours(below: &str) -> bool {
    let Some((folders, name)) = below.rsplit_once('/') else { return false };
    let is_object = name.ends_with(".parquet") || name == RECORD;
    is_object && folders.split('/').enumerate().any(|(at, folder)| (at == 0 && folder == OWN) || owner::named(folder).is_some())
}

impl AwsLake {
    /// Reads all artifacts, staged units and overlays.
    pub(crate) async fn check_objects(&self) -> Result<StateCheck> {
        let prefix = &self.shared.location.prefix;
        let within = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let objects = self.shared.objects.list(&within).await?;
        let ours = objects.into_iter().filter(|object| object.key.strip_prefix(&within).is_some_and(is_ours));
        let verdicts = ours.map(|object| async move {
            let verdict = self.verdict_on(&object.key, object.bytes).await;
            (self.shared.objects.uri(&object.key), object.bytes, verdict)
        });
        let mut check = StateCheck::default();
        let mut verdicts = futures::stream::iter(verdicts).buffered(AT_ONCE);
        while let Some((place, bytes, verdict)) = verdicts.next().await {
            check.add(place, bytes, verdict);
        }
        Ok(check)
    }

    async fn verdict_on(&self, key: &str, bytes: u64) -> Result<Verdict> {
        if key.ends_with(RECORD) {
            let record = self.shared.objects.get(key).await?;
            return Owner::of_record(&record, &self.shared.objects.uri(key)).map(|_| Verdict::Intact);
        }
        let verdict = self.verdict(key, bytes).await?;
        if verdict == Verdict::Unsealed {
            // One without a seal must be readable.
            let opened = ParquetRecordBatchStreamBuilder::new(self.shared.objects.reader(key, bytes)).await;
            opened.map_err(|error| Error::invalid("it is not a readable Parquet object").because(error))?;
        }
        Ok(verdict)
    }
}

//! Retractions: one object each, written whole or not at all. Reads leave out what they hide; the view is created again, since its text
//! lists what is hidden.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use repair_core::lake::overlay::retraction;
use repair_core::lake::overlay::retraction::{Part, Retraction, in_force};
use repair_core::model::Table;
use repair_core::{Error, Result};

use crate::lake::{AwsLake, Looked};
use crate::objects::Condition;
use crate::place::Place;
use crate::write::encode;

/// Objects that are read at once.
const AT_ONCE: usize = 16;

impl AwsLake {
    pub(crate) async fn take_back(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        let rows = retraction.to_batch(table)?;
        let place = Place::of(&self.shared.location, table)?;
        let raw = self.tables().table(table).await?;
        self.claim(table, &raw).await?;
        self.tables().ensure_retractions(table, &raw).await?;
        let key = format!("{}/{}", place.retractions, retraction::object(&retraction.id));
        let body = encode(&rows.schema(), std::slice::from_ref(&rows), Vec::new())?;
        match self.shared.objects.put(&key, body, Condition::IfNoneMatch).await {
            // An existing retraction stays.
            Err(error) if error.kind() == repair_core::ErrorKind::Conflict => {}
            put => put?,
        }
        if let Some(repairs) = self.tables().repairs(&raw).await? {
            let retracted = self.retracted(table).await?;
            let looked = Looked { raw, repairs: Some(repairs.clone()), exceptions: None, retracted };
            self.tables().ensure_view(&looked.source(table), &repairs).await?;
        }
        Ok(())
    }

    /// All retractions of a table, oldest first.
    pub(crate) async fn taken_back(&self, table: &Table) -> Result<Vec<Retraction>> {
        self.check_owner_by_name(table).await?;
        let place = Place::of(&self.shared.location, table)?;
        let objects = self.shared.objects.list(&format!("{}/", place.retractions)).await?;
        let known = || self.shared.retractions.lock().unwrap_or_else(PoisonError::into_inner);
        let there: BTreeSet<String> = objects.into_iter().map(|object| object.key).filter(|key| key.ends_with(".parquet")).collect();
        let new: Vec<String> = there.iter().filter(|key| !known().contains_key(*key)).cloned().collect();
        let read = new.into_iter().map(|key| async move { Ok::<_, Error>((self.retraction(table, &key).await?, key)) });
        let read: Vec<(Retraction, String)> = futures::stream::iter(read).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut known = known();
        known.extend(read.into_iter().map(|(retraction, key)| (key, retraction)));
        let mut all: Vec<Retraction> = there.iter().filter_map(|key| known.get(key).cloned()).collect();
        all.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        Ok(all)
    }

    async fn retraction(&self, table: &Table, key: &str) -> Result<Retraction> {
        let odd = || Error::invalid(format!("{} is not a retraction; move it away", self.shared.objects.uri(key)));
        let body = self.shared.objects.get(key).await?;
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(body).and_then(|builder| builder.with_batch_size(retraction::MAX_PARTS).build());
        let mut batches = reader.map_err(|error| odd().because(error))?;
        let rows = batches.next().ok_or_else(odd)?.map_err(|error| odd().because(error))?;
        Retraction::from_batch(table, &rows)
    }

    /// What is hidden of a table's overlay; `None` if nothing is retracted.
    pub(crate) async fn retracted(&self, table: &Table) -> Result<Option<Vec<Part>>> {
        let all = self.taken_back(table).await?;
        Ok((!all.is_empty()).then(|| in_force(&all).flat_map(|retraction| retraction.parts.iter().cloned()).collect()))
    }
}

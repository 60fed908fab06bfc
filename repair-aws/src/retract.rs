//! Retractions: one object each, written whole or not at all. Reads and the view join them, and leave out what they hide.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use repair_core::lake::overlay::retraction;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::model::{Interval, Table};
use repair_core::{Error, Result};

use crate::catalog::Relation;
use crate::lake::AwsLake;
use crate::objects::Condition;
use crate::place::Place;
use crate::sql::{Source, bound_ms};
use crate::write::{encode, in_lower_case};

/// Objects that are read at once.
const AT_ONCE: usize = 16;

impl AwsLake {
    pub(crate) async fn take_back(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        let rows = in_milliseconds(retraction)?.to_batch(table)?;
        let place = Place::of(&self.shared.location, table)?;
        let raw = self.tables().table(table).await?;
        let repairs = self.tables().repairs(&raw).await?;
        // What Athena would refuse is known before anything is written.
        if let Some(repairs) = &repairs {
            self.tables().check_view(table, &raw, repairs)?;
        }
        self.claim(table, &raw).await?;
        let retracted = self.tables().ensure_retractions(table, &raw).await?;
        // The view comes first: from then on, an object is all that it takes.
        if let Some(repairs) = &repairs {
            let source = Source { table, raw: &raw, repairs: Some(repairs), exceptions: None, retracted: Some(&retracted) };
            self.tables().ensure_view(&source, repairs).await?;
        }
        let key = format!("{}/{}", place.retractions, retraction::object(&retraction.id));
        let schema = in_lower_case(&rows.schema());
        let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec())?;
        let body = encode(&schema, std::slice::from_ref(&rows), Vec::new())?;
        match self.shared.objects.put(&key, body, Condition::IfNoneMatch).await {
            // An existing retraction stays.
            Err(error) if error.kind() == repair_core::ErrorKind::Conflict => Ok(()),
            put => put,
        }
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
        Retraction::from_batch(table, &with_own_names(table, &rows)?)
    }

    /// The retractions of a table, for statements; `None` if there are none.
    pub(crate) async fn retracted(&self, table: &Table, raw: &Relation) -> Result<Option<Relation>> {
        let place = Place::of(&self.shared.location, table)?;
        let some = self.shared.objects.first(&format!("{}/", place.retractions)).await?;
        if !some.iter().any(|object| object.key.ends_with(".parquet")) {
            return Ok(None);
        }
        // The objects say what is retracted; the catalog may have lost the table, or lack a column that they have.
        self.tables().ensure_retractions(table, raw).await.map(Some)
    }
}

/// A retraction as Athena reads it, which keeps milliseconds of a time. Bounds lie between rows, so they are rounded up.
///
/// # Errors
/// `invalid` if nothing is left of an interval.
fn in_milliseconds(retraction: &Retraction) -> Result<Retraction> {
    let up = |at: Timestamp| {
        let ms = bound_ms(at.as_microsecond())
            + i64::from(at.as_nanosecond().rem_euclid(1_000) > 0 && at.as_microsecond().rem_euclid(1_000) == 0);
        Timestamp::from_millisecond(ms).unwrap_or(at)
    };
    let parts = retraction.parts.iter().map(|part| {
        let interval = part.interval.map(|interval| {
            Interval::new(up(interval.from()), up(interval.to())).map_err(|error| {
                Error::invalid(format!("{interval} holds no whole millisecond, and Athena keeps no finer time; name a longer interval"))
                    .because(error)
            })
        });
        Ok(Part { interval: interval.transpose()?, ..part.clone() })
    });
    Ok(Retraction { parts: parts.collect::<Result<_>>()?, ..retraction.clone() })
}

/// The rows of a retraction with the names that the table's columns have, which are all in lower case in its object.
fn with_own_names(table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
    let known = retraction::schema(table);
    let named = rows
        .schema()
        .fields()
        .iter()
        .map(|field| match known.fields().iter().find(|known| known.name().eq_ignore_ascii_case(field.name())) {
            Some(known) => Arc::new(field.as_ref().clone().with_name(known.name())),
            None => field.clone(),
        })
        .collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(named)), rows.columns().to_vec())?)
}
